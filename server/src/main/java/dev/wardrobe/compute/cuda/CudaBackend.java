package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.UnavailableException;
import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * A CUDA device as a backend: weights, activations, keys and values, and adapters in its memory.
 * Operations are queued; a step of single tokens is one launch of a graph, see {@link Tape}.
 *
 * <p>Activations are float32. Projections and attention round what they multiply to bfloat16 and
 * sum in float32, each row in an order of its own that no other row has part in.
 */
public final class CudaBackend implements Backend {
  /** What activations, tables and graphs take at most, roughly. */
  private static final long KEPT_FREE = 1L << 30;

  private final Gpu gpu;
  private final MathMode math;
  private final @Nullable String refusal;
  private final SharedTables tables;
  private final Attention attention;
  private final Projections projections;
  private final List<CudaStep> steps = new ArrayList<>();
  private @Nullable CudaStep spare;
  private @Nullable Sampling sampling;

  /** The step whose operations may be waiting for the end of their graph. */
  private @Nullable CudaStep active;

  /** A backend over a device whose kernels are loaded; closed with it. */
  CudaBackend(Gpu gpu) {
    this(gpu, null, null);
  }

  /**
   * @param library multiplies many rows in fast mode; closed with the backend. Null is exact mode
   * @param refusal why there is none though it was asked for
   */
  CudaBackend(Gpu gpu, @Nullable CublasLt library, @Nullable String refusal) {
    this.gpu = gpu;
    this.refusal = refusal;
    tables = new SharedTables(gpu);
    projections = new Projections(gpu, library, this::beforeMove);
    math = library == null ? MathMode.EXACT : MathMode.FAST;
    attention = new Attention(gpu);
  }

  /**
   * The first device that CUDA shows.
   *
   * @throws UnavailableException if there is none that can be used; says why
   */
  public static CudaBackend open(MathMode asked) throws UnavailableException {
    Gpu gpu = null;
    boolean complete = false;
    try {
      gpu = Gpu.open();
      load(gpu);
      CublasLt library = null;
      String refusal = null;
      if (asked == MathMode.FAST) {
        try {
          library = CublasLt.load(gpu);
        } catch (UnavailableException e) {
          refusal = e.getMessage();
        }
      }
      complete = true;
      return new CudaBackend(gpu, library, refusal);
    } catch (CudaException | OutOfMemoryException | IllegalStateException e) {
      throw new UnavailableException(String.valueOf(e.getMessage()), e);
    } finally {
      if (!complete && gpu != null) {
        gpu.close();
      }
    }
  }

  private static void load(Gpu gpu) throws UnavailableException {
    List<byte[]> images = KernelImages.of(gpu);
    try {
      images.forEach(gpu::load);
    } catch (CudaException e) {
      throw new UnavailableException(
          "the kernels of this build do not load on %s: %s"
              .formatted(gpu.describe(), e.getMessage()),
          e);
    }
  }

  @Override
  public String describe() {
    return "cuda: " + gpu.describe();
  }

  @Override
  public MathMode math() {
    return math;
  }

  @Override
  public @Nullable String refusal() {
    return refusal;
  }

  @Override
  public boolean awaitWarm(Duration atMost) {
    return true;
  }

  @Override
  public long workspaceBytes() {
    return gpu.workspaceBytes();
  }

  @Override
  public long spareBytes() {
    return Math.max(0, gpu.free() - KEPT_FREE) / 10 * 9;
  }

  /**
   * The kernels that this build has as machine code, a line for each source.
   *
   * @throws UnavailableException if there are some that it has not
   */
  public static List<String> images() throws UnavailableException {
    return KernelImages.inventory();
  }

  /** How fast the device copies within its memory, in bytes read and written per second. */
  public double copyRate() {
    return gpu.copyRate();
  }

  /** Bytes of buffers, matrices, adapters and caches that are not closed. */
  public long liveBytes() {
    return gpu.live();
  }

  /** Where projections are divided; for tests of each way. */
  Projections projections() {
    return projections;
  }

  /** The device. */
  Gpu gpu() {
    return gpu;
  }

  /** Steps that were one launch of a graph so far. */
  public long replays() {
    return steps.stream().mapToLong(step -> step.tape().replays()).sum();
  }

  @Override
  public Buffer buffer(int rowCount, int width) {
    if (rowCount < 1 || width < 1) {
      throw new IllegalArgumentException(
          "buffer: expected at least one row and column, got (%d, %d)".formatted(rowCount, width));
    }
    String what = "buffer (%d, %d)".formatted(rowCount, width);
    long bytes = Math.multiplyHigh(4L * rowCount, width) != 0 ? -1 : 4L * rowCount * width;
    if (bytes < 0) {
      throw new OutOfMemoryException(what + ": more bytes than can be counted");
    }
    Gpu.Memory memory = gpu.allocate(what, bytes);
    gpu.clear(memory);
    return new CudaBuffer(rowCount, width, memory);
  }

  @Override
  public void write(Buffer to, int row, float[] values) {
    int width = to.width();
    if (values.length % width != 0) {
      throw new IllegalArgumentException(
          "write: expected whole rows of %d, got %d values".formatted(width, values.length));
    }
    checkRows("write", to, row, values.length / width);
    flush();
    gpu.await();
    gpu.upload(MemorySegment.ofArray(values), own(to).address() + 4L * row * width);
  }

  @Override
  public float[] read(Buffer from, int row, int rowCount) {
    checkRows("read", from, row, rowCount);
    flush();
    float[] values = new float[Math.multiplyExact(rowCount, from.width())];
    MemorySegment staged = MemorySegment.ofArray(values);
    gpu.download(own(from).address() + 4L * row * from.width(), staged);
    return values;
  }

  private static void checkRows(String what, Buffer buffer, int row, int rowCount) {
    if (row < 0 || rowCount < 0 || rowCount > buffer.rows() - row) {
      throw new IllegalArgumentException(
          "%s: rows %d to %d of a buffer of %d"
              .formatted(what, row, (long) row + rowCount, buffer.rows()));
    }
  }

  @Override
  public Matrix matrix(QuantizedMatrix weights) {
    return CudaMatrix.of(gpu, tables, weights);
  }

  @Override
  public Matrix matrix(DenseMatrix weights) {
    return CudaMatrix.of(gpu, tables, weights);
  }

  @Override
  public String layout() {
    return CudaMatrix.LAYOUT;
  }

  @Override
  public Matrix matrix(PackedMatrix weights) {
    return CudaMatrix.of(gpu, tables, weights);
  }

  @Override
  public void trim() {
    gpu.pages().trim();
  }

  @Override
  public KvCache kvCache(KvShape shape) {
    return new CudaKvCache(shape, gpu, gpu.pages());
  }

  @Override
  public Lora lora(Map<Integer, Delta> deltas, IntFunction<Matrix> base) {
    return CudaLora.of(gpu, deltas, base);
  }

  @Override
  public long loraBytes(Map<Integer, Delta> deltas) {
    return CudaLora.bytes(deltas);
  }

  @Override
  public Step step(Batch batch) {
    CudaStep step = spare;
    if (step == null) {
      step = new CudaStep(gpu, this::closed);
      steps.add(step);
      spare = step;
    }
    flush();
    step.open(batch);
    spare = null;
    return step;
  }

  private void closed(CudaStep step) {
    try {
      activate(step);
      step.tape().end();
    } finally {
      step.tape().abandon();
      active = null;
      spare = step;
    }
  }

  /** The step as our own, with everything queued that other steps wait with. */
  private CudaStep activate(Step step) {
    if (!(step instanceof CudaStep own)) {
      throw new IllegalArgumentException("a step of another backend: " + step.getClass());
    }
    if (active != own) {
      flush();
      active = own;
    }
    return own;
  }

  private void flush() {
    if (active != null) {
      active.tape().flush();
    }
  }

  @Override
  public void embed(Step step, int module, Matrix table, Buffer out) {
    CudaMatrix rows = own(table);
    Batch batch = step.batch();
    out.expect("embed: out", batch.size(), rows.cols());
    for (int row = 0; row < batch.size(); row++) {
      int token = batch.token(row);
      if (token < 0 || token >= rows.rows()) {
        throw new IllegalArgumentException(
            "embed: row %d: token %d of a vocabulary of %d".formatted(row, token, rows.rows()));
      }
    }
    for (int i = 0; i < batch.segments().size(); i++) {
      if (batch.segments().get(i).lora() instanceof CudaLora lora) {
        lora.checkEmbedding(module, rows.weights());
      }
    }
    Rows.embed(activate(step), module, rows, own(out));
  }

  @Override
  public void norm(
      Step step,
      int module,
      Buffer residual,
      @Nullable Buffer x,
      Buffer weight,
      float epsilon,
      Buffer out) {
    int tokens = step.batch().size();
    int width = residual.width();
    residual.expect("norm: residual", tokens, width);
    out.expect("norm: out", tokens, width);
    weight.expect("norm: weight", 1, width);
    if (x != null) {
      x.expect("norm: x", tokens, width);
    }
    checkNorm(step, module, width);
    Rows.norm(
        activate(step),
        module,
        own(residual),
        x == null ? null : own(x),
        own(weight),
        epsilon,
        own(out));
  }

  @Override
  public void normHeads(Step step, int module, Buffer x, int size, Buffer weight, float epsilon) {
    x.expect("normHeads: x", step.batch().size(), x.width());
    weight.expect("normHeads: weight", 1, size);
    if (x.width() % size != 0) {
      throw new IllegalArgumentException(
          "normHeads: a width of %d is not a multiple of %d".formatted(x.width(), size));
    }
    checkNorm(step, module, size);
    Rows.normHeads(activate(step), module, own(x), size, own(weight), epsilon);
  }

  private static void checkNorm(Step step, int module, int width) {
    List<Batch.Segment> segments = step.batch().segments();
    for (int i = 0; i < segments.size(); i++) {
      if (segments.get(i).lora() instanceof CudaLora lora) {
        lora.checkNorm(module, width);
      }
    }
  }

  @Override
  public void linear(Step step, List<Linear> linears, Buffer x, List<Buffer> outs) {
    int tokens = step.batch().size();
    if (linears.size() != outs.size()) {
      throw new IllegalArgumentException(
          "linear: %d projections and %d outputs".formatted(linears.size(), outs.size()));
    }
    List<CudaBuffer> results = new ArrayList<>(outs.size());
    for (int i = 0; i < outs.size(); i++) {
      Linear linear = linears.get(i);
      x.expect("linear: x", tokens, linear.weight().cols());
      outs.get(i).expect("linear: out", tokens, linear.weight().rows());
      checkBias("linear", linear);
      results.add(own(outs.get(i)));
    }
    if (!results.isEmpty()) {
      projections.linear(activate(step), linears, own(x), results);
    }
  }

  @Override
  public void rope(
      Step step,
      Heads heads,
      Buffer cos,
      Buffer sin,
      Buffer q,
      Buffer k,
      Buffer v,
      KvCache cache,
      int layer) {
    int tokens = step.batch().size();
    int half = heads.size() / 2;
    CudaKvCache pages = CudaKvCache.own(cache, heads, layer);
    q.expect("rope: q", tokens, heads.queries() * heads.size());
    k.expect("rope: k", tokens, heads.keyValues() * heads.size());
    v.expect("rope: v", tokens, heads.keyValues() * heads.size());
    cos.expect("rope: cos", 1, half);
    sin.expect("rope: sin", cos.rows(), half);
    for (int i = 0; i < step.batch().runs().size(); i++) {
      Batch.Run run = step.batch().runs().get(i);
      int end = run.position() + run.to() - run.from();
      if (end > cos.rows()) {
        throw new IllegalArgumentException(
            "rope: position %d, but the tables end at %d".formatted(end - 1, cos.rows()));
      }
    }
    activate(step).checkBlocks(pages.shape().blocks());
    attention.rope(activate(step), heads, own(cos), own(sin), own(q), own(k), own(v), pages, layer);
  }

  @Override
  public void attention(Step step, Heads heads, Buffer q, KvCache cache, int layer, Buffer out) {
    int tokens = step.batch().size();
    CudaKvCache pages = CudaKvCache.own(cache, heads, layer);
    q.expect("attention: q", tokens, heads.queries() * heads.size());
    out.expect("attention: out", tokens, heads.queries() * heads.size());
    activate(step).checkBlocks(pages.shape().blocks(), heads.window());
    attention.attend(activate(step), heads, own(q), pages, layer, own(out));
  }

  @Override
  public void activate(Step step, Buffer gate, Buffer up, Buffer out) {
    int tokens = step.batch().size();
    gate.expect("activate: gate", tokens, gate.width());
    up.expect("activate: up", tokens, gate.width());
    out.expect("activate: out", tokens, gate.width());
    Rows.activate(activate(step), own(gate), own(up), own(out));
  }

  @Override
  public void logits(Step step, Linear head, Buffer x, int from, int to, Buffer logits) {
    Batch batch = step.batch();
    if (from < 0 || to < from || to > batch.outputs()) {
      throw new IllegalArgumentException(
          "logits: outputs %d to %d of %d".formatted(from, to, batch.outputs()));
    }
    x.expect("logits: x", batch.size(), head.weight().cols());
    logits.expect("logits: logits", to - from, head.weight().rows());
    checkBias("logits", head);
    if (from < to) {
      projections.logits(activate(step), head, own(x), from, to, own(logits));
    }
  }

  private static void checkBias(String what, Linear linear) {
    Buffer bias = linear.bias();
    if (bias != null) {
      bias.expect(what + ": bias", 1, linear.weight().rows());
    }
  }

  /** Before memory is taken elsewhere that queued operations and graphs know. */
  private void beforeMove() {
    flush();
    gpu.await();
    steps.forEach(step -> step.tape().forget());
  }

  @Override
  public void sample(Step step, Buffer logits, List<Draw> draws) {
    for (int i = 0; i < draws.size(); i++) {
      draws.get(i).check(i, logits);
    }
    Sampling own = sampling;
    if (own == null) {
      own = new Sampling(gpu);
      sampling = own;
    }
    own.sample(activate(step), own(logits), draws);
  }

  @Override
  public Gradients gradients() {
    throw new UnsupportedOperationException(
        "training runs on the CPU: the CUDA backend serves; use --backend cpu to train");
  }

  /** A matrix as our own. */
  static CudaMatrix own(Matrix matrix) {
    if (matrix instanceof CudaMatrix own) {
      return own;
    }
    throw new IllegalArgumentException("a matrix of another backend: " + matrix.getClass());
  }

  /**
   * A buffer as our own.
   *
   * @throws IllegalStateException if it is closed: an operation that repeats another is not
   *     launched by itself, and would not find out
   */
  static CudaBuffer own(Buffer buffer) {
    if (buffer instanceof CudaBuffer own) {
      own.checkOpen();
      return own;
    }
    throw new IllegalArgumentException("a buffer of another backend: " + buffer.getClass());
  }

  @Override
  public void close() {
    steps.forEach(CudaStep::destroy);
    steps.clear();
    attention.close();
    projections.close();
    if (sampling != null) {
      sampling.close();
      sampling = null;
    }
    gpu.close();
  }
}
