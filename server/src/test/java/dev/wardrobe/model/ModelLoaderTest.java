package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class ModelLoaderTest {
  private static final Golden GOLDEN = Golden.smallest();

  @TempDir private Path dir;
  private final CpuBackend backend = new CpuBackend(1);

  @AfterEach
  void nothingIsLeft() {
    assertThat(backend.liveBytes()).isZero();
    backend.close();
  }

  @Test
  void load_unquantizedIsQuantizedByDefault() throws Exception {
    try (Model model = load(GOLDEN.directory("unquantized"), LoadOptions.DEFAULT)) {
      assertThat(model.name()).isEqualTo("llama_mha");
      assertThat(model.modules().find("model.layers.1.mlp.up_proj"))
          .isEqualTo(
              new Module(
                  17, "model.layers.1.mlp.up_proj", Module.Kind.LINEAR, 176, 64, true, false));
      assertThat(model.modules().get(0).path()).isEqualTo("model.embed_tokens");
      assertThat(model.modules().head().quantized()).isFalse();
      MemoryUse use = model.memory();
      long weights = 2L * (4 * 64 * 64 + 3 * 64 * 176);
      assertThat(use.quantizedParameters()).isEqualTo(weights);
      assertThat(use.parameters()).isEqualTo(166208);
      // Of 176 rows, 192 are kept.
      long kept = 2L * (4 * 64 * 64 + 2 * 64 * 192 + 64 * 176);
      assertThat(use.packed()).isEqualTo(kept / 2);
      assertThat(use.absmax()).isEqualTo(kept / 64);
      assertThat(use.embeddings()).isEqualTo(2L * 512 * 64 * 4);
      assertThat(use.norms()).isEqualTo(5L * 64 * 4);
      assertThat(use.dense()).isZero();
      // Nested blocks are not full here; the large model's 4.127 is another test's.
      double padding = (double) kept / weights;
      assertThat(use.bitsPerWeight()).isBetween(4.125 * padding, 4.14 * padding);
    }
  }

  @Test
  void load_bitsPerWeight() throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    try (Model model = load(demo, LoadOptions.DEFAULT)) {
      assertThat(model.memory().bitsPerWeight()).isCloseTo(4.127, within(0.0005));
      assertThat(model.config().tied()).isTrue();
      int head = model.modules().head().id();
      assertThat(model.matrix(head)).isSameAs(model.matrix(model.modules().embedding().id()));
    }
  }

  @Test
  void load_plainScalesAndSkippedModules() throws Exception {
    LoadOptions options =
        new LoadOptions(
            new QuantOptions(QuantType.FP4, 128, false), List.of("o_proj", "layers.0.mlp"));
    assertThatThrownBy(() -> load(GOLDEN.directory("unquantized"), options))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("skip 'layers.0.mlp': matches no projection");
    LoadOptions good =
        new LoadOptions(
            new QuantOptions(QuantType.FP4, 128, false), List.of("o_proj", "model.layers.0.mlp"));
    try (Model model = load(GOLDEN.directory("unquantized"), good)) {
      assertThat(
              model.modules().all().stream()
                  .filter(m -> m.kind() == Module.Kind.LINEAR && !m.quantized())
                  .map(Module::path))
          .containsExactly(
              "model.layers.0.self_attn.o_proj",
              "model.layers.0.mlp.gate_proj",
              "model.layers.0.mlp.up_proj",
              "model.layers.0.mlp.down_proj",
              "model.layers.1.self_attn.o_proj");
      // Of 176 rows, 192 are kept.
      assertThat(model.memory().dense()).isEqualTo(4L * (2 * 64 * 64 + 2 * 64 * 192 + 64 * 176));
      double padding = (6 * 64 * 64 + 2 * 64 * 192 + 64 * 176) / (6.0 * 64 * 64 + 3 * 64 * 176);
      assertThat(model.memory().bitsPerWeight()).isCloseTo(4 * padding + 32.0 / 128, within(1e-9));
    }
  }

  @Test
  void fingerprint_doesNotDependOnTheWayOfLoading() throws Exception {
    LoadOptions plain = new LoadOptions(new QuantOptions(QuantType.NF4, 64, false), List.of());
    String ours = fingerprint(GOLDEN.directory("unquantized"), LoadOptions.DEFAULT);
    assertThat(ours).matches("[0-9a-f]{64}");
    assertThat(fingerprint(GOLDEN.directory("nf4-dq"), LoadOptions.DEFAULT)).isEqualTo(ours);
    assertThat(fingerprint(GOLDEN.directory("nf4"), LoadOptions.AS_STORED)).isEqualTo(ours);
    assertThat(fingerprint(GOLDEN.directory("unquantized"), plain)).isEqualTo(ours);
    assertThat(Inspection.of(GOLDEN.directory("nf4-dq"), LoadOptions.DEFAULT, true).fingerprint())
        .isEqualTo(ours);

    assertThat(fingerprint(GOLDEN.directory("fp4"), LoadOptions.DEFAULT)).isNotEqualTo(ours);
    LoadOptions wide = new LoadOptions(new QuantOptions(QuantType.NF4, 128, true), List.of());
    assertThat(fingerprint(GOLDEN.directory("unquantized"), wide)).isNotEqualTo(ours);
    assertThat(fingerprint(GOLDEN.directory("unquantized"), LoadOptions.AS_STORED)).isEmpty();
  }

  @Test
  void fingerprint_ofShardsAndOtherStorage() throws Exception {
    Path models = ReferenceFolder.require("golden/models");
    String expected = fingerprint(models.resolve("smollm2"), LoadOptions.DEFAULT);
    assertThat(fingerprint(models.resolve("smollm2-nf4-dq"), LoadOptions.DEFAULT))
        .isEqualTo(expected);
    assertThat(fingerprint(models.resolve("smollm2-nf4-dq-storage-bf16"), LoadOptions.DEFAULT))
        .isEqualTo(expected);
  }

  @Test
  void sameWeights_comparesWidenedBits() throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    try (Model model = load(demo, LoadOptions.DEFAULT);
        Checkpoint checkpoint = Checkpoint.open(demo)) {
      TensorInfo tensor = find(checkpoint, "model.embed_tokens.weight");
      float[] values = checkpoint.floats(tensor);
      int rows = tensor.shape().get(0).intValue();
      int cols = tensor.shape().get(1).intValue();
      int head = model.modules().head().id();
      DenseMatrix stored = new DenseMatrix(tensor.dtype(), rows, cols, checkpoint.data(tensor));
      assertThat(tensor.dtype()).isEqualTo(DType.BF16);
      assertThat(model.sameWeights(0, stored)).isTrue();
      assertThat(model.sameWeights(head, stored)).isTrue();
      assertThat(model.sameWeights(0, wide(values, rows, cols))).isTrue();
      assertThat(model.sameWeights(0, wide(values, cols, rows))).isFalse();
      values[values.length - 1] = Math.nextUp(values[values.length - 1]);
      assertThat(model.sameWeights(0, wide(values, rows, cols))).isFalse();
      Module quantized = model.modules().find("model.layers.0.self_attn.q_proj");
      assertThat(quantized).isNotNull();
      assertThat(model.sameWeights(quantized.id(), wide(new float[256 * 256], 256, 256))).isFalse();
    }
  }

  @Test
  void load_quantizedHead() throws Exception {
    // transformers quantizes the head where llm_int8_skip_modules does not name it.
    Path plain = GOLDEN.directory("nf4-dq");
    copy(plain);
    Map<String, Tensor> tensors = read(plain);
    try (Checkpoint checkpoint = Checkpoint.open(plain)) {
      Tensor head = tensors.remove("lm_head.weight");
      assertThat(head).isNotNull();
      float[] values = new float[512 * 64];
      DType.F32.widen(head.data, 0, values, 0, values.length);
      var matrix =
          QuantizedMatrix.quantize(
              FloatSource.of("head", values), 512, 64, QuantOptions.DEFAULT, "float32");
      for (var entry : BitsAndBytes.write("lm_head.weight", matrix)) {
        tensors.put(entry.spec().name(), new Tensor(entry.spec(), entry.data()));
      }
      write(tensors);
      try (Model model = load(dir, LoadOptions.DEFAULT)) {
        assertThat(model.modules().head().quantized()).isTrue();
        assertThat(model.memory().embeddings()).isEqualTo(512L * 64 * 4);
      }
      assertThat(checkpoint.tensors()).isNotEmpty();
    }
  }

  @Test
  void load_inertAndTiedExtras() throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    copy(demo);
    Map<String, Tensor> tensors = read(demo);
    tensors.put(
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        tensor("model.layers.0.self_attn.rotary_emb.inv_freq", DType.F32, 16));
    Tensor embedding = tensors.get("model.embed_tokens.weight");
    assertThat(embedding).isNotNull();
    tensors.put("lm_head.weight", embedding.named("lm_head.weight"));
    write(tensors);
    String expected = fingerprint(demo, LoadOptions.DEFAULT);
    assertThat(fingerprint(dir, LoadOptions.DEFAULT)).isEqualTo(expected);

    byte[] other = embedding.data.toArray(ValueLayout.JAVA_BYTE);
    other[100] ^= 1;
    tensors.put(
        "lm_head.weight",
        new Tensor(embedding.named("lm_head.weight").spec, MemorySegment.ofArray(other)));
    write(tensors);
    assertThatThrownBy(() -> load(dir, LoadOptions.DEFAULT))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("tie_word_embeddings is true, but tensor lm_head.weight differs");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "model.norm.weight | tensor model.norm.weight is missing; complete the download",
        "model.embed_tokens.weight | tensor model.embed_tokens.weight is missing",
        "lm_head.weight | tensor lm_head.weight is missing",
        "model.layers.1.mlp.down_proj.weight | model.layers.1.mlp.down_proj.weight is missing",
        "model.layers.1.mlp.down_proj.weight.absmax | lacks tensor"
            + " model.layers.1.mlp.down_proj.weight.absmax",
        "model.layers.1.mlp.down_proj.weight.quant_map | lacks tensor",
        "model.layers.1.mlp.down_proj.weight.nested_absmax | lacks tensor",
        "model.layers.1.mlp.down_proj.weight.quant_state.bitsandbytes__nf4 | tensor"
            + " model.layers.1.mlp.down_proj.weight: expected F32, F16 or BF16, got U8",
      })
  void load_missingTensor(String name, String message) throws Exception {
    changed(GOLDEN.directory("nf4-dq"), t -> t.remove(name));
    refused(message);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "model.layers.2.mlp.up_proj.weight | 1 tensors that a 'llama' of this configuration does"
            + " not have: model.layers.2.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias | does not have:"
            + " model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.experts.0.weight | model.layers.0.mlp.experts.0.weight",
      })
  void load_extraTensor(String name, String message) throws Exception {
    changed(GOLDEN.directory("unquantized"), t -> t.put(name, tensor(name, DType.F32, 64)));
    refused(message);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{'hidden_size': 32} | expected shape [512, 32] by config.json, got [512, 64]",
        "{'vocab_size': 513} | tensor model.embed_tokens.weight: expected shape [513, 64]",
        "{'intermediate_size': 177} | expected shape [177, 64] by config.json, got [176, 64]",
        "{'num_key_value_heads': 2} | k_proj.weight: expected shape [32, 64] by config.json, got"
            + " [64, 64]",
        "{'head_dim': 8} | q_proj.weight: expected shape [32, 64]",
        "{'num_hidden_layers': 1} | tensors that a 'llama' of this configuration does not have",
        "{'num_hidden_layers': 3} | tensor model.layers.2.input_layernorm.weight is missing",
        "{'attention_bias': true} | tensor model.layers.0.self_attn.q_proj.bias is missing",
        "{'tie_word_embeddings': true} | but tensor lm_head.weight differs",
      })
  void load_configOfAnotherModel(String change, String message) throws Exception {
    copy(GOLDEN.directory("unquantized"));
    Files.copy(
        GOLDEN.directory("unquantized").resolve("model.safetensors"),
        dir.resolve("model.safetensors"));
    Path config = dir.resolve("config.json");
    ObjectNode tree = (ObjectNode) Fields.MAPPER.readTree(config.toFile());
    tree.setAll((ObjectNode) Fields.MAPPER.readTree(change.replace('\'', '"')));
    Files.writeString(config, tree.toString());
    refused(message);
  }

  @Test
  void load_quantizedShapeOfAnotherModel() throws Exception {
    copy(GOLDEN.directory("nf4-dq"));
    write(read(GOLDEN.directory("nf4-dq")));
    Path config = dir.resolve("config.json");
    Files.writeString(
        config,
        Files.readString(config)
            .replace("\"intermediate_size\": 176", "\"intermediate_size\": 352"));
    refused("expected shape [64, 352] by the model's config, got [64, 176]");
  }

  @Test
  void load_notFinite() throws Exception {
    changed(
        GOLDEN.directory("unquantized"),
        t -> setFloat(t, "model.layers.1.mlp.up_proj.weight", 70, Float.NaN));
    refused("model.layers.1.mlp.up_proj.weight: element [1, 6] is NaN");
    changed(
        GOLDEN.directory("unquantized"),
        t -> setFloat(t, "model.norm.weight", 3, Float.POSITIVE_INFINITY));
    refused("tensor model.norm.weight: element 3 is Infinity; expected a finite number");
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 7, 100, 100_000})
  void load_truncatedFile(int length) throws Exception {
    copy(GOLDEN.directory("nf4-dq"));
    write(read(GOLDEN.directory("nf4-dq")));
    try (RandomAccessFile file =
        new RandomAccessFile(dir.resolve("model.safetensors").toFile(), "rw")) {
      file.setLength(length);
    }
    refused("model.safetensors");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        "absent.safetensors"
      })
  void load_indexOutsideOfTheDirectory(String shard) throws Exception {
    copy(GOLDEN.directory("nf4-dq"));
    Files.writeString(
        dir.resolve("model.safetensors.index.json"),
        "{\"weight_map\": {\"model.norm.weight\": \"%s\"}}".formatted(shard));
    refused("model.safetensors.index.json");
  }

  @Test
  void load_noWeights() throws Exception {
    copy(GOLDEN.directory("nf4-dq"));
    refused("expected model.safetensors or model.safetensors.index.json, found neither");
  }

  private Model load(Path directory, LoadOptions options) throws ModelException, IOException {
    return ModelLoader.load(directory, options, backend);
  }

  private String fingerprint(Path directory, LoadOptions options) throws Exception {
    try (Model model = load(directory, options)) {
      return model.fingerprint();
    }
  }

  private void refused(String message) {
    assertThatThrownBy(() -> load(dir, LoadOptions.DEFAULT))
        .satisfies(e -> assertThat(e).isInstanceOfAny(ModelException.class, IOException.class))
        .hasMessageContaining(message.strip());
    assertThat(backend.liveBytes()).isZero();
  }

  /** A tensor in memory. */
  private record Tensor(TensorSpec spec, MemorySegment data) {
    Tensor named(String name) {
      return new Tensor(new TensorSpec(name, spec.dtype(), spec.shape()), data);
    }
  }

  private static Tensor tensor(String name, DType dtype, long size) {
    byte[] bytes = new byte[(int) size * dtype.bytes()];
    return new Tensor(new TensorSpec(name, dtype, List.of(size)), MemorySegment.ofArray(bytes));
  }

  private static void setFloat(Map<String, Tensor> tensors, String name, long index, float value) {
    Tensor tensor = tensors.get(name);
    assertThat(tensor).as(name).isNotNull();
    tensor.data.set(ValueLayout.JAVA_FLOAT_UNALIGNED, 4 * index, value);
  }

  private static DenseMatrix wide(float[] values, int rows, int cols) {
    MemorySegment data = MemorySegment.ofArray(new byte[4 * values.length]);
    DType.F32.narrow(values, 0, values.length, data, 0);
    return new DenseMatrix(DType.F32, rows, cols, data);
  }

  private static TensorInfo find(Checkpoint checkpoint, String name) {
    TensorInfo tensor = checkpoint.find(name);
    if (tensor == null) {
      throw new AssertionError("no tensor " + name);
    }
    return tensor;
  }

  private void copy(Path model) throws IOException {
    Files.copy(model.resolve("config.json"), dir.resolve("config.json"));
  }

  private static Map<String, Tensor> read(Path model) throws IOException {
    Map<String, Tensor> tensors = new HashMap<>();
    try (Checkpoint checkpoint = Checkpoint.open(model)) {
      for (TensorInfo info : checkpoint.tensors().values()) {
        tensors.put(
            info.name(),
            new Tensor(
                new TensorSpec(info.name(), info.dtype(), info.shape()),
                MemorySegment.ofArray(checkpoint.data(info).toArray(ValueLayout.JAVA_BYTE))));
      }
    }
    return tensors;
  }

  private void write(Map<String, Tensor> tensors) throws IOException {
    Map<String, Tensor> sorted = new TreeMap<>(tensors);
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            dir.resolve("model.safetensors"),
            sorted.values().stream().map(Tensor::spec).toList(),
            Map.of("format", "pt"))) {
      for (Tensor tensor : sorted.values()) {
        writer.write(tensor.spec.name(), tensor.data);
      }
      writer.commit();
    }
  }

  private void changed(Path model, Consumer<Map<String, Tensor>> change) throws IOException {
    Files.deleteIfExists(dir.resolve("config.json"));
    copy(model);
    Map<String, Tensor> tensors = read(model);
    change.accept(tensors);
    write(tensors);
  }
}
