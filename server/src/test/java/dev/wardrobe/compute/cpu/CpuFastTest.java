package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The fast mode against double precision, against exact mode, and against itself. */
final class CpuFastTest {
  /** Half a unit in the last place of bfloat16, relative. */
  private static final double ROUNDING = 0x1p-8;

  @BeforeAll
  static void needsTheLibrary() {
    String refusal = CpuBackend.refusal(MathMode.FAST);
    // Where it must load (CI runs there), a skipped test would hide that it does not.
    if (refusal != null
        && System.getProperty("os.name").equals("Linux")
        && System.getProperty("os.arch").equals("amd64")
        && !refusal.contains("bfloat16")) {
      throw new AssertionError("the fast mode is not to be had: " + refusal);
    }
    assumeTrue(refusal == null, () -> "the fast mode is not to be had: " + refusal);
  }

  private static Lab fast(int threads, long seed) {
    return Labs.of(new CpuBackend(threads, new VectorKernels(), MathMode.FAST), seed);
  }

  /** As it is used: where there is generated code for the processor, with that. */
  private static Lab usual(int threads, long seed) {
    return Labs.of(new CpuBackend(threads, MathMode.FAST), seed);
  }

  private static Lab exact(long seed) {
    return Labs.of(new CpuBackend(2, new VectorKernels()), seed);
  }

  private static float[] linear(Lab lab, Matrix w, float[] x, Batch.Segment... segments) {
    int tokens = x.length / w.cols();
    Buffer in = lab.buffer(x, w.cols());
    Buffer out = lab.buffer(tokens, w.rows());
    Batch.Segment[] all =
        segments.length == 0 ? new Batch.Segment[] {new Batch.Segment(0, tokens, null)} : segments;
    lab.backend.linear(lab.step(tokens, all), List.of(new Linear(0, w, null)), in, List.of(out));
    return lab.read(out);
  }

  /**
   * Each product of an input and a weight, both rounded, is off by twice {@link #ROUNDING} at most,
   * and each addition by 2⁻²⁴ of the sum of absolute products. On average the errors, which have
   * both signs, come to less than {@link #ROUNDING} of the root of the sum of squares.
   */
  private static void assertClose(Lab lab, float[] y, float[] w, int rows, int cols, float[] x) {
    int tokens = x.length / cols;
    double[][] expected = Lab.product(w, rows, cols, x, tokens);
    double bound = 2 * ROUNDING + ROUNDING * ROUNDING + cols * 0x1p-24;
    double errors = 0;
    double squares = 0;
    for (int t = 0; t < tokens; t++) {
      for (int o = 0; o < rows; o++) {
        int i = t * rows + o;
        double error = Math.abs(y[i] - expected[0][i]);
        assertThat(error)
            .as("row %d, output %d, seed %d", t, o, lab.seed)
            .isLessThanOrEqualTo(bound * expected[1][i] + cols * 1e-37);
        errors += error * error;
        for (int k = 0; k < cols; k++) {
          double term = (double) w[o * cols + k] * x[t * cols + k];
          squares += term * term;
        }
      }
    }
    assertThat(Math.sqrt(errors / squares)).as("seed %d", lab.seed).isLessThan(ROUNDING);
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 64, true, 64, 64, 16",
    "NF4, 64, true, 150, 192, 17",
    "NF4, 64, false, 33, 320, 70",
    "FP4, 128, true, 65, 256, 31",
    "NF4, 32, true, 20, 96, 130",
    "NF4, 64, true, 40, 80, 40",
    "NF4, 64, true, 7, 131, 16",
    "NF4, 64, true, 80, 6208, 24",
    "NF4, 64, true, 70, 128, 600",
    "NF4, 64, true, 70, 128, 65",
    "NF4, 64, false, 70, 128, 513",
  })
  void linear_quantized_isWithinRounding(
      QuantType type, int block, boolean nested, int rows, int cols, int tokens) {
    try (Lab lab = fast(2, rows * 31L + cols);
        Lab usual = usual(2, lab.seed)) {
      QuantizedMatrix w = lab.quantized(rows, cols, type, block, nested);
      float[] x = lab.floats(tokens * cols);
      assertClose(lab, linear(lab, lab.matrix(w), x), Lab.values(w), rows, cols, x);
      assertClose(usual, linear(usual, usual.matrix(w), x), Lab.values(w), rows, cols, x);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "BF16, 150, 64, 16",
    "BF16, 70, 320, 90",
    "BF16, 20, 131, 33",
    "F16, 40, 66, 17",
    "F32, 40, 64, 70",
    "F32, 1, 1, 16",
    "F16, 129, 3100, 16",
  })
  void linear_dense_isWithinRounding(DType dtype, int rows, int cols, int tokens) {
    try (Lab lab = fast(3, rows * 37L + cols);
        Lab usual = usual(3, lab.seed)) {
      DenseMatrix w = lab.dense(dtype, rows, cols);
      float[] x = lab.floats(tokens * cols);
      assertClose(lab, linear(lab, lab.matrix(w), x), Lab.values(w), rows, cols, x);
      assertClose(usual, linear(usual, usual.matrix(w), x), Lab.values(w), rows, cols, x);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "64, 64, 64, 16",
    "150, 192, 64, 40",
    "33, 96, 32, 17",
    "40, 80, 64, 130",
    "7, 131, 64, 16",
    "3150, 128, 64, 16",
    "70, 128, 64, 600",
  })
  void linearInput_isWithinRounding(int rows, int cols, int block, int tokens) {
    try (Lab lab = fast(2, rows * 41L + cols)) {
      QuantizedMatrix stored = lab.quantized(rows, cols, QuantType.NF4, block, true);
      float[] w = Lab.values(stored);
      float[] turned = new float[w.length];
      for (int o = 0; o < rows; o++) {
        for (int k = 0; k < cols; k++) {
          turned[k * rows + o] = w[o * cols + k];
        }
      }
      float[] dy = lab.floats(tokens * rows);
      Buffer dx = lab.buffer(tokens, cols);
      lab.backend.gradients().linearInput(lab.matrix(stored), tokens, lab.buffer(dy, rows), dx);
      float[] once = lab.read(dx);
      assertClose(lab, once, turned, cols, rows, dy);
      lab.backend.gradients().linearInput(lab.matrix(stored), tokens, lab.buffer(dy, rows), dx);
      float[] twice = once.clone();
      for (int i = 0; i < twice.length; i++) {
        twice[i] += once[i];
      }
      lab.assertSame("added", lab.read(dx), twice);
    }
  }

  @Test
  void linear_differsFromExact_fromSixteenRowsOn() {
    try (Lab fast = fast(2, 5);
        Lab exact = exact(5)) {
      QuantizedMatrix w = fast.quantized(150, 192, QuantType.NF4, 64, true);
      float[] x = fast.floats(16 * 192);
      float[] fewer = Arrays.copyOf(x, 15 * 192);
      fast.assertSame(
          "15 rows", linear(fast, fast.matrix(w), fewer), linear(exact, exact.matrix(w), fewer));
      assertThat(linear(fast, fast.matrix(w), x)).isNotEqualTo(linear(exact, exact.matrix(w), x));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {128, 256, 512})
  void linear_isTheSame_atEveryWidthAndNumberOfThreads(int bits) {
    try (Lab one = fast(1, 6);
        Lab narrow = Widths.lab(Widths.backend(bits, 3, MathMode.FAST), 6)) {
      for (Lab lab : List.of(narrow)) {
        QuantizedMatrix w = one.quantized(150, 320, QuantType.NF4, 64, true);
        QuantizedMatrix crossing = one.quantized(40, 80, QuantType.FP4, 64, true);
        DenseMatrix dense = one.dense(DType.BF16, 70, 131);
        DenseMatrix half = one.dense(DType.F16, 30, 40);
        float[] x = one.floats(50 * 320);
        lab.assertSame("aligned", linear(lab, lab.matrix(w), x), linear(one, one.matrix(w), x));
        x = one.floats(50 * 80);
        lab.assertSame(
            "crossing", linear(lab, lab.matrix(crossing), x), linear(one, one.matrix(crossing), x));
        x = one.floats(50 * 131);
        lab.assertSame(
            "bfloat16", linear(lab, lab.matrix(dense), x), linear(one, one.matrix(dense), x));
        x = one.floats(50 * 40);
        lab.assertSame(
            "float16", linear(lab, lab.matrix(half), x), linear(one, one.matrix(half), x));
      }
    }
  }

  /** Several projections of one input, of which not all need be taken by generated code. */
  @ParameterizedTest
  @ValueSource(ints = {16, 40, 129, 600})
  void linear_isTheSame_atEveryNumberOfThreads(int tokens) {
    try (Lab one = usual(1, 10);
        Lab three = usual(3, 10)) {
      QuantizedMatrix wide = one.quantized(330, 192, QuantType.NF4, 64, true);
      QuantizedMatrix narrow = one.quantized(20, 192, QuantType.NF4, 64, true);
      DenseMatrix dense = one.dense(DType.BF16, 65, 192);
      DenseMatrix half = one.dense(DType.F16, 65, 192);
      float[] x = one.floats(tokens * 192);
      List<float[]> expected = group(one, x, one.matrix(wide), one.matrix(dense));
      List<float[]> actual = group(three, x, three.matrix(wide), three.matrix(dense));
      one.assertSame("4 bits", actual.get(0), expected.get(0));
      one.assertSame("bfloat16", actual.get(1), expected.get(1));
      expected = group(one, x, one.matrix(narrow), one.matrix(half));
      actual = group(three, x, three.matrix(narrow), three.matrix(half));
      one.assertSame("few rows", actual.get(0), expected.get(0));
      one.assertSame("float16", actual.get(1), expected.get(1));
    }
  }

  private static List<float[]> group(Lab lab, float[] x, Matrix... weights) {
    int tokens = x.length / weights[0].cols();
    List<Linear> linears = new ArrayList<>();
    List<Buffer> outs = new ArrayList<>();
    for (Matrix w : weights) {
      linears.add(new Linear(linears.size(), w, null));
      outs.add(lab.buffer(tokens, w.rows()));
    }
    Buffer in = lab.buffer(x, weights[0].cols());
    lab.backend.linear(lab.step(tokens), linears, in, outs);
    return outs.stream().map(lab::read).toList();
  }

  @Test
  void linear_addsDeltasExactly() {
    addsDeltasExactly(fast(2, 7));
    addsDeltasExactly(usual(2, 7));
  }

  private static void addsDeltasExactly(Lab made) {
    try (Lab lab = made) {
      int cols = 192;
      QuantizedMatrix stored = lab.quantized(150, cols, QuantType.NF4, 64, true);
      Matrix w = lab.matrix(stored);
      DenseMatrix a = lab.dense(DType.BF16, 8, cols);
      DenseMatrix b = lab.dense(DType.BF16, 150, 8);
      DenseMatrix replaced = lab.dense(DType.F32, 150, cols);
      Lora lora = lab.lora(Map.of(0, Lab.lowRank(a, b, 2)), Map.of(0, w));
      Lora whole = lab.lora(Map.of(0, Lab.weight(replaced)), Map.of(0, w));
      float[] x = lab.floats(40 * cols);
      float[] base = linear(lab, w, x);
      float[] adapted =
          linear(
              lab,
              w,
              x,
              new Batch.Segment(0, 10, null),
              new Batch.Segment(10, 30, lora),
              new Batch.Segment(30, 40, whole));
      lab.assertSame("rows of the base", Lab.rows(adapted, 150, 0, 10), Lab.rows(base, 150, 0, 10));
      double[] expected = new double[20 * 150];
      double[] size = new double[20 * 150];
      double[][] low = Lab.product(Lab.values(a), 8, cols, Lab.rows(x, cols, 10, 30), 20);
      float[] shrunk = new float[20 * 8];
      for (int i = 0; i < shrunk.length; i++) {
        shrunk[i] = (float) low[0][i];
      }
      double[][] high = Lab.product(Lab.values(b), 150, 8, shrunk, 20);
      for (int i = 0; i < expected.length; i++) {
        expected[i] = base[10 * 150 + i] + 2 * high[0][i];
        size[i] = Math.abs(base[10 * 150 + i]) + 20 * high[1][i];
      }
      lab.assertClose("adapted rows", Lab.rows(adapted, 150, 10, 30), expected, size);
      double[][] other =
          Lab.product(Lab.values(replaced), 150, cols, Lab.rows(x, cols, 30, 40), 10);
      lab.assertClose("replaced rows", Lab.rows(adapted, 150, 30, 40), other[0], other[1]);
    }
  }

  @Test
  void linear_keepsNotFiniteNumbersInTheirRows() {
    keepsNotFiniteNumbersInTheirRows(fast(2, 8));
    keepsNotFiniteNumbersInTheirRows(usual(2, 8));
  }

  private static void keepsNotFiniteNumbersInTheirRows(Lab made) {
    try (Lab lab = made) {
      QuantizedMatrix w = lab.quantized(70, 128, QuantType.NF4, 64, true);
      float[] x = lab.floats(20 * 128);
      float[] clean = linear(lab, lab.matrix(w), x);
      x[3 * 128 + 5] = Float.NaN;
      x[4 * 128 + 6] = Float.POSITIVE_INFINITY;
      x[5 * 128 + 7] = Float.intBitsToFloat(0x7fffffff);
      x[6 * 128 + 8] = Float.intBitsToFloat(0xff800001);
      float[] y = linear(lab, lab.matrix(w), x);
      for (int row = 0; row < 20; row++) {
        float[] actual = Lab.rows(y, 70, row, row + 1);
        if (row >= 3 && row <= 6) {
          for (float value : actual) {
            assertThat(Float.isFinite(value)).as("row %d: %s", row, value).isFalse();
          }
        } else {
          lab.assertSame("row " + row, actual, Lab.rows(clean, 70, row, row + 1));
        }
      }
    }
  }

  @Test
  void linear_weightsThatAreNotFinite_showInTheirOutputs() {
    weightsThatAreNotFinite(fast(2, 9));
    weightsThatAreNotFinite(usual(2, 9));
  }

  private static void weightsThatAreNotFinite(Lab made) {
    try (Lab lab = made) {
      float[] values = lab.floats(70 * 64);
      values[2 * 64 + 3] = Float.NaN;
      values[65 * 64 + 3] = Float.NEGATIVE_INFINITY;
      for (DType dtype : List.of(DType.F32, DType.F16, DType.BF16)) {
        float[] x = lab.floats(16 * 64);
        float[] y = linear(lab, lab.matrix(Lab.dense(dtype, 70, 64, values)), x);
        for (int i = 0; i < y.length; i++) {
          boolean poisoned = i % 70 == 2 || i % 70 == 65;
          assertThat(Float.isFinite(y[i])).as("%s: %d", dtype, i).isEqualTo(!poisoned);
        }
      }
    }
  }

  @Test
  void describe_namesTheMode() {
    try (CpuBackend fast = new CpuBackend(1, new VectorKernels(), MathMode.FAST);
        CpuBackend exact = new CpuBackend(1, new VectorKernels())) {
      assertThat(fast.math()).isEqualTo(MathMode.FAST);
      assertThat(fast.describe()).contains("fast mode (oneDNN on ");
      assertThat(fast.refusal()).isNull();
      assertThat(fast.workspaceBytes()).isBetween(1L, 1L << 20);
      assertThat(exact.math()).isEqualTo(MathMode.EXACT);
      assertThat(exact.describe()).endsWith("exact mode");
      assertThat(exact.workspaceBytes()).isZero();
    }
  }
}
