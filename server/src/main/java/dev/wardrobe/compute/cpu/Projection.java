package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.CpuBackend.checkFactors;
import static dev.wardrobe.compute.cpu.CpuBackend.checkLength;
import static dev.wardrobe.compute.cpu.CpuBackend.checkShape;
import static dev.wardrobe.compute.cpu.CpuBackend.floats;
import static dev.wardrobe.compute.cpu.CpuBackend.panels;
import static dev.wardrobe.compute.cpu.CpuBackend.part;
import static dev.wardrobe.compute.cpu.CpuBackend.weightOf;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Linear;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** One projection with the deltas of the segments' adapters. */
final class Projection {
  private final Kernels kernels;
  private final Panels base;
  private final float @Nullable [] bias;
  private final List<Batch.Segment> segments;
  private final CpuLora.@Nullable Part[] parts;
  private final int[] shrunkAt;
  private final float[] y;
  private final int firstPanel;
  private boolean multiplied;

  Projection(
      Kernels kernels, Linear linear, List<Batch.Segment> segments, float[] y, int firstPanel) {
    this.kernels = kernels;
    base = panels(linear.weight());
    Buffer stored = linear.bias();
    if (stored != null) {
      checkShape("linear: bias", stored, 1, base.rows());
    }
    bias = stored == null ? null : floats(stored);
    this.segments = segments;
    this.y = y;
    this.firstPanel = firstPanel;
    parts = new CpuLora.Part[segments.size()];
    shrunkAt = new int[segments.size()];
    for (int i = 0; i < parts.length; i++) {
      CpuLora.Part part = part(segments.get(i), linear.module());
      parts[i] = part;
      if (part != null) {
        weightOf(part, linear.module(), base);
        if (part.a() != null && part.b() != null) {
          checkFactors(linear.module(), part.a(), part.b(), base.cols(), base.rows());
        }
        checkLength(linear.module(), part.bias(), base.rows());
      }
    }
  }

  /** Gives each adapted segment its place among the shrunk inputs, from {@code next} on. */
  int placeShrunk(int next) {
    int at = next;
    for (int i = 0; i < parts.length; i++) {
      shrunkAt[i] = at;
      CpuLora.Part part = parts[i];
      if (part != null && part.a() != null) {
        int count = segments.get(i).to() - segments.get(i).from();
        at = Math.addExact(at, Math.multiplyExact(count, part.a().rows()));
      }
    }
    return at;
  }

  /**
   * The shrinks numbered {@code from} to {@code to}; within a segment they are numbered by rank,
   * then by token, so that a row of A is widened once.
   */
  void shrink(float[] x, float[] t, int from, int to, Scratch scratch) {
    for (int i = 0; i < parts.length; i++) {
      CpuLora.Part part = parts[i];
      Factor a = part == null ? null : part.a();
      if (a == null) {
        continue;
      }
      Batch.Segment segment = segments.get(i);
      int count = segment.to() - segment.from();
      int next = Math.max(from, shrunkAt[i]) - shrunkAt[i];
      int end = Math.min(to - shrunkAt[i], count * a.rows());
      while (next < end) {
        int j = next / count;
        int token = next % count;
        int tokens = Math.min(count - token, end - next);
        int first = segment.from() + token;
        kernels.shrink(a, j, x, first, first + tokens, t, shrunkAt[i] + token * a.rows(), scratch);
        next += tokens;
      }
    }
  }

  /** All of the outputs of the panels {@code from} to {@code to}, numbered over projections. */
  void run(float[] x, float[] t, int from, int to, Scratch scratch) {
    int panelFrom = Math.max(from - firstPanel, 0);
    int panelTo = Math.min(to - firstPanel, base.panels());
    if (panelFrom >= panelTo) {
      return;
    }
    int i = 0;
    while (i < parts.length) {
      Panels weight = weight(i);
      int end = i + 1;
      while (end < parts.length && weight(end) == weight) {
        end++;
      }
      int first = segments.get(i).from();
      int last = segments.get(end - 1).to();
      if (!multiplied || weight != base) {
        kernels.linear(weight, panelFrom, panelTo, x, first, last, y, scratch);
      }
      i = end;
    }
    int outFrom = panelFrom * Panels.HEIGHT;
    int outTo = Math.min(panelTo * Panels.HEIGHT, base.rows());
    for (i = 0; i < parts.length; i++) {
      adapt(i, t, outFrom, outTo, scratch);
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

  private Panels weight(int segment) {
    CpuLora.Part part = parts[segment];
    return part == null || part.weight() == null ? base : part.weight();
  }

  private void adapt(int i, float[] t, int outFrom, int outTo, Scratch scratch) {
    CpuLora.Part part = parts[i];
    Batch.Segment segment = segments.get(i);
    float[] terms = bias;
    float[] gain = null;
    if (part != null) {
      if (part.b() != null) {
        kernels.expand(
            part.b(),
            part.scale(),
            part.loraBias(),
            t,
            shrunkAt[i],
            outFrom,
            outTo,
            y,
            segment.from(),
            segment.to(),
            scratch);
      }
      gain = part.gain();
      terms = part.bias() == null ? bias : part.bias();
    }
    for (int row = segment.from(); row < segment.to(); row++) {
      int at = row * base.rows() + outFrom;
      if (gain != null) {
        kernels.multiply(gain, outFrom, y, at, outTo - outFrom);
      }
      if (terms != null) {
        kernels.add(terms, outFrom, y, at, outTo - outFrom);
      }
    }
  }

  Panels base() {
    return base;
  }
}
