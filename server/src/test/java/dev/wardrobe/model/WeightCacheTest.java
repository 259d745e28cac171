package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class WeightCacheTest {
  private static final Golden GOLDEN = Golden.smallest();
  private static final int[] TOKENS = {1, 17, 300, 5, 511, 42};
  private static final LoadOptions DEFAULT = LoadOptions.DEFAULT;

  @TempDir private Path dir;
  private Path model = Path.of("");
  private Path cache = Path.of("");

  /** What a load gave. */
  private record Loaded(
      float[][] logits, String fingerprint, MemoryUse memory, boolean mapped, Object quantization) {
    void same(Loaded other) {
      assertThat(logits).isDeepEqualTo(other.logits);
      assertThat(fingerprint).isEqualTo(other.fingerprint);
      assertThat(memory).isEqualTo(other.memory);
      assertThat(quantization).isEqualTo(other.quantization);
    }
  }

  @BeforeEach
  void copyModel() throws Exception {
    model = dir.resolve("model");
    cache = dir.resolve("cache");
    copy(GOLDEN.directory("unquantized"));
  }

  private void copy(Path from) throws IOException {
    Files.createDirectories(model);
    for (String name : List.of("config.json", "model.safetensors")) {
      Files.write(model.resolve(name), Files.readAllBytes(from.resolve(name)));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"unquantized", "nf4", "nf4-dq", "fp4"})
  void load_secondTimeMaps(String variant) throws Exception {
    copy(GOLDEN.directory(variant));
    for (LoadOptions options : List.of(DEFAULT, LoadOptions.AS_STORED)) {
      Loaded plain = load(options);
      assertThat(plain.mapped).isFalse();
      Loaded first = load(cached(options));
      first.same(plain);
      assertThat(first.mapped).isTrue();
      List<FileTime> written = times();
      // Nothing but its header may be needed any more.
      Loaded second = load(cached(options));
      second.same(plain);
      assertThat(second.mapped).isTrue();
      assertThat(times()).isEqualTo(written);
    }
  }

  @Test
  void load_otherOptionsAreOtherFiles() throws Exception {
    List<LoadOptions> all =
        List.of(
            DEFAULT,
            LoadOptions.AS_STORED,
            DEFAULT.withQuantizeHead(true),
            LoadOptions.AS_STORED.withQuantizeHead(true),
            new LoadOptions(new QuantOptions(QuantType.NF4, 64, false), List.of()),
            new LoadOptions(new QuantOptions(QuantType.FP4, 64, true), List.of()),
            new LoadOptions(new QuantOptions(QuantType.NF4, 128, true), List.of()),
            new LoadOptions(QuantOptions.DEFAULT, List.of("o_proj")));
    for (LoadOptions options : all) {
      load(cached(options)).same(load(options));
    }
    assertThat(weightFiles()).hasSize(all.size());
    for (LoadOptions options : all) {
      Loaded again = load(cached(options));
      again.same(load(options));
      assertThat(again.mapped).isTrue();
    }
    assertThat(weightFiles()).hasSize(all.size());
  }

  @Test
  void load_flippedBitsAreFound() throws Exception {
    Loaded plain = load(DEFAULT);
    load(cached(DEFAULT)).same(plain);
    Path file = weightFile();
    byte[] good = Files.readAllBytes(file);
    long seed = System.nanoTime();
    Random random = new Random(seed);
    List<Integer> places = new ArrayList<>(List.of(0, 8, 12, 16, 24, 64, good.length - 1));
    while (places.size() < 27) {
      int place = random.nextInt(good.length);
      // A zero may lie between two parts, where nothing is.
      if (good[place] != 0) {
        places.add(place);
      }
    }
    for (int place : places) {
      byte[] bad = good.clone();
      bad[place] ^= (byte) (1 << random.nextInt(8));
      replace(file, bad);
      load(cached(DEFAULT)).same(plain);
      assertThat(Files.readAllBytes(file)).as("byte %d, seed %d", place, seed).isEqualTo(good);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 63, 64, 100, 5000, -1, -64, 1_000_000})
  void load_otherLengthsAreFound(int length) throws Exception {
    Loaded plain = load(DEFAULT);
    load(cached(DEFAULT)).same(plain);
    Path file = weightFile();
    byte[] good = Files.readAllBytes(file);
    int bytes = length < 0 ? good.length + length : length;
    replace(file, Arrays.copyOf(good, bytes));
    Loaded again = load(cached(DEFAULT));
    again.same(plain);
    assertThat(again.mapped).isTrue();
    assertThat(Files.readAllBytes(file)).isEqualTo(good);
  }

  @Test
  void load_foreignFiles() throws Exception {
    Loaded plain = load(DEFAULT);
    load(cached(DEFAULT));
    Path file = weightFile();
    byte[] good = Files.readAllBytes(file);

    // Another program's.
    replace(file, Files.readAllBytes(model.resolve("model.safetensors")));
    load(cached(DEFAULT)).same(plain);
    assertThat(Files.readAllBytes(file)).isEqualTo(good);

    // Of other options: whole, and under this name.
    Files.delete(file);
    load(cached(LoadOptions.AS_STORED));
    Files.move(weightFile(), file);
    load(cached(DEFAULT)).same(plain);
    assertThat(Files.readAllBytes(file)).isEqualTo(good);

    // Of another version of the format.
    byte[] other = good.clone();
    other[8] = (byte) (CacheFile.FORMAT + 1);
    replace(file, other);
    load(cached(DEFAULT)).same(plain);
    assertThat(Files.readAllBytes(file)).isEqualTo(good);
  }

  @Test
  void open_wholeFileOfAnotherModel() throws Exception {
    // A table that is as it was written, yet does not fit: only what is in it can tell.
    Loaded plain = load(DEFAULT);
    load(cached(DEFAULT));
    Path file = weightFile();
    byte[] good = Files.readAllBytes(file);
    String key = key(good);
    for (String change : List.of("less", "more", "renamed", "shape")) {
      Files.delete(file);
      try (CpuBackend backend = new CpuBackend(1);
          CacheFile whole = CacheFile.open(rewritten(good), key);
          CacheFile.Writer writer =
              new CacheFile.Writer(file, key, whole.fingerprint(), whole.quantization())) {
        assertThat(backend.liveBytes()).isZero();
        String victim = "model.layers.1.mlp.up_proj.weight";
        PackedMatrix weight = whole.entries().get(victim);
        assertThat(weight).isNotNull();
        for (String name : whole.entries().keySet()) {
          PackedMatrix entry = whole.entries().get(name);
          if (!name.equals(victim)) {
            writer.add(name, entry);
          } else if (change.equals("renamed")) {
            writer.add(name + "s", entry);
          } else if (change.equals("shape")) {
            writer.add(name, whole.entries().get("model.layers.1.mlp.down_proj.weight"));
          } else if (change.equals("more")) {
            writer.add(name, entry);
            writer.add("another", entry);
          }
        }
        writer.finish();
      }
      Loaded again = load(cached(DEFAULT));
      again.same(plain);
      assertThat(Files.readAllBytes(file)).as(change).isEqualTo(good);
    }
  }

  private Path rewritten(byte[] bytes) throws IOException {
    Path copy = dir.resolve("copy" + System.nanoTime());
    Files.write(copy, bytes);
    return copy;
  }

  private static String key(byte[] file) {
    MemorySegment bytes = MemorySegment.ofArray(file);
    var number = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    var large = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    int table = (int) bytes.get(large, 16);
    int length = bytes.get(number, table);
    return new String(file, table + 4, length, StandardCharsets.UTF_8);
  }

  @Test
  void load_changedSource() throws Exception {
    Loaded before = load(cached(DEFAULT));
    Path weights = model.resolve("model.safetensors");
    FileTime time = Files.getLastModifiedTime(weights);
    try (RandomAccessFile file = new RandomAccessFile(weights.toFile(), "rw")) {
      file.seek(file.length() - 3);
      int old = file.read();
      file.seek(file.length() - 3);
      file.write(old ^ 0x40);
    }
    // Same size, same time of modification: what the clock alone would take for unchanged.
    Files.setLastModifiedTime(weights, time);
    Loaded after = load(cached(DEFAULT));
    after.same(load(DEFAULT));
    assertThat(Arrays.deepEquals(after.logits, before.logits)).isFalse();
    assertThat(weightFiles()).hasSize(2);
  }

  @Test
  void load_sameSourceElsewhere() throws Exception {
    Loaded before = load(cached(DEFAULT));
    List<FileTime> written = times();
    Path weights = model.resolve("model.safetensors");
    Files.setLastModifiedTime(weights, FileTime.fromMillis(1_000_000));
    load(cached(DEFAULT)).same(before);
    model = dir.resolve("elsewhere");
    copy(GOLDEN.directory("unquantized"));
    Loaded after = load(cached(DEFAULT));
    after.same(before);
    assertThat(after.mapped).isTrue();
    assertThat(times()).isEqualTo(written);
  }

  @Test
  void load_damagedRecordOfTheDigest() throws Exception {
    Loaded before = load(cached(DEFAULT));
    List<FileTime> written = times();
    try (Stream<Path> files = Files.list(cache)) {
      for (Path file :
          files.filter(f -> f.getFileName().toString().startsWith("source-")).toList()) {
        String text = Files.readString(file);
        Files.writeString(file, text.substring(0, text.length() - 10));
      }
    }
    load(cached(DEFAULT)).same(before);
    assertThat(times()).isEqualTo(written);
  }

  @Test
  void load_folderThatCannotBeWritten() throws Exception {
    Path file = dir.resolve("file");
    Files.writeString(file, "not a folder");
    Loaded plain = load(DEFAULT);
    Path below = file.resolve("cache");
    Loaded without = load(DEFAULT.withCache(new CacheOptions(List.of(below), 0)));
    without.same(plain);
    assertThat(without.mapped).isFalse();
    Loaded second = load(DEFAULT.withCache(new CacheOptions(List.of(below, cache), 0)));
    second.same(plain);
    assertThat(second.mapped).isTrue();
    assertThat(weightFiles()).hasSize(1);
    assertThat(Files.readString(file)).isEqualTo("not a folder");
  }

  @Test
  void load_whileAnotherWrites() throws Exception {
    Files.createDirectories(cache);
    Loaded plain = load(DEFAULT);
    try (FileChannel channel =
            FileChannel.open(
                cache.resolve("lock"), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        FileLock lock = channel.lock()) {
      assertThat(lock.isValid()).isTrue();
      Loaded without = load(cached(DEFAULT));
      without.same(plain);
      assertThat(without.mapped).isFalse();
      assertThat(weightFiles()).isEmpty();
    }
    Files.writeString(cache.resolve("abandoned.unfinished"), "half");
    Loaded with = load(cached(DEFAULT));
    with.same(plain);
    assertThat(with.mapped).isTrue();
    assertThat(cache.resolve("abandoned.unfinished")).doesNotExist();
  }

  @Test
  void load_layoutOfAnotherVersion() throws Exception {
    Loaded plain = load(DEFAULT);
    load(cached(DEFAULT));
    Path file = weightFile();
    String name = file.getFileName().toString();
    // What a program with another layout would have left, under the name that it would have.
    Path old = file.resolveSibling(name.replaceFirst("-[0-9a-f]{16}\\.", "-0123456789abcdef."));
    Files.move(file, old);
    Loaded again = load(cached(DEFAULT));
    again.same(plain);
    assertThat(again.mapped).isTrue();
    assertThat(weightFiles()).containsExactly(file);
  }

  @Test
  void load_manyAtATime() throws Exception {
    Loaded plain = load(DEFAULT);
    try (ExecutorService threads = Executors.newFixedThreadPool(6)) {
      List<Future<Loaded>> loads = new ArrayList<>();
      for (int i = 0; i < 12; i++) {
        Callable<Loaded> call = () -> load(cached(DEFAULT));
        loads.add(threads.submit(call));
      }
      for (Future<Loaded> each : loads) {
        each.get().same(plain);
      }
    }
    assertThat(weightFiles()).hasSize(1);
    try (Stream<Path> files = Files.list(cache)) {
      assertThat(files.filter(f -> f.toString().endsWith(".unfinished"))).isEmpty();
    }
    assertThat(load(cached(DEFAULT)).mapped).isTrue();
  }

  @Test
  void load_smallModelsAreNotCached() throws Exception {
    CacheOptions large = new CacheOptions(List.of(cache), 1 << 30);
    assertThat(load(DEFAULT.withCache(large)).mapped).isFalse();
    assertThat(cache).doesNotExist();
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void load_quantizedTiedHead(boolean fromCache) throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    LoadOptions options = DEFAULT.withQuantizeHead(true);
    if (fromCache) {
      options = cached(options);
    }
    try (CpuBackend backend = new CpuBackend(1);
        Model plain = ModelLoader.load(demo, DEFAULT, backend);
        Model quantized = ModelLoader.load(demo, options, backend);
        Checkpoint checkpoint = Checkpoint.open(demo)) {
      assertThat(quantized.mapped()).isEqualTo(fromCache);
      Module head = quantized.modules().head();
      Module embedding = quantized.modules().embedding();
      assertThat(head.quantized()).isTrue();
      assertThat(embedding.quantized()).isFalse();
      assertThat(quantized.fingerprint()).isEqualTo(plain.fingerprint());
      assertThat(quantized.quantization()).isEqualTo(plain.quantization());
      assertThat(quantized.memory().parameters()).isEqualTo(plain.memory().parameters());
      assertThat(quantized.memory().embeddings()).isEqualTo(plain.memory().embeddings());

      TensorInfo tensor = checkpoint.find("model.embed_tokens.weight");
      assertThat(tensor).isNotNull();
      QuantizedMatrix expected =
          QuantizedMatrix.quantize(
              FloatSource.of(checkpoint, tensor),
              head.out(),
              head.in(),
              QuantOptions.DEFAULT,
              "bfloat16");
      try (Matrix matrix = backend.matrix(expected)) {
        same(quantized.matrix(head.id()), matrix);
      }
      same(quantized.matrix(embedding.id()), plain.matrix(embedding.id()));
    }
  }

  private static void same(Matrix actual, Matrix expected) {
    List<MemorySegment> parts = expected.stored().parts();
    assertThat(actual.stored().form().mismatch(expected.stored().form())).isEqualTo(-1);
    for (int i = 0; i < parts.size(); i++) {
      assertThat(actual.stored().parts().get(i).mismatch(parts.get(i))).isEqualTo(-1);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"unquantized", "nf4-dq"})
  void load_quantizedHead(String variant) throws Exception {
    copy(GOLDEN.directory(variant));
    Loaded plain = load(DEFAULT);
    Loaded quantized = load(DEFAULT.withQuantizeHead(true));
    assertThat(quantized.fingerprint).isEqualTo(plain.fingerprint);
    assertThat(quantized.memory.parameters()).isEqualTo(plain.memory.parameters());
    assertThat(quantized.memory.quantizedParameters())
        .isEqualTo(plain.memory.quantizedParameters() + 512 * 64);
    assertThat(quantized.memory.embeddings()).isEqualTo(plain.memory.embeddings() / 2);
    assertThat(Arrays.deepEquals(quantized.logits, plain.logits)).isFalse();
    double largest = 0;
    double difference = 0;
    for (int row = 0; row < plain.logits.length; row++) {
      for (int i = 0; i < plain.logits[row].length; i++) {
        largest = Math.max(largest, Math.abs(plain.logits[row][i]));
        difference =
            Math.max(difference, Math.abs(plain.logits[row][i] - quantized.logits[row][i]));
      }
    }
    assertThat(difference).isLessThan(largest / 4);
  }

  private LoadOptions cached(LoadOptions options) {
    return options.withCache(new CacheOptions(List.of(cache), 0));
  }

  private Loaded load(LoadOptions options) throws Exception {
    try (Forward forward = new Forward(model, options)) {
      Model loaded = forward.model();
      return new Loaded(
          forward.logits(TOKENS, 2, 4),
          loaded.fingerprint(),
          loaded.memory(),
          loaded.mapped(),
          String.valueOf(loaded.quantization()));
    }
  }

  private List<Path> weightFiles() throws IOException {
    if (!Files.exists(cache)) {
      return List.of();
    }
    try (Stream<Path> files = Files.list(cache)) {
      return files.filter(f -> f.toString().endsWith(".weights")).sorted().toList();
    }
  }

  private Path weightFile() throws IOException {
    assertThat(weightFiles()).hasSize(1);
    return weightFiles().getFirst();
  }

  private List<FileTime> times() throws IOException {
    List<FileTime> times = new ArrayList<>();
    for (Path file : weightFiles()) {
      times.add(Files.getLastModifiedTime(file));
    }
    return times;
  }

  /** Never in place: what is open elsewhere must not change. */
  private void replace(Path file, byte[] bytes) throws IOException {
    Path other = dir.resolve("replacement");
    Files.write(other, bytes);
    Files.move(other, file, StandardCopyOption.REPLACE_EXISTING);
  }
}
