package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvShape;
import java.util.ArrayList;
import java.util.List;

/**
 * Rotation with the cache's writing, and attention over the cache (attention.cu).
 *
 * <p>Runs of a few tokens, as in decoding, are divided over their context: each chunk of {@link
 * CudaStep#CHUNK} positions has blocks of its own, and another kernel joins what they have found.
 * For longer runs a block walks all chunks of its rows. The arithmetic is the same.
 */
final class Attention implements AutoCloseable {
  /** Elements of the largest head. */
  static final int MOST_SIZE = 256;

  /** Tokens of the longest run that is divided over its context. */
  static final int SHORT_RUN = 16;

  /** Memory for what chunks have found; rows that need more are worked on in turn. */
  private static final long MOST_BYTES = 64L << 20;

  private static final int ROPE_THREADS = 256;

  /** Sizes of heads that there are kernels for; others use the next one. */
  private static final List<Integer> SIZES = List.of(32, 64, 80, 96, 128, MOST_SIZE);

  // As in attention.cu.
  private static final int ATTEND_THREADS = 128;
  private static final int JOIN_THREADS = 128;
  private static final int KEYS = 64;
  private static final int PADDING = 8;
  private static final int TILE = 16;

  private final Gpu gpu;
  private final long mostBytes;

  /** The last is in use; graphs of earlier steps may still use the others. */
  private final List<Gpu.Memory> workspaces = new ArrayList<>();

  Attention(Gpu gpu) {
    this(gpu, MOST_BYTES);
  }

  /**
   * @param mostBytes of memory for what chunks have found, unless one tile needs more
   */
  Attention(Gpu gpu, long mostBytes) {
    this.gpu = gpu;
    this.mostBytes = mostBytes;
  }

  /** Where a layer's keys and values are. */
  private record Layer(long address, int blockBytes, boolean f32) {
    static Layer of(CudaKvCache cache, int layer) {
      return new Layer(
          cache.address() + cache.layerOffset(layer),
          Math.toIntExact(cache.shape().blockBytes()),
          cache.shape().type() == KvShape.Type.F32);
    }
  }

  /** Rotates q in place and k on its way to the cache. */
  void rope(
      CudaStep step,
      Heads heads,
      CudaBuffer cos,
      CudaBuffer sin,
      CudaBuffer q,
      CudaBuffer k,
      CudaBuffer v,
      CudaKvCache cache,
      int layer) {
    step.tape().add(new Rope(heads, cos, sin, q, k, v, Layer.of(cache, layer)));
  }

  private record Rope(
      Heads heads,
      CudaBuffer cos,
      CudaBuffer sin,
      CudaBuffer q,
      CudaBuffer k,
      CudaBuffer v,
      Layer layer)
      implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      arguments
          .address(q.address())
          .address(k.address())
          .address(v.address())
          .address(cos.address())
          .address(sin.address())
          .address(layer.address)
          .number(layer.blockBytes)
          .number(layer.f32 ? 1 : 0)
          .number(heads.queries())
          .number(heads.keyValues())
          .number(heads.size());
      int pairs = (heads.queries() + 2 * heads.keyValues()) * (heads.size() / 2);
      gpu.launch("rope", Math.ceilDiv(pairs, ROPE_THREADS), step.rows(), 1, ROPE_THREADS, 0);
    }
  }

  /** Attends. */
  void attend(
      CudaStep step, Heads heads, CudaBuffer q, CudaKvCache cache, int layer, CudaBuffer out) {
    boolean divided = false;
    boolean whole = false;
    int longest = 0;
    for (Batch.Run run : step.batch().runs()) {
      int length = run.to() - run.from();
      boolean isShort = length <= SHORT_RUN;
      divided |= isShort;
      whole |= !isShort;
      longest = isShort ? Math.max(longest, length) : longest;
    }
    Layer at = Layer.of(cache, layer);
    if (divided) {
      step.tape().add(shortRuns(step, heads, q, at, out, longest));
    }
    if (whole) {
      step.tape().add(new Whole(heads, q, at, out, SHORT_RUN + 1, Integer.MAX_VALUE));
    }
  }

  private Op shortRuns(
      CudaStep step, Heads heads, CudaBuffer q, Layer layer, CudaBuffer out, int longest) {
    int chunks = step.chunks();
    if (chunks == 1) {
      return new Whole(heads, q, layer, out, 1, SHORT_RUN);
    }
    // A tile begins in one of the rows that are worked on together, and may end after them.
    int over = Math.min(longest, tileTokens(heads, 1)) - 1;
    long rowBytes = 4L * chunks * heads.queries() * (heads.size() + 2);
    long rows = Math.clamp(mostBytes / rowBytes - over, 1, step.rows());
    long bytes = (rows + over) * rowBytes;
    return new Divided(
        heads, q, layer, out, (int) rows, over, chunks, workspace(bytes), (rows + over) * chunks);
  }

  private long workspace(long bytes) {
    if (workspaces.isEmpty() || workspaces.getLast().bytes() < bytes) {
      long rounded = Math.max(1 << 16, Long.highestOneBit(bytes - 1) << 1);
      workspaces.add(gpu.workspace("attention's chunks", rounded));
    }
    return workspaces.getLast().address();
  }

  /** Tokens of a tile. */
  private static int tileTokens(Heads heads, int tiles) {
    return TILE * tiles / tileHeads(heads, tiles);
  }

  /** Query heads of a token that are in a tile. */
  private static int tileHeads(Heads heads, int tiles) {
    return Math.min(heads.queries() / heads.keyValues(), TILE * tiles);
  }

  /** Attention of runs whose rows have a block for all of their context. */
  private record Whole(
      Heads heads, CudaBuffer q, Layer layer, CudaBuffer out, int leastRun, int mostRun)
      implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      Kernel kernel = Kernel.of(heads, mostRun <= SHORT_RUN);
      int span = leastRun > 1 ? tileTokens(heads, kernel.tiles) : 1;
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      arguments
          .address(q.address())
          .address(out.address())
          .address(layer.address)
          .address(0)
          .address(0);
      add(arguments, heads, layer, 0, step.rows(), span, leastRun, mostRun, 0);
      gpu.launch(
          kernel.name(),
          kernel.blocks(heads),
          Math.ceilDiv(step.rows(), span),
          1,
          ATTEND_THREADS,
          kernel.sharedBytes());
    }
  }

  /**
   * Attention of short runs, each chunk of their context by itself.
   *
   * @param rows worked on together
   * @param over rows after them that their tiles may have
   * @param states of a query head that there is room for
   */
  private record Divided(
      Heads heads,
      CudaBuffer q,
      Layer layer,
      CudaBuffer out,
      int rows,
      int over,
      int chunks,
      long workspace,
      long states)
      implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      Kernel kernel = Kernel.of(heads, true);
      long sums = workspace;
      long maxima = workspace + 4 * states * heads.queries() * heads.size();
      for (int from = 0; from < step.rows(); from += rows) {
        int to = Math.min(step.rows(), from + rows);
        LaunchArguments arguments = gpu.arguments();
        step.addTo(arguments);
        arguments
            .address(q.address())
            .address(out.address())
            .address(layer.address)
            .address(sums)
            .address(maxima);
        add(arguments, heads, layer, from, to, 1, 1, SHORT_RUN, chunks);
        gpu.launch(
            kernel.name(),
            kernel.blocks(heads),
            to - from,
            chunks,
            ATTEND_THREADS,
            kernel.sharedBytes());
        arguments = gpu.arguments();
        step.addTo(arguments);
        arguments
            .address(sums)
            .address(maxima)
            .address(out.address())
            .number(heads.queries())
            .number(heads.size())
            .number(heads.window())
            .number(from)
            .number(to)
            .number(tileTokens(heads, 1))
            .number(SHORT_RUN)
            .number(chunks);
        gpu.launch("join_chunks", heads.queries(), to - from + over, 1, JOIN_THREADS, 0);
      }
    }
  }

  private static void add(
      LaunchArguments arguments,
      Heads heads,
      Layer layer,
      int fromRow,
      int toRow,
      int span,
      int leastRun,
      int mostRun,
      int chunks) {
    arguments
        .number(layer.blockBytes)
        .number(layer.f32 ? 1 : 0)
        .number(heads.queries())
        .number(heads.keyValues())
        .number(heads.size())
        .number(heads.scale())
        .number(heads.window())
        .number(fromRow)
        .number(toRow)
        .number(span)
        .number(leastRun)
        .number(mostRun)
        .number(chunks);
  }

  /**
   * One of attention.cu's.
   *
   * @param size the largest head that it takes
   * @param tiles of 16 rows
   * @param stages blocks of keys in shared memory
   */
  private record Kernel(int size, int tiles, int stages) {
    static Kernel of(Heads heads, boolean forShort) {
      for (int size : SIZES) {
        if (heads.size() <= size) {
          boolean largest = size == MOST_SIZE;
          return new Kernel(size, forShort ? 1 : largest ? 2 : 4, largest ? 1 : 2);
        }
      }
      throw new IllegalArgumentException("heads of " + heads.size());
    }

    String name() {
      return "attend_%s_%d".formatted(tiles == 1 ? "short" : "long", size);
    }

    /** Blocks side by side: KV heads, more for each if a tile does not hold a token's heads. */
    int blocks(Heads heads) {
      int group = heads.queries() / heads.keyValues();
      return heads.keyValues() * Math.ceilDiv(group, tileHeads(heads, tiles));
    }

    /** The size of AttendSpace. */
    int sharedBytes() {
      int rows = TILE * tiles;
      int keys = 2 * stages * KEYS * (size + PADDING);
      int queries = rows * (size + PADDING);
      int weights = rows * (KEYS + PADDING);
      int warps = ATTEND_THREADS / 32;
      return 2 * (keys + queries + weights) + 4 * 2 * warps * rows;
    }
  }

  @Override
  public void close() {
    workspaces.forEach(Gpu.Memory::close);
    workspaces.clear();
  }
}
