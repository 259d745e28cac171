package dev.wardrobe.compute.cpu;

import java.util.Arrays;

/**
 * Exponential and logarithm in operations that every thread, compiler and vector width rounds
 * alike: additions, multiplications and fused multiply-adds, in one order.
 */
final class Elementary {
  /*
   * exp(x) = 2^n · exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. exp(r) = 1 + r + r²·P(r), P of degree
   * 4 fitted for the least relative error on that interval (3.1e-9, a twentieth of an ulp); x - n·ln 2
   * in two steps, the first exact (W. J. Cody and W. Waite, Software Manual for the Elementary
   * Functions, 1980, chapter 6). Rounding to an integer is done by adding 1.5·2^23, which leaves n in
   * the low bits. 2^n is applied in two factors, so that results below 2^-126 are reached by a
   * rounding. Error below 1.1 ulp, checked over all floats.
   */
  static final float LOG2_E = 0x1.715476p0f;
  static final float ROUND = 12582912f;
  static final int ROUND_BITS = 0x4b400000;
  static final float LN2_HIGH = 0x1.63p-1f;
  static final float LN2_LOW = -0x1.bd0106p-13f;
  static final float P0 = 0x1.fffffcp-2f;
  static final float P1 = 0x1.555492p-3f;
  static final float P2 = 0x1.5558f2p-5f;
  static final float P3 = 0x1.123a2p-7f;
  static final float P4 = 0x1.6a23dp-10f;

  /** Below, exp rounds to 0. */
  static final float LOWEST = -104f;

  /** Above, exp rounds to infinity. */
  static final float HIGHEST = 89f;

  private static final double LN2 = 0.6931471805599453;
  private static final double SQRT2 = 1.4142135623730951;

  /** Partial sums of a sum along a row; every vector's lanes divide it. */
  static final int LANES = 16;

  private Elementary() {}

  /** e to the {@code x}; NaN stays NaN. */
  static float exp(float x) {
    float c = Math.min(Math.max(x, LOWEST), HIGHEST);
    float shifted = Math.fma(c, LOG2_E, ROUND);
    float n = shifted - ROUND;
    float r = Math.fma(n, -LN2_HIGH, c);
    r = Math.fma(n, -LN2_LOW, r);
    float p = Math.fma(P4, r, P3);
    p = Math.fma(p, r, P2);
    p = Math.fma(p, r, P1);
    p = Math.fma(p, r, P0);
    p = Math.fma(p, r * r, r) + 1f;
    int power = Float.floatToRawIntBits(shifted) - ROUND_BITS;
    int half = power >> 1;
    return p * powerOfTwo(half) * powerOfTwo(power - half);
  }

  private static float powerOfTwo(int power) {
    return Float.intBitsToFloat((power + 127) << 23);
  }

  /**
   * Natural logarithm of a positive, finite, normal number, to within 5e-16·(1 + |log x|): with x =
   * 2^e·m, m in [√½, √2), and f = (m - 1) / (m + 1), it is e·ln 2 + 2·(f + f³/3 + f⁵/5 + …).
   */
  static double log(double x) {
    long bits = Double.doubleToRawLongBits(x);
    int e = (int) (bits >>> 52) - 1023;
    double m = Double.longBitsToDouble((bits & 0x000fffffffffffffL) | 0x3ff0000000000000L);
    if (m >= SQRT2) {
      m *= 0.5;
      e++;
    }
    double f = (m - 1) / (m + 1);
    double square = f * f;
    double series = 0;
    for (int odd = 21; odd >= 3; odd -= 2) {
      series = (series + 1.0 / odd) * square;
    }
    return e * LN2 + (2 * f + 2 * f * series);
  }

  /** Sum of 16 numbers from {@code at} on, as a tree: halves are added until one is left. */
  static float tree(float[] lanes, int at) {
    float a0 = (lanes[at] + lanes[at + 8]) + (lanes[at + 4] + lanes[at + 12]);
    float a1 = (lanes[at + 1] + lanes[at + 9]) + (lanes[at + 5] + lanes[at + 13]);
    float a2 = (lanes[at + 2] + lanes[at + 10]) + (lanes[at + 6] + lanes[at + 14]);
    float a3 = (lanes[at + 3] + lanes[at + 11]) + (lanes[at + 7] + lanes[at + 15]);
    return (a0 + a2) + (a1 + a3);
  }

  /** Inner product in 16 lanes. */
  static float dot(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    Arrays.fill(lanes, 0, 16, 0);
    for (int k = 0; k < count; k++) {
      lanes[k % 16] = Math.fma(a[aAt + k], b[bAt + k], lanes[k % 16]);
    }
    return Elementary.tree(lanes, 0);
  }
}
