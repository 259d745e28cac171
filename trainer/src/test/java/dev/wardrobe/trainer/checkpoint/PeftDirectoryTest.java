package dev.wardrobe.trainer.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterSummary;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.model.Module;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.trainer.backward.Parameter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class PeftDirectoryTest {
  private static final Path BASE =
      Path.of(System.getProperty("wardrobe.root", ".."))
          .resolve("server/src/test/resources/golden/models/llama_mha-nf4-dq");
  private static final ObjectMapper MAPPER = new ObjectMapper();

  @TempDir private Path folder;
  private CpuBackend backend;
  private Model model;
  private final List<Parameter> parameters = new ArrayList<>();

  @BeforeEach
  void load() throws Exception {
    backend = new CpuBackend(1);
    model = ModelLoader.load(BASE, LoadOptions.DEFAULT, backend);
  }

  @AfterEach
  void close() {
    for (Parameter parameter : parameters) {
      parameter.value().close();
      parameter.gradient().close();
    }
    model.close();
    backend.close();
  }

  private void add(String name, Parameter.Role role, int rows, int width) {
    Buffer value = backend.buffer(rows, width);
    float[] values = new float[rows * width];
    Random random = new Random(parameters.size());
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextFloat() - 0.5f;
    }
    backend.write(value, 0, values);
    parameters.add(new Parameter(name, role, value, backend.buffer(rows, width)));
  }

  private ObjectNode options(boolean dora, String... targets) {
    ObjectNode known = MAPPER.createObjectNode();
    known.put("peft_type", "LORA").put("task_type", "CAUSAL_LM").put("bias", "none");
    known.put("r", 3).put("lora_alpha", 6).put("use_dora", dora).put("lora_dropout", 0.1);
    for (String target : targets) {
      known.withArray("target_modules").add(target);
    }
    return known;
  }

  private ObjectNode adapter(boolean dora) {
    for (Module module : model.modules().all()) {
      if (module.path().endsWith("q_proj") || module.path().endsWith("down_proj")) {
        String path = "base_model.model." + module.path();
        add(path + ".lora_A.weight", Parameter.Role.A, 3, module.in());
        add(path + ".lora_B.weight", Parameter.Role.B, module.out(), 3);
        if (dora) {
          add(path + ".lora_magnitude_vector", Parameter.Role.MAGNITUDE, 1, module.out());
        }
      }
    }
    return PeftDirectory.config(options(dora, "q_proj", "down_proj"), model.name());
  }

  private void write(boolean dora) throws Exception {
    PeftDirectory.write(folder, adapter(dora), model.fingerprint(), parameters, backend);
  }

  @Test
  void write_isReadByTheServer() throws Exception {
    for (boolean dora : new boolean[] {false, true}) {
      parameters.clear();
      write(dora);
      try (Adapter adapter = Adapter.read(folder, model, AdapterOptions.DEFAULT)) {
        assertThat(adapter.warnings()).isEmpty();
        assertThat(adapter.deltas()).hasSize(4);
        assertThat(adapter.deltas().values().iterator().next().magnitude() != null).isEqualTo(dora);
      }
      AdapterSummary summary = AdapterSummary.read(folder, AdapterOptions.DEFAULT);
      assertThat(summary.rank()).isEqualTo(3);
      try (SafetensorsFile file = SafetensorsFile.open(folder.resolve(Adapter.WEIGHTS))) {
        assertThat(file.metadata())
            .containsEntry("format", "pt")
            .containsEntry(Adapter.BASE_FINGERPRINT, model.fingerprint());
        for (Parameter parameter : parameters) {
          assertThat(file.floats(file.require(parameter.name())))
              .isEqualTo(backend.read(parameter.value(), 0, parameter.value().rows()));
        }
      }
    }
  }

  @Test
  void write_forAnotherBase_isRefusedByTheServer() throws Exception {
    PeftDirectory.write(folder, adapter(false), "0".repeat(64), parameters, backend);
    assertThatThrownBy(() -> Adapter.read(folder, model, AdapterOptions.DEFAULT))
        .isInstanceOf(AdapterException.class)
        .hasMessageContaining("fingerprint");
  }

  @Test
  void config_isWhatPeftWrites() throws Exception {
    write(false);
    String text = Files.readString(folder.resolve(Adapter.CONFIG));
    assertThat(text)
        .startsWith("{\n  \"alora_invocation_tokens\": null,\n  \"alpha_pattern\": {},\n")
        .contains("\n  \"target_modules\": [\n    \"q_proj\",\n    \"down_proj\"\n  ],\n")
        .contains("\n  \"inference_mode\": true,\n")
        .contains("\n  \"lora_dropout\": 0.1,\n")
        .contains("\n  \"base_model_name_or_path\": \"llama_mha-nf4-dq\",\n")
        .endsWith("\n}");
    JsonNode config = MAPPER.readTree(text);
    List<String> names = new ArrayList<>();
    config.fieldNames().forEachRemaining(names::add);
    assertThat(names).isSorted();
    // The fields of an adapter that PEFT 0.21.2 has written.
    JsonNode peft =
        MAPPER.readTree(
            Files.readString(
                BASE.resolve("../../adapters/llama_mha/lora_r8_qv/adapter_config.json")));
    List<String> theirs = new ArrayList<>();
    peft.fieldNames().forEachRemaining(theirs::add);
    assertThat(names).containsExactlyElementsOf(theirs);
  }

  @Test
  void write_sameAgain_isTheSameBytes() throws Exception {
    write(true);
    byte[] weights = Files.readAllBytes(folder.resolve(Adapter.WEIGHTS));
    byte[] config = Files.readAllBytes(folder.resolve(Adapter.CONFIG));
    PeftDirectory.write(
        folder,
        PeftDirectory.config(options(true, "q_proj", "down_proj"), model.name()),
        model.fingerprint(),
        parameters,
        backend);
    assertThat(folder.resolve(Adapter.WEIGHTS)).hasBinaryContent(weights);
    assertThat(folder.resolve(Adapter.CONFIG)).hasBinaryContent(config);
  }
}
