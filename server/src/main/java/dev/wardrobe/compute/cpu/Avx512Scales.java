package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RCX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RSI;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Scales of 8 bits, decoded by machine code that is written at start, for processors with AVX-512.
 * Bits are those of {@link NibblePanels#scales}.
 */
final class Avx512Scales {
  // A function gets the address of its arguments, each of 64 bits at a place below.
  private static final int CODES = 0;
  private static final int OUT = 8;
  private static final int BLOCKS = 16;
  private static final int MAP = 24;
  private static final int OUTER = 32;
  private static final int BITS = 40;
  private static final int OFFSET = 48;
  private static final int ARGUMENTS = 56;

  private static final int VECTOR = 64;

  /** A block's scales, decoded. */
  private static final int BYTES = Panels.HEIGHT * Float.BYTES;

  private final MemorySegment function;

  /**
   * @param function {@link #code}, executable
   */
  Avx512Scales(MemorySegment function) {
    this.function = function;
  }

  /** Decodes scales of 8 bits: {@code map[code] · outer[row] + offset}, two roundings. */
  static byte[] code() {
    Assembler a = new Assembler();
    a.load(RAX, RDI, MAP);
    for (int i = 0; i < 16; i++) {
      a.load(i, RAX, i * VECTOR);
    }
    a.load(RAX, RDI, BITS);
    for (int i = 0; i < 3; i++) {
      a.broadcast(16 + i, RAX, i * Integer.BYTES);
    }
    a.load(RAX, RDI, OUTER);
    a.load(19, RAX, 0);
    a.load(20, RAX, VECTOR);
    a.broadcast(21, RDI, OFFSET);
    a.load(RSI, RDI, CODES);
    a.load(RDX, RDI, OUT);
    a.load(RCX, RDI, BLOCKS);
    int block = a.label();
    for (int half = 0; half < 2; half++) {
      a.loadBytes(22, RSI, 16 * half);
      for (int i = 0; i < 3; i++) {
        a.test(1 + i, 22, 16 + i);
      }
      // Of 256 values eight pairs of vectors hold 32 each; the code's upper three bits choose one.
      for (int i = 0; i < 8; i++) {
        a.move(23 + i, 22);
        a.permute2(23 + i, 2 * i, 2 * i + 1);
      }
      for (int i = 0; i < 3; i++) {
        int step = 1 << i;
        for (int j = 0; j < 8; j += 2 * step) {
          a.blend(23 + j, 1 + i, 23 + j, 23 + j + step);
        }
      }
      a.multiply(23, 23, 19 + half);
      a.add(23, 23, 21);
      a.store(23, RDX, half * VECTOR);
    }
    a.add(RSI, Panels.HEIGHT);
    a.add(RDX, BYTES);
    a.add(RCX, -1);
    a.jumpIfNotZero(block);
    a.end();
    return a.code();
  }

  /** What one thread gives to the function. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment outer = arena.allocate(BYTES, VECTOR);
    private final MemorySegment map = arena.allocate(256 * Float.BYTES, VECTOR);
    private final MemorySegment bits = arena.allocateFrom(JAVA_INT, 32, 64, 128);

    Frame() {
      set(MAP, map.address());
      set(OUTER, outer.address());
      set(BITS, bits.address());
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    /** Takes up a matrix whose scales have 8 bits. */
    void begin(NibblePanels w) {
      MemorySegment.copy(w.map(), 0, map, JAVA_FLOAT, 0, w.map().length);
      arguments.set(JAVA_FLOAT, OFFSET, w.offset());
    }
  }

  /** Writes the scales of a panel of the matrix that was taken up to an address. */
  void decode(NibblePanels w, int panel, long to, Frame frame, Scratch scratch) {
    decode(w, panel, 0, w.blocksPerRow(), to, frame, scratch);
  }

  /** The same of some of a panel's blocks, for each 32 scales. */
  void decode(
      NibblePanels w,
      int panel,
      int fromBlock,
      int toBlock,
      long to,
      Frame frame,
      Scratch scratch) {
    int[] turns = scratch.turns(w.maxTurns());
    int count = w.turns(panel, scratch.outer, turns);
    MemorySegment.copy(scratch.outer, 0, frame.outer, JAVA_FLOAT, 0, Panels.HEIGHT);
    long codes = NativeCode.address(w.absmax()) + (long) panel * w.scaleCount();
    int block = fromBlock;
    for (int turn = 0; block < toBlock; turn++) {
      int end = turn == count ? toBlock : Math.min(toBlock, turns[turn] / Panels.HEIGHT);
      if (end > block) {
        frame.set(CODES, codes + (long) block * Panels.HEIGHT);
        frame.set(OUT, to + (long) (block - fromBlock) * BYTES);
        frame.set(BLOCKS, end - block);
        NativeCode.call(function, frame.arguments.address());
        block = end;
      }
      if (turn < count) {
        w.turn(panel, turns[turn], scratch.outer);
        int row = turns[turn] % Panels.HEIGHT;
        frame.outer.setAtIndex(JAVA_FLOAT, row, scratch.outer[row]);
      }
    }
  }
}
