package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class AdapterConfigTest {

  private static AdapterConfig parse(String fields) throws AdapterException {
    return raw("{\"peft_type\": \"LORA\", \"target_modules\": [\"v_proj\"]" + fields + "}");
  }

  private static AdapterConfig raw(String json) throws AdapterException {
    return AdapterConfig.parse(json.getBytes(StandardCharsets.UTF_8), AdapterOptions.DEFAULT);
  }

  @Test
  void table_coversLoraConfigWithItsDefaults() throws Exception {
    Map<String, JsonNode> theirs = new TreeMap<>();
    Adapters.expectations("lora_config.json")
        .properties()
        .forEach(field -> theirs.put(field.getKey(), field.getValue()));
    Map<String, JsonNode> ours = new TreeMap<>();
    for (PeftField field : PeftField.ALL.values()) {
      ours.put(field.name(), Adapters.JSON.readTree(field.preset()));
    }
    assertThat(ours).isEqualTo(theirs);
  }

  @Test
  void table_isInTheDocumentation() throws Exception {
    Path page = Path.of(System.getProperty("wardrobe.root", "..")).resolve("docs/adapters.md");
    String table =
        PeftField.ALL.values().stream()
            .map(
                f ->
                    "| `%s` | %s | %s |"
                        .formatted(f.name(), f.use().toString().toLowerCase(Locale.ROOT), f.note()))
            .collect(Collectors.joining("\n"));
    assertThat(Files.readString(page)).contains(table);
  }

  @Test
  void parse_defaultsArePeftsOwn() throws Exception {
    AdapterConfig config = raw("{\"peft_type\": \"LORA\"}");
    assertThat(config.rank()).isEqualTo(8);
    assertThat(config.alpha()).isEqualTo(8);
    assertThat(config.bias()).isEqualTo(AdapterConfig.Bias.NONE);
    assertThat(config.warnings()).isEmpty();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "alora_invocation_tokens | [1, 2]",
        "arrow_config | {\"top_k\": 3}",
        "fan_in_fan_out | true",
        "kasa_config | {\"beta\": 0.1}",
        "layer_replication | [[0, 2]]",
        "megatron_config | {\"a\": 1}",
        "monteclora_config | {\"num_samples\": 8}",
        "target_parameters | [\"experts.weight\"]",
        "trainable_token_indices | [3]",
        "use_bdlora | {\"nblocks\": 2}",
        "use_qalora | true",
        "velora_config | {\"scale\": 1}",
        "init_lora_weights | \"pissa\"",
        "init_lora_weights | \"pissa_niter_16\"",
        "init_lora_weights | \"olora\"",
        "init_lora_weights | \"OLoRA\"",
        "init_lora_weights | \"corda\"",
        "init_lora_weights | \"lora_ga\"",
        "init_lora_weights | \"something\"",
        "init_lora_weights | 3",
        "something_new | 1",
        "something_new | 0",
        "something_new | \"x\"",
        "something_new | [0]",
        "r | 0",
        "r | -8",
        "r | 8.0",
        "r | \"8\"",
        "r | true",
        "r | null",
        "r | 1000000",
        "r | 99999999999999999999",
        "lora_alpha | \"NaN\"",
        "lora_alpha | null",
        "lora_alpha | true",
        "lora_alpha | 1e999",
        "lora_alpha | NaN",
        "rank_pattern | {\"q_proj\": 0}",
        "rank_pattern | {\"q_proj\": \"4\"}",
        "rank_pattern | [1]",
        "rank_pattern | {\"q_(\": 4}",
        "alpha_pattern | {\"q_proj\": \"x\"}",
        "bias | \"some\"",
        "bias | true",
        "use_dora | 1",
        "use_rslora | \"yes\"",
        "modules_to_save | \"lm_head\"",
        "modules_to_save | [1]",
        "modules_to_save | [\"\"]",
        "layers_to_transform | \"1\"",
        "layers_to_transform | [1.5]",
        "layers_to_transform | 1, \"layers_pattern\": \"a|b\"",
        "exclude_modules | 3",
        "task_type | \"NONSENSE\"",
        "base_model_name_or_path | 3",
        "wardrobe_base_fingerprint | 3",
      })
  void parse_refusesByName(String key, String value) {
    assertThatThrownBy(() -> parse(", \"" + key + "\": " + value))
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.INVALID))
        .hasMessageStartingWith("adapter_config.json: ")
        .message()
        .doesNotContain("\n")
        .matches(m -> m.contains(key) || m.contains("strict JSON"), "names " + key);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "\"init_lora_weights\": false",
        "\"init_lora_weights\": \"gaussian\"",
        "\"init_lora_weights\": \"eva\", \"eva_config\": {\"rho\": 2.0}",
        "\"init_lora_weights\": \"orthogonal\"",
        "\"corda_config\": {\"corda_method\": \"ipm\"}, \"lora_ga_config\": {\"scale\": \"unit\"}",
        "\"something_new\": null",
        "\"something_new\": false",
        "\"something_new\": \"\"",
        "\"something_new\": []",
        "\"something_new\": {}",
        "\"runtime_config\": {\"ephemeral_gpu_offload\": true}",
        "\"auto_mapping\": {\"base_model_class\": \"LlamaForCausalLM\"}",
        "\"qalora_group_size\": 32",
        "\"lora_alpha\": 0.5",
        "\"lora_alpha\": -3",
        "\"lora_dropout\": 0.1",
        "\"rank_pattern\": null, \"alpha_pattern\": null",
        "\"layer_replication\": []",
        "\"task_type\": null",
        "\"peft_version\": \"0.99.0\"",
      })
  void parse_acceptsWhatDoesNotMatter(String field) throws Exception {
    assertThat(parse(", " + field).warnings()).isEmpty();
  }

  @Test
  void parse_loftQDependsOnItsRounds() throws Exception {
    assertThat(parse(", \"init_lora_weights\": \"loftq\"").warnings()).hasSize(1);
    assertThat(
            parse(
                    ", \"init_lora_weights\": \"loftq\", \"loftq_config\": {\"loftq_bits\": 4,"
                        + " \"loftq_iter\": 1}")
                .warnings())
        .hasSize(1);
    assertThatThrownBy(
            () ->
                parse(", \"init_lora_weights\": \"loftq\", \"loftq_config\": {\"loftq_iter\": 5}"))
        .hasMessageContaining("init_lora_weights");
    assertThatThrownBy(
            () ->
                parse(", \"init_lora_weights\": \"loftq\", \"loftq_config\": {\"loftq_bits\": 8}"))
        .hasMessageContaining("init_lora_weights");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "[1, 2]",
        "null",
        "{\"peft_type\": \"LORA\"} {}",
        "{\"peft_type\": \"LORA\",}",
        "{\"peft_type\": \"LORA\", \"r\": 4, \"r\": 8}",
        "\ufeff{\"peft_type\": \"LORA\"}",
        "{'peft_type': 'LORA'}",
        "{\"peft_type\": \"LORA\" // comment\n}",
      })
  void parse_refusesOtherThanStrictJson(String json) {
    assertThatThrownBy(() -> raw(json))
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.INVALID));
  }

  @Test
  void parse_refusesDeepJsonAndOtherEncodings() {
    String deep = "{\"peft_type\": \"LORA\", \"auto_mapping\": " + "[".repeat(50_000);
    assertThatThrownBy(() -> raw(deep)).hasMessageContaining("deep");
    assertThatThrownBy(
            () -> AdapterConfig.parse(new byte[] {'{', (byte) 0xff, '}'}, AdapterOptions.DEFAULT))
        .hasMessageContaining("UTF-8");
  }

  @Test
  void parse_messagesStayOnOneLine() {
    assertThatThrownBy(() -> parse(", \"a\\nb\\u202e\": \"" + "x\\n".repeat(10_000) + "\""))
        .message()
        .hasSizeLessThan(800)
        .doesNotContain("\n", "\u202e");
  }

  @Test
  void rank_ofALargeModelWithAKeyForEachModule() throws Exception {
    StringBuilder keys = new StringBuilder();
    for (int layer = 0; layer < 200; layer++) {
      for (String name : new String[] {"q_proj", "k_proj", "v_proj", "o_proj"}) {
        keys.append(",\"model.layers.%d.self_attn.%s\": %d".formatted(layer, name, layer + 1));
      }
    }
    AdapterConfig config = parse(", \"rank_pattern\": {" + keys.substring(1) + "}");
    PythonRegex.Steps steps = new PythonRegex.Steps();
    for (int layer = 0; layer < 200; layer++) {
      String path = "model.layers." + layer + ".self_attn.o_proj";
      assertThat(config.rank(path, steps)).isEqualTo(layer + 1);
    }
    assertThat(config.rank("model.layers.3.mlp.up_proj", steps)).isEqualTo(8);
  }

  @ParameterizedTest
  @CsvSource(
      nullValues = "-",
      value = {
        "q_proj, model.layers.0.self_attn.q_proj, true",
        "q_proj, q_proj, true",
        "_proj, model.layers.0.self_attn.q_proj, false",
        "self.attn.q_proj, model.layers.0.self_attn.q_proj, true",
        "self\\.attn.q_proj, model.layers.0.self_attn.q_proj, false",
        "self_attn\\.q_proj, model.layers.0.self_attn.q_proj, true",
        "model.layers.0.self_attn.q_proj, model.layers.0.self_attn.q_proj, true",
        "model.layers.0.self_attn.q_proj.x, model.layers.0.self_attn.q_proj, false",
        ".q_proj, model.layers.0.self_attn.q_proj, false",
        "..........q_proj, model.layers.0.self_attn.q_proj, true",
      })
  void patternKey_plainIsAsTheExpression(String key, String path, boolean expected) {
    PythonRegex.Steps steps = new PythonRegex.Steps();
    assertThat(PythonRegex.compile("(.*\\.)?(" + key + ")$").matchesStart(path, steps))
        .isEqualTo(expected);
    assertThat(new PatternKey(key).matches(path, steps)).isEqualTo(expected);
  }

  @Test
  @Timeout(20)
  void parse_hostileSizesEndSoon() throws Exception {
    String slashes = "/".repeat(1_000_000);
    assertThat(parse(", \"base_model_name_or_path\": \"" + slashes + "x\"").base())
        .hasSize(1_000_001);
    String many = "\"a\",".repeat(500_000) + "\"b\"";
    assertThatThrownBy(() -> parse(", \"modules_to_save\": [" + many + "]"))
        .hasMessageContaining("modules_to_save");
    assertThat(parse(", \"exclude_modules\": [" + many + "]").rank()).isEqualTo(8);
  }
}
