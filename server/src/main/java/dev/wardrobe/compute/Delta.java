package dev.wardrobe.compute;

import org.jspecify.annotations.Nullable;

/**
 * What one adapter changes in one module, on the host.
 *
 * <p>A linear module computes {@code y = g ⊙ (W·x + scale·(B·(A·x) + loraBias)) + bias}, where
 * {@code g = magnitude / ‖W + scale·B·A‖} per output row for DoRA (arXiv 2402.09353; the norm is
 * taken once, at upload, over {@code W = float32(code·absmax)}) and 1 otherwise, {@code bias} is
 * the adapter's if it brings one, else the base's, and {@code W} is the adapter's if it brings one.
 * DoRA and loraBias exclude each other. An embedding adds {@code scale·B·A[:, token]} to the
 * token's row; a norm only ever has its weight replaced, by one of {@code (1, width)}. DoRA on an
 * embedding has one g for each element of a row; its norms are taken over the vocabulary.
 *
 * @param lowRank A and B, or null when the module is only replaced
 * @param scale alpha / r, or alpha / √r for rsLoRA; as PEFT computes it in double, then float32
 * @param magnitude DoRA's m, {@code (out)}, or null
 * @param loraBias the bias of B, {@code (out)}, or null
 * @param bias replaces the base's bias, {@code (out)}, or null
 * @param weight replaces the base's weight, or null
 */
public record Delta(
    @Nullable LowRank lowRank,
    float scale,
    float @Nullable [] magnitude,
    float @Nullable [] loraBias,
    float @Nullable [] bias,
    @Nullable DenseMatrix weight) {

  /**
   * The two factors. For a linear module A is {@code (r, in)} and B {@code (out, r)}; for an
   * embedding A is {@code (r, vocabulary)} and B {@code (hidden, r)}.
   */
  public record LowRank(DenseMatrix a, DenseMatrix b) {
    public int rank() {
      return a.rows();
    }
  }
}
