package dev.wardrobe.compute;

/**
 * How an optimizer changes a parameter in one step: the rule with this step's numbers.
 *
 * <p>State is kept by blocks of {@value #BLOCK} elements, one record after another, each of {@link
 * #blockBytes}; a parameter's last block has a whole record however short it is. New state is all
 * zero bytes. Records are little-endian float32 {@code [256]} or, in 8 bits, the block's largest
 * magnitudes as float32, then codes {@code [256]} of {@link dev.wardrobe.quant.DynamicMap}: a value
 * is {@code map[code] · largest}, its code the nearest, of two the lower.
 *
 * <p>All arithmetic is float32, one rounding per operation; what a step has in common (rates,
 * corrections) is computed in double precision and rounded once.
 */
public sealed interface UpdateRule {
  /** Elements of a block. */
  int BLOCK = 256;

  /** Bytes of state of one block. */
  int blockBytes();

  /** Bytes of state of {@code count} elements, of which the first begins a block. */
  default long stateBytes(long count) {
    return Math.ceilDiv(count, (long) BLOCK) * blockBytes();
  }

  /**
   * AdamW (arXiv 1711.05101), decay before the update: {@code p *= 1 - rate·decay; m = β₁m +
   * (1-β₁)g; v = β₂v + (1-β₂)g²; p -= rate/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε)}. A record: m, v; in 8
   * bits: m's and v's largest, m's codes (signed), v's codes (unsigned). The update uses m and v
   * before they are rounded to codes.
   *
   * @param step t, from 1
   */
  record AdamW(
      double rate,
      double beta1,
      double beta2,
      double epsilon,
      double decay,
      long step,
      boolean eightBit)
      implements UpdateRule {
    @Override
    public int blockBytes() {
      return eightBit ? 2 * (Float.BYTES + BLOCK) : 2 * Float.BYTES * BLOCK;
    }
  }

  /**
   * Lion (arXiv 2302.06675): {@code p *= 1 - rate·decay; p -= rate · sign(β₁m + (1-β₁)g); m = β₂m +
   * (1-β₂)g}. A record: m; in 8 bits its largest and its codes (signed).
   */
  record Lion(double rate, double beta1, double beta2, double decay, boolean eightBit)
      implements UpdateRule {
    @Override
    public int blockBytes() {
      return eightBit ? Float.BYTES + BLOCK : Float.BYTES * BLOCK;
    }
  }

  /**
   * Gradient descent as PyTorch's: {@code g += decay·p; m = momentum·m + g; p -= rate·m}. A record:
   * m, or nothing without momentum, where {@code p -= rate·g}.
   */
  record Sgd(double rate, double momentum, double decay) implements UpdateRule {
    @Override
    public int blockBytes() {
      return momentum == 0 ? 0 : Float.BYTES * BLOCK;
    }
  }
}
