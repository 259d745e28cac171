package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A thread's rows of adapters' first factors, each with a token, in tables that generated code
 * reads.
 */
final class Shrinks {
  // Rows of one A: where they begin and end, the entry whose rows are fetched after them, groups of
  // rows, turns of the loop over a row, where the token begins in x and its result in t, in bytes.
  static final int DATA = 0;
  static final int END = 8;
  static final int NEXT = 16;
  static final int GROUPS = 24;
  static final int TURNS = 32;
  static final int INPUTS = 40;
  static final int OUTPUTS = 48;
  static final int SIZE = 56;

  /** Tables, by type. */
  static final int KINDS = 2;

  private static final int FIRST = 64;

  private final Arena arena = Arena.ofAuto();
  private final @Nullable MemorySegment[] tables = new MemorySegment[KINDS];
  private final int[] counts = new int[KINDS];

  static boolean bfloat16(int kind) {
    return kind == 0;
  }

  /** Rows of a factor, from the first on, that can be added; the others are left to others. */
  static int rows(Factor a) {
    boolean takes = a.dtype() != DType.F16 && a.inLines() == a.length();
    return takes ? a.rank() / Factor.GROUP * Factor.GROUP : 0;
  }

  void clear() {
    for (int kind = 0; kind < KINDS; kind++) {
      counts[kind] = 0;
    }
  }

  /**
   * Adds rows that {@link #rows} names.
   *
   * @param token its row in x
   * @param at where t of the token begins
   */
  void add(Factor a, int jFrom, int jTo, int token, int at) {
    int kind = a.dtype() == DType.BF16 ? 0 : 1;
    int count = counts[kind]++;
    MemorySegment table = tables[kind];
    if (table == null || table.byteSize() < (count + 1L) * SIZE) {
      table = grow(table, count);
      tables[kind] = table;
    }
    long place = (long) count * SIZE;
    link(table, Math.max(0, count - 1), count);
    link(table, count, count);
    long row = (long) a.length() * a.dtype().bytes();
    long data = NativeCode.address(a.data());
    table.set(JAVA_LONG, place + DATA, data + jFrom * row);
    table.set(JAVA_LONG, place + END, data + jTo * row);
    table.set(JAVA_LONG, place + GROUPS, (jTo - jFrom) / Factor.GROUP);
    table.set(JAVA_LONG, place + TURNS, a.length() / a.perLine());
    table.set(JAVA_LONG, place + INPUTS, (long) token * a.length() * Float.BYTES);
    table.set(JAVA_LONG, place + OUTPUTS, (at + jFrom) * (long) Float.BYTES);
  }

  private MemorySegment grow(@Nullable MemorySegment table, int count) {
    MemorySegment more = arena.allocate(2L * Math.max(FIRST, count) * SIZE, Long.BYTES);
    if (table != null) {
      more.asSlice(0, table.byteSize()).copyFrom(table);
    }
    for (int entry = 1; entry < count; entry++) {
      link(more, entry - 1, entry);
    }
    return more;
  }

  /** Says which rows are fetched after those of an entry; after the last ones, these again. */
  private static void link(MemorySegment table, int entry, int next) {
    table.set(JAVA_LONG, (long) entry * SIZE + NEXT, table.address() + (long) next * SIZE);
  }

  int count(int kind) {
    return counts[kind];
  }

  long table(int kind) {
    MemorySegment table = tables[kind];
    if (table == null) {
      throw new IllegalStateException("an empty table");
    }
    return table.address();
  }
}
