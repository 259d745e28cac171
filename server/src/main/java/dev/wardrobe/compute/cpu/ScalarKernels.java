package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Heads;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** The kernels in plain Java, written to be read: the oracles of {@link VectorKernels}. */
final class ScalarKernels implements Kernels {
  private static final int HEIGHT = Panels.HEIGHT;
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  @Override
  public String describe() {
    return "scalar";
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
    Arrays.fill(sums, 0, (to - from) * HEIGHT, 0);
    float[] scales = scratch.scales(HEIGHT);
    Arrays.fill(scales, 0, HEIGHT, 1);
    int blockSize = 0;
    if (w instanceof NibblePanels nibbles && nibbles.aligned()) {
      scales = scratch.scales(nibbles.scaleCount());
      nibbles.scales(panel, scratch, scales, 0);
      blockSize = nibbles.blockSize();
    }
    for (int unit = 0; unit < w.units(); unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      codes(w, panel, k, count, scratch);
      int scale = blockSize == 0 ? 0 : k / blockSize * HEIGHT;
      for (int token = from; token < to; token++) {
        chain(scratch.tile, count, x, token * cols + k, scratch.chains);
        accumulate(scratch.chains, scales, scale, sums, (token - from) * HEIGHT);
      }
    }
    int live = Math.min(HEIGHT, w.rows() - panel * HEIGHT);
    for (int token = from; token < to; token++) {
      System.arraycopy(sums, (token - from) * HEIGHT, y, token * w.rows() + panel * HEIGHT, live);
    }
  }

  /** Two chains of fma for each of 32 rows. */
  private static void chain(float[] tile, int count, float[] x, int at, float[] chains) {
    Arrays.fill(chains, 0);
    for (int i = 0; i < count; i++) {
      int chain = i % 2 * HEIGHT;
      float input = x[at + i];
      for (int row = 0; row < HEIGHT; row++) {
        chains[chain + row] = Math.fma(tile[i * HEIGHT + row], input, chains[chain + row]);
      }
    }
  }

  private static void accumulate(
      float[] chains, float[] scales, int scaleAt, float[] sums, int at) {
    for (int row = 0; row < HEIGHT; row++) {
      float partial = chains[row] + chains[HEIGHT + row];
      sums[at + row] = Math.fma(scales[scaleAt + row], partial, sums[at + row]);
    }
  }

  /** Tiles {@code (count inputs, 32 rows)}: weights, but without their scale if they have one. */
  private static void codes(Panels w, int panel, int k, int count, Scratch scratch) {
    switch (w) {
      case DensePanels dense ->
          widen(
              dense.dtype(),
              dense.data(),
              dense.element(panel * HEIGHT, k),
              scratch.tile,
              0,
              count * HEIGHT,
              scratch);
      case NibblePanels nibbles when nibbles.aligned() -> {
        long first = nibbles.word(panel, k / NibblePanels.GROUP);
        int words = count / NibblePanels.GROUP * HEIGHT;
        MemorySegment.copy(nibbles.packed(), INT, 4 * first, scratch.words, 0, words);
        values(scratch.words, count, nibbles.codebook(), scratch.tile);
      }
      case NibblePanels nibbles -> nibbles.weights(panel, k, count, scratch.tile);
    }
  }

  private static void values(int[] words, int count, float[] codebook, float[] tile) {
    for (int i = 0; i < count; i++) {
      int word = i / NibblePanels.GROUP * HEIGHT;
      int shift = 4 * (i % NibblePanels.GROUP);
      for (int row = 0; row < HEIGHT; row++) {
        tile[i * HEIGHT + row] = codebook[(words[word + row] >>> shift) & 15];
      }
    }
  }

  /** Widens {@code count} elements from element {@code from} on, exactly. */
  private static void widen(
      DType dtype, MemorySegment data, long from, float[] out, int at, int count, Scratch scratch) {
    if (dtype == DType.F32) {
      MemorySegment.copy(data, FLOAT, 4 * from, out, at, count);
      return;
    }
    short[] halves = scratch.shorts(count);
    MemorySegment.copy(data, SHORT, 2 * from, halves, 0, count);
    if (dtype == DType.BF16) {
      for (int i = 0; i < count; i++) {
        out[at + i] = DType.bfloat16ToFloat(halves[i]);
      }
    } else {
      for (int i = 0; i < count; i++) {
        out[at + i] = Float.float16ToFloat(halves[i]);
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
          nibbles.weights(panel, k, count, tile);
        } else {
          codes(w, panel, k, count, scratch);
        }
        int live = Math.min(HEIGHT, rows - panel * HEIGHT);
        for (int token = 0; token < tokens; token++) {
          for (int row = 0; row < live; row++) {
            float gradient = dy[token * rows + panel * HEIGHT + row];
            for (int i = 0; i < count; i++) {
              int at = token * count + i;
              sums[at] = Math.fma(gradient, tile[i * HEIGHT + row], sums[at]);
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
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch) {
    int cols = a.length();
    float[] row = scratch.row(cols);
    for (int j = jFrom; j < jTo; j++) {
      for (int k = 0; k < cols; k++) {
        row[k] = a.get(j, k);
      }
      for (int token = from; token < to; token++) {
        t[at + (token - from) * a.rank() + j] =
            Elementary.dot(row, 0, x, token * cols, cols, scratch.lanes);
      }
    }
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
    int rank = b.rank();
    int width = b.length();
    float[] column = scratch.row(rank);
    for (int out = outFrom; out < outTo; out++) {
      for (int j = 0; j < rank; j++) {
        column[j] = b.get(j, out);
      }
      for (int token = from; token < to; token++) {
        float sum = 0;
        for (int j = 0; j < rank; j++) {
          sum = Math.fma(t[at + (token - from) * rank + j], column[j], sum);
        }
        if (bias != null) {
          sum += bias[out];
        }
        y[token * width + out] = Math.fma(scale, sum, y[token * width + out]);
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
    float mean = Elementary.dot(x, at, x, at, width, scratch.lanes) / width;
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
      Heads heads,
      int position,
      int rows,
      int chunk,
      float[] q,
      int at,
      float[] states,
      int statesAt,
      Scratch scratch) {
    int size = heads.size();
    int group = heads.queries() / heads.keyValues();
    int count = rows * group;
    int width = Kernels.stateWidth(size);
    int maxima = statesAt + count * width;
    int from = Kernels.begin(heads, position, chunk);
    int to = Kernels.end(position + rows - 1, chunk);
    int firstBlock = chunk * (CHUNK / KvPages.TOKENS);
    DType dtype = pages.dtype();
    // Keys (block, size, 16), then values (position, size), whole blocks of them.
    float[] chunked = scratch.chunk(2 * CHUNK * size);
    int values = CHUNK * size;
    for (int block = from / KvPages.TOKENS; block * KvPages.TOKENS < to; block++) {
      int stored = blocks[firstBlock + block];
      int floats = size * KvPages.TOKENS;
      long keysAt = pages.keys(layer, stored, head);
      long valuesAt = pages.values(layer, stored, head);
      widen(dtype, pages.data(), keysAt, chunked, block * floats, floats, scratch);
      widen(dtype, pages.data(), valuesAt, chunked, values + block * floats, floats, scratch);
    }
    float[] query = scratch.queries(size);
    float[] scores = scratch.scores(CHUNK);
    for (int i = 0; i < count; i++) {
      int row = i / group;
      int begin = Kernels.begin(heads, position + row, chunk);
      int end = Kernels.end(position + row, chunk);
      int qAt = at + (row * heads.queries() + i % group) * size;
      for (int d = 0; d < size; d++) {
        query[d] = q[qAt + d] * heads.scale();
      }
      float max = Float.NEGATIVE_INFINITY;
      for (int p = begin; p < end; p++) {
        int slot = p / KvPages.TOKENS * KvPages.TOKENS * size + p % KvPages.TOKENS;
        float score = 0;
        for (int d = 0; d < size; d++) {
          score = Math.fma(query[d], chunked[slot + d * KvPages.TOKENS], score);
        }
        scores[p] = score;
        max = Math.max(max, score);
      }
      float[] lanes = scratch.lanes;
      Arrays.fill(lanes, 0, 16, 0);
      int sums = statesAt + i * width;
      Arrays.fill(states, sums, sums + width, 0);
      for (int p = begin; p < end; p++) {
        float e = Elementary.exp(scores[p] - max);
        lanes[p % 16] += e;
        for (int d = 0; d < size; d++) {
          states[sums + d] = Math.fma(e, chunked[values + p * size + d], states[sums + d]);
        }
      }
      states[maxima + i] = max;
      states[maxima + count + i] = Elementary.tree(lanes, 0);
    }
  }

  @Override
  public void merge(float[] states, int from, int into, int count, int size) {
    int width = Kernels.stateWidth(size);
    for (int i = 0; i < count; i++) {
      int max = count * width + i;
      int sum = max + count;
      float m = states[from + max];
      float z = states[from + sum];
      if (z == 0) {
        continue;
      }
      if (states[into + sum] == 0) {
        System.arraycopy(states, from + i * width, states, into + i * width, size);
        states[into + max] = m;
        states[into + sum] = z;
        continue;
      }
      float larger = Math.max(states[into + max], m);
      float a = Elementary.exp(states[into + max] - larger);
      float b = Elementary.exp(m - larger);
      states[into + max] = larger;
      states[into + sum] = Math.fma(z, b, states[into + sum] * a);
      for (int d = 0; d < size; d++) {
        int target = into + i * width + d;
        states[target] = Math.fma(states[from + i * width + d], b, states[target] * a);
      }
    }
  }

  @Override
  public void finish(float[] states, int from, Heads heads, int rows, float[] out, int at) {
    int size = heads.size();
    int group = heads.queries() / heads.keyValues();
    int count = rows * group;
    int width = Kernels.stateWidth(size);
    for (int i = 0; i < count; i++) {
      float inverse = 1 / states[from + count * width + count + i];
      int target = at + (i / group * heads.queries() + i % group) * size;
      for (int d = 0; d < size; d++) {
        out[target + d] = states[from + i * width + d] * inverse;
      }
    }
  }

  @Override
  public void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    for (int i = 0; i < half; i++) {
      float c = cos[angle + i];
      float s = sin[angle + i];
      float a = x[at + i];
      float b = x[at + half + i];
      x[at + i] = a * c - b * s;
      x[at + half + i] = b * c + a * s;
    }
  }

  @Override
  public void narrow(float[] x, int at, int count, short[] out) {
    for (int i = 0; i < count; i++) {
      out[i] = DType.floatToBfloat16(x[at + i]);
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

  @Override
  public float largest(float[] a, int at, int count) {
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < count; i++) {
      max = Math.max(max, a[at + i]);
    }
    return max;
  }

  @Override
  public int above(float[] a, int at, int from, int count, float bound) {
    int i = from;
    while (i < count && !(a[at + i] > bound)) {
      i++;
    }
    return i;
  }

  @Override
  public int allAbove(float[] a, int at, int count, float bound, int[] indices) {
    int found = 0;
    for (int i = 0; i < count; i++) {
      if (a[at + i] > bound) {
        indices[found++] = i;
      }
    }
    return found;
  }

  @Override
  public float sum(float[] a, int at, int count, Scratch scratch) {
    float[] lanes = scratch.lanes;
    Arrays.fill(lanes, 0, 16, 0);
    for (int i = 0; i < count; i++) {
      lanes[i % 16] += a[at + i];
    }
    return Elementary.tree(lanes, 0);
  }
}
