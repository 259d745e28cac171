package dev.wardrobe.compute.cpu;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** The kernels in plain Java, written to be read: the oracles of {@link VectorKernels}. */
final class ScalarKernels implements Kernels {
  private static final int ROWS = Panels.ROWS;
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  @Override
  public String describe() {
    return "scalar";
  }

  @Override
  public void widen(DType dtype, MemorySegment data, long from, float[] out, int at, int count) {
    dtype.widen(data, from, out, at, count);
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
    for (int first = from; first < to; first += Scratch.TOKENS) {
      int last = Math.min(to, first + Scratch.TOKENS);
      for (int panel = panelFrom; panel < panelTo; panel++) {
        panel(w, panel, x, first, last, y, scratch);
      }
    }
  }

  private static void panel(
      Panels w, int panel, float[] x, int from, int to, float[] y, Scratch scratch) {
    int cols = w.cols();
    float[] sums = scratch.sums;
    Arrays.fill(sums, 0, (to - from) * ROWS, 0);
    float[] scales = scales(w, panel, scratch);
    float[] a = new float[4];
    for (int unit = 0; unit < w.units(); unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      codes(w, panel, k, count, scratch.tile);
      for (int token = from; token < to; token++) {
        for (int row = 0; row < ROWS; row++) {
          Arrays.fill(a, 0);
          for (int i = 0; i < count; i++) {
            a[i % 4] = Math.fma(scratch.tile[i * ROWS + row], x[token * cols + k + i], a[i % 4]);
          }
          float partial = (a[0] + a[1]) + (a[2] + a[3]);
          float scale = scales.length == 0 ? 1 : scales[scaleAt(w, k) + row];
          int at = (token - from) * ROWS + row;
          sums[at] = Math.fma(scale, partial, sums[at]);
        }
      }
    }
    int live = Math.min(ROWS, w.rows() - panel * ROWS);
    for (int token = from; token < to; token++) {
      System.arraycopy(sums, (token - from) * ROWS, y, token * w.rows() + panel * ROWS, live);
    }
  }

  private static final float[] NO_SCALES = new float[0];

  private static float[] scales(Panels w, int panel, Scratch scratch) {
    if (w instanceof NibblePanels nibbles && nibbles.aligned()) {
      float[] scales = scratch.scales(nibbles.scaleCount());
      nibbles.scales(panel, scales);
      return scales;
    }
    return NO_SCALES;
  }

  private static int scaleAt(Panels w, int k) {
    return w instanceof NibblePanels nibbles ? k / nibbles.blockSize() * ROWS : 0;
  }

  /**
   * The weights {@code (count inputs, 16 rows)} of a panel, without their scale if they have one.
   */
  private static void codes(Panels w, int panel, int k, int count, float[] tile) {
    switch (w) {
      case DensePanels dense ->
          dense.dtype().widen(dense.data(), dense.element(panel * ROWS, k), tile, 0, count * ROWS);
      case NibblePanels nibbles when nibbles.aligned() -> {
        float[] codebook = nibbles.codebook();
        for (int i = 0; i < count; i++) {
          long word = nibbles.word(panel, (k + i) / NibblePanels.GROUP);
          int shift = 4 * ((k + i) % NibblePanels.GROUP);
          for (int row = 0; row < ROWS; row++) {
            int eight = nibbles.packed().get(INT, 4 * (word + row));
            tile[i * ROWS + row] = codebook[(eight >>> shift) & 15];
          }
        }
      }
      case NibblePanels nibbles -> weights(nibbles, panel, k, count, tile);
    }
  }

  /** The weights {@code (count inputs, 16 rows)} of a panel, each {@code float32(code·absmax)}. */
  static void weights(NibblePanels w, int panel, int k, int count, float[] tile) {
    int live = Math.min(ROWS, w.rows() - panel * ROWS);
    for (int row = 0; row < ROWS; row++) {
      if (row < live) {
        w.row(panel * ROWS + row, k, k + count, tile, row, ROWS);
      } else {
        for (int i = 0; i < count; i++) {
          tile[i * ROWS + row] = 0;
        }
      }
    }
  }

  @Override
  public void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch) {
    int rows = w.rows();
    int cols = w.cols();
    float[] tile = scratch.tile;
    for (int unit = unitFrom; unit < unitTo; unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      float[] sums = scratch.row(tokens * count);
      Arrays.fill(sums, 0, tokens * count, 0);
      for (int panel = 0; panel < w.panels(); panel++) {
        if (w instanceof NibblePanels nibbles) {
          weights(nibbles, panel, k, count, tile);
        } else {
          codes(w, panel, k, count, tile);
        }
        int live = Math.min(ROWS, rows - panel * ROWS);
        for (int token = 0; token < tokens; token++) {
          for (int row = 0; row < live; row++) {
            float gradient = dy[token * rows + panel * ROWS + row];
            for (int i = 0; i < count; i++) {
              int at = token * count + i;
              sums[at] = Math.fma(gradient, tile[i * ROWS + row], sums[at]);
            }
          }
        }
      }
      for (int token = 0; token < tokens; token++) {
        for (int i = 0; i < count; i++) {
          dx[token * cols + k + i] += sums[token * count + i];
        }
      }
    }
  }

  @Override
  public void shrink(
      Factor a, int j, float[] x, int from, int to, float[] t, int at, Scratch scratch) {
    int cols = a.cols();
    float[] row = scratch.row(cols);
    a.read(j, 0, row, 0, cols);
    for (int token = from; token < to; token++) {
      t[at + (token - from) * a.rows() + j] = dot(row, 0, x, token * cols, cols, scratch.lanes);
    }
  }

  /** Inner product in 16 lanes. */
  private static float dot(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    Arrays.fill(lanes, 0, 16, 0);
    for (int k = 0; k < count; k++) {
      lanes[k % 16] = Math.fma(a[aAt + k], b[bAt + k], lanes[k % 16]);
    }
    return Elementary.tree(lanes, 0);
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
    int rank = b.rows();
    for (int token = from; token < to; token++) {
      for (int out = outFrom; out < outTo; out++) {
        float sum = 0;
        for (int j = 0; j < rank; j++) {
          sum = Math.fma(t[at + (token - from) * rank + j], b.get(j, out), sum);
        }
        if (bias != null) {
          sum += bias[out];
        }
        int to1 = token * b.cols() + out;
        y[to1] = Math.fma(scale, sum, y[to1]);
      }
    }
  }

  @Override
  public void multiply(float[] factors, int from, float[] y, int at, int count) {
    for (int i = 0; i < count; i++) {
      y[at + i] *= factors[from + i];
    }
  }

  @Override
  public void add(float[] terms, int from, float[] y, int at, int count) {
    for (int i = 0; i < count; i++) {
      y[at + i] += terms[from + i];
    }
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
    float mean = dot(x, at, x, at, width, scratch.lanes) / width;
    float inverse = (float) (1 / Math.sqrt((double) (mean + epsilon)));
    for (int i = 0; i < width; i++) {
      out[outAt + i] = weight[i] * (x[at + i] * inverse);
    }
  }

  @Override
  public void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int first,
      int last,
      float scale,
      float[] q,
      int qAt,
      float[] out,
      int outAt,
      Scratch scratch) {
    int size = pages.shape().headDim();
    DType dtype = pages.dtype();
    float[] scores = scratch.scores(last + 1 - first);
    float[] row = scratch.row(Math.max(size, size * KvPages.TOKENS));
    float[] c = new float[4];
    float max = Float.NEGATIVE_INFINITY;
    for (int p = first; p <= last; p++) {
      int slot = p % KvPages.TOKENS;
      if (p == first || slot == 0) {
        long keys = pages.keys(layer, blocks[p / KvPages.TOKENS], head);
        widen(dtype, pages.data(), keys, row, 0, size * KvPages.TOKENS);
      }
      Arrays.fill(c, 0);
      for (int d = 0; d < size; d++) {
        c[d % 4] = Math.fma(q[qAt + d], row[d * KvPages.TOKENS + slot], c[d % 4]);
      }
      float score = ((c[0] + c[1]) + (c[2] + c[3])) * scale;
      scores[p - first] = score;
      max = Math.max(max, score);
    }
    float[] lanes = scratch.lanes;
    Arrays.fill(lanes, 0, 16, 0);
    for (int p = first; p <= last; p++) {
      float e = Elementary.exp(scores[p - first] - max);
      scores[p - first] = e;
      lanes[p % 16] += e;
    }
    float inverse = 1 / Elementary.tree(lanes, 0);
    Arrays.fill(out, outAt, outAt + size, 0);
    for (int p = first; p <= last; p++) {
      long values = pages.values(layer, blocks[p / KvPages.TOKENS], head);
      widen(dtype, pages.data(), values + (long) p % KvPages.TOKENS * size, row, 0, size);
      for (int d = 0; d < size; d++) {
        out[outAt + d] = Math.fma(scores[p - first], row[d], out[outAt + d]);
      }
    }
    for (int d = 0; d < size; d++) {
      out[outAt + d] *= inverse;
    }
  }

  @Override
  public void activate(float[] gate, float[] up, float[] out, int from, int to) {
    for (int i = from; i < to; i++) {
      out[i] = gate[i] / (1 + Elementary.exp(-gate[i])) * up[i];
    }
  }

  @Override
  public void exponentials(float[] a, int at, int count, float max, float divisor, float[] out) {
    for (int i = 0; i < count; i++) {
      out[i] = Elementary.exp((a[at + i] - max) / divisor);
    }
  }

  @Override
  public double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch) {
    double sum = 0;
    float[] lanes = scratch.lanes;
    for (int from = 0; from < count; from += RUN) {
      Arrays.fill(lanes, 0, 16, 0);
      for (int i = from; i < Math.min(count, from + RUN); i++) {
        lanes[i % 16] += Elementary.exp(a[at + i] - max);
      }
      sum += Elementary.tree(lanes, 0);
    }
    return sum;
  }
}
