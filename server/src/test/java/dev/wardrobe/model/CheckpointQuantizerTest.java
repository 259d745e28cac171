package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class CheckpointQuantizerTest {
  private static final Golden GOLDEN = Golden.smallest();
  private static final long ONE_FILE = CheckpointQuantizer.DEFAULT_SHARD_BYTES;

  @TempDir private Path dir;

  @ParameterizedTest
  @CsvSource({"nf4-dq, NF4, true", "nf4, NF4, false", "fp4, FP4, false"})
  void quantize_isBitsandbytes(String variant, QuantType type, boolean doubleQuant)
      throws Exception {
    Path out = dir.resolve("out");
    quantize(
        GOLDEN.directory("unquantized"), out, new QuantOptions(type, 64, doubleQuant), ONE_FILE);
    isBitsandbytes(out, GOLDEN.directory(variant));
  }

  @ParameterizedTest
  @CsvSource({
    "llama3, nf4-dq",
    "llama_linear_rope, nf4-dq",
    "mistral, nf4-dq",
    "qwen2, nf4-dq",
    "qwen2_yarn, nf4-dq",
    "qwen3, nf4-dq",
    "smollm2, nf4-dq",
  })
  void quantize_isBitsandbytesForEveryFamily(String name, String variant) throws Exception {
    Path models = ReferenceFolder.require("golden/models");
    Path out = dir.resolve("out");
    quantize(models.resolve(name), out, QuantOptions.DEFAULT, ONE_FILE);
    isBitsandbytes(out, models.resolve(name + "-" + variant));
  }

  @Test
  void quantize_skippedModulesAreBitsandbytes() throws Exception {
    Path models = ReferenceFolder.require("golden/models");
    Path out = dir.resolve("out");
    CheckpointQuantizer.quantize(
        models.resolve("llama3"),
        out,
        new CheckpointQuantizer.Options(
            QuantOptions.DEFAULT, List.of("o_proj", "layers.1.mlp.down_proj"), ONE_FILE),
        (done, of, path) -> {});
    isBitsandbytes(out, models.resolve("llama3-nf4-dq-skip"));
  }

  /** The same files, but for 8-bit codes of scales, where ours are at least as near. */
  private static void isBitsandbytes(Path ours, Path theirs) throws IOException {
    assertThat(Files.readString(ours.resolve("config.json")))
        .isEqualTo(Files.readString(theirs.resolve("config.json")));
    assertThat(ours.resolve("generation_config.json"))
        .hasSameBinaryContentAs(theirs.resolve("generation_config.json"));
    try (Checkpoint a = Checkpoint.open(ours);
        Checkpoint b = Checkpoint.open(theirs)) {
      assertThat(a.tensors().keySet()).isEqualTo(b.tensors().keySet());
      for (TensorInfo expected : b.tensors().values()) {
        String name = expected.name();
        TensorInfo actual = a.find(name);
        assertThat(actual).isNotNull();
        assertThat(actual.dtype()).as(name).isEqualTo(expected.dtype());
        assertThat(actual.shape()).as(name).isEqualTo(expected.shape());
        boolean nested = a.find(name.replace(".absmax", ".nested_absmax")) != null;
        if (name.endsWith(".absmax") && nested) {
          scalesAreAsNear(a, b, name);
        } else {
          assertThat(a.data(actual).mismatch(b.data(expected))).as(name).isEqualTo(-1);
        }
      }
    }
  }

  private static void scalesAreAsNear(Checkpoint ours, Checkpoint theirs, String name)
      throws IOException {
    String weight = name.substring(0, name.length() - ".absmax".length());
    Module module = new Modules(config(ours), path -> true).find(weight.replace(".weight", ""));
    assertThat(module).isNotNull();
    QuantizedMatrix a = BitsAndBytes.read(ours, weight, module.out(), module.in());
    QuantizedMatrix b = BitsAndBytes.read(theirs, weight, module.out(), module.in());
    int differing = 0;
    for (long block = 0; block < a.blocks(); block++) {
      byte own = a.absmaxCodes().get(ValueLayout.JAVA_BYTE, block);
      differing += own == b.absmaxCodes().get(ValueLayout.JAVA_BYTE, block) ? 0 : 1;
    }
    // bitsandbytes looks codes up in a table of 65,536 bins, and is at times a code off.
    assertThat(differing).as(name).isLessThanOrEqualTo((int) (a.blocks() / 20 + 1));
  }

  private static ModelConfig config(Checkpoint checkpoint) throws IOException {
    try {
      return ModelConfig.read(checkpoint.directory());
    } catch (ModelException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void quantize_twiceGivesTheSameBytes() throws Exception {
    Path first = dir.resolve("first");
    Path second = dir.resolve("second");
    Files.createDirectory(second);
    quantize(GOLDEN.directory("unquantized"), first, QuantOptions.DEFAULT, 50_000);
    quantize(GOLDEN.directory("unquantized"), second, QuantOptions.DEFAULT, 50_000);
    Map<String, byte[]> files = files(first);
    assertThat(files(second).keySet()).isEqualTo(files.keySet());
    files(second).forEach((name, bytes) -> assertThat(bytes).as(name).isEqualTo(files.get(name)));
  }

  @Test
  void quantize_shards() throws Exception {
    Path whole = dir.resolve("whole");
    Path cut = dir.resolve("cut");
    quantize(GOLDEN.directory("unquantized"), whole, QuantOptions.DEFAULT, ONE_FILE);
    var result = quantize(GOLDEN.directory("unquantized"), cut, QuantOptions.DEFAULT, 50_000);
    assertThat(result.files()).hasSizeGreaterThan(2).allMatch(Files::isRegularFile);
    assertThat(result.files().getFirst())
        .isEqualTo(cut.resolve("model-00001-of-%05d.safetensors".formatted(result.files().size())));
    long bytes = 0;
    for (Path file : result.files()) {
      try (SafetensorsFile shard = SafetensorsFile.open(file)) {
        assertThat(shard.metadata()).isEqualTo(Map.of("format", "pt"));
        long size = shard.tensors().values().stream().mapToLong(TensorInfo::byteSize).sum();
        // A weight alone may be larger.
        assertThat(size <= 50_000 || shard.tensors().size() == 1).isTrue();
        bytes += size;
      }
    }
    var index = Fields.MAPPER.readTree(cut.resolve("model.safetensors.index.json").toFile());
    assertThat(index.at("/metadata/total_size").longValue()).isEqualTo(bytes);
    assertThat(index.at("/metadata/total_parameters").longValue()).isEqualTo(166208);
    try (Checkpoint a = Checkpoint.open(cut);
        Checkpoint b = Checkpoint.open(whole)) {
      assertThat(a.tensors().keySet()).isEqualTo(b.tensors().keySet());
      for (String name : a.tensors().keySet()) {
        TensorInfo left = a.find(name);
        TensorInfo right = b.find(name);
        assertThat(left).isNotNull();
        assertThat(right).isNotNull();
        assertThat(a.data(left).mismatch(b.data(right))).as(name).isEqualTo(-1);
      }
    }
    assertThat(Inspection.of(cut, LoadOptions.DEFAULT, true).fingerprint())
        .isEqualTo(result.fingerprint())
        .isEqualTo(
            Inspection.of(GOLDEN.directory("nf4-dq"), LoadOptions.DEFAULT, true).fingerprint());
    assertThat(Inspection.of(cut, LoadOptions.DEFAULT, false).stored()).isEqualTo(result.memory());
  }

  @Test
  void quantize_copiesTokenizerAndTemplates() throws Exception {
    Path model = dir.resolve("model");
    copy(GOLDEN.directory("unquantized"), model);
    Files.writeString(model.resolve("tokenizer.json"), "{\"é\": 1}\n");
    Files.writeString(model.resolve("chat_template.jinja"), "{{ messages }}");
    Files.writeString(model.resolve("LICENSE"), "free");
    Files.writeString(model.resolve("README.md"), "about the original");
    Files.writeString(model.resolve("model.bin"), "pickle");
    Files.createDirectories(model.resolve("additional_chat_templates"));
    Files.writeString(model.resolve("additional_chat_templates/tools.jinja"), "{{ tools }}");
    Path out = dir.resolve("out");
    quantize(model, out, QuantOptions.DEFAULT, ONE_FILE);
    assertThat(files(out).keySet())
        .containsExactly(
            "LICENSE",
            "additional_chat_templates/tools.jinja",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json");
    assertThat(files(out).get("tokenizer.json")).isEqualTo(files(model).get("tokenizer.json"));
  }

  @Test
  void quantize_configIsOtherwiseVerbatim() throws Exception {
    Path model = dir.resolve("model");
    copy(GOLDEN.directory("unquantized"), model);
    Path config = model.resolve("config.json");
    String own = Files.readString(config).replace("1e-05", "1.00e-5").replace("\n}", "");
    Files.writeString(config, own + ",\n\t\"zz_mine\":  [1 , 2.50]\n}\n");
    Path out = dir.resolve("out");
    quantize(model, out, QuantOptions.DEFAULT, ONE_FILE);
    String written = Files.readString(out.resolve("config.json"));
    int from = written.indexOf("\"quantization_config\"");
    int to = written.indexOf("\"rms_norm_eps\"");
    assertThat(written.substring(0, from) + written.substring(to))
        .isEqualTo(Files.readString(config));
  }

  @Test
  void quantize_refusals() throws Exception {
    Path out = dir.resolve("out");
    assertThatThrownBy(() -> quantize(GOLDEN.directory("nf4"), out, QuantOptions.DEFAULT, ONE_FILE))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("is quantized already; serve it as it is, or quantize the original");
    Files.createDirectory(out);
    Files.writeString(out.resolve("mine"), "x");
    assertThatThrownBy(
            () -> quantize(GOLDEN.directory("unquantized"), out, QuantOptions.DEFAULT, ONE_FILE))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("is not empty; name a new directory");
    assertThatThrownBy(
            () ->
                quantize(
                    GOLDEN.directory("unquantized"),
                    out.resolve("mine"),
                    QuantOptions.DEFAULT,
                    ONE_FILE))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("is a file");
    assertThat(files(dir).keySet()).containsExactly("out/mine");
  }

  @Test
  void quantize_failureLeavesNothing() throws Exception {
    Path model = dir.resolve("model");
    copy(GOLDEN.directory("unquantized"), model);
    Path weights = model.resolve("model.safetensors");
    byte[] bytes = Files.readAllBytes(weights);
    // The last weight's last element becomes a NaN.
    Arrays.fill(bytes, bytes.length - 4, bytes.length, (byte) 0xff);
    Files.write(weights, bytes);
    assertThatThrownBy(() -> quantize(model, dir.resolve("out"), QuantOptions.DEFAULT, ONE_FILE))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("tensor model.norm.weight: element 63 is NaN");
    try (Stream<Path> left = Files.list(dir)) {
      assertThat(left).containsExactly(model);
    }
  }

  private static CheckpointQuantizer.Result quantize(
      Path model, Path out, QuantOptions options, long shardBytes)
      throws ModelException, IOException {
    List<String> done = new ArrayList<>();
    var result =
        CheckpointQuantizer.quantize(
            model,
            out,
            new CheckpointQuantizer.Options(options, List.of(), shardBytes),
            (count, of, path) -> {
              done.add(path);
              assertThat(count).isEqualTo(done.size()).isLessThanOrEqualTo(of);
            });
    assertThat(done).contains("model.embed_tokens", "model.norm");
    return result;
  }

  private static void copy(Path from, Path to) throws IOException {
    Files.createDirectory(to);
    for (var file : files(from).entrySet()) {
      Files.write(to.resolve(file.getKey()), file.getValue());
    }
  }

  private static Map<String, byte[]> files(Path directory) throws IOException {
    Map<String, byte[]> files = new TreeMap<>();
    try (Stream<Path> paths = Files.walk(directory)) {
      for (Path path : paths.filter(Files::isRegularFile).toList()) {
        files.put(directory.relativize(path).toString(), Files.readAllBytes(path));
      }
    }
    return files;
  }
}
