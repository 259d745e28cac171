package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.safetensors.TensorInfo;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * The base: weights resident in a backend's memory, read by every sequence and written by none.
 *
 * <p>Made by {@link ModelLoader}. Immutable until closed.
 */
public final class Model implements AutoCloseable {
  private final ModelConfig config;
  private final Path directory;
  private final @Nullable StoredModel stored;
  private final GenerationDefaults defaults;
  private final Modules modules;
  private final Weights weights;
  private final MemoryUse memory;

  /** What is resident, by module number; the host keeps norms and biases too. */
  static final class Weights implements AutoCloseable {
    final @Nullable Matrix[] matrices;
    final @Nullable Buffer[] norms;
    final @Nullable Buffer[] biases;
    final float[] @Nullable [] hostNorms;
    final float[] @Nullable [] hostBiases;

    private String fingerprint = "";
    private @Nullable QuantOptions quantization;
    private @Nullable CacheFile file;

    Weights(int modules) {
      matrices = new Matrix[modules];
      norms = new Buffer[modules];
      biases = new Buffer[modules];
      hostNorms = new float[modules][];
      hostBiases = new float[modules][];
    }

    /**
     * Where they come from.
     *
     * @param file the file that the matrices lie in, closed after them; null if in no file
     */
    void source(@Nullable CacheFile file, String fingerprint, @Nullable QuantOptions quantization) {
      this.file = file;
      this.fingerprint = fingerprint;
      this.quantization = quantization;
    }

    void norm(Module module, float[] values, Backend backend) {
      norms[module.id()] = upload(values, backend);
      hostNorms[module.id()] = values;
    }

    void bias(Module module, float[] values, Backend backend) {
      biases[module.id()] = upload(values, backend);
      hostBiases[module.id()] = values;
    }

    private static Buffer upload(float[] values, Backend backend) {
      Buffer buffer = backend.buffer(1, values.length);
      backend.write(buffer, 0, values);
      return buffer;
    }

    String fingerprint() {
      return fingerprint;
    }

    @Nullable QuantOptions quantization() {
      return quantization;
    }

    /** Whether the matrices lie in a mapped file. */
    boolean mapped() {
      return file != null;
    }

    /** Bytes of everything. */
    long bytes() {
      long bytes = 0;
      for (int i = 0; i < matrices.length; i++) {
        Matrix matrix = matrices[i];
        Buffer norm = norms[i];
        Buffer bias = biases[i];
        bytes += matrix == null ? 0 : matrix.footprint().total();
        bytes += norm == null ? 0 : norm.bytes();
        bytes += bias == null ? 0 : bias.bytes();
      }
      return bytes;
    }

    @Override
    public void close() {
      closeAll(matrices);
      closeAll(norms);
      closeAll(biases);
      if (file != null) {
        file.close();
      }
    }

    private static void closeAll(@Nullable AutoCloseable[] resources) {
      for (AutoCloseable resource : resources) {
        switch (resource) {
          case null -> {}
          case Matrix matrix -> matrix.close();
          case Buffer buffer -> buffer.close();
          default -> throw new AssertionError(resource);
        }
      }
    }
  }

  /**
   * @param stored where the weights came from, closed with the model; null if they came from
   *     nowhere
   */
  Model(
      ModelConfig config,
      Path directory,
      @Nullable StoredModel stored,
      GenerationDefaults defaults,
      Modules modules,
      Weights weights) {
    this.config = config;
    this.directory = directory;
    this.stored = stored;
    this.defaults = defaults;
    this.modules = modules;
    this.weights = weights;
    memory = MemoryUse.of(modules, weights);
  }

  public ModelConfig config() {
    return config;
  }

  /** How its makers want it sampled. */
  public GenerationDefaults defaults() {
    return defaults;
  }

  public Modules modules() {
    return modules;
  }

  /** The directory's name. */
  public String name() {
    Path name = directory.toAbsolutePath().normalize().getFileName();
    return name == null ? directory.toString() : name.toString();
  }

  public Path directory() {
    return directory;
  }

  /**
   * The resident weight of an embedding, a projection or the head; a tied head's is the
   * embedding's.
   *
   * @throws IllegalArgumentException for a norm
   */
  public Matrix matrix(int module) {
    Matrix matrix = weights.matrices[source(module).id()];
    if (matrix == null) {
      throw new IllegalArgumentException(modules.get(module).path() + " has no matrix");
    }
    return matrix;
  }

  /** The resident bias {@code (1, out)}, or null. */
  public @Nullable Buffer bias(int module) {
    return weights.biases[module];
  }

  /**
   * The resident weight {@code (1, width)} of a norm.
   *
   * @throws IllegalArgumentException if the module is none
   */
  public Buffer norm(int module) {
    Buffer norm = weights.norms[module];
    if (norm == null) {
      throw new IllegalArgumentException(modules.get(module).path() + " is not a norm");
    }
    return norm;
  }

  /** A norm's weight on the host, a copy, or null if the module is no norm. */
  public float @Nullable [] hostNorm(int module) {
    float[] norm = weights.hostNorms[module];
    return norm == null ? null : norm.clone();
  }

  /** A bias on the host, a copy, or null. */
  public float @Nullable [] hostBias(int module) {
    float[] bias = weights.hostBiases[module];
    return bias == null ? null : bias.clone();
  }

  /**
   * Whether {@code candidate} is the base's own weight of a module: the same shape, and the same
   * bits once both are widened to float32. False for a projection held at 4 bits, and for random
   * weights; a head that was quantized at load counts as what it is in the checkpoint.
   */
  public boolean sameWeights(int module, DenseMatrix candidate) {
    Module source = source(module);
    boolean head = source.kind() == Module.Kind.HEAD;
    if (stored == null
        || (head ? stored.modules().head().quantized() : source.quantized())
        || candidate.rows() != source.out()
        || candidate.cols() != (source.kind() == Module.Kind.NORM ? 1 : source.in())) {
      return false;
    }
    TensorInfo tensor = stored.weight(source);
    boolean same =
        Floats.equal(tensor.dtype(), stored.data(tensor), candidate.dtype(), candidate.data());
    stored.release(tensor);
    return same;
  }

  /** The module that holds a module's weight: the embedding for a tied head. */
  private Module source(int module) {
    Module own = modules.get(module);
    boolean shared = own.kind() == Module.Kind.HEAD && config().tied() && !own.quantized();
    return shared ? modules.embedding() : own;
  }

  /**
   * Identifies the quantized base, see {@link Fingerprint}; empty when nothing is quantized.
   *
   * @return 64 hexadecimal digits, or ""
   */
  public String fingerprint() {
    return weights.fingerprint();
  }

  /** How the quantized weights are held (the first one's, if they differ), or null if none are. */
  public @Nullable QuantOptions quantization() {
    return weights.quantization();
  }

  /** Whether the weights lie in a mapped cache file, rather than in memory of their own. */
  public boolean mapped() {
    return weights.mapped();
  }

  /** Where its resident bytes are. */
  public MemoryUse memory() {
    return memory;
  }

  @Override
  public void close() {
    weights.close();
    if (stored != null) {
      stored.close();
    }
  }
}
