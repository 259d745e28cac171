package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.CpuBackend.checkFactors;
import static dev.wardrobe.compute.cpu.CpuBackend.checkLength;
import static dev.wardrobe.compute.cpu.CpuBackend.checkShape;
import static dev.wardrobe.compute.cpu.CpuBackend.first;
import static dev.wardrobe.compute.cpu.CpuBackend.floats;
import static dev.wardrobe.compute.cpu.CpuBackend.panels;
import static dev.wardrobe.compute.cpu.CpuBackend.part;
import static dev.wardrobe.compute.cpu.CpuBackend.segment;
import static dev.wardrobe.compute.cpu.CpuBackend.weightOf;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Linear;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** One projection with the deltas of the segments' adapters. */
final class Projection {
  /**
   * Panels whose deltas follow their base product. Few enough for their outputs to be in the cache
   * still; enough for each adapter to be read in pieces of some kilobytes. And threads that change
   * from computing to reading at different times have the memory to themselves more often.
   */
  private static final int BLOCK = 32;

  /** Bytes of B that go with a block, at most: they are fetched into the cache meanwhile. */
  private static final long FETCHED = 256 << 10;

  private final Kernels kernels;
  private List<Batch.Segment> segments = List.of();
  private @Nullable Panels base;
  private float @Nullable [] bias;
  private float[] y = new float[0];
  private MemorySegment outputs = MemorySegment.NULL;
  private CpuLora.@Nullable Part[] parts = new CpuLora.Part[0];
  private int[] shrunkAt = new int[0];
  private final Expansions expansions = new Expansions();

  /** By segment, whether its delta is among {@link #expansions}. */
  private boolean[] expanded = new boolean[0];

  private boolean expanding;
  private int module;
  private int firstPanel;
  private int shrunkEnd;
  private boolean adapted;
  private boolean multiplied;

  Projection(Kernels kernels) {
    this.kernels = kernels;
  }

  /**
   * Takes up a projection.
   *
   * @param firstPanel its first panel's number among all projections'
   * @param shrunk where its shrunk inputs begin among all projections'
   */
  void point(Linear linear, List<Batch.Segment> segments, Buffer out, int firstPanel, int shrunk) {
    Panels weight = panels(linear.weight());
    Buffer stored = linear.bias();
    if (stored != null) {
      checkShape("linear: bias", stored, 1, weight.rows());
    }
    bias = stored == null ? null : floats(stored);
    base = weight;
    y = floats(out);
    outputs = segment(out);
    this.segments = segments;
    this.module = linear.module();
    this.firstPanel = firstPanel;
    int count = segments.size();
    if (parts.length < count) {
      parts = new CpuLora.Part[count];
      shrunkAt = new int[count];
      expanded = new boolean[count];
    }
    adapted = false;
    expanding = false;
    expansions.clear();
    multiplied = false;
    shrunkEnd = shrunk;
    int least = 0;
    for (int i = 0; i < count; i++) {
      Batch.Segment segment = segments.get(i);
      if (first(segments, i)) {
        least = 0;
      }
      CpuLora.Part part = part(segment, linear.module());
      parts[i] = part;
      shrunkAt[i] = shrunkEnd;
      expanded[i] = false;
      if (part == null) {
        continue;
      }
      adapted = true;
      weightOf(part, linear.module(), weight);
      checkLength(linear.module(), part.bias(), weight.rows());
      if (part.a() != null && part.b() != null) {
        checkFactors(linear.module(), part.a(), part.b(), weight.cols(), weight.rows());
        int size = Math.multiplyExact(segment.to() - segment.from(), part.a().rank());
        shrunkEnd = Math.addExact(shrunkEnd, size);
        // The expansions are done kind by kind, then what is left in order: of a mix they may take
        // what comes first only, by ascending kinds.
        int kind =
            kernels.adaptsAll()
                ? Expansions.kind(part.b(), segment.to() - segment.from(), part.loraBias())
                : Expansions.NONE;
        if (kind >= least) {
          for (int token = segment.from(); token < segment.to(); token++) {
            int at = shrunkAt[i] + (token - segment.from()) * part.b().rank();
            expansions.add(part.b(), scale(i), at, token);
          }
          expanded[i] = true;
          expanding = true;
          least = kind;
        } else {
          least = Expansions.KINDS;
        }
      }
    }
  }

  /** Lets go of the adapters. */
  void release() {
    Arrays.fill(parts, null);
  }

  int module() {
    return module;
  }

  /** Where its shrunk inputs end. */
  int shrunkEnd() {
    return shrunkEnd;
  }

  Panels base() {
    if (base == null) {
      throw new IllegalStateException("not yet pointed at a projection");
    }
    return base;
  }

  /** A of a segment's adapter, if it has one here. */
  @Nullable Factor factor(int segment) {
    CpuLora.Part part = parts[segment];
    return part == null ? null : part.a();
  }

  /**
   * Shrinks rows {@code from} to {@code to} of a segment by rows of its adapter's A, or leaves that
   * to {@link Scratch#shrinks}.
   */
  void shrink(
      int segment, int jFrom, int jTo, float[] x, int from, int to, float[] t, Scratch scratch) {
    Factor a = factor(segment);
    if (a == null || jFrom >= jTo) {
      return;
    }
    int at = shrunkAt[segment] + (from - segments.get(segment).from()) * a.rank();
    int left = jFrom;
    if (kernels.adaptsAll()) {
      int end = Math.min(jTo, Shrinks.rows(a));
      if (jFrom < end) {
        for (int token = from; token < to; token++) {
          scratch.shrinks.add(a, jFrom, end, token, at + (token - from) * a.rank());
        }
        left = end;
      }
    }
    if (left < jTo) {
      kernels.shrink(a, left, jTo, x, from, to, t, at, scratch);
    }
  }

  /** All of the outputs of the panels {@code from} to {@code to}, numbered over projections. */
  void run(float[] x, float[] t, int from, int to, Projections all, Scratch scratch) {
    int panelFrom = Math.max(from - firstPanel, 0);
    int panelTo = Math.min(to - firstPanel, base().panels());
    int block = adapted ? block() : Math.max(1, panelTo - panelFrom);
    for (int panel = panelFrom; panel < panelTo; panel += block) {
      int end = Math.min(panelTo, panel + block);
      if (adapted) {
        scratch.ahead.clear();
        name(panel, end, scratch.ahead);
        all.nameNext(firstPanel + panel, firstPanel + end, scratch.ahead);
      }
      multiply(x, panel, end, scratch);
      int out = panel * Panels.HEIGHT;
      int whole = Math.min(end * Panels.HEIGHT, base().rows() & -Factor.LANES);
      if (expanding && out < whole) {
        kernels.expandAll(expansions, all.shrunk(), out, whole, outputs, scratch);
      }
      for (int i = 0; i < segments.size(); i++) {
        adapt(i, t, panel, end, scratch);
      }
    }
  }

  private int block() {
    long bytes = 0;
    for (int i = 0; i < segments.size(); i++) {
      CpuLora.Part part = parts[i];
      if (part != null && part.b() != null) {
        bytes += (long) Panels.HEIGHT * part.b().rank() * part.b().dtype().bytes();
      }
    }
    return Math.clamp(FETCHED / Math.max(1, bytes), 1, BLOCK);
  }

  /** Names what the deltas of some panels will read. */
  private void name(int panelFrom, int panelTo, Ahead ahead) {
    int out = panelFrom * Panels.HEIGHT;
    int end = Math.min(panelTo * Panels.HEIGHT, base().rows());
    for (int i = 0; i < segments.size(); i++) {
      CpuLora.Part part = parts[i];
      if (part != null && part.b() != null) {
        Factor b = part.b();
        long row = (long) b.rank() * b.dtype().bytes();
        ahead.add(b.data(), out * row, (end - out) * row);
      }
    }
  }

  /** The base's product, or that of the weights that replace it. */
  private void multiply(float[] x, int panelFrom, int panelTo, Scratch scratch) {
    int i = 0;
    while (i < segments.size()) {
      Panels weight = weight(i);
      int end = i + 1;
      while (end < segments.size() && weight(end) == weight) {
        end++;
      }
      int first = segments.get(i).from();
      int last = segments.get(end - 1).to();
      if (!multiplied || weight != base) {
        kernels.linear(weight, panelFrom, panelTo, x, first, last, y, scratch);
      }
      i = end;
    }
  }

  /** Where the outputs go, {@code (tokens, base().rows())}. */
  float[] y() {
    return y;
  }

  /** Says that the base's product is there already. */
  void multiplied() {
    multiplied = true;
  }

  /** What a segment's delta is multiplied by. */
  private float scale(int segment) {
    CpuLora.Part part = parts[segment];
    return part == null ? 0 : part.scale() * segments.get(segment).scale();
  }

  private Panels weight(int segment) {
    CpuLora.Part part = parts[segment];
    return part == null || part.weight() == null ? base() : part.weight();
  }

  private void adapt(int i, float[] t, int panelFrom, int panelTo, Scratch scratch) {
    CpuLora.Part part = parts[i];
    Batch.Segment segment = segments.get(i);
    float[] terms = bias;
    float[] gain = null;
    int width = base().rows();
    int out = panelFrom * Panels.HEIGHT;
    int end = Math.min(panelTo * Panels.HEIGHT, width);
    if (part != null) {
      int first = expanded[i] ? Math.max(out, width & -Factor.LANES) : out;
      if (part.b() != null && first < end) {
        kernels.expand(
            part.b(),
            scale(i),
            part.loraBias(),
            t,
            shrunkAt[i],
            first,
            end,
            y,
            segment.from(),
            segment.to(),
            scratch);
      }
      gain = part.gain();
      terms = part.bias() == null ? bias : part.bias();
    }
    if (i + 1 < segments.size() && !first(segments, i + 1)) {
      // The mix goes on, and the bias comes once, after all of it. Nothing in a mix has a gain.
      return;
    }
    for (int row = segment.from(); row < segment.to(); row++) {
      if (gain != null) {
        kernels.multiply(gain, out, y, row * width + out, end - out);
      }
      if (terms != null) {
        kernels.add(terms, out, y, row * width + out, end - out);
      }
    }
  }
}
