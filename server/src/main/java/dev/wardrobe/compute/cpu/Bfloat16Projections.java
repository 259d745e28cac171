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
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The fast mode's products of 16 tokens and more in machine code that is written at start, for
 * processors with AVX512-BF16: inputs and weights in bfloat16, sums in float32.
 *
 * <p>Of a 4-bit weight the code's value is rounded, not its product with the scale: a unit's sums
 * are scaled as in exact mode. So decoding 32 weights takes one permute and three quarters of a
 * shift, and 16 tokens share it at least. A row's bits depend on its input alone, not on the other
 * rows.
 *
 * <p>For the weights that {@link Avx512Projections#takes}.
 */
final class Bfloat16Projections {
  /*
   * The processor multiplies two pairs of neighbours at once. Which inputs make a pair is free, if
   * weights and inputs agree: of eight inputs it is the first and the fifth, the second and the
   * sixth, and so on. For then, of the eight nibbles of an int, the first of each half is a pair,
   * and a permute of 16-bit lanes turns the int to the values of both. (It takes five bits of an
   * index, so the 16 values are there twice.)
   *
   * A function gets the address of its arguments, each of 64 bits at a place below, and that of an
   * array. In all of them a panel's 32 rows are two vectors. Inputs lie as (units, tokens, 64), a
   * tile of weights as (pairs of a unit, 32 rows).
   */
  private static final int WEIGHTS = 0;
  private static final int SCALES = 8;
  private static final int INPUTS = 16;
  private static final int SUMS = 24;
  private static final int BLOCKS = 32;
  private static final int UNITS = 40;
  private static final int TABLE = 48;
  private static final int TILE = 56;
  private static final int MORE = 64;
  private static final int FEWER = 72;
  private static final int TOKENS = 80;
  private static final int ARRAY = 88;
  private static final int OFFSET = 96;
  private static final int STRIDE = 104;
  private static final int LIVE = 112;
  private static final int ARGUMENTS = 120;

  private static final int VECTOR = 64;
  private static final int ROWS = Panels.HEIGHT * Float.BYTES;
  private static final int UNIT = Panels.UNIT * Short.BYTES;
  private static final int GROUPS = Panels.UNIT / NibblePanels.GROUP;

  /** Pairs of a group of inputs. */
  private static final int PAIRS = NibblePanels.GROUP / 2;

  /** Tokens whose sums fit the registers. */
  private static final int MOST = 12;

  /** The least that are multiplied at once, when there are 16 and more. */
  private static final int LEAST = 8;

  /** Tokens for which weights are decoded once: their inputs stay in the second-level cache. */
  static final int CHUNK = 64;

  /** How far ahead weights are asked for. */
  private static final int AHEAD = 4096;

  private static final int LOOK_UP = 31;
  private static final int LOOK_UP_RIGHT = 30;
  private static final int INPUT = 29;
  private static final int LEFT = 28;
  private static final int RIGHT = 27;
  private static final int WORDS = 26;

  /** How weights are stored. */
  private enum Kind {
    NIBBLES,
    BFLOAT16
  }

  private final Avx512Scales scales;
  private final MemorySegment round;

  // By most tokens at once less the least.
  private final MemorySegment[] nibbles = new MemorySegment[MOST - LEAST + 1];
  private final MemorySegment[] bfloat16 = new MemorySegment[MOST - LEAST + 1];

  private Bfloat16Projections(Iterator<MemorySegment> functions) {
    scales = new Avx512Scales(functions.next());
    round = functions.next();
    Arrays.setAll(nibbles, _ -> functions.next());
    Arrays.setAll(bfloat16, _ -> functions.next());
  }

  /** Writes the functions; null where the system does not take them. */
  static @Nullable Bfloat16Projections load() {
    if (!NativeCode.supported()) {
      return null;
    }
    List<byte[]> code = new ArrayList<>();
    code.add(Avx512Scales.code());
    code.add(roundFunction());
    for (int most = LEAST; most <= MOST; most++) {
      code.add(productFunction(Kind.NIBBLES, most));
    }
    for (int most = LEAST; most <= MOST; most++) {
      code.add(productFunction(Kind.BFLOAT16, most));
    }
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new Bfloat16Projections(functions.iterator());
  }

  // ---- writing the functions

  /** Rounds tokens' inputs and turns them to {@code (units, tokens, 64)}, in pairs. */
  private static byte[] roundFunction() {
    Assembler a = new Assembler();
    a.load(RAX, RDI, TABLE);
    a.load(LOOK_UP, RAX, 0);
    a.load(RAX, RDI, OFFSET);
    a.add(RSI, RAX);
    a.load(RDX, RDI, INPUTS);
    a.load(R9, RDI, STRIDE);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    a.move(RCX, RDX);
    a.load(R11, RDI, UNITS);
    int unit = a.label();
    for (int half = 0; half < 2; half++) {
      for (int i = 0; i < 2; i++) {
        a.load(2 * half + i, RSI, (2 * half + i) * VECTOR);
      }
      a.round(4 + half, 2 * half, 2 * half + 1);
      a.permuteWords(4 + half, LOOK_UP, 4 + half);
      a.store(4 + half, RCX, half * VECTOR);
    }
    a.add(RSI, 4 * VECTOR);
    a.add(RCX, R9);
    a.add(R11, -1);
    a.jumpIfNotZero(unit);
    a.add(RDX, UNIT);
    a.add(R10, -1);
    a.jumpIfNotZero(token);
    a.end();
    return a.code();
  }

  /**
   * A panel times tokens: a unit's weights are decoded into a tile, which tokens use {@code most}
   * at a time, and then one fewer.
   */
  private static byte[] productFunction(Kind kind, int most) {
    Assembler a = new Assembler();
    a.store(RSI, RDI, ARRAY);
    a.load(RAX, RDI, TABLE);
    a.load(LOOK_UP, RAX, 0);
    a.load(LOOK_UP_RIGHT, RAX, VECTOR);
    a.load(RSI, RDI, WEIGHTS);
    a.load(RDX, RDI, SCALES);
    a.load(R8, RDI, INPUTS);
    a.zero(LEFT);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    a.store(LEFT, RCX, 0);
    a.store(LEFT, RCX, VECTOR);
    a.add(RCX, ROWS);
    a.add(R10, -1);
    a.jumpIfNotZero(token);
    int block = a.label();
    a.load(R11, RDI, UNITS);
    int unit = a.label();
    decode(a, kind);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, MORE);
    tokens(a, most);
    if (most > LEAST) {
      a.load(R10, RDI, FEWER);
      a.add(R10, 0);
      int none = a.jumpIfZero();
      tokens(a, most - 1);
      a.land(none);
    }
    a.add(R11, -1);
    a.jumpIfNotZero(unit);
    a.add(RDX, ROWS);
    a.load(RAX, RDI, BLOCKS);
    a.add(RAX, -1);
    a.store(RAX, RDI, BLOCKS);
    a.jumpIfNotZero(block);
    write(a);
    a.end();
    return a.code();
  }

  /** A unit's weights, in pairs. */
  private static void decode(Assembler a, Kind kind) {
    a.load(R9, RDI, TILE);
    a.move(RAX, GROUPS);
    int group = a.label();
    int bytes = groupBytes(kind);
    for (int line = 0; line < bytes; line += VECTOR) {
      a.prefetch(RSI, AHEAD + line);
    }
    switch (kind) {
      case NIBBLES -> {
        for (int half = 0; half < 2; half++) {
          a.load(WORDS, RSI, half * VECTOR);
          for (int i = 0; i < PAIRS; i++) {
            if (i > 0) {
              a.shiftRightWords(LEFT, WORDS, 4 * i);
            }
            a.permuteWords(LEFT, i > 0 ? LEFT : WORDS, LOOK_UP);
            a.store(LEFT, R9, i * ROWS + half * VECTOR);
          }
        }
      }
      case BFLOAT16 -> {
        for (int i = 0; i < PAIRS; i++) {
          a.load(LEFT, RSI, i * VECTOR);
          a.load(WORDS, RSI, (i + PAIRS) * VECTOR);
          a.move(RIGHT, LEFT);
          a.permuteWords2(LEFT, LOOK_UP, WORDS);
          a.permuteWords2(RIGHT, LOOK_UP_RIGHT, WORDS);
          a.store(LEFT, R9, i * ROWS);
          a.store(RIGHT, R9, i * ROWS + VECTOR);
        }
      }
    }
    a.add(RSI, bytes);
    a.add(R9, PAIRS * ROWS);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
  }

  private static int groupBytes(Kind kind) {
    return switch (kind) {
      case NIBBLES -> ROWS;
      case BFLOAT16 -> NibblePanels.GROUP * Panels.HEIGHT * Short.BYTES;
    };
  }

  /** The tile times tokens, as often as r10 says; their sums, scaled, are added to those at rcx. */
  private static void tokens(Assembler a, int tokens) {
    int again = a.label();
    a.load(R9, RDI, TILE);
    for (int i = 0; i < 2 * tokens; i++) {
      a.zero(i);
    }
    a.move(RAX, GROUPS);
    int group = a.label();
    for (int i = 0; i < PAIRS; i++) {
      a.load(LEFT, R9, i * ROWS);
      a.load(RIGHT, R9, i * ROWS + VECTOR);
      for (int token = 0; token < tokens; token++) {
        a.broadcast(INPUT, R8, token * UNIT + i * 2 * Short.BYTES);
        a.dot(2 * token, LEFT, INPUT);
        a.dot(2 * token + 1, RIGHT, INPUT);
      }
    }
    a.add(R9, PAIRS * ROWS);
    a.add(R8, PAIRS * 2 * Short.BYTES);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
    a.add(R8, (tokens - 1) * UNIT);
    for (int i = 0; i < 2 * tokens; i++) {
      a.load(LEFT, RCX, i * VECTOR);
      a.fma(LEFT, i, RDX, i % 2 * VECTOR);
      a.store(LEFT, RCX, i * VECTOR);
    }
    a.add(RCX, tokens * ROWS);
    a.add(R10, -1);
    a.jumpIfNotZero(again);
  }

  /** Copies sums to the array, of the panel's rows those that there are. */
  private static void write(Assembler a) {
    a.load(R8, RDI, ARRAY);
    a.load(RAX, RDI, OFFSET);
    a.add(R8, RAX);
    a.load(R9, RDI, STRIDE);
    a.loadMask(1, RDI, LIVE);
    a.loadMask(2, RDI, LIVE + 2);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    a.load(LEFT, RCX, 0);
    a.load(RIGHT, RCX, VECTOR);
    a.store(1, LEFT, R8, 0);
    a.store(2, RIGHT, R8, VECTOR);
    a.add(RCX, ROWS);
    a.add(R8, R9);
    a.add(R10, -1);
    a.jumpIfNotZero(token);
  }

  // ---- calling them

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment values = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment pairs = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment rowPairs = arena.allocate(2L * VECTOR, VECTOR);
    private final MemorySegment tile = arena.allocate((long) Panels.UNIT / 2 * ROWS, VECTOR);
    private final MemorySegment sums = arena.allocate((long) CHUNK * ROWS, VECTOR);
    private final MemorySegment ones = arena.allocate(ROWS, VECTOR);
    private final Avx512Scales.Frame decoding = new Avx512Scales.Frame();
    private MemorySegment scales = arena.allocate(64 * ROWS, VECTOR);

    Frame() {
      for (int i = 0; i < Panels.HEIGHT; i++) {
        ones.setAtIndex(JAVA_FLOAT, i, 1);
        int even = i / 2 / PAIRS * NibblePanels.GROUP + i / 2 % PAIRS;
        pairs.setAtIndex(JAVA_SHORT, i, (short) (even + i % 2 * PAIRS));
        // The second of two vectors begins with number 32.
        rowPairs.setAtIndex(JAVA_SHORT, i, (short) (i / 2 + i % 2 * 32));
        rowPairs.setAtIndex(JAVA_SHORT, 32 + i, (short) (16 + i / 2 + i % 2 * 32));
      }
      set(TILE, tile.address());
      set(SUMS, sums.address());
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void values(float[] codebook) {
      for (int i = 0; i < Panels.HEIGHT; i++) {
        values.setAtIndex(
            JAVA_SHORT, i, (short) ScalarTiles.bfloat16(codebook[i % codebook.length]));
      }
    }

    private void scales(int count) {
      if (scales.byteSize() < (long) count * Float.BYTES) {
        scales = arena.allocate((long) count * Float.BYTES, VECTOR);
      }
    }
  }

  /** Bytes of a number of inputs. */
  static long bytes(long inputs) {
    return inputs * Short.BYTES;
  }

  /**
   * Rounds inputs of a chunk.
   *
   * @param x {@code (tokens, cols)}, with the chunk's first token at {@code first}
   * @param from of the chunk's tokens the first to be rounded
   * @param tokens of the chunk
   * @param inputs the address of the chunk's inputs
   */
  void round(
      float[] x, int first, int from, int to, int tokens, int cols, long inputs, Frame frame) {
    if (from == to) {
      return;
    }
    frame.set(TABLE, frame.pairs.address());
    frame.set(OFFSET, (long) (first + from) * cols * Float.BYTES);
    frame.set(INPUTS, inputs + (long) from * UNIT);
    frame.set(STRIDE, (long) tokens * UNIT);
    frame.set(TOKENS, to - from);
    frame.set(UNITS, cols / Panels.UNIT);
    NativeCode.call(round, frame.arguments.address(), x);
  }

  /**
   * Products of panels.
   *
   * @param inputs the address of the rounded inputs
   * @param tokens 16 to {@link #CHUNK}
   * @param y {@code (tokens, w.rows())}, with the chunk's first token at {@code first}
   */
  void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      long inputs,
      int tokens,
      float[] y,
      int first,
      Frame frame,
      Scratch scratch) {
    frame.set(INPUTS, inputs);
    frame.set(TOKENS, tokens);
    frame.set(STRIDE, (long) w.rows() * Float.BYTES);
    // As many tokens at a time as registers hold, and nearly as many each time.
    int times = (tokens + MOST - 1) / MOST;
    int most = (tokens + times - 1) / times;
    int fewer = most * times - tokens;
    frame.set(MORE, times - fewer);
    frame.set(FEWER, fewer);
    MemorySegment[] products = w instanceof NibblePanels ? nibbles : bfloat16;
    begin(w, frame);
    for (int panel = panelFrom; panel < panelTo; panel++) {
      point(w, panel, frame, scratch);
      int live = Math.min(Panels.HEIGHT, w.rows() - panel * Panels.HEIGHT);
      frame.set(LIVE, (1L << live) - 1);
      long at = (long) first * w.rows() + (long) panel * Panels.HEIGHT;
      frame.set(OFFSET, at * Float.BYTES);
      NativeCode.call(products[most - LEAST], frame.arguments.address(), y);
    }
  }

  private static void begin(Panels w, Frame frame) {
    switch (w) {
      case NibblePanels nibbles -> {
        frame.values(nibbles.codebook());
        frame.set(TABLE, frame.values.address());
        frame.set(UNITS, nibbles.blockSize() / Panels.UNIT);
        frame.scales(nibbles.scaleCount());
        if (nibbles.doubleQuant()) {
          frame.decoding.begin(nibbles);
        }
      }
      case DensePanels dense -> {
        frame.set(TABLE, frame.rowPairs.address());
        frame.set(UNITS, dense.cols() / Panels.UNIT);
        frame.set(SCALES, frame.ones.address());
      }
    }
  }

  private void point(Panels w, int panel, Frame frame, Scratch scratch) {
    switch (w) {
      case NibblePanels packed -> {
        frame.set(WEIGHTS, NativeCode.address(packed.packed()) + 4 * packed.word(panel, 0));
        frame.set(BLOCKS, packed.blocksPerRow());
        if (packed.doubleQuant()) {
          scales.decode(packed, panel, frame.scales.address(), frame.decoding, scratch);
          frame.set(SCALES, frame.scales.address());
        } else {
          frame.set(SCALES, NativeCode.address(packed.absmax()) + 4L * panel * packed.scaleCount());
        }
      }
      case DensePanels dense -> {
        long element = dense.element(panel * Panels.HEIGHT, 0);
        frame.set(WEIGHTS, NativeCode.address(dense.data()) + element * DType.BF16.bytes());
        frame.set(BLOCKS, 1);
      }
    }
  }
}
