package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Linear;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Projections of one input with the deltas of the segments' adapters: first all that the adapters
 * shrink the input to, then by panels everything else.
 *
 * <p>Kept from call to call, and pointed anew at each, so that a step allocates nothing.
 */
final class Projections implements WorkerPool.Work {
  /** Tokens of a segment that are shrunk together: their inputs stay in the cache for all rows. */
  private static final int CHUNK = 64;

  private static final int[] NONE = {};

  private final Kernels kernels;
  private final WorkerPool pool;
  private final @Nullable FastProjections fast;
  private final List<Projection> all = new ArrayList<>();
  private int count;
  private List<Batch.Segment> segments = List.of();
  private float[] x = new float[0];
  private MemorySegment inputs = MemorySegment.ofArray(x);
  private float[] t = new float[0];
  private MemorySegment shrunkInputs = MemorySegment.ofArray(t);
  private int tokens;
  private int panels;
  private int shrunk;
  private long multiplications;
  private long shrinkCost;
  private int shares;
  private boolean shrinking;
  private long shrinkNanos;

  /** By a call's first module the modules of the call that followed it last time. */
  private int[][] following = new int[0][];

  private int before = -1;

  /** The modules that the next call is expected to have, and the bytes it will shrink by. */
  private int[] next = NONE;

  private long nextBytes;
  private long call;

  Projections(Kernels kernels, WorkerPool pool, @Nullable FastProjections fast) {
    this.kernels = kernels;
    this.pool = pool;
    this.fast = fast;
  }

  /**
   * Begins anew, without projections.
   *
   * @param x {@code (tokens, in)}
   * @param inputs the same as a segment
   */
  void begin(List<Batch.Segment> segments, int tokens, float[] x, MemorySegment inputs) {
    this.segments = segments;
    this.tokens = tokens;
    this.x = x;
    this.inputs = inputs;
    call++;
    count = 0;
    panels = 0;
    shrunk = 0;
    multiplications = 0;
  }

  /** Adds one of the input's projections. */
  void add(Linear linear, Buffer out) {
    if (count == all.size()) {
      all.add(new Projection(kernels));
    }
    Projection projection = all.get(count++);
    projection.point(linear, segments, out, panels, shrunk);
    shrunk = projection.shrunkEnd();
    panels += projection.base().panels();
    multiplications += (long) tokens * projection.base().rows() * projection.base().cols();
  }

  /**
   * Names what the next call is expected to shrink by, a part of it while panels {@code from} to
   * {@code to} are computed: in the second half of each thread's panels, since what is fetched too
   * early has left the cache when it is wanted.
   */
  void nameNext(int from, int to, Ahead ahead) {
    long begin = named(from);
    long end = named(to);
    long at = 0;
    for (int i = 0; i < segments.size() && at < end; i++) {
      for (int module : next) {
        CpuLora.Part part = CpuBackend.part(segments.get(i), module);
        if (part != null && part.a() != null) {
          long skipped = Math.max(begin - at, 0);
          long size = bytes(part);
          ahead.add(part.a().data(), skipped, Math.min(end - at, size) - skipped);
          at += size;
        }
      }
    }
  }

  /** The inputs that were shrunk, of all projections. */
  MemorySegment shrunk() {
    return shrunkInputs;
  }

  /** How many of the next call's bytes are named before a panel. */
  private long named(int panel) {
    int threads = pool.threads();
    long before = 0;
    long all = 0;
    for (int thread = 0; thread < threads; thread++) {
      long first = (long) panels * thread / threads;
      long end = (long) panels * (thread + 1) / threads;
      long half = first + (end - first) / 2;
      before += Math.clamp(panel - half, 0L, end - half);
      all += end - half;
    }
    return nextBytes * before / all;
  }

  private static long bytes(CpuLora.@Nullable Part part) {
    return part == null || part.a() == null ? 0 : part.a().data().byteSize();
  }

  /**
   * Expects the call that followed last time to follow again, and remembers which one this is for
   * the call before.
   */
  private void follow() {
    int first = all.getFirst().module();
    int[] expected = first >= 0 && first < following.length ? following[first] : null;
    next = expected == null ? NONE : expected;
    nextBytes = 0;
    for (int i = 0; i < segments.size(); i++) {
      for (int module : next) {
        nextBytes += bytes(CpuBackend.part(segments.get(i), module));
      }
    }
    if (before >= 0) {
      if (before >= following.length) {
        following = Arrays.copyOf(following, before + 1);
      }
      int[] followed = following[before];
      boolean same = followed != null && followed.length == count;
      for (int i = 0; same && i < count; i++) {
        same = followed[i] == all.get(i).module();
      }
      if (!same) {
        int[] modules = new int[count];
        Arrays.setAll(modules, i -> all.get(i).module());
        following[before] = modules;
      }
    }
    before = first;
  }

  /** Computes all that were added. */
  void run() {
    if (count == 0) {
      return;
    }
    follow();
    if (t.length < shrunk) {
      t = new float[shrunk];
      shrunkInputs = MemorySegment.ofArray(t);
    }
    try {
      if (shrunk > 0) {
        long start = System.nanoTime();
        shrinking = true;
        shrinkCost = shrink(Long.MAX_VALUE, Long.MAX_VALUE, null);
        share((long) shrunk * all.getFirst().base().cols());
        shrinkNanos += System.nanoTime() - start;
      }
      if (fast != null && tokens >= FastProjections.LEAST_ROWS) {
        fast.linear(all, count, x, tokens, pool);
      }
      shrinking = false;
      share(multiplications);
    } finally {
      for (int i = 0; i < count; i++) {
        all.get(i).release();
      }
    }
  }

  /** What shrinking took of all calls. */
  long shrinkNanos() {
    return shrinkNanos;
  }

  private void share(long work) {
    shares = work < CpuBackend.WORTH_SHARING ? 1 : pool.threads() * CpuBackend.SHARES;
    if (shares == 1) {
      run(0, pool.scratch());
    } else {
      pool.run(shares, this);
    }
  }

  @Override
  public void run(int share, Scratch scratch) {
    scratch.inputs = call;
    if (shrinking) {
      scratch.shrinks.clear();
      shrink(shrinkCost * share / shares, shrinkCost * (share + 1) / shares, scratch);
      if (kernels.adaptsAll()) {
        kernels.shrinkAll(scratch.shrinks, inputs, shrunkInputs, scratch);
      }
    } else {
      int from = (int) ((long) panels * share / shares);
      int to = (int) ((long) panels * (share + 1) / shares);
      for (int i = 0; i < count; i++) {
        all.get(i).run(x, t, from, to, this, scratch);
      }
    }
    scratch.inputs = 0;
  }

  /**
   * Shrinks by those groups of rows of A that begin from {@code from} to {@code to} on a scale of
   * cost, and returns the cost of all. Projections come innermost, because a segment's inputs are
   * in the cache then.
   */
  private long shrink(long from, long to, @Nullable Scratch scratch) {
    long cost = 0;
    for (int segment = 0; segment < segments.size(); segment++) {
      int end = segments.get(segment).to();
      for (int first = segments.get(segment).from(); first < end; first += CHUNK) {
        int last = Math.min(end, first + CHUNK);
        for (int i = 0; i < count; i++) {
          Factor a = all.get(i).factor(segment);
          if (a == null) {
            continue;
          }
          long each = cost(a, last - first);
          long next = cost + each * a.rank();
          if (scratch != null && from < next && cost < to) {
            int jFrom = firstRow(from - cost, each, a.rank());
            int jTo = firstRow(to - cost, each, a.rank());
            all.get(i).shrink(segment, jFrom, jTo, x, first, last, t, scratch);
          }
          cost = next;
        }
      }
    }
    return cost;
  }

  /** What a row of A costs: it is read once, and used by each token. */
  private static long cost(Factor a, int tokens) {
    return 2L * a.dtype().bytes() + tokens;
  }

  /** The first row of a group that begins at {@code cost} or later. */
  private static int firstRow(long cost, long each, int rank) {
    long group = each * Factor.GROUP;
    return (int) Math.clamp(Math.ceilDiv(cost, group) * Factor.GROUP, 0L, (long) rank);
  }
}
