package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Training's operations: forward against the same in double precision, backward against differences
 * of that.
 */
public abstract class TrainingContract extends BackendContract {
  /** An operation in double precision, of some arguments. */
  private interface Forward {
    double[] apply(double[][] arguments);
  }

  private static double[] wide(float[] values) {
    double[] wide = new double[values.length];
    Arrays.setAll(wide, i -> values[i]);
    return wide;
  }

  private static void assertClose(Lab lab, String what, float[] actual, double[] expected) {
    double largest = 1e-30;
    for (double value : expected) {
      largest = Math.max(largest, Math.abs(value));
    }
    for (int i = 0; i < expected.length; i++) {
      assertThat((double) actual[i])
          .as("%s[%d], seed %d", what, i, lab.seed)
          .isCloseTo(expected[i], within(3e-6 * largest));
    }
  }

  /**
   * Compares gradients of {@code Σ dy·forward(arguments)} with differences.
   *
   * @param most how many elements of each argument are moved, at most
   */
  private static void assertGradients(
      Lab lab, Forward forward, float[] dy, float[][] arguments, float[][] gradients, int most) {
    double[][] moved = new double[arguments.length][];
    Arrays.setAll(moved, i -> wide(arguments[i]));
    for (int a = 0; a < gradients.length; a++) {
      double largest = 1e-30;
      for (float gradient : gradients[a]) {
        largest = Math.max(largest, Math.abs(gradient));
      }
      int count = arguments[a].length;
      for (int times = 0; times < Math.min(most, count); times++) {
        int i = most < count ? lab.below(count) : times;
        double step = 1e-4;
        double before = moved[a][i];
        moved[a][i] = before + step;
        double up = dot(dy, forward.apply(moved));
        moved[a][i] = before - step;
        double down = dot(dy, forward.apply(moved));
        moved[a][i] = before;
        assertThat((up - down) / (2 * step))
            .as("gradient %d, element %d, seed %d", a, i, lab.seed)
            .isCloseTo(gradients[a][i], within(2e-5 * largest));
      }
    }
  }

  private static double dot(float[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }

  @ParameterizedTest
  @CsvSource({"3, 10, 1", "2, 6, 3", "1, 33, 1"})
  void norm(int rows, int width, int heads) {
    try (Lab lab = lab(width)) {
      int all = rows * width * heads;
      float[] x = lab.floats(all);
      float[] weight = lab.floats(width);
      float[] dy = lab.floats(all);
      float[] before = lab.floats(all);
      float epsilon = 1e-3f;
      Gradients gradients = lab.backend.gradients();
      Buffer out = lab.buffer(rows, width * heads);
      Buffer in = lab.buffer(x, width * heads);
      gradients.norm(in, lab.buffer(weight, width), epsilon, rows, out);
      Forward forward = arguments -> norm(arguments[0], weight, epsilon);
      assertClose(lab, "norm", lab.read(out), forward.apply(new double[][] {wide(x)}));
      Buffer dx = lab.buffer(before, width * heads);
      gradients.normInput(
          in, lab.buffer(weight, width), epsilon, rows, lab.buffer(dy, width * heads), dx);
      float[] added = difference(lab.read(dx), before);
      assertGradients(lab, forward, dy, new float[][] {x}, new float[][] {added}, all);
    }
  }

  private static double[] norm(double[] x, float[] weight, double epsilon) {
    double[] out = new double[x.length];
    int width = weight.length;
    for (int at = 0; at < x.length; at += width) {
      double squares = 0;
      for (int i = 0; i < width; i++) {
        squares += x[at + i] * x[at + i];
      }
      for (int i = 0; i < width; i++) {
        out[at + i] = x[at + i] / Math.sqrt(squares / width + epsilon) * weight[i];
      }
    }
    return out;
  }

  private static float[] difference(float[] a, float[] b) {
    float[] difference = new float[a.length];
    for (int i = 0; i < a.length; i++) {
      difference[i] = a[i] - b[i];
    }
    return difference;
  }

  @Test
  void rotate() {
    try (Lab lab = lab(3)) {
      int size = 12;
      int rows = 5;
      int[] positions = {0, 3, 1, 9, 4};
      float[] angles = lab.floats(10 * size / 2);
      float[] cos = new float[angles.length];
      float[] sin = new float[angles.length];
      for (int i = 0; i < angles.length; i++) {
        cos[i] = (float) Math.cos(angles[i]);
        sin[i] = (float) Math.sin(angles[i]);
      }
      float[] x = lab.floats(rows * 2 * size);
      float[] dy = lab.floats(x.length);
      Forward forward = arguments -> rotate(arguments[0], size, positions, cos, sin);
      Gradients gradients = lab.backend.gradients();
      Buffer rotated = lab.buffer(x, 2 * size);
      Buffer c = lab.buffer(cos, size / 2);
      Buffer s = lab.buffer(sin, size / 2);
      gradients.rotate(rotated, size, c, s, positions, false);
      assertClose(lab, "rotate", lab.read(rotated), forward.apply(new double[][] {wide(x)}));
      Buffer back = lab.buffer(dy, 2 * size);
      gradients.rotate(back, size, c, s, positions, true);
      float[][] found = {lab.read(back)};
      assertGradients(lab, forward, dy, new float[][] {x}, found, x.length);
    }
  }

  private static double[] rotate(double[] x, int size, int[] positions, float[] cos, float[] sin) {
    double[] out = new double[x.length];
    int half = size / 2;
    int heads = x.length / positions.length / size;
    for (int head = 0; head < x.length / size; head++) {
      int angle = positions[head / heads] * half;
      for (int i = 0; i < half; i++) {
        double a = x[head * size + i];
        double b = x[head * size + half + i];
        out[head * size + i] = a * cos[angle + i] - b * sin[angle + i];
        out[head * size + half + i] = b * cos[angle + i] + a * sin[angle + i];
      }
    }
    return out;
  }

  @ParameterizedTest
  @CsvSource({
    "7, 1, 1, 4, 0",
    "5 1 9, 4, 2, 6, 0",
    "6 8, 2, 1, 10, 3",
    "70, 2, 1, 16, 0",
    "3 140, 2, 2, 18, 66"
  })
  void attention(String lengths, int queries, int keyValues, int size, int window) {
    try (Lab lab = lab(size)) {
      int[] starts = starts(lengths);
      int rows = starts[starts.length - 1];
      Heads heads = new Heads(queries, keyValues, size, 0.9f / (float) Math.sqrt(size), window);
      float[][] arguments = {
        lab.floats(rows * queries * size),
        lab.floats(rows * keyValues * size),
        lab.floats(rows * keyValues * size)
      };
      float[] dOut = lab.floats(rows * queries * size);
      Buffer q = lab.buffer(arguments[0], queries * size);
      Buffer k = lab.buffer(arguments[1], keyValues * size);
      Buffer v = lab.buffer(arguments[2], keyValues * size);
      Buffer out = lab.buffer(rows, queries * size);
      Buffer logSums = lab.buffer(rows, queries);
      Gradients gradients = lab.backend.gradients();
      gradients.attention(starts, heads, q, k, v, out, logSums);
      double[][] wide = {wide(arguments[0]), wide(arguments[1]), wide(arguments[2])};
      double[] sums = new double[rows * queries];
      assertClose(lab, "attention", lab.read(out), attention(starts, heads, wide, sums));
      assertClose(lab, "logSums", lab.read(logSums), sums);
      // What they hold is overwritten.
      Buffer dq = lab.buffer(lab.floats(rows * queries * size), queries * size);
      Buffer dk = lab.buffer(lab.floats(rows * keyValues * size), keyValues * size);
      Buffer dv = lab.buffer(lab.floats(rows * keyValues * size), keyValues * size);
      gradients.attentionInput(
          starts, heads, q, k, v, out, logSums, lab.buffer(dOut, queries * size), dq, dk, dv);
      assertGradients(
          lab,
          values -> attention(starts, heads, values, new double[rows * queries]),
          dOut,
          arguments,
          new float[][] {lab.read(dq), lab.read(dk), lab.read(dv)},
          rows > 20 ? 40 : 1000);
    }
  }

  private static int[] starts(String lengths) {
    int[] each = Arrays.stream(lengths.split(" ")).mapToInt(Integer::parseInt).toArray();
    int[] starts = new int[each.length + 1];
    for (int i = 0; i < each.length; i++) {
      starts[i + 1] = starts[i] + each[i];
    }
    return starts;
  }

  private static double[] attention(
      int[] starts, Heads heads, double[][] arguments, double[] logSums) {
    int size = heads.size();
    double[] out = new double[arguments[0].length];
    for (int s = 0; s + 1 < starts.length; s++) {
      for (int row = starts[s]; row < starts[s + 1]; row++) {
        int first = heads.window() == 0 ? starts[s] : Math.max(starts[s], row + 1 - heads.window());
        for (int h = 0; h < heads.queries(); h++) {
          int at = (row * heads.queries() + h) * size;
          int head = h / (heads.queries() / heads.keyValues());
          double[] weights = new double[row + 1 - first];
          double sum = 0;
          for (int p = first; p <= row; p++) {
            double score = 0;
            for (int d = 0; d < size; d++) {
              score +=
                  arguments[0][at + d] * arguments[1][(p * heads.keyValues() + head) * size + d];
            }
            weights[p - first] = Math.exp(score * heads.scale());
            sum += weights[p - first];
          }
          logSums[row * heads.queries() + h] = Math.log(sum);
          for (int p = first; p <= row; p++) {
            for (int d = 0; d < size; d++) {
              double value = arguments[2][(p * heads.keyValues() + head) * size + d];
              out[at + d] += weights[p - first] / sum * value;
            }
          }
        }
      }
    }
    return out;
  }

  @Test
  void activate() {
    try (Lab lab = lab(5)) {
      float[][] arguments = {lab.floats(3 * 21), lab.floats(3 * 21)};
      float[] dOut = lab.floats(3 * 21);
      Buffer gate = lab.buffer(arguments[0], 21);
      Buffer up = lab.buffer(arguments[1], 21);
      Buffer out = lab.buffer(3, 21);
      Gradients gradients = lab.backend.gradients();
      gradients.activate(3, gate, up, out);
      Forward forward =
          values -> {
            double[] result = new double[values[0].length];
            Arrays.setAll(result, i -> values[0][i] / (1 + Math.exp(-values[0][i])) * values[1][i]);
            return result;
          };
      double[][] wide = {wide(arguments[0]), wide(arguments[1])};
      assertClose(lab, "activate", lab.read(out), forward.apply(wide));
      gradients.activateInput(3, gate, up, lab.buffer(dOut, 21), gate, up);
      float[][] found = {lab.read(gate), lab.read(up)};
      assertGradients(lab, forward, dOut, arguments, found, 63);
    }
  }

  @ParameterizedTest
  @CsvSource({"4, 9", "3, 2500", "1, 1"})
  void crossEntropy(int rows, int vocabulary) {
    try (Lab lab = lab(vocabulary)) {
      float[] logits = lab.floats(rows * vocabulary, 3);
      int[] targets = new int[rows + 2];
      Arrays.setAll(targets, _ -> lab.below(vocabulary));
      Forward forward = values -> losses(values[0], vocabulary, targets);
      Buffer buffer = lab.buffer(logits, vocabulary);
      double loss = lab.backend.gradients().crossEntropy(rows, buffer, targets, 2, 0.25f);
      double expected = Arrays.stream(forward.apply(new double[][] {wide(logits)})).sum();
      assertThat(loss).isCloseTo(expected, within(1e-5 * rows));
      float[] dy = new float[rows];
      Arrays.fill(dy, 0.25f);
      float[][] found = {lab.read(buffer)};
      assertGradients(lab, forward, dy, new float[][] {logits}, found, 60);
    }
  }

  private static double[] losses(double[] logits, int vocabulary, int[] targets) {
    double[] losses = new double[logits.length / vocabulary];
    for (int row = 0; row < losses.length; row++) {
      double sum = 0;
      for (int i = 0; i < vocabulary; i++) {
        sum += Math.exp(logits[row * vocabulary + i]);
      }
      losses[row] = Math.log(sum) - logits[row * vocabulary + targets[row + 2]];
    }
    return losses;
  }

  @Test
  void crossEntropy_notFinite() {
    try (Lab lab = lab(1)) {
      for (float problem : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
        float[] logits = lab.floats(20);
        logits[13] = problem;
        double loss =
            lab.backend.gradients().crossEntropy(2, lab.buffer(logits, 10), new int[] {1, 2}, 0, 1);
        assertThat(loss).isNaN();
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "5, 7, 9, false, false",
    "65, 16, 33, false, true",
    "20, 70, 8, true, false",
    "6, 5, 4, true, true"
  })
  void product(int m, int n, int k, boolean transposeA, boolean transposeB) {
    try (Lab lab = lab(m)) {
      float[] a = lab.floats(m * k);
      float[] b = lab.floats(k * n);
      float[] before = lab.floats(m * n);
      Buffer c = lab.buffer(before, n);
      lab.backend
          .gradients()
          .product(
              0.5f,
              lab.buffer(a, transposeA ? m : k),
              transposeA,
              lab.buffer(b, transposeB ? k : n),
              transposeB,
              m,
              n,
              k,
              c);
      double[] expected = wide(before);
      for (int row = 0; row < m; row++) {
        for (int column = 0; column < n; column++) {
          for (int i = 0; i < k; i++) {
            double left = a[transposeA ? i * m + row : row * k + i];
            double right = b[transposeB ? column * k + i : i * n + column];
            expected[row * n + column] += 0.5 * left * right;
          }
        }
      }
      assertClose(lab, "product", lab.read(c), expected);
    }
  }

  @Test
  void dropout() {
    try (Lab lab = lab(2)) {
      int rows = 40;
      int width = 250;
      float p = 0.3f;
      float[] x = lab.floats(rows * width);
      float[] dy = lab.floats(rows * width);
      Gradients gradients = lab.backend.gradients();
      Buffer out = lab.buffer(rows, width);
      gradients.dropout(rows, lab.buffer(x, width), p, 7, out);
      float[] dropped = lab.read(out);
      int zeros = 0;
      for (int i = 0; i < x.length; i++) {
        if (dropped[i] == 0) {
          zeros++;
        } else {
          assertThat(dropped[i]).isEqualTo(x[i] * (1 / (1 - p)));
        }
      }
      // Five standard deviations on either side.
      assertThat(zeros).isBetween(2770, 3230);
      Buffer dx = lab.buffer(rows, width);
      gradients.dropoutInput(rows, lab.buffer(dy, width), p, 7, dx);
      float[] back = lab.read(dx);
      for (int i = 0; i < x.length; i++) {
        assertThat(back[i]).isEqualTo(dropped[i] == 0 ? 0 : dy[i] * (1 / (1 - p)));
      }
      // A row's mask is its own, whatever the number of rows; another key has another one.
      Buffer fewer = lab.buffer(rows, width);
      gradients.dropout(3, lab.buffer(x, width), p, 7, fewer);
      lab.assertSame(
          "rows", Lab.rows(lab.read(fewer), width, 0, 3), Lab.rows(dropped, width, 0, 3));
      gradients.dropout(rows, lab.buffer(x, width), p, 8, out);
      assertThat(lab.read(out)).isNotEqualTo(dropped);
    }
  }

  @Test
  void smallOperations() {
    try (Lab lab = lab(4)) {
      int rows = 7;
      int width = 19;
      float[] x = lab.floats(rows * width);
      float[] y = lab.floats(rows * width);
      float[] gain = lab.floats(width);
      Gradients gradients = lab.backend.gradients();
      Buffer sums = lab.buffer(gain, width);
      gradients.columnDots(rows, lab.buffer(x, width), lab.buffer(y, width), sums);
      Buffer scaled = lab.buffer(rows, width);
      gradients.scaleColumns(rows, lab.buffer(x, width), lab.buffer(gain, width), scaled);
      Buffer added = lab.buffer(y, width);
      gradients.add(rows - 1, 0.5f, lab.buffer(x, width), added);
      Buffer once = lab.buffer(y, width);
      gradients.addRow(rows, lab.buffer(gain, width), once);
      double[] dots = wide(gain);
      double[] gains = new double[x.length];
      double[] total = wide(y);
      double[] row = wide(y);
      double squares = 0;
      for (int i = 0; i < x.length; i++) {
        dots[i % width] += (double) x[i] * y[i];
        gains[i] = (double) x[i] * gain[i % width];
        total[i] += i < (rows - 1) * width ? 0.5 * x[i] : 0;
        row[i] += gain[i % width];
        squares += (double) x[i] * x[i];
      }
      assertClose(lab, "columnDots", lab.read(sums), dots);
      assertClose(lab, "scaleColumns", lab.read(scaled), gains);
      assertClose(lab, "add", lab.read(added), total);
      assertClose(lab, "addRow", lab.read(once), row);
      assertThat(gradients.sumOfSquares(lab.buffer(x, width)))
          .isCloseTo(squares, within(1e-9 * squares));
    }
  }
}
