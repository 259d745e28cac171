package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.QuantOptions;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The place of one model's resident weights between two runs: a {@link CacheFile} beside the model
 * or in a cache folder, which the next start maps instead of reading, quantizing and packing.
 *
 * <p>Its name and its key are made of the source's content digest, the configuration, what the
 * options make of them, and the backend's layout: other weights have another file. A file is
 * replaced as a whole, by one process at a time; whoever finds another one writing does without.
 * Nothing that goes wrong here keeps a model from being loaded: it is a warning.
 */
final class WeightCache {
  private static final Logger LOG = LoggerFactory.getLogger(WeightCache.class);

  private static final String SUFFIX = ".weights";
  private static final String UNFINISHED = ".unfinished";
  private static final String LOCK = "lock";
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final List<Path> folders;
  private final Modules modules;
  private final Backend backend;
  private final String key;
  private final String prefix;
  private final String name;

  private WeightCache(
      List<Path> folders, Modules modules, Backend backend, String source, String options) {
    this.folders = folders;
    this.modules = modules;
    this.backend = backend;
    key = "source " + source + options + "layout " + backend.layout() + "\n";
    prefix = source.substring(0, 16) + "-" + digest(options) + "-";
    name = prefix + digest(backend.layout()) + SUFFIX;
  }

  private static String digest(String text) {
    byte[] digest = SourceDigest.sha().digest(text.getBytes(StandardCharsets.UTF_8));
    return SourceDigest.hex(digest, 16);
  }

  /**
   * The place of a model's weights, or null if the options want none or it cannot be told.
   *
   * @param modules what of the model is quantized
   * @param quantize how, or null for what is stored
   */
  static @Nullable WeightCache of(
      StoredModel stored,
      Modules modules,
      @Nullable QuantOptions quantize,
      LoadOptions options,
      Backend backend) {
    List<Path> folders = options.cache().folders();
    List<Path> files = stored.checkpoint().files();
    try {
      long bytes = 0;
      for (Path file : files) {
        bytes += Files.size(file);
      }
      if (folders.isEmpty() || bytes < options.cache().leastBytes()) {
        return null;
      }
      String source = SourceDigest.of(files, folders);
      byte[] config = Files.readAllBytes(stored.directory().resolve(ModelConfig.FILE));
      String key =
          "\nconfig %s\nquantize %s\nhead %s\nskip %s\n"
              .formatted(
                  SourceDigest.hex(SourceDigest.sha().digest(config), 64),
                  quantize == null ? "as stored" : quantize,
                  options.quantizeHead() ? options.head() : "as stored",
                  quantize == null ? List.of() : options.skip());
      return new WeightCache(folders, modules, backend, source, key);
    } catch (IOException e) {
      LOG.warn("the weights are not cached: {}", e.toString());
      return null;
    }
  }

  /** The weights of an earlier run, or null if there are none that can be used. */
  Model.@Nullable Weights read() {
    for (Path folder : folders) {
      Path path = folder.resolve(name);
      if (Files.isRegularFile(path)) {
        try {
          return weights(CacheFile.open(path, key));
        } catch (NoSuchFileException e) {
          LOG.debug("{} has just gone", path);
        } catch (IOException e) {
          LOG.warn("cached weights {} are not used: {}", path, e.getMessage());
        }
      }
    }
    return null;
  }

  /** A file's weights, as its own; they must be those of the modules. */
  private Model.Weights weights(CacheFile file) throws IOException {
    Model.Weights weights = new Model.Weights(modules.all().size());
    weights.source(file, file.fingerprint(), file.quantization());
    boolean complete = false;
    try {
      int expected = 0;
      for (Module module : modules.all()) {
        PackedMatrix weight = file.entries().get(module.weight());
        if (module.kind() == Module.Kind.NORM) {
          weights.norm(module, floats(module.weight(), weight, module.out()), backend);
        } else if (weight != null) {
          Matrix matrix = backend.matrix(weight);
          weights.matrices[module.id()] = matrix;
          boolean quantized = matrix.footprint().dense() == 0;
          if (matrix.rows() != module.out()
              || matrix.cols() != module.in()
              || quantized != module.quantized()) {
            throw wrong(module.weight());
          }
        } else if (module.kind() != Module.Kind.HEAD || module.quantized()) {
          throw wrong(module.weight());
        }
        expected += weight == null ? 0 : 1;
        if (module.bias()) {
          String bias = module.biasName();
          weights.bias(module, floats(bias, file.entries().get(bias), module.out()), backend);
          expected++;
        }
      }
      if (file.entries().size() != expected) {
        throw new CacheFile.DamagedException("it holds more than this model's weights");
      }
      complete = true;
      return weights;
    } catch (IllegalArgumentException e) {
      throw new CacheFile.DamagedException(String.valueOf(e.getMessage()));
    } finally {
      if (!complete) {
        weights.close();
      }
    }
  }

  private static float[] floats(String name, @Nullable PackedMatrix entry, int count)
      throws CacheFile.DamagedException {
    if (entry == null
        || entry.parts().size() != 1
        || entry.parts().getFirst().byteSize() != 4L * count) {
      throw wrong(name);
    }
    return entry.parts().getFirst().toArray(FLOAT);
  }

  private static CacheFile.DamagedException wrong(String name) {
    return new CacheFile.DamagedException("its %s is not this model's".formatted(name));
  }

  /**
   * Keeps weights for the next run, and gives them back mapped: then they take no memory that the
   * operating system could not take back. Those given are then closed.
   */
  Model.Weights keep(Model.Weights weights) {
    for (Path folder : folders) {
      try {
        if (!write(folder, weights)) {
          return weights;
        }
      } catch (IOException e) {
        LOG.warn("the weights cannot be kept in {} for the next start: {}", folder, e.toString());
        continue;
      }
      Model.Weights kept = read();
      if (kept != null) {
        weights.close();
        return kept;
      }
      return weights;
    }
    return weights;
  }

  /** Whether the file is there now; false if another process is writing one. */
  private boolean write(Path folder, Model.Weights weights) throws IOException {
    Files.createDirectories(folder);
    try (FileChannel lockFile =
            FileChannel.open(
                folder.resolve(LOCK), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        FileLock lock = tryLock(lockFile)) {
      if (lock == null) {
        LOG.info("another process is writing to {}", folder);
        return false;
      }
      tidy(folder);
      long bytes = weights.bytes();
      long room = Files.getFileStore(folder).getUsableSpace();
      if (room < bytes + bytes / 8) {
        throw new IOException(
            "%,d bytes are free there, and %,d needed".formatted(room, bytes + bytes / 8));
      }
      Path unfinished =
          folder.resolve(
              name + "." + Long.toHexString(ThreadLocalRandom.current().nextLong()) + UNFINISHED);
      try {
        try (CacheFile.Writer writer =
                new CacheFile.Writer(
                    unfinished, key, weights.fingerprint(), weights.quantization());
            Arena arena = Arena.ofConfined()) {
          for (Module module : modules.all()) {
            add(module, weights, writer, arena);
          }
          writer.finish();
        }
        Files.move(unfinished, folder.resolve(name), StandardCopyOption.ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(unfinished);
      }
      return true;
    }
  }

  private static @Nullable FileLock tryLock(FileChannel file) throws IOException {
    try {
      return file.tryLock();
    } catch (OverlappingFileLockException e) {
      return null;
    }
  }

  private static void add(
      Module module, Model.Weights weights, CacheFile.Writer writer, Arena arena)
      throws IOException {
    Matrix matrix = weights.matrices[module.id()];
    if (matrix != null) {
      writer.add(module.weight(), matrix.stored());
    }
    float[] norm = weights.hostNorms[module.id()];
    if (norm != null) {
      writer.add(module.weight(), vector(norm, arena));
    }
    float[] bias = weights.hostBiases[module.id()];
    if (bias != null) {
      writer.add(module.biasName(), vector(bias, arena));
    }
  }

  private static PackedMatrix vector(float[] values, Arena arena) {
    MemorySegment data = arena.allocate(4L * values.length, PackedMatrix.ALIGNMENT);
    MemorySegment.copy(values, 0, data, FLOAT, 0, values.length);
    return new PackedMatrix(MemorySegment.ofArray(new byte[0]), List.of(data));
  }

  /**
   * Removes what a writer that died left behind (no other one lives: the lock is ours), and the
   * same weights in another version's layout.
   */
  private void tidy(Path folder) throws IOException {
    try (DirectoryStream<Path> files = Files.newDirectoryStream(folder)) {
      for (Path file : files) {
        String other = file.getFileName().toString();
        boolean old = other.startsWith(prefix) && !other.equals(name);
        if (other.endsWith(UNFINISHED) || old) {
          Files.deleteIfExists(file);
        }
      }
    }
  }
}
