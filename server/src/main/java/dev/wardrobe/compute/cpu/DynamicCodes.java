package dev.wardrobe.compute.cpu;

import dev.wardrobe.quant.DynamicMap;

/**
 * A {@link DynamicMap} for many numbers at once: the same codes, from one look into a table each
 * instead of a search.
 */
final class DynamicCodes {
  /*
   * Numbers whose upper 16 bits are the same (sign, exponent, seven bits of mantissa) lie so close
   * together that their nearest values are one, or two neighbours: a part of the map's finest
   * decade is wider. So a table over those bits has the lower code, and the largest number that
   * still has it. Both are found by asking the map.
   */

  static final DynamicCodes SIGNED = new DynamicCodes(DynamicMap.SIGNED);
  static final DynamicCodes UNSIGNED = new DynamicCodes(DynamicMap.UNSIGNED);

  /** Upper bits of 2⁻²⁴, below which all is nearest to 0. */
  private static final int FIRST = 0x3380;

  /** Upper bits of 1. */
  private static final int LAST = 0x3f80;

  private static final int SIZE = LAST - FIRST + 1;

  private final float[] values;

  /** By upper bits, first of numbers above 0, then of those below: the lower code. */
  private final byte[] lower = new byte[2 * SIZE];

  /** The largest number that has the lower code; infinity where all of the range have it. */
  private final float[] last = new float[2 * SIZE];

  private DynamicCodes(DynamicMap map) {
    values = map.values();
    for (int i = 0; i < 2 * SIZE; i++) {
      int upper = i % SIZE + FIRST;
      boolean negative = i >= SIZE;
      // The first range reaches down to 0; the last is 1 alone.
      int near = upper == FIRST ? 0 : upper << 16;
      int far = upper == LAST ? near : (upper << 16) | 0xffff;
      float least = negative ? -Float.intBitsToFloat(far) : Float.intBitsToFloat(near);
      float most = negative ? -Float.intBitsToFloat(near) : Float.intBitsToFloat(far);
      int code = map.nearest(least);
      int above = map.nearest(most);
      if (above > code + 1) {
        throw new AssertionError("more than two codes from " + least + " to " + most);
      }
      lower[i] = (byte) code;
      last[i] = above == code ? Float.POSITIVE_INFINITY : last(map, code, least, most);
    }
  }

  /** The largest number from {@code least} on that has a code, of which {@code most} has none. */
  private static float last(DynamicMap map, int code, float least, float most) {
    float with = least;
    float without = most;
    while (Math.nextUp(with) < without) {
      float middle = with + (without - with) / 2;
      middle = middle <= with || middle >= without ? Math.nextUp(with) : middle;
      if (map.nearest(middle) == code) {
        with = middle;
      } else {
        without = middle;
      }
    }
    return with;
  }

  /** The codes of numbers in [-1, 1]; of others and NaN, some code. */
  void encode(float[] numbers, int n, byte[] codes) {
    for (int i = 0; i < n; i++) {
      float number = numbers[i];
      int bits = Float.floatToRawIntBits(number);
      int upper = Math.clamp((bits >>> 16) & 0x7fff, FIRST, LAST) - FIRST;
      int at = upper + (bits >>> 31) * SIZE;
      codes[i] = (byte) (lower[at] + (number > last[at] ? 1 : 0));
    }
  }

  /** {@code values[i] = map[codes[i]] · largest}. */
  void decode(byte[] codes, int n, float largest, float[] to) {
    for (int i = 0; i < n; i++) {
      to[i] = values[codes[i] & 0xff] * largest;
    }
  }
}
