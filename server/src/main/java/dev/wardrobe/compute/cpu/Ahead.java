package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Memory that is read soon, as ranges. Generated code that computes meanwhile asks for it, so that
 * it is in a cache by then. A hint: nothing is lost where nobody takes it.
 */
final class Ahead {
  // A range: where it begins, where it ends, the next range; the last one goes on to itself.
  static final int BEGIN = 0;
  static final int END = 8;
  static final int NEXT = 16;
  private static final int RANGE = 24;

  private static final int FIRST = 64;

  private final Arena arena = Arena.ofAuto();
  private MemorySegment ranges = arena.allocate((long) FIRST * RANGE, Long.BYTES);
  private int count;

  /** Forgets what was to be read. */
  void clear() {
    count = 0;
  }

  /** Adds memory that will be read. */
  void add(MemorySegment data, long from, long bytes) {
    if (bytes <= 0) {
      return;
    }
    // There is always room for one more, the last.
    if ((count + 2L) * RANGE > ranges.byteSize()) {
      MemorySegment more = arena.allocate(2 * ranges.byteSize(), Long.BYTES);
      more.asSlice(0, ranges.byteSize()).copyFrom(ranges);
      ranges = more;
    }
    put(count++, data.address() + from, bytes);
  }

  private void put(int range, long begin, long bytes) {
    long at = (long) range * RANGE;
    ranges.set(JAVA_LONG, at + BEGIN, begin);
    ranges.set(JAVA_LONG, at + END, begin + bytes);
  }

  /**
   * The ranges.
   *
   * @param rest what to ask for when they are all done
   */
  MemorySegment ranges(MemorySegment rest) {
    put(count, rest.address(), 0);
    for (int range = 0; range <= count; range++) {
      long next = ranges.address() + (long) Math.min(range + 1, count) * RANGE;
      ranges.set(JAVA_LONG, (long) range * RANGE + NEXT, next);
    }
    return ranges;
  }
}
