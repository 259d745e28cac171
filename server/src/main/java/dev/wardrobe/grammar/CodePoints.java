package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntPredicate;

/** A set of characters: Unicode's code points, without surrogates. */
final class CodePoints {
  static final CodePoints ALL = ranges(0, 0xd7ff, 0xe000, Character.MAX_CODE_POINT);

  /** First and last of each range, ascending; neighbours do not touch. */
  private final int[] ranges;

  private CodePoints(int[] ranges) {
    this.ranges = ranges;
  }

  /** The union of ranges in any order; each has a first and a last code point. */
  static CodePoints ranges(int... ends) {
    long[] sorted = new long[ends.length / 2];
    for (int i = 0; i < sorted.length; i++) {
      sorted[i] = (long) ends[2 * i] << 32 | ends[2 * i + 1];
    }
    Arrays.sort(sorted);
    int[] merged = new int[ends.length + 2];
    int count = 0;
    for (long range : sorted) {
      int low = (int) (range >>> 32);
      int high = (int) range;
      if (count > 0 && low <= merged[count - 1] + 1) {
        merged[count - 1] = Math.max(merged[count - 1], high);
      } else {
        merged[count++] = low;
        merged[count++] = high;
      }
    }
    CodePoints all = new CodePoints(Arrays.copyOf(merged, count));
    return all.and(new int[] {0, 0xd7ff, 0xe000, Character.MAX_CODE_POINT});
  }

  static CodePoints one(int codePoint) {
    return ranges(codePoint, codePoint);
  }

  static CodePoints where(IntPredicate condition) {
    List<int[]> found = new ArrayList<>();
    int start = -1;
    for (int c = 0; c <= Character.MAX_CODE_POINT + 1; c++) {
      boolean holds = c <= Character.MAX_CODE_POINT && condition.test(c);
      if (holds && start < 0) {
        start = c;
      } else if (!holds && start >= 0) {
        found.add(new int[] {start, c - 1});
        start = -1;
      }
    }
    return ranges(found.stream().flatMapToInt(Arrays::stream).toArray());
  }

  CodePoints or(CodePoints other) {
    int[] both = Arrays.copyOf(ranges, ranges.length + other.ranges.length);
    System.arraycopy(other.ranges, 0, both, ranges.length, other.ranges.length);
    return ranges(both);
  }

  CodePoints and(CodePoints other) {
    return and(other.ranges);
  }

  private CodePoints and(int[] other) {
    int[] common = new int[ranges.length + other.length + 2];
    int count = 0;
    for (int i = 0, j = 0; i < ranges.length && j < other.length; ) {
      int low = Math.max(ranges[i], other[j]);
      int high = Math.min(ranges[i + 1], other[j + 1]);
      if (low <= high) {
        common[count++] = low;
        common[count++] = high;
      }
      if (ranges[i + 1] < other[j + 1]) {
        i += 2;
      } else {
        j += 2;
      }
    }
    return new CodePoints(Arrays.copyOf(common, count));
  }

  /** All others. */
  CodePoints not() {
    int[] rest = new int[ranges.length + 2];
    int count = 0;
    int low = 0;
    for (int i = 0; i < ranges.length; i += 2) {
      if (low < ranges[i]) {
        rest[count++] = low;
        rest[count++] = ranges[i] - 1;
      }
      low = ranges[i + 1] + 1;
    }
    if (low <= Character.MAX_CODE_POINT) {
      rest[count++] = low;
      rest[count++] = Character.MAX_CODE_POINT;
    }
    return ranges(Arrays.copyOf(rest, count));
  }

  /** These, and what differs from one of them in case alone. */
  CodePoints inAnyCase() {
    int[] cases = new int[16];
    int count = 0;
    for (int i = 0; i < ranges.length; i += 2) {
      for (int c = ranges[i]; c <= ranges[i + 1]; c++) {
        int upper = Character.toUpperCase(c);
        int lower = Character.toLowerCase(c);
        if (upper != c || lower != c) {
          if (count + 4 > cases.length) {
            cases = Arrays.copyOf(cases, 2 * cases.length);
          }
          cases[count++] = upper;
          cases[count++] = upper;
          cases[count++] = lower;
          cases[count++] = lower;
        }
      }
    }
    return or(ranges(Arrays.copyOf(cases, count)));
  }

  boolean isEmpty() {
    return ranges.length == 0;
  }

  int count() {
    int count = 0;
    for (int i = 0; i < ranges.length; i += 2) {
      count += ranges[i + 1] - ranges[i] + 1;
    }
    return count;
  }

  boolean contains(int codePoint) {
    for (int i = 0; i < ranges.length; i += 2) {
      if (ranges[i] <= codePoint && codePoint <= ranges[i + 1]) {
        return true;
      }
    }
    return false;
  }

  /** Number of ranges. */
  int size() {
    return ranges.length / 2;
  }

  int low(int range) {
    return ranges[2 * range];
  }

  int high(int range) {
    return ranges[2 * range + 1];
  }

  /** One of them, in UTF-8. */
  Expr utf8() {
    List<Expr> options = new ArrayList<>();
    for (int i = 0; i < ranges.length; i += 2) {
      addUtf8(ranges[i], ranges[i + 1], options);
    }
    return Expr.choice(options);
  }

  private static final int[] LAST_OF_LENGTH = {0x7f, 0x7ff, 0xffff, Character.MAX_CODE_POINT};

  private static void addUtf8(int low, int high, List<Expr> options) {
    for (int last : LAST_OF_LENGTH) {
      if (low <= last && last < high) {
        addUtf8(low, last, options);
        addUtf8(last + 1, high, options);
        return;
      }
    }
    if (high <= 0x7f) {
      options.add(Expr.bytes(low, high));
      return;
    }
    // Cuts so that what follows a common first part is all of its range, or one part of it.
    for (int tail = 1; tail < 4; tail++) {
      int mask = (1 << (6 * tail)) - 1;
      if ((low & ~mask) != (high & ~mask)) {
        if ((low & mask) != 0) {
          addUtf8(low, low | mask, options);
          addUtf8((low | mask) + 1, high, options);
          return;
        }
        if ((high & mask) != mask) {
          addUtf8(low, (high & ~mask) - 1, options);
          addUtf8(high & ~mask, high, options);
          return;
        }
      }
    }
    byte[] from = Character.toString(low).getBytes(java.nio.charset.StandardCharsets.UTF_8);
    byte[] to = Character.toString(high).getBytes(java.nio.charset.StandardCharsets.UTF_8);
    List<Expr> parts = new ArrayList<>();
    for (int i = 0; i < from.length; i++) {
      parts.add(Expr.bytes(from[i] & 0xff, to[i] & 0xff));
    }
    options.add(new Expr.Sequence(parts));
  }
}
