package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Heads;
import java.util.Arrays;

/**
 * Attention over whole sequences and its input gradients, plainly. A query sees its sequence's keys
 * in blocks of {@link #BLOCK}, from the first that it sees:
 *
 * <pre>
 * s[p] = Σ_d k[p, d]·(q[d]·scale), for the block's keys p that it sees
 * m' = max(m, max s);  a = exp(m - m');  e[p] = exp(s[p] - m')
 * z = z·a + Σ e[p];  o[d] = o[d]·a + Σ_p v[p, d]·e[p]
 * out[d] = o[d]·(1 / z);  logSum = m + ln z
 * </pre>
 *
 * And on the way back, with {@code w[p] = exp(s[p] - logSum)} and {@code c = Σ_d dOut[d]·out[d]}:
 *
 * <pre>
 * g[p] = (Σ_d v[p, d]·dOut[d] - c)·w[p]
 * dq[d] = (Σ_p k[p, d]·g[p])·scale
 * dk[p, d] = Σ_rows (q[d]·scale)·g[p];  dv[p, d] = Σ_rows dOut[d]·w[p]
 * </pre>
 *
 * <p>Each sum is one chain, of fma where there are products, indices ascending; of the heads that
 * share keys each has sums of its own, which are then added up in order.
 */
final class PlainAttention {
  /** Keys between which what was summed is scaled anew. */
  static final int BLOCK = 64;

  private final int[] starts;
  private final Heads heads;
  private final int size;
  private final int group;

  PlainAttention(int[] starts, Heads heads) {
    this.starts = starts;
    this.heads = heads;
    size = heads.size();
    group = heads.queries() / heads.keyValues();
  }

  private int start(int row) {
    int found = Arrays.binarySearch(starts, row);
    int at = found >= 0 ? found : -found - 2;
    // Of sequences without rows the last one begins where the row is.
    while (starts[at + 1] == starts[at]) {
      at++;
    }
    return starts[at];
  }

  /** The first key that a row sees. */
  private int first(int row) {
    int start = start(row);
    return heads.window() == 0 ? start : Math.max(start, row + 1 - heads.window());
  }

  /** Multiplications of one product of all queries with all keys that they see. */
  long multiplications() {
    long pairs = 0;
    for (int s = 0; s + 1 < starts.length; s++) {
      long length = (long) starts[s + 1] - starts[s];
      pairs += length * (length + 1) / 2;
    }
    return pairs * heads.queries() * size;
  }

  private static float dot(float[] a, int at, float[] b, int other, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) {
      sum = Math.fma(a[at + i], b[other + i], sum);
    }
    return sum;
  }

  private float[] scaled(float[] q, int at) {
    float[] query = new float[size];
    for (int d = 0; d < size; d++) {
      query[d] = q[at + d] * heads.scale();
    }
    return query;
  }

  /** One query head of a row. */
  void attend(int row, int h, float[] q, float[] k, float[] v, float[] out, float[] logSums) {
    int at = (row * heads.queries() + h) * size;
    int stride = heads.keyValues() * size;
    int offset = h / group * size;
    float[] query = scaled(q, at);
    float[] sums = new float[size];
    float[] weights = new float[BLOCK];
    float max = -Float.MAX_VALUE;
    float z = 0;
    int start = start(row);
    int from = first(row);
    while (from <= row) {
      int to = Math.min(row + 1, start + ((from - start) / BLOCK + 1) * BLOCK);
      float next = max;
      for (int p = from; p < to; p++) {
        weights[p - from] = dot(k, p * stride + offset, query, 0, size);
        // What is no number shows in the sums.
        next = weights[p - from] > next ? weights[p - from] : next;
      }
      float factor = Elementary.exp(max - next);
      max = next;
      z *= factor;
      for (int d = 0; d < size; d++) {
        sums[d] *= factor;
      }
      for (int p = from; p < to; p++) {
        float weight = Elementary.exp(weights[p - from] - max);
        z += weight;
        for (int d = 0; d < size; d++) {
          sums[d] = Math.fma(v[p * stride + offset + d], weight, sums[d]);
        }
      }
      from = to;
    }
    float inverse = 1 / z;
    for (int d = 0; d < size; d++) {
      out[at + d] = sums[d] * inverse;
    }
    logSums[row * heads.queries() + h] = max + (float) Elementary.log(z);
  }

  /** One KV head of all rows. */
  void differentiate(
      int kvHead,
      float[] q,
      float[] k,
      float[] v,
      float[] out,
      float[] logSums,
      float[] dOut,
      float[] dq,
      float[] dk,
      float[] dv) {
    int rows = starts[starts.length - 1];
    int stride = heads.keyValues() * size;
    int offset = kvHead * size;
    float[] keys = new float[rows * size];
    float[] values = new float[rows * size];
    for (int h = kvHead * group; h < (kvHead + 1) * group; h++) {
      Arrays.fill(keys, 0);
      Arrays.fill(values, 0);
      for (int row = 0; row < rows; row++) {
        int at = (row * heads.queries() + h) * size;
        float[] query = scaled(q, at);
        float[] sums = new float[size];
        float constant = dot(dOut, at, out, at, size);
        float logSum = logSums[row * heads.queries() + h];
        for (int p = first(row); p <= row; p++) {
          int key = p * stride + offset;
          float weight = Elementary.exp(dot(k, key, query, 0, size) - logSum);
          float gradient = (dot(v, key, dOut, at, size) - constant) * weight;
          for (int d = 0; d < size; d++) {
            sums[d] = Math.fma(k[key + d], gradient, sums[d]);
            keys[p * size + d] = Math.fma(query[d], gradient, keys[p * size + d]);
            values[p * size + d] = Math.fma(dOut[at + d], weight, values[p * size + d]);
          }
        }
        for (int d = 0; d < size; d++) {
          dq[at + d] = sums[d] * heads.scale();
        }
      }
      boolean begins = h == kvHead * group;
      for (int row = 0; row < rows; row++) {
        for (int d = 0; d < size; d++) {
          int to = row * stride + offset + d;
          dk[to] = begins ? keys[row * size + d] : dk[to] + keys[row * size + d];
          dv[to] = begins ? values[row * size + d] : dv[to] + values[row * size + d];
        }
      }
    }
  }
}
