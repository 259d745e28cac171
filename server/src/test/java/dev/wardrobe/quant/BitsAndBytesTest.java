package dev.wardrobe.quant;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

final class BitsAndBytesTest {
  private static final String STATE = "w.quant_state.bitsandbytes__nf4";
  private static final int ROWS = 33;
  private static final int COLS = 67;

  @TempDir Path folder;

  @ParameterizedTest
  @CsvSource({"NF4, 64, true", "NF4, 128, false", "FP4, 256, true", "FP4, 32, false"})
  void write_read_write_sameBytes(QuantType type, int blockSize, boolean doubleQuant)
      throws IOException {
    QuantizedMatrix matrix = matrix(new QuantOptions(type, blockSize, doubleQuant));
    Path file = folder.resolve("model.safetensors");
    writeCheckpoint(file, BitsAndBytes.write("w", matrix));
    Path again = folder.resolve("again.safetensors");
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(BitsAndBytes.isQuantized(checkpoint, "w")).isTrue();
      assertThat(BitsAndBytes.isQuantized(checkpoint, "w.absmax")).isFalse();
      assertThat(BitsAndBytes.tensorNames(checkpoint, "w"))
          .containsExactlyInAnyOrderElementsOf(checkpoint.tensors().keySet());
      QuantizedMatrix read = BitsAndBytes.read(checkpoint, "w", ROWS, COLS);
      for (int i = 0; i < ROWS * COLS; i++) {
        assertThat(read.value(i)).isEqualTo(matrix.value(i));
      }
      assertThat(read.footprint()).isEqualTo(matrix.footprint());
      assertThat(read.sourceDtype()).isEqualTo("bfloat16");
      writeCheckpoint(again, BitsAndBytes.write("w", read));
    }
    assertThat(Files.mismatch(file, again)).isEqualTo(-1);
  }

  @Test
  void read_shardedOverFiles_andStoredAsBfloat16() throws IOException {
    QuantizedMatrix matrix =
        QuantizedMatrix.quantize(
            FloatSource.of("w", random(24 * 40)), 24, 40, QuantOptions.DEFAULT, "float16");
    Map<String, TensorEntry> tensors = byName(BitsAndBytes.write("w", matrix));
    MemorySegment packed = take(tensors, "w").data();
    for (DType storage : new DType[] {DType.BF16, DType.F16, DType.F32}) {
      TensorSpec spec =
          new TensorSpec("w", storage, List.of(packed.byteSize() / storage.bytes(), 1L));
      writeCheckpoint(folder.resolve("m-1.safetensors"), List.of(new TensorEntry(spec, packed)));
      writeCheckpoint(folder.resolve("m-2.safetensors"), List.copyOf(tensors.values()));
      StringBuilder index = new StringBuilder("{\"weight_map\": {\"w\": \"m-1.safetensors\"");
      tensors.keySet().forEach(t -> index.append(", \"" + t + "\": \"m-2.safetensors\""));
      Files.writeString(folder.resolve("model.safetensors.index.json"), index + "}}");
      try (Checkpoint checkpoint = Checkpoint.open(folder)) {
        QuantizedMatrix read = BitsAndBytes.read(checkpoint, "w", 24, 40);
        assertThat(read.packed().mismatch(matrix.packed())).isEqualTo(-1);
        assertThat(read.value(959)).isEqualTo(matrix.value(959));
      }
    }
  }

  @Test
  void read_itsOwnTables_areUsed() throws IOException {
    QuantizedMatrix matrix = matrix(QuantOptions.DEFAULT);
    Map<String, TensorEntry> tensors = byName(BitsAndBytes.write("w", matrix));
    float[] codebook = matrix.codebook();
    codebook[15] = 0.5f;
    float[] map = matrix.nestedMap();
    map[255] = 0.25f;
    replace(tensors, "w.quant_map", codebook);
    replace(tensors, "w.nested_quant_map", map);
    writeCheckpoint(folder.resolve("model.safetensors"), List.copyOf(tensors.values()));
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      QuantizedMatrix read = BitsAndBytes.read(checkpoint, "w", ROWS, COLS);
      assertThat(read.codebook()).isEqualTo(codebook);
      assertThat(read.nestedMap()).isEqualTo(map);
      assertThat(read.footprint().tables()).isEqualTo(4 * (16 + 256));
    }
  }

  static List<Arguments> damages() {
    return List.of(
        damage("lacks tensor w.quant_map", t -> t.remove("w.quant_map")),
        damage("lacks tensor w.absmax", t -> t.remove("w.absmax")),
        damage("lacks tensor w.nested_absmax", t -> t.remove("w.nested_absmax")),
        damage("w: the checkpoint lacks tensor w", t -> t.remove("w")),
        damage("found none", t -> t.remove(STATE)),
        damage("found [", t -> add(t, "w.quant_state.bitsandbytes__fp4", new byte[1])),
        damage(
            "quantization type 'int3' is not supported; nf4 and fp4 are",
            t -> add(t, "w.quant_state.bitsandbytes__int3", take(t, STATE))),
        damage("w: expected 1106 bytes of codes, got U8[1105]", t -> add(t, "w", new byte[1105])),
        damage(
            "w: expected packed codes as U8, BF16, F16 or F32, got I32[1]",
            t -> t.put("w", new TensorEntry(new TensorSpec("w", DType.I32, List.of(1L)), four()))),
        damage("w.absmax: expected 35 elements of U8", t -> add(t, "w.absmax", new byte[36])),
        damage("w.absmax: expected 35 elements of U8", t -> replace(t, "w.absmax", new float[35])),
        damage("w.quant_map: expected 16 elements", t -> replace(t, "w.quant_map", new float[15])),
        damage(
            "w.nested_absmax: expected 1 elements of F32, got F32[2]",
            t -> replace(t, "w.nested_absmax", new float[2])),
        damage(
            "w.nested_quant_map: expected 256 elements",
            t -> replace(t, "w.nested_quant_map", new float[16])),
        damage(
            "w.nested_absmax: element 0 is NaN",
            t -> replace(t, "w.nested_absmax", new float[] {Float.NaN})),
        damage("64-bit integer as blocksize", t -> state(t, "64", "\"64\"")),
        damage("blocksize: expected a power of two from 32 to 4096, got 0", t -> blockSize(t, "0")),
        damage("got -64", t -> blockSize(t, "-64")),
        damage("got 96", t -> blockSize(t, "96")),
        damage("as blocksize", t -> blockSize(t, "18446744073709551680")),
        damage(
            "w: expected shape [33, 67] by the model's config, got [67, 33]",
            t -> state(t, "[33, 67]", "[67, 33]")),
        damage("got [2211]", t -> state(t, "[33, 67]", "[2211]")),
        damage("dtype: expected float32, float16 or", t -> state(t, "bfloat16", "float8")),
        damage("quant_type is 'fp4', its tensor's name says nf4", t -> state(t, "nf4", "fp4")),
        damage("nested_dtype: expected float32, got", t -> state(t, "\"float32", "\"float16")),
        damage("nested_blocksize: expected", t -> state(t, "256", "257")),
        damage("nested_offset: expected a float32, got 1.0E300", t -> offset(t, "1e300")),
        damage("not the expected JSON", t -> offset(t, "NaN")),
        damage("a number as nested_offset", t -> offset(t, "\"1\"")),
        damage("one is missing", t -> state(t, "nested_dtype", "nested_type")),
        damage("one is missing", t -> state(t, "\"dtype\"", "\"type\"")),
        damage("Duplicate field", t -> state(t, "{", "{\"dtype\": \"float16\", ")),
        damage("expected an object", t -> add(t, STATE, "[]".getBytes(StandardCharsets.UTF_8))),
        damage(": ", t -> add(t, STATE, new byte[] {(byte) 0xff, 0, 1})),
        damage("of at most 65536 bytes", t -> add(t, STATE, new byte[70_000])),
        damage("nesting depth", t -> state(t, "{", "{\"more\": " + "[".repeat(20_000) + "1, ")),
        damage(
            "there is a tensor w.nested_absmax, but the quant_state has no nested_blocksize",
            t ->
                add(
                    t,
                    STATE,
                    ("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\","
                            + " \"shape\": [33, 67]}")
                        .getBytes(StandardCharsets.UTF_8))));
  }

  private static Arguments damage(String message, Consumer<Map<String, TensorEntry>> damage) {
    return Arguments.of(message, damage);
  }

  @ParameterizedTest
  @MethodSource("damages")
  void read_damaged_refused(String message, Consumer<Map<String, TensorEntry>> damage)
      throws IOException {
    Map<String, TensorEntry> tensors =
        byName(BitsAndBytes.write("w", matrix(QuantOptions.DEFAULT)));
    damage.accept(tensors);
    writeCheckpoint(folder.resolve("model.safetensors"), List.copyOf(tensors.values()));
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> BitsAndBytes.read(checkpoint, "w", ROWS, COLS))
          .isInstanceOf(QuantException.class)
          .hasMessageContaining("w")
          .hasMessageContaining(message);
    }
  }

  @Test
  void read_plainAbsmaxNotFinite_refused() throws IOException {
    QuantizedMatrix matrix = matrix(new QuantOptions(QuantType.NF4, 64, false));
    Map<String, TensorEntry> tensors = byName(BitsAndBytes.write("w", matrix));
    float[] absmax = new float[35];
    absmax[34] = Float.NEGATIVE_INFINITY;
    replace(tensors, "w.absmax", absmax);
    writeCheckpoint(folder.resolve("model.safetensors"), List.copyOf(tensors.values()));
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThatThrownBy(() -> BitsAndBytes.read(checkpoint, "w", ROWS, COLS))
          .isInstanceOf(QuantException.class)
          .hasMessage("w.absmax: element 34 is -Infinity, expected a finite number");
    }
  }

  @ParameterizedTest
  @CsvSource({
    "0, 0.0",
    "1, 1.0",
    "-2.5, -2.5",
    "0.338998407125473, 0.338998407125473",
    "0.0001, 0.0001",
    "0.00009999999747378752, 9.999999747378752e-05",
    "9.999999350456404e-39, 9.999999350456404e-39",
    "1e-5, 1e-05",
    "123456789012345, 123456789012345.0",
    "1e15, 1000000000000000.0",
    "1e16, 1e+16",
    "3.4028234663852886e+38, 3.4028234663852886e+38",
    "-1.5e-7, -1.5e-07",
    "1e100, 1e+100"
  })
  void pythonRepr(double value, String expected) {
    assertThat(QuantState.pythonRepr(value)).isEqualTo(expected);
  }

  @Test
  void rewrite_referenceCheckpoints_sameBytes() throws IOException {
    Path models = ReferenceFolder.require("golden/models");
    List<Path> quantized;
    try (Stream<Path> all = Files.list(models)) {
      quantized = all.filter(m -> m.getFileName().toString().matches(".*-(nf4|fp4).*")).toList();
    }
    assertThat(quantized).hasSizeGreaterThan(10);
    for (Path model : quantized) {
      try (Checkpoint checkpoint = Checkpoint.open(model)) {
        assertThat(rewrite(checkpoint)).as(model.toString()).isGreaterThan(10);
      }
    }
  }

  private static int rewrite(Checkpoint checkpoint) throws IOException {
    int count = 0;
    for (String name : checkpoint.tensors().keySet()) {
      if (!BitsAndBytes.isQuantized(checkpoint, name)) {
        continue;
      }
      int[] shape = shapeByState(checkpoint, name);
      QuantizedMatrix matrix = BitsAndBytes.read(checkpoint, name, shape[0], shape[1]);
      List<TensorEntry> written = BitsAndBytes.write(name, matrix);
      assertThat(BitsAndBytes.tensorNames(checkpoint, name)).hasSize(written.size());
      for (TensorEntry tensor : written) {
        TensorInfo stored = checkpoint.find(tensor.spec().name());
        assertThat(stored).as(tensor.spec().name()).isNotNull();
        assertThat(tensor.data().mismatch(checkpoint.data(stored)))
            .as(tensor.spec().name())
            .isEqualTo(-1);
        if (!(stored.name().equals(name) && stored.dtype() == DType.BF16)) {
          assertThat(tensor.spec().dtype()).isEqualTo(stored.dtype());
          assertThat(tensor.spec().shape()).isEqualTo(stored.shape());
        }
      }
      count++;
    }
    return count;
  }

  private static int[] shapeByState(Checkpoint checkpoint, String name) throws IOException {
    String state = BitsAndBytes.tensorNames(checkpoint, name).getLast();
    byte[] json = checkpoint.data(checkpoint.require(state)).toArray(ValueLayout.JAVA_BYTE);
    List<Long> shape = QuantState.parse(json, state).shape();
    return new int[] {Math.toIntExact(shape.get(0)), Math.toIntExact(shape.get(1))};
  }

  @Test
  void quantize_referenceModels_asBitsandbytesDid() throws IOException {
    Path models = ReferenceFolder.require("golden/models");
    for (String model : List.of("llama_mha", "qwen3", "smollm2", "llama3", "qwen2_yarn")) {
      try (Checkpoint full = Checkpoint.open(models.resolve(model));
          Checkpoint theirs = Checkpoint.open(models.resolve(model + "-nf4-dq"))) {
        int compared = 0;
        for (TensorInfo tensor : full.tensors().values()) {
          if (!BitsAndBytes.isQuantized(theirs, tensor.name())) {
            continue;
          }
          int rows = Math.toIntExact(tensor.shape().get(0));
          int cols = Math.toIntExact(tensor.shape().get(1));
          QuantizedMatrix expected = BitsAndBytes.read(theirs, tensor.name(), rows, cols);
          QuantizedMatrix ours =
              QuantizedMatrix.quantize(
                  FloatSource.of(full, tensor),
                  rows,
                  cols,
                  QuantOptions.DEFAULT,
                  BitsAndBytes.sourceDtype(tensor.dtype()));
          assertThat(ours.packed().mismatch(expected.packed())).as(tensor.name()).isEqualTo(-1);
          assertThat(Math.abs(ours.nestedOffset() - expected.nestedOffset()))
              .isLessThanOrEqualTo(2 * Math.ulp(expected.nestedOffset()));
          assertThat(ours.sourceDtype()).isEqualTo(expected.sourceDtype());
          compared++;
        }
        assertThat(compared).as(model).isGreaterThan(10);
      }
    }
  }

  private static QuantizedMatrix matrix(QuantOptions options) throws QuantException {
    return QuantizedMatrix.quantize(
        FloatSource.of("w", random(ROWS * COLS)), ROWS, COLS, options, "bfloat16");
  }

  private static float[] random(int count) {
    Random random = new Random(count);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian() * 0.05f;
    }
    return values;
  }

  private static Map<String, TensorEntry> byName(List<TensorEntry> tensors) {
    Map<String, TensorEntry> byName = new LinkedHashMap<>();
    tensors.forEach(t -> byName.put(t.spec().name(), t));
    return byName;
  }

  private static TensorEntry take(Map<String, TensorEntry> tensors, String name) {
    return Objects.requireNonNull(tensors.remove(name), name);
  }

  private static void add(Map<String, TensorEntry> tensors, String name, byte[] bytes) {
    TensorSpec spec = new TensorSpec(name, DType.U8, List.of((long) bytes.length));
    tensors.put(name, new TensorEntry(spec, MemorySegment.ofArray(bytes)));
  }

  private static void add(Map<String, TensorEntry> tensors, String name, TensorEntry entry) {
    TensorSpec spec = new TensorSpec(name, entry.spec().dtype(), entry.spec().shape());
    tensors.put(name, new TensorEntry(spec, entry.data()));
  }

  private static MemorySegment four() {
    return MemorySegment.ofArray(new byte[4]);
  }

  private static void replace(Map<String, TensorEntry> tensors, String name, float[] values) {
    MemorySegment bytes = MemorySegment.ofArray(new byte[4 * values.length]);
    DType.F32.narrow(values, 0, values.length, bytes, 0);
    TensorSpec spec = new TensorSpec(name, DType.F32, List.of((long) values.length));
    tensors.put(name, new TensorEntry(spec, bytes));
  }

  private static void state(Map<String, TensorEntry> tensors, String from, String to) {
    byte[] stored = take(tensors, STATE).data().toArray(ValueLayout.JAVA_BYTE);
    String json = new String(stored, StandardCharsets.UTF_8);
    assertThat(json).contains(from);
    add(tensors, STATE, json.replace(from, to).getBytes(StandardCharsets.UTF_8));
  }

  private static void blockSize(Map<String, TensorEntry> tensors, String size) {
    state(tensors, "\"blocksize\": 64", "\"blocksize\": " + size);
  }

  private static void offset(Map<String, TensorEntry> tensors, String offset) {
    state(tensors, "\"nested_offset\": 0", "\"nested_offset\": " + offset + ", \"x\": 0");
  }

  private static void writeCheckpoint(Path file, List<TensorEntry> tensors) throws IOException {
    List<TensorSpec> specs = new ArrayList<>();
    tensors.forEach(t -> specs.add(t.spec()));
    try (SafetensorsWriter writer = SafetensorsWriter.create(file, specs, Map.of("format", "pt"))) {
      for (TensorEntry tensor : tensors) {
        writer.write(tensor.spec().name(), tensor.data());
      }
      writer.commit();
    }
  }
}
