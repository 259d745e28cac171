package dev.wardrobe.quant;

import java.util.Arrays;
import java.util.Comparator;
import java.util.Locale;
import java.util.stream.IntStream;

/** A 4-bit code book: the 16 values that a weight, divided by its block's largest, may take. */
public enum QuantType {
  /** "Normal float": quantiles of the normal distribution (QLoRA, arXiv 2305.14314). */
  NF4(
      -1.0f,
      -0.6961928f,
      -0.52507305f,
      -0.3949175f,
      -0.28444138f,
      -0.18477343f,
      -0.091050036f,
      0.0f,
      0.0795803f,
      0.1609302f,
      0.2461123f,
      0.33791524f,
      0.44070983f,
      0.562617f,
      0.72295684f,
      1.0f),

  /** Sign, two bits of exponent, one of mantissa, scaled to 1; zero stands there twice. */
  FP4(
      0.0f,
      0.0052083335f,
      0.6666667f,
      1.0f,
      0.33333334f,
      0.5f,
      0.16666667f,
      0.25f,
      0.0f,
      -0.0052083335f,
      -0.6666667f,
      -1.0f,
      -0.33333334f,
      -0.5f,
      -0.16666667f,
      -0.25f);

  // Private arrays that nothing changes.
  @SuppressWarnings("ImmutableEnumChecker")
  private final float[] codes;

  @SuppressWarnings("ImmutableEnumChecker")
  private final float[] thresholds = new float[15];

  @SuppressWarnings("ImmutableEnumChecker")
  private final byte[] codeAtPosition = new byte[16];

  QuantType(float... codes) {
    this.codes = codes;
    // A stable sort: of FP4's two zeros code 0 comes first, so that the threshold between them, 0,
    // sends small negative values to code 0 and small positive ones to code 8.
    int[] order =
        IntStream.range(0, codes.length)
            .boxed()
            .sorted(Comparator.comparingDouble(i -> codes[i]))
            .mapToInt(i -> i)
            .toArray();
    for (int i = 0; i < 16; i++) {
      codeAtPosition[i] = (byte) order[i];
    }
    for (int i = 0; i < 15; i++) {
      thresholds[i] = (codes[order[i]] + codes[order[i + 1]]) / 2;
    }
  }

  /** The 16 values by code, a copy. */
  public float[] codes() {
    return codes.clone();
  }

  /** The 16 values themselves, not to be changed. */
  float[] shared() {
    return codes;
  }

  /** Whether {@code other} has exactly these bits. */
  boolean matches(float[] other) {
    return Arrays.equals(codes, other);
  }

  /** The name in checkpoints: {@code nf4} or {@code fp4}. */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The code of the value nearest to {@code v}: as many places up the sorted values as there are
   * thresholds strictly below {@code v}, so that a tie goes down. Values beyond ±1 get the ends.
   */
  int code(float v) {
    float[] t = thresholds;
    int i = v > t[7] ? 8 : 0;
    i += v > t[i + 3] ? 4 : 0;
    i += v > t[i + 1] ? 2 : 0;
    i += v > t[i] ? 1 : 0;
    return codeAtPosition[i];
  }
}
