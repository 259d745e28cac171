package dev.wardrobe.quant;

import java.util.Arrays;

/**
 * An 8-bit code book of 256 ascending values in [-1, 1] whose precision follows their magnitude
 * ("8-Bit Approximations for Parallelism in Deep Learning", arXiv 1511.04561).
 */
public final class DynamicMap {
  private static final float[] DECADES = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1e0f};

  /** Values of both signs: for doubly quantized scales, and an optimizer's first moment. */
  public static final DynamicMap SIGNED = new DynamicMap(true);

  /** Values from 0 to 1: for an optimizer's second moment. */
  public static final DynamicMap UNSIGNED = new DynamicMap(false);

  private final float[] values;
  private final double[] midpoints = new double[255];

  private DynamicMap(boolean signed) {
    values = build(signed);
    for (int i = 0; i < midpoints.length; i++) {
      midpoints[i] = ((double) values[i] + values[i + 1]) / 2;
    }
  }

  /*
   * Seven decades; in each, the middles of equal parts of [0.1, 1], twice as many parts in each
   * decade as in the one below it, and besides them 0 and 1. The bits are those that PyTorch's
   * float32 arithmetic gives: linspace walks from both ends, with fused multiply-adds.
   */
  private static float[] build(boolean signed) {
    float[] values = new float[256];
    int count = 0;
    for (int decade = 0; decade < DECADES.length; decade++) {
      int parts = 1 << (signed ? decade : decade + 1);
      float scale = DECADES[decade];
      for (int i = 0; i < parts; i++) {
        float middle = (boundary(i, parts) + boundary(i + 1, parts)) / 2;
        values[count++] = scale * middle;
        if (signed) {
          values[count++] = -(scale * middle);
        }
      }
    }
    values[count++] = 0;
    values[count++] = 1;
    assert count == values.length;
    Arrays.sort(values);
    return values;
  }

  private static float boundary(int i, int parts) {
    float step = (1.0f - 0.1f) / parts;
    return i < (parts + 1) / 2 ? Math.fma(step, i, 0.1f) : Math.fma(-step, parts - i, 1.0f);
  }

  /** The 256 values by code, a copy. */
  public float[] values() {
    return values.clone();
  }

  /** The value of one code. */
  public float value(int code) {
    return values[code];
  }

  /**
   * The code of the value nearest to {@code v}; of two equally near ones the lower, so that an
   * infinite {@code v}, equally far from all, gets 0.
   */
  public int nearest(float v) {
    if (Float.isInfinite(v)) {
      return 0;
    }
    int below = 0;
    int above = midpoints.length;
    while (below < above) {
      int middle = (below + above) >>> 1;
      if (midpoints[middle] < v) {
        below = middle + 1;
      } else {
        above = middle;
      }
    }
    return below;
  }

  /** Whether {@code other} has exactly these bits. */
  boolean matches(float[] other) {
    return Arrays.equals(values, other);
  }

  /** The values themselves, not to be changed. */
  float[] shared() {
    return values;
  }
}
