package dev.wardrobe.model;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.QuantOptions;
import java.util.List;

/**
 * Bytes of a base model by what they hold.
 *
 * @param packed 4-bit codes of quantized projections
 * @param absmax their block maxima: one byte each when double-quantized, else four
 * @param nestedAbsmax maxima of blocks of maxima
 * @param dense projections left unquantized
 * @param embeddings embedding and untied head
 * @param norms norms and biases
 * @param quantizedParameters weights held at 4 bits
 * @param parameters all weights and biases; a tied head counts once
 */
public record MemoryUse(
    long packed,
    long absmax,
    long nestedAbsmax,
    long dense,
    long embeddings,
    long norms,
    long quantizedParameters,
    long parameters) {

  static final MemoryUse NONE = new MemoryUse(0, 0, 0, 0, 0, 0, 0, 0);

  /** What a model's weights take. */
  static MemoryUse of(Modules modules, Model.Weights weights) {
    MemoryUse use = NONE;
    for (Module module : modules.all()) {
      Matrix matrix = weights.matrices[module.id()];
      Buffer norm = weights.norms[module.id()];
      Buffer bias = weights.biases[module.id()];
      if (matrix != null) {
        use = use.plus(module, matrix.footprint());
      }
      if (norm != null) {
        use = use.plus(module, new Matrix.Footprint(0, 0, 0, norm.bytes()));
      }
      if (bias != null) {
        use = use.plusBias(module.out(), bias.bytes());
      }
    }
    return modules.headCopied() ? use.withoutParameters(modules.head()) : use;
  }

  /**
   * What a model's weights will take once it is loaded, told from its configuration alone: weights
   * at 4 bits as the configuration says, or else as the options ask, in blocks of 64; others in the
   * type that the model was saved in, or bfloat16 where it does not say. What a checkpoint of 4
   * bits skips is taken from its configuration.
   *
   * @throws ModelException if a rule of what is skipped cannot be understood
   */
  public static MemoryUse expected(ModelConfig config, LoadOptions options) throws ModelException {
    QuantizationConfig stored = config.quantization();
    QuantOptions quantize = stored == null ? options.quantize() : options.head();
    List<String> skipped = stored == null ? options.skip() : stored.skip();
    SkipRule skip = new SkipRule(skipped == null ? List.of() : skipped);
    boolean nested = stored == null ? options.head().doubleQuant() : stored.doubleQuant();
    int blockSize = stored == null ? options.head().blockSize() : QuantOptions.DEFAULT.blockSize();
    Modules modules =
        new Modules(config, path -> quantize != null && !skip.skips(path), options.quantizeHead());
    int width = config.dtype() == null ? Short.BYTES : config.dtype().bytes();
    MemoryUse use = NONE;
    for (Module module : modules.all()) {
      if (module.kind() == Module.Kind.HEAD && config.tied() && !module.quantized()) {
        continue;
      }
      long elements = (long) module.out() * module.in();
      if (module.kind() == Module.Kind.NORM) {
        use = use.plus(module, new Matrix.Footprint(0, 0, 0, (long) Float.BYTES * module.out()));
      } else if (module.quantized()) {
        use = use.plus(module, footprint(elements, blockSize, nested));
      } else {
        use = use.plus(module, new Matrix.Footprint(0, 0, 0, width * elements));
      }
      if (module.bias()) {
        use = use.plusBias(module.out(), (long) Float.BYTES * module.out());
      }
    }
    return modules.headCopied() ? use.withoutParameters(modules.head()) : use;
  }

  /** What a matrix of so many elements takes at 4 bits. */
  static Matrix.Footprint footprint(long elements, int blockSize, boolean nested) {
    long blocks = Math.ceilDiv(elements, (long) blockSize);
    return new Matrix.Footprint(
        Math.ceilDiv(elements, 2L),
        nested ? blocks : Float.BYTES * blocks,
        nested ? Float.BYTES * Math.ceilDiv(blocks, 256L) : 0,
        0);
  }

  /** All bytes. */
  public long total() {
    return packed + absmax + nestedAbsmax + dense + embeddings + norms;
  }

  /** Bytes of the weights held at 4 bits, their statistics included. */
  public long quantized() {
    return packed + absmax + nestedAbsmax;
  }

  /** Bits that a quantized weight takes, its share of the statistics included; 0 if none are. */
  public double bitsPerWeight() {
    return quantizedParameters == 0 ? 0 : 8.0 * quantized() / quantizedParameters;
  }

  /** This and one module's weight. */
  MemoryUse plus(Module module, Matrix.Footprint bytes) {
    boolean projection = module.kind() == Module.Kind.LINEAR;
    boolean norm = module.kind() == Module.Kind.NORM;
    long parameters = norm ? module.out() : (long) module.out() * module.in();
    return new MemoryUse(
        packed + bytes.packed(),
        absmax + bytes.absmax(),
        nestedAbsmax + bytes.nestedAbsmax(),
        dense + (projection ? bytes.dense() : 0),
        embeddings + (projection || norm ? 0 : bytes.dense()),
        norms + (norm ? bytes.dense() : 0),
        quantizedParameters + (module.quantized() ? parameters : 0),
        this.parameters + parameters);
  }

  /** This, with a module's weights not counted as parameters of their own: a tied head's copy. */
  MemoryUse withoutParameters(Module module) {
    return new MemoryUse(
        packed,
        absmax,
        nestedAbsmax,
        dense,
        embeddings,
        norms,
        quantizedParameters,
        parameters - module.parameters());
  }

  /** This and a bias of {@code width} elements that take {@code bytes}. */
  MemoryUse plusBias(int width, long bytes) {
    return new MemoryUse(
        packed,
        absmax,
        nestedAbsmax,
        dense,
        embeddings,
        norms + bytes,
        quantizedParameters,
        parameters + width);
  }
}
