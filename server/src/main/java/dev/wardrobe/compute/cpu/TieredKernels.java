package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantException;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * The plain kernels at first, and for each kind of operation the vector kernels from when they are
 * faster; {@link Avx512Projections} from the start for weights that it takes. All give the same
 * bits, so the change never shows in a result.
 *
 * <p>Before the compiler has seen enough of it, code on the Vector API is a thousand times slower
 * than after, and a hundred times slower than plain code: a first token would take a minute. So a
 * thread in the background drills the vector kernels on small inputs, beside the plain ones, until
 * they win. Each kind is drilled by itself, the one that a first token needs most at first: what
 * costs the time is the compiler, which has one thread where there are two processors. Where they
 * never do (no compiler support for them), plain code goes on.
 */
final class TieredKernels implements Kernels {
  /** After this another kind has its turn. */
  private static final Duration TURN = Duration.ofSeconds(10);

  /** What a turn shrinks to when it has been in vain. */
  private static final Duration SHORTEST_TURN = Duration.ofMillis(50);

  /** What the pause between rounds of turns grows to. */
  private static final Duration LONGEST_PAUSE = Duration.ofMinutes(1);

  /** How long the drill waits for a first step to end. */
  private static final Duration LONGEST_DELAY = Duration.ofSeconds(2);

  /**
   * How seldom the plain kernels run beside the vector ones. Often enough, they would take the
   * compiler's time; and even half-compiled they beat vector kernels that are not compiled.
   */
  private static final int PLAIN_EVERY = 16;

  /** Times in a row that the vector kernels must win. */
  private static final int WINS = 10;

  private final Kernels plain = new ScalarKernels();
  private final Kernels vector = new VectorKernels();
  private final @Nullable Avx512Projections generated = Avx512Projections.load();
  private final @Nullable Avx512Adapters generatedAdapters = Avx512Adapters.load();
  private final Tier nibbles = new Tier();
  private final Tier nibblesOfOne = new Tier();
  private final Tier bfloat16 = new Tier();
  private final Tier bfloat16OfOne = new Tier();
  private final Tier otherWeights = new Tier();
  private final Tier gradients = new Tier();
  private final Tier adapters = new Tier();
  private final Tier rows = new Tier();
  private final Tier attention = new Tier();
  private final Tier sampling = new Tier();
  private final CountDownLatch begun = new CountDownLatch(1);
  private final CountDownLatch drilled = new CountDownLatch(1);

  /** One for the whole process, as its compiled code is. */
  static TieredKernels shared() {
    return Shared.KERNELS;
  }

  private static final class Shared {
    static final TieredKernels KERNELS = new TieredKernels();

    static {
      Thread thread = new Thread(KERNELS::drill, "wardrobe-warm-up");
      thread.setDaemon(true);
      thread.start();
    }
  }

  private TieredKernels() {}

  /**
   * Lets the drill begin. Before, it only does where there is no generated code, which a first
   * token would wait for; else that token is there the sooner the less is compiled beside it.
   */
  void begin() {
    begun.countDown();
  }

  /** Waits until the vector kernels are in use; false if they are not after that time. */
  boolean awaitDrilled(Duration atMost) throws InterruptedException {
    begin();
    return drilled.await(atMost.toNanos(), TimeUnit.NANOSECONDS);
  }

  /** The kernels in use for one kind of operation. */
  private final class Tier {
    private volatile Kernels kernels = plain;
    private int wins;

    /** Runs both for a while; true once the vector kernels are in use. */
    private boolean drill(Exercise exercise, Duration turn) {
      long end = System.nanoTime() + turn.toNanos();
      long limit = Long.MAX_VALUE;
      for (int round = 0; wins < WINS && end - System.nanoTime() > 0; round++) {
        long start = System.nanoTime();
        if (round % PLAIN_EVERY == 0) {
          exercise.run(plain);
          long between = System.nanoTime();
          limit = Math.min(limit, between - start);
          start = between;
        }
        exercise.run(vector);
        boolean won = System.nanoTime() - start < limit;
        wins = won ? wins + 1 : 0;
        if (wins == WINS) {
          kernels = vector;
        }
      }
      return wins == WINS;
    }
  }

  private interface Exercise {
    void run(Kernels kernels);
  }

  /**
   * Drills one kind after the other, those that a token needs most first; where that does not end,
   * now and then for as long as the process lives.
   */
  private void drill() {
    try (Drill drill = inputs()) {
      Duration turn = TURN;
      Duration pause = Duration.ofSeconds(1);
      while (true) {
        // A prompt's projections, its last token's logits, and then the tokens that follow.
        boolean done = true;
        if (generated == null) {
          done &= nibbles.drill(k -> drill.projectSeveral(k, drill.nibbles), turn);
          done &= bfloat16OfOne.drill(k -> drill.project(k, drill.bfloat16, 1), turn);
          done &= nibblesOfOne.drill(k -> drill.project(k, drill.nibbles, 1), turn);
        }
        done &= attention.drill(drill::attend, turn);
        done &= rows.drill(drill::rows, turn);
        done &= sampling.drill(drill::sample, turn);
        done &= adapters.drill(drill::adapt, turn);
        if (generated == null) {
          done &= bfloat16.drill(k -> drill.projectSeveral(k, drill.bfloat16), turn);
        }
        done &= otherWeights.drill(drill::projectOthers, turn);
        if (done) {
          drilled.countDown();
        }
        done &= gradients.drill(drill::differentiate, turn);
        if (done) {
          break;
        }
        Thread.sleep(pause);
        turn = Collections.max(List.of(SHORTEST_TURN, turn.dividedBy(2)));
        pause = Collections.min(List.of(LONGEST_PAUSE, pause.multipliedBy(2)));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      drilled.countDown();
    }
  }

  /** The drill's inputs, once it may begin: a first step that takes as long needs it. */
  private Drill inputs() throws InterruptedException {
    if (generated != null && !begun.await(LONGEST_DELAY.toNanos(), TimeUnit.NANOSECONDS)) {
      begin();
    }
    return new Drill(new NativeMemory().region());
  }

  /**
   * Small inputs that go through every branch of the vector kernels, so that the compiled code
   * holds them all.
   */
  private static final class Drill implements AutoCloseable {
    private static final int TOKENS = 7;
    private static final int[] BLOCKS = {0, 1, 2, 3};

    private final NativeMemory.Region region;
    private final Scratch scratch = new Scratch();
    private final List<Panels> nibbles;
    private final List<Panels> bfloat16;
    private final List<Panels> others;
    private final List<Factor> factors;
    private final List<KvPages> pages;
    private final float[] x = numbers(8192);
    private final float[] y = new float[8192];

    Drill(NativeMemory.Region region) {
      this.region = region;
      nibbles =
          List.of(
              quantized(QuantType.NF4, 40, 192, 64, true),
              quantized(QuantType.FP4, 33, 256, 128, false));
      bfloat16 =
          List.of(
              new DensePanels(dense(DType.BF16, 50, 64), region),
              new DensePanels(dense(DType.BF16, 20, 131), region));
      others =
          List.of(
              quantized(QuantType.NF4, 20, 80, 64, true),
              quantized(QuantType.NF4, 33, 96, 32, true),
              new DensePanels(dense(DType.BF16, 20, 131), region),
              new DensePanels(dense(DType.F16, 40, 66), region),
              new DensePanels(dense(DType.F32, 40, 64), region));
      factors =
          List.of(
              Factor.rows(dense(DType.BF16, 7, 150), region),
              Factor.rows(dense(DType.F16, 7, 64), region),
              Factor.rows(dense(DType.F32, 7, 40), region),
              Factor.panels(dense(DType.BF16, 150, 7), region),
              Factor.panels(dense(DType.BF16, 150, 16), region),
              Factor.panels(dense(DType.F16, 64, 7), region),
              Factor.panels(dense(DType.F16, 64, 16), region),
              Factor.panels(dense(DType.F32, 85, 7), region),
              Factor.panels(dense(DType.F32, 85, 16), region));
      pages =
          List.of(
              new KvPages(new KvShape(1, 1, 64, 4, KvShape.Type.BF16), region),
              new KvPages(new KvShape(1, 1, 64, 4, KvShape.Type.F32), region),
              new KvPages(new KvShape(1, 1, 90, 4, KvShape.Type.BF16), region),
              new KvPages(new KvShape(1, 1, 90, 4, KvShape.Type.F32), region));
    }

    private static float[] numbers(int count) {
      float[] numbers = new float[count];
      for (int i = 0; i < count; i++) {
        numbers[i] = i * 37 % 101 / 50f - 1;
      }
      return numbers;
    }

    private Panels quantized(QuantType type, int rows, int cols, int block, boolean nested) {
      try {
        return new NibblePanels(
            QuantizedMatrix.quantize(
                FloatSource.of("drill", numbers(rows * cols)),
                rows,
                cols,
                new QuantOptions(type, block, nested),
                "float32"),
            region);
      } catch (QuantException e) {
        throw new IllegalStateException(e);
      }
    }

    private static DenseMatrix dense(DType dtype, int rows, int cols) {
      MemorySegment data = MemorySegment.ofArray(new byte[rows * cols * dtype.bytes()]);
      dtype.narrow(numbers(rows * cols), 0, rows * cols, data, 0);
      return new DenseMatrix(dtype, rows, cols, data);
    }

    void project(Kernels kernels, List<Panels> weights, int tokens) {
      for (Panels w : weights) {
        kernels.linear(w, 0, w.panels(), x, 0, tokens, y, scratch);
      }
    }

    /** Sixes, fours, twos and ones. */
    void projectSeveral(Kernels kernels, List<Panels> weights) {
      project(kernels, weights, 5);
      project(kernels, weights, 8);
    }

    void projectOthers(Kernels kernels) {
      project(kernels, others, 1);
      projectSeveral(kernels, others);
    }

    void differentiate(Kernels kernels) {
      for (List<Panels> weights : List.of(nibbles, bfloat16, others)) {
        for (Panels w : weights) {
          kernels.linearInput(w, 0, w.units(), x, TOKENS, y, scratch);
        }
      }
    }

    void adapt(Kernels kernels) {
      for (Factor factor : factors) {
        for (int tokens : new int[] {1, TOKENS}) {
          if (factor.panels()) {
            int outputs = factor.length();
            kernels.expand(factor, 2, null, x, 0, 0, outputs, y, 0, tokens, scratch);
            kernels.expand(factor, 2, x, x, 0, 0, outputs, y, 0, tokens, scratch);
          } else {
            kernels.shrink(factor, 0, factor.rank(), x, 0, tokens, y, 0, scratch);
          }
        }
      }
    }

    void rows(Kernels kernels) {
      for (int width = 61; width < 200; width += 17) {
        kernels.multiply(x, 0, y, 0, width);
        kernels.add(x, 0, y, 0, width);
        kernels.norm(x, 0, width, x, 1e-5f, y, 0, scratch);
        kernels.activate(x, x, y, 0, width);
        kernels.rotate(y, 0, width / 2, x, x, 0);
        kernels.narrow(x, 0, width, scratch.shorts(width));
      }
    }

    void attend(Kernels kernels) {
      for (KvPages pool : pages) {
        // Fours of queries within a row and over two, and single ones.
        Heads heads = new Heads(5, 1, pool.shape().headDim(), 0.1f, 45);
        for (int position = 3; position < 60; position += 47) {
          kernels.attend(pool, 0, 0, BLOCKS, heads, position, 2, 0, x, 0, y, 0, scratch);
          kernels.attend(pool, 0, 0, BLOCKS, heads, position, 2, 0, x, 0, y, 4096, scratch);
          kernels.merge(y, 4096, 0, 10, heads.size());
          kernels.finish(y, 0, heads, 2, y, 0);
        }
      }
    }

    void sample(Kernels kernels) {
      kernels.sumOfExponentials(x, 0, 2500, 1, scratch);
      kernels.exponentials(x, 0, 2500, 1, 0.7f, y);
      kernels.largest(x, 0, 2500);
      kernels.above(x, 0, 3, 2500, 2);
      kernels.allAbove(x, 0, 2500, 0.9f, scratch.tokens(2500));
      kernels.sum(x, 0, 1000, scratch);
    }

    @Override
    public void close() {
      region.close();
    }
  }

  private Tier tier(Panels w, int tokens) {
    if (generated != null) {
      return otherWeights;
    }
    return switch (w) {
      case NibblePanels n when n.aligned() -> tokens == 1 ? nibblesOfOne : nibbles;
      case DensePanels d when d.dtype() == DType.BF16 -> tokens == 1 ? bfloat16OfOne : bfloat16;
      default -> otherWeights;
    };
  }

  @Override
  public String describe() {
    return vector.describe() + (generated == null ? "" : ", generated code for weights");
  }

  @Override
  public void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int from,
      int to,
      float[] y,
      Scratch scratch) {
    if (generated != null && Avx512Projections.takes(w)) {
      generated.linear(w, panelFrom, panelTo, x, from, to, y, scratch);
    } else {
      tier(w, to - from).kernels.linear(w, panelFrom, panelTo, x, from, to, y, scratch);
    }
  }

  @Override
  public void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch) {
    gradients.kernels.linearInput(w, unitFrom, unitTo, dy, tokens, dx, scratch);
  }

  @Override
  public void shrink(
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch) {
    adapters.kernels.shrink(a, jFrom, jTo, x, from, to, t, at, scratch);
  }

  @Override
  public void expand(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int outFrom,
      int outTo,
      float[] y,
      int from,
      int to,
      Scratch scratch) {
    adapters.kernels.expand(b, scale, bias, t, at, outFrom, outTo, y, from, to, scratch);
  }

  @Override
  public boolean adaptsAll() {
    return generatedAdapters != null;
  }

  @Override
  public void shrinkAll(Shrinks shrinks, MemorySegment x, MemorySegment t, Scratch scratch) {
    if (generatedAdapters == null) {
      throw new IllegalStateException("no generated code here");
    }
    generatedAdapters.shrinkAll(shrinks, x, t, scratch);
  }

  @Override
  public void expandAll(
      Expansions expansions,
      MemorySegment t,
      int outFrom,
      int outTo,
      MemorySegment y,
      Scratch scratch) {
    if (generatedAdapters == null) {
      throw new IllegalStateException("no generated code here");
    }
    generatedAdapters.expandAll(expansions, t, outFrom, outTo, y, scratch);
  }

  @Override
  public void multiply(float[] factors, int from, float[] y, int at, int count) {
    rows.kernels.multiply(factors, from, y, at, count);
  }

  @Override
  public void add(float[] terms, int from, float[] y, int at, int count) {
    rows.kernels.add(terms, from, y, at, count);
  }

  @Override
  public void norm(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] out,
      int outAt,
      Scratch scratch) {
    rows.kernels.norm(x, at, width, weight, epsilon, out, outAt, scratch);
  }

  @Override
  public void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      Heads heads,
      int position,
      int rows,
      int chunk,
      float[] q,
      int at,
      float[] states,
      int statesAt,
      Scratch scratch) {
    attention.kernels.attend(
        pages, layer, head, blocks, heads, position, rows, chunk, q, at, states, statesAt, scratch);
  }

  @Override
  public void merge(float[] states, int from, int into, int count, int size) {
    attention.kernels.merge(states, from, into, count, size);
  }

  @Override
  public void finish(float[] states, int from, Heads heads, int rows, float[] out, int at) {
    attention.kernels.finish(states, from, heads, rows, out, at);
  }

  @Override
  public void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    rows.kernels.rotate(x, at, half, cos, sin, angle);
  }

  @Override
  public void narrow(float[] x, int at, int count, short[] out) {
    rows.kernels.narrow(x, at, count, out);
  }

  @Override
  public void activate(float[] gate, float[] up, float[] out, int from, int to) {
    rows.kernels.activate(gate, up, out, from, to);
  }

  @Override
  public void exponentials(float[] a, int at, int count, float max, float divisor, float[] out) {
    sampling.kernels.exponentials(a, at, count, max, divisor, out);
  }

  @Override
  public double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch) {
    return sampling.kernels.sumOfExponentials(a, at, count, max, scratch);
  }

  @Override
  public float largest(float[] a, int at, int count) {
    return sampling.kernels.largest(a, at, count);
  }

  @Override
  public int above(float[] a, int at, int from, int count, float bound) {
    return sampling.kernels.above(a, at, from, count, bound);
  }

  @Override
  public int allAbove(float[] a, int at, int count, float bound, int[] indices) {
    return sampling.kernels.allAbove(a, at, count, bound, indices);
  }

  @Override
  public float sum(float[] a, int at, int count, Scratch scratch) {
    return sampling.kernels.sum(a, at, count, scratch);
  }
}
