package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R11;
import static dev.wardrobe.compute.cpu.Assembler.Register.R8;
import static dev.wardrobe.compute.cpu.Assembler.Register.R9;
import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RSI;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Tiles of 4-bit weights by machine code that is written at start, for processors with AVX-512.
 * Bits are those of {@link ScalarTiles}; it needs no time of the compiler's.
 */
final class Avx512Tiles {
  // A function gets the address of its arguments, each of 64 bits at a place below.
  private static final int WEIGHTS = 0;
  private static final int SCALES = 8;
  private static final int OUT = 16;
  private static final int STRIDE = 24;
  private static final int UNITS = 32;
  private static final int GROUPS = 40;
  private static final int LEFT_OF_BLOCK = 48;
  private static final int UNITS_OF_BLOCK = 56;
  private static final int CODEBOOK = 64;
  private static final int ORDER = 72;
  private static final int HALF = 80;
  private static final int NAN = 84;
  private static final int ARGUMENTS = 88;

  private static final int VECTOR = 64;
  private static final int ROWS = Panels.HEIGHT * Float.BYTES;

  /** How far ahead weights are asked for. */
  private static final int AHEAD = 2048;

  private static final int LOOK_UP = 31;
  private static final int UPPER = 30;
  private static final int HALF_UNIT = 29;
  private static final int NOT_A_NUMBER = 28;

  /** And the next, for a panel's upper rows. */
  private static final int SCALE = 26;

  private static final int WORDS = 24;

  private final Avx512Scales scales;
  private final MemorySegment pairs;
  private final MemorySegment columns;

  private Avx512Tiles(List<MemorySegment> functions) {
    scales = new Avx512Scales(functions.get(0));
    pairs = functions.get(1);
    columns = functions.get(2);
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Tiles load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<MemorySegment> functions =
        NativeCode.load(List.of(Avx512Scales.code(), function(true), function(false)));
    return functions == null ? null : new Avx512Tiles(functions);
  }

  /** Whether there is code for so many inputs of these weights, from the first of a unit on. */
  static boolean takes(Panels w, int count) {
    return w instanceof NibblePanels
        && Avx512Projections.takes(w)
        && (count % Panels.UNIT == 0 || (count < Panels.UNIT && count % NibblePanels.GROUP == 0));
  }

  private static byte[] function(boolean pairs) {
    Assembler a = new Assembler();
    a.load(RAX, RDI, CODEBOOK);
    a.load(LOOK_UP, RAX, 0);
    a.load(RAX, RDI, ORDER);
    a.load(UPPER, RAX, 0);
    a.broadcast(HALF_UNIT, RDI, HALF);
    a.broadcast(NOT_A_NUMBER, RDI, NAN);
    a.load(RSI, RDI, WEIGHTS);
    a.load(RDX, RDI, SCALES);
    a.load(R8, RDI, OUT);
    a.load(R9, RDI, STRIDE);
    a.load(R10, RDI, UNITS);
    a.load(R11, RDI, LEFT_OF_BLOCK);
    int unit = a.label();
    for (int half = 0; half < 2; half++) {
      // Of the many NaN some would overflow when rounded.
      a.load(SCALE + half, RDX, half * VECTOR);
      a.unordered(1, SCALE + half, SCALE + half);
      a.blend(SCALE + half, 1, SCALE + half, NOT_A_NUMBER);
    }
    a.load(RAX, RDI, GROUPS);
    int group = a.label();
    for (int half = 0; half < 2; half++) {
      a.prefetch(RSI, AHEAD + half * VECTOR);
      a.load(WORDS + half, RSI, half * VECTOR);
    }
    for (int i = 0; i < NibblePanels.GROUP; i += pairs ? 2 : 1) {
      if (pairs) {
        for (int half = 0; half < 2; half++) {
          weight(a, 2 * half, half, i);
          weight(a, 2 * half + 1, half, i + 1);
          a.permuteWords2(2 * half, UPPER, 2 * half + 1);
          a.store(2 * half, R8, half * VECTOR);
        }
      } else {
        weight(a, 0, 0, i);
        weight(a, 1, 1, i);
        a.permuteWords2(0, UPPER, 1);
        a.store(0, R8, 0);
      }
      a.add(R8, R9);
    }
    a.add(RSI, ROWS);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
    a.add(R11, -1);
    int next = a.jumpIfZero();
    a.add(R10, -1);
    a.jumpIfNotZero(unit);
    a.end();
    a.land(next);
    a.add(RDX, ROWS);
    a.load(R11, RDI, UNITS_OF_BLOCK);
    a.add(R10, -1);
    a.jumpIfNotZero(unit);
    a.end();
    return a.code();
  }

  /** The weights of input {@code i}, to be cut to their upper halves. */
  private static void weight(Assembler a, int to, int half, int i) {
    // A permute takes the lowest four bits of an index alone.
    if (i > 0) {
      a.shiftRight(to, WORDS + half, 4 * i);
    }
    a.permute(to, i > 0 ? to : WORDS + half, LOOK_UP);
    a.multiply(to, to, SCALE + half);
    a.addInts(to, to, HALF_UNIT);
  }

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment codebook = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment pairs = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment rows = arena.allocate(VECTOR, VECTOR);
    private final Avx512Scales.Frame decoding = new Avx512Scales.Frame();
    private MemorySegment scales = arena.allocate(64 * ROWS, VECTOR);

    Frame() {
      for (int i = 0; i < Panels.HEIGHT; i++) {
        // Upper halves of two vectors' lanes; the second one begins with number 32.
        pairs.setAtIndex(JAVA_SHORT, i, (short) (i / 2 * 2 + 1 + i % 2 * 32));
        rows.setAtIndex(JAVA_SHORT, i, (short) (2 * i + 1));
      }
      set(CODEBOOK, codebook.address());
      arguments.set(JAVA_INT, HALF, 0x8000);
      arguments.set(JAVA_INT, NAN, 0x7fc00000);
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void scales(int count) {
      if (scales.byteSize() < (long) count * Float.BYTES) {
        scales = arena.allocate((long) count * Float.BYTES, VECTOR);
      }
    }
  }

  /** As {@link Tiles#pairs}, of what it {@link #takes}, in memory outside the heap. */
  void pairs(
      NibblePanels w, int panel, int k, int count, MemorySegment tile, long at, Scratch scratch) {
    Frame frame = scratch.tilesFrame();
    frame.set(ORDER, frame.pairs.address());
    frame.set(STRIDE, 4L * OneDnn.TILE_ROWS);
    run(pairs, w, panel, k, count, tile.address() + at, frame, scratch);
  }

  /**
   * As {@link Tiles#columns}, of what it {@link #takes} and a panel all of whose rows there are.
   */
  void columns(
      NibblePanels w,
      int panel,
      int k,
      int count,
      MemorySegment tile,
      long at,
      long stride,
      Scratch scratch) {
    Frame frame = scratch.tilesFrame();
    frame.set(ORDER, frame.rows.address());
    frame.set(STRIDE, stride);
    run(columns, w, panel, k, count, tile.address() + at, frame, scratch);
  }

  private void run(
      MemorySegment function,
      NibblePanels w,
      int panel,
      int k,
      int count,
      long out,
      Frame frame,
      Scratch scratch) {
    if (count == 0) {
      return;
    }
    MemorySegment.copy(w.codebook(), 0, frame.codebook, JAVA_FLOAT, 0, w.codebook().length);
    int units = w.blockSize() / Panels.UNIT;
    int unit = k / Panels.UNIT;
    frame.set(WEIGHTS, NativeCode.address(w.packed()) + 4 * w.word(panel, k / NibblePanels.GROUP));
    frame.set(OUT, out);
    int unitCount = Math.max(1, count / Panels.UNIT);
    frame.set(UNITS, unitCount);
    frame.set(GROUPS, Math.min(count, Panels.UNIT) / NibblePanels.GROUP);
    frame.set(UNITS_OF_BLOCK, units);
    frame.set(LEFT_OF_BLOCK, units - unit % units);
    int first = unit / units;
    if (w.doubleQuant()) {
      int end = (unit + unitCount - 1) / units + 1;
      frame.scales((end - first) * Panels.HEIGHT);
      frame.decoding.begin(w);
      scales.decode(w, panel, first, end, frame.scales.address(), frame.decoding, scratch);
      frame.set(SCALES, frame.scales.address());
    } else {
      long at = (long) panel * w.scaleCount() + (long) first * Panels.HEIGHT;
      frame.set(SCALES, NativeCode.address(w.absmax()) + at * Float.BYTES);
    }
    NativeCode.call(function, frame.arguments.address());
  }
}
