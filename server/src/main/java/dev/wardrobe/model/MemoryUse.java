package dev.wardrobe.model;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Matrix;

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
