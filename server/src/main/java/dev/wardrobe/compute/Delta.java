package dev.wardrobe.compute;

import com.google.errorprone.annotations.FormatMethod;
import java.util.function.IntFunction;
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

  /**
   * Checks that its parts fit each other and the module's weight, or the one that replaces it.
   *
   * @param module names it in the error
   * @param base the base's matrix of a module; asked only if there are factors
   * @throws IllegalArgumentException if not, saying what does not fit
   */
  public void check(int module, IntFunction<Matrix> base) {
    LowRank factors = lowRank;
    if (factors == null) {
      require(magnitude == null, "module %d: a magnitude without A and B", module);
      require(loraBias == null, "module %d: a bias of B without A and B", module);
      return;
    }
    require(
        magnitude == null || loraBias == null,
        "module %d: DoRA and a bias of B exclude each other",
        module);
    int rows = weight != null ? weight.rows() : base.apply(module).rows();
    int cols = weight != null ? weight.cols() : base.apply(module).cols();
    DenseMatrix a = factors.a();
    DenseMatrix b = factors.b();
    boolean linear = a.cols() == cols && b.rows() == rows;
    boolean embedding = a.cols() == rows && b.rows() == cols;
    require(
        (linear || embedding) && a.rows() == b.cols(),
        "module %d: A (%d, %d) and B (%d, %d) do not fit a weight of (%d, %d)",
        module,
        a.rows(),
        a.cols(),
        b.rows(),
        b.cols(),
        rows,
        cols);
    requireLength(module, "magnitude", magnitude, b.rows());
    requireLength(module, "bias of B", loraBias, b.rows());
    requireLength(module, "bias", bias, b.rows());
  }

  private static void requireLength(
      int module, String what, float @Nullable [] values, int expected) {
    if (values != null) {
      require(
          values.length == expected,
          "module %d: expected a %s of %d, got %d",
          module,
          what,
          expected,
          values.length);
    }
  }

  @FormatMethod
  private static void require(boolean holds, String message, Object... arguments) {
    if (!holds) {
      throw new IllegalArgumentException(message.formatted(arguments));
    }
  }
}
