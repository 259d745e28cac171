package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * The second factors of a projection's adapters that have a few tokens each, in tables that
 * generated code reads; made once, and used for each of the projection's blocks of outputs.
 */
final class Expansions {
  // An expansion: B, the bytes of B for an output, turns of the loop over a panel, where the token
  // begins in t and in y, in bytes, the scale.
  static final int DATA = 0;
  static final int ROW = 8;
  static final int TURNS = 16;
  static final int INPUTS = 24;
  static final int OUTPUTS = 32;
  static final int SCALE = 40;
  static final int SIZE = 48;

  /** Lines of B that are read in a turn, if the rank allows. */
  static final int UNROLLED = 4;

  /** Kinds of tables: by type, and by whether a turn reads {@link #UNROLLED} lines or one. */
  static final int KINDS = 4;

  static final int NONE = -1;

  /**
   * Most tokens of an adapter that read B one by one. It is in a near cache after the first; with
   * more, it is better unpacked once for several.
   */
  static final int MOST_TOKENS = 16;

  private static final int FIRST = 32;

  private final Arena arena = Arena.ofAuto();
  private final MemorySegment[] tables = new MemorySegment[KINDS];
  private final int[] counts = new int[KINDS];

  static boolean bfloat16(int kind) {
    return kind < 2;
  }

  static boolean unrolled(int kind) {
    return kind % 2 == 1;
  }

  /** The kind of a factor, or {@link #NONE} if it cannot be added. */
  static int kind(Factor b, int tokens, float @Nullable [] bias) {
    boolean takes =
        tokens <= MOST_TOKENS
            && bias == null
            && (b.dtype() == DType.F32 || (b.dtype() == DType.BF16 && b.rank() % 2 == 0));
    return takes ? kind(b) : NONE;
  }

  private static int kind(Factor b) {
    return (b.dtype() == DType.BF16 ? 0 : 2) + (lines(b) % UNROLLED == 0 ? 1 : 0);
  }

  /** Lines of a panel. */
  private static int lines(Factor b) {
    return b.rank() * Factor.LANES / b.perLine();
  }

  void clear() {
    for (int kind = 0; kind < KINDS; kind++) {
      counts[kind] = 0;
    }
  }

  /**
   * Adds one.
   *
   * @param at where the token's shrunk input begins in t
   * @param token its row in y
   */
  void add(Factor b, float scale, int at, int token) {
    int lines = lines(b);
    int kind = kind(b);
    int count = counts[kind]++;
    MemorySegment table = tables[kind];
    if (table == null || table.byteSize() < (count + 1L) * SIZE) {
      MemorySegment more = arena.allocate(2L * Math.max(FIRST, count) * SIZE, Long.BYTES);
      if (table != null) {
        more.asSlice(0, table.byteSize()).copyFrom(table);
      }
      table = more;
      tables[kind] = table;
    }
    long place = (long) count * SIZE;
    table.set(JAVA_LONG, place + DATA, NativeCode.address(b.data()));
    table.set(JAVA_LONG, place + ROW, (long) b.rank() * b.dtype().bytes());
    table.set(JAVA_LONG, place + TURNS, unrolled(kind) ? lines / UNROLLED : lines);
    table.set(JAVA_LONG, place + INPUTS, (long) at * Float.BYTES);
    table.set(JAVA_LONG, place + OUTPUTS, (long) token * b.length() * Float.BYTES);
    table.set(JAVA_FLOAT, place + SCALE, scale);
  }

  int count(int kind) {
    return counts[kind];
  }

  long table(int kind) {
    return tables[kind].address();
  }
}
