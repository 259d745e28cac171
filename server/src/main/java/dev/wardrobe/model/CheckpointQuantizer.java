package dev.wardrobe.model;

import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.Quantization;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.quant.TensorEntry;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A conversion of an unquantized model directory to a bitsandbytes 4-bit one, which transformers
 * and this server load.
 *
 * <p>Weights stream tensor by tensor through a file beside the output, because the size of a
 * tensor's description is known only once it is quantized. The output appears under its name when
 * it is complete, or not at all; the same input makes the same bytes.
 */
public final class CheckpointQuantizer {
  /** What transformers calls a large checkpoint; larger ones are cut. */
  public static final long DEFAULT_SHARD_BYTES = 5_000_000_000L;

  private static final String SINGLE = "model.safetensors";
  private static final String INDEX = "model.safetensors.index.json";
  private static final String SPOOL = ".codes";
  private static final Map<String, String> METADATA = Map.of("format", "pt");

  /** Files that are copied as they are, where they exist. */
  private static final Set<String> COPIED =
      Set.of(
          GenerationDefaults.FILE,
          "tokenizer.json",
          "tokenizer_config.json",
          "tokenizer.model",
          "special_tokens_map.json",
          "added_tokens.json",
          "vocab.json",
          "vocab.txt",
          "merges.txt",
          "chat_template.jinja",
          "chat_template.json");

  private static final String TEMPLATES = "additional_chat_templates";

  /**
   * How to convert.
   *
   * @param quantize the code book, block size, and whether block maxima are quantized
   * @param skip modules to leave unquantized besides the head
   * @param shardBytes most bytes of tensors in a file, unless one weight alone has more
   */
  public record Options(QuantOptions quantize, List<String> skip, long shardBytes) {
    public Options {
      skip = List.copyOf(skip);
      if (shardBytes < 1) {
        throw new IllegalArgumentException(
            "shard size: expected at least 1 byte, got " + shardBytes);
      }
    }
  }

  /**
   * What was written.
   *
   * @param memory bytes of the written weights by what they hold
   * @param fingerprint of the quantized base
   * @param files the weight files
   */
  public record Result(MemoryUse memory, String fingerprint, List<Path> files) {}

  /**
   * A tensor to write: in memory, in the source checkpoint, or spooled.
   *
   * @param data its bytes, or null while they are only in the spool
   * @param offset where its bytes are in the spool, or -1
   * @param source the source checkpoint's tensor, if it is copied
   */
  private record Pending(
      TensorSpec spec, @Nullable MemorySegment data, long offset, @Nullable TensorInfo source) {}

  private final StoredModel stored;
  private final Path directory;
  private final Options options;
  private final SkipRule skip;
  private final Modules modules;
  private final Fingerprint fingerprint = new Fingerprint();

  private CheckpointQuantizer(StoredModel stored, Path directory, Options options)
      throws ModelException {
    this.stored = stored;
    this.directory = directory;
    this.options = options;
    skip = new SkipRule(options.skip());
    modules = new Modules(stored.config(), path -> !skip.skips(path));
    skip.check(modules);
  }

  /**
   * Converts a model.
   *
   * @param model an unquantized Hugging Face directory
   * @param out where the result goes: nothing, or an empty directory
   * @param progress told of each module that is done
   * @throws ModelException if the model is not supported or quantized already, or {@code out} is
   *     taken
   * @throws IOException if a file cannot be read or written; {@code out} is then as it was
   */
  public static Result quantize(Path model, Path out, Options options, Progress progress)
      throws ModelException, IOException {
    Path target = out.toAbsolutePath().normalize();
    checkTarget(target);
    try (StoredModel stored = StoredModel.open(model)) {
      stored.checkTiedHead();
      if (stored.quantized()) {
        throw new ModelException(
            "%s: is quantized already; serve it as it is, or quantize the original checkpoint"
                .formatted(model));
      }
      Path parent = target.getParent();
      if (parent == null) {
        throw new ModelException("%s: expected a directory below the root".formatted(out));
      }
      Files.createDirectories(parent);
      String suffix = Long.toHexString(ThreadLocalRandom.current().nextLong());
      Path partial = parent.resolve("." + target.getFileName() + "." + suffix);
      Files.createDirectory(partial);
      try {
        Result result = new CheckpointQuantizer(stored, partial, options).run(model, progress);
        checkTarget(target);
        Files.move(partial, target, StandardCopyOption.ATOMIC_MOVE);
        return new Result(
            result.memory,
            result.fingerprint,
            result.files.stream().map(f -> out.resolve(partial.relativize(f))).toList());
      } finally {
        delete(partial);
      }
    }
  }

  private static void checkTarget(Path target) throws ModelException, IOException {
    if (!Files.exists(target)) {
      return;
    }
    if (!Files.isDirectory(target)) {
      throw new ModelException(
          "%s: is a file; expected nothing, or an empty directory".formatted(target));
    }
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(target)) {
      if (entries.iterator().hasNext()) {
        throw new ModelException(
            "%s: is not empty; name a new directory, or remove it first".formatted(target));
      }
    }
  }

  private static void delete(Path directory) throws IOException {
    if (!Files.exists(directory)) {
      return;
    }
    try (Stream<Path> paths = Files.walk(directory)) {
      for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    }
  }

  private Result run(Path model, Progress progress) throws ModelException, IOException {
    Files.writeString(directory.resolve(ModelConfig.FILE), config(model));
    copyFiles(model);

    Path spool = directory.resolve(SPOOL);
    List<List<Pending>> groups = new ArrayList<>();
    MemoryUse memory = MemoryUse.NONE;
    try (FileChannel channel =
        FileChannel.open(spool, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      // In name order, which is the fingerprint's.
      List<Module> byName =
          modules.all().stream()
              .filter(m -> !stored.shared(m))
              .sorted(Comparator.comparing(Module::weight))
              .toList();
      for (Module module : byName) {
        List<Pending> group = new ArrayList<>();
        memory = memory.plus(module, add(module, group, channel));
        TensorInfo bias = stored.bias(module);
        if (bias != null) {
          stored.vector(bias);
          group.add(copied(bias));
          memory = memory.plusBias(module.out(), bias.byteSize());
        }
        groups.add(group);
        progress.at(groups.size(), byName.size(), module.path());
      }
    }
    List<Path> files;
    try (Arena arena = Arena.ofShared();
        FileChannel channel = FileChannel.open(spool, StandardOpenOption.READ)) {
      MemorySegment codes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      files = writeShards(shards(groups), codes);
    }
    Files.delete(spool);
    return new Result(memory, fingerprint.hex(), files);
  }

  /** Adds the tensors of a module's weight, and tells how many bytes hold what. */
  private Matrix.Footprint add(Module module, List<Pending> group, FileChannel channel)
      throws ModelException, IOException {
    TensorInfo tensor = stored.weight(module);
    if (!module.quantized()) {
      if (module.kind() == Module.Kind.NORM) {
        stored.vector(tensor);
      }
      group.add(copied(tensor));
      return new Matrix.Footprint(0, 0, 0, tensor.byteSize());
    }
    // Shared: the quantizer's threads write to it.
    try (Arena arena = Arena.ofShared()) {
      QuantizedMatrix matrix =
          Quantization.quantize(
              FloatSource.of(stored.checkpoint(), tensor),
              module.out(),
              module.in(),
              options.quantize(),
              BitsAndBytes.sourceDtype(tensor.dtype()),
              arena);
      fingerprint.add(module.weight(), matrix);
      for (TensorEntry entry : BitsAndBytes.write(module.weight(), matrix)) {
        group.add(spooled(entry, channel));
      }
      return footprint(matrix);
    } finally {
      stored.release(tensor);
    }
  }

  static Matrix.Footprint footprint(QuantizedMatrix matrix) {
    QuantizedMatrix.Footprint bytes = matrix.footprint();
    return new Matrix.Footprint(bytes.packed(), bytes.absmax(), bytes.nested() + bytes.tables(), 0);
  }

  private static Pending copied(TensorInfo tensor) {
    return new Pending(
        new TensorSpec(tensor.name(), tensor.dtype(), tensor.shape()), null, -1, tensor);
  }

  private static Pending spooled(TensorEntry entry, FileChannel channel) throws IOException {
    MemorySegment data = entry.data();
    if (!data.isNative()) {
      byte[] bytes = data.toArray(ValueLayout.JAVA_BYTE);
      return new Pending(entry.spec(), MemorySegment.ofArray(bytes), -1, null);
    }
    long offset = channel.position();
    for (long from = 0; from < data.byteSize(); from += 1 << 24) {
      var part = data.asSlice(from, Math.min(1 << 24, data.byteSize() - from)).asByteBuffer();
      while (part.hasRemaining()) {
        channel.write(part);
      }
    }
    return new Pending(entry.spec(), null, offset, null);
  }

  /** Cuts the tensors into files, a weight and its statistics together. */
  private List<List<Pending>> shards(List<List<Pending>> groups) {
    List<List<Pending>> shards = new ArrayList<>();
    List<Pending> shard = new ArrayList<>();
    long bytes = 0;
    for (List<Pending> group : groups) {
      long more = group.stream().mapToLong(p -> p.spec.byteSize()).sum();
      if (!shard.isEmpty() && bytes + more > options.shardBytes()) {
        shards.add(shard);
        shard = new ArrayList<>();
        bytes = 0;
      }
      shard.addAll(group);
      bytes += more;
    }
    shards.add(shard);
    return shards;
  }

  private List<Path> writeShards(List<List<Pending>> shards, MemorySegment codes)
      throws IOException {
    List<Path> files = new ArrayList<>();
    Map<String, String> places = new TreeMap<>();
    long bytes = 0;
    for (int i = 0; i < shards.size(); i++) {
      String name =
          shards.size() == 1
              ? SINGLE
              : "model-%05d-of-%05d.safetensors".formatted(i + 1, shards.size());
      Path file = directory.resolve(name);
      List<Pending> shard = shards.get(i);
      try (SafetensorsWriter writer =
          SafetensorsWriter.create(file, shard.stream().map(Pending::spec).toList(), METADATA)) {
        for (Pending tensor : shard) {
          MemorySegment data = data(tensor, codes);
          writer.write(tensor.spec.name(), data);
          StoredModel.release(data);
          places.put(tensor.spec.name(), name);
          bytes += tensor.spec.byteSize();
        }
        writer.commit();
      }
      files.add(file);
    }
    if (shards.size() > 1) {
      Files.writeString(directory.resolve(INDEX), index(places, bytes));
    }
    return files;
  }

  private MemorySegment data(Pending tensor, MemorySegment codes) {
    if (tensor.data != null) {
      return tensor.data;
    }
    return tensor.source != null
        ? stored.data(tensor.source)
        : codes.asSlice(tensor.offset, tensor.spec.byteSize());
  }

  private String index(Map<String, String> places, long bytes) throws IOException {
    var index = Fields.MAPPER.createObjectNode();
    long parameters =
        modules.all().stream().filter(m -> !stored.shared(m)).mapToLong(Module::parameters).sum();
    index.putObject("metadata").put("total_parameters", parameters).put("total_size", bytes);
    var map = index.putObject("weight_map");
    places.forEach(map::put);
    return ConfigText.pretty(index) + "\n";
  }

  private String config(Path model) throws ModelException, IOException {
    var quantization = Fields.MAPPER.createObjectNode();
    QuantOptions quantize = options.quantize();
    quantization.put("_load_in_4bit", true);
    quantization.put("_load_in_8bit", false);
    quantization.put("bnb_4bit_compute_dtype", "float32");
    quantization.put("bnb_4bit_quant_storage", "uint8");
    quantization.put("bnb_4bit_quant_type", quantize.type().id());
    quantization.put("bnb_4bit_use_double_quant", quantize.doubleQuant());
    quantization.put("llm_int8_enable_fp32_cpu_offload", false);
    quantization.put("llm_int8_has_fp16_weight", false);
    if (options.skip().isEmpty()) {
      quantization.putNull("llm_int8_skip_modules");
    } else {
      var entries = quantization.putArray("llm_int8_skip_modules");
      skip.entries().forEach(entries::add);
    }
    quantization.put("llm_int8_threshold", 6.0);
    quantization.put("load_in_4bit", true);
    quantization.put("load_in_8bit", false);
    quantization.put("quant_method", "bitsandbytes");
    String text = Files.readString(model.resolve(ModelConfig.FILE), StandardCharsets.UTF_8);
    return ConfigText.with(text, "quantization_config", quantization);
  }

  private void copyFiles(Path model) throws IOException {
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(model)) {
      for (Path entry : entries) {
        String name = entry.getFileName().toString();
        boolean wanted =
            COPIED.contains(name) || name.startsWith("LICENSE") || name.startsWith("NOTICE");
        if (wanted && Files.isRegularFile(entry)) {
          Files.copy(entry, directory.resolve(name));
        }
      }
    }
    Path templates = model.resolve(TEMPLATES);
    if (Files.isDirectory(templates)) {
      Files.createDirectory(directory.resolve(TEMPLATES));
      try (DirectoryStream<Path> entries = Files.newDirectoryStream(templates, "*.jinja")) {
        for (Path entry : entries) {
          Files.copy(entry, directory.resolve(TEMPLATES).resolve(entry.getFileName().toString()));
        }
      }
    }
  }
}
