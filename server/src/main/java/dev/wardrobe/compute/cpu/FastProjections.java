package dev.wardrobe.compute.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The base's projections of many rows at once, by oneDNN or {@link Bfloat16Projections}: inputs and
 * weights in bfloat16, sums in float32.
 *
 * <p>The weights are never resident in bfloat16. For oneDNN a worker dequantizes 64 outputs into a
 * tile of its own that stays in its cache, multiplies all rows by it, and goes on to the next. Sums
 * go from the cache to the output.
 */
final class FastProjections implements AutoCloseable {
  /** Rows below which the exact kernels are used. */
  static final int LEAST_ROWS = 16;

  /** Panels of a tile. */
  private static final int PANELS = OneDnn.TILE_ROWS / Panels.HEIGHT;

  /** Rows that a tile of weights is used for before it is forgotten. */
  private static final int MOST_ROWS = 512;

  /** Rows of one product; fewer are filled up with zeros to a multiple of {@link #STEP}. */
  private static final int CHUNK = 128;

  /** What bounds the shapes that products are prepared for: preparing takes half a millisecond. */
  private static final int STEP = 8;

  /** Inputs of a tile: 384 KiB, so that tile and inputs fit a cache of 1 MiB. */
  private static final int MOST_INPUTS = 3072;

  private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;

  private final OneDnn library;
  private final Tiles tiles;
  private final @Nullable Bfloat16Projections generated;
  private final NativeMemory memory = new NativeMemory();
  private final NativeMemory.Region region;
  private final List<Worker> workers = new ArrayList<>();
  private NativeMemory.Region inputsRegion;
  private MemorySegment inputs;
  private int rows;
  private int cols;

  // What the threads take turns at, and what it works on: a lambda at each call would be an object,
  // and a step is to allocate nothing.
  private final WorkerPool.Work rounding = (share, _) -> roundShare(share);
  private final WorkerPool.Work multiplying = this::multiplyShare;
  private final WorkerPool.Work roundingChunks = this::roundChunks;
  private final WorkerPool.Work multiplyingChunks = this::multiplyChunks;
  private List<Projection> projections = List.of();
  private int count;
  private float[] x = {};
  private int threads;
  private int shares;

  /** Tiles or panels of all projections. */
  private int total;

  /** The first row at work. */
  private int first;

  private int tokens;
  private int chunks;
  private int fromChunk;
  private int toChunk;

  /**
   * @param generated what multiplies by the weights that it takes, in the library's place
   */
  FastProjections(
      OneDnn library, Tiles tiles, @Nullable Bfloat16Projections generated, int threads) {
    this.library = library;
    this.tiles = tiles;
    this.generated = generated;
    region = memory.region();
    for (int i = 0; i < threads; i++) {
      workers.add(new Worker());
    }
    inputsRegion = memory.region();
    inputs = MemorySegment.NULL;
  }

  /** For people. */
  String describe() {
    return library.describe() + (generated == null ? "" : " and generated code");
  }

  /** Whether there is generated code for some weights. */
  boolean generates() {
    return generated != null;
  }

  /** Bytes of tiles, sums and inputs. */
  long bytes() {
    return memory.live();
  }

  /** Waits until the tiles are compiled and in use; false if they are not after that time. */
  boolean awaitWarm(long nanos) throws InterruptedException {
    return !(tiles instanceof TieredTiles tiered) || tiered.awaitDrilled(nanos);
  }

  /** Tiles of so many outputs, the last one padded. */
  private static int tiles(int outputs) {
    return (outputs + OneDnn.TILE_ROWS - 1) / OneDnn.TILE_ROWS;
  }

  /** Makes room for {@code rows} inputs of {@code cols}. */
  private void begin(int rows, int cols) {
    this.rows = rows;
    this.cols = cols;
    room(2L * paddedRows() * paddedCols());
  }

  private void room(long bytes) {
    if (inputs.byteSize() < bytes) {
      inputsRegion.close();
      // Should there be no memory, what generated code would write to must not be what was freed.
      inputs = MemorySegment.NULL;
      inputsRegion = memory.region();
      inputs = inputsRegion.allocate("inputs in bfloat16", bytes);
    }
  }

  private int paddedRows() {
    return roundUp(rows, STEP);
  }

  private int paddedCols() {
    return roundUp(cols, OneDnn.TILE_INPUTS);
  }

  /** Inputs of all parts but the last, which may have fewer. */
  private int partInputs() {
    int padded = paddedCols();
    int parts = (padded + MOST_INPUTS - 1) / MOST_INPUTS;
    return roundUp((padded + parts - 1) / parts, Panels.UNIT);
  }

  private static int roundUp(int count, int to) {
    return (count + to - 1) / to * to;
  }

  /** Where the inputs {@code k} on of the chunk's rows are: chunk by chunk, in it part by part. */
  private long inputsAt(int chunk, int chunkRows, int k) {
    return 2 * ((long) chunk * paddedCols() + (long) chunkRows * k);
  }

  /** Rounds the inputs, which begin with row {@code first} of {@code x}. */
  private void take(float[] x, int first, WorkerPool pool) {
    this.x = x;
    this.first = first;
    threads = pool.threads();
    pool.run(rounding);
  }

  private void roundShare(int share) {
    int padded = paddedRows();
    round(x, first, padded * share / threads, padded * (share + 1) / threads);
  }

  private void round(float[] x, int first, int from, int to) {
    int padded = paddedCols();
    int part = partInputs();
    for (int row = from; row < to; row++) {
      int chunk = row / CHUNK * CHUNK;
      int chunkRows = Math.min(CHUNK, paddedRows() - chunk);
      for (int k = 0; k < padded; k += part) {
        int width = Math.min(part, padded - k);
        int live = row < rows ? Math.min(width, cols - k) : 0;
        long at = inputsAt(chunk, chunkRows, k) + 2L * (row - chunk) * width;
        if (live > 0) {
          tiles.round(x, (first + row) * cols + k, live, inputs, at);
        }
        clear(inputs, at + 2L * live, at + 2L * width);
      }
    }
  }

  /** Two bytes each; a slice to fill would be an object. */
  private static void clear(MemorySegment data, long from, long to) {
    for (long at = from; at < to; at += 2) {
      data.set(ValueLayout.JAVA_SHORT, at, (short) 0);
    }
  }

  /**
   * The base's products of all rows, whatever their adapters.
   *
   * @param projections of the same input
   * @param count how many of them, from the first on
   * @param x {@code (tokens, in)}
   */
  void linear(List<Projection> projections, int count, float[] x, int tokens, WorkerPool pool) {
    this.projections = projections;
    this.count = count;
    this.x = x;
    this.tokens = tokens;
    threads = pool.threads();
    boolean taken = generated != null;
    for (int i = 0; i < count; i++) {
      taken &= Avx512Projections.takes(projections.get(i).base());
      projections.get(i).multiplied();
    }
    if (taken) {
      linearInGeneratedCode(pool);
    } else {
      linearInLibrary(pool);
    }
  }

  private void linearInLibrary(WorkerPool pool) {
    total = 0;
    for (int i = 0; i < count; i++) {
      total += tiles(projections.get(i).base().rows());
    }
    for (int each = 0; each < tokens; each += MOST_ROWS) {
      begin(Math.min(MOST_ROWS, tokens - each), projections.getFirst().base().cols());
      take(x, each, pool);
      pool.run(multiplying);
    }
  }

  private void multiplyShare(int share, Scratch scratch) {
    library.enter();
    Worker worker = workers.get(share);
    int from = (int) ((long) total * share / threads);
    int to = (int) ((long) total * (share + 1) / threads);
    int before = 0;
    for (int i = 0; i < count; i++) {
      Projection projection = projections.get(i);
      Panels w = projection.base();
      int own = tiles(w.rows());
      int end = Math.min(to - before, own);
      for (int tile = Math.max(from - before, 0); tile < end; tile++) {
        worker.multiply(w, tile, scratch);
        worker.copy(w, tile, projection.y(), first);
      }
      before += own;
    }
  }

  private void linearInGeneratedCode(WorkerPool pool) {
    cols = projections.getFirst().base().cols();
    total = 0;
    for (int i = 0; i < count; i++) {
      total += projections.get(i).base().panels();
    }
    shares = pool.threads() * CpuBackend.SHARES;
    // Of chunks none has fewer than 16 rows, unless all have.
    chunks = (tokens + Bfloat16Projections.CHUNK - 1) / Bfloat16Projections.CHUNK;
    int together = MOST_ROWS / Bfloat16Projections.CHUNK;
    for (int next = 0; next < chunks; next += together) {
      fromChunk = next;
      toChunk = Math.min(chunks, next + together);
      first = row(tokens, fromChunk, chunks);
      room(Bfloat16Projections.bytes((long) cols * (row(tokens, toChunk, chunks) - first)));
      pool.run(roundingChunks);
      pool.run(shares, multiplyingChunks);
    }
  }

  private void roundChunks(int share, Scratch scratch) {
    Bfloat16Projections code = Objects.requireNonNull(generated);
    for (int chunk = fromChunk; chunk < toChunk; chunk++) {
      int row = row(tokens, chunk, chunks);
      int own = row(tokens, chunk + 1, chunks) - row;
      code.round(
          x,
          row,
          own * share / threads,
          own * (share + 1) / threads,
          own,
          cols,
          chunkAt(row),
          scratch.fastFrame());
    }
  }

  private void multiplyChunks(int share, Scratch scratch) {
    Bfloat16Projections code = Objects.requireNonNull(generated);
    int from = (int) ((long) total * share / shares);
    int to = (int) ((long) total * (share + 1) / shares);
    for (int chunk = fromChunk; chunk < toChunk; chunk++) {
      int row = row(tokens, chunk, chunks);
      int own = row(tokens, chunk + 1, chunks) - row;
      int before = 0;
      for (int i = 0; i < count; i++) {
        Projection projection = projections.get(i);
        Panels w = projection.base();
        int panelFrom = Math.max(from - before, 0);
        int panelTo = Math.min(to - before, w.panels());
        if (panelFrom < panelTo) {
          code.linear(
              w,
              panelFrom,
              panelTo,
              chunkAt(row),
              own,
              projection.y(),
              row,
              scratch.fastFrame(),
              scratch);
        }
        before += w.panels();
      }
    }
  }

  /** Where the inputs are of the chunk that begins with {@code row}. */
  private long chunkAt(int row) {
    return inputs.address() + Bfloat16Projections.bytes((long) (row - first) * cols);
  }

  /** The first row of a chunk. */
  private static int row(int rows, int chunk, int chunks) {
    return (int) ((long) rows * chunk / chunks);
  }

  /**
   * Inputs' gradients: {@code dx += dy·w}.
   *
   * @param dy {@code (tokens, w.rows())}
   * @param dx {@code (tokens, w.cols())}
   */
  void linearInput(Panels w, float[] dy, int tokens, float[] dx, WorkerPool pool) {
    int threads = pool.threads();
    int tiles = tiles(w.cols());
    for (int each = 0; each < tokens; each += MOST_ROWS) {
      int first = each;
      begin(Math.min(MOST_ROWS, tokens - first), w.rows());
      take(dy, first, pool);
      pool.run(
          (worker, scratch) -> {
            library.enter();
            Worker own = workers.get(worker);
            int end = (int) ((long) tiles * (worker + 1) / threads);
            for (int tile = (int) ((long) tiles * worker / threads); tile < end; tile++) {
              own.multiplyBack(w, tile, scratch);
              own.add(w, tile, dx, first);
            }
          });
    }
  }

  @Override
  public void close() {
    for (Worker worker : workers) {
      worker.close();
    }
    inputsRegion.close();
    region.close();
    library.close();
  }

  /** One worker's tile and sums. */
  private final class Worker implements AutoCloseable {
    private final MemorySegment weights =
        region.allocate("tile of weights", 2L * OneDnn.TILE_ROWS * MOST_INPUTS);
    private final MemorySegment sums =
        region.allocate("sums of a tile", 4L * OneDnn.TILE_ROWS * MOST_ROWS);
    private final List<OneDnn.Product> products = new ArrayList<>();

    void multiply(Panels w, int tile, Scratch scratch) {
      int padded = paddedCols();
      int part = partInputs();
      for (int k = 0; k < padded; k += part) {
        int width = Math.min(part, padded - k);
        fill(w, tile, k, width, scratch);
        run(k, width, false);
      }
    }

    /** Multiplies all rows, and adds from the second part on. */
    private void run(int k, int width, boolean back) {
      for (int chunk = 0; chunk < rows; chunk += CHUNK) {
        int chunkRows = Math.min(CHUNK, paddedRows() - chunk);
        product(chunkRows, width, k > 0, back)
            .run(
                inputs.address() + inputsAt(chunk, chunkRows, k),
                sums.address() + 4L * chunk * OneDnn.TILE_ROWS);
      }
    }

    /** Prepared the first time; there are few, and a key to find one by would be an object. */
    private OneDnn.Product product(int rows, int inputs, boolean adds, boolean back) {
      for (int i = 0; i < products.size(); i++) {
        OneDnn.Product known = products.get(i);
        if (known.is(rows, inputs, adds, back)) {
          return known;
        }
      }
      OneDnn.Shape shape =
          back
              ? OneDnn.Shape.backward(rows, inputs, adds)
              : OneDnn.Shape.forward(rows, inputs, adds);
      OneDnn.Product product = library.product(shape, weights);
      products.add(product);
      return product;
    }

    private void fill(Panels w, int tile, int k, int width, Scratch scratch) {
      int live = Math.min(width, cols - k);
      int last = Math.min((tile + 1) * PANELS, w.panels());
      for (int panel = tile * PANELS; panel < last; panel++) {
        long at = 4L * (panel % PANELS) * Panels.HEIGHT;
        tiles.pairs(w, panel, k, live, weights, at, scratch);
      }
      long bytes = 4L * OneDnn.TILE_ROWS;
      long written = (live + 1L) / 2;
      clear(weights, bytes * written, bytes * (width / 2));
    }

    void multiplyBack(Panels w, int tile, Scratch scratch) {
      int padded = paddedCols();
      int part = partInputs();
      for (int o = 0; o < padded; o += part) {
        int width = Math.min(part, padded - o);
        turn(w, tile, o, width, scratch);
        run(o, width, true);
      }
    }

    /** For each of the tile's inputs, outputs {@code o} to {@code o + width} side by side. */
    private void turn(Panels w, int tile, int o, int width, Scratch scratch) {
      int k = tile * OneDnn.TILE_ROWS;
      int count = Math.min(OneDnn.TILE_ROWS, w.cols() - k);
      int written = Math.min(width, w.panels() * Panels.HEIGHT - o);
      for (int from = 0; from < written; from += Panels.HEIGHT) {
        tiles.columns(
            w, (o + from) / Panels.HEIGHT, k, count, weights, 2L * from, 2L * width, scratch);
      }
      for (int i = 0; i < OneDnn.TILE_ROWS; i++) {
        int live = i < count ? written : 0;
        weights.asSlice(2L * (i * (long) width + live), 2L * (width - live)).fill((byte) 0);
      }
    }

    void add(Panels w, int tile, float[] dx, int first) {
      int from = tile * OneDnn.TILE_ROWS;
      int live = Math.min(OneDnn.TILE_ROWS, w.cols() - from);
      for (int row = 0; row < rows; row++) {
        int at = (first + row) * w.cols() + from;
        for (int i = 0; i < live; i++) {
          dx[at + i] += sums.get(FLOAT, 4L * (row * OneDnn.TILE_ROWS + i));
        }
      }
    }

    void copy(Panels w, int tile, float[] y, int first) {
      int from = tile * OneDnn.TILE_ROWS;
      int live = Math.min(OneDnn.TILE_ROWS, w.rows() - from);
      for (int row = 0; row < rows; row++) {
        MemorySegment.copy(
            sums, FLOAT, 4L * row * OneDnn.TILE_ROWS, y, (first + row) * w.rows() + from, live);
      }
    }

    @Override
    public void close() {
      products.forEach(OneDnn.Product::close);
    }
  }
}
