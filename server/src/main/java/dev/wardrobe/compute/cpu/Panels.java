package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Matrix;

/**
 * A resident matrix in panels of 32 rows: the form in which the kernels want it.
 *
 * <pre>
 * A panel holds the weights of 32 outputs, for each input k side by side, so that a vector's lanes
 * are outputs. Each output is then summed over k by one lane alone, in an order that knows nothing
 * of the vector's width, of the batch or of the threads:
 *
 *   for each unit of 64 inputs (one 4-bit block if that is shorter; the last unit may be short):
 *     a[i] = 0;  a[k mod 2] = fma(w[k], x[k], a[k mod 2])  for k ascending      (2 chains)
 *     partial = a[0] + a[1]
 *     acc = fma(scale, partial, acc)
 *
 * Two chains of each of two 16-lane vectors are enough to cover the latency of fma where one token
 * is all there is, and few enough that for several tokens all sums of six stay in registers. For 4-bit weights whose blocks end with the rows, w is the
 * code's value and scale the block's absmax, so the scale costs one operation in 64. Everything
 * else (dense weights, and 4-bit blocks that run across row ends) takes the weight itself as w and
 * 1 as scale. Rows beyond the last are zeros; their results are dropped.
 * </pre>
 */
sealed interface Panels extends Matrix permits NibblePanels, DensePanels {
  /**
   * Names what {@link #stored} gives. Change it with every change of the order or meaning of a
   * panel's bytes: files that were written under another name are not read.
   */
  String LAYOUT = "panels32-1";

  /** Rows of a panel. */
  int HEIGHT = 32;

  /** Inputs that are summed before the scale is applied. */
  int UNIT = 64;

  /** Panels, the last one padded. */
  default int panels() {
    return (rows() + HEIGHT - 1) / HEIGHT;
  }

  /** Inputs of a unit; the last may have fewer. */
  int unit();

  default int units() {
    return (cols() + unit() - 1) / unit();
  }

  /** Writes the {@code cols} weights of a row to {@code out}, as float32. */
  void row(int row, float[] out, int at);
}
