package dev.wardrobe.compute.cpu;

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
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.StringJoiner;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * The processor as a backend: weights off the heap in 32-row panels, activations on it, a fixed
 * number of threads of which the caller is the first.
 *
 * <p>Operations are done when they return. Each output is computed by one thread, in an order that
 * is a property of the operation: see {@link Panels} and {@link Kernels}.
 */
public final class CpuBackend implements Backend {
  /** Multiplications below which waking another thread costs more than it saves. */
  static final long WORTH_SHARING = 1 << 16;

  /** Shares of each thread, so that others can take some of them, see {@link WorkerPool}. */
  static final int SHARES = 4;

  /** A system property that keeps to plain code: the launcher's archive of classes needs it. */
  public static final String PLAIN = "wardrobe.vector.off";

  private static final String VECTOR_MODULE = "jdk.incubator.vector";

  private final NativeMemory memory = new NativeMemory();
  private final Kernels kernels;
  private final WorkerPool pool;
  private final CpuAttention attention;
  private final Sampler sampler;
  private final @Nullable FastProjections fast;
  private final @Nullable String refusal;
  private final Projections projections;
  private final Gradients gradients;
  private @Nullable TrainingCode trainingCode;
  private boolean withoutTrainingCode;

  /** Names calls to threads' scratch, below 0: those of {@link Projections} are above. */
  private long calls;

  private float[] shrunk = new float[0];
  private float[] gathered = new float[0];
  private MemorySegment gatheredRows = MemorySegment.ofArray(gathered);
  private float[][] normWeights = new float[0][];
  private @Nullable CpuStep spareStep;
  private boolean stepped;

  // Operations that are divided among the threads keep their arguments in objects of their own: a
  // lambda would be a new object at each call, and a step is to allocate nothing.
  private final Division division = new Division();
  private final Norm norm = new Norm();
  private final NormHeads normHeads = new NormHeads();
  private final Rotation rotation = new Rotation();
  private final Activation activation = new Activation();
  private final Sampling sampling = new Sampling();

  /**
   * A backend on the vectors that this machine prefers, as soon as they are compiled; with {@code
   * -Dwardrobe.vector.bits} on vectors of that width from the first operation on.
   *
   * @param threads threads that compute, the caller's included
   * @throws IllegalStateException if Java was started without its Vector API
   */
  public CpuBackend(int threads) {
    this(threads, MathMode.EXACT);
  }

  /**
   * As {@link #CpuBackend(int)}, in the mode that is asked for, or in {@link MathMode#EXACT} where
   * that is not to be had: {@link #math} says which, {@link #refusal} why.
   */
  public CpuBackend(int threads, MathMode asked) {
    this(threads, vectorKernels(), asked);
  }

  CpuBackend(int threads, Kernels kernels) {
    this(threads, kernels, MathMode.EXACT);
  }

  CpuBackend(int threads, Kernels kernels, MathMode asked) {
    this.kernels = kernels;
    FastProjections loaded = null;
    String problem = null;
    if (asked == MathMode.FAST) {
      try {
        OneDnn library = OneDnn.load();
        loaded =
            new FastProjections(
                library,
                Tiles.beside(kernels),
                // As in exact mode, of which the plain and the vector kernels have none.
                kernels instanceof TieredKernels && library.avx512()
                    ? Bfloat16Projections.load()
                    : null,
                threads);
      } catch (OneDnn.UnavailableException e) {
        problem = String.valueOf(e.getMessage());
      }
    }
    fast = loaded;
    refusal = problem;
    pool = new WorkerPool(threads);
    attention = new CpuAttention(kernels);
    sampler = new Sampler(kernels);
    projections = new Projections(kernels, pool, fast);
    gradients = new CpuGradients(this, kernels);
  }

  /**
   * Begins to compile the vector kernels, so that a backend made later has them sooner.
   *
   * @param atOnce false if the first token matters most: where the processor has what multiplies by
   *     weights without the compiler, that token then has the machine to itself
   */
  public static void warmUp(boolean atOnce) {
    if (vectorKernels() instanceof TieredKernels tiered && atOnce) {
      tiered.begin();
    }
  }

  private static Kernels vectorKernels() {
    if (Boolean.getBoolean(PLAIN)) {
      return new ScalarKernels();
    }
    try {
      return Vectors.forced() ? new VectorKernels() : TieredKernels.shared();
    } catch (NoClassDefFoundError e) {
      throw new IllegalStateException(
          "the CPU backend needs Java's Vector API: start java with --add-modules " + VECTOR_MODULE,
          e);
    }
  }

  @Override
  public boolean awaitWarm(Duration atMost) throws InterruptedException {
    long end = System.nanoTime() + atMost.toNanos();
    boolean warm = !(kernels instanceof TieredKernels tiered) || tiered.awaitDrilled(atMost);
    return warm && (fast == null || fast.awaitWarm(end - System.nanoTime()));
  }

  @Override
  public String describe() {
    return "CPU, %s, %d thread%s, %s"
        .formatted(
            kernels.describe(),
            pool.threads(),
            pool.threads() == 1 ? "" : "s",
            fast == null ? "exact mode" : "fast mode (%s)".formatted(fast.describe()));
  }

  @Override
  public MathMode math() {
    return fast == null ? MathMode.EXACT : MathMode.FAST;
  }

  /** Why a mode is not to be had here; null if it is. */
  public static @Nullable String refusal(MathMode asked) {
    if (asked == MathMode.FAST) {
      try {
        OneDnn.load().close();
      } catch (OneDnn.UnavailableException e) {
        return String.valueOf(e.getMessage());
      }
    }
    return null;
  }

  @Override
  public @Nullable String refusal() {
    return refusal;
  }

  /**
   * Nanoseconds that projections have spent on the adapters' first factors since the backend was
   * made, for whoever measures: what they spend on the second is spread over the outputs.
   */
  public long shrinkNanos() {
    return projections.shrinkNanos();
  }

  /** Bytes of buffers, matrices, adapters and caches that are not closed. */
  public long liveBytes() {
    return memory.live();
  }

  @Override
  public long spareBytes() {
    return -1;
  }

  @Override
  public long workspaceBytes() {
    return (fast == null ? 0 : fast.bytes()) + (trainingCode == null ? 0 : trainingCode.bytes());
  }

  @Override
  public Buffer buffer(int rows, int width) {
    return new CpuBuffer(rows, width, memory);
  }

  @Override
  public void write(Buffer to, int row, float[] values) {
    int width = to.width();
    if (values.length % width != 0) {
      throw new IllegalArgumentException(
          "write: expected whole rows of %d, got %d values".formatted(width, values.length));
    }
    checkRows("write", to, row, values.length / width);
    System.arraycopy(values, 0, floats(to), row * width, values.length);
  }

  @Override
  public float[] read(Buffer from, int row, int rows) {
    checkRows("read", from, row, rows);
    int width = from.width();
    return Arrays.copyOfRange(floats(from), row * width, (row + rows) * width);
  }

  private static void checkRows(String what, Buffer buffer, int row, int rows) {
    if (row < 0 || rows < 0 || rows > buffer.rows() - row) {
      throw new IllegalArgumentException(
          "%s: rows %d to %d of a buffer of %d"
              .formatted(what, row, (long) row + rows, buffer.rows()));
    }
  }

  @Override
  public Matrix matrix(QuantizedMatrix weights) {
    NativeMemory.Region region = memory.region();
    try {
      return new NibblePanels(weights, region);
    } catch (RuntimeException | Error e) {
      region.close();
      throw e;
    }
  }

  @Override
  public Matrix matrix(DenseMatrix weights) {
    NativeMemory.Region region = memory.region();
    try {
      return new DensePanels(weights, region);
    } catch (RuntimeException | Error e) {
      region.close();
      throw e;
    }
  }

  @Override
  public String layout() {
    return Panels.LAYOUT;
  }

  @Override
  public Matrix matrix(PackedMatrix weights) {
    NativeMemory.Region region = memory.region();
    try {
      return PackedForm.panels(weights, region);
    } catch (RuntimeException | Error e) {
      region.close();
      throw e;
    }
  }

  @Override
  public void trim() {
    NativeMemory.trim();
  }

  @Override
  public KvCache kvCache(KvShape shape) {
    NativeMemory.Region region = memory.region();
    try {
      return new KvPages(shape, region);
    } catch (RuntimeException | Error e) {
      region.close();
      throw e;
    }
  }

  @Override
  public Lora lora(Map<Integer, Delta> deltas, IntFunction<Matrix> base) {
    NativeMemory.Region region = memory.region();
    try {
      return new CpuLora(deltas, base, region);
    } catch (RuntimeException | Error e) {
      region.close();
      throw e;
    }
  }

  @Override
  public long loraBytes(Map<Integer, Delta> deltas) {
    return CpuLora.bytes(deltas);
  }

  @Override
  public Step step(Batch batch) {
    if (stepped && kernels instanceof TieredKernels tiered) {
      tiered.begin();
    }
    stepped = true;
    CpuStep step = spareStep == null ? new CpuStep(closed -> spareStep = closed) : spareStep;
    spareStep = null;
    return step.open(batch);
  }

  @Override
  public void embed(Step step, int module, Matrix table, Buffer out) {
    Panels base = panels(table);
    int width = base.cols();
    checkShape("embed: out", out, step.batch().size(), width);
    float[] y = floats(out);
    Batch batch = step.batch();
    for (int i = 0; i < batch.segments().size(); i++) {
      Batch.Segment segment = batch.segments().get(i);
      CpuLora.Part part = part(segment, module);
      Panels weight = weightOf(part, module, base);
      for (int row = segment.from(); row < segment.to(); row++) {
        int token = batch.token(row);
        if (token < 0 || token >= weight.rows()) {
          throw new IllegalArgumentException(
              "embed: row %d: token %d of a vocabulary of %d".formatted(row, token, weight.rows()));
        }
        if (first(batch.segments(), i)) {
          weight.row(token, y, row * width);
        }
        if (part != null) {
          adaptEmbedding(part, segment.scale(), module, token, y, row, base);
        }
      }
    }
  }

  private void adaptEmbedding(
      CpuLora.Part part, float scale, int module, int token, float[] y, int row, Panels base) {
    Factor a = part.a();
    Factor b = part.b();
    if (a != null && b != null) {
      checkFactors(module, a, b, base.rows(), base.cols());
      float[] t = shrunk(a.rank());
      for (int j = 0; j < a.rank(); j++) {
        t[j] = a.get(j, token);
      }
      kernels.expand(
          b, part.scale() * scale, null, t, 0, 0, base.cols(), y, row, row + 1, pool.scratch());
    }
    if (part.gain() != null) {
      kernels.multiply(part.gain(), 0, y, row * base.cols(), base.cols());
    }
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
    checkShape("norm: residual", residual, tokens, width);
    checkShape("norm: out", out, tokens, width);
    checkShape("norm: weight", weight, 1, width);
    if (x != null) {
      checkShape("norm: x", x, tokens, width);
    }
    norm.weights = normWeights(step, module, weight);
    norm.sums = floats(residual);
    norm.terms = x == null ? null : floats(x);
    norm.y = floats(out);
    norm.width = width;
    norm.epsilon = epsilon;
    divide(tokens, 4L * tokens * width, norm);
  }

  private final class Norm implements Items {
    private float[][] weights = {};
    private float[] sums = {};
    private float @Nullable [] terms;
    private float[] y = {};
    private int width;
    private float epsilon;

    @Override
    public void run(int from, int to, Scratch scratch) {
      for (int row = from; row < to; row++) {
        int at = row * width;
        if (terms != null) {
          kernels.add(terms, at, sums, at, width);
        }
        kernels.norm(sums, at, width, weights[row], epsilon, y, at, scratch);
      }
    }
  }

  @Override
  public void normHeads(Step step, int module, Buffer x, int size, Buffer weight, float epsilon) {
    int tokens = step.batch().size();
    int width = x.width();
    checkShape("normHeads: x", x, tokens, width);
    checkShape("normHeads: weight", weight, 1, size);
    if (width % size != 0) {
      throw new IllegalArgumentException(
          "normHeads: a width of %d is not a multiple of %d".formatted(width, size));
    }
    normHeads.weights = normWeights(step, module, weight);
    normHeads.y = floats(x);
    normHeads.width = width;
    normHeads.size = size;
    normHeads.epsilon = epsilon;
    divide(tokens, 4L * tokens * width, normHeads);
  }

  private final class NormHeads implements Items {
    private float[][] weights = {};
    private float[] y = {};
    private int width;
    private int size;
    private float epsilon;

    @Override
    public void run(int from, int to, Scratch scratch) {
      for (int row = from; row < to; row++) {
        for (int at = row * width; at < (row + 1) * width; at += size) {
          kernels.norm(y, at, size, weights[row], epsilon, y, at, scratch);
        }
      }
    }
  }

  /** Each row's weight: its adapter's, or the base's. */
  private float[][] normWeights(Step step, int module, Buffer weight) {
    Batch batch = step.batch();
    if (normWeights.length < batch.size()) {
      normWeights = new float[Math.max(batch.size(), 2 * normWeights.length)][];
    }
    for (int i = 0; i < batch.segments().size(); i++) {
      Batch.Segment segment = batch.segments().get(i);
      float[] chosen = floats(weight);
      CpuLora.Part part = part(segment, module);
      if (part != null) {
        float[] replaced = part.vector();
        if (part.a() != null || replaced == null || replaced.length != weight.width()) {
          throw new IllegalArgumentException(
              "module %d: a norm of %d takes nothing but a weight (1, %d) from an adapter"
                  .formatted(module, weight.width(), weight.width()));
        }
        chosen = replaced;
      }
      Arrays.fill(normWeights, segment.from(), segment.to(), chosen);
    }
    return normWeights;
  }

  @Override
  public void linear(Step step, List<Linear> linears, Buffer x, List<Buffer> outs) {
    int tokens = step.batch().size();
    if (linears.size() != outs.size()) {
      throw new IllegalArgumentException(
          "linear: %d projections and %d outputs".formatted(linears.size(), outs.size()));
    }
    for (int i = 0; i < outs.size(); i++) {
      Matrix weight = linears.get(i).weight();
      checkShape("linear: x", x, tokens, weight.cols());
      checkShape("linear: out", outs.get(i), tokens, weight.rows());
    }
    projections.begin(step.batch().segments(), tokens, floats(x), segment(x));
    for (int i = 0; i < outs.size(); i++) {
      projections.add(linears.get(i), outs.get(i));
    }
    projections.run();
  }

  @Override
  public void logits(Step step, Linear head, Buffer x, int from, int to, Buffer logits) {
    Batch batch = step.batch();
    if (from < 0 || to < from || to > batch.outputs()) {
      throw new IllegalArgumentException(
          "logits: outputs %d to %d of %d".formatted(from, to, batch.outputs()));
    }
    int width = head.weight().cols();
    checkShape("logits: x", x, batch.size(), width);
    checkShape("logits: logits", logits, to - from, head.weight().rows());
    if (from == to) {
      return;
    }
    float[] rows = gathered((to - from) * width);
    for (int i = from; i < to; i++) {
      System.arraycopy(floats(x), batch.output(i) * width, rows, (i - from) * width, width);
    }
    projections.begin(batch.segments(from, to), to - from, rows, gatheredRows);
    projections.add(head, logits);
    projections.run();
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
    KvPages pages = pages(cache, heads, layer);
    checkShape("rope: q", q, tokens, heads.queries() * heads.size());
    checkShape("rope: k", k, tokens, heads.keyValues() * heads.size());
    checkShape("rope: v", v, tokens, heads.keyValues() * heads.size());
    checkShape("rope: cos", cos, 1, half);
    checkShape("rope: sin", sin, cos.rows(), half);
    for (int i = 0; i < step.batch().runs().size(); i++) {
      Batch.Run run = step.batch().runs().get(i);
      int end = run.position() + run.to() - run.from();
      if (end > cos.rows()) {
        throw new IllegalArgumentException(
            "rope: position %d, but the tables end at %d".formatted(end - 1, cos.rows()));
      }
      run.checkBlocks(0, end, pages.shape().blocks());
    }
    rotation.step = (CpuStep) step;
    rotation.heads = heads;
    rotation.cos = floats(cos);
    rotation.sin = floats(sin);
    rotation.q = floats(q);
    rotation.k = floats(k);
    rotation.v = floats(v);
    rotation.pages = pages;
    rotation.layer = layer;
    divide(
        tokens, (long) tokens * (heads.queries() + 2 * heads.keyValues()) * heads.size(), rotation);
  }

  private final class Rotation implements Items {
    private @Nullable CpuStep step;
    private Heads heads = new Heads(1, 1, 2, 1, 0);
    private float[] cos = {};
    private float[] sin = {};
    private float[] q = {};
    private float[] k = {};
    private float[] v = {};
    private @Nullable KvPages pages;
    private int layer;

    @Override
    public void run(int from, int to, Scratch scratch) {
      CpuStep table = Objects.requireNonNull(step);
      KvPages cache = Objects.requireNonNull(pages);
      int half = heads.size() / 2;
      for (int row = from; row < to; row++) {
        int position = table.position(row);
        int angle = position * half;
        for (int head = 0; head < heads.queries(); head++) {
          int at = (row * heads.queries() + head) * heads.size();
          kernels.rotate(q, at, half, cos, sin, angle);
        }
        int block = table.run(row).blocks()[position / KvPages.TOKENS];
        int slot = position % KvPages.TOKENS;
        for (int head = 0; head < heads.keyValues(); head++) {
          int at = (row * heads.keyValues() + head) * heads.size();
          kernels.rotate(k, at, half, cos, sin, angle);
          cache.write(layer, block, head, slot, k, v, at, kernels, scratch);
        }
      }
    }
  }

  @Override
  public void attention(Step step, Heads heads, Buffer q, KvCache cache, int layer, Buffer out) {
    int tokens = step.batch().size();
    KvPages pages = pages(cache, heads, layer);
    checkShape("attention: q", q, tokens, heads.queries() * heads.size());
    checkShape("attention: out", out, tokens, heads.queries() * heads.size());
    long multiplications = 0;
    for (int i = 0; i < step.batch().runs().size(); i++) {
      Batch.Run run = step.batch().runs().get(i);
      int count = run.to() - run.from();
      int end = run.position() + count;
      int first = heads.window() == 0 ? 0 : Math.max(0, run.position() + 1 - heads.window());
      run.checkBlocks(first, end, pages.shape().blocks());
      multiplications += 2L * count * end * heads.queries() * heads.size();
    }
    attention.run(
        step.batch(), heads, pages, layer, floats(q), floats(out), pool, workers(multiplications));
  }

  @Override
  public void activate(Step step, Buffer gate, Buffer up, Buffer out) {
    int tokens = step.batch().size();
    int width = gate.width();
    checkShape("activate: gate", gate, tokens, width);
    checkShape("activate: up", up, tokens, width);
    checkShape("activate: out", out, tokens, width);
    activation.gate = floats(gate);
    activation.up = floats(up);
    activation.out = floats(out);
    divide(tokens * width, 8L * tokens * width, activation);
  }

  private final class Activation implements Items {
    private float[] gate = {};
    private float[] up = {};
    private float[] out = {};

    @Override
    public void run(int from, int to, Scratch scratch) {
      kernels.activate(gate, up, out, from, to);
    }
  }

  @Override
  public void sample(Step step, Buffer logits, List<Draw> draws) {
    int vocabulary = logits.width();
    for (int i = 0; i < draws.size(); i++) {
      draws.get(i).check(i, logits);
    }
    sampling.draws = draws;
    sampling.logits = floats(logits);
    sampling.vocabulary = vocabulary;
    sampling.failed = false;
    divide(draws.size(), 16L * draws.size() * vocabulary, sampling);
    if (sampling.failed) {
      throw notFinite(draws, sampling.logits, vocabulary);
    }
  }

  private final class Sampling implements Items {
    private List<Draw> draws = List.of();
    private float[] logits = {};
    private int vocabulary;
    private volatile boolean failed;

    @Override
    public void run(int from, int to, Scratch scratch) {
      for (int i = from; i < to; i++) {
        Draw draw = draws.get(i);
        if (!sampler.sample(draw, logits, draw.row() * vocabulary, vocabulary, scratch)) {
          failed = true;
        }
      }
    }
  }

  private static NotFiniteException notFinite(List<Draw> draws, float[] logits, int vocabulary) {
    List<Integer> failed = new ArrayList<>();
    StringJoiner problems = new StringJoiner("; ");
    for (int i = 0; i < draws.size(); i++) {
      if (draws.get(i).outcome().token() < 0) {
        failed.add(i);
        int row = draws.get(i).row();
        problems.add(
            "row %d: %s"
                .formatted(row, NotFiniteException.problem(logits, row * vocabulary, vocabulary)));
      }
    }
    return new NotFiniteException(
        "logits: " + problems, failed.stream().mapToInt(i -> i).toArray());
  }

  @Override
  public Gradients gradients() {
    return gradients;
  }

  /** {@code y = x·wᵀ}, for all rows. */
  void multiply(Panels w, int rows, float[] x, Buffer y) {
    if (fast != null && rows >= FastProjections.LEAST_ROWS) {
      Projection projection = new Projection(kernels);
      Batch.Segment all = new Batch.Segment(0, rows, null, 1);
      projection.point(new Linear(0, w, null), List.of(all), y, 0, 0);
      fast.linear(List.of(projection), 1, x, rows, pool);
      return;
    }
    float[] out = floats(y);
    long work = (long) rows * w.rows() * w.cols();
    if (workers(work) == 1) {
      kernels.linear(w, 0, w.panels(), x, 0, rows, out, pool.scratch());
      return;
    }
    // A thread works on the rows of a chunk until all panels have seen them: what it has made of
    // the inputs it uses again.
    long call = --calls;
    int chunks = (rows + Scratch.TOKENS - 1) / Scratch.TOKENS;
    int splits = Math.clamp(Math.ceilDiv(pool.threads() * SHARES, chunks), 1, w.panels());
    pool.run(
        chunks * splits,
        (share, scratch) -> {
          int from = (int) ((long) rows * (share / splits) / chunks);
          int to = (int) ((long) rows * (share / splits + 1) / chunks);
          int panelFrom = (int) ((long) w.panels() * (share % splits) / splits);
          int panelTo = (int) ((long) w.panels() * (share % splits + 1) / splits);
          scratch.inputs = call;
          kernels.linear(w, panelFrom, panelTo, x, from, to, out, scratch);
          scratch.inputs = 0;
        });
  }

  /** Training's generated code; null where there is none. */
  @Nullable TrainingCode trainingCode() {
    if (trainingCode == null && kernels instanceof TieredKernels && !withoutTrainingCode) {
      trainingCode = TrainingCode.load();
      withoutTrainingCode = trainingCode == null;
    }
    return trainingCode;
  }

  WorkerPool pool() {
    return pool;
  }

  /** {@code dx += dy·w}, for all rows. */
  void multiplyBack(Panels w, int rows, float[] dy, float[] dx) {
    boolean inFast = fast != null && rows >= FastProjections.LEAST_ROWS;
    TrainingCode generated = trainingCode();
    if (generated != null
        && Avx512Projections.takes(w)
        && (!inFast || Objects.requireNonNull(fast).generates())) {
      generated.inputs.run(w, dy, rows, dx, inFast, pool);
      return;
    }
    if (inFast) {
      Objects.requireNonNull(fast).linearInput(w, dy, rows, dx, pool);
      return;
    }
    divide(
        w.units(),
        (long) rows * w.rows() * w.cols(),
        (from, to, scratch) -> kernels.linearInput(w, from, to, dy, rows, dx, scratch));
  }

  @Override
  public void close() {
    pool.close();
    if (trainingCode != null) {
      trainingCode.close();
    }
    if (fast != null) {
      fast.close();
    }
  }

  /** A share of numbered items. */
  interface Items {
    void run(int from, int to, Scratch scratch);
  }

  /** Divides {@code count} items evenly among the threads, if the work is worth it. */
  void divide(int count, long multiplications, Items items) {
    int workers = workers(multiplications);
    if (workers == 1) {
      items.run(0, count, pool.scratch());
      return;
    }
    division.items = items;
    division.count = count;
    division.shares = Math.min(count, workers * SHARES);
    pool.run(division.shares, division);
  }

  private static final class Division implements WorkerPool.Work {
    private Items items = (from, to, scratch) -> {};
    private int count;
    private int shares;

    @Override
    public void run(int share, Scratch scratch) {
      int from = (int) ((long) count * share / shares);
      int to = (int) ((long) count * (share + 1) / shares);
      items.run(from, to, scratch);
    }
  }

  /** Threads that so much work is worth. */
  int workers(long multiplications) {
    return multiplications < WORTH_SHARING ? 1 : pool.threads();
  }

  private float[] shrunk(int count) {
    if (shrunk.length < count) {
      shrunk = new float[count];
    }
    return shrunk;
  }

  private float[] gathered(int count) {
    if (gathered.length < count) {
      gathered = new float[count];
      gatheredRows = MemorySegment.ofArray(gathered);
    }
    return gathered;
  }

  /** Whether a segment's rows are no earlier one's, as are those of a mix's other adapters. */
  static boolean first(List<Batch.Segment> segments, int i) {
    return i == 0 || segments.get(i).from() != segments.get(i - 1).from();
  }

  static CpuLora.@Nullable Part part(Batch.Segment segment, int module) {
    return segment.lora() instanceof CpuLora lora ? lora.part(module) : null;
  }

  /** The weight that {@code part} replaces, or the base's. */
  static Panels weightOf(CpuLora.@Nullable Part part, int module, Panels base) {
    Panels weight = part == null ? null : part.weight();
    if (weight == null) {
      return base;
    }
    if (weight.rows() != base.rows() || weight.cols() != base.cols()) {
      throw new IllegalArgumentException(
          "module %d: expected a weight of (%d, %d) from the adapter, got (%d, %d)"
              .formatted(module, base.rows(), base.cols(), weight.rows(), weight.cols()));
    }
    return weight;
  }

  static void checkFactors(int module, Factor a, Factor b, int in, int out) {
    if (a.length() != in || b.length() != out) {
      throw new IllegalArgumentException(
          "module %d: expected A (%d, %d) and B (%d, %d), got A (%d, %d) and B (%d, %d)"
              .formatted(
                  module, a.rank(), in, out, a.rank(), a.rank(), a.length(), b.length(), b.rank()));
    }
  }

  static void checkLength(int module, float @Nullable [] values, int expected) {
    if (values != null && values.length != expected) {
      throw new IllegalArgumentException(
          "module %d: expected a bias of %d from the adapter, got %d"
              .formatted(module, expected, values.length));
    }
  }

  static Panels panels(Matrix matrix) {
    if (matrix instanceof Panels panels) {
      return panels;
    }
    throw new IllegalArgumentException("a matrix of another backend: " + matrix.getClass());
  }

  static float[] floats(Buffer buffer) {
    return own(buffer).data();
  }

  /** The same as a segment. */
  static MemorySegment segment(Buffer buffer) {
    return own(buffer).segment();
  }

  private static CpuBuffer own(Buffer buffer) {
    if (buffer instanceof CpuBuffer own) {
      return own;
    }
    throw new IllegalArgumentException("a buffer of another backend: " + buffer.getClass());
  }

  private static KvPages pages(KvCache cache, Heads heads, int layer) {
    if (!(cache instanceof KvPages pages)) {
      throw new IllegalArgumentException("a cache of another backend: " + cache.getClass());
    }
    pages.shape().expect(heads, layer);
    return pages;
  }

  static void checkShape(String what, Buffer buffer, int rows, int width) {
    buffer.expect(what, rows, width);
  }
}
