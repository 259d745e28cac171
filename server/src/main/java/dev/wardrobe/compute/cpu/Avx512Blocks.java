package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R8;
import static dev.wardrobe.compute.cpu.Assembler.Register.R9;
import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RCX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Products of small blocks in machine code that is written at start, for processors with AVX-512:
 * {@code sums += inputs · tile}, of which larger products are made.
 *
 * <p>A tile is {@code (depth, width)}, a depth of at most {@link #DEPTH}; inputs are {@code (rows,
 * DEPTH)}, whatever the depth; sums {@code (rows, width)}. Each sum is one chain of fma over the
 * tile's depth ascending, which begins with what the sum was. So a product of any depth is one
 * chain, block after block.
 *
 * <p>Or of pairs: inputs and weights in bfloat16, the tile {@code (depth/2, width, 2)}.
 */
final class Avx512Blocks {
  private static final int TILE = 0;
  private static final int INPUTS = 8;
  private static final int SUMS = 16;
  private static final int MORE = 24;
  private static final int FEWER = 32;
  private static final int EIGHTS = 40;
  private static final int ONES = 48;
  private static final int ARGUMENTS = 56;

  /** Inputs of a tile, at most. */
  static final int DEPTH = 64;

  private static final int VECTOR = 64;
  private static final int LANES = VECTOR / Float.BYTES;
  private static final int EIGHT = 8;

  /** Vectors of sums that registers hold. */
  private static final int MOST_SUMS = 24;

  private static final int INPUT = 31;
  private static final int WEIGHTS = 24;

  /** Tiles as wide as 1, 2 and 4 vectors. */
  private static final int WIDTHS = 3;

  // By width; then by most rows at once less one.
  private final MemorySegment[][] floats = new MemorySegment[WIDTHS][];
  private final MemorySegment[] pairs;

  private Avx512Blocks(Iterator<MemorySegment> functions) {
    for (int i = 0; i < WIDTHS; i++) {
      floats[i] = take(functions, mostRows(1 << i));
    }
    pairs = take(functions, mostRows(4));
  }

  private static MemorySegment[] take(Iterator<MemorySegment> functions, int count) {
    MemorySegment[] taken = new MemorySegment[count];
    for (int i = 0; i < count; i++) {
      taken[i] = functions.next();
    }
    return taken;
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Blocks load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<byte[]> code = new ArrayList<>();
    for (int i = 0; i < WIDTHS; i++) {
      for (int most = 1; most <= mostRows(1 << i); most++) {
        code.add(function(1 << i, most, false));
      }
    }
    for (int most = 1; most <= mostRows(4); most++) {
      code.add(function(4, most, true));
    }
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new Avx512Blocks(functions.iterator());
  }

  private static int mostRows(int vectors) {
    return MOST_SUMS / vectors;
  }

  // ---- writing the functions

  private static byte[] function(int vectors, int most, boolean pairs) {
    Assembler a = new Assembler();
    a.load(RDX, RDI, INPUTS);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, MORE);
    rows(a, vectors, most, pairs);
    if (most > 1) {
      a.load(R10, RDI, FEWER);
      a.add(R10, 0);
      int none = a.jumpIfZero();
      rows(a, vectors, most - 1, pairs);
      a.land(none);
    }
    a.end();
    return a.code();
  }

  /** The tile times rows, as often as r10 says. */
  private static void rows(Assembler a, int vectors, int rows, boolean pairs) {
    int stride = DEPTH * (pairs ? Short.BYTES : Float.BYTES);
    int again = a.label();
    a.load(R9, RDI, TILE);
    a.move(R8, RDX);
    for (int i = 0; i < rows * vectors; i++) {
      a.load(i, RCX, i * VECTOR);
    }
    for (int unrolled : new int[] {EIGHT, 1}) {
      a.load(RAX, RDI, unrolled == 1 ? ONES : EIGHTS);
      a.add(RAX, 0);
      int none = a.jumpIfZero();
      int step = a.label();
      for (int i = 0; i < unrolled; i++) {
        for (int v = 0; v < vectors; v++) {
          a.load(WEIGHTS + v, R9, (i * vectors + v) * VECTOR);
        }
        for (int row = 0; row < rows; row++) {
          a.broadcast(INPUT, R8, row * stride + i * Float.BYTES);
          for (int v = 0; v < vectors; v++) {
            if (pairs) {
              a.dot(row * vectors + v, WEIGHTS + v, INPUT);
            } else {
              a.fma(row * vectors + v, WEIGHTS + v, INPUT);
            }
          }
        }
      }
      a.add(R9, unrolled * vectors * VECTOR);
      a.add(R8, unrolled * Float.BYTES);
      a.add(RAX, -1);
      a.jumpIfNotZero(step);
      a.land(none);
    }
    for (int i = 0; i < rows * vectors; i++) {
      a.store(i, RCX, i * VECTOR);
    }
    a.add(RCX, rows * vectors * VECTOR);
    a.add(RDX, rows * stride);
    a.add(R10, -1);
    a.jumpIfNotZero(again);
  }

  // ---- calling them

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }
  }

  /**
   * {@code sums += inputs · tile}.
   *
   * @param tile address of {@code (depth, width)} floats
   * @param width 16, 32 or 64
   * @param depth 1 to {@link #DEPTH}
   * @param inputs address of {@code (rows, DEPTH)} floats
   * @param rows at least 1
   * @param sums address of {@code (rows, width)} floats
   */
  void multiply(long tile, int width, int depth, long inputs, int rows, long sums, Frame frame) {
    int size = Integer.numberOfTrailingZeros(width / LANES);
    run(floats[size], tile, depth, inputs, rows, sums, frame);
  }

  /**
   * The same of pairs in bfloat16, with a width of 64.
   *
   * @param tile address of {@code (pairs, 64, 2)} numbers
   * @param pairs 1 to half of {@link #DEPTH}
   * @param inputs address of {@code (rows, DEPTH)} numbers
   */
  void multiplyPairs(long tile, int pairs, long inputs, int rows, long sums, Frame frame) {
    run(this.pairs, tile, pairs, inputs, rows, sums, frame);
  }

  private static void run(
      MemorySegment[] functions,
      long tile,
      int steps,
      long inputs,
      int rows,
      long sums,
      Frame frame) {
    // As many rows at a time as registers hold, and nearly as many each time.
    int times = (rows + functions.length - 1) / functions.length;
    int most = (rows + times - 1) / times;
    int fewer = most * times - rows;
    frame.set(TILE, tile);
    frame.set(INPUTS, inputs);
    frame.set(SUMS, sums);
    frame.set(MORE, times - fewer);
    frame.set(FEWER, fewer);
    frame.set(EIGHTS, steps / EIGHT);
    frame.set(ONES, steps % EIGHT);
    NativeCode.call(functions[most - 1], frame.arguments.address());
  }
}
