package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Backward operations: against double, and against differences of the forward operation. */
public abstract class GradientsContract extends BackendContract {

  @ParameterizedTest
  @CsvSource({
    "33, 64, NF4, 64, true, 1",
    "16, 128, FP4, 64, false, 5",
    "17, 80, NF4, 64, true, 3",
    "5, 96, NF4, 32, true, 2",
    "300, 192, NF4, 64, true, 70",
  })
  void linearInput_fourBit(
      int rows, int cols, QuantType type, int block, boolean nested, int tokens) {
    try (Lab lab = lab(rows)) {
      QuantizedMatrix stored = lab.quantized(rows, cols, type, block, nested);
      check(lab, lab.matrix(stored), Lab.values(stored), rows, cols, tokens);
    }
  }

  @ParameterizedTest
  @CsvSource({"33, 64, F32", "17, 131, F16", "40, 80, BF16"})
  void linearInput_dense(int rows, int cols, DType dtype) {
    try (Lab lab = lab(rows)) {
      DenseMatrix stored = lab.dense(dtype, rows, cols);
      check(lab, lab.matrix(stored), Lab.values(stored), rows, cols, 6);
    }
  }

  private static void check(Lab lab, Matrix w, float[] values, int rows, int cols, int tokens) {
    float[] dy = lab.floats(tokens * rows);
    float[] before = lab.floats(tokens * cols);
    Buffer dx = lab.buffer(before, cols);
    lab.backend.gradients().linearInput(w, tokens, lab.buffer(dy, rows), dx);
    float[] transposed = new float[rows * cols];
    for (int o = 0; o < rows; o++) {
      for (int k = 0; k < cols; k++) {
        transposed[k * rows + o] = values[o * cols + k];
      }
    }
    double[][] expected = Lab.product(transposed, /* rows= */ cols, /* cols= */ rows, dy, tokens);
    for (int i = 0; i < before.length; i++) {
      expected[0][i] += before[i];
      expected[1][i] += Math.abs(before[i]);
    }
    lab.assertClose("dx", lab.read(dx), expected[0], expected[1]);
  }

  @Test
  void linearInput_finiteDifferences() {
    try (Lab lab = lab(9)) {
      int out = 20;
      int in = 64;
      Matrix w = lab.matrix(lab.quantized(out, in, QuantType.NF4, 64, true));
      float[] x = lab.floats(in);
      float[] dy = lab.floats(out);
      Buffer dx = lab.buffer(1, in);
      lab.backend.gradients().linearInput(w, 1, lab.buffer(dy, out), dx);
      float[] analytic = lab.read(dx);
      double largest = 0;
      for (float g : analytic) {
        largest = Math.max(largest, Math.abs(g));
      }
      for (int k = 0; k < in; k++) {
        float step = 0.5f;
        float[] moved = x.clone();
        moved[k] += step;
        double up = loss(lab, w, moved, dy, out, in);
        moved[k] = x[k] - step;
        double down = loss(lab, w, moved, dy, out, in);
        assertThat((up - down) / (2 * step))
            .as("input %d, seed %d", k, lab.seed)
            .isCloseTo(analytic[k], within(1e-4 * largest));
      }
    }
  }

  private static double loss(Lab lab, Matrix w, float[] x, float[] dy, int out, int in) {
    Buffer y = lab.buffer(1, out);
    lab.backend.linear(lab.step(1), List.of(new Linear(0, w, null)), lab.buffer(x, in), List.of(y));
    double loss = 0;
    float[] values = lab.read(y);
    for (int o = 0; o < out; o++) {
      loss += (double) values[o] * dy[o];
    }
    return loss;
  }
}
