package dev.wardrobe.quant;

import java.util.Arrays;

/**
 * Scales in doubly quantized form: {@code map[code] * absmax[i / 256] + offset}, with the signed
 * {@link DynamicMap}.
 */
final class NestedAbsmax {
  static final int BLOCK = 256;

  private static final int LANES = 8;
  private static final int ROWS = 4;
  private static final int LEVELS = 4;

  private final byte[] codes;
  private final float[] absmax;

  private NestedAbsmax(byte[] codes, float[] absmax) {
    this.codes = codes;
    this.absmax = absmax;
  }

  /** One code per scale; not to be changed. */
  byte[] codes() {
    return codes;
  }

  /** One value per block of 256 scales; not to be changed. */
  float[] absmax() {
    return absmax;
  }

  /** Encodes scales less {@code offset}, each with the code nearest to it. */
  static NestedAbsmax encode(float[] scales, float offset) {
    byte[] codes = new byte[scales.length];
    float[] absmax = new float[(scales.length + BLOCK - 1) / BLOCK];
    for (int block = 0; block < absmax.length; block++) {
      int from = block * BLOCK;
      int to = Math.min(from + BLOCK, scales.length);
      float largest = 0;
      for (int i = from; i < to; i++) {
        largest = Math.max(largest, Math.abs(scales[i] - offset));
      }
      absmax[block] = largest;
      float reciprocal = 1 / largest;
      for (int i = from; i < to; i++) {
        float centred = scales[i] - offset;
        // 0 is the map's own value. It also stands for 0 * infinity, where all are equal; where
        // the largest is so small that only its reciprocal overflows, the code is that of an
        // infinity, as it is for an exact search elsewhere.
        float v = centred == 0 ? 0 : centred * reciprocal;
        codes[i] = (byte) DynamicMap.SIGNED.nearest(v);
      }
    }
    return new NestedAbsmax(codes, absmax);
  }

  /**
   * The mean in float32, added up in the order in which PyTorch's CPU kernel does on one thread:
   * eight lanes of four interleaved rows, in runs of 16 (more for very long arrays) which are
   * summed in turn, level upon level. So offsets come out with the same bits.
   */
  static float mean(float[] values) {
    int vectors = values.length / LANES;
    int steps = vectors / ROWS;
    int width = ROWS * LANES;
    float[][] sums = new float[LEVELS][width];

    int stepsBits = steps <= 2 ? 1 : Integer.SIZE - Integer.numberOfLeadingZeros(steps - 1);
    int levelBits = Math.max(4, stepsBits / LEVELS);
    int run = 1 << levelBits;
    int step = 0;
    while (step + run <= steps) {
      for (int end = step + run; step < end; step++) {
        add(sums[0], values, step * width, width);
      }
      for (int level = 1; level < LEVELS; level++) {
        add(sums[level], sums[level - 1], 0, width);
        Arrays.fill(sums[level - 1], 0);
        if ((step & ((run - 1) << (level * levelBits))) != 0) {
          break;
        }
      }
    }
    for (; step < steps; step++) {
      add(sums[0], values, step * width, width);
    }
    for (int level = 1; level < LEVELS; level++) {
      add(sums[0], sums[level], 0, width);
    }

    float[] lanes = Arrays.copyOf(sums[0], LANES);
    for (int vector = steps * ROWS; vector < vectors; vector++) {
      add(lanes, values, vector * LANES, LANES);
    }
    for (int row = 1; row < ROWS; row++) {
      add(lanes, sums[0], row * LANES, LANES);
    }
    float sum = 0;
    for (int i = vectors * LANES; i < values.length; i++) {
      sum += values[i];
    }
    for (float lane : lanes) {
      sum += lane;
    }
    return sum / values.length;
  }

  private static void add(float[] sums, float[] values, int at, int count) {
    for (int i = 0; i < count; i++) {
      sums[i] += values[at + i];
    }
  }
}
