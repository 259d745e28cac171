package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R11;
import static dev.wardrobe.compute.cpu.Assembler.Register.R8;
import static dev.wardrobe.compute.cpu.Assembler.Register.R9;
import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RCX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RSI;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.compute.cpu.Assembler.Register;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Training's operations on single elements and rows in machine code that is written at start, for
 * processors with AVX-512. Bits are those of the plain code in {@link CpuGradients}.
 */
final class Avx512Rows {
  // A function gets the address of its arguments, each of 64 bits at a place below, and arrays.
  private static final int AT = 0;
  private static final int WEIGHT_AT = 8;
  private static final int TIMES = 16;
  private static final int TABLES = 24;
  private static final int LANES_AT = 32;
  private static final int LIVE = 40;
  private static final int REST = 48;
  private static final int FACTOR = 56;
  private static final int BACK = 60;
  private static final int ROW = 64;
  private static final int BOUND = 68;
  private static final int ROWS = 72;
  private static final int ARGUMENTS = 80;

  private static final int VECTOR = 64;
  private static final int LANES = VECTOR / Float.BYTES;

  /** Elements that masks are drawn for at once. */
  private static final int DRAWN = 2 * LANES;

  /** Elements of a call: the garbage collector waits for it. */
  private static final int CALL = 1 << 16;

  // Where the tables are.
  private static final int EXP = 0;
  private static final int SIGN = VECTOR - Float.BYTES;
  private static final int COUNTERS = VECTOR;
  private static final int PAIRS = 2 * VECTOR;
  private static final int LOW = 3 * VECTOR;
  private static final int HIGH = 4 * VECTOR;
  private static final int MULTIPLIERS = 5 * VECTOR;
  private static final int KEYS = 6 * VECTOR;
  private static final int TABLE_BYTES = 8 * VECTOR;

  private final MemorySegment activate;
  private final MemorySegment activateBack;
  private final MemorySegment normDots;
  private final MemorySegment normBack;
  private final MemorySegment drop;
  private final MemorySegment dropBack;

  private Avx512Rows(List<MemorySegment> functions) {
    activate = functions.get(0);
    activateBack = functions.get(1);
    normDots = functions.get(2);
    normBack = functions.get(3);
    drop = functions.get(4);
    dropBack = functions.get(5);
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Rows load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<MemorySegment> functions =
        NativeCode.load(
            List.of(
                activateFunction(),
                activateBackFunction(),
                normDotsFunction(),
                normBackFunction(),
                dropFunction(false),
                dropFunction(true)));
    return functions == null ? null : new Avx512Rows(functions);
  }

  // ---- writing the functions

  /** A part of a function for 16 elements, which mask 1 says are there. */
  private interface Body {
    void write();
  }

  /** The body for whole vectors, then once more for the rest; the arrays go on by a vector each. */
  private static void vectors(Assembler a, List<Register> arrays, Body body) {
    a.loadMask(1, RDI, LIVE);
    a.load(R10, RDI, TIMES);
    a.add(R10, 0);
    int none = a.jumpIfZero();
    int again = a.label();
    body.write();
    for (Register array : arrays) {
      a.add(array, VECTOR);
    }
    a.add(R10, -1);
    a.jumpIfNotZero(again);
    a.land(none);
    a.load(R10, RDI, REST);
    a.add(R10, 0);
    int whole = a.jumpIfZero();
    a.loadMask(1, RDI, REST);
    body.write();
    a.land(whole);
    a.end();
  }

  private static void begin(Assembler a, int at, Register... arrays) {
    a.load(RAX, RDI, at);
    for (Register array : arrays) {
      a.add(array, RAX);
    }
  }

  private static byte[] activateFunction() {
    Assembler a = new Assembler();
    begin(a, AT, RSI, RDX, RCX);
    a.load(RAX, RDI, TABLES);
    Avx512Exp.load(a, RAX);
    a.broadcast(19, RAX, SIGN);
    vectors(
        a,
        List.of(RSI, RDX, RCX),
        () -> {
          a.load(1, 0, RSI, 0);
          a.xor(1, 0, 19);
          Avx512Exp.exp(a, 1, 2);
          a.add(1, Avx512Exp.ONE, 1);
          a.divide(1, 0, 1);
          a.load(1, 2, RDX, 0);
          a.multiply(1, 1, 2);
          a.store(1, 1, RCX, 0);
        });
    return a.code();
  }

  /** Arrays: gate, up, gradient, and those that are written. */
  private static byte[] activateBackFunction() {
    Assembler a = new Assembler();
    begin(a, AT, RSI, RDX, RCX, R8, R9);
    a.load(RAX, RDI, TABLES);
    Avx512Exp.load(a, RAX);
    a.broadcast(19, RAX, SIGN);
    vectors(
        a,
        List.of(RSI, RDX, RCX, R8, R9),
        () -> {
          a.load(1, 0, RSI, 0);
          a.xor(1, 0, 19);
          Avx512Exp.exp(a, 1, 2);
          a.add(1, Avx512Exp.ONE, 1);
          a.divide(1, Avx512Exp.ONE, 1);
          a.multiply(2, 0, 1);
          a.subtract(3, 0, 2);
          a.add(3, Avx512Exp.ONE, 3);
          a.multiply(3, 1, 3);
          a.load(1, 4, RCX, 0);
          a.load(1, 5, RDX, 0);
          a.multiply(5, 4, 5);
          a.multiply(5, 5, 3);
          a.multiply(2, 4, 2);
          a.store(1, 5, R8, 0);
          a.store(1, 2, R9, 0);
        });
    return a.code();
  }

  /** Arrays: x, weight, gradient. Lanes of x·x, then of (weight ⊙ gradient)·x. */
  private static byte[] normDotsFunction() {
    Assembler a = new Assembler();
    begin(a, AT, RSI, RCX);
    a.load(RAX, RDI, LANES_AT);
    a.zero(8);
    a.zero(9);
    List<Register> arrays = List.of(RSI, RDX, RCX);
    a.load(R10, RDI, TIMES);
    a.add(R10, 0);
    int none = a.jumpIfZero();
    int again = a.label();
    normDots(a, 0);
    for (Register array : arrays) {
      a.add(array, VECTOR);
    }
    a.add(R10, -1);
    a.jumpIfNotZero(again);
    a.land(none);
    a.load(R10, RDI, REST);
    a.add(R10, 0);
    int whole = a.jumpIfZero();
    a.loadMask(1, RDI, REST);
    normDots(a, 1);
    a.land(whole);
    a.store(8, RAX, 0);
    a.store(9, RAX, VECTOR);
    a.end();
    return a.code();
  }

  private static void normDots(Assembler a, int mask) {
    for (int i = 0; i < 3; i++) {
      Register from = List.of(RSI, RDX, RCX).get(i);
      if (mask == 0) {
        a.load(i, from, 0);
      } else {
        a.zero(i);
        a.load(mask, i, from, 0);
      }
    }
    a.fma(8, 0, 0);
    a.multiply(1, 1, 2);
    a.fma(9, 1, 0);
  }

  /** Arrays: x, weight, gradient, and what is added to. */
  private static byte[] normBackFunction() {
    Assembler a = new Assembler();
    begin(a, AT, RSI, RCX, R8);
    a.broadcast(10, RDI, FACTOR);
    a.broadcast(11, RDI, BACK);
    vectors(
        a,
        List.of(RSI, RDX, RCX, R8),
        () -> {
          a.load(1, 0, RSI, 0);
          a.load(1, 1, RDX, 0);
          a.load(1, 2, RCX, 0);
          a.load(1, 3, R8, 0);
          a.multiply(1, 1, 2);
          a.multiply(0, 0, 11);
          a.fma(0, 1, 10);
          a.add(3, 3, 0);
          a.store(1, 3, R8, 0);
        });
    return a.code();
  }

  /**
   * Arrays: x, y. Random numbers have a lane of 64 bits for each counter, of which the lower half
   * counts; each gives those of four neighbours.
   */
  private static byte[] dropFunction(boolean adds) {
    Assembler a = new Assembler();
    begin(a, AT, RSI, RDX);
    a.load(RAX, RDI, TABLES);
    a.broadcast(31, RAX, MULTIPLIERS);
    a.broadcast(30, RAX, MULTIPLIERS + Integer.BYTES);
    a.broadcast(28, RAX, MULTIPLIERS + 2 * Integer.BYTES);
    a.broadcast(19, RAX, MULTIPLIERS + 3 * Integer.BYTES);
    a.broadcast(27, RDI, BOUND);
    a.broadcast(26, RDI, FACTOR);
    a.zero(25);
    a.load(24, RAX, PAIRS);
    a.load(23, RAX, LOW);
    a.load(22, RAX, HIGH);
    a.broadcast(20, RDI, ROW);
    a.load(R10, RDI, ROWS);
    int row = a.label();
    a.load(21, RAX, COUNTERS);
    a.load(R11, RDI, TIMES);
    a.add(R11, 0);
    int none = a.jumpIfZero();
    a.loadMask(2, RDI, LIVE);
    a.loadMask(3, RDI, LIVE);
    int block = a.label();
    draw(a);
    drop(a, adds);
    a.add(RSI, 2 * VECTOR);
    a.add(RDX, 2 * VECTOR);
    a.addInts(21, 21, 28);
    a.add(R11, -1);
    a.jumpIfNotZero(block);
    a.land(none);
    a.load(R11, RDI, REST);
    a.add(R11, 0);
    int whole = a.jumpIfZero();
    a.loadMask(2, RDI, REST);
    a.loadMask(3, RDI, REST + Short.BYTES);
    draw(a);
    drop(a, adds);
    a.load(R11, RDI, WEIGHT_AT);
    a.add(RSI, R11);
    a.add(RDX, R11);
    a.land(whole);
    a.addInts(20, 20, 19);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    a.end();
    return a.code();
  }

  /** {@link Philox} of the row and eight counters; 32 words in 10 and 11. */
  private static void draw(Assembler a) {
    a.move(0, 20);
    a.move(1, 21);
    a.zero(2);
    a.zero(3);
    for (int round = 0; round < Philox.ROUNDS; round++) {
      a.multiplyWide(4, 0, 31);
      a.multiplyWide(5, 2, 30);
      a.shiftRightWide(6, 5, 32);
      a.xor(6, 6, 1);
      a.broadcast(7, RAX, KEYS + 2 * round * Integer.BYTES);
      a.xor(0, 6, 7);
      a.shiftRightWide(6, 4, 32);
      a.xor(6, 6, 3);
      a.broadcast(7, RAX, KEYS + (2 * round + 1) * Integer.BYTES);
      a.xor(2, 6, 7);
      a.move(1, 5);
      a.move(3, 4);
    }
    a.move(8, 24);
    a.permute2(8, 0, 1);
    a.move(9, 24);
    a.permute2(9, 2, 3);
    a.move(10, 23);
    a.permute2(10, 8, 9);
    a.move(11, 22);
    a.permute2(11, 8, 9);
  }

  private static void drop(Assembler a, boolean adds) {
    for (int i = 0; i < 2; i++) {
      a.load(2 + i, 12, RSI, i * VECTOR);
      a.multiply(12, 12, 26);
      a.below(1, 10 + i, 27);
      a.blend(12, 1, 12, 25);
      if (adds) {
        a.load(2 + i, 13, RDX, i * VECTOR);
        a.add(12, 13, 12);
      }
      a.store(2 + i, 12, RDX, i * VECTOR);
    }
  }

  // ---- calling them

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment tables = arena.allocate(TABLE_BYTES, VECTOR);
    private final MemorySegment lanes = arena.allocate(2L * VECTOR, VECTOR);
    private final float[] sums = new float[2 * LANES];

    Frame() {
      Avx512Exp.constants(tables, EXP);
      tables.set(JAVA_FLOAT, SIGN, -0f);
      for (int i = 0; i < LANES; i++) {
        // The second of two vectors begins with number 16.
        int pair = i % 4 < 2 ? i / 4 * 2 + i % 4 : LANES + i / 4 * 2 + i % 4 - 2;
        tables.set(JAVA_INT, COUNTERS + 4L * i, i / 2 * 4);
        tables.set(JAVA_INT, PAIRS + 4L * i, i % 2 == 0 ? i : LANES + i - 1);
        tables.set(JAVA_INT, LOW + 4L * i, pair);
        tables.set(JAVA_INT, HIGH + 4L * i, pair + LANES / 2);
      }
      tables.set(JAVA_INT, MULTIPLIERS, (int) Philox.MULTIPLIER_0);
      tables.set(JAVA_INT, MULTIPLIERS + 4L, (int) Philox.MULTIPLIER_1);
      tables.set(JAVA_INT, MULTIPLIERS + 8L, DRAWN);
      tables.set(JAVA_INT, MULTIPLIERS + 12L, 1);
      set(TABLES, tables.address());
      set(LANES_AT, lanes.address());
      set(LIVE, -1);
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    /** So many elements, from an index on. */
    private void elements(int from, int count) {
      set(AT, (long) from * Float.BYTES);
      set(TIMES, count / LANES);
      set(REST, (1L << count % LANES) - 1);
    }
  }

  /** As {@link dev.wardrobe.compute.Gradients#activate}, of elements. */
  void activate(float[] gate, float[] up, float[] out, int from, int to, Scratch scratch) {
    Frame frame = scratch.rowsFrame();
    for (int i = from; i < to; i += CALL) {
      frame.elements(i, Math.min(CALL, to - i));
      NativeCode.call(activate, frame.arguments.address(), gate, up, out);
    }
  }

  /** As {@link dev.wardrobe.compute.Gradients#activateInput}, of elements. */
  void activateInput(
      float[] gate,
      float[] up,
      float[] dOut,
      float[] dGate,
      float[] dUp,
      int from,
      int to,
      Scratch scratch) {
    Frame frame = scratch.rowsFrame();
    for (int i = from; i < to; i += CALL) {
      frame.elements(i, Math.min(CALL, to - i));
      NativeCode.call(activateBack, frame.arguments.address(), gate, up, dOut, dGate, dUp);
    }
  }

  /** As {@link dev.wardrobe.compute.Gradients#normInput}, of one vector. */
  void normInput(
      float[] x,
      int at,
      float[] weight,
      int width,
      float epsilon,
      float[] dy,
      float[] dx,
      Scratch scratch) {
    Frame frame = scratch.rowsFrame();
    frame.elements(at, width);
    NativeCode.call(normDots, frame.arguments.address(), x, weight, dy);
    MemorySegment.copy(frame.lanes, JAVA_FLOAT, 0, frame.sums, 0, 2 * LANES);
    float mean = Elementary.tree(frame.sums, 0) / width;
    float dot = Elementary.tree(frame.sums, LANES) / width;
    float inverse = (float) (1 / Math.sqrt((double) (mean + epsilon)));
    frame.arguments.set(JAVA_FLOAT, FACTOR, inverse);
    frame.arguments.set(JAVA_FLOAT, BACK, -(dot * inverse * inverse * inverse));
    NativeCode.call(normBack, frame.arguments.address(), x, weight, dy, dx, dx);
  }

  /**
   * As {@link dev.wardrobe.compute.Gradients#dropout}, or its input gradient, of some rows.
   *
   * @param bound random numbers below it drop an element
   */
  void drop(
      float[] x,
      int width,
      int from,
      int to,
      int bound,
      float kept,
      long key,
      float[] y,
      boolean adds,
      Scratch scratch) {
    Frame frame = scratch.rowsFrame();
    for (int round = 0; round < Philox.ROUNDS; round++) {
      frame.tables.set(JAVA_INT, KEYS + 8L * round, (int) key + round * Philox.WEYL_0);
      frame.tables.set(JAVA_INT, KEYS + 8L * round + 4, (int) (key >>> 32) + round * Philox.WEYL_1);
    }
    frame.set(TIMES, width / DRAWN);
    frame.set(REST, (1L << width % DRAWN) - 1);
    frame.set(WEIGHT_AT, (long) (width % DRAWN) * Float.BYTES);
    frame.arguments.set(JAVA_FLOAT, FACTOR, kept);
    frame.arguments.set(JAVA_INT, BOUND, bound);
    int most = Math.max(1, CALL / width);
    for (int row = from; row < to; row += most) {
      frame.set(AT, (long) row * width * Float.BYTES);
      frame.arguments.set(JAVA_INT, ROW, row);
      frame.set(ROWS, Math.min(most, to - row));
      NativeCode.call(
          adds ? dropBack : drop,
          frame.arguments.address(),
          MemorySegment.ofArray(x),
          MemorySegment.ofArray(y));
    }
  }
}
