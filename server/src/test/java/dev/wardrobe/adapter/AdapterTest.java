package dev.wardrobe.adapter;

import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

final class AdapterTest {
  private static final Path BAD = Adapters.resource("golden/adapters_bad");
  private static final Path GOOD = Adapters.resource("golden/adapters/llama_mha");
  private static final String PREFIX = "base_model.model.";

  private static Base llama3;
  private static Base small;

  @TempDir Path temp;

  @BeforeAll
  static void open() throws Exception {
    llama3 = Base.of("llama3-nf4-dq");
    small = Base.of("llama_mha-nf4-dq");
  }

  @AfterAll
  static void close() {
    llama3.close();
    small.close();
    assertThat(llama3.backend.liveBytes()).isZero();
    assertThat(small.backend.liveBytes()).isZero();
  }

  // Golden: what PEFT wrote.

  static List<String> references() throws IOException {
    List<String> names = new ArrayList<>();
    JsonNode index =
        Adapters.JSON.readTree(ReferenceFolder.require("golden/adapters/adapters.json").toFile());
    index.get("adapters").fieldNames().forEachRemaining(names::add);
    return names;
  }

  @ParameterizedTest
  @MethodSource("references")
  void read_meetsReference(String name) throws Exception {
    Path folder = ReferenceFolder.require("golden");
    JsonNode expected =
        Adapters.JSON
            .readTree(folder.resolve("adapters/adapters.json").toFile())
            .get("adapters")
            .get(name);
    String model = name.substring(0, name.indexOf('/'));
    Path directory = folder.resolve("adapters").resolve(name);
    try (Base base = new Base(folder.resolve("models/" + model + "-nf4-dq"))) {
      if (expected.get("refuse").booleanValue()) {
        AdapterException refusal = Base.refusal(() -> base.read(directory, AdapterOptions.DEFAULT));
        assertThat(refusal).isNotNull();
        assertThat(refusal.reason()).isEqualTo(Reason.INVALID);
        assertThat(refusal).hasMessageContaining("peft_type");
        return;
      }
      meets(base, directory, expected);
    }
  }

  static List<Path> small() throws IOException {
    return Adapters.directories(GOOD);
  }

  @ParameterizedTest
  @MethodSource("small")
  void read_takesEveryTensor(Path directory) throws Exception {
    meets(small, directory, null);
  }

  @Test
  void read_demoAdapters() throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root", "..")).resolve("deploy/models/demo");
    try (Base base = new Base(demo.resolve("base"))) {
      for (Path directory : Adapters.directories(demo.resolve("adapters"))) {
        meets(base, directory, null);
      }
    }
  }

  private static void meets(Base base, Path directory, @Nullable JsonNode expected)
      throws Exception {
    long before = base.backend.liveBytes();
    try (Adapter adapter = Adapter.read(directory, base.model, AdapterOptions.DEFAULT)) {
      if (expected != null) {
        assertThat(scalings(adapter.deltas())).hasSize(expected.get("scaling").size());
        int i = 0;
        for (double scaling : scalings(adapter.deltas())) {
          assertThat(scaling)
              .isCloseTo(expected.get("scaling").get(i++).doubleValue(), within(1e-6));
        }
      }
      assertThat(adapter.warnings()).isEmpty();
      try (SafetensorsFile file = SafetensorsFile.open(directory.resolve(Adapter.WEIGHTS))) {
        long elements =
            file.tensors().values().stream()
                .filter(t -> !t.name().endsWith(".base_layer.weight"))
                .mapToLong(TensorInfo::elements)
                .sum();
        assertThat(adapter.parameters()).isEqualTo(elements);
        for (Map.Entry<Integer, Delta> entry : adapter.deltas().entrySet()) {
          String path = PREFIX + base.model.modules().get(entry.getKey()).path();
          long present =
              file.tensors().keySet().stream()
                  .filter(n -> n.startsWith(path + ".") && !n.endsWith(".base_layer.weight"))
                  .count();
          assertThat(parts(entry.getValue())).as(path).isEqualTo(present);
        }
      }
      try (var lora = base.backend.lora(adapter.deltas(), base.model::matrix)) {
        assertThat(lora.bytes()).isPositive();
        assertThat(base.backend.liveBytes()).isGreaterThan(before);
      }
    }
    assertThat(base.backend.liveBytes()).isEqualTo(before);
  }

  private static SortedSet<Double> scalings(Map<Integer, Delta> deltas) {
    SortedSet<Double> scalings = new TreeSet<>();
    deltas.values().stream()
        .filter(d -> d.lowRank() != null)
        .forEach(d -> scalings.add((double) d.scale()));
    return scalings;
  }

  private static long parts(Delta delta) {
    return (delta.lowRank() == null ? 0 : 2)
        + List.of(
                delta.magnitude() != null,
                delta.loraBias() != null,
                delta.bias() != null,
                delta.weight() != null)
            .stream()
            .filter(present -> present)
            .count();
  }

  // Malformed.

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "ab_rank_differ | INVALID | rank 4; lora_B; 2 columns",
        "alpha_nan | INVALID | lora_alpha; NaN",
        "bin_only | INVALID | adapter_model.bin; pickle",
        "config_bom_array | INVALID | JSON object; [1,2]",
        "config_deep | INVALID | nested at most",
        "config_not_json | INVALID | strict JSON",
        "duplicate_keys | INVALID | adapter_model.safetensors; v_proj.lora",
        "empty_file | INVALID | adapter_model.safetensors",
        "extra_layer | MISMATCH | model.layers.3.; 3 layers",
        "extra_tensor | MISMATCH | x_proj; belongs to nothing here",
        "header_length_200mb | INVALID | adapter_model.safetensors; 200000000",
        "header_length_max | INVALID | adapter_model.safetensors; header",
        "header_length_u64 | INVALID | adapter_model.safetensors; header",
        "header_not_json | INVALID | adapter_model.safetensors; header",
        "header_not_utf8 | INVALID | adapter_model.safetensors; header",
        "header_zero | INVALID | adapter_model.safetensors; header",
        "inf | INVALID | lora_A; infinity at index",
        "int_dtype | INVALID | F32, F16 or BF16; I32",
        "missing_module | INVALID | expected a tensor; target_modules",
        "missing_tensor | INVALID | expected a tensor; lora_B",
        "nan | INVALID | lora_B; NaN; at index",
        "negative_offsets | INVALID | adapter_model.safetensors",
        "negative_shape | INVALID | adapter_model.safetensors",
        "no_config | INVALID | adapter_config.json; got none",
        "no_peft_type | INVALID | peft_type; got nothing",
        "no_weights | INVALID | adapter_model.safetensors; got none",
        "offsets_past_end | INVALID | adapter_model.safetensors",
        "overlapping_offsets | INVALID | adapter_model.safetensors",
        "rank_huge | INVALID | r: expected a rank from 1 to 4096; 1000000",
        "rank_mismatch | INVALID | rank 16; 4 rows",
        "rank_negative | INVALID | r: expected a rank; -8",
        "rank_zero | INVALID | r: expected a rank; got 0",
        "regex_bomb | MISMATCH | target_modules; selects no module",
        "regex_invalid | INVALID | target_modules; regular expression; (v_proj",
        "reversed_offsets | INVALID | adapter_model.safetensors",
        "shape_overflow | INVALID | adapter_model.safetensors",
        "short_file | INVALID | adapter_model.safetensors",
        "trailing_bytes | INVALID | adapter_model.safetensors",
        "transposed | INVALID | transposed; (rank, in)",
        "truncated_body | INVALID | adapter_model.safetensors",
        "truncated_header | INVALID | adapter_model.safetensors; header",
        "unknown_dtype | INVALID | adapter_model.safetensors; F99",
        "unknown_peft_type | INVALID | peft_type; SUPERLORA",
        "untargeted_module | INVALID | k_proj; target_modules",
        "wrong_in_width | MISMATCH | lora_A; expected shape [4, 128]; [4, 144]",
        "wrong_out_width | MISMATCH | lora_B; expected shape [32, 4]; [31, 4]",
      })
  void read_refusesMalformed(String name, Reason reason, String words) {
    long before = llama3.backend.liveBytes();
    AdapterException refusal =
        Base.refusal(() -> llama3.read(BAD.resolve(name), AdapterOptions.DEFAULT));
    assertThat(refusal).as("accepted").isNotNull();
    assertThat(refusal.reason()).as(refusal.getMessage()).isEqualTo(reason);
    assertThat(refusal.getMessage())
        .contains(words.split("; "))
        .doesNotContain("\n")
        .hasSizeLessThan(700);
    assertThat(llama3.backend.liveBytes()).isEqualTo(before);
  }

  @Test
  void malformed_eachHasItsTest() throws Exception {
    List<String> tested =
        Arrays.stream(
                AdapterTest.class
                    .getDeclaredMethod(
                        "read_refusesMalformed", String.class, Reason.class, String.class)
                    .getAnnotation(CsvSource.class)
                    .value())
            .map(row -> row.substring(0, row.indexOf(' ')))
            .toList();
    List<String> there =
        Adapters.directories(BAD).stream()
            .map(d -> d.getFileName().toString())
            .filter(d -> !d.equals("zero_delta"))
            .toList();
    assertThat(tested).containsExactlyElementsOf(there);
  }

  @Test
  void read_zeroDeltaWarnsOrIsRefused() throws Exception {
    Path zero = BAD.resolve("zero_delta");
    assertThat(llama3.read(zero, AdapterOptions.DEFAULT).adapter().warnings())
        .singleElement()
        .asString()
        .contains("zero in every module");
    assertThatThrownBy(() -> llama3.read(zero, AdapterOptions.DEFAULT.withRefuseZeroDelta(true)))
        .isInstanceOf(AdapterException.class)
        .hasMessageContaining("zero");
  }

  @Test
  void read_adapterOfAnotherBase() throws Exception {
    for (Path directory : Adapters.directories(GOOD)) {
      AdapterException refusal = Base.refusal(() -> llama3.read(directory, AdapterOptions.DEFAULT));
      assertThat(refusal).as("%s accepted", directory).isNotNull();
      assertThat(refusal.reason()).as(refusal.getMessage()).isEqualTo(Reason.MISMATCH);
      assertThat(refusal).hasMessageContaining("another base");
    }
  }

  // Made from a good one, with one thing changed.

  private Path changed(String name, UnaryOperator<ObjectNode> config) throws IOException {
    Path directory = temp.resolve(name.replace('/', '_'));
    Adapters.copy(GOOD.resolve(name), directory);
    change(directory, config);
    return directory;
  }

  private static void change(Path directory, UnaryOperator<ObjectNode> config) throws IOException {
    Path file = directory.resolve(AdapterConfig.FILE);
    ObjectNode json = (ObjectNode) Adapters.JSON.readTree(file.toFile());
    Files.writeString(file, config.apply(json).toString());
  }

  /** Writes the directory's weights once more, with tensors replaced, added or (null) left out. */
  private static void rewrite(
      Path directory, Map<String, float[]> changes, Map<String, String> metadata)
      throws IOException {
    Path file = directory.resolve(Adapter.WEIGHTS);
    Map<String, float[]> values = new TreeMap<>();
    Map<String, List<Long>> shapes = new TreeMap<>();
    try (SafetensorsFile in = SafetensorsFile.open(file)) {
      for (TensorInfo tensor : in.tensors().values()) {
        values.put(tensor.name(), in.floats(tensor));
        shapes.put(tensor.name(), tensor.shape());
      }
    }
    changes.forEach(
        (name, value) -> {
          values.put(name, value);
          shapes.putIfAbsent(name, List.of((long) value.length));
        });
    values.values().removeIf(v -> v.length == 0);
    List<TensorSpec> specs =
        values.keySet().stream()
            .map(name -> new TensorSpec(name, DType.F32, requireNonNull(shapes.get(name))))
            .toList();
    try (SafetensorsWriter out = SafetensorsWriter.create(file, specs, metadata);
        Arena arena = Arena.ofConfined()) {
      for (Map.Entry<String, float[]> entry : values.entrySet()) {
        MemorySegment bytes = arena.allocate(4L * entry.getValue().length);
        DType.F32.narrow(entry.getValue(), 0, entry.getValue().length, bytes, 0);
        out.write(entry.getKey(), bytes);
      }
      out.commit();
    }
  }

  private static float[] values(Path directory, String name) throws IOException {
    try (SafetensorsFile in = SafetensorsFile.open(directory.resolve(Adapter.WEIGHTS))) {
      return in.floats(requireNonNull(in.find(name)));
    }
  }

  private static AdapterException refusal(Path directory) {
    AdapterException refusal = Base.refusal(() -> small.read(directory, AdapterOptions.DEFAULT));
    assertThat(refusal).as("accepted").isNotNull();
    return refusal;
  }

  @Test
  void read_fingerprintInConfig() throws Exception {
    String ours = small.model.fingerprint();
    assertThat(ours).hasSize(64);
    Path right = changed("lora_r8_qv", c -> c.put(PeftField.FINGERPRINT, "sha256:" + ours));
    assertThat(small.read(right, AdapterOptions.DEFAULT).adapter().warnings()).isEmpty();
    change(right, c -> c.put(PeftField.FINGERPRINT, llama3.model.fingerprint()));
    assertThat(refusal(right).reason()).isEqualTo(Reason.MISMATCH);
    assertThat(refusal(right)).hasMessageContaining(ours).hasMessageContaining("fingerprint");
    change(right, c -> c.put(PeftField.FINGERPRINT, "abc"));
    assertThat(refusal(right).reason()).isEqualTo(Reason.INVALID);
  }

  @Test
  void read_fingerprintInMetadata() throws Exception {
    Path directory = changed("lora_r8_qv", c -> c);
    rewrite(directory, Map.of(), Map.of(Gate.FINGERPRINT, small.model.fingerprint()));
    assertThat(small.read(directory, AdapterOptions.DEFAULT).adapter().warnings()).isEmpty();
    rewrite(directory, Map.of(), Map.of(Gate.FINGERPRINT, "0".repeat(64)));
    assertThat(refusal(directory).reason()).isEqualTo(Reason.MISMATCH);
  }

  @Test
  void read_anotherBaseNameWarns() throws Exception {
    Path directory =
        changed("lora_r8_qv", c -> c.put("base_model_name_or_path", "meta-llama/Llama-2-7b"));
    assertThat(small.read(directory, AdapterOptions.DEFAULT).adapter().warnings())
        .singleElement()
        .asString()
        .contains("Llama-2-7b", "llama_mha-nf4-dq");
  }

  @Test
  void read_copyOfTheBaseThatDiffers() throws Exception {
    Path directory = changed("head_embed", c -> c);
    for (String name : List.of("model.embed_tokens", "lm_head")) {
      String key = PREFIX + name + ".base_layer.weight";
      float[] right = values(directory, key);
      float[] wrong = right.clone();
      wrong[777] = Math.nextUp(wrong[777]);
      rewrite(directory, Map.of(key, wrong), Map.of());
      assertThat(refusal(directory).reason()).isEqualTo(Reason.MISMATCH);
      assertThat(refusal(directory)).hasMessageContaining(key).hasMessageContaining("copy");
      rewrite(directory, Map.of(key, right), Map.of());
    }
    assertThat(small.read(directory, AdapterOptions.DEFAULT).adapter().warnings()).isEmpty();
    rewrite(directory, Map.of(PREFIX + "lm_head.base_layer.weight", new float[0]), Map.of());
    assertThat(small.read(directory, AdapterOptions.DEFAULT).adapter().modules()).isEqualTo(4);
  }

  @ParameterizedTest
  @ValueSource(strings = {"NaN", "Infinity", "-Infinity"})
  void read_notFiniteAnywhere(String value) throws Exception {
    Path directory = changed("dora_r8", c -> c);
    String key = PREFIX + "model.layers.1.mlp.down_proj.lora_magnitude_vector";
    float[] values = values(directory, key);
    values[5] = Float.parseFloat(value);
    rewrite(directory, Map.of(key, values), Map.of());
    assertThat(refusal(directory)).hasMessageContaining(key).hasMessageContaining("index 5");
  }

  @Test
  void read_magnitudesWithoutDora() throws Exception {
    Path directory = changed("dora_r8", c -> c.put("use_dora", false));
    assertThat(refusal(directory))
        .hasMessageContaining("lora_magnitude_vector")
        .hasMessageContaining("use_dora");
    Path other = changed("lora_r8_qv", c -> c.put("use_dora", true));
    assertThat(refusal(other))
        .hasMessageContaining("lora_magnitude_vector")
        .hasMessageContaining("use_dora is true");
  }

  @Test
  void read_rankAndScaleComeFromTheConfig() throws Exception {
    Path directory = changed("lora_r8_qv", c -> c.put("lora_alpha", 1.5));
    try (Adapter adapter = Adapter.read(directory, small.model, AdapterOptions.DEFAULT)) {
      assertThat(scalings(adapter.deltas())).containsExactly((double) (float) (1.5 / 8));
    }
    change(directory, c -> c.put("use_rslora", true));
    try (Adapter adapter = Adapter.read(directory, small.model, AdapterOptions.DEFAULT)) {
      assertThat(adapter.kind()).hasToString("rslora");
      assertThat(scalings(adapter.deltas())).containsExactly((double) (float) (1.5 / Math.sqrt(8)));
    }
    change(directory, c -> c.put("lora_alpha", 1e300));
    assertThat(refusal(directory)).hasMessageContaining("scale");
    change(directory, c -> c.put("lora_alpha", 0));
    assertThat(small.read(directory, AdapterOptions.DEFAULT).adapter().warnings())
        .singleElement()
        .asString()
        .contains("zero in every module");
  }

  @Test
  void read_someModulesStandStill() throws Exception {
    Path directory = changed("lora_r8_qv", c -> c);
    String key = PREFIX + "model.layers.1.self_attn.v_proj.lora_B.weight";
    rewrite(directory, Map.of(key, new float[values(directory, key).length]), Map.of());
    assertThat(
            small
                .read(directory, AdapterOptions.DEFAULT.withRefuseZeroDelta(true))
                .adapter()
                .warnings())
        .singleElement()
        .asString()
        .contains("1 of 4 modules", "model.layers.1.self_attn.v_proj");
  }

  @Test
  void read_limits() throws Exception {
    Path directory = GOOD.resolve("lora_r8_qv");
    AdapterException large =
        Base.refusal(() -> small.read(directory, AdapterOptions.DEFAULT.withMaxFileBytes(1000)));
    assertThat(large).isNotNull();
    assertThat(large.reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(large).hasMessageContaining("1000");
    AdapterException rank =
        Base.refusal(() -> small.read(directory, AdapterOptions.DEFAULT.withMaxRank(7)));
    assertThat(rank).isNotNull().hasMessageContaining("from 1 to 7");
  }

  @Test
  void read_fileOfMoreThanTheConfigAsksFor() throws Exception {
    Path directory = changed("lora_r8_qv", c -> c);
    Path file = directory.resolve(Adapter.WEIGHTS);
    try (var channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      // Sparse: takes no disk.
      channel.write(ByteBuffer.allocate(1), 6L << 30);
    }
    assertThat(refusal(directory)).hasMessageContaining("brings more than that");
  }

  @Test
  void read_directoryThatIsNot() {
    AdapterException missing = refusal(temp.resolve("nothing"));
    assertThat(missing.reason()).isEqualTo(Reason.NOT_FOUND);
  }

  @Test
  void read_pipeInsteadOfAFile() throws Exception {
    Path directory = changed("lora_r8_qv", c -> c);
    Path file = directory.resolve(Adapter.WEIGHTS);
    Files.delete(file);
    Process made = new ProcessBuilder("mkfifo", file.toString()).start();
    assumeTrue(made.waitFor() == 0, "no mkfifo here");
    assertThat(refusal(directory)).hasMessageContaining("regular file");
  }

  /** Whatever bytes are flipped: it is an adapter, or it is refused; nothing else. */
  @Test
  void read_damagedAnywhere() throws Exception {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    int rounds = Integer.getInteger("wardrobe.fuzz", 200);
    for (String name : List.of("lora_r8_qv", "dora_r8")) {
      Path directory = changed(name, c -> c);
      for (String file : List.of(AdapterConfig.FILE, Adapter.WEIGHTS)) {
        byte[] good = Files.readAllBytes(directory.resolve(file));
        // Of the weights, mostly the header.
        int reach = file.equals(Adapter.WEIGHTS) ? 4000 : good.length;
        for (int round = 0; round < rounds; round++) {
          byte[] bad = good.clone();
          for (int flips = 1 + random.nextInt(3); flips > 0; flips--) {
            byte[] likely =
                "0123456789[]{}\",:.-ntfe\\\0\377".getBytes(StandardCharsets.ISO_8859_1);
            bad[random.nextInt(reach)] =
                random.nextBoolean()
                    ? (byte) random.nextInt()
                    : likely[random.nextInt(likely.length)];
          }
          Files.write(directory.resolve(file), bad);
          long before = small.backend.liveBytes();
          try {
            small.read(directory, AdapterOptions.DEFAULT);
          } catch (AdapterException e) {
            assertThat(e.getMessage()).as("seed %d", seed).doesNotContain("\n");
          } catch (RuntimeException e) {
            throw new AssertionError("seed %d, %s, round %d".formatted(seed, file, round), e);
          }
          assertThat(small.backend.liveBytes()).as("seed %d", seed).isEqualTo(before);
        }
        Files.write(directory.resolve(file), good);
      }
    }
  }

  // Identity.

  @Test
  void digest_isOfTheManifest() throws Exception {
    // From sha256sum over the two files, and over a manifest written by hand.
    assertThat(small.read(GOOD.resolve("lora_r8_qv"), AdapterOptions.DEFAULT).adapter().digest())
        .isEqualTo("sha256:71b3910c02cc40b1ecc16044f6915bf8505bcab10c6d366550ffca940338cdf4");
  }

  @Test
  void digest_changesWithEitherFile() throws Exception {
    String first =
        small.read(GOOD.resolve("lora_r8_qv"), AdapterOptions.DEFAULT).adapter().digest();
    Path copy = changed("lora_r8_qv", c -> c);
    assertThat(small.read(copy, AdapterOptions.DEFAULT).adapter().digest())
        .as("the config was written in another form")
        .isNotEqualTo(first);
    Files.copy(
        GOOD.resolve("lora_r8_qv").resolve(AdapterConfig.FILE),
        copy.resolve(AdapterConfig.FILE),
        StandardCopyOption.REPLACE_EXISTING);
    Files.writeString(copy.resolve("README.md"), "not part of it");
    assertThat(small.read(copy, AdapterOptions.DEFAULT).adapter().digest()).isEqualTo(first);
    rewrite(copy, Map.of(), Map.of("note", "other bytes"));
    assertThat(small.read(copy, AdapterOptions.DEFAULT).adapter().digest()).isNotEqualTo(first);
  }
}
