package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.model.Module;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Which modules a config means, and with which rank and scale, against PEFT itself. */
final class TargetsTest {
  private static final JsonNode EXPECTED = Adapters.expectations("targets.json");

  static List<JsonNode> cases() {
    List<JsonNode> cases = new ArrayList<>();
    EXPECTED.get("cases").forEach(cases::add);
    return cases;
  }

  @ParameterizedTest
  @MethodSource("cases")
  void resolve_asPeftDoes(JsonNode expected) throws Exception {
    for (String base : List.of("llama", "qwen3")) {
      List<Module> modules = modules(base);
      byte[] json = config(expected.get("config"));
      if (expected.get(base).has("error")) {
        assertThatThrownBy(() -> resolve(json, modules)).isInstanceOf(AdapterException.class);
        continue;
      }
      Resolution got = resolve(json, modules);
      Map<String, String> adapted = new TreeMap<>();
      for (Map.Entry<String, JsonNode> entry : expected.get(base).get("adapted").properties()) {
        adapted.put(
            entry.getKey(),
            entry.getValue().get(0).intValue() + " " + entry.getValue().get(1).doubleValue());
      }
      List<String> replaced = new ArrayList<>();
      expected.get(base).get("replaced").forEach(path -> replaced.add(path.textValue()));
      assertThat(got.adapted).as("%s %s", base, expected.get("config")).isEqualTo(adapted);
      assertThat(got.replaced).as("%s %s", base, expected.get("config")).isEqualTo(replaced);
    }
  }

  private record Resolution(Map<String, String> adapted, List<String> replaced) {}

  private static Resolution resolve(byte[] json, List<Module> modules) throws AdapterException {
    AdapterConfig config = AdapterConfig.parse(json, AdapterOptions.DEFAULT);
    PythonRegex.Steps steps = new PythonRegex.Steps();
    Targets.Resolved resolved = config.targets().resolve(modules, steps);
    Map<String, String> adapted = new TreeMap<>();
    for (Module module : resolved.adapted()) {
      Gate.Plan plan = Gate.plan(config, module, steps);
      adapted.put(module.path(), plan.rank() + " " + plan.scaling());
    }
    return new Resolution(
        adapted, resolved.replaced().stream().map(Module::path).sorted().toList());
  }

  private static byte[] config(JsonNode fields) {
    ObjectNode config = Adapters.JSON.createObjectNode();
    config.put("peft_type", "LORA");
    config.setAll((ObjectNode) fields);
    return config.toString().getBytes(StandardCharsets.UTF_8);
  }

  private static List<Module> modules(String base) {
    List<Module> modules = new ArrayList<>();
    for (Map.Entry<String, JsonNode> entry : EXPECTED.get("bases").get(base).properties()) {
      Module.Kind kind = Module.Kind.valueOf(entry.getValue().textValue());
      modules.add(new Module(modules.size(), entry.getKey(), kind, 8, 8, false, false));
    }
    return modules;
  }

  @Test
  void resolve_replacingWhatIsQuantized() {
    List<Module> modules =
        modules("llama").stream()
            .map(
                m ->
                    new Module(
                        m.id(), m.path(), m.kind(), 8, 8, m.kind() == Module.Kind.LINEAR, false))
            .toList();
    byte[] json =
        """
        {"peft_type": "LORA", "target_modules": ["v_proj"], "modules_to_save": ["layers.0.mlp"]}\
        """
            .getBytes(StandardCharsets.UTF_8);
    assertThatThrownBy(() -> resolve(json, modules))
        .hasMessageContaining("model.layers.0.mlp.gate_proj")
        .hasMessageContaining("4 bits");
  }
}
