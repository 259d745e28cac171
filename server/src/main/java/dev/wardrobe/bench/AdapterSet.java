package dev.wardrobe.bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.Modules;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.SafetensorsException;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorSpec;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.TreeSet;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A folder of PEFT adapters on all linear modules of a model's shape, with random bfloat16 factors:
 * made to be measured, and removed again. No two have the same content; the same seed makes the
 * same bytes.
 *
 * <p>A file beside them says what was made, written before the first of them, so that what is left
 * of an interrupted set can be removed too.
 */
public final class AdapterSet {
  /** Says what was made. */
  public static final String FILE = "wardrobe-bench.json";

  /** More would make names of other lengths. */
  public static final int MOST = 10_000;

  private static final String CONFIG = "adapter_config.json";
  private static final String WEIGHTS = "adapter_model.safetensors";
  private static final int LARGEST_FILE = 16 << 20;

  /**
   * Four bfloat16 at once, out of 64 random bits: sign, the exponent's lowest bit and mantissa, so
   * that a magnitude lies in two octaves. Its root mean square over the lower one's beginning is
   * {@link #RMS}.
   */
  private static final long RANDOM_BITS = 0x80FF_80FF_80FF_80FFL;

  private static final long EACH = 0x0001_0001_0001_0001L;

  private static final double RMS = 2.415;

  private static final JsonFactory JSON =
      JsonFactory.builder()
          .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(8).build())
          .build();

  private final Path folder;
  private final int count;
  private final long seed;
  private final double scale;
  private final List<Integer> ranks;
  private final int[] attempts;
  private List<List<Integer>> prompts = List.of();

  private AdapterSet(Path folder, int count, long seed, double scale, List<Integer> ranks) {
    this.folder = folder;
    this.count = count;
    this.seed = seed;
    this.scale = scale;
    this.ranks = List.copyOf(ranks);
    this.attempts = new int[count];
  }

  /**
   * Makes a set.
   *
   * @param folder new or empty
   * @param config of the base
   * @param ranks each adapter has one of these; all are as frequent
   * @param scale how large the adapters' outputs are beside inputs of about 1
   * @throws IOException if the folder is not empty, or cannot be written to
   */
  public static AdapterSet make(
      Path folder, ModelConfig config, int count, long seed, double scale, List<Integer> ranks)
      throws IOException {
    Files.createDirectories(folder);
    try (Stream<Path> inside = Files.list(folder)) {
      Path first = inside.findFirst().orElse(null);
      if (first != null) {
        throw new IOException(
            "%s: expected a new or an empty folder, found %s in it; choose another, or remove a set"
                    .formatted(folder, first.getFileName())
                + " of adapters with --remove");
      }
    }
    AdapterSet set = new AdapterSet(folder, count, seed, scale, ranks);
    set.save();
    List<Module> modules = modules(config);
    try {
      IntStream.range(0, count)
          .parallel()
          .forEach(
              i -> {
                try {
                  set.write(modules, i);
                } catch (IOException e) {
                  throw new UncheckedIOException(e);
                }
              });
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
    return set;
  }

  /**
   * Makes one adapter anew, of other content.
   *
   * @param config of the base
   */
  public void remake(ModelConfig config, int index) throws IOException {
    attempts[index]++;
    write(modules(config), index);
  }

  private static List<Module> modules(ModelConfig config) {
    return Modules.of(config).all().stream()
        .filter(module -> module.kind() == Module.Kind.LINEAR)
        .toList();
  }

  public Path folder() {
    return folder;
  }

  /** Adapters in it. */
  public int count() {
    return count;
  }

  public long seed() {
    return seed;
  }

  /** The directory of an adapter within the folder, and so its name to a server. */
  public String name(int index) {
    return "a%04d".formatted(index);
  }

  /** Prompts by which the adapters can be told apart; none unless somebody has tried. */
  public List<List<Integer>> prompts() {
    return prompts;
  }

  /** Keeps {@link #prompts} with the set. */
  public void tellApart(List<List<Integer>> by) throws IOException {
    prompts = by.stream().map(List::copyOf).toList();
    save();
  }

  /** Bytes of all files. */
  public long bytes() throws IOException {
    long bytes = 0;
    for (int i = 0; i < count; i++) {
      bytes += Files.size(folder.resolve(name(i)).resolve(WEIGHTS));
      bytes += Files.size(folder.resolve(name(i)).resolve(CONFIG));
    }
    return bytes;
  }

  private void save() throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode root = mapper.createObjectNode();
    root.put("made_by", "wardrobe bench adapters");
    root.put("count", count);
    root.put("seed", seed);
    root.put("scale", scale);
    ranks.forEach(root.putArray("ranks")::add);
    root.putArray("names").add(name(0)).add(name(count - 1));
    for (List<Integer> prompt : prompts) {
      prompt.forEach(root.withArray("prompts").addArray()::add);
    }
    Files.writeString(folder.resolve(FILE), mapper.writeValueAsString(root) + "\n");
  }

  /**
   * The set in a folder, whether it is complete or not.
   *
   * @throws IOException if there is none
   */
  public static AdapterSet read(Path folder) throws IOException {
    Path file = folder.resolve(FILE);
    try {
      if (Files.size(file) > LARGEST_FILE) {
        throw new IOException("%s: expected at most %d bytes".formatted(file, LARGEST_FILE));
      }
      JsonNode root = new ObjectMapper(JSON).readTree(Files.readString(file));
      int count = root.path("count").asInt();
      if (count < 1 || count > MOST) {
        throw new IOException(
            "%s: expected a count of 1 to %d, got %s".formatted(file, MOST, root.path("count")));
      }
      List<Integer> ranks = new ArrayList<>();
      root.path("ranks").forEach(rank -> ranks.add(rank.asInt()));
      AdapterSet set =
          new AdapterSet(
              folder, count, root.path("seed").asLong(), root.path("scale").asDouble(), ranks);
      List<List<Integer>> prompts = new ArrayList<>();
      for (JsonNode prompt : root.path("prompts")) {
        List<Integer> tokens = new ArrayList<>();
        prompt.forEach(token -> tokens.add(token.asInt()));
        prompts.add(tokens);
      }
      set.prompts = prompts;
      return set;
    } catch (NoSuchFileException | NotDirectoryException e) {
      throw new IOException(
          "%s: expected a folder that 'wardrobe bench adapters' made, with a %s in it"
              .formatted(folder, FILE),
          e);
    } catch (JsonProcessingException e) {
      throw new IOException(
          "%s: expected JSON, got: %s".formatted(file, e.getOriginalMessage()), e);
    }
  }

  /**
   * Deletes what was made, and nothing else.
   *
   * @return what is left in the folder, if anything: it is not the set's
   */
  public List<String> remove() throws IOException {
    for (int i = 0; i < count; i++) {
      Path directory = folder.resolve(name(i));
      Files.deleteIfExists(directory.resolve(WEIGHTS));
      Files.deleteIfExists(directory.resolve(CONFIG));
      deleteIfEmpty(directory);
    }
    Files.deleteIfExists(folder.resolve(FILE));
    if (deleteIfEmpty(folder)) {
      return List.of();
    }
    try (Stream<Path> left = Files.list(folder)) {
      return left.map(path -> path.getFileName().toString()).sorted().toList();
    }
  }

  private static boolean deleteIfEmpty(Path directory) throws IOException {
    try {
      Files.deleteIfExists(directory);
      return true;
    } catch (DirectoryNotEmptyException e) {
      return false;
    }
  }

  private void write(List<Module> modules, int index) throws IOException {
    SplittableRandom random = random(index);
    int rank = rank(index);
    Path directory = folder.resolve(name(index));
    Files.createDirectories(directory);
    List<TensorSpec> tensors = new ArrayList<>();
    int most = 0;
    for (Module module : modules) {
      String name = "base_model.model." + module.path();
      tensors.add(tensor(name + ".lora_A.weight", rank, module.in()));
      tensors.add(tensor(name + ".lora_B.weight", module.out(), rank));
      most = Math.max(most, rank * Math.max(module.in(), module.out()));
    }
    Path weights = directory.resolve(WEIGHTS);
    try (Arena arena = Arena.ofConfined();
        SafetensorsWriter writer =
            SafetensorsWriter.create(weights, tensors, Map.of("format", "pt"))) {
      MemorySegment values = arena.allocate(8L * Math.ceilDiv(most, 4), 8);
      for (int i = 0; i < modules.size(); i++) {
        Module module = modules.get(i);
        // A·x is about 1 for inputs of about 1, and so is B·A·x: alpha / r makes it the scale.
        put(writer, tensors.get(2 * i), values, random, 1 / Math.sqrt(module.in()));
        put(writer, tensors.get(2 * i + 1), values, random, 1 / Math.sqrt(rank));
      }
      writer.commit(false);
    } catch (SafetensorsException e) {
      throw new IOException(e.getMessage(), e);
    }
    Files.writeString(
        directory.resolve(CONFIG),
        config(modules, rank),
        StandardOpenOption.CREATE,
        StandardOpenOption.TRUNCATE_EXISTING,
        StandardOpenOption.WRITE);
  }

  /**
   * Any so many adapters in a row have each rank once, in an order that is drawn: the first few,
   * which are asked for most, are no larger than the rest.
   */
  private int rank(int index) {
    List<Integer> order = new ArrayList<>(ranks);
    Collections.shuffle(order, new Random(seed + index / order.size()));
    return order.get(index % order.size());
  }

  private SplittableRandom random(int index) {
    // Split rather than added to: a generator of a near seed may give the same numbers later.
    SplittableRandom of = new SplittableRandom(seed).split();
    return new SplittableRandom(of.nextLong() ^ ((long) attempts[index] << 32 | index)).split();
  }

  private static TensorSpec tensor(String name, int rows, int columns) {
    return new TensorSpec(name, DType.BF16, List.of((long) rows, (long) columns));
  }

  private static void put(
      SafetensorsWriter writer,
      TensorSpec tensor,
      MemorySegment values,
      SplittableRandom random,
      double rms)
      throws SafetensorsException {
    // Even, so that the random bit below it may be set.
    long exponent = 127 + Math.round(Math.log(rms / RMS) / Math.log(2)) & ~1L;
    long base = EACH * (exponent << 7);
    long longs = Math.ceilDiv(tensor.byteSize(), 8);
    for (long i = 0; i < longs; i++) {
      values.setAtIndex(ValueLayout.JAVA_LONG, i, base | (random.nextLong() & RANDOM_BITS));
    }
    writer.write(tensor.name(), values.asSlice(0, tensor.byteSize()));
  }

  private String config(List<Module> modules, int rank) throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode root = mapper.createObjectNode();
    root.put("peft_type", "LORA");
    root.put("task_type", "CAUSAL_LM");
    root.put("r", rank);
    root.put("lora_alpha", scale * rank);
    root.put("bias", "none");
    Set<String> targets = new TreeSet<>();
    for (Module module : modules) {
      targets.add(module.path().substring(module.path().lastIndexOf('.') + 1));
    }
    targets.forEach(root.putArray("target_modules")::add);
    return mapper.writeValueAsString(root) + "\n";
  }

  /**
   * The ranks that a range or a list names.
   *
   * @param text {@code 8}, {@code 8,24} or {@code 8..64}: the powers of two from 8 to 64
   * @return null if it names none
   */
  public static @Nullable List<Integer> ranks(String text) {
    List<Integer> ranks = new ArrayList<>();
    try {
      int dots = text.indexOf("..");
      if (dots >= 0) {
        int least = Integer.parseInt(text.substring(0, dots));
        int most = Integer.parseInt(text.substring(dots + 2));
        for (int rank = 1; rank <= Math.min(most, 1 << 20); rank *= 2) {
          if (rank >= least) {
            ranks.add(rank);
          }
        }
      } else {
        for (String each : text.split(",", -1)) {
          ranks.add(Integer.parseInt(each.strip()));
        }
      }
    } catch (NumberFormatException e) {
      return null;
    }
    return ranks.isEmpty() || ranks.stream().anyMatch(r -> r < 1 || r > 4096) ? null : ranks;
  }
}
