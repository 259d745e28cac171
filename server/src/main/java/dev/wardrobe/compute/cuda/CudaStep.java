package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Step;
import java.lang.foreign.MemorySegment;
import java.util.function.Consumer;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/**
 * A batch whose tables are on the device; see StepTables in wardrobe.cuh. They are written to
 * pinned memory and copied at once, ahead of the step's kernels. They keep their place from step to
 * step unless one needs more room, so that the kernels of a step can be replayed as a graph.
 */
final class CudaStep implements Step {
  /** Positions between which attention over a long context is divided. */
  static final int CHUNK = 256;

  /** Most rows of a step that is replayed as a graph. */
  private static final int MOST_REPLAYED = 256;

  private static final int COUNTS = 8;
  private static final int RUN_INTS = 4;
  private static final int SEGMENT_BYTES = 24;

  /** Tables by row: token, position, run, first segment; and the rows of outputs. */
  private static final int ROW_TABLES = 5;

  private final Gpu gpu;
  private final Consumer<CudaStep> onClose;
  private final Tape tape;
  private final CUevent copied = new CUevent();
  private Batch batch = new Batch();
  private int rowCapacity;
  private int segmentCapacity;
  private int blockCapacity;
  private Gpu.@Nullable Memory tables;
  private Gpu.@Nullable Pinned pinned;
  private int rows;
  private int outputs;
  private int chunks;
  private int rank;
  private int depth;
  private boolean adapted;
  private boolean replayable;
  private boolean open;

  /** Blocks of the cache that the batch's tables were found to be of, or -1. */
  private int checkedBlocks = -1;

  /**
   * @param onClose gets a step that may be opened again
   */
  CudaStep(Gpu gpu, Consumer<CudaStep> onClose) {
    this.gpu = gpu;
    this.onClose = onClose;
    tape = new Tape(gpu);
    gpu.enter();
    gpu.check(
        "cuEventCreate", JCudaDriver.cuEventCreate(copied, CUevent_flags.CU_EVENT_DISABLE_TIMING));
  }

  /**
   * Begins a step over a batch.
   *
   * @throws IllegalArgumentException if the batch does not hold together
   */
  CudaStep open(Batch batch) {
    batch.check(CudaLora.class);
    this.batch = batch;
    checkedBlocks = -1;
    int blocks = 0;
    int longest = 0;
    boolean decodes = true;
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      int end = run.position() + run.to() - run.from();
      blocks = Math.addExact(blocks, Math.ceilDiv(end, KvShape.BLOCK_TOKENS));
      longest = Math.max(longest, end);
      decodes &= run.to() - run.from() == 1;
    }
    rank = 0;
    depth = 0;
    adapted = false;
    boolean replaces = false;
    int mixed = 0;
    for (int i = 0; i < batch.segments().size(); i++) {
      boolean joins = i > 0 && batch.segments().get(i).from() == batch.segments().get(i - 1).from();
      mixed = joins ? mixed + 1 : 1;
      if (batch.segments().get(i).lora() instanceof CudaLora lora) {
        depth = Math.max(depth, mixed);
        adapted = true;
        rank = Math.max(rank, lora.largestRank());
        replaces |= lora.replacesWeights();
      }
    }
    rows = batch.size();
    outputs = batch.outputs();
    chunks = Math.ceilDiv(longest, CHUNK);
    replayable = decodes && !replaces && rows <= MOST_REPLAYED;
    if (replayable) {
      rows = rounded(rows);
      outputs = rounded(outputs);
      chunks = rounded(chunks);
      rank = rounded(rank);
      depth = rounded(depth);
    }
    write(blocks);
    open = true;
    tape.begin(
        this,
        replayable ? new Tape.Sizes(rows, outputs, chunks, adapted ? rank + 1 : 0, depth) : null);
    return this;
  }

  /** Whether the step may be one graph, over grids that are rounded up. */
  boolean replayable() {
    return replayable;
  }

  /** Where the table of outputs is. */
  long outputTable() {
    return memory().address() + rowTable(4);
  }

  /** The next power of two; 0 stays. */
  private static int rounded(int count) {
    return count <= 1 ? count : Integer.highestOneBit(count - 1) << 1;
  }

  @Override
  public Batch batch() {
    return batch;
  }

  /** What the step's operations are given to. */
  Tape tape() {
    return tape;
  }

  /** Rows that grids are made for: the batch's, or more that do nothing. */
  int rows() {
    return rows;
  }

  /** Outputs that grids are made for: the batch's, or more that do nothing. */
  int outputs() {
    return outputs;
  }

  /** Parts of {@link #CHUNK} positions of the longest context, or more. */
  int chunks() {
    return chunks;
  }

  /** Whether any row uses an adapter. */
  boolean adapted() {
    return adapted;
  }

  /** At least as many as the largest mix has adapters. */
  int depth() {
    return depth;
  }

  /** At least the largest rank of the step's adapters; 0 if none has factors. */
  int rank() {
    return rank;
  }

  /**
   * Checks that the sequences' block tables are of a cache of so many blocks; once for all layers,
   * since there are many of either.
   *
   * @throws IllegalArgumentException if not
   */
  void checkBlocks(int cacheBlocks) {
    if (cacheBlocks == checkedBlocks) {
      return;
    }
    checkBlocks(cacheBlocks, 0);
    checkedBlocks = cacheBlocks;
  }

  /** The same of the blocks that rows with such a window see. */
  void checkBlocks(int cacheBlocks, int window) {
    if (cacheBlocks == checkedBlocks) {
      return;
    }
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      int first = window == 0 ? 0 : Math.max(0, run.position() + 1 - window);
      run.checkBlocks(first, run.position() + run.to() - run.from(), cacheBlocks);
    }
  }

  private void write(int blocks) {
    int segmentCount = batch.segments().size();
    if (tables == null
        || batch.size() > rowCapacity
        || segmentCount > segmentCapacity
        || blocks > blockCapacity) {
      reserve(batch.size(), segmentCount, blocks);
    }
    Gpu.Pinned host = pinned();
    gpu.enter();
    gpu.check("cuEventSynchronize", JCudaDriver.cuEventSynchronize(copied));
    MemorySegment to = host.segment();
    to.setAtIndex(JAVA_INT, 0, batch.size());
    to.setAtIndex(JAVA_INT, 1, batch.runs().size());
    to.setAtIndex(JAVA_INT, 2, segmentCount);
    to.setAtIndex(JAVA_INT, 3, batch.outputs());
    writeRuns(to);
    writeSegments(to);
    for (int i = 0; i < batch.outputs(); i++) {
      to.set(JAVA_INT, rowTable(4) + 4L * i, batch.output(i));
    }
    gpu.uploadInOrder(host, 0, memory().address(), blockTable() + 4L * blocks);
    gpu.check("cuEventRecord", JCudaDriver.cuEventRecord(copied, gpu.compute()));
  }

  private void writeRuns(MemorySegment to) {
    int block = 0;
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      long at = runTable() + 4L * RUN_INTS * i;
      to.set(JAVA_INT, at, run.from());
      to.set(JAVA_INT, at + 4, run.to());
      to.set(JAVA_INT, at + 8, run.position());
      to.set(JAVA_INT, at + 12, block);
      int end = run.position() + run.to() - run.from();
      int count = Math.ceilDiv(end, KvShape.BLOCK_TOKENS);
      MemorySegment.copy(run.blocks(), 0, to, JAVA_INT, blockTable() + 4L * block, count);
      block += count;
      for (int row = run.from(); row < run.to(); row++) {
        to.set(JAVA_INT, rowTable(0) + 4L * row, batch.token(row));
        to.set(JAVA_INT, rowTable(1) + 4L * row, run.position() + row - run.from());
        to.set(JAVA_INT, rowTable(2) + 4L * row, i);
      }
    }
  }

  private void writeSegments(MemorySegment to) {
    for (int i = batch.segments().size() - 1; i >= 0; i--) {
      Batch.Segment segment = batch.segments().get(i);
      long at = segmentTable() + (long) SEGMENT_BYTES * i;
      CudaLora lora = segment.lora() instanceof CudaLora own ? own : null;
      to.set(JAVA_LONG, at, lora == null ? 0 : lora.partsAddress());
      to.set(JAVA_INT, at + 8, lora == null ? 0 : lora.modules());
      to.set(JAVA_INT, at + 12, segment.from());
      to.set(JAVA_INT, at + 16, segment.to());
      to.set(JAVA_FLOAT, at + 20, segment.scale());
      // Backwards, so that of segments with the same rows the first is what stays.
      for (int row = segment.from(); row < segment.to(); row++) {
        to.set(JAVA_INT, rowTable(3) + 4L * row, i);
      }
    }
  }

  /** Appends the tables' addresses, as StepTables has them, to a kernel's arguments. */
  void addTo(LaunchArguments arguments) {
    long base = memory().address();
    arguments
        .address(base)
        .address(base + rowTable(0))
        .address(base + rowTable(1))
        .address(base + rowTable(2))
        .address(base + rowTable(3))
        .address(base + runTable())
        .address(base + blockTable())
        .address(base + segmentTable())
        .address(base + rowTable(4));
  }

  // Where the tables begin, in bytes. What has 8-byte fields is first among those of its kind.

  private long rowTable(int index) {
    return segmentTable() + (long) SEGMENT_BYTES * segmentCapacity + 4L * index * rowCapacity;
  }

  private static long segmentTable() {
    return 4L * COUNTS;
  }

  private long runTable() {
    return rowTable(ROW_TABLES);
  }

  private long blockTable() {
    return runTable() + 4L * RUN_INTS * rowCapacity;
  }

  private void reserve(int rowCount, int segmentCount, int blocks) {
    // Kernels of the step before may still read the old ones.
    gpu.await();
    release();
    rowCapacity = Math.max(64, Math.max(rowCapacity, rounded(rowCount)));
    segmentCapacity = Math.max(64, Math.max(segmentCapacity, rounded(segmentCount)));
    blockCapacity = Math.max(1024, Math.max(blockCapacity, rounded(blocks)));
    long bytes = blockTable() + 4L * blockCapacity;
    // Both or neither.
    Gpu.Pinned host = gpu.pinned(bytes);
    try {
      tables = gpu.workspace("a step's tables", bytes);
      pinned = host;
    } finally {
      if (pinned == null) {
        host.close();
      }
    }
  }

  private void release() {
    tape.forget();
    if (tables != null) {
      tables.close();
      tables = null;
    }
    if (pinned != null) {
      pinned.close();
      pinned = null;
    }
  }

  private Gpu.Memory memory() {
    if (tables == null) {
      throw new IllegalStateException("a step that was never opened");
    }
    return tables;
  }

  private Gpu.Pinned pinned() {
    if (pinned == null) {
      throw new IllegalStateException("a step that was never opened");
    }
    return pinned;
  }

  @Override
  public void close() {
    if (open) {
      open = false;
      onClose.accept(this);
    }
  }

  /** Frees the tables and the graphs that read them. */
  void destroy() {
    tape.abandon();
    release();
    if (gpu.usable()) {
      JCudaDriver.cuEventDestroy(copied);
    }
  }
}
