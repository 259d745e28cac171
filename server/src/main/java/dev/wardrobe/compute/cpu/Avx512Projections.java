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
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Products with the base's weights in machine code that is written at start, for processors with
 * AVX-512. It computes what {@link Panels} says, to the bit, and does what the Vector API has no
 * words for: it asks for weights before it needs them, permutes without a mask before each permute,
 * and keeps what registers there are for sums. It needs no time of the compiler's.
 *
 * <p>For 4-bit weights with whole blocks of at least {@link Panels#UNIT}, and for bfloat16 weights
 * of whole units.
 */
final class Avx512Projections {
  /*
   * A function gets the address of its arguments, each of 64 bits at a place below. In all of them
   * a panel's 32 rows are two vectors; zmm31 holds the codebook; what is summed lies in zmm0 to
   * zmm23, for each token two chains of two vectors.
   *
   * The inputs are turned to (units, tokens, 64) at first: rows that lie a power of two apart, as
   * activations do, would share the few places that a cache has for them.
   */
  private static final int WEIGHTS = 0;
  private static final int SCALES = 8;
  private static final int INPUTS = 16;
  private static final int SUMS = 24;
  private static final int BLOCKS = 32;
  private static final int UNITS = 40;
  private static final int PANELS = 48;
  private static final int CODEBOOK = 56;
  private static final int TILE = 64;
  private static final int MORE = 72;
  private static final int FEWER = 80;
  private static final int TOKENS = 88;
  private static final int RANGE = 96;
  private static final int AT = 104;
  private static final int END = 112;
  private static final int ARGUMENTS = 120;

  private static final int VECTOR = 64;
  private static final int ROWS = Panels.HEIGHT * Float.BYTES;
  private static final int UNIT = Panels.UNIT * Float.BYTES;
  private static final int GROUPS = Panels.UNIT / NibblePanels.GROUP;

  /** Tokens whose sums fit the registers. */
  private static final int MOST = 6;

  /** Least of tokens at once where there are more than {@link #MOST} in all. */
  private static final int LEAST = 4;

  /** Lines of what is read later that are asked for with each group of inputs. */
  private static final int LINES = 2;

  /** How far ahead weights are asked for. */
  private static final int AHEAD = 8192;

  /** Scales that are decoded at once. */
  private static final int SCALES_AT_ONCE = 8192;

  private static final int TABLE = 31;
  private static final int ZERO = 30;
  private static final int INPUT = 29;
  private static final int LEFT = 28;
  private static final int RIGHT = 27;
  private static final int LEFT_WORDS = 26;
  private static final int RIGHT_WORDS = 25;

  /** How weights are stored. */
  private enum Kind {
    NIBBLES,
    BFLOAT16
  }

  /** The functions for one kind. */
  private static final class Products {
    /** By tokens less one. */
    final MemorySegment[] few = new MemorySegment[MOST];

    /** By most tokens at once less {@link #LEAST}. */
    final MemorySegment[] many = new MemorySegment[MOST - LEAST + 1];

    static void write(Kind kind, List<byte[]> code) {
      for (int tokens = 1; tokens <= MOST; tokens++) {
        code.add(fewFunction(kind, tokens));
      }
      for (int most = LEAST; most <= MOST; most++) {
        code.add(manyFunction(kind, most));
      }
    }

    /** Takes them in the order in which they were written. */
    Products(Iterator<MemorySegment> functions) {
      Arrays.setAll(few, _ -> functions.next());
      Arrays.setAll(many, _ -> functions.next());
    }
  }

  private final Avx512Scales scales;
  private final Products nibbles;
  private final Products bfloat16;

  private Avx512Projections(Iterator<MemorySegment> functions) {
    scales = new Avx512Scales(functions.next());
    nibbles = new Products(functions);
    bfloat16 = new Products(functions);
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Projections load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<byte[]> code = new ArrayList<>();
    code.add(Avx512Scales.code());
    Products.write(Kind.NIBBLES, code);
    Products.write(Kind.BFLOAT16, code);
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new Avx512Projections(functions.iterator());
  }

  /** Whether there is code for these weights. */
  static boolean takes(Panels w) {
    return switch (w) {
      case NibblePanels n -> n.aligned() && n.unit() == Panels.UNIT;
      case DensePanels d -> d.dtype() == DType.BF16 && d.cols() % Panels.UNIT == 0;
    };
  }

  // ---- writing the functions

  /** Panels times a few tokens: weights go from memory into the sums without a stop. */
  private static byte[] fewFunction(Kind kind, int tokens) {
    Assembler a = new Assembler();
    begin(a, kind);
    a.load(RCX, RDI, SUMS);
    a.load(R9, RDI, PANELS);
    int panel = a.label();
    a.load(R8, RDI, INPUTS);
    for (int i = 0; i < 2 * tokens; i++) {
      a.store(ZERO, RCX, i * VECTOR);
    }
    a.load(R10, RDI, BLOCKS);
    int block = a.label();
    a.load(R11, RDI, UNITS);
    int unit = a.label();
    beginSums(a, tokens);
    a.move(RAX, GROUPS);
    int group = a.label();
    beginGroup(a, kind);
    for (int i = 0; i < NibblePanels.GROUP; i++) {
      weights(a, kind, i);
      multiply(a, i, tokens);
    }
    endGroup(a, kind);
    a.add(R8, NibblePanels.GROUP * Float.BYTES);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
    endSums(a, tokens);
    a.add(R11, -1);
    a.jumpIfNotZero(unit);
    a.add(RDX, ROWS);
    a.add(R10, -1);
    a.jumpIfNotZero(block);
    a.add(RCX, tokens * ROWS);
    a.add(R9, -1);
    a.jumpIfNotZero(panel);
    a.end();
    return a.code();
  }

  /**
   * A panel times many tokens: a unit's weights are decoded into a tile, which tokens use {@code
   * most} at a time, and then one fewer.
   */
  private static byte[] manyFunction(Kind kind, int most) {
    Assembler a = new Assembler();
    a.push(RBX);
    begin(a, kind);
    a.load(R8, RDI, INPUTS);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    a.store(ZERO, RCX, 0);
    a.store(ZERO, RCX, VECTOR);
    a.add(RCX, ROWS);
    a.add(R10, -1);
    a.jumpIfNotZero(token);
    int block = a.label();
    a.load(R11, RDI, UNITS);
    int unit = a.label();
    a.load(R9, RDI, TILE);
    a.move(RAX, GROUPS);
    int group = a.label();
    beginGroup(a, kind);
    for (int i = 0; i < NibblePanels.GROUP; i++) {
      weights(a, kind, i);
      a.store(LEFT, R9, i * ROWS);
      a.store(RIGHT, R9, i * ROWS + VECTOR);
    }
    endGroup(a, kind);
    a.add(R9, NibblePanels.GROUP * ROWS);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
    a.load(RCX, RDI, SUMS);
    a.load(R10, RDI, MORE);
    tokens(a, most);
    a.load(R10, RDI, FEWER);
    a.add(R10, 0);
    int none = a.jumpIfZero();
    tokens(a, most - 1);
    a.land(none);
    a.add(R11, -1);
    a.jumpIfNotZero(unit);
    a.add(RDX, ROWS);
    a.load(RAX, RDI, BLOCKS);
    a.add(RAX, -1);
    a.store(RAX, RDI, BLOCKS);
    a.jumpIfNotZero(block);
    a.pop(RBX);
    a.end();
    return a.code();
  }

  /** Leaves in rbx where the next memory is to ask for, and goes on by what tokens ask for. */
  private static void ahead(Assembler a) {
    a.load(RBX, RDI, AT);
    a.load(RAX, RDI, END);
    a.compare(RBX, RAX);
    int within = a.jumpIfBelow();
    a.load(RAX, RDI, RANGE);
    a.load(RAX, RAX, Ahead.NEXT);
    a.store(RAX, RDI, RANGE);
    a.load(RBX, RAX, Ahead.BEGIN);
    a.load(RAX, RAX, Ahead.END);
    a.store(RAX, RDI, END);
    a.land(within);
    a.move(RAX, RBX);
    a.add(RAX, GROUPS * LINES * VECTOR);
    a.store(RAX, RDI, AT);
  }

  /** The tile times tokens, as often as r10 says. */
  private static void tokens(Assembler a, int tokens) {
    int again = a.label();
    ahead(a);
    a.load(R9, RDI, TILE);
    beginSums(a, tokens);
    a.move(RAX, GROUPS);
    int group = a.label();
    for (int line = 0; line < LINES; line++) {
      a.prefetch(RBX, line * VECTOR);
    }
    a.add(RBX, LINES * VECTOR);
    for (int i = 0; i < NibblePanels.GROUP; i++) {
      a.load(LEFT, R9, i * ROWS);
      a.load(RIGHT, R9, i * ROWS + VECTOR);
      multiply(a, i, tokens);
    }
    a.add(R9, NibblePanels.GROUP * ROWS);
    a.add(R8, NibblePanels.GROUP * Float.BYTES);
    a.add(RAX, -1);
    a.jumpIfNotZero(group);
    endSums(a, tokens);
    a.add(RCX, tokens * ROWS);
    a.add(R10, -1);
    a.jumpIfNotZero(again);
  }

  private static void begin(Assembler a, Kind kind) {
    if (kind == Kind.NIBBLES) {
      a.load(RAX, RDI, CODEBOOK);
      a.load(TABLE, RAX, 0);
    }
    a.zero(ZERO);
    a.load(RSI, RDI, WEIGHTS);
    a.load(RDX, RDI, SCALES);
  }

  private static void beginSums(Assembler a, int tokens) {
    for (int i = 0; i < 4 * tokens; i++) {
      a.zero(i);
    }
  }

  /** Adds a unit's sums, scaled, to those of the tokens at rcx, and goes on to the next inputs. */
  private static void endSums(Assembler a, int tokens) {
    if (tokens > 1) {
      a.add(R8, (tokens - 1) * UNIT);
    }
    for (int token = 0; token < tokens; token++) {
      for (int half = 0; half < 2; half++) {
        a.add(sum(token, 0, half), sum(token, 0, half), sum(token, 1, half));
        a.load(LEFT, RCX, token * ROWS + half * VECTOR);
        a.fma(LEFT, sum(token, 0, half), RDX, half * VECTOR);
        a.store(LEFT, RCX, token * ROWS + half * VECTOR);
      }
    }
  }

  private static void beginGroup(Assembler a, Kind kind) {
    int bytes = groupBytes(kind);
    for (int line = 0; line < bytes; line += VECTOR) {
      a.prefetch(RSI, AHEAD + line);
    }
    if (kind == Kind.NIBBLES) {
      a.load(LEFT_WORDS, RSI, 0);
      a.load(RIGHT_WORDS, RSI, VECTOR);
    }
  }

  private static void endGroup(Assembler a, Kind kind) {
    a.add(RSI, groupBytes(kind));
  }

  private static int groupBytes(Kind kind) {
    return switch (kind) {
      case NIBBLES -> ROWS;
      case BFLOAT16 -> NibblePanels.GROUP * Panels.HEIGHT * Short.BYTES;
    };
  }

  /** The weights of a group's input {@code i}. */
  private static void weights(Assembler a, Kind kind, int i) {
    switch (kind) {
      case NIBBLES -> {
        // A permute takes the lowest four bits of an index alone.
        if (i > 0) {
          a.shiftRight(LEFT, LEFT_WORDS, 4 * i);
          a.shiftRight(RIGHT, RIGHT_WORDS, 4 * i);
        }
        a.permute(LEFT, i > 0 ? LEFT : LEFT_WORDS, TABLE);
        a.permute(RIGHT, i > 0 ? RIGHT : RIGHT_WORDS, TABLE);
      }
      case BFLOAT16 -> {
        a.loadWords(LEFT, RSI, i * Panels.HEIGHT * Short.BYTES);
        a.loadWords(RIGHT, RSI, i * Panels.HEIGHT * Short.BYTES + VECTOR / 2);
        a.shiftLeft(LEFT, LEFT, 16);
        a.shiftLeft(RIGHT, RIGHT, 16);
      }
    }
  }

  private static void multiply(Assembler a, int i, int tokens) {
    for (int token = 0; token < tokens; token++) {
      a.broadcast(INPUT, R8, token * UNIT + i * Float.BYTES);
      a.fma(sum(token, i % 2, 0), LEFT, INPUT);
      a.fma(sum(token, i % 2, 1), RIGHT, INPUT);
    }
  }

  private static int sum(int token, int chain, int half) {
    return 4 * token + 2 * chain + half;
  }

  // ---- calling them

  /** What one thread gives to the functions and gets from them. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment codebook = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment tile = arena.allocate((long) Panels.UNIT * ROWS, VECTOR);
    private final MemorySegment ones = arena.allocate(ROWS, VECTOR);
    private MemorySegment sums = arena.allocate((long) Scratch.TOKENS * ROWS, VECTOR);
    private final Avx512Scales.Frame decoding = new Avx512Scales.Frame();
    private MemorySegment scales = arena.allocate((long) SCALES_AT_ONCE * Float.BYTES, VECTOR);
    private MemorySegment inputs = MemorySegment.NULL;
    private long inputsOf;
    private int inputsFrom;
    private int inputsTokens;

    Frame() {
      for (int i = 0; i < Panels.HEIGHT; i++) {
        ones.setAtIndex(JAVA_FLOAT, i, 1);
      }
      set(TILE, tile.address());
      set(CODEBOOK, codebook.address());
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void ahead(Ahead ahead) {
      MemorySegment ranges = ahead.ranges(tile);
      set(RANGE, ranges.address());
      set(AT, ranges.get(JAVA_LONG, Ahead.BEGIN));
      set(END, ranges.get(JAVA_LONG, Ahead.END));
      ahead.clear();
    }

    private void scales(int count) {
      if (scales.byteSize() < (long) count * Float.BYTES) {
        scales = arena.allocate((long) count * Float.BYTES, VECTOR);
      }
    }

    private void sums(int rows) {
      if (sums.byteSize() < (long) rows * ROWS) {
        sums = arena.allocate((long) rows * ROWS, VECTOR);
      }
    }

    /** Turns tokens' inputs to {@code (units, tokens, 64)}, unless they are there already. */
    private void inputs(float[] x, int from, int tokens, int cols, long call) {
      if (call != 0 && call == inputsOf && from == inputsFrom && tokens == inputsTokens) {
        return;
      }
      // Known again only when they are all there.
      inputsOf = 0;
      if (inputs.byteSize() < (long) tokens * cols * Float.BYTES) {
        // For all numbers of tokens: what is replaced stays allocated for as long as the rest.
        int room = tokens == 1 ? 1 : Scratch.TOKENS;
        inputs = arena.allocate((long) room * cols * Float.BYTES, VECTOR);
      }
      turn(x, from, tokens, cols);
      inputsOf = call;
      inputsFrom = from;
      inputsTokens = tokens;
    }

    private void turn(float[] x, int from, int tokens, int cols) {
      if (tokens == 1) {
        MemorySegment.copy(x, from * cols, inputs, JAVA_FLOAT, 0, cols);
        return;
      }
      for (int token = 0; token < tokens; token++) {
        int row = (from + token) * cols;
        for (int k = 0; k < cols; k += Panels.UNIT) {
          long at = ((long) k * tokens + (long) token * Panels.UNIT) * Float.BYTES;
          MemorySegment.copy(x, row + k, inputs, JAVA_FLOAT, at, Panels.UNIT);
        }
      }
    }
  }

  /** As {@link Kernels#linear}; weights that it {@link #takes} only. */
  void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int from,
      int to,
      float[] y,
      Scratch scratch) {
    Frame frame = scratch.frame();
    for (int first = from; first < to; first += Scratch.TOKENS) {
      int tokens = Math.min(Scratch.TOKENS, to - first);
      frame.inputs(x, first, tokens, w.cols(), scratch.inputs);
      frame.set(INPUTS, frame.inputs.address());
      frame.set(TOKENS, tokens);
      frame.ahead(scratch.ahead);
      switch (w) {
        case NibblePanels packed ->
            nibbles(packed, panelFrom, panelTo, first, tokens, y, frame, scratch);
        case DensePanels dense -> dense(dense, panelFrom, panelTo, first, tokens, y, frame);
      }
    }
  }

  private void nibbles(
      NibblePanels w,
      int panelFrom,
      int panelTo,
      int first,
      int tokens,
      float[] y,
      Frame frame,
      Scratch scratch) {
    MemorySegment.copy(w.codebook(), 0, frame.codebook, JAVA_FLOAT, 0, w.codebook().length);
    int unitsPerBlock = w.blockSize() / Panels.UNIT;
    if (w.doubleQuant()) {
      frame.decoding.begin(w);
    }
    int count = w.scaleCount();
    int most = Math.max(1, SCALES_AT_ONCE / count);
    frame.scales(Math.min(most, panelTo - panelFrom) * count);
    for (int panel = panelFrom; panel < panelTo; panel += most) {
      int panels = Math.min(most, panelTo - panel);
      long scalesAt = NativeCode.address(w.absmax()) + 4L * panel * count;
      if (w.doubleQuant()) {
        for (int i = 0; i < panels; i++) {
          long to = frame.scales.address() + (long) i * count * Float.BYTES;
          scales.decode(w, panel + i, to, frame.decoding, scratch);
        }
        scalesAt = frame.scales.address();
      }
      run(
          nibbles,
          w,
          NativeCode.address(w.packed()) + 4 * w.word(panel, 0),
          4L * w.word(1, 0),
          scalesAt,
          (long) count * Float.BYTES,
          w.blocksPerRow(),
          unitsPerBlock,
          panel,
          panels,
          first,
          tokens,
          y,
          frame);
    }
  }

  private void dense(
      DensePanels w, int panelFrom, int panelTo, int first, int tokens, float[] y, Frame frame) {
    // One panel at a time: they share their scales, which are ones.
    long bytes = (long) w.cols() * Panels.HEIGHT * Short.BYTES;
    for (int panel = panelFrom; panel < panelTo; panel++) {
      long at = NativeCode.address(w.data()) + w.element(panel * Panels.HEIGHT, 0) * Short.BYTES;
      run(
          bfloat16,
          w,
          at,
          bytes,
          frame.ones.address(),
          0,
          1,
          w.cols() / Panels.UNIT,
          panel,
          1,
          first,
          tokens,
          y,
          frame);
    }
  }

  private void run(
      Products products,
      Panels w,
      long weights,
      long weightBytes,
      long scales,
      long scaleBytes,
      int blocks,
      int units,
      int panel,
      int panels,
      int first,
      int tokens,
      float[] y,
      Frame frame) {
    frame.set(UNITS, units);
    if (tokens <= MOST) {
      frame.sums(panels * tokens);
      frame.set(SUMS, frame.sums.address());
      frame.set(WEIGHTS, weights);
      frame.set(SCALES, scales);
      frame.set(BLOCKS, blocks);
      frame.set(PANELS, panels);
      NativeCode.call(products.few[tokens - 1], frame.arguments.address());
      for (int i = 0; i < panels; i++) {
        write(w, panel + i, (long) i * tokens, first, tokens, y, frame);
      }
      return;
    }
    frame.sums(tokens);
    frame.set(SUMS, frame.sums.address());
    // As many tokens at a time as registers hold, and nearly as many each time.
    int times = (tokens + MOST - 1) / MOST;
    int most = (tokens + times - 1) / times;
    int fewer = most * times - tokens;
    frame.set(MORE, times - fewer);
    frame.set(FEWER, fewer);
    for (int i = 0; i < panels; i++) {
      frame.set(WEIGHTS, weights + i * weightBytes);
      frame.set(SCALES, scales + i * scaleBytes);
      frame.set(BLOCKS, blocks);
      NativeCode.call(products.many[most - LEAST], frame.arguments.address());
      write(w, panel + i, 0, first, tokens, y, frame);
    }
  }

  private static void write(
      Panels w, int panel, long row, int first, int tokens, float[] y, Frame frame) {
    int live = Math.min(Panels.HEIGHT, w.rows() - panel * Panels.HEIGHT);
    for (int token = 0; token < tokens; token++) {
      MemorySegment.copy(
          frame.sums,
          JAVA_FLOAT,
          (row + token) * ROWS,
          y,
          (first + token) * w.rows() + panel * Panels.HEIGHT,
          live);
    }
  }
}
