package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.safetensors.DType;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Operations on each row by itself: embedding, norms, gated activation; and the step's checks. */
public abstract class RowsContract extends BackendContract {

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void embed_exactRows(DType dtype) {
    try (Lab lab = lab(1)) {
      DenseMatrix table = lab.dense(dtype, 37, 20);
      Buffer out = lab.buffer(4, 20);
      int[] tokens = {36, 0, 16, 5};
      lab.backend.embed(lab.step(tokens, new Batch.Segment(0, 4, null)), 0, lab.matrix(table), out);
      float[] actual = lab.read(out);
      for (int i = 0; i < 4; i++) {
        lab.assertSame(
            "row " + i,
            Lab.rows(actual, 20, i, i + 1),
            Lab.rows(Lab.values(table), 20, tokens[i], tokens[i] + 1));
      }
    }
  }

  @Test
  void embed_withAdapters() {
    try (Lab lab = lab(2)) {
      DenseMatrix table = lab.dense(DType.BF16, 37, 20);
      Matrix w = lab.matrix(table);
      DenseMatrix a = lab.dense(DType.F32, 3, 37);
      DenseMatrix b = lab.dense(DType.F32, 20, 3);
      DenseMatrix replacement = lab.dense(DType.F32, 37, 20);
      float[] magnitude = lab.floats(20);
      Map<Integer, Matrix> base = Map.of(4, w);
      Lora low = lab.lora(Map.of(4, Lab.lowRank(a, b, 2)), base);
      Lora dora =
          lab.lora(
              Map.of(4, new Delta(new Delta.LowRank(a, b), 2, magnitude, null, null, null)), base);
      Lora replaced = lab.lora(Map.of(4, Lab.weight(replacement)), base);
      Buffer out = lab.buffer(4, 20);
      int[] tokens = {36, 7, 7, 5};
      lab.backend.embed(
          lab.step(
              tokens,
              new Batch.Segment(0, 1, null),
              new Batch.Segment(1, 2, low),
              new Batch.Segment(2, 3, dora),
              new Batch.Segment(3, 4, replaced)),
          4,
          w,
          out);
      float[] actual = lab.read(out);
      float[] values = Lab.values(table);
      float[] wideA = Lab.values(a);
      float[] wideB = Lab.values(b);
      double[] plain = new double[20];
      double[] scaled = new double[20];
      for (int h = 0; h < 20; h++) {
        double square = 0;
        for (int token = 0; token < 37; token++) {
          double element = values[token * 20 + h];
          for (int j = 0; j < 3; j++) {
            element += 2.0 * wideB[h * 3 + j] * wideA[j * 37 + token];
          }
          square += element * element;
          if (token == 7) {
            plain[h] = element;
          }
        }
        scaled[h] = plain[h] * magnitude[h] / Math.sqrt(square);
      }
      lab.assertSame("base", Lab.rows(actual, 20, 0, 1), Lab.rows(values, 20, 36, 37));
      lab.assertClose("lora", Lab.rows(actual, 20, 1, 2), plain, Lab.fill(20, 5));
      lab.assertClose("dora", Lab.rows(actual, 20, 2, 3), scaled, Lab.fill(20, 5));
      lab.assertSame(
          "replaced", Lab.rows(actual, 20, 3, 4), Lab.rows(Lab.values(replacement), 20, 5, 6));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {-1, 37, Integer.MAX_VALUE})
  void embed_unknownToken(int token) {
    try (Lab lab = lab(3)) {
      Matrix w = lab.matrix(lab.dense(DType.BF16, 37, 20));
      Step step = lab.step(new int[] {token}, new Batch.Segment(0, 1, null));
      assertThatThrownBy(() -> lab.backend.embed(step, 0, w, lab.buffer(1, 20)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("token " + token);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 8, 15, 16, 17, 33, 80, 576, 2048})
  void norm_residual(int width) {
    try (Lab lab = lab(width)) {
      float[] residual = lab.floats(3 * width, 4);
      float[] x = lab.floats(3 * width);
      float[] weight = lab.floats(width);
      Buffer residuals = lab.buffer(residual, width);
      Buffer weights = lab.buffer(weight, width);
      Buffer out = lab.buffer(3, width);
      Step step = lab.step(3);
      lab.backend.norm(step, 0, residuals, lab.buffer(x, width), weights, 1e-5f, out);
      float[] sums = lab.read(residuals);
      for (int i = 0; i < sums.length; i++) {
        assertThat(sums[i]).isEqualTo(residual[i] + x[i]);
      }
      double[] expected = normed(sums, weight, 3, width, 1e-5);
      lab.assertClose("norm", lab.read(out), expected, Lab.fill(3 * width, 10));
      lab.backend.norm(step, 0, residuals, null, weights, 1e-5f, out);
      lab.assertSame("residual", lab.read(residuals), sums);
      lab.assertClose("norm", lab.read(out), expected, Lab.fill(3 * width, 10));
    }
  }

  private static double[] normed(float[] x, float[] weight, int rows, int width, double epsilon) {
    double[] out = new double[rows * width];
    for (int row = 0; row < rows; row++) {
      double sum = 0;
      for (int i = 0; i < width; i++) {
        sum += (double) x[row * width + i] * x[row * width + i];
      }
      for (int i = 0; i < width; i++) {
        int at = row * width + i;
        out[at] = x[at] / Math.sqrt(sum / width + epsilon) * weight[i];
      }
    }
    return out;
  }

  @Test
  void norm_replacedWeight() {
    try (Lab lab = lab(4)) {
      float[] x = lab.floats(40);
      float[] weight = lab.floats(20);
      float[] other = lab.floats(20);
      Lora lora = lab.lora(Map.of(6, Lab.weight(Lab.dense(DType.F32, 1, 20, other))), Map.of());
      Buffer out = lab.buffer(2, 20);
      Step step = lab.step(2, new Batch.Segment(0, 1, null), new Batch.Segment(1, 2, lora));
      lab.backend.norm(step, 6, lab.buffer(x, 20), null, lab.buffer(weight, 20), 1e-6f, out);
      double[] base = normed(x, weight, 2, 20, 1e-6);
      System.arraycopy(normed(x, other, 2, 20, 1e-6), 20, base, 20, 20);
      lab.assertClose("norm", lab.read(out), base, Lab.fill(40, 10));
    }
  }

  @Test
  void normHeads_eachByItself() {
    try (Lab lab = lab(5)) {
      float[] x = lab.floats(2 * 3 * 20);
      float[] weight = lab.floats(20);
      Buffer buffer = lab.buffer(x, 60);
      lab.backend.normHeads(lab.step(2), 0, buffer, 20, lab.buffer(weight, 20), 1e-6f);
      lab.assertClose("norm", lab.read(buffer), normed(x, weight, 6, 20, 1e-6), Lab.fill(120, 10));
    }
  }

  @Test
  void activate_silu() {
    try (Lab lab = lab(6)) {
      float[] gate = lab.floats(3 * 37, 5);
      gate[0] = -1000;
      gate[1] = 1000;
      gate[2] = 0;
      gate[3] = -88.5f;
      float[] up = lab.floats(3 * 37);
      Buffer gates = lab.buffer(gate, 37);
      lab.backend.activate(lab.step(3), gates, lab.buffer(up, 37), gates);
      double[] expected = new double[111];
      double[] size = new double[111];
      for (int i = 0; i < 111; i++) {
        expected[i] = gate[i] / (1 + StrictMath.exp(-gate[i])) * up[i];
        size[i] = Math.abs(expected[i]);
      }
      lab.assertClose("silu", lab.read(gates), expected, size);
    }
  }

  @Test
  void step_batchesThatDoNotHold() {
    try (Lab lab = lab(7)) {
      Batch.Run run = new Batch.Run(0, 2, 0, new int[] {0});
      Batch.Segment all = new Batch.Segment(0, 2, null);
      int[] none = new int[0];
      for (Batch bad :
          List.of(
              new Batch(new int[3], List.of(run), List.of(all), none),
              new Batch(new int[2], List.of(), List.of(all), none),
              new Batch(new int[2], List.of(run), List.of(new Batch.Segment(0, 1, null)), none),
              new Batch(
                  new int[2],
                  List.of(run),
                  List.of(new Batch.Segment(0, 1, null), new Batch.Segment(1, 2, null)),
                  none),
              new Batch(
                  new int[2], List.of(new Batch.Run(0, 2, 15, new int[1])), List.of(all), none),
              new Batch(new int[2], List.of(run), List.of(all), new int[] {2}),
              new Batch(new int[2], List.of(run), List.of(all), new int[] {1, 0}))) {
        assertThatThrownBy(() -> lab.backend.step(bad))
            .isInstanceOf(IllegalArgumentException.class);
      }
    }
  }
}
