package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;

import dev.wardrobe.compute.cpu.Assembler.Register;
import java.lang.foreign.MemorySegment;

/** {@link Elementary#exp} as a part of generated functions, 16 lanes at a time. */
final class Avx512Exp {
  /** Registers of constants, from this one to the last. */
  static final int FIRST = 20;

  private static final int LOWEST = 20;
  private static final int HIGHEST = 21;
  private static final int LOG2_E = 22;
  private static final int ROUND = 23;
  private static final int LN2_HIGH = 24;
  private static final int LN2_LOW = 25;

  /** And the next four. */
  private static final int P4 = 26;

  static final int ONE = 31;

  private static final float[] CONSTANTS = {
    Elementary.LOWEST,
    Elementary.HIGHEST,
    Elementary.LOG2_E,
    Elementary.ROUND,
    -Elementary.LN2_HIGH,
    -Elementary.LN2_LOW,
    Elementary.P4,
    Elementary.P3,
    Elementary.P2,
    Elementary.P1,
    Elementary.P0,
    1
  };

  /** Bytes of the constants. */
  static final int BYTES = CONSTANTS.length * Float.BYTES;

  private Avx512Exp() {}

  /** Writes the constants for {@link #load}. */
  static void constants(MemorySegment to, long at) {
    MemorySegment.copy(CONSTANTS, 0, to, JAVA_FLOAT, at, CONSTANTS.length);
  }

  /** Loads the constants from where they were written. */
  static void load(Assembler a, Register base) {
    for (int i = 0; i < CONSTANTS.length; i++) {
      a.broadcast(FIRST + i, base, i * Float.BYTES);
    }
  }

  /**
   * {@code x = exp(x)}.
   *
   * @param free the first of three registers to work in
   */
  static void exp(Assembler a, int x, int free) {
    int n = free;
    int p = free + 1;
    int square = free + 2;
    // The second operand is the result where there is a NaN.
    a.max(x, LOWEST, x);
    a.min(x, HIGHEST, x);
    a.move(n, ROUND);
    a.fma(n, x, LOG2_E);
    a.subtract(n, n, ROUND);
    a.fma(x, n, LN2_HIGH);
    a.fma(x, n, LN2_LOW);
    a.move(p, P4);
    for (int i = 1; i <= 4; i++) {
      a.fmaOf(p, x, P4 + i);
    }
    a.multiply(square, x, x);
    a.fmaOf(p, square, x);
    a.add(p, p, ONE);
    // One rounding, as of two multiplications of which the first is exact.
    a.scale(x, p, n);
  }
}
