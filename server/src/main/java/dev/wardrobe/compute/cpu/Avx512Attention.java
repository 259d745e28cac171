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

import dev.wardrobe.compute.Heads;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Attention over whole sequences and its input gradients, in machine code that is written at start,
 * for processors with AVX-512. Bits are those of {@link PlainAttention}.
 */
final class Avx512Attention implements AutoCloseable {
  /*
   * A sequence's rows are blocks of 64. Of a block of queries and one of keys there are scores as
   * (keys, queries), so that a query is a lane: what it has seen so far, and which keys it sees, are
   * vectors. All products are of blocks, see Avx512Blocks, of which a tile's lanes are queries or a
   * head's elements:
   *
   *   scores (keys, queries) = K (keys, size) · Qᵀ (size, queries)
   *   outputs (size, queries) += Vᵀ (size, keys) · weights (keys, queries)
   *
   * And on the way back, P being the weights and D their scores' gradients:
   *
   *   dP (keys, queries) = V (keys, size) · dOᵀ (size, queries)
   *   dQᵀ (size, queries) += Kᵀ (size, keys) · D (keys, queries)
   *   dK (keys, size) += D (keys, queries) · Q (queries, size)
   *   dV (keys, size) += P (keys, queries) · dO (queries, size)
   *
   * The heads that share keys each have sums of their own, which are added up in order. Keys and
   * values are turned once for all heads; queries where they are used.
   *
   * A function gets the address of its arguments, each of 64 bits at a place below.
   */
  private static final int ARRAY_AT = 0;
  private static final int STRIDE = 8;
  private static final int OTHER = 16;
  private static final int TIMES = 24;
  private static final int MASKS = 32;
  private static final int TABLES = 40;
  private static final int FACTORS = 48;
  private static final int SCORES = 56;
  private static final int GRADIENTS = 64;
  private static final int ROWS = 72;
  private static final int STATE = 80;
  private static final int OUTPUTS = 88;
  private static final int SIZE = 96;
  private static final int HEADS = 104;
  private static final int HEAD_STRIDE = 112;
  private static final int LIVE = 120;
  private static final int SCALE = 128;
  private static final int ARGUMENTS = 136;

  /** Rows of a block. */
  private static final int BLOCK = PlainAttention.BLOCK;

  private static final int VECTOR = 64;
  private static final int LANES = VECTOR / Float.BYTES;
  private static final int VECTORS = BLOCK / LANES;

  /** Bytes of a block's row. */
  private static final int ROW = BLOCK * Float.BYTES;

  private static final long WHOLE = (long) BLOCK * ROW;

  // Vectors of the tables.
  private static final int LOW = 0;
  private static final int HIGH = 1;
  private static final int EXP = 2;
  private static final int EVERYTHING = 3;

  /** Of the masks that let everything through. */
  private static final int MASK_VECTORS = BLOCK * Long.BYTES / VECTOR;

  private final Avx512Blocks blocks;
  private final MemorySegment copy;
  private final MemorySegment turnIn;
  private final MemorySegment turnOut;
  private final MemorySegment weigh;
  private final MemorySegment weighBack;
  private final MemorySegment dots;
  private final MemorySegment sum;

  private final NativeMemory memory = new NativeMemory();
  private NativeMemory.Region region = memory.region();
  private MemorySegment room = MemorySegment.NULL;

  // What the threads work on.
  private Heads heads = new Heads(1, 1, 2, 1, 0);

  /** Of each block its sequence's first row, its number in it, and the rows that it has. */
  private int[] firsts = {};

  private int[] numbers = {};
  private int[] lives = {};
  private int[] firstBlocks = {};
  private int count;
  private float[] q = NONE;
  private float[] k = NONE;
  private float[] v = NONE;
  private float[] out = NONE;
  private float[] logSums = NONE;
  private float[] dOut = NONE;
  private float[] dq = NONE;
  private float[] dk = NONE;
  private float[] dv = NONE;
  private boolean back;

  // Where things are in the room.
  private long keysAt;
  private long turnedAt;
  private long valuesAt;
  private long sumsAt;

  private final WorkerPool.Work turning = this::turnShare;
  private final WorkerPool.Work attending = this::attendShare;
  private final WorkerPool.Work differentiating = this::differentiateShare;
  private final WorkerPool.Work adding = this::addShare;
  private int shares;
  private int items;

  private static final float[] NONE = {};

  private Avx512Attention(Avx512Blocks blocks, Iterator<MemorySegment> functions) {
    this.blocks = blocks;
    copy = functions.next();
    turnIn = functions.next();
    turnOut = functions.next();
    weigh = functions.next();
    weighBack = functions.next();
    dots = functions.next();
    sum = functions.next();
  }

  /** Writes the functions; null where the system does not take them. */
  static @Nullable Avx512Attention load(Avx512Blocks blocks) {
    List<byte[]> code = new ArrayList<>();
    code.add(copyFunction());
    code.add(turnInFunction());
    code.add(turnOutFunction());
    code.add(weighFunction());
    code.add(weighBackFunction());
    code.add(dotsFunction());
    code.add(sumFunction());
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new Avx512Attention(blocks, functions.iterator());
  }

  // ---- writing the functions

  private static void masks(Assembler a) {
    for (int i = 0; i < VECTORS; i++) {
      a.loadMask(1 + i, RDI, LIVE + i * Short.BYTES);
    }
  }

  /** Copies rows of the array, scaled, to rows of 64; zeros where the masks have none. */
  private static byte[] copyFunction() {
    Assembler a = new Assembler();
    a.load(RAX, RDI, ARRAY_AT);
    a.add(RSI, RAX);
    a.load(R9, RDI, STRIDE);
    a.load(RDX, RDI, OTHER);
    a.load(R11, RDI, HEAD_STRIDE);
    a.load(R10, RDI, ROWS);
    a.broadcast(8, RDI, SCALE);
    masks(a);
    int row = a.label();
    a.load(RAX, RDI, TIMES);
    a.move(RCX, RSI);
    a.move(R8, RDX);
    for (int i = 0; i < VECTORS; i++) {
      a.zero(i);
      a.load(1 + i, i, RSI, i * VECTOR);
      a.multiply(i, i, 8);
    }
    // As many vectors as a row has.
    int vector = a.label();
    a.store(0, R8, 0);
    a.move(0, 1);
    a.move(1, 2);
    a.move(2, 3);
    a.add(R8, VECTOR);
    a.add(RAX, -1);
    a.jumpIfNotZero(vector);
    a.add(RSI, R9);
    a.add(RDX, R11);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    a.end();
    return a.code();
  }

  /**
   * 16 rows of 16 numbers in registers from 0 on become columns. Interleaving the first half with
   * the second turns the bits of an element's place by one; after four times the columns come
   * first.
   *
   * @return the registers of the columns
   */
  private static int[] turn(Assembler a, int low, int high) {
    int[] vectors = new int[LANES];
    for (int i = 0; i < LANES; i++) {
      vectors[i] = i;
    }
    int first = LANES;
    int second = LANES + 1;
    for (int times = 0; times < 4; times++) {
      int[] turned = new int[LANES];
      for (int i = 0; i < LANES / 2; i++) {
        int one = vectors[i];
        int other = vectors[i + LANES / 2];
        a.move(first, low);
        a.permute2(first, one, other);
        a.move(second, high);
        a.permute2(second, one, other);
        turned[2 * i] = first;
        turned[2 * i + 1] = second;
        first = one;
        second = other;
      }
      vectors = turned;
    }
    return vectors;
  }

  /** 16 rows of the array become columns of blocks, 16 of their numbers at a time, scaled. */
  private static byte[] turnInFunction() {
    Assembler a = new Assembler();
    beginTurn(a);
    a.broadcast(29, RDI, SCALE);
    int block = a.label();
    a.move(R8, RSI);
    a.load(RAX, RDI, MASKS);
    for (int i = 0; i < LANES; i++) {
      a.loadMask(1, RAX, i * Short.BYTES);
      a.zero(i);
      a.load(1, i, R8, 0);
      a.multiply(i, i, 29);
      a.add(R8, R9);
    }
    int[] columns = turn(a, 31, 30);
    for (int i = 0; i < LANES; i++) {
      a.store(columns[i], RDX, i * ROW);
    }
    a.add(RSI, VECTOR);
    a.add(RDX, LANES * ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(block);
    a.end();
    return a.code();
  }

  private static void beginTurn(Assembler a) {
    a.load(RAX, RDI, ARRAY_AT);
    a.add(RSI, RAX);
    a.load(R9, RDI, STRIDE);
    a.load(RDX, RDI, OTHER);
    a.load(R10, RDI, TIMES);
    a.load(RAX, RDI, TABLES);
    a.load(31, RAX, LOW * VECTOR);
    a.load(30, RAX, HIGH * VECTOR);
  }

  /** 16 columns of blocks, each times its factor, become rows of the array. */
  private static byte[] turnOutFunction() {
    Assembler a = new Assembler();
    beginTurn(a);
    a.load(RAX, RDI, FACTORS);
    a.load(29, RAX, 0);
    int block = a.label();
    for (int i = 0; i < LANES; i++) {
      a.load(i, RDX, i * ROW);
      a.multiply(i, i, 29);
    }
    int[] columns = turn(a, 31, 30);
    a.move(R8, RSI);
    a.load(RAX, RDI, MASKS);
    for (int i = 0; i < LANES; i++) {
      a.loadMask(1, RAX, i * Short.BYTES);
      a.store(1, columns[i], R8, 0);
      a.add(R8, R9);
    }
    a.add(RSI, VECTOR);
    a.add(RDX, LANES * ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(block);
    a.end();
    return a.code();
  }

  /** Loads the constants of exp; leaves the tables in rax. */
  private static void beginWeights(Assembler a) {
    a.load(RAX, RDI, TABLES);
    a.add(RAX, EXP * VECTOR);
    Avx512Exp.load(a, RAX);
    a.load(RSI, RDI, SCORES);
    a.load(RDX, RDI, MASKS);
    a.load(R10, RDI, ROWS);
  }

  /**
   * Scores become weights relative to the largest so far; what was summed before is scaled to it.
   */
  private static byte[] weighFunction() {
    int nothing = 19;
    Assembler a = new Assembler();
    beginWeights(a);
    a.broadcast(nothing, RAX, Avx512Exp.BYTES);
    a.load(RCX, RDI, STATE);
    for (int i = 0; i < VECTORS; i++) {
      a.load(i, RCX, i * VECTOR);
      a.move(4 + i, i);
    }
    a.move(R8, RSI);
    int row = a.label();
    for (int i = 0; i < VECTORS; i++) {
      a.loadMask(1 + i, RDX, i * Short.BYTES);
      a.load(8 + i, R8, i * VECTOR);
      a.blend(8 + i, 1 + i, nothing, 8 + i);
      a.store(8 + i, R8, i * VECTOR);
      a.max(4 + i, 8 + i, 4 + i);
    }
    a.add(RDX, Long.BYTES);
    a.add(R8, ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    for (int i = 0; i < VECTORS; i++) {
      a.store(4 + i, RCX, i * VECTOR);
      a.subtract(i, i, 4 + i);
      Avx512Exp.exp(a, i, 12);
      a.load(8 + i, RCX, ROW + i * VECTOR);
      a.multiply(8 + i, 8 + i, i);
    }
    a.load(R8, RDI, OUTPUTS);
    a.load(R10, RDI, SIZE);
    int element = a.label();
    for (int i = 0; i < VECTORS; i++) {
      a.load(12 + i, R8, i * VECTOR);
      a.multiply(12 + i, 12 + i, i);
      a.store(12 + i, R8, i * VECTOR);
    }
    a.add(R8, ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(element);
    a.load(R10, RDI, ROWS);
    int weight = a.label();
    for (int i = 0; i < VECTORS; i++) {
      a.load(12, RSI, i * VECTOR);
      a.subtract(12, 12, 4 + i);
      Avx512Exp.exp(a, 12, 13);
      a.store(12, RSI, i * VECTOR);
      a.add(8 + i, 8 + i, 12);
    }
    a.add(RSI, ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(weight);
    for (int i = 0; i < VECTORS; i++) {
      a.store(8 + i, RCX, ROW + i * VECTOR);
    }
    a.end();
    return a.code();
  }

  /** Scores become weights, and the weights' gradients those of the scores. */
  private static byte[] weighBackFunction() {
    int zero = 19;
    Assembler a = new Assembler();
    beginWeights(a);
    a.zero(zero);
    a.load(RCX, RDI, STATE);
    for (int i = 0; i < VECTORS; i++) {
      a.load(i, RCX, i * VECTOR);
      a.load(4 + i, RCX, ROW + i * VECTOR);
    }
    a.load(R8, RDI, GRADIENTS);
    int row = a.label();
    for (int i = 0; i < VECTORS; i++) {
      a.loadMask(1 + i, RDX, i * Short.BYTES);
      a.load(12, RSI, i * VECTOR);
      a.subtract(12, 12, i);
      Avx512Exp.exp(a, 12, 13);
      a.blend(12, 1 + i, zero, 12);
      a.store(12, RSI, i * VECTOR);
      a.load(16, R8, i * VECTOR);
      a.subtract(16, 16, 4 + i);
      a.multiply(16, 16, 12);
      a.blend(16, 1 + i, zero, 16);
      a.store(16, R8, i * VECTOR);
    }
    a.add(RDX, Long.BYTES);
    a.add(RSI, ROW);
    a.add(R8, ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    a.end();
    return a.code();
  }

  /** Each column's inner product with another's. */
  private static byte[] dotsFunction() {
    Assembler a = new Assembler();
    a.load(RSI, RDI, GRADIENTS);
    a.load(RDX, RDI, OUTPUTS);
    a.load(RCX, RDI, STATE);
    a.load(R10, RDI, SIZE);
    for (int i = 0; i < VECTORS; i++) {
      a.zero(i);
    }
    int row = a.label();
    for (int i = 0; i < VECTORS; i++) {
      a.load(4 + i, RSI, i * VECTOR);
      a.fma(i, 4 + i, RDX, i * VECTOR);
    }
    a.add(RSI, ROW);
    a.add(RDX, ROW);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    for (int i = 0; i < VECTORS; i++) {
      a.store(i, RCX, ROW + i * VECTOR);
    }
    a.end();
    return a.code();
  }

  /** Heads' sums, added up, become rows of the array. */
  private static byte[] sumFunction() {
    Assembler a = new Assembler();
    a.load(RAX, RDI, ARRAY_AT);
    a.add(RSI, RAX);
    a.load(R9, RDI, STRIDE);
    a.load(RDX, RDI, OTHER);
    a.load(R11, RDI, HEAD_STRIDE);
    a.load(R10, RDI, ROWS);
    masks(a);
    int row = a.label();
    a.move(R8, RDX);
    for (int i = 0; i < VECTORS; i++) {
      a.load(1 + i, i, R8, i * VECTOR);
    }
    a.load(RAX, RDI, HEADS);
    a.add(RAX, -1);
    int none = a.jumpIfZero();
    int head = a.label();
    a.add(R8, R11);
    for (int i = 0; i < VECTORS; i++) {
      a.load(1 + i, 4 + i, R8, i * VECTOR);
      a.add(i, i, 4 + i);
    }
    a.add(RAX, -1);
    a.jumpIfNotZero(head);
    a.land(none);
    for (int i = 0; i < VECTORS; i++) {
      a.store(1 + i, i, RSI, i * VECTOR);
    }
    a.add(RSI, R9);
    a.load(RAX, RDI, SIZE);
    a.add(RDX, RAX);
    a.add(R10, -1);
    a.jumpIfNotZero(row);
    a.end();
    return a.code();
  }

  // ---- calling them

  /** What one thread gives to the functions, and the block that it works on. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);
    private final MemorySegment tables =
        arena.allocate((EVERYTHING + MASK_VECTORS) * (long) VECTOR, VECTOR);
    private final MemorySegment rowMasks = arena.allocate(VECTOR, VECTOR);
    private final MemorySegment masks = arena.allocate((long) BLOCK * Long.BYTES, VECTOR);
    private final MemorySegment factors = arena.allocate(ROW, VECTOR);

    /** By query the largest score and the sum of weights; or the log of all sums and the dots. */
    private final MemorySegment state = arena.allocate(2L * ROW, VECTOR);

    private final MemorySegment scores = arena.allocate(WHOLE, VECTOR);
    private final MemorySegment gradients = arena.allocate(WHOLE, VECTOR);
    private final Avx512Blocks.Frame blocks = new Avx512Blocks.Frame();

    // As large as heads: (size, queries), or (queries, size).
    private int size;
    private MemorySegment turnedQueries = MemorySegment.NULL;
    private MemorySegment turnedOutputs = MemorySegment.NULL;
    private MemorySegment turnedGradients = MemorySegment.NULL;
    private MemorySegment outputs = MemorySegment.NULL;
    private MemorySegment queries = MemorySegment.NULL;
    private MemorySegment outputGradients = MemorySegment.NULL;

    Frame() {
      for (int i = 0; i < LANES; i++) {
        // The second of two vectors begins with number 16.
        tables.setAtIndex(JAVA_INT, LOW * LANES + i, i / 2 + i % 2 * LANES);
        tables.setAtIndex(JAVA_INT, HIGH * LANES + i, LANES / 2 + i / 2 + i % 2 * LANES);
      }
      Avx512Exp.constants(tables, EXP * VECTOR);
      tables.set(JAVA_FLOAT, EXP * VECTOR + Avx512Exp.BYTES, Float.NEGATIVE_INFINITY);
      tables.asSlice(EVERYTHING * VECTOR).fill((byte) -1);
      set(TABLES, tables.address());
      set(FACTORS, factors.address());
      set(STATE, state.address());
      set(SCORES, scores.address());
    }

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    private void scale(float scale) {
      arguments.set(JAVA_FLOAT, SCALE, scale);
    }

    private void live(int lanes) {
      set(LIVE, lanes >= BLOCK ? -1 : (1L << lanes) - 1);
    }

    private void reserve(int size) {
      if (this.size < size) {
        this.size = size;
        long bytes = (long) pieces(size) * WHOLE;
        turnedQueries = arena.allocate(bytes, VECTOR);
        turnedOutputs = arena.allocate(bytes, VECTOR);
        turnedGradients = arena.allocate(bytes, VECTOR);
        outputs = arena.allocate(bytes, VECTOR);
        queries = arena.allocate(bytes, VECTOR);
        outputGradients = arena.allocate(bytes, VECTOR);
      }
    }

    private void call(MemorySegment function) {
      NativeCode.call(function, arguments.address());
    }

    private void call(MemorySegment function, float[] array) {
      NativeCode.call(function, arguments.address(), array);
    }

    /** Which of 16 rows there are, each with so many columns. */
    private void rowMasks(int rows, int columns) {
      for (int i = 0; i < LANES; i++) {
        rowMasks.setAtIndex(JAVA_SHORT, i, (short) (i < rows ? (1 << columns) - 1 : 0));
      }
      set(MASKS, rowMasks.address());
    }
  }

  /** Parts of at most 64 that a head's elements are divided into. */
  private static int pieces(int size) {
    return (size + BLOCK - 1) / BLOCK;
  }

  private static int piece(int size, int piece) {
    return Math.min(BLOCK, size - piece * BLOCK);
  }

  /** A piece's elements, filled up to a width that blocks have. */
  private static int width(int size, int piece) {
    int live = piece(size, piece);
    return live <= LANES ? LANES : live <= 2 * LANES ? 2 * LANES : BLOCK;
  }

  /** Bytes that a piece of (rows, elements) begins at, and those of all pieces. */
  private static long pieceAt(int piece) {
    return piece * WHOLE;
  }

  private static long sumsBytes(int size) {
    return (pieces(size) - 1) * WHOLE + (long) BLOCK * width(size, pieces(size) - 1) * Float.BYTES;
  }

  /** Bytes that it works in. */
  long bytes() {
    return memory.live();
  }

  private void room(long bytes) {
    if (room.byteSize() < bytes) {
      region.close();
      // Should there be no memory, what generated code would write to must not be what was freed.
      room = MemorySegment.NULL;
      region = memory.region();
      room = region.allocate("attention", bytes);
    }
  }

  private void begin(int[] starts, Heads heads, float[] q, float[] k, float[] v) {
    this.heads = heads;
    this.q = q;
    this.k = k;
    this.v = v;
    int sequences = starts.length - 1;
    int blocks = 0;
    for (int i = 0; i < sequences; i++) {
      blocks += (starts[i + 1] - starts[i] + BLOCK - 1) / BLOCK;
    }
    if (firsts.length < blocks) {
      firsts = new int[blocks];
      numbers = new int[blocks];
      lives = new int[blocks];
    }
    if (firstBlocks.length < sequences + 1) {
      firstBlocks = new int[sequences + 1];
    }
    count = 0;
    for (int i = 0; i < sequences; i++) {
      firstBlocks[i] = count;
      for (int row = starts[i]; row < starts[i + 1]; row += BLOCK) {
        firsts[count] = starts[i];
        numbers[count] = (row - starts[i]) / BLOCK;
        lives[count++] = Math.min(BLOCK, starts[i + 1] - row);
      }
    }
    firstBlocks[sequences] = count;
  }

  private void end() {
    q = NONE;
    k = NONE;
    v = NONE;
    out = NONE;
    logSums = NONE;
    dOut = NONE;
    dq = NONE;
    dk = NONE;
    dv = NONE;
  }

  /** Shares {@code items}, each by itself unless there are too many. */
  private void share(int items, WorkerPool.Work work, WorkerPool pool) {
    this.items = items;
    shares = Math.min(items, WorkerPool.MOST_SHARES);
    if (shares > 0) {
      pool.run(shares, work);
    }
  }

  private int item(int share) {
    return (int) ((long) items * share / shares);
  }

  /** As {@link dev.wardrobe.compute.Gradients#attention}. */
  void attention(
      int[] starts,
      Heads heads,
      float[] q,
      float[] k,
      float[] v,
      float[] out,
      float[] logSums,
      WorkerPool pool) {
    begin(starts, heads, q, k, v);
    this.out = out;
    this.logSums = logSums;
    back = false;
    long turned = (long) count * heads.keyValues();
    keysAt = 0;
    turnedAt = keysAt + turned * keysBytes();
    room(turnedAt + turned * turnedBytes());
    share(count * heads.keyValues(), turning, pool);
    share(count * heads.queries(), attending, pool);
    end();
  }

  /** As {@link dev.wardrobe.compute.Gradients#attentionInput}. */
  void attentionInput(
      int[] starts,
      Heads heads,
      float[] q,
      float[] k,
      float[] v,
      float[] out,
      float[] logSums,
      float[] dOut,
      float[] dq,
      float[] dk,
      float[] dv,
      WorkerPool pool) {
    begin(starts, heads, q, k, v);
    this.out = out;
    this.logSums = logSums;
    this.dOut = dOut;
    this.dq = dq;
    this.dk = dk;
    this.dv = dv;
    back = true;
    long turned = (long) count * heads.keyValues();
    keysAt = 0;
    turnedAt = keysAt + turned * keysBytes();
    valuesAt = turnedAt + turned * turnedBytes();
    sumsAt = valuesAt + turned * keysBytes();
    room(sumsAt + 2L * count * heads.queries() * sumsBytes(heads.size()));
    share(count * heads.keyValues(), turning, pool);
    share((starts.length - 1) * heads.queries(), differentiating, pool);
    share(count * heads.keyValues(), adding, pool);
    end();
  }

  /** Of a block's keys or values of a head, as inputs: pieces of (rows, 64). */
  private long keysBytes() {
    return pieces(heads.size()) * WHOLE;
  }

  /** The same as (size, rows). */
  private long turnedBytes() {
    return (long) (heads.size() + LANES - 1) / LANES * LANES * ROW;
  }

  private long keys(int block, int head) {
    return room.address() + keysAt + ((long) head * count + block) * keysBytes();
  }

  private long values(int block, int head) {
    return room.address() + valuesAt + ((long) head * count + block) * keysBytes();
  }

  private long turned(int block, int head) {
    return room.address() + turnedAt + ((long) head * count + block) * turnedBytes();
  }

  /** Where a query head's sums of a block are: of keys' gradients, or of values'. */
  private long sums(int block, int head, boolean values) {
    long at = ((values ? (long) count : 0) + block) * heads.queries() + head;
    return room.address() + sumsAt + at * sumsBytes(heads.size());
  }

  private int row(int block) {
    return firsts[block] + numbers[block] * BLOCK;
  }

  /** A head's part of a block's rows, as (rows, elements of a piece) with so many floats a row. */
  private void copy(
      float[] from, int head, int count, int block, float scale, long to, int stride, Frame frame) {
    int size = heads.size();
    frame.scale(scale);
    frame.set(STRIDE, (long) count * size * Float.BYTES);
    frame.set(ROWS, lives[block]);
    for (int piece = 0; piece < pieces(size); piece++) {
      int width = stride == 0 ? width(size, piece) : stride;
      long first = ((long) row(block) * count + head) * size + (long) piece * BLOCK;
      frame.set(ARRAY_AT, first * Float.BYTES);
      frame.set(OTHER, to + pieceAt(piece));
      frame.set(TIMES, width / LANES);
      frame.set(HEAD_STRIDE, (long) width * Float.BYTES);
      frame.live(piece(size, piece));
      frame.call(copy, from);
    }
  }

  /** A head's part of a block's rows, as (elements, 64). */
  private void turnIn(
      float[] from, int head, int count, int block, float scale, long to, Frame frame) {
    frame.scale(scale);
    turn(turnIn, from, head, count, block, to, null, frame);
  }

  /** The other way round, each row times its factor. */
  private void turnOut(float[] into, int head, int count, int block, long from, Frame frame) {
    turn(turnOut, into, head, count, block, from, frame.factors, frame);
  }

  private void turn(
      MemorySegment function,
      float[] array,
      int head,
      int count,
      int block,
      long other,
      @Nullable MemorySegment factors,
      Frame frame) {
    int size = heads.size();
    int whole = size / LANES;
    frame.set(STRIDE, (long) count * size * Float.BYTES);
    for (int row = 0; row < BLOCK; row += LANES) {
      int live = Math.clamp(lives[block] - row, 0, LANES);
      if (live == 0 && factors != null) {
        break;
      }
      // Rows that are none are not read.
      long first = ((long) (row(block) + row) * count + head) * size;
      if (factors != null) {
        frame.set(FACTORS, factors.address() + (long) row * Float.BYTES);
      }
      if (whole > 0) {
        frame.rowMasks(live, LANES);
        frame.set(ARRAY_AT, first * Float.BYTES);
        frame.set(OTHER, other + (long) row * Float.BYTES);
        frame.set(TIMES, whole);
        frame.call(function, array);
      }
      if (size % LANES > 0) {
        frame.rowMasks(live, size % LANES);
        frame.set(ARRAY_AT, (first + (long) whole * LANES) * Float.BYTES);
        frame.set(OTHER, other + (long) whole * LANES * ROW + (long) row * Float.BYTES);
        frame.set(TIMES, 1);
        frame.call(function, array);
      }
    }
  }

  private void turnShare(int share, Scratch scratch) {
    Frame frame = scratch.attentionFrame();
    int kvHeads = heads.keyValues();
    for (int i = item(share); i < item(share + 1); i++) {
      int block = i / kvHeads;
      int head = i % kvHeads;
      copy(k, head, kvHeads, block, 1, keys(block, head), BLOCK, frame);
      if (back) {
        copy(v, head, kvHeads, block, 1, values(block, head), BLOCK, frame);
      }
      turnIn(back ? k : v, head, kvHeads, block, 1, turned(block, head), frame);
    }
  }

  /** Of its sequence's blocks the first that a block of queries sees. */
  private int firstSeen(int block) {
    int first = numbers[block] * BLOCK + 1 - heads.window();
    return heads.window() == 0 ? 0 : Math.max(0, first) / BLOCK;
  }

  /** Which keys of a block each query of another sees. */
  private void masks(int queries, int keys, Frame frame) {
    int apart = (queries - keys) * BLOCK;
    int window = heads.window();
    if (apart > 0 && (window == 0 || apart + BLOCK <= window)) {
      frame.set(MASKS, frame.tables.address() + EVERYTHING * VECTOR);
      return;
    }
    for (int i = 0; i < BLOCK; i++) {
      int from = Math.max(0, i - apart);
      int to = window == 0 ? BLOCK : Math.clamp((long) i - apart + window, 0, BLOCK);
      long mask = from >= to ? 0 : -1L >>> (BLOCK - (to - from)) << from;
      frame.masks.setAtIndex(JAVA_LONG, i, mask);
    }
    frame.set(MASKS, frame.masks.address());
  }

  /** {@code out = inputs · tile}, over a head's elements. */
  private void multiply(long inputs, int rows, MemorySegment tile, MemorySegment out, Frame frame) {
    int size = heads.size();
    out.asSlice(0, (long) rows * ROW).fill((byte) 0);
    for (int piece = 0; piece < pieces(size); piece++) {
      blocks.multiply(
          tile.address() + pieceAt(piece),
          BLOCK,
          piece(size, piece),
          inputs + pieceAt(piece),
          rows,
          out.address(),
          frame.blocks);
    }
  }

  private void attendShare(int share, Scratch scratch) {
    Frame frame = scratch.attentionFrame();
    frame.reserve(heads.size());
    for (int i = item(share); i < item(share + 1); i++) {
      // Blocks that see most come last, where there is most to share.
      attend(i / heads.queries(), i % heads.queries(), frame);
    }
  }

  private void attend(int block, int head, Frame frame) {
    int size = heads.size();
    int queries = heads.queries();
    int kvHead = head / (queries / heads.keyValues());
    int live = lives[block];
    int base = block - numbers[block];
    turnIn(q, head, queries, block, heads.scale(), frame.turnedQueries.address(), frame);
    for (int lane = 0; lane < BLOCK; lane++) {
      frame.state.setAtIndex(JAVA_FLOAT, lane, -Float.MAX_VALUE);
      frame.state.setAtIndex(JAVA_FLOAT, BLOCK + lane, 0);
    }
    frame.outputs.asSlice(0, (long) size * ROW).fill((byte) 0);
    frame.set(OUTPUTS, frame.outputs.address());
    frame.set(SIZE, size);
    for (int number = firstSeen(block); number <= numbers[block]; number++) {
      int keys = lives[base + number];
      multiply(keys(base + number, kvHead), keys, frame.turnedQueries, frame.scores, frame);
      masks(numbers[block], number, frame);
      frame.set(ROWS, keys);
      frame.call(weigh);
      blocks.multiply(
          frame.scores.address(),
          BLOCK,
          keys,
          turned(base + number, kvHead),
          size,
          frame.outputs.address(),
          frame.blocks);
    }
    for (int lane = 0; lane < live; lane++) {
      float max = frame.state.getAtIndex(JAVA_FLOAT, lane);
      float sum = frame.state.getAtIndex(JAVA_FLOAT, BLOCK + lane);
      frame.factors.setAtIndex(JAVA_FLOAT, lane, 1 / sum);
      logSums[(row(block) + lane) * queries + head] = max + (float) Elementary.log(sum);
    }
    turnOut(out, head, queries, block, frame.outputs.address(), frame);
  }

  private void differentiateShare(int share, Scratch scratch) {
    Frame frame = scratch.attentionFrame();
    frame.reserve(heads.size());
    for (int i = item(share); i < item(share + 1); i++) {
      int sequence = i / heads.queries();
      int head = i % heads.queries();
      long bytes = sumsBytes(heads.size());
      for (int block = firstBlocks[sequence]; block < firstBlocks[sequence + 1]; block++) {
        room.asSlice(sums(block, head, false) - room.address(), bytes).fill((byte) 0);
        room.asSlice(sums(block, head, true) - room.address(), bytes).fill((byte) 0);
      }
      for (int block = firstBlocks[sequence]; block < firstBlocks[sequence + 1]; block++) {
        differentiate(block, head, frame);
      }
    }
  }

  private void differentiate(int block, int head, Frame frame) {
    int size = heads.size();
    int queries = heads.queries();
    int kvHead = head / (queries / heads.keyValues());
    int live = lives[block];
    int base = block - numbers[block];
    turnIn(q, head, queries, block, heads.scale(), frame.turnedQueries.address(), frame);
    turnIn(dOut, head, queries, block, 1, frame.turnedGradients.address(), frame);
    turnIn(out, head, queries, block, 1, frame.turnedOutputs.address(), frame);
    copy(q, head, queries, block, heads.scale(), frame.queries.address(), 0, frame);
    copy(dOut, head, queries, block, 1, frame.outputGradients.address(), 0, frame);
    frame.set(GRADIENTS, frame.turnedGradients.address());
    frame.set(OUTPUTS, frame.turnedOutputs.address());
    frame.set(SIZE, size);
    frame.call(dots);
    for (int lane = 0; lane < BLOCK; lane++) {
      float sum = lane < live ? logSums[(row(block) + lane) * queries + head] : 0;
      frame.state.setAtIndex(JAVA_FLOAT, lane, sum);
      frame.factors.setAtIndex(JAVA_FLOAT, lane, heads.scale());
    }
    frame.outputs.asSlice(0, (long) size * ROW).fill((byte) 0);
    frame.set(GRADIENTS, frame.gradients.address());
    for (int number = firstSeen(block); number <= numbers[block]; number++) {
      int other = base + number;
      int keys = lives[other];
      multiply(keys(other, kvHead), keys, frame.turnedQueries, frame.scores, frame);
      multiply(values(other, kvHead), keys, frame.turnedGradients, frame.gradients, frame);
      masks(numbers[block], number, frame);
      frame.set(ROWS, keys);
      frame.call(weighBack);
      blocks.multiply(
          frame.gradients.address(),
          BLOCK,
          keys,
          turned(other, kvHead),
          size,
          frame.outputs.address(),
          frame.blocks);
      sum(frame.queries, frame.gradients, keys, live, sums(other, head, false), frame);
      sum(frame.outputGradients, frame.scores, keys, live, sums(other, head, true), frame);
    }
    turnOut(dq, head, queries, block, frame.outputs.address(), frame);
  }

  /** {@code sums += inputs · tile}, over queries. */
  private void sum(
      MemorySegment tile, MemorySegment inputs, int keys, int queries, long sums, Frame frame) {
    for (int piece = 0; piece < pieces(heads.size()); piece++) {
      blocks.multiply(
          tile.address() + pieceAt(piece),
          width(heads.size(), piece),
          queries,
          inputs.address(),
          keys,
          sums + pieceAt(piece),
          frame.blocks);
    }
  }

  private void addShare(int share, Scratch scratch) {
    Frame frame = scratch.attentionFrame();
    int size = heads.size();
    int kvHeads = heads.keyValues();
    int group = heads.queries() / kvHeads;
    frame.set(STRIDE, (long) kvHeads * size * Float.BYTES);
    frame.set(HEADS, group);
    frame.set(HEAD_STRIDE, sumsBytes(size));
    for (int i = item(share); i < item(share + 1); i++) {
      int block = i / kvHeads;
      int head = i % kvHeads;
      frame.set(ROWS, lives[block]);
      for (int piece = 0; piece < pieces(size); piece++) {
        long first = ((long) row(block) * kvHeads + head) * size + (long) piece * BLOCK;
        frame.set(ARRAY_AT, first * Float.BYTES);
        frame.set(SIZE, (long) width(size, piece) * Float.BYTES);
        frame.live(piece(size, piece));
        frame.set(OTHER, sums(block, head * group, false) + pieceAt(piece));
        frame.call(sum, dk);
        frame.set(OTHER, sums(block, head * group, true) + pieceAt(piece));
        frame.call(sum, dv);
      }
    }
  }

  @Override
  public void close() {
    region.close();
  }
}
