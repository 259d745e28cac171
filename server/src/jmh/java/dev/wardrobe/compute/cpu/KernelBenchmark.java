package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Step;
import dev.wardrobe.quant.RandomMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.openjdk.jmh.annotations.AuxCounters;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * Each kernel on the Vector API beside its scalar twin and, where there is some, generated code, on
 * one thread, in the sizes of a 1.1B model, and what the machine can do at most ({@code roofRead},
 * {@code roofCompute}). {@code Fast} is the fast mode's generated code.
 *
 * <p>What is too large for the caches in a model is so here: successive calls read other weights,
 * adapters and layers. Products are measured alone: the backend's generated code for weights also
 * asks for the adapters' factors meanwhile. Rates are per second, in thousand millions.
 */
@BenchmarkMode(Mode.Throughput)
@OutputTimeUnit(TimeUnit.SECONDS)
@Warmup(iterations = 4, time = 1)
@Measurement(iterations = 3, time = 1)
@Fork(
    value = 1,
    jvmArgsAppend = {
      "--add-modules=jdk.incubator.vector",
      "--enable-native-access=ALL-UNNAMED",
      "-XX:+UseCompactObjectHeaders",
      "-Xmx3g"
    })
@State(Scope.Thread)
public class KernelBenchmark {
  private static final int HIDDEN = 2048;
  private static final int FFN = 5632;
  private static final int VOCABULARY = 32000;
  private static final int MATRICES = 16;
  private static final int STREAMS = 32;
  private static final Heads HEADS = new Heads(32, 4, 64, 0.125f, 0);
  private static final int LAYERS = 22;
  private static final int DEPTH = 1024;

  private final Kernels plainKernels = new ScalarKernels();
  private final Kernels vectorKernels = new VectorKernels();
  private final CpuBackend scalar = new CpuBackend(1, plainKernels);
  private final CpuBackend vector = new CpuBackend(1, vectorKernels);
  private final Scratch scratch = new Scratch();
  private int call;

  /** What was done, per second. */
  @AuxCounters(AuxCounters.Type.OPERATIONS)
  @State(Scope.Thread)
  public static class Rates {
    public double gigaWeights;
    public double gigaBytes;
    public double gigaFlops;

    private void add(double weights, double bytes, double flops) {
      gigaWeights += weights / 1e9;
      gigaBytes += bytes / 1e9;
      gigaFlops += flops / 1e9;
    }
  }

  @TearDown
  public void close() {
    scalar.close();
    vector.close();
  }

  /** What the operations of a step work on; all of it is closed at the end. */
  private static final class Bed implements AutoCloseable {
    final CpuBackend memory = new CpuBackend(1, new ScalarKernels());
    final Arena arena = Arena.ofShared();
    final SplittableRandom random = new SplittableRandom(1);
    private final List<AutoCloseable> all = new ArrayList<>();

    <T extends AutoCloseable> T keep(T part) {
      all.add(part);
      return part;
    }

    Buffer buffer(int rows, int width) {
      Buffer buffer = keep(memory.buffer(rows, width));
      memory.write(buffer, 0, numbers(rows * width));
      return buffer;
    }

    float[] numbers(int count) {
      float[] numbers = new float[count];
      for (int i = 0; i < count; i++) {
        numbers[i] = (float) random.nextDouble(-1, 1);
      }
      return numbers;
    }

    DenseMatrix dense(int rows, int cols) {
      MemorySegment data = arena.allocate(2L * rows * cols);
      for (long i = 0; i < (long) rows * cols; i++) {
        int bits = Float.floatToRawIntBits((float) random.nextDouble(-0.03, 0.03));
        data.set(ValueLayout.JAVA_SHORT, 2 * i, (short) (bits >>> 16));
      }
      return new DenseMatrix(DType.BF16, rows, cols, data);
    }

    /** One-token runs at {@code position}. */
    Step step(int tokens, int position, int blocks) {
      Batch batch = new Batch();
      for (int i = 0; i < tokens; i++) {
        int first = i * blocks;
        batch.add(
            new int[position + 1],
            position,
            1,
            IntStream.range(first, first + blocks).toArray(),
            null);
        batch.want(i);
      }
      return keep(memory.step(batch));
    }

    @Override
    public void close() throws Exception {
      for (AutoCloseable part : all.reversed()) {
        part.close();
      }
      memory.close();
      arena.close();
    }
  }

  /** What is written at start; a benchmark of it fails where the processor does not take it. */
  @State(Scope.Thread)
  public static class Generated {
    private Avx512Projections weights;
    private Avx512Adapters adapters;

    @Setup
    public void load() {
      weights = there(Avx512Projections.load(), "AVX-512");
      adapters = there(Avx512Adapters.load(), "AVX-512");
    }

    private static <T> T there(@Nullable T code, String wanted) {
      if (code == null) {
        throw new IllegalStateException("generated code needs a processor with " + wanted);
      }
      return code;
    }
  }

  // Projections.

  /** Weights times tokens, and what the tokens are. */
  private static final class Products implements AutoCloseable {
    private final Bed bed = new Bed();
    private final List<Panels> weights = new ArrayList<>();
    private final int tokens;
    private final float[] x;
    private final float[] y;

    private Products(int tokens, int out) {
      this.tokens = tokens;
      x = bed.numbers(tokens * HIDDEN);
      y = new float[tokens * out];
    }

    /** NF4 matrices, more than a cache holds. */
    static Products nf4(int tokens) {
      Products products = new Products(tokens, FFN);
      Bed bed = products.bed;
      for (int i = 0; i < MATRICES; i++) {
        var matrix = bed.keep(bed.memory.matrix(RandomMatrix.of(FFN, HIDDEN, i, bed.arena)));
        products.weights.add(CpuBackend.panels(matrix));
      }
      return products;
    }

    /** A head in bf16, larger than a cache. */
    static Products head(int tokens) {
      Products products = new Products(tokens, VOCABULARY);
      Bed bed = products.bed;
      var matrix = bed.keep(bed.memory.matrix(bed.dense(VOCABULARY, HIDDEN)));
      products.weights.add(CpuBackend.panels(matrix));
      return products;
    }

    /** The next weights, which are to be used. */
    Panels next(int call, Rates rates) {
      Panels w = weights.get(call % weights.size());
      double count = (double) w.rows() * w.cols();
      rates.add(count, w.footprint().total(), 2 * count * tokens);
      return w;
    }

    @Override
    public void close() throws Exception {
      bed.close();
    }
  }

  private interface Multiplication {
    void linear(
        Panels w,
        int panelFrom,
        int panelTo,
        float[] x,
        int from,
        int to,
        float[] y,
        Scratch scratch);
  }

  private void multiply(Multiplication by, Products on, Rates rates) {
    Panels w = on.next(call++, rates);
    by.linear(w, 0, w.panels(), on.x, 0, on.tokens, on.y, scratch);
  }

  @State(Scope.Thread)
  public static class Nf4 {
    @Param({"1", "6", "32", "512"})
    public int tokens;

    private Products products;

    @Setup
    public void make() {
      products = Products.nf4(tokens);
    }

    @TearDown
    public void close() throws Exception {
      products.close();
    }
  }

  @Benchmark
  public void nf4Scalar(Nf4 on, Rates rates) {
    multiply(plainKernels::linear, on.products, rates);
  }

  @Benchmark
  public void nf4Vector(Nf4 on, Rates rates) {
    multiply(vectorKernels::linear, on.products, rates);
  }

  @Benchmark
  public void nf4Generated(Nf4 on, Generated code, Rates rates) {
    multiply(code.weights::linear, on.products, rates);
  }

  @State(Scope.Thread)
  public static class Head {
    @Param({"1", "6", "32", "512"})
    public int tokens;

    private Products products;

    @Setup
    public void make() {
      products = Products.head(tokens);
    }

    @TearDown
    public void close() throws Exception {
      products.close();
    }
  }

  @Benchmark
  public void headScalar(Head on, Rates rates) {
    multiply(plainKernels::linear, on.products, rates);
  }

  @Benchmark
  public void headVector(Head on, Rates rates) {
    multiply(vectorKernels::linear, on.products, rates);
  }

  @Benchmark
  public void headGenerated(Head on, Generated code, Rates rates) {
    multiply(code.weights::linear, on.products, rates);
  }

  /** The fast mode's generated code, and inputs in bfloat16. */
  @State(Scope.Thread)
  public static class Fast {
    private final NativeMemory.Region region = new NativeMemory().region();
    private final long inputs =
        region.allocate("inputs", Bfloat16Projections.bytes((long) STREAMS * HIDDEN)).address();
    private Products nf4;
    private Products head;
    private Bfloat16Projections code;

    @Setup
    public void make() throws OneDnn.UnavailableException {
      try (OneDnn library = OneDnn.load()) {
        // That is what knows the processor, and where its tiles are better.
        Bfloat16Projections loaded = library.avx512() ? Bfloat16Projections.load() : null;
        code = Generated.there(loaded, "AVX512-BF16 and without AMX");
      }
      nf4 = Products.nf4(STREAMS);
      head = Products.head(STREAMS);
    }

    @TearDown
    public void close() throws Exception {
      nf4.close();
      head.close();
      region.close();
    }
  }

  @Benchmark
  public void nf4Fast(Fast on, Rates rates) {
    multiply(on, on.nf4, rates);
  }

  @Benchmark
  public void headFast(Fast on, Rates rates) {
    multiply(on, on.head, rates);
  }

  private void multiply(Fast by, Products on, Rates rates) {
    Panels w = on.next(call++, rates);
    Bfloat16Projections.Frame frame = scratch.fastFrame();
    by.code.round(on.x, 0, 0, on.tokens, on.tokens, w.cols(), by.inputs, frame);
    by.code.linear(w, 0, w.panels(), by.inputs, on.tokens, on.y, 0, frame, scratch);
  }

  /** Adapters for so many tokens each, and more projections of theirs than a cache holds. */
  @State(Scope.Thread)
  public static class Adapters {
    private static final int RANKS = 1024;

    @Param({"8", "16", "64"})
    public int rank;

    @Param({"1", "4", "16"})
    public int each;

    private final NativeMemory.Region region = new NativeMemory().region();
    private final Bed bed = new Bed();
    private final List<List<Factor>> shrinking = new ArrayList<>();
    private final List<List<Factor>> expanding = new ArrayList<>();
    private final List<Shrinks> shrinks = new ArrayList<>();
    private final List<Expansions> expansions = new ArrayList<>();
    private final float[] x = bed.numbers(STREAMS * HIDDEN);
    private final float[] y = new float[STREAMS * HIDDEN];
    private float[] t;
    private MemorySegment xSegment;
    private MemorySegment ySegment;
    private MemorySegment tSegment;

    @Setup
    public void make() {
      t = bed.numbers(STREAMS * rank);
      tSegment = MemorySegment.ofArray(t);
      xSegment = MemorySegment.ofArray(x);
      ySegment = MemorySegment.ofArray(y);
      DenseMatrix a = bed.dense(rank, HIDDEN);
      DenseMatrix b = bed.dense(HIDDEN, rank);
      for (int i = 0; i < turns(); i++) {
        List<Factor> as = new ArrayList<>();
        List<Factor> bs = new ArrayList<>();
        Shrinks firsts = new Shrinks();
        Expansions seconds = new Expansions();
        for (int token = 0; token < STREAMS; token++) {
          if (token % each == 0) {
            as.add(Factor.rows(a, region));
            bs.add(Factor.panels(b, region));
          }
          firsts.add(as.getLast(), 0, rank, token, token * rank);
          seconds.add(bs.getLast(), 1, token * rank, token);
        }
        shrinking.add(as);
        expanding.add(bs);
        shrinks.add(firsts);
        expansions.add(seconds);
      }
    }

    private int turns() {
      return RANKS * each / rank;
    }

    int next(int call, Rates rates) {
      double weights = (double) STREAMS / each * rank * HIDDEN;
      rates.add(weights, 2 * weights, 2 * weights * each);
      return call % turns();
    }

    @TearDown
    public void close() throws Exception {
      bed.close();
      region.close();
    }
  }

  @Benchmark
  public void shrinkScalar(Adapters on, Rates rates) {
    shrink(plainKernels, on, rates);
  }

  @Benchmark
  public void shrinkVector(Adapters on, Rates rates) {
    shrink(vectorKernels, on, rates);
  }

  private void shrink(Kernels kernels, Adapters on, Rates rates) {
    List<Factor> factors = on.shrinking.get(on.next(call++, rates));
    for (int i = 0; i < factors.size(); i++) {
      int from = i * on.each;
      int at = from * on.rank;
      kernels.shrink(factors.get(i), 0, on.rank, on.x, from, from + on.each, on.t, at, scratch);
    }
  }

  @Benchmark
  public void shrinkGenerated(Adapters on, Generated code, Rates rates) {
    Shrinks all = on.shrinks.get(on.next(call++, rates));
    code.adapters.shrinkAll(all, on.xSegment, on.tSegment, scratch);
  }

  @Benchmark
  public void expandScalar(Adapters on, Rates rates) {
    expand(plainKernels, on, rates);
  }

  @Benchmark
  public void expandVector(Adapters on, Rates rates) {
    expand(vectorKernels, on, rates);
  }

  private void expand(Kernels kernels, Adapters on, Rates rates) {
    List<Factor> factors = on.expanding.get(on.next(call++, rates));
    for (int i = 0; i < factors.size(); i++) {
      int from = i * on.each;
      int at = from * on.rank;
      Factor b = factors.get(i);
      kernels.expand(b, 1, null, on.t, at, 0, HIDDEN, on.y, from, from + on.each, scratch);
    }
  }

  @Benchmark
  public void expandGenerated(Adapters on, Generated code, Rates rates) {
    Expansions all = on.expansions.get(on.next(call++, rates));
    code.adapters.expandAll(all, on.tSegment, 0, HIDDEN, on.ySegment, scratch);
  }

  // Attention.

  /** Keys and values of all layers; one token behind 1,024, or 128 of them from there on. */
  @State(Scope.Thread)
  public static class Attention {
    private static final int ROWS = 128;

    private final Bed bed = new Bed();
    private KvCache cache;
    private Buffer q;
    private Buffer k;
    private Buffer v;
    private Buffer out;
    private Buffer cos;
    private Buffer sin;
    private Step decode;
    private Step prefill;

    @Setup
    public void make() {
      int blocks = (DEPTH + ROWS) / KvShape.BLOCK_TOKENS;
      int size = HEADS.size();
      cache =
          bed.keep(
              bed.memory.kvCache(
                  new KvShape(LAYERS, HEADS.keyValues(), size, blocks, KvShape.Type.BF16)));
      q = bed.buffer(ROWS, HEADS.queries() * size);
      k = bed.buffer(ROWS, HEADS.keyValues() * size);
      v = bed.buffer(ROWS, HEADS.keyValues() * size);
      out = bed.buffer(ROWS, HEADS.queries() * size);
      cos = bed.buffer(DEPTH + ROWS, size / 2);
      sin = bed.buffer(DEPTH + ROWS, size / 2);
      for (int position = 0; position < DEPTH; position += ROWS) {
        Step step = rows(position, blocks);
        for (int layer = 0; layer < LAYERS; layer++) {
          bed.memory.rope(step, HEADS, cos, sin, q, k, v, cache, layer);
        }
      }
      decode = bed.step(1, DEPTH - 1, blocks);
      prefill = rows(DEPTH, blocks);
    }

    private Step rows(int position, int blocks) {
      Batch batch = new Batch();
      int[] table = IntStream.range(0, blocks).toArray();
      batch.add(new int[position + ROWS], position, ROWS, table, null);
      return bed.keep(bed.memory.step(batch));
    }

    @TearDown
    public void close() throws Exception {
      bed.close();
    }
  }

  @Benchmark
  public void attendDecodeScalar(Attention on, Rates rates) {
    attend(scalar, on, on.decode, DEPTH, DEPTH, rates);
  }

  @Benchmark
  public void attendDecodeVector(Attention on, Rates rates) {
    attend(vector, on, on.decode, DEPTH, DEPTH, rates);
  }

  @Benchmark
  public void attendPrefillScalar(Attention on, Rates rates) {
    attendPrefill(scalar, on, rates);
  }

  @Benchmark
  public void attendPrefillVector(Attention on, Rates rates) {
    attendPrefill(vector, on, rates);
  }

  private void attendPrefill(CpuBackend backend, Attention on, Rates rates) {
    int rows = Attention.ROWS;
    attend(backend, on, on.prefill, DEPTH + rows, rows * DEPTH + rows * (rows + 1) / 2, rates);
  }

  /**
   * @param read positions whose keys and values are read
   * @param seen positions that all rows see together
   */
  private void attend(
      CpuBackend backend, Attention on, Step step, int read, int seen, Rates rates) {
    backend.attention(step, HEADS, on.q, on.cache, call++ % LAYERS, on.out);
    double bytes = 2.0 * read * HEADS.keyValues() * HEADS.size() * KvShape.Type.BF16.bytes();
    rates.add(0, bytes, 4.0 * seen * HEADS.queries() * HEADS.size());
  }

  @Benchmark
  public void ropeScalar(Attention on, Rates rates) {
    rope(scalar, on, rates);
  }

  @Benchmark
  public void ropeVector(Attention on, Rates rates) {
    rope(vector, on, rates);
  }

  private void rope(CpuBackend backend, Attention on, Rates rates) {
    backend.rope(on.prefill, HEADS, on.cos, on.sin, on.q, on.k, on.v, on.cache, call++ % LAYERS);
    double turned = (double) Attention.ROWS * (HEADS.queries() + HEADS.keyValues()) * HEADS.size();
    rates.add(0, 8 * turned, 3 * turned);
  }

  // Rows.

  /** Activations of 32 tokens. */
  @State(Scope.Thread)
  public static class Rows {
    private static final int TOKENS = 32;

    private final Bed bed = new Bed();
    private Buffer residual;
    private Buffer x;
    private Buffer out;
    private Buffer weight;
    private Buffer gate;
    private Buffer up;
    private Buffer activated;
    private Step step;

    @Setup
    public void make() {
      residual = bed.buffer(TOKENS, HIDDEN);
      x = bed.buffer(TOKENS, HIDDEN);
      out = bed.buffer(TOKENS, HIDDEN);
      weight = bed.buffer(1, HIDDEN);
      gate = bed.buffer(TOKENS, FFN);
      up = bed.buffer(TOKENS, FFN);
      activated = bed.buffer(TOKENS, FFN);
      step = bed.step(TOKENS, 0, 1);
    }

    @TearDown
    public void close() throws Exception {
      bed.close();
    }
  }

  @Benchmark
  public void normScalar(Rows on, Rates rates) {
    norm(scalar, on, rates);
  }

  @Benchmark
  public void normVector(Rows on, Rates rates) {
    norm(vector, on, rates);
  }

  private static void norm(CpuBackend backend, Rows on, Rates rates) {
    // The residual grows, but as slowly as calls are counted.
    backend.norm(on.step, 0, on.residual, on.x, on.weight, 1e-5f, on.out);
    double elements = (double) Rows.TOKENS * HIDDEN;
    rates.add(0, 16 * elements, 5 * elements);
  }

  @Benchmark
  public void activateScalar(Rows on, Rates rates) {
    activate(scalar, on, rates);
  }

  @Benchmark
  public void activateVector(Rows on, Rates rates) {
    activate(vector, on, rates);
  }

  private static void activate(CpuBackend backend, Rows on, Rates rates) {
    backend.activate(on.step, on.gate, on.up, on.activated);
    double elements = (double) Rows.TOKENS * FFN;
    rates.add(0, 12 * elements, 20 * elements);
  }

  /** A row of logits of a large vocabulary. */
  @State(Scope.Thread)
  public static class Logits {
    private static final int LARGE = 128256;

    private final Bed bed = new Bed();
    private final List<Draw> greedy = List.of(draw(0, 0, 1));
    private final List<Draw> drawn = List.of(draw(0.8f, 40, 0.95f));
    private Buffer logits;
    private Step step;

    @Setup
    public void make() {
      logits = bed.buffer(1, LARGE);
      step = bed.step(1, 0, 1);
    }

    private static Draw draw(float temperature, int topK, float topP) {
      return new Draw(0, -1, temperature, topK, topP, 0, 1, 0, 0, new int[] {1}, 1, 1, 1, 1, 0);
    }

    @TearDown
    public void close() throws Exception {
      bed.close();
    }
  }

  @Benchmark
  public void greedyScalar(Logits on, Rates rates) {
    sample(scalar, on, on.greedy, rates);
  }

  @Benchmark
  public void greedyVector(Logits on, Rates rates) {
    sample(vector, on, on.greedy, rates);
  }

  @Benchmark
  public void topPScalar(Logits on, Rates rates) {
    sample(scalar, on, on.drawn, rates);
  }

  @Benchmark
  public void topPVector(Logits on, Rates rates) {
    sample(vector, on, on.drawn, rates);
  }

  private static void sample(CpuBackend backend, Logits on, List<Draw> draws, Rates rates) {
    backend.sample(on.step, on.logits, draws);
    rates.add(0, 4.0 * Logits.LARGE, 20.0 * Logits.LARGE);
  }

  // The roof.

  /** Memory that no cache holds. */
  @State(Scope.Thread)
  public static class Memory {
    private static final long BYTES = 256L << 20;

    private final Arena arena = Arena.ofShared();
    private final MemorySegment data = arena.allocate(BYTES, 64).fill((byte) 1);

    @TearDown
    public void close() {
      arena.close();
    }
  }

  @Benchmark
  public int roofRead(Memory on, Rates rates) {
    rates.add(0, Memory.BYTES, 0);
    return Roof.sum(on.data, 0, Memory.BYTES);
  }

  @Benchmark
  public float roofCompute(Rates rates) {
    int rounds = 1 << 20;
    rates.add(0, 0, Roof.operations(rounds));
    return Roof.multiplyAdd(rounds, call++);
  }
}
