package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R11;
import static dev.wardrobe.compute.cpu.Assembler.Register.R12;
import static dev.wardrobe.compute.cpu.Assembler.Register.R13;
import static dev.wardrobe.compute.cpu.Assembler.Register.R14;
import static dev.wardrobe.compute.cpu.Assembler.Register.R15;
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

import dev.wardrobe.compute.cpu.Assembler.Register;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Products of float32 factors in machine code that is written at start, for processors with
 * AVX-512: {@code c = fma(scale, Σ, c)}, each sum one chain of fma over k ascending from 0.
 */
final class Avx512Products implements AutoCloseable {
  /*
   * A vector's lanes are columns of c; of some rows at once all sums are in registers, for all of
   * k. There are two kinds of functions, since a factor is broadcast from where it lies:
   *
   * Along a's rows, which are a stride apart. The other factor's columns are packed before to blocks
   * (k, width). A row's blocks come one after the other, so that c is written in order.
   *
   * Across a's rows, where a is transposed: neighbours of a k are of neighbouring rows of c. The
   * other factor is read as it lies. Both are asked for some steps before.
   *
   * A function gets the address of its arguments, each of 64 bits at a place below, and arrays.
   */
  private static final int A_AT = 0;
  private static final int B_AT = 8;
  private static final int C_AT = 16;
  private static final int A_STRIDE = 24;
  private static final int B_STRIDE = 32;
  private static final int C_STRIDE = 40;
  private static final int TILE = 48;
  private static final int BLOCKS = 56;
  private static final int STEPS = 64;
  private static final int REST = 72;
  private static final int MORE = 80;
  private static final int FEWER = 88;
  private static final int SCALE_BY = 96;
  private static final int LIVE = 104;
  private static final int ARGUMENTS = 112;

  private static final int VECTOR = 64;
  private static final int LANES = VECTOR / Float.BYTES;

  /** Vectors of a block, at most. */
  private static final int MOST_VECTORS = 4;

  /** Lanes of a whole block. */
  private static final int BLOCK = MOST_VECTORS * LANES;

  /** Steps of a loop's turn along rows. */
  private static final int UNROLLED = 4;

  /** Vectors of sums that registers hold. */
  private static final int MOST_SUMS = 24;

  /** Rows whose addresses one register's multiples reach. */
  private static final int MOST_ALONG = 8;

  /** How many steps ahead is asked for. */
  private static final int AHEAD_SHIFT = 3;

  /** Blocks as wide as 1, 2 and 4 vectors. */
  private static final int WIDTHS = 3;

  /** Multiplications of a call: the garbage collector waits for it. */
  private static final long CALL = 4 << 20;

  private static final int INPUT = 31;
  private static final int SCALE = 30;
  private static final int RESULT = 29;
  private static final int COLUMNS = 24;

  // By width, then by most rows at once less one.
  private final MemorySegment[][] along = new MemorySegment[WIDTHS][];
  private final MemorySegment[][] across = new MemorySegment[WIDTHS][];
  private final NativeMemory memory = new NativeMemory();
  private NativeMemory.Region region = memory.region();
  private MemorySegment packed = MemorySegment.NULL;

  // What the threads work on.
  private float[] a = NONE;
  private float[] b = NONE;
  private float[] c = NONE;
  private boolean transposeB;
  private float scale;
  private int m;
  private int n;
  private int k;

  /** Vectors of a block, and lanes. */
  private int vectors;

  private int width;
  private int shares;
  private boolean byRows;
  private final WorkerPool.Work packing = this::packShare;
  private final WorkerPool.Work multiplyingAlong = this::alongShare;
  private final WorkerPool.Work multiplyingAcross = this::acrossShare;

  private static final float[] NONE = {};

  private Avx512Products(Iterator<MemorySegment> functions) {
    for (int i = 0; i < WIDTHS; i++) {
      along[i] = take(functions, mostAlong(1 << i));
      across[i] = take(functions, MOST_SUMS >> i);
    }
  }

  private static MemorySegment[] take(Iterator<MemorySegment> functions, int count) {
    MemorySegment[] taken = new MemorySegment[count];
    for (int i = 0; i < count; i++) {
      taken[i] = functions.next();
    }
    return taken;
  }

  private static int mostAlong(int vectors) {
    return Math.min(MOST_ALONG, MOST_SUMS / vectors);
  }

  /** Writes the functions; null where the processor or the system does not take them. */
  static @Nullable Avx512Products load() {
    if (!Vectors.avx512()) {
      return null;
    }
    List<byte[]> code = new ArrayList<>();
    for (int i = 0; i < WIDTHS; i++) {
      for (int most = 1; most <= mostAlong(1 << i); most++) {
        code.add(alongFunction(1 << i, most));
      }
      for (int most = 1; most <= MOST_SUMS >> i; most++) {
        code.add(acrossFunction(1 << i, most));
      }
    }
    List<MemorySegment> functions = NativeCode.load(code);
    return functions == null ? null : new Avx512Products(functions.iterator());
  }

  // ---- writing the functions

  private static final List<Register> KEPT = List.of(RBX, R12, R13, R14, R15);

  private static void begin(Assembler a) {
    KEPT.forEach(a::push);
    a.broadcast(SCALE, RDI, SCALE_BY);
    for (int i = 0; i < MOST_VECTORS; i++) {
      a.loadMask(1 + i, RDI, LIVE + i * Short.BYTES);
    }
    a.load(RAX, RDI, A_AT);
    a.add(RSI, RAX);
  }

  private static void end(Assembler a) {
    KEPT.reversed().forEach(a::pop);
    a.end();
  }

  /**
   * Arrays: a, c. Of c's rows rcx is where a block begins, and rdx where its row does; r8 goes
   * along a's first row, the others are reached by multiples of the stride.
   */
  private static byte[] alongFunction(int vectors, int most) {
    Assembler a = new Assembler();
    begin(a);
    a.load(RAX, RDI, C_AT);
    a.add(RDX, RAX);
    a.load(R11, RDI, A_STRIDE);
    a.load(R12, RDI, C_STRIDE);
    a.move(RBX, R11);
    a.add(RBX, R11);
    a.add(RBX, R11);
    a.move(R14, RBX);
    a.add(R14, R11);
    a.add(R14, R11);
    a.move(R15, R14);
    a.add(R15, R11);
    a.add(R15, R11);
    a.load(R10, RDI, MORE);
    alongRows(a, vectors, most);
    if (most > 1) {
      a.load(R10, RDI, FEWER);
      a.add(R10, 0);
      int none = a.jumpIfZero();
      alongRows(a, vectors, most - 1);
      a.land(none);
    }
    end(a);
    return a.code();
  }

  private static void alongRows(Assembler a, int vectors, int rows) {
    int again = a.label();
    a.load(R9, RDI, TILE);
    a.move(RCX, RDX);
    a.load(R13, RDI, BLOCKS);
    int block = a.label();
    a.move(R8, RSI);
    zero(a, rows * vectors);
    for (int unrolled : new int[] {UNROLLED, 1}) {
      a.load(RAX, RDI, unrolled == 1 ? REST : STEPS);
      a.add(RAX, 0);
      int none = a.jumpIfZero();
      int step = a.label();
      for (int i = 0; i < unrolled; i++) {
        for (int v = 0; v < vectors; v++) {
          a.load(COLUMNS + v, R9, (i * vectors + v) * VECTOR);
        }
        for (int row = 0; row < rows; row++) {
          broadcast(a, row, i * Float.BYTES);
          multiply(a, row, vectors);
        }
      }
      a.add(R9, unrolled * vectors * VECTOR);
      a.add(R8, unrolled * Float.BYTES);
      a.add(RAX, -1);
      a.jumpIfNotZero(step);
      a.land(none);
    }
    write(a, vectors, rows, R12);
    a.add(RCX, vectors * VECTOR);
    a.add(R13, -1);
    a.jumpIfNotZero(block);
    for (int row = 0; row < rows; row++) {
      a.add(RSI, R11);
      a.add(RDX, R12);
    }
    a.add(R10, -1);
    a.jumpIfNotZero(again);
  }

  /** Of the row that is so many strides from r8. */
  private static void broadcast(Assembler a, int row, int offset) {
    switch (row) {
      case 0 -> a.broadcast(INPUT, R8, offset);
      case 1, 2, 4 -> a.broadcast(INPUT, R8, R11, row, offset);
      case 3, 6 -> a.broadcast(INPUT, R8, RBX, row / 3, offset);
      case 5 -> a.broadcast(INPUT, R8, R14, 1, offset);
      default -> a.broadcast(INPUT, R8, R15, 1, offset);
    }
  }

  private static void zero(Assembler a, int sums) {
    for (int i = 0; i < sums; i++) {
      a.zero(i);
    }
  }

  private static void multiply(Assembler a, int row, int vectors) {
    for (int v = 0; v < vectors; v++) {
      a.fma(row * vectors + v, COLUMNS + v, INPUT);
    }
  }

  /** Adds the sums, scaled, to rows of c from rcx on. */
  private static void write(Assembler a, int vectors, int rows, Register stride) {
    a.move(RAX, RCX);
    for (int row = 0; row < rows; row++) {
      for (int v = 0; v < vectors; v++) {
        a.load(1 + v, RESULT, RAX, v * VECTOR);
        a.fma(RESULT, row * vectors + v, SCALE);
        a.store(1 + v, RESULT, RAX, v * VECTOR);
      }
      a.add(RAX, stride);
    }
  }

  /** Arrays: a, b, c; a's are broadcast. */
  private static byte[] acrossFunction(int vectors, int most) {
    Assembler a = new Assembler();
    begin(a);
    a.load(RAX, RDI, B_AT);
    a.add(RDX, RAX);
    a.load(RAX, RDI, C_AT);
    a.add(RCX, RAX);
    a.load(R11, RDI, A_STRIDE);
    a.load(R12, RDI, B_STRIDE);
    a.load(R13, RDI, C_STRIDE);
    a.load(R10, RDI, MORE);
    acrossRows(a, vectors, most);
    if (most > 1) {
      a.load(R10, RDI, FEWER);
      a.add(R10, 0);
      int none = a.jumpIfZero();
      acrossRows(a, vectors, most - 1);
      a.land(none);
    }
    end(a);
    return a.code();
  }

  private static void acrossRows(Assembler a, int vectors, int rows) {
    int again = a.label();
    a.move(R8, RSI);
    a.move(R9, RDX);
    ahead(a, R14, R8, R11);
    ahead(a, R15, R9, R12);
    zero(a, rows * vectors);
    a.load(RAX, RDI, STEPS);
    int step = a.label();
    for (int v = 0; v < vectors; v++) {
      a.load(1 + v, COLUMNS + v, R9, v * VECTOR);
    }
    a.prefetch(R14, 0);
    a.prefetch(R15, 0);
    for (int row = 0; row < rows; row++) {
      a.broadcast(INPUT, R8, row * Float.BYTES);
      multiply(a, row, vectors);
    }
    a.add(R8, R11);
    a.add(R9, R12);
    a.add(R14, R11);
    a.add(R15, R12);
    a.add(RAX, -1);
    a.jumpIfNotZero(step);
    write(a, vectors, rows, R13);
    for (int row = 0; row < rows; row++) {
      a.add(RCX, R13);
    }
    a.add(RSI, rows * Float.BYTES);
    a.add(R10, -1);
    a.jumpIfNotZero(again);
  }

  /** {@code to = from + stride · 8}. */
  private static void ahead(Assembler a, Register to, Register from, Register stride) {
    a.move(to, stride);
    for (int i = 0; i < AHEAD_SHIFT; i++) {
      a.add(to, to);
    }
    a.add(to, from);
  }

  // ---- calling them

  /** What one thread gives to the functions. */
  static final class Frame {
    private final Arena arena = Arena.ofAuto();
    private final MemorySegment arguments = arena.allocate(ARGUMENTS, VECTOR);

    private void set(int argument, long value) {
      arguments.set(JAVA_LONG, argument, value);
    }

    /** Rows at a time: as many as registers hold, and nearly as many each time. */
    private MemorySegment rows(MemorySegment[] functions, int rows) {
      int times = (rows + functions.length - 1) / functions.length;
      int most = (rows + times - 1) / times;
      int fewer = most * times - rows;
      set(MORE, times - fewer);
      set(FEWER, fewer);
      return functions[most - 1];
    }

    /** Lanes of a block that there are. */
    private void live(int lanes) {
      set(LIVE, lanes >= BLOCK ? -1 : (1L << lanes) - 1);
    }
  }

  /** Bytes of packed factors. */
  long bytes() {
    return memory.live();
  }

  /**
   * As {@link dev.wardrobe.compute.Gradients#product}; not both factors may be transposed.
   *
   * @param alone whether it is not worth sharing
   */
  void run(
      float scale,
      float[] a,
      boolean transposeA,
      float[] b,
      boolean transposeB,
      int m,
      int n,
      int k,
      float[] c,
      boolean alone,
      WorkerPool pool) {
    this.a = a;
    this.b = b;
    this.c = c;
    this.transposeB = transposeB;
    this.scale = scale;
    this.m = m;
    this.n = n;
    this.k = k;
    int wanted = alone ? 1 : pool.threads() * CpuBackend.SHARES;
    if (transposeA) {
      // Few rows are all done at once, with few lanes: what is many is then read once.
      vectors = n <= LANES || m <= 3 * MOST_SUMS ? 1 : n <= 2 * LANES || m <= 6 * MOST_SUMS ? 2 : 4;
    } else {
      vectors = n <= LANES ? 1 : n <= 2 * LANES ? 2 : 4;
    }
    width = vectors * LANES;
    int blocks = (n + width - 1) / width;
    byRows = !transposeA || m > n;
    if (transposeA) {
      shares = Math.min(wanted, byRows ? (m + LANES - 1) / LANES : blocks);
      share(multiplyingAcross, pool);
    } else {
      room((long) blocks * width * k * Float.BYTES);
      shares = Math.min(wanted, blocks * k);
      share(packing, pool);
      shares = Math.min(wanted, (m + MOST_ALONG - 1) / MOST_ALONG);
      share(multiplyingAlong, pool);
    }
    this.a = NONE;
    this.b = NONE;
    this.c = NONE;
  }

  private void share(WorkerPool.Work work, WorkerPool pool) {
    if (shares == 1) {
      work.run(0, pool.scratch());
    } else {
      pool.run(shares, work);
    }
  }

  private void room(long bytes) {
    if (packed.byteSize() < bytes) {
      region.close();
      // Should there be no memory, what generated code would write to must not be what was freed.
      packed = MemorySegment.NULL;
      region = memory.region();
      packed = region.allocate("packed factor", bytes);
    }
  }

  private int from(int count, int share) {
    return (int) ((long) count * share / shares);
  }

  /** Columns of b as {@code (blocks, k, width)}; what is beyond the last is never written to c. */
  private void packShare(int share, Scratch scratch) {
    int blocks = (n + width - 1) / width;
    long items = (long) blocks * k;
    long end = items * (share + 1) / shares;
    long item = items * share / shares;
    while (item < end) {
      int block = (int) (item / k);
      int from = (int) (item % k);
      int to = (int) Math.min(k, from + end - item);
      int first = block * width;
      int live = Math.min(width, n - first);
      long at = item * width;
      if (transposeB) {
        for (int j = 0; j < live; j++) {
          int row = (first + j) * k;
          for (int i = from; i < to; i++) {
            packed.setAtIndex(JAVA_FLOAT, at + (long) (i - from) * width + j, b[row + i]);
          }
        }
      } else {
        for (int i = from; i < to; i++) {
          long bytes = (at + (long) (i - from) * width) * Float.BYTES;
          MemorySegment.copy(b, i * n + first, packed, JAVA_FLOAT, bytes, live);
        }
      }
      item += to - from;
    }
  }

  private void alongShare(int share, Scratch scratch) {
    Frame frame = scratch.productsFrame();
    MemorySegment[] functions = along[Integer.numberOfTrailingZeros(vectors)];
    frame.arguments.set(JAVA_FLOAT, SCALE_BY, scale);
    frame.set(A_STRIDE, (long) k * Float.BYTES);
    frame.set(C_STRIDE, (long) n * Float.BYTES);
    frame.set(STEPS, k / UNROLLED);
    frame.set(REST, k % UNROLLED);
    int whole = n / width;
    int most = Math.clamp(CALL / ((long) n * k), 1, 64) * MOST_ALONG;
    int to = from(m, share + 1);
    for (int row = from(m, share); row < to; row += most) {
      int rows = Math.min(most, to - row);
      MemorySegment function = frame.rows(functions, rows);
      frame.set(A_AT, (long) row * k * Float.BYTES);
      if (whole > 0) {
        frame.set(C_AT, (long) row * n * Float.BYTES);
        frame.set(TILE, packed.address());
        frame.set(BLOCKS, whole);
        frame.live(width);
        call(function, frame);
      }
      if (n % width > 0) {
        frame.set(C_AT, ((long) row * n + (long) whole * width) * Float.BYTES);
        frame.set(TILE, packed.address() + (long) whole * width * k * Float.BYTES);
        frame.set(BLOCKS, 1);
        frame.live(n % width);
        call(function, frame);
      }
    }
  }

  private void call(MemorySegment function, Frame frame) {
    NativeCode.call(
        function, frame.arguments.address(), MemorySegment.ofArray(a), MemorySegment.ofArray(c));
  }

  private void acrossShare(int share, Scratch scratch) {
    Frame frame = scratch.productsFrame();
    MemorySegment[] functions = across[Integer.numberOfTrailingZeros(vectors)];
    frame.arguments.set(JAVA_FLOAT, SCALE_BY, scale);
    frame.set(A_STRIDE, (long) m * Float.BYTES);
    frame.set(B_STRIDE, (long) n * Float.BYTES);
    frame.set(C_STRIDE, (long) n * Float.BYTES);
    frame.set(STEPS, k);
    int blocks = (n + width - 1) / width;
    int rowFrom = byRows ? from(m, share) : 0;
    int rowTo = byRows ? from(m, share + 1) : m;
    int blockTo = byRows ? blocks : from(blocks, share + 1);
    int most = Math.clamp(CALL / ((long) width * k * functions.length), 1, 64);
    for (int block = byRows ? 0 : from(blocks, share); block < blockTo; block++) {
      int column = block * width;
      frame.live(Math.min(width, n - column));
      frame.set(B_AT, (long) column * Float.BYTES);
      for (int row = rowFrom; row < rowTo; row += most * functions.length) {
        int rows = Math.min(most * functions.length, rowTo - row);
        MemorySegment function = frame.rows(functions, rows);
        frame.set(A_AT, (long) row * Float.BYTES);
        frame.set(C_AT, ((long) row * n + column) * Float.BYTES);
        NativeCode.call(function, frame.arguments.address(), a, b, c);
      }
    }
  }

  @Override
  public void close() {
    region.close();
  }
}
