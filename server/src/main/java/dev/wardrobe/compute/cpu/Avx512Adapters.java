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
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Low-rank products token by token in machine code that is written at start, for processors with
 * AVX-512; the same bits as {@link ScalarKernels}. Factors in bfloat16 and float32.
 *
 * <p>With one token for each of many adapters, reading them is all the time there is, so what
 * counts is that memory never waits. Further tokens find an adapter's rows in a near cache.
 */
final class Avx512Adapters {
  private static final int LINE = 64;

  /** Lanes as four rows' sums are added up: see {@link #trees}. */
  private static final int[][] TREE = {
    {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
    {8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31},
    {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27},
    {4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31},
    {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13},
    {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14},
    {0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12}
  };

  /*
   * A function gets the address of its arguments, each at a place below, and those of two arrays on
   * the heap: x and t to shrink, t and y to expand.
   */
  private static final int COUNT = 0;
  private static final int TABLE = 8;
  private static final int OUT = 16;
  private static final int PANELS = 24;
  private static final int GROUPS = 32;
  private static final int AHEAD = 40;
  private static final int AHEAD_END = 48;
  private static final int UPPER = 56;
  private static final int FIRST_FOUR = 60;
  private static final int INDICES = 64;
  private static final int ARGUMENTS = INDICES + TREE.length * LINE;

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

  /** The rows' sums, added up on the way to their tree's root. */
  private static final int LEAVES = 8;

  private static final int OTHERS = 12;

  /** The first of the vectors with {@link #TREE}. */
  private static final int TREES = 16;

  private static final int FOUR = 1;

  // Two rows' lanes 0 to 7, and 8 to 15; of two such pairs lanes 0 to 3, and 4 to 7, of each row;
  // then lane by lane the one that is two away, and one away; and each row's first.
  private static final int HALVES = 0;
  private static final int QUARTERS = 2;
  private static final int TWO_AWAY = 4;
  private static final int ONE_AWAY = 5;
  private static final int ROOTS = 6;

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

  /** For each of a table's entries groups of four rows of A times a token. */
  private static byte[] shrinkFunction(DType dtype) {
    Assembler a = new Assembler();
    a.push(RBX);
    a.load(RBX, RDI, TABLE);
    a.broadcast(UPPER_HALVES, RDI, UPPER);
    a.loadMask(FOUR, RDI, FIRST_FOUR);
    for (int i = 0; i < TREE.length; i++) {
      a.load(TREES + i, RDI, INDICES + i * LINE);
    }
    a.store(RBX, RDI, AHEAD);
    a.load(RCX, RBX, Shrinks.DATA);
    a.load(RAX, RBX, Shrinks.END);
    a.store(RAX, RDI, AHEAD_END);
    a.move(R11, A_AHEAD / (GROUP * LINE));
    int ahead = a.label();
    fetch(a);
    a.add(R11, -1);
    a.jumpIfNotZero(ahead);
    int entry = a.label();
    a.load(R8, RBX, Shrinks.DATA);
    a.load(R9, RBX, Shrinks.OUTPUTS);
    a.add(R9, RDX);
    a.load(RAX, RBX, Shrinks.GROUPS);
    a.store(RAX, RDI, GROUPS);
    int group = a.label();
    for (int row = 0; row < GROUP; row++) {
      a.zero(SUM + row);
    }
    a.load(R10, RBX, Shrinks.INPUTS);
    a.add(R10, RSI);
    a.load(R11, RBX, Shrinks.TURNS);
    int turn = a.label();
    fetch(a);
    a.load(LOW_INPUTS, R10, 0);
    if (dtype == DType.BF16) {
      a.load(HIGH_INPUTS, R10, LINE);
    }
    for (int row = 0; row < GROUP; row++) {
      if (dtype == DType.BF16) {
        a.load(HIGH, R8, row * LINE);
        a.shiftLeft(LOW, HIGH, 16);
        a.and(HIGH, HIGH, UPPER_HALVES);
        a.fma(SUM + row, LOW, LOW_INPUTS);
        a.fma(SUM + row, HIGH, HIGH_INPUTS);
      } else {
        a.fma(SUM + row, LOW_INPUTS, R8, row * LINE);
      }
    }
    a.add(R8, GROUP * LINE);
    a.add(R10, dtype == DType.BF16 ? 2 * LINE : LINE);
    a.add(R11, -1);
    a.jumpIfNotZero(turn);
    trees(a);
    a.store(FOUR, SUM, R9, 0);
    a.add(R9, GROUP * Float.BYTES);
    a.load(RAX, RDI, GROUPS);
    a.add(RAX, -1);
    a.store(RAX, RDI, GROUPS);
    a.jumpIfNotZero(group);
    a.add(RBX, Shrinks.SIZE);
    a.load(RAX, RDI, COUNT);
    a.add(RAX, -1);
    a.store(RAX, RDI, COUNT);
    a.jumpIfNotZero(entry);
    a.pop(RBX);
    a.end();
    return a.code();
  }

  /** Asks for a turn's lines of A, those at RCX, and goes on to the next ones. */
  private static void fetch(Assembler a) {
    for (int row = 0; row < GROUP; row++) {
      a.prefetch(RCX, row * LINE);
    }
    a.add(RCX, GROUP * LINE);
    a.load(RAX, RDI, AHEAD_END);
    a.compare(RCX, RAX);
    int within = a.jumpIfBelow();
    a.load(RAX, RDI, AHEAD);
    a.load(RAX, RAX, Shrinks.NEXT);
    a.store(RAX, RDI, AHEAD);
    a.load(RCX, RAX, Shrinks.DATA);
    a.load(RAX, RAX, Shrinks.END);
    a.store(RAX, RDI, AHEAD_END);
    a.land(within);
  }

  /** The four rows' sums of 16 lanes, as {@link Elementary#tree} adds them, in the first lanes. */
  private static void trees(Assembler a) {
    for (int pair = 0; pair < 2; pair++) {
      joined(a, LEAVES + pair, OTHERS, HALVES, SUM + 2 * pair, SUM + 2 * pair + 1);
    }
    joined(a, SUM, OTHERS, QUARTERS, LEAVES, LEAVES + 1);
    a.permute(OTHERS, TREES + TWO_AWAY, SUM);
    a.add(SUM, SUM, OTHERS);
    a.permute(OTHERS, TREES + ONE_AWAY, SUM);
    a.add(SUM, SUM, OTHERS);
    a.permute(SUM, TREES + ROOTS, SUM);
  }

  /** {@code to = (x, y)[one order] + (x, y)[the order after it]}. */
  private static void joined(Assembler a, int to, int spare, int order, int x, int y) {
    a.move(to, TREES + order);
    a.permute2(to, x, y);
    a.move(spare, TREES + order + 1);
    a.permute2(spare, x, y);
    a.add(to, to, spare);
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

  /** What one thread gives to the functions. */
  static final class Frame {
    private final MemorySegment arguments = Arena.ofAuto().allocate(ARGUMENTS, LINE);

    Frame() {
      arguments.set(JAVA_INT, UPPER, 0xffff0000);
      arguments.set(JAVA_INT, FIRST_FOUR, 0xf);
      for (int i = 0; i < TREE.length; i++) {
        MemorySegment.copy(TREE[i], 0, arguments, JAVA_INT, INDICES + i * LINE, Factor.LANES);
      }
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }
  }

  /** As {@link Kernels#shrinkAll}. */
  void shrinkAll(Shrinks shrinks, MemorySegment x, MemorySegment t, Scratch scratch) {
    Frame frame = scratch.adapterFrame();
    for (int kind = 0; kind < Shrinks.KINDS; kind++) {
      int count = shrinks.count(kind);
      if (count > 0) {
        frame.set(TABLE, shrinks.table(kind));
        frame.set(COUNT, count);
        Products products = Shrinks.bfloat16(kind) ? bfloat16 : float32;
        NativeCode.call(products.shrink, frame.arguments.address(), x, t);
      }
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
