package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.MemoryUse;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

/** {@code quantize}, {@code inspect} and what {@code serve} refuses, from the command line. */
final class ModelCommandsTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");

  @TempDir private Path dir;
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  @Test
  void quantize_thenInspect() throws Exception {
    Path quantized = dir.resolve("demo-nf4");
    int code = run("quantize", "--model", DEMO.toString(), "--out", quantized.toString());
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    assertThat(out.toString())
        .contains("4820224 parameters")
        .contains("4.127 bits per quantized weight");

    JsonNode before = inspect(DEMO);
    assertThat(before.get("types")).hasSize(1);
    assertThat(before.at("/stored/packed_bytes").longValue()).isZero();
    JsonNode after = inspect(quantized);
    assertThat(after.get("stored")).isEqualTo(before.get("quantized"));
    assertThat(after.get("quantized").isNull()).isTrue();
    assertThat(after.at("/stored/packed_bytes").longValue()).isEqualTo(4423680 / 2);
    assertThat(after.at("/stored/absmax_bytes").longValue()).isEqualTo(4423680 / 64);
    assertThat(after.at("/stored/nested_absmax_bytes").longValue()).isEqualTo(4423680 / 16384 * 4);
    assertThat(after.at("/stored/bits_per_weight").doubleValue()).isBetween(4.1265, 4.1275);
    assertThat(after.get("kv_bytes_per_token_f32").longValue()).isEqualTo(2 * 6 * 4 * 32 * 4);
    assertThat(after.get("file_bytes").longValue())
        .isEqualTo(Files.size(quantized.resolve("model.safetensors")));

    assertThat(run("inspect", "--fingerprint", quantized.toString())).isZero();
    assertThat(out.toString())
        .contains("weights as bfloat16, nf4 in blocks of 64")
        .contains("base at 4 bits                 2,211,840 bytes")
        .contains("bits per weight                    4.127")
        .containsPattern("fingerprint [0-9a-f]{64}");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "--quantize-head", "--quantize none", "--no-double-quant"})
  void inspect_residentIsWhatLoadingTakes(String option) throws Exception {
    LoadOptions load =
        switch (option) {
          case "--quantize-head" -> LoadOptions.DEFAULT.withQuantizeHead(true);
          case "--quantize none" -> LoadOptions.AS_STORED;
          case "--no-double-quant" ->
              new LoadOptions(new QuantOptions(QuantType.NF4, 64, false), List.of());
          default -> LoadOptions.DEFAULT;
        };
    List<String> words = new ArrayList<>(List.of("inspect", DEMO.toString(), "--kv-tokens", "100"));
    words.addAll(List.of(option.split(" ")));
    words.remove("");
    long weights;
    try (CpuBackend backend = new CpuBackend(1);
        Model model = ModelLoader.load(DEMO, load, backend)) {
      MemoryUse use = model.memory();
      weights = use.total();
      words.add("--json");
      assertThat(run(words.toArray(new String[0]))).isZero();
      JsonNode resident = new ObjectMapper().readTree(out.toString()).get("resident");
      assertThat(resident.get("head_quantized").booleanValue()).isEqualTo(load.quantizeHead());
      assertThat(resident.get("quantized_bytes").longValue()).isEqualTo(use.quantized());
      assertThat(resident.get("other_weight_bytes").longValue())
          .isEqualTo(weights - use.quantized());
      assertThat(resident.get("kv_tokens").longValue()).isEqualTo(112);
      assertThat(resident.get("kv_bytes").longValue()).isEqualTo(112L * 2 * 6 * 4 * 32 * 2);
      assertThat(resident.get("total_bytes").longValue())
          .isEqualTo(weights + 112L * 2 * 6 * 4 * 32 * 2 + (256 << 20));
    }
    words.removeLast();
    assertThat(run(words.toArray(new String[0]))).isZero();
    assertThat(out.toString())
        .contains("resident when served with these options, without adapters:")
        .containsPattern("KV cache when full +344,064 bytes, 112 tokens as bf16")
        .containsPattern("JVM and workspace +268,435,456 bytes, allowed for")
        .containsPattern(
            String.format(Locale.ROOT, "total +%,d bytes", weights + 344_064 + (256 << 20)));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "--type int4 | 2 | --type: expected nf4 or fp4, got 'int4'",
        "--block-size 63 | 2 | --block-size: expected 64, 128 or 256, got 63",
        "--shard-bytes 0 | 2 | --shard-bytes: expected at least 1, got 0",
        "--skip nothing | 1 | wardrobe: skip 'nothing': matches no projection",
        "--skip ( | 1 | wardrobe: skip '(': not a regular expression",
      })
  void quantize_refused(String options, int code, String message) {
    String[] words = options.strip().split(" ", 2);
    Path target = dir.resolve("out");
    assertThat(
            run(
                "quantize",
                "--model",
                DEMO.toString(),
                "--out",
                target.toString(),
                words[0],
                words[1]))
        .isEqualTo(code);
    assertThat(err.toString()).contains(message);
    assertThat(target).doesNotExist();
  }

  @Test
  void inspect_errorIsOneLine() throws Exception {
    assertThat(run("inspect", dir.resolve("absent").toString())).isEqualTo(1);
    assertThat(err.toString().lines()).singleElement().asString().startsWith("wardrobe: ");
    Files.writeString(dir.resolve("config.json"), "{\"model_type\": \"gpt2\"}");
    assertThat(run("inspect", "--json", dir.toString())).isEqualTo(1);
    assertThat(err.toString().lines())
        .singleElement()
        .asString()
        .contains("model_type 'gpt2' is not supported; supported are llama");
    assertThat(out.toString()).isEmpty();
  }

  @Test
  void serve_portFileThatCannotBeWritten() {
    Path portFile = dir.resolve("absent/port");
    int code =
        run("serve", "--model", DEMO.toString(), "--port", "0", "--port-file", portFile.toString());

    assertThat(code).isEqualTo(1);
    assertThat(out.toString()).isEmpty();
    assertThat(err.toString().lines())
        .singleElement()
        .asString()
        .contains("--port-file")
        .contains(portFile.toString());
  }

  @Test
  void inspect_adapter() throws Exception {
    Path adapter = DEMO.resolveSibling("adapters").resolve("sql");
    JsonNode tree = inspect(adapter);
    assertThat(tree.get("kind").textValue()).isEqualTo("adapter");
    assertThat(tree.get("type").textValue()).isEqualTo("rslora");
    assertThat(tree.get("r").intValue()).isEqualTo(16);
    assertThat(tree.get("ranks")).hasSize(1);
    assertThat(tree.get("tensors").intValue()).isEqualTo(2 * tree.get("modules").intValue());
    assertThat(tree.get("weight_bytes").longValue())
        .isEqualTo(Files.size(adapter.resolve("adapter_model.safetensors")));
    assertThat(run("inspect", adapter.toString())).isZero();
    assertThat(out.toString())
        .contains("sql: rslora adapter, r 16")
        .endsWith("digest " + tree.get("digest").textValue() + System.lineSeparator());
  }

  @Test
  void inspect_brokenAdapterIsOneLine() throws Exception {
    Files.writeString(dir.resolve("adapter_config.json"), "[]");
    assertThat(run("inspect", dir.toString())).isEqualTo(1);
    assertThat(err.toString().lines())
        .singleElement()
        .asString()
        .contains("adapter_config.json: expected a JSON object");
    Files.writeString(dir.resolve("adapter_config.json"), "{\"peft_type\": \"LORA\"}");
    Files.write(dir.resolve("adapter_model.safetensors"), new byte[] {1, 2, 3});
    assertThat(run("inspect", "--json", dir.toString())).isEqualTo(1);
    assertThat(err.toString().lines())
        .singleElement()
        .asString()
        .contains("adapter_model.safetensors");
    assertThat(out.toString()).isEmpty();
  }

  private JsonNode inspect(Path model) throws Exception {
    assertThat(run("inspect", "--json", model.toString())).isZero();
    return new ObjectMapper().readTree(out.toString());
  }

  private int run(String... args) {
    out.getBuffer().setLength(0);
    err.getBuffer().setLength(0);
    CommandLine commandLine = Main.commandLine();
    commandLine.setOut(new PrintWriter(out, true));
    commandLine.setErr(new PrintWriter(err, true));
    return commandLine.execute(args);
  }
}
