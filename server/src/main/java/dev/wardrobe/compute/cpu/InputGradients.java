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
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Input gradients of the base's projections, {@code dx += dy·w}, in machine code that is written at
 * start, for processors with AVX-512.
 *
 * <p>In exact mode bits are those of {@link Kernels#linearInput}. In fast mode, for processors with
 * AVX512-BF16, {@code dy} and {@code float32(code·absmax)} are rounded to bfloat16, and a sum takes
 * outputs two at a time, ascending.
 *
 * <p>For the weights that {@link Avx512Projections#takes}.
 */
final class InputGradients implements AutoCloseable {
  /*
   * dy is turned once to (tiles of 64 outputs, tokens, 64). Then each thread has units of 64 inputs
   * of its own: for each tile of outputs it dequantizes the unit's weights to (outputs, 64 inputs),
   * and adds all tokens' products to their sums; the tile stays in the first-level cache, the sums
   * in the second.
   *
   * A function gets the address of its arguments, each of 64 bits at a place below.
   */
  private static final int WEIGHTS = 0;
  private static final int SCALES = 8;
  private static final int TILE = 16;
  private static final int TABLES = 24;
  private static final int NEXT = 32;
  private static final int ARRAY_AT = 40;
  private static final int STRIDE = 48;
  private static final int OTHER = 56;
  private static final int OTHER_STRIDE = 64;
  private static final int TOKENS = 72;
  private static final int TILES = 80;
  private static final int ARGUMENTS = 88;

  private static final int VECTOR = 64;
  private static final int LANES = 16;
  private static final int ROWS = Panels.HEIGHT * Float.BYTES;
  private static final int GROUPS = Panels.UNIT / NibblePanels.GROUP;

  /** Outputs of a tile. */
  private static final int OUTPUTS = Avx512Blocks.DEPTH;

  /** Panels of a tile. */
  private static final int PANELS = OUTPUTS / Panels.HEIGHT;

  /** Bytes of a tile's row, and of a token's sums. */
  private static final int UNIT = Panels.UNIT * Float.BYTES;

  /** Tokens for which weights are dequantized once: their sums stay in the second-level cache. */
  private static final int MOST_TOKENS = 512;

  /** Units at least that share gradients; more if there are fewer tokens. */
  private static final int UNITS = 3;

  /** Bytes of turned gradients, unless so many are not enough for {@link #LEAST_TOKENS}. */
  private static final long MOST_BYTES = 16 << 20;

  private static final int LEAST_TOKENS = 64;

  /** Tokens that are turned by one call. */
  private static final int TURNED = 8;

  // Vectors of the tables.
  private static final int CODEBOOK = 0;
  private static final int SHIFTS = 1;
  private static final int NEIGHBOURS = 2;
  private static final int LOW_WORDS = 3;
  private static final int HIGH_WORDS = 4;
  private static final int LOW_HALF = 5;
  private static final int HIGH_HALF = 6;

  /** For each row of half a panel what takes its words from those of two groups. */
  private static final int ROW_WORDS = 7;

  private static final int VECTORS = ROW_WORDS + LANES;

  private static final float[] NONE = {};

  private final Avx512Blocks blocks;
  private final Avx512Scales scales;
  private final MemorySegment add;

  // By mode: exact, fast.
  private final MemorySegment[] turn;
  private final MemorySegment[] nibbles;
  private final MemorySegment[] bfloat16;

  private final NativeMemory memory = new NativeMemory();
  private NativeMemory.Region region = memory.region();
  private MemorySegment turned = MemorySegment.NULL;

  // What the threads work on.
  private @Nullable Panels weights;
  private float[] dy = {};
  private float[] dx = {};
  private boolean pairs;

  /** Of the tokens at work the first, and their number. */
  private int first;

  private int tokens;

  /** Parts that tokens are divided into, and units. */
  private int splits;

  private int unitShares;
  private int turnShares;

  private final WorkerPool.Work turning = this::turnShare;
  private final WorkerPool.Work multiplying = this::multiplyShare;

  private InputGradients(Avx512Blocks blocks, Iterator<MemorySegment> functions) {
    this.blocks = blocks;
    scales = new Avx512Scales(functions.next());
    add = functions.next();
    turn = new MemorySegment[] {functions.next(), functions.next()};
    nibbles = new MemorySegment[] {functions.next(), functions.next()};
    bfloat16 = new MemorySegment[] {functions.next(), functions.next()};
  }

  /** Writes the functions; null where the system does not take them. */
  static @Nullable InputGradients load(Avx512Blocks blocks) {
    List<byte[]> code = new ArrayList<>();
    code.add(Avx512Scales.code());
    code.add(addFunction());
    code.add(turnFunction(false));
    code.add(turnFunction(true));
    code.add(nibblesFunction(false));
    code.add(nibblesFunction(true));
    code.add(bfloat16Function(false));
    code.add(bfloat16Function(true));
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new InputGradients(blocks, functions.iterator());
  }

  // ---- writing the functions

  /** Adds tokens' sums to 64 inputs of each row of the array. */
  private static byte[] addFunction() {
    Assembler a = new Assembler();
    a.load(RAX, RDI, ARRAY_AT);
    a.add(RSI, RAX);
    a.load(RAX, RDI, STRIDE);
    a.load(RDX, RDI, OTHER);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    for (int i = 0; i < UNIT / VECTOR; i++) {
      a.load(i, RSI, i * VECTOR);
      a.load(4 + i, RDX, i * VECTOR);
      a.add(i, i, 4 + i);
      a.store(i, RSI, i * VECTOR);
    }
    a.add(RSI, RAX);
    a.add(RDX, UNIT);
    a.add(R10, -1);
    a.jumpIfNotZero(token);
    a.end();
    return a.code();
  }

  /** Copies rows of the array to whole tiles, in fast mode rounded. */
  private static byte[] turnFunction(boolean pairs) {
    Assembler a = new Assembler();
    a.load(RAX, RDI, ARRAY_AT);
    a.add(RSI, RAX);
    a.load(RAX, RDI, STRIDE);
    a.load(RDX, RDI, OTHER);
    a.load(R9, RDI, OTHER_STRIDE);
    a.load(R10, RDI, TOKENS);
    int token = a.label();
    a.move(R8, RSI);
    a.move(RCX, RDX);
    a.load(R11, RDI, TILES);
    int tile = a.label();
    for (int i = 0; i < 4; i++) {
      a.load(i, R8, i * VECTOR);
    }
    if (pairs) {
      a.round(4, 0, 1);
      a.round(5, 2, 3);
      a.store(4, RCX, 0);
      a.store(5, RCX, VECTOR);
    } else {
      for (int i = 0; i < 4; i++) {
        a.store(i, RCX, i * VECTOR);
      }
    }
    a.add(R8, OUTPUTS * Float.BYTES);
    a.add(RCX, R9);
    a.add(R11, -1);
    a.jumpIfNotZero(tile);
    a.add(RSI, RAX);
    a.add(RDX, OUTPUTS * bytes(pairs));
    a.add(R10, -1);
    a.jumpIfNotZero(token);
    a.end();
    return a.code();
  }

  private static int bytes(boolean pairs) {
    return pairs ? Short.BYTES : Float.BYTES;
  }

  /** Dequantizes a panel's weights of 64 inputs. */
  private static byte[] nibblesFunction(boolean pairs) {
    int table = 31;
    int shifts = 30;
    int neighbours = 29;
    int scale = 28;
    Assembler a = new Assembler();
    a.load(RAX, RDI, TABLES);
    a.load(table, RAX, CODEBOOK * VECTOR);
    a.load(shifts, RAX, SHIFTS * VECTOR);
    a.load(neighbours, RAX, NEIGHBOURS * VECTOR);
    a.load(RSI, RDI, WEIGHTS);
    a.load(RDX, RDI, SCALES);
    a.load(R9, RDI, TILE);
    a.move(R10, 2);
    int half = a.label();
    for (int group = 0; group < GROUPS; group++) {
      a.load(group, RSI, group * ROWS);
    }
    for (int row = 0; row < LANES; row++) {
      int values = pairs ? 8 + row % 2 * 4 : 8;
      a.broadcast(scale, RDX, row * Float.BYTES);
      for (int i = 0; i < 4; i++) {
        // The row's words of two groups, eight times each; then for each lane its own nibble.
        int value = values + i;
        a.load(value, RAX, (ROW_WORDS + row) * VECTOR);
        a.permute2(value, 2 * i, 2 * i + 1);
        a.shiftRightEach(value, value, shifts);
        a.permute(value, value, table);
        a.multiply(value, value, scale);
        if (!pairs) {
          a.store(value, R9, row * UNIT + i * VECTOR);
        } else if (row % 2 == 1) {
          a.round(16 + i, 8 + i, value);
          a.permuteWords(16 + i, neighbours, 16 + i);
          a.store(16 + i, R9, row / 2 * UNIT + i * VECTOR);
        }
      }
    }
    a.add(RSI, VECTOR);
    a.add(RDX, VECTOR);
    a.add(R9, tileBytes(LANES, pairs));
    a.add(R10, -1);
    a.jumpIfNotZero(half);
    next(a, GROUPS * ROWS);
    return a.code();
  }

  /** Of so many rows of a tile. */
  private static int tileBytes(int rows, boolean pairs) {
    return pairs ? rows / 2 * UNIT : rows * UNIT;
  }

  /** Asks for the next weights, and ends. */
  private static void next(Assembler a, int bytes) {
    a.load(RSI, RDI, NEXT);
    for (int line = 0; line < bytes; line += VECTOR) {
      a.prefetch(RSI, line);
    }
    a.end();
  }

  /** Turns a panel's weights of 64 inputs. */
  private static byte[] bfloat16Function(boolean pairs) {
    int lowWords = 31;
    int highWords = 30;
    int lowHalf = 29;
    int highHalf = 28;
    int zero = 27;
    int neighbours = 26;
    Assembler a = new Assembler();
    a.load(RAX, RDI, TABLES);
    a.load(lowWords, RAX, LOW_WORDS * VECTOR);
    a.load(highWords, RAX, HIGH_WORDS * VECTOR);
    a.load(lowHalf, RAX, LOW_HALF * VECTOR);
    a.load(highHalf, RAX, HIGH_HALF * VECTOR);
    a.load(neighbours, RAX, NEIGHBOURS * VECTOR);
    a.zero(zero);
    a.load(RSI, RDI, WEIGHTS);
    a.load(R9, RDI, TILE);
    a.move(R10, Panels.UNIT / LANES);
    int quarter = a.label();
    // 16 inputs of 32 rows. Interleaving the first half with the second turns the bits of an
    // element's place by one; after four times the rows come first.
    int[] vectors = new int[LANES];
    for (int i = 0; i < LANES; i++) {
      vectors[i] = i;
      a.load(i, RSI, i * Panels.HEIGHT * Short.BYTES);
    }
    int spare = LANES;
    for (int times = 0; times < 4; times++) {
      int[] turned = new int[LANES];
      for (int i = 0; i < LANES / 2; i++) {
        int low = vectors[i];
        int high = vectors[i + LANES / 2];
        a.move(spare, low);
        a.permuteWords2(spare, lowWords, high);
        a.permuteWords2(low, highWords, high);
        turned[2 * i] = spare;
        turned[2 * i + 1] = low;
        spare = high;
      }
      vectors = turned;
    }
    for (int i = 0; i < LANES; i++) {
      // Two rows.
      if (pairs) {
        a.permuteWords(vectors[i], neighbours, vectors[i]);
        a.store(vectors[i], R9, i * UNIT);
      } else {
        a.move(spare, vectors[i]);
        a.permuteWords2(spare, lowHalf, zero);
        a.permuteWords2(vectors[i], highHalf, zero);
        a.store(spare, R9, 2 * i * UNIT);
        a.store(vectors[i], R9, (2 * i + 1) * UNIT);
      }
    }
    a.add(RSI, LANES * Panels.HEIGHT * Short.BYTES);
    a.add(R9, VECTOR);
    a.add(R10, -1);
    a.jumpIfNotZero(quarter);
    next(a, Panels.UNIT * Panels.HEIGHT * Short.BYTES);
    return a.code();
  }

  // ---- calling them

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment tables = arena.allocate((long) VECTORS * VECTOR, VECTOR);
    private final MemorySegment tile = arena.allocate((long) OUTPUTS * UNIT, VECTOR);
    private final MemorySegment sums = arena.allocate((long) MOST_TOKENS * UNITS * UNIT, VECTOR);
    private final float[] rest = new float[TURNED * OUTPUTS];
    private final Avx512Blocks.Frame blocks = new Avx512Blocks.Frame();
    private final Avx512Scales.Frame decoding = new Avx512Scales.Frame();
    private MemorySegment scales = arena.allocate(64 * ROWS, VECTOR);

    Frame() {
      for (int i = 0; i < LANES; i++) {
        tables.setAtIndex(JAVA_INT, SHIFTS * LANES + i, 4 * (i % NibblePanels.GROUP));
        for (int row = 0; row < LANES; row++) {
          int word = row + i / NibblePanels.GROUP * LANES;
          tables.setAtIndex(JAVA_INT, (ROW_WORDS + row) * LANES + i, word);
        }
      }
      for (int i = 0; i < 2 * LANES; i++) {
        // The second of two vectors begins with number 32.
        word(NEIGHBOURS, i, i / 2 + i % 2 * LANES);
        word(LOW_WORDS, i, i / 2 + i % 2 * 32);
        word(HIGH_WORDS, i, LANES + i / 2 + i % 2 * 32);
        word(LOW_HALF, i, i % 2 == 1 ? i / 2 : 32);
        word(HIGH_HALF, i, i % 2 == 1 ? LANES + i / 2 : 32);
      }
      set(TABLES, tables.address());
    }

    private void word(int table, int i, int index) {
      tables.setAtIndex(JAVA_SHORT, table * 2L * LANES + i, (short) index);
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void clearSums(long bytes) {
      sums.asSlice(0, bytes).fill((byte) 0);
    }

    private long sumsAt(int unit, int tokens) {
      return sums.address() + (long) unit * tokens * UNIT;
    }

    private void scales(long count) {
      if (scales.byteSize() < count * Float.BYTES) {
        scales = arena.allocate(count * Float.BYTES, VECTOR);
      }
    }
  }

  /** Bytes of turned gradients. */
  long bytes() {
    return memory.live();
  }

  /**
   * {@code dx += dy·w}.
   *
   * @param dy {@code (rows, w.rows())}
   * @param dx {@code (rows, w.cols())}
   * @param fast whether in fast mode
   */
  void run(Panels w, float[] dy, int rows, float[] dx, boolean fast, WorkerPool pool) {
    weights = w;
    this.dy = dy;
    this.dx = dx;
    pairs = fast;
    int most = Math.clamp(MOST_BYTES / ((long) w.rows() * bytes(pairs)), LEAST_TOKENS, MOST_TOKENS);
    int passes = (rows + most - 1) / most;
    int wanted = pool.threads() * CpuBackend.SHARES;
    for (int pass = 0; pass < passes; pass++) {
      first = row(rows, pass, passes);
      tokens = row(rows, pass + 1, passes) - first;
      room((long) tiles(w) * tokens * OUTPUTS * bytes(pairs));
      turnShares = Math.min(tokens, wanted);
      unitShares = Math.min(w.units(), wanted);
      splits = Math.clamp(wanted / unitShares, 1, Math.max(1, tokens / LANES));
      pool.run(turnShares, turning);
      pool.run(unitShares * splits, multiplying);
    }
    weights = null;
    this.dy = NONE;
    this.dx = NONE;
  }

  private static int row(int rows, int part, int parts) {
    return (int) ((long) rows * part / parts);
  }

  private static int tiles(Panels w) {
    return (w.rows() + OUTPUTS - 1) / OUTPUTS;
  }

  private void room(long bytes) {
    if (turned.byteSize() < bytes) {
      region.close();
      // Should there be no memory, what generated code would write to must not be what was freed.
      turned = MemorySegment.NULL;
      region = memory.region();
      turned = region.allocate("output gradients", bytes);
    }
  }

  /** Where a token's gradients of a tile's outputs are. */
  private long turnedAt(int tile, int token) {
    return turned.address() + ((long) tile * tokens + token) * OUTPUTS * bytes(pairs);
  }

  private void turnShare(int share, Scratch scratch) {
    Panels w = Objects.requireNonNull(weights);
    Frame frame = scratch.gradientsFrame();
    MemorySegment function = turn[pairs ? 1 : 0];
    int outputs = w.rows();
    int whole = outputs / OUTPUTS;
    int rest = outputs % OUTPUTS;
    frame.set(OTHER_STRIDE, (long) tokens * OUTPUTS * bytes(pairs));
    int to = row(tokens, share + 1, turnShares);
    for (int token = row(tokens, share, turnShares); token < to; token += TURNED) {
      int count = Math.min(TURNED, to - token);
      frame.set(TOKENS, count);
      if (whole > 0) {
        frame.set(ARRAY_AT, (long) (first + token) * outputs * Float.BYTES);
        frame.set(STRIDE, (long) outputs * Float.BYTES);
        frame.set(OTHER, turnedAt(0, token));
        frame.set(TILES, whole);
        NativeCode.call(function, frame.arguments.address(), dy);
      }
      if (rest > 0) {
        for (int i = 0; i < count; i++) {
          int from = (first + token + i) * outputs + whole * OUTPUTS;
          System.arraycopy(dy, from, frame.rest, i * OUTPUTS, rest);
        }
        frame.set(ARRAY_AT, 0);
        frame.set(STRIDE, OUTPUTS * Float.BYTES);
        frame.set(OTHER, turnedAt(whole, token));
        frame.set(TILES, 1);
        NativeCode.call(function, frame.arguments.address(), frame.rest);
      }
    }
  }

  private void multiplyShare(int share, Scratch scratch) {
    Panels w = Objects.requireNonNull(weights);
    Frame frame = scratch.gradientsFrame();
    int units = share / splits;
    int unitFrom = row(w.units(), units, unitShares);
    int unitTo = row(w.units(), units + 1, unitShares);
    int from = row(tokens, share % splits, splits);
    int count = row(tokens, share % splits + 1, splits) - from;
    int blockFrom = 0;
    int blocks = 0;
    if (w instanceof NibblePanels packed) {
      int unitsPerBlock = packed.blockSize() / Panels.UNIT;
      blockFrom = unitFrom / unitsPerBlock;
      blocks = (unitTo - 1) / unitsPerBlock + 1 - blockFrom;
      scales(packed, blockFrom, blocks, frame, scratch);
    }
    // As many units together as the cache holds sums of: they share each tile's gradients.
    int together = Math.max(1, MOST_TOKENS * UNITS / count);
    for (int unit = unitFrom; unit < unitTo; unit += together) {
      int end = Math.min(unitTo, unit + together);
      multiply(w, unit, end, from, count, blockFrom, blocks, frame);
    }
  }

  private void multiply(
      Panels w,
      int unitFrom,
      int unitTo,
      int from,
      int count,
      int blockFrom,
      int blocks,
      Frame frame) {
    int tiles = tiles(w);
    frame.clearSums((long) (unitTo - unitFrom) * count * UNIT);
    for (int tile = 0; tile < tiles; tile++) {
      int live = Math.min(OUTPUTS, w.rows() - tile * OUTPUTS);
      long inputs = turnedAt(tile, from);
      for (int unit = unitFrom; unit < unitTo; unit++) {
        for (int i = 0; i * Panels.HEIGHT < live; i++) {
          int panel = tile * PANELS + i;
          frame.set(TILE, frame.tile.address() + tileBytes(i * Panels.HEIGHT, pairs));
          frame.set(WEIGHTS, weightsAt(w, panel, unit));
          // After the group's last unit its first, of the next tile.
          boolean last = unit + 1 == unitTo;
          int next = last ? Math.min(panel + PANELS, w.panels() - 1) : panel;
          frame.set(NEXT, weightsAt(w, next, last ? unitFrom : unit + 1));
          switch (w) {
            case NibblePanels packed -> {
              int block = unit * Panels.UNIT / packed.blockSize() - blockFrom;
              frame.set(SCALES, frame.scales.address() + ((long) panel * blocks + block) * ROWS);
              NativeCode.call(nibbles[pairs ? 1 : 0], frame.arguments.address());
            }
            case DensePanels _ ->
                NativeCode.call(bfloat16[pairs ? 1 : 0], frame.arguments.address());
          }
        }
        long weights = frame.tile.address();
        long sums = frame.sumsAt(unit - unitFrom, count);
        if (pairs) {
          this.blocks.multiplyPairs(weights, (live + 1) / 2, inputs, count, sums, frame.blocks);
        } else {
          this.blocks.multiply(weights, Panels.UNIT, live, inputs, count, sums, frame.blocks);
        }
      }
    }
    frame.set(STRIDE, (long) w.cols() * Float.BYTES);
    frame.set(TOKENS, count);
    for (int unit = unitFrom; unit < unitTo; unit++) {
      frame.set(
          ARRAY_AT, ((first + from) * (long) w.cols() + (long) unit * Panels.UNIT) * Float.BYTES);
      frame.set(OTHER, frame.sumsAt(unit - unitFrom, count));
      NativeCode.call(add, frame.arguments.address(), dx);
    }
  }

  private static long weightsAt(Panels w, int panel, int unit) {
    return switch (w) {
      case NibblePanels packed ->
          NativeCode.address(packed.packed()) + 4 * packed.word(panel, unit * GROUPS);
      case DensePanels dense -> {
        long element = dense.element(panel * Panels.HEIGHT, unit * Panels.UNIT);
        yield NativeCode.address(dense.data()) + element * DType.BF16.bytes();
      }
    };
  }

  /** Scales of some blocks, as {@code (panels, blocks, 32)}; those of rows that are none are 0. */
  private void scales(NibblePanels w, int block, int blocks, Frame frame, Scratch scratch) {
    long count = (long) blocks * Panels.HEIGHT;
    frame.scales(w.panels() * count);
    MemorySegment.copy(
        w.codebook(), 0, frame.tables, JAVA_FLOAT, (long) CODEBOOK * VECTOR, w.codebook().length);
    if (w.doubleQuant()) {
      frame.decoding.begin(w);
    }
    for (int panel = 0; panel < w.panels(); panel++) {
      long at = panel * count * Float.BYTES;
      if (w.doubleQuant()) {
        long to = frame.scales.address() + at;
        scales.decode(w, panel, block, block + blocks, to, frame.decoding, scratch);
      } else {
        long from = (long) panel * w.scaleCount() + (long) block * Panels.HEIGHT;
        MemorySegment.copy(w.absmax(), from * Float.BYTES, frame.scales, at, count * Float.BYTES);
      }
    }
    int live = w.rows() - (w.panels() - 1) * Panels.HEIGHT;
    for (int i = 0; i < blocks; i++) {
      for (int row = live; row < Panels.HEIGHT; row++) {
        long at = ((w.panels() - 1) * count + (long) i * Panels.HEIGHT + row) * Float.BYTES;
        frame.scales.set(JAVA_FLOAT, at, 0);
      }
    }
  }

  @Override
  public void close() {
    region.close();
  }
}
