package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Linear;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Projections with their adapters: projections.cu and adapters.cu. A group that reads the same rows
 * is one launch for each form of its matrices; what the adapters add, two for all of them.
 *
 * <p>How many tokens there are chooses the kernel; the sums are the same in all of them.
 */
final class Projections implements AutoCloseable {
  /** Rows that are projected at once: so much memory the rows as bf16 take. */
  private static final int PASS = 1024;

  /** Matrices of a launch, MOST_OF_GROUP in the kernels. */
  private static final int GROUP = 4;

  /** Rows up to which kernels read their float32 themselves. */
  private static final int UNPACKED = 8;

  private static final int THREADS = 256;
  private static final int EXPAND_THREADS = 128;
  private static final int SHRINK_RANKS = 4;

  /** The counters that say where rows end: TOKENS and OUTPUTS in wardrobe.cuh. */
  private static final int TOKENS = 0;

  private static final int OUTPUTS = 3;
  private static final int ALL = Integer.MAX_VALUE;

  /** Rows from which on a library multiplies in fast mode; fewer are bound by reading weights. */
  private static final int WORTH_WIDENING = 64;

  /** Bytes of weights that are widened for a library at a time. */
  private static final long WIDENED = 64 << 20;

  /** Rows that are widened at a time are a multiple of it. */
  private static final int PIECE = 64;

  private final Gpu gpu;
  private final @Nullable CublasLt library;
  private final Runnable beforeMove;
  private Gpu.@Nullable Memory packed;
  private Gpu.@Nullable Memory shrunk;
  private Gpu.@Nullable Memory narrowed;
  private Gpu.@Nullable Memory widened;
  private @Nullable Tiling only;

  /** How a kernel divides its work; the kernels' names end so. */
  enum Tiling {
    T8X16(8, 16, "8x16"),
    T8X32(8, 32, "8x32"),
    T16X32(16, 32, "16x32"),
    T32X32(32, 32, "32x32"),
    T32X256(32, 256, "32x256");

    private final int tokens;
    private final int rows;
    private final String name;

    /**
     * @param tokens of a thread block
     * @param rows of the weights, of a thread block
     */
    Tiling(int tokens, int rows, String name) {
      this.tokens = tokens;
      this.rows = rows;
      this.name = name;
    }

    /** The one that so many tokens and rows of weights are best divided by. */
    static Tiling of(int tokens, long rows, int multiprocessors) {
      if (tokens <= T8X16.tokens) {
        return rows / T8X32.rows < 2L * multiprocessors ? T8X16 : T8X32;
      }
      if (tokens <= T16X32.tokens) {
        return T16X32;
      }
      long blocks = (tokens + T32X256.tokens - 1L) / T32X256.tokens * (rows / T32X256.rows);
      return blocks < multiprocessors ? T32X32 : T32X256;
    }
  }

  /** Which kernel a matrix needs. */
  private enum Kind {
    NESTED("nested"),
    PLAIN("plain"),
    DENSE("dense"),
    ROWS("");

    /** Rows of a thread block that sums any matrix's rows one by one. */
    static final int ROWS_OF_BLOCK = 8;

    private final String kernel;

    Kind(String kernel) {
      this.kernel = kernel;
    }

    static Kind of(Weights weights) {
      if (weights.form() == Weights.TILES) {
        return weights.map() != 0 ? NESTED : PLAIN;
      }
      return weights.form() == Weights.BF16 && weights.cols() % FourBitTiles.COLS == 0
          ? DENSE
          : ROWS;
    }

    /**
     * Bytes of shared memory of a thread block: the table of pairs, the map of scales, the ring.
     */
    int shared(Tiling tiling) {
      if (this == DENSE) {
        return 64 << 10;
      }
      int ring = tiling.tokens > 16 ? 64 << 10 : 32 << 10;
      return (32 << 10) + 1024 + ring;
    }
  }

  /**
   * A matrix and where its products go.
   *
   * @param firstRow of the output that is written
   */
  private record Target(
      Weights weights, int module, @Nullable CudaBuffer bias, CudaBuffer out, int firstRow) {
    long outAddress(int row) {
      return out.address() + 4L * out.width() * (firstRow + row);
    }
  }

  /**
   * Which rows: tokens {@code from} to {@code to}, or as many outputs.
   *
   * @param to {@link #ALL} for as many as the step has
   */
  private record Selection(CudaBuffer x, int counter, int from, int to) {
    /** How many rows grids are made for. */
    int extent(CudaStep step) {
      return to != ALL ? to - from : (counter == TOKENS ? step.rows() : step.outputs()) - from;
    }

    void addTo(LaunchArguments arguments, long packedAddress, int at) {
      arguments
          .address(x.address())
          .address(packedAddress)
          .number(counter)
          .number(from + at)
          .number((int) Math.min(to, (long) from + at + PASS))
          .number(x.width());
    }
  }

  /**
   * Projects on a device.
   *
   * @param library multiplies many rows by the base's weights, in an order of its own; null where
   *     every sum is to have the order that these kernels give it
   * @param beforeMove called before memory that graphs know is taken elsewhere
   */
  Projections(Gpu gpu, @Nullable CublasLt library, Runnable beforeMove) {
    this.gpu = gpu;
    this.library = library;
    this.beforeMove = beforeMove;
  }

  /** Has every projection divided in one way, whatever its size; null is the rule again. */
  void divideBy(@Nullable Tiling tiling) {
    only = tiling;
  }

  void linear(CudaStep step, List<Linear> linears, CudaBuffer x, List<CudaBuffer> outs) {
    add(step, linears, outs, new Selection(x, TOKENS, 0, ALL), step.batch().segments());
  }

  void logits(CudaStep step, Linear head, CudaBuffer x, int from, int to, CudaBuffer logits) {
    Batch batch = step.batch();
    // All that are left are the same operation in every step, however many they are.
    Selection rows = new Selection(x, OUTPUTS, from, to == batch.outputs() ? ALL : to);
    add(step, List.of(head), List.of(logits), rows, batch.segments(from, to));
  }

  /**
   * @param segments of the selected rows, counted from the first of them
   */
  private void add(
      CudaStep step,
      List<Linear> linears,
      List<CudaBuffer> outs,
      Selection rows,
      List<Batch.Segment> segments) {
    List<Target> targets = new ArrayList<>(linears.size());
    for (int i = 0; i < linears.size(); i++) {
      Linear linear = linears.get(i);
      targets.add(
          new Target(
              CudaBackend.own(linear.weight()).weights(),
              linear.module(),
              linear.bias() == null ? null : CudaBackend.own(linear.bias()),
              outs.get(i),
              0));
    }
    // What is closed is refused now: an operation that repeats another is not launched by itself.
    rows.x.checkOpen();
    for (Target target : targets) {
      target.out.checkOpen();
      if (target.bias != null) {
        target.bias.checkOpen();
      }
    }
    List<Runnable> replaced = new ArrayList<>();
    for (int i = 0; i < segments.size(); i++) {
      Batch.Segment segment = segments.get(i);
      if (segment.lora() instanceof CudaLora lora) {
        for (Target target : targets) {
          Weights weights = lora.checked(target.module, target.weights);
          if (weights != null) {
            Selection own =
                new Selection(
                    rows.x, rows.counter, rows.from + segment.from(), rows.from + segment.to());
            Target instead =
                new Target(weights, target.module, target.bias, target.out, segment.from());
            replaced.add(() -> step.tape().add(new Base(this, List.of(instead), own)));
          }
        }
      }
    }
    reserve(step, rows, targets.size());
    if (takesLibrary(step, targets, rows)) {
      reserveForLibrary(step, targets, rows);
      step.tape().add(new ByLibrary(this, targets, rows));
    } else {
      step.tape().add(new Base(this, targets, rows));
    }
    replaced.forEach(Runnable::run);
    if (step.adapted()) {
      step.tape().add(new Adapters(this, targets, rows));
    }
  }

  /** Makes room for what the kernels of one pass write for each other. */
  private void reserve(CudaStep step, Selection rows, int count) {
    long passRows = Math.min(PASS, rows.extent(step));
    if (passRows > UNPACKED || only != null) {
      long padded = (passRows + 31) / 32 * 32;
      packed = atLeast(packed, "rows as bf16", padded * rows.x.width() * 2);
    }
    if (step.adapted() && step.rank() > 0) {
      long numbers = passRows * step.depth() * Math.min(count, GROUP) * step.rank();
      shrunk = atLeast(shrunk, "rows that adapters shrank", 4 * numbers);
    }
  }

  private boolean takesLibrary(CudaStep step, List<Target> targets, Selection rows) {
    // A grid that is rounded up would have the library write beyond the last row.
    return library != null
        && !step.replayable()
        && rows.extent(step) >= WORTH_WIDENING
        && targets.stream().allMatch(target -> target.bias == null || !step.adapted());
  }

  private void reserveForLibrary(CudaStep step, List<Target> targets, Selection rows) {
    narrowed = atLeast(narrowed, "rows for a library", 2L * rows.extent(step) * rows.x.width());
    long most = 0;
    for (Target target : targets) {
      most = Math.max(most, 2L * target.weights.cols() * pieceRows(target.weights));
    }
    widened = atLeast(widened, "weights for a library", most);
  }

  /** Rows of a matrix that are widened at a time. */
  private static int pieceRows(Weights weights) {
    // A piece's results begin at a multiple of 256 bytes: the library counts on that.
    long fit = Math.max(1, WIDENED / (2L * weights.cols()) / PIECE) * PIECE;
    return (int) Math.min(weights.rows(), fit);
  }

  /** The same products by a library, of weights that are widened to bf16 piece by piece. */
  private record ByLibrary(Projections kept, List<Target> targets, Selection rows) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      int extent = rows.extent(step);
      int in = rows.x.width();
      long x = address(kept.narrowed);
      LaunchArguments arguments = gpu.arguments();
      arguments
          .address(rows.x.address())
          .address(x)
          .address(rows.counter == OUTPUTS ? step.outputTable() : 0)
          .number(rows.from)
          .number(in);
      gpu.launch("narrow_rows", extent, Math.ceilDiv(in, THREADS), 1, THREADS, 0);
      for (Target target : targets) {
        Weights weights = target.weights;
        int piece = pieceRows(weights);
        for (int first = 0; first < weights.rows(); first += piece) {
          int count = Math.min(piece, weights.rows() - first);
          long w = weights.data() + 2L * first * in;
          if (weights.form() != Weights.BF16) {
            w = address(kept.widened);
            arguments = gpu.arguments();
            weights.addTo(arguments);
            arguments.pad().address(w).number(first).number(count);
            gpu.launch("widen_weights", count, Math.ceilDiv(in, 8 * THREADS), 1, THREADS, 0);
          }
          Objects.requireNonNull(kept.library)
              .multiply(
                  w, count, in, x, extent, target.outAddress(0) + 4L * first, target.out.width());
        }
        if (target.bias != null) {
          arguments = gpu.arguments();
          arguments
              .address(target.bias.address())
              .address(target.outAddress(0))
              .number(target.out.width());
          gpu.launch("add_bias", extent, Math.ceilDiv(target.out.width(), THREADS), 1, THREADS, 0);
        }
      }
    }
  }

  private Gpu.Memory atLeast(Gpu.@Nullable Memory memory, String what, long bytes) {
    if (memory != null && memory.bytes() >= bytes) {
      return memory;
    }
    // First what is new: where it cannot be had, what there is stays.
    Gpu.Memory larger = gpu.workspace(what, Math.max(1 << 16, Long.highestOneBit(bytes - 1) << 1));
    beforeMove.run();
    if (memory != null) {
      memory.close();
    }
    return larger;
  }

  private static long address(Gpu.@Nullable Memory memory) {
    return memory == null ? 0 : memory.address();
  }

  /** The products of the rows with the matrices, and the biases of rows without a delta. */
  private record Base(Projections kept, List<Target> targets, Selection rows) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      int extent = rows.extent(step);
      for (int at = 0; at < extent; at += PASS) {
        int count = Math.min(PASS, extent - at);
        boolean isPacked = false;
        for (Kind kind : Kind.values()) {
          List<Target> group = new ArrayList<>();
          for (Target target : targets) {
            if (Kind.of(target.weights) == kind) {
              group.add(target);
            }
          }
          for (int i = 0; i < group.size(); i += GROUP) {
            List<Target> some = group.subList(i, Math.min(group.size(), i + GROUP));
            isPacked |= launch(gpu, step, kind, some, at, count, isPacked);
          }
        }
      }
    }

    /** Returns whether the rows were packed. */
    private boolean launch(
        Gpu gpu,
        CudaStep step,
        Kind kind,
        List<Target> group,
        int at,
        int count,
        boolean isPacked) {
      if (kind == Kind.ROWS) {
        int blocks = arguments(gpu, step, group, Kind.ROWS_OF_BLOCK, at);
        gpu.launch("linear_rows", Math.ceilDiv(count, 8), blocks, 1, THREADS, 0);
        return false;
      }
      long allRows = 0;
      for (Target target : group) {
        allRows += target.weights.rows();
      }
      Tiling only = kept.only;
      Tiling tiling = only == null ? Tiling.of(count, allRows, gpu.multiprocessors()) : only;
      boolean packs = tiling.tokens > UNPACKED && !isPacked;
      if (packs) {
        LaunchArguments arguments = gpu.arguments();
        step.addTo(arguments);
        rows.addTo(arguments, 0, at);
        arguments.address(address(kept.packed));
        int pieces = Math.ceilDiv(rows.x.width() / 32 * 32, THREADS);
        gpu.launch("pack_rows", pieces, (count + 31) / 32 * 4, 1, THREADS, 0);
      }
      int blocks = arguments(gpu, step, group, tiling.rows, at);
      gpu.launch(
          kind.kernel + "_" + tiling.name,
          Math.ceilDiv(count, tiling.tokens),
          blocks,
          1,
          THREADS,
          kind.shared(tiling));
      return packs;
    }

    /** LinearArgs; returns how many blocks the matrices' rows are. */
    private int arguments(Gpu gpu, CudaStep step, List<Target> group, int rowsOfBlock, int at) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      rows.addTo(arguments, address(kept.packed), at);
      int blocks = 0;
      for (int i = 0; i < GROUP; i++) {
        Target target = group.get(Math.min(i, group.size() - 1));
        target.weights.addTo(arguments);
        arguments
            .address(target.bias == null ? 0 : target.bias.address())
            .address(target.outAddress(at))
            .number(target.module)
            .number(blocks);
        if (i < group.size()) {
          blocks += Math.ceilDiv(target.weights.rows(), rowsOfBlock);
        }
      }
      arguments.number(group.size());
      return blocks;
    }
  }

  /** What the rows' adapters add. */
  private record Adapters(Projections kept, List<Target> targets, Selection rows) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      int extent = rows.extent(step);
      for (int at = 0; at < extent; at += PASS) {
        int count = Math.min(PASS, extent - at);
        for (int i = 0; i < targets.size(); i += GROUP) {
          List<Target> some = targets.subList(i, Math.min(targets.size(), i + GROUP));
          if (step.rank() > 0) {
            shrink(gpu, step, some, at, count);
          }
          expand(gpu, step, some, at, count);
        }
      }
    }

    private void shrink(Gpu gpu, CudaStep step, List<Target> group, int at, int count) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      rows.addTo(arguments, 0, at);
      arguments.address(address(kept.shrunk));
      for (int i = 0; i < GROUP; i++) {
        arguments.number(group.get(Math.min(i, group.size() - 1)).module);
      }
      arguments.number(group.size()).number(step.depth()).number(step.rank());
      int blocks = group.size() * Math.ceilDiv(step.rank(), SHRINK_RANKS);
      gpu.launch("shrink", blocks, count, step.depth(), THREADS, 0);
    }

    private void expand(Gpu gpu, CudaStep step, List<Target> group, int at, int count) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      rows.addTo(arguments, 0, at);
      arguments.address(address(kept.shrunk));
      int blocks = 0;
      for (int i = 0; i < GROUP; i++) {
        Target target = group.get(Math.min(i, group.size() - 1));
        arguments
            .address(target.bias == null ? 0 : target.bias.address())
            .address(target.outAddress(at))
            .number(target.weights.rows())
            .number(target.module)
            .number(blocks)
            .pad();
        if (i < group.size()) {
          blocks += Math.ceilDiv(target.weights.rows(), EXPAND_THREADS);
        }
      }
      arguments.number(group.size()).number(step.depth()).number(step.rank());
      gpu.launch("expand", blocks, count, 1, EXPAND_THREADS, 0);
    }
  }

  @Override
  public void close() {
    if (packed != null) {
      packed.close();
    }
    if (shrunk != null) {
      shrunk.close();
    }
    if (narrowed != null) {
      narrowed.close();
    }
    if (widened != null) {
      widened.close();
    }
    if (library != null) {
      library.close();
    }
  }
}
