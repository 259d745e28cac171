package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.SHORTS;
import static dev.wardrobe.compute.cpu.Vectors.dot;
import static dev.wardrobe.compute.cpu.Vectors.exp;
import static dev.wardrobe.compute.cpu.Vectors.tile;
import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.I2S;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.MAX;
import static jdk.incubator.vector.VectorOperators.XOR;

import dev.wardrobe.safetensors.DType;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;

/** Operations on single rows: norm, rotation, activation, and what drawing a token needs. */
final class VectorRows {
  private static final int ROWS = Elementary.LANES;
  private static final int RUN = Kernels.RUN;

  private static final int TURNED_NEGATIVE_INFINITY = 0xff800000 ^ 0x7fffffff;

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

  static void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
      FloatVector c = tile(cos, angle + i);
      FloatVector s = tile(sin, angle + i);
      FloatVector a = tile(x, at + i);
      FloatVector b = tile(x, at + half + i);
      a.mul(c).sub(b.mul(s)).intoArray(x, at + i);
      b.mul(c).add(a.mul(s)).intoArray(x, at + half + i);
    }
    for (; i < half; i++) {
      float c = cos[angle + i];
      float s = sin[angle + i];
      float a = x[at + i];
      float b = x[at + half + i];
      x[at + i] = a * c - b * s;
      x[at + half + i] = b * c + a * s;
    }
  }

  static void narrow(float[] x, int at, int count, short[] out) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      IntVector bits = tile(x, at + i).reinterpretAsInts();
      IntVector upper = bits.lanewise(LSHR, 16);
      IntVector rounded = bits.add(upper.and(1).add(0x7fff)).lanewise(LSHR, 16);
      VectorMask<Integer> nan = bits.and(0x7fffffff).compare(GT, 0x7f800000);
      IntVector chosen = rounded.blend(upper.or(0x40), nan);
      ((ShortVector) chosen.convertShape(I2S, SHORTS, 0)).intoArray(out, i);
    }
    for (; i < count; i++) {
      out[i] = DType.floatToBfloat16(x[at + i]);
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

  static float largest(float[] a, int at, int count) {
    // As integers, the negative ones turned round; a NaN has the largest magnitude of all.
    IntVector largest = IntVector.broadcast(INTS, TURNED_NEGATIVE_INFINITY);
    IntVector magnitude = IntVector.zero(INTS);
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      IntVector bits = tile(a, at + i).reinterpretAsInts();
      magnitude = magnitude.max(bits.and(0x7fffffff));
      largest = largest.max(bits.lanewise(XOR, bits.lanewise(ASHR, 31).lanewise(LSHR, 1)));
    }
    int key = largest.reduceLanes(MAX);
    float max =
        magnitude.reduceLanes(MAX) > 0x7f800000
            ? Float.NaN
            : Float.intBitsToFloat(key ^ (key >> 31) >>> 1);
    for (; i < count; i++) {
      max = Math.max(max, a[at + i]);
    }
    return max;
  }

  static int above(float[] a, int at, int from, int count, float bound) {
    int i = from;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
      VectorMask<Float> first = tile(a, at + i).compare(GT, bound);
      VectorMask<Float> second = tile(a, at + i + LANES).compare(GT, bound);
      VectorMask<Float> third = tile(a, at + i + 2 * LANES).compare(GT, bound);
      VectorMask<Float> fourth = tile(a, at + i + 3 * LANES).compare(GT, bound);
      if (first.or(second).or(third.or(fourth)).anyTrue()) {
        break;
      }
    }
    while (i < count && !(a[at + i] > bound)) {
      i++;
    }
    return i;
  }

  static int allAbove(float[] a, int at, int count, float bound, int[] indices) {
    int found = 0;
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      long lanes = tile(a, at + i).compare(GT, bound).toLong();
      while (lanes != 0) {
        indices[found++] = i + Long.numberOfTrailingZeros(lanes);
        lanes &= lanes - 1;
      }
    }
    for (; i < count; i++) {
      if (a[at + i] > bound) {
        indices[found++] = i;
      }
    }
    return found;
  }

  static float sum(float[] a, int at, int count, Scratch scratch) {
    float[] lanes = scratch.lanes;
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int i = strip; i < whole; i += ROWS) {
        sum = sum.add(tile(a, at + i));
      }
      sum.intoArray(lanes, strip);
    }
    for (int i = whole; i < count; i++) {
      lanes[i - whole] += a[at + i];
    }
    return Elementary.tree(lanes, 0);
  }
}
