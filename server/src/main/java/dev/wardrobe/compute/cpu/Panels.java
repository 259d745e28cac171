package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Matrix;

/**
 * A resident matrix in panels of 16 rows: the form in which the kernels want it.
 *
 * <pre>
 * A panel holds the weights of 16 outputs, for each input k side by side, so that a vector's lanes
 * are outputs. Each output is then summed over k by one lane alone, in an order that knows nothing
 * of the vector's width, of the batch or of the threads:
 *
 *   for each unit of 64 inputs (one 4-bit block if that is shorter; the last unit may be short):
 *     a[i] = 0;  a[k mod 4] = fma(w[k], x[k], a[k mod 4])  for k ascending      (4 chains)
 *     partial = (a[0] + a[1]) + (a[2] + a[3])
 *     acc = fma(scale, partial, acc)
 *
 * Four chains cover the latency of fma. For 4-bit weights whose blocks end with the rows, w is the
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
  String LAYOUT = "panels16-1";

  /** Rows of a panel. */
  int ROWS = 16;

  /** Inputs that are summed before the scale is applied. */
  int UNIT = 64;

  /** Panels, the last one padded. */
  default int panels() {
    return (rows() + ROWS - 1) / ROWS;
  }

  /** Inputs of a unit; the last may have fewer. */
  int unit();

  default int units() {
    return (cols() + unit() - 1) / unit();
  }

  /** Writes the {@code cols} weights of a row to {@code out}, as float32. */
  void row(int row, float[] out, int at);
}
