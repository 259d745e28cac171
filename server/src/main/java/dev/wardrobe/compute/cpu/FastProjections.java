package dev.wardrobe.compute.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
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
    int threads = pool.threads();
    int padded = paddedRows();
    pool.run(
        (worker, _) -> round(x, first, padded * worker / threads, padded * (worker + 1) / threads));
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
        inputs.asSlice(at + 2L * live, 2L * (width - live)).fill((byte) 0);
      }
    }
  }

  /**
   * The base's products of all rows, whatever their adapters.
   *
   * @param projections of the same input
   * @param x {@code (tokens, in)}
   */
  void linear(List<Projection> projections, float[] x, int tokens, WorkerPool pool) {
    boolean taken = generated != null;
    for (Projection projection : projections) {
      taken &= Avx512Projections.takes(projection.base());
      projection.multiplied();
    }
    if (taken && generated != null) {
      linear(generated, projections, x, tokens, pool);
      return;
    }
    int threads = pool.threads();
    int all = 0;
    for (Projection projection : projections) {
      all += tiles(projection.base().rows());
    }
    int total = all;
    for (int each = 0; each < tokens; each += MOST_ROWS) {
      int first = each;
      begin(Math.min(MOST_ROWS, tokens - first), projections.getFirst().base().cols());
      take(x, first, pool);
      pool.run(
          (worker, scratch) -> {
            library.enter();
            int from = (int) ((long) total * worker / threads);
            int to = (int) ((long) total * (worker + 1) / threads);
            int before = 0;
            for (Projection projection : projections) {
              Panels w = projection.base();
              int count = tiles(w.rows());
              int end = Math.min(to - before, count);
              for (int tile = Math.max(from - before, 0); tile < end; tile++) {
                workers.get(worker).multiply(w, tile, scratch);
                workers.get(worker).copy(w, tile, projection.y(), first);
              }
              before += count;
            }
          });
    }
  }

  /** As {@link #linear(List, float[], int, WorkerPool)}, in generated code. */
  private void linear(
      Bfloat16Projections generated,
      List<Projection> projections,
      float[] x,
      int tokens,
      WorkerPool pool) {
    int cols = projections.getFirst().base().cols();
    int panels = 0;
    for (Projection projection : projections) {
      panels += projection.base().panels();
    }
    int all = panels;
    int shares = pool.threads() * CpuBackend.SHARES;
    // Of chunks none has fewer than 16 rows, unless all have.
    int chunks = (tokens + Bfloat16Projections.CHUNK - 1) / Bfloat16Projections.CHUNK;
    int together = MOST_ROWS / Bfloat16Projections.CHUNK;
    for (int next = 0; next < chunks; next += together) {
      int fromChunk = next;
      int toChunk = Math.min(chunks, fromChunk + together);
      int first = row(tokens, fromChunk, chunks);
      room(Bfloat16Projections.bytes((long) cols * (row(tokens, toChunk, chunks) - first)));
      long at = inputs.address();
      pool.run(
          (share, scratch) -> {
            for (int chunk = fromChunk; chunk < toChunk; chunk++) {
              int row = row(tokens, chunk, chunks);
              int count = row(tokens, chunk + 1, chunks) - row;
              generated.round(
                  x,
                  row,
                  count * share / pool.threads(),
                  count * (share + 1) / pool.threads(),
                  count,
                  cols,
                  at + Bfloat16Projections.bytes((long) (row - first) * cols),
                  scratch.fastFrame());
            }
          });
      pool.run(
          shares,
          (share, scratch) -> {
            int from = (int) ((long) all * share / shares);
            int to = (int) ((long) all * (share + 1) / shares);
            for (int chunk = fromChunk; chunk < toChunk; chunk++) {
              int row = row(tokens, chunk, chunks);
              int count = row(tokens, chunk + 1, chunks) - row;
              long own = at + Bfloat16Projections.bytes((long) (row - first) * cols);
              int before = 0;
              for (Projection projection : projections) {
                Panels w = projection.base();
                int panelFrom = Math.max(from - before, 0);
                int panelTo = Math.min(to - before, w.panels());
                if (panelFrom < panelTo) {
                  generated.linear(
                      w,
                      panelFrom,
                      panelTo,
                      own,
                      count,
                      projection.y(),
                      row,
                      scratch.fastFrame(),
                      scratch);
                }
                before += w.panels();
              }
            }
          });
    }
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
    private final Map<OneDnn.Shape, OneDnn.Product> products = new HashMap<>();

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
        OneDnn.Shape shape =
            back
                ? OneDnn.Shape.backward(chunkRows, width, k > 0)
                : OneDnn.Shape.forward(chunkRows, width, k > 0);
        products
            .computeIfAbsent(shape, missing -> library.product(missing, weights))
            .run(
                inputs.asSlice(inputsAt(chunk, chunkRows, k)),
                sums.asSlice(4L * chunk * OneDnn.TILE_ROWS));
      }
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
      weights.asSlice(bytes * written, bytes * (width / 2 - written)).fill((byte) 0);
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
      products.values().forEach(OneDnn.Product::close);
    }
  }
}
