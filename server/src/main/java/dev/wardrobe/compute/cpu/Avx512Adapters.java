package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R11;
import static dev.wardrobe.compute.cpu.Assembler.Register.R8;
import static dev.wardrobe.compute.cpu.Assembler.Register.R9;
import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RBX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RCX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RSI;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Low-rank products for one token in machine code that is written at start, for processors with
 * AVX-512; the same bits as {@link ScalarKernels}. Factors in bfloat16 and float32.
 *
 * <p>With one token for each of many adapters, reading them is all the time there is, so what
 * counts is that memory never waits.
 */
final class Avx512Adapters {
  /*
   * A function gets the address of its arguments, each of 64 bits at a place below, and those that
   * expand get the addresses of two arrays on the heap, t and y.
   */
  private static final int DATA = 0;
  private static final int COUNT = 8;
  private static final int TURNS = 16;
  private static final int REST = 24;
  private static final int LANES = 32;
  private static final int INPUTS = 40;
  private static final int UPPER = 48;
  private static final int TABLE = 56;
  private static final int OUT = 64;
  private static final int PANELS = 72;
  private static final int ARGUMENTS = 80;

  private static final int LINE = 64;
  private static final int GROUP = Factor.GROUP;

  /** How far ahead A is asked for: it comes from the last-level cache or from memory. */
  private static final int A_AHEAD = 4096;

  /** How far ahead B is asked for: with many adapters there is little of each. */
  private static final int B_AHEAD = 1024;

  private static final int UPPER_HALVES = 31;
  private static final int SCALES = 30;
  private static final int LOW_INPUTS = 29;
  private static final int HIGH_INPUTS = 28;
  private static final int LOW = 27;
  private static final int HIGH = 26;
  private static final int SUM = 0;

  /** The functions for one type. */
  private record Products(
      MemorySegment shrink, MemorySegment expand, MemorySegment expandUnrolled) {
    static List<byte[]> write(DType dtype) {
      return List.of(
          shrinkFunction(dtype),
          expandFunction(dtype, 1),
          expandFunction(dtype, Expansions.UNROLLED));
    }

    /** Takes them in the order in which they were written. */
    static Products of(Iterator<MemorySegment> functions) {
      return new Products(functions.next(), functions.next(), functions.next());
    }
  }

  private final Products bfloat16;
  private final Products float32;

  private Avx512Adapters(Products bfloat16, Products float32) {
    this.bfloat16 = bfloat16;
    this.float32 = float32;
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Adapters load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<MemorySegment> code = NativeCode.load(Products.write(DType.BF16));
    List<MemorySegment> wide = NativeCode.load(Products.write(DType.F32));
    return code == null || wide == null
        ? null
        : new Avx512Adapters(Products.of(code.iterator()), Products.of(wide.iterator()));
  }

  // ---- writing the functions

  /** Groups of four rows of A times a token: leaves the 16 lanes of each row's sum. */
  private static byte[] shrinkFunction(DType dtype) {
    Assembler a = new Assembler();
    a.load(RDX, RDI, DATA);
    a.load(RCX, RDI, LANES);
    a.load(R8, RDI, INPUTS);
    a.load(R9, RDI, COUNT);
    a.broadcast(UPPER_HALVES, RDI, UPPER);
    int group = a.label();
    for (int row = 0; row < GROUP; row++) {
      a.zero(SUM + row);
    }
    a.move(R10, R8);
    a.load(R11, RDI, TURNS);
    int turn = a.label();
    for (int row = 0; row < GROUP; row++) {
      a.prefetch(RDX, A_AHEAD + row * LINE);
    }
    a.load(LOW_INPUTS, R10, 0);
    if (dtype == DType.BF16) {
      a.load(HIGH_INPUTS, R10, LINE);
    }
    for (int row = 0; row < GROUP; row++) {
      if (dtype == DType.BF16) {
        a.load(HIGH, RDX, row * LINE);
        a.shiftLeft(LOW, HIGH, 16);
        a.and(HIGH, HIGH, UPPER_HALVES);
        a.fma(SUM + row, LOW, LOW_INPUTS);
        a.fma(SUM + row, HIGH, HIGH_INPUTS);
      } else {
        a.fma(SUM + row, LOW_INPUTS, RDX, row * LINE);
      }
    }
    a.add(RDX, GROUP * LINE);
    a.add(R10, dtype == DType.BF16 ? 2 * LINE : LINE);
    a.add(R11, -1);
    a.jumpIfNotZero(turn);
    for (int row = 0; row < GROUP; row++) {
      a.store(SUM + row, RCX, row * LINE);
    }
    a.add(RCX, GROUP * LINE);
    a.load(RAX, RDI, REST);
    a.add(RDX, RAX);
    a.add(R9, -1);
    a.jumpIfNotZero(group);
    a.end();
    return a.code();
  }

  /**
   * For each of a table's expansions panels of B times a token's shrunk input, scaled, added to its
   * outputs.
   */
  private static byte[] expandFunction(DType dtype, int unrolled) {
    Assembler a = new Assembler();
    a.push(RBX);
    a.load(RBX, RDI, TABLE);
    a.broadcast(UPPER_HALVES, RDI, UPPER);
    a.load(R8, RDI, OUT);
    for (int i = 0; i < Float.BYTES; i++) {
      a.add(RDX, R8);
    }
    int expansion = a.label();
    a.load(R8, RDI, OUT);
    a.multiply(R8, RBX, Expansions.ROW);
    a.load(RAX, RBX, Expansions.DATA);
    a.add(R8, RAX);
    a.load(R9, RBX, Expansions.OUTPUTS);
    a.add(R9, RDX);
    a.load(R11, RBX, Expansions.INPUTS);
    a.add(R11, RSI);
    a.broadcast(SCALES, RBX, Expansions.SCALE);
    a.load(R10, RDI, PANELS);
    int panel = a.label();
    a.zero(SUM);
    a.move(RCX, R11);
    a.load(RAX, RBX, Expansions.TURNS);
    int turn = a.label();
    for (int i = 0; i < unrolled; i++) {
      a.prefetch(R8, B_AHEAD + i * LINE);
    }
    for (int i = 0; i < unrolled; i++) {
      if (dtype == DType.BF16) {
        a.load(HIGH, R8, i * LINE);
        a.shiftLeft(LOW, HIGH, 16);
        a.and(HIGH, HIGH, UPPER_HALVES);
        a.broadcast(LOW_INPUTS, RCX, 2 * i * Float.BYTES);
        a.broadcast(HIGH_INPUTS, RCX, (2 * i + 1) * Float.BYTES);
        a.fma(SUM, LOW, LOW_INPUTS);
        a.fma(SUM, HIGH, HIGH_INPUTS);
      } else {
        a.broadcast(LOW_INPUTS, RCX, i * Float.BYTES);
        a.fma(SUM, LOW_INPUTS, R8, i * LINE);
      }
    }
    a.add(R8, unrolled * LINE);
    a.add(RCX, (dtype == DType.BF16 ? 2 : 1) * unrolled * Float.BYTES);
    a.add(RAX, -1);
    a.jumpIfNotZero(turn);
    a.load(LOW, R9, 0);
    a.fma(LOW, SUM, SCALES);
    a.store(LOW, R9, 0);
    a.add(R9, LINE);
    a.add(R10, -1);
    a.jumpIfNotZero(panel);
    a.add(RBX, Expansions.SIZE);
    a.load(RAX, RDI, COUNT);
    a.add(RAX, -1);
    a.store(RAX, RDI, COUNT);
    a.jumpIfNotZero(expansion);
    a.pop(RBX);
    a.end();
    return a.code();
  }

  // ---- calling them

  /** What one thread gives to the functions and gets from them. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, LINE);
    private MemorySegment lanes = MemorySegment.NULL;
    private float[] trees = new float[0];
    private MemorySegment inputs = MemorySegment.NULL;
    private long inputsOf;
    private int inputsAt;

    Frame() {
      arguments.set(JAVA_INT, UPPER, 0xffff0000);
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void inputs(float[] x, int at, int count, long call) {
      if (call != 0 && call == inputsOf && at == inputsAt) {
        return;
      }
      // Known again only when they are all there.
      inputsOf = 0;
      if (inputs.byteSize() < (long) count * Float.BYTES) {
        inputs = arena.allocate((long) count * Float.BYTES, LINE);
      }
      MemorySegment.copy(x, at, inputs, JAVA_FLOAT, 0, count);
      inputsOf = call;
      inputsAt = at;
    }

    private void lanes(int rows) {
      if (trees.length < rows * Factor.LANES) {
        lanes = arena.allocate((long) rows * LINE, LINE);
        trees = new float[rows * Factor.LANES];
      }
    }
  }

  private Products products(Factor factor) {
    return factor.dtype() == DType.BF16 ? bfloat16 : float32;
  }

  /** Rows of A, from the first on, that {@link #shrink} takes; the others are left to others. */
  static int shrinks(Factor a, int tokens) {
    return tokens == 1 && a.dtype() != DType.F16 && a.inLines() > 0 ? a.rank() / GROUP * GROUP : 0;
  }

  /** As {@link Kernels#shrink} for one token, rows that {@link #shrinks} names. */
  void shrink(
      Factor a, int jFrom, int jTo, float[] x, int token, float[] t, int at, Scratch scratch) {
    Frame frame = scratch.adapterFrame();
    int rows = jTo - jFrom;
    int size = a.dtype().bytes();
    int row = token * a.length();
    frame.lanes(rows);
    frame.set(DATA, NativeCode.address(a.data()) + size * a.line(jFrom, 0));
    frame.set(COUNT, rows / GROUP);
    frame.set(TURNS, a.inLines() / a.perLine());
    frame.set(REST, (long) GROUP * (a.length() - a.inLines()) * size);
    frame.set(LANES, frame.lanes.address());
    frame.inputs(x, row, a.length(), scratch.inputs);
    frame.set(INPUTS, frame.inputs.address());
    NativeCode.call(products(a).shrink, frame.arguments.address());
    float[] lanes = frame.trees;
    MemorySegment.copy(frame.lanes, JAVA_FLOAT, 0, lanes, 0, rows * Factor.LANES);
    for (int j = 0; j < rows; j++) {
      for (int k = a.inLines(); k < a.length(); k++) {
        int lane = j * Factor.LANES + k % Factor.LANES;
        lanes[lane] = Math.fma(a.get(jFrom + j, k), x[row + k], lanes[lane]);
      }
      t[at + jFrom + j] = Elementary.tree(lanes, j * Factor.LANES);
    }
  }

  /** As {@link Kernels#expandAll} for whole panels. */
  void expandAll(
      Expansions expansions,
      MemorySegment t,
      int outFrom,
      int outTo,
      MemorySegment y,
      Scratch scratch) {
    Frame frame = scratch.adapterFrame();
    frame.set(OUT, outFrom);
    frame.set(PANELS, (outTo - outFrom) / Factor.LANES);
    for (int kind = 0; kind < Expansions.KINDS; kind++) {
      int count = expansions.count(kind);
      if (count > 0) {
        Products products = Expansions.bfloat16(kind) ? bfloat16 : float32;
        frame.set(TABLE, expansions.table(kind));
        frame.set(COUNT, count);
        NativeCode.call(
            Expansions.unrolled(kind) ? products.expandUnrolled : products.expand,
            frame.arguments.address(),
            t,
            y);
      }
    }
  }
}
