package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.dot;
import static dev.wardrobe.compute.cpu.Vectors.exp;
import static dev.wardrobe.compute.cpu.Vectors.tile;

import jdk.incubator.vector.FloatVector;

/** Operations on single rows: norm, activation, exponentials. */
final class VectorRows {
  private static final int ROWS = Elementary.LANES;
  private static final int RUN = Kernels.RUN;

  private VectorRows() {}

  static void multiply(float[] factors, int from, float[] y, int at, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      tile(y, at + i).mul(tile(factors, from + i)).intoArray(y, at + i);
    }
    for (; i < count; i++) {
      y[at + i] *= factors[from + i];
    }
  }

  static void add(float[] terms, int from, float[] y, int at, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      tile(y, at + i).add(tile(terms, from + i)).intoArray(y, at + i);
    }
    for (; i < count; i++) {
      y[at + i] += terms[from + i];
    }
  }

  static void norm(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] out,
      int outAt,
      Scratch scratch) {
    float mean = dot(x, at, x, at, width, scratch.lanes) / width;
    float inverse = (float) (1 / Math.sqrt((double) (mean + epsilon)));
    int i = 0;
    for (; i + LANES <= width; i += LANES) {
      tile(weight, i).mul(tile(x, at + i).mul(inverse)).intoArray(out, outAt + i);
    }
    for (; i < width; i++) {
      out[outAt + i] = weight[i] * (x[at + i] * inverse);
    }
  }

  static void activate(float[] gate, float[] up, float[] out, int from, int to) {
    int i = from;
    for (; i + LANES <= to; i += LANES) {
      FloatVector g = tile(gate, i);
      g.div(exp(g.neg()).add(1)).mul(tile(up, i)).intoArray(out, i);
    }
    for (; i < to; i++) {
      out[i] = gate[i] / (1 + Elementary.exp(-gate[i])) * up[i];
    }
  }

  static void exponentials(float[] a, int at, int count, float max, float divisor, float[] out) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      exp(tile(a, at + i).sub(max).div(divisor)).intoArray(out, i);
    }
    for (; i < count; i++) {
      out[i] = Elementary.exp((a[at + i] - max) / divisor);
    }
  }

  static double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch) {
    double sum = 0;
    float[] lanes = scratch.lanes;
    for (int from = 0; from < count; from += RUN) {
      sumOfRun(a, at + from, Math.min(RUN, count - from), max, lanes);
      sum += Elementary.tree(lanes, 0);
    }
    return sum;
  }

  private static void sumOfRun(float[] a, int at, int count, float max, float[] lanes) {
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int i = strip; i < whole; i += ROWS) {
        sum = sum.add(exp(tile(a, at + i).sub(max)));
      }
      sum.intoArray(lanes, strip);
    }
    for (int i = whole; i < count; i++) {
      lanes[i - whole] += Elementary.exp(a[at + i] - max);
    }
  }
}
