package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.CpuBackend.checkShape;
import static dev.wardrobe.compute.cpu.CpuBackend.floats;
import static dev.wardrobe.compute.cpu.CpuBackend.panels;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.UpdateRule;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Training's operations on the processor. Each output is computed by one thread, in an order that
 * is a property of the operation; sums along a row have 16 lanes, lane l over i ≡ l mod 16, and
 * then {@link Elementary#tree}.
 */
final class CpuGradients implements Gradients {
  private final CpuBackend backend;
  private final Kernels kernels;

  CpuGradients(CpuBackend backend, Kernels kernels) {
    this.backend = backend;
    this.kernels = kernels;
  }

  @Override
  public void embed(Matrix table, int[] tokens, Buffer out) {
    Panels weight = panels(table);
    int width = weight.cols();
    checkShape("embed: out", out, tokens.length, width);
    float[] y = floats(out);
    for (int row = 0; row < tokens.length; row++) {
      int token = tokens[row];
      if (token < 0 || token >= weight.rows()) {
        throw new IllegalArgumentException(
            "embed: row %d: token %d of a vocabulary of %d".formatted(row, token, weight.rows()));
      }
      weight.row(token, y, row * width);
    }
  }

  @Override
  public void linear(Matrix weight, @Nullable Buffer bias, int rows, Buffer x, Buffer y) {
    Panels w = panels(weight);
    checkShape("linear: x", x, rows, w.cols());
    checkShape("linear: y", y, rows, w.rows());
    backend.multiply(w, rows, floats(x), y);
    if (bias != null) {
      addRow(rows, bias, y);
    }
  }

  @Override
  public void linearInput(Matrix weight, int rows, Buffer dy, Buffer dx) {
    Panels w = panels(weight);
    checkShape("linearInput: dy", dy, rows, w.rows());
    checkShape("linearInput: dx", dx, rows, w.cols());
    backend.multiplyBack(w, rows, floats(dy), floats(dx));
  }

  @Override
  public void product(
      float scale,
      Buffer a,
      boolean transposeA,
      Buffer b,
      boolean transposeB,
      int m,
      int n,
      int k,
      Buffer c) {
    checkShape("product: a", a, transposeA ? k : m, transposeA ? m : k);
    checkShape("product: b", b, transposeB ? n : k, transposeB ? k : n);
    checkShape("product: c", c, m, n);
    long work = (long) m * n * k;
    TrainingCode code = backend.trainingCode();
    if (code != null && work > 0 && !(transposeA && transposeB)) {
      code.products.run(
          scale,
          floats(a),
          transposeA,
          floats(b),
          transposeB,
          m,
          n,
          k,
          floats(c),
          backend.workers(work) == 1,
          backend.pool());
      return;
    }
    float[] left = floats(a);
    float[] right = transposeB ? transposed(floats(b), n, k) : floats(b);
    float[] sums = floats(c);
    int rowStep = transposeA ? 1 : k;
    int step = transposeA ? m : 1;
    backend.divide(
        m,
        work,
        (from, to, scratch) -> {
          float[] row = scratch.row(n);
          for (int i = from; i < to; i++) {
            Arrays.fill(row, 0, n, 0);
            int at = i * rowStep;
            int j = 0;
            for (; j + 4 <= k; j += 4) {
              fourTerms(
                  left[at + j * step],
                  left[at + (j + 1) * step],
                  left[at + (j + 2) * step],
                  left[at + (j + 3) * step],
                  right,
                  j * n,
                  n,
                  row);
            }
            for (; j < k; j++) {
              term(left[at + j * step], right, j * n, n, row);
            }
            term(scale, row, n, sums, i * n);
          }
        });
  }

  private static void fourTerms(
      float a, float b, float c, float d, float[] x, int at, int count, float[] sums) {
    for (int i = 0; i < count; i++) {
      float sum = Math.fma(a, x[at + i], sums[i]);
      sum = Math.fma(b, x[at + count + i], sum);
      sum = Math.fma(c, x[at + 2 * count + i], sum);
      sums[i] = Math.fma(d, x[at + 3 * count + i], sum);
    }
  }

  private static void term(float a, float[] x, int at, int count, float[] sums) {
    for (int i = 0; i < count; i++) {
      sums[i] = Math.fma(a, x[at + i], sums[i]);
    }
  }

  private static void term(float a, float[] x, int count, float[] sums, int at) {
    for (int i = 0; i < count; i++) {
      sums[at + i] = Math.fma(a, x[i], sums[at + i]);
    }
  }

  /** {@code (rows, width)} as {@code (width, rows)}. */
  private static float[] transposed(float[] x, int rows, int width) {
    float[] turned = new float[Math.multiplyExact(rows, width)];
    for (int row = 0; row < rows; row++) {
      for (int i = 0; i < width; i++) {
        turned[i * rows + row] = x[row * width + i];
      }
    }
    return turned;
  }

  @Override
  public void norm(Buffer x, Buffer weight, float epsilon, int rows, Buffer out) {
    int width = weight.width();
    int count = vectors("norm", x, width, rows);
    checkShape("norm: out", out, rows, x.width());
    float[] in = floats(x);
    float[] gain = floats(weight);
    float[] y = floats(out);
    backend.divide(
        count,
        4L * count * width,
        (from, to, scratch) -> {
          for (int i = from; i < to; i++) {
            kernels.norm(in, i * width, width, gain, epsilon, y, i * width, scratch);
          }
        });
  }

  private static int vectors(String what, Buffer x, int width, int rows) {
    if (x.width() % width != 0 || x.rows() < rows) {
      throw new IllegalArgumentException(
          "%s: expected at least %d rows of vectors of %d, got (%d, %d)"
              .formatted(what, rows, width, x.rows(), x.width()));
    }
    return rows * (x.width() / width);
  }

  @Override
  public void normInput(Buffer x, Buffer weight, float epsilon, int rows, Buffer dy, Buffer dx) {
    int width = weight.width();
    int count = vectors("normInput", x, width, rows);
    checkShape("normInput: dy", dy, rows, x.width());
    checkShape("normInput: dx", dx, rows, x.width());
    float[] in = floats(x);
    float[] gain = floats(weight);
    float[] out = floats(dy);
    float[] gradient = floats(dx);
    TrainingCode code = backend.trainingCode();
    backend.divide(
        count,
        8L * count * width,
        (from, to, scratch) -> {
          for (int i = from; i < to; i++) {
            if (code != null) {
              code.rows.normInput(in, i * width, gain, width, epsilon, out, gradient, scratch);
            } else {
              normInput(in, i * width, width, gain, epsilon, out, gradient, scratch);
            }
          }
        });
  }

  private static void normInput(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] dy,
      float[] dx,
      Scratch scratch) {
    float mean = Elementary.dot(x, at, x, at, width, scratch.lanes) / width;
    float inverse = (float) (1 / Math.sqrt((double) (mean + epsilon)));
    float[] weighted = scratch.row(width);
    for (int i = 0; i < width; i++) {
      weighted[i] = weight[i] * dy[at + i];
    }
    float dot = Elementary.dot(weighted, 0, x, at, width, scratch.lanes) / width;
    float back = -(dot * inverse * inverse * inverse);
    for (int i = 0; i < width; i++) {
      dx[at + i] += Math.fma(weighted[i], inverse, x[at + i] * back);
    }
  }

  @Override
  public void rotate(Buffer x, int size, Buffer cos, Buffer sin, int[] positions, boolean back) {
    int rows = positions.length;
    int half = size / 2;
    int heads = vectors("rotate", x, size, rows) / Math.max(1, rows);
    for (int position : positions) {
      checkShape("rotate: cos", cos, position + 1, half);
      checkShape("rotate: sin", sin, position + 1, half);
    }
    float[] values = floats(x);
    float[] c = floats(cos);
    float[] s = floats(sin);
    backend.divide(
        rows,
        3L * rows * x.width(),
        (from, to, scratch) -> {
          for (int row = from; row < to; row++) {
            for (int head = 0; head < heads; head++) {
              int at = (row * heads + head) * size;
              int angle = positions[row] * half;
              if (back) {
                rotateBack(values, at, half, c, s, angle);
              } else {
                kernels.rotate(values, at, half, c, s, angle);
              }
            }
          }
        });
  }

  private static void rotateBack(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    for (int i = 0; i < half; i++) {
      float a = x[at + i];
      float b = x[at + half + i];
      x[at + i] = a * cos[angle + i] + b * sin[angle + i];
      x[at + half + i] = b * cos[angle + i] - a * sin[angle + i];
    }
  }

  @Override
  public void attention(
      int[] starts, Heads heads, Buffer q, Buffer k, Buffer v, Buffer out, Buffer logSums) {
    checkAttention("attention", starts, heads, q, k, v);
    int rows = starts[starts.length - 1];
    checkShape("attention: out", out, rows, q.width());
    checkShape("attention: logSums", logSums, rows, heads.queries());
    TrainingCode code = backend.trainingCode();
    if (code != null) {
      code.attention.attention(
          starts,
          heads,
          floats(q),
          floats(k),
          floats(v),
          floats(out),
          floats(logSums),
          backend.pool());
      return;
    }
    PlainAttention plain = new PlainAttention(starts, heads);
    int queries = heads.queries();
    backend.divide(
        rows * queries,
        2 * plain.multiplications(),
        (from, to, scratch) -> {
          for (int i = from; i < to; i++) {
            plain.attend(
                i / queries,
                i % queries,
                floats(q),
                floats(k),
                floats(v),
                floats(out),
                floats(logSums));
          }
        });
  }

  private static void checkAttention(
      String what, int[] starts, Heads heads, Buffer q, Buffer k, Buffer v) {
    int rows = starts[starts.length - 1];
    checkShape(what + ": q", q, rows, heads.queries() * heads.size());
    checkShape(what + ": k", k, rows, heads.keyValues() * heads.size());
    checkShape(what + ": v", v, rows, heads.keyValues() * heads.size());
  }

  @Override
  public void attentionInput(
      int[] starts,
      Heads heads,
      Buffer q,
      Buffer k,
      Buffer v,
      Buffer out,
      Buffer logSums,
      Buffer dOut,
      Buffer dq,
      Buffer dk,
      Buffer dv) {
    checkAttention("attentionInput", starts, heads, q, k, v);
    checkAttention("attentionInput: d", starts, heads, dq, dk, dv);
    int rows = starts[starts.length - 1];
    checkShape("attentionInput: out", out, rows, q.width());
    checkShape("attentionInput: dOut", dOut, rows, q.width());
    checkShape("attentionInput: logSums", logSums, rows, heads.queries());
    TrainingCode code = backend.trainingCode();
    if (code != null) {
      code.attention.attentionInput(
          starts,
          heads,
          floats(q),
          floats(k),
          floats(v),
          floats(out),
          floats(logSums),
          floats(dOut),
          floats(dq),
          floats(dk),
          floats(dv),
          backend.pool());
      return;
    }
    PlainAttention plain = new PlainAttention(starts, heads);
    backend.divide(
        heads.keyValues(),
        5 * plain.multiplications(),
        (from, to, scratch) -> {
          for (int head = from; head < to; head++) {
            plain.differentiate(
                head,
                floats(q),
                floats(k),
                floats(v),
                floats(out),
                floats(logSums),
                floats(dOut),
                floats(dq),
                floats(dk),
                floats(dv));
          }
        });
  }

  @Override
  public void activate(int rows, Buffer gate, Buffer up, Buffer out) {
    int width = gate.width();
    checkShape("activate: gate", gate, rows, width);
    checkShape("activate: up", up, rows, width);
    checkShape("activate: out", out, rows, width);
    float[] g = floats(gate);
    float[] u = floats(up);
    float[] y = floats(out);
    TrainingCode code = backend.trainingCode();
    backend.divide(
        rows,
        16L * rows * width,
        (from, to, scratch) -> {
          if (code != null) {
            code.rows.activate(g, u, y, from * width, to * width, scratch);
          } else {
            kernels.activate(g, u, y, from * width, to * width);
          }
        });
  }

  @Override
  public void activateInput(
      int rows, Buffer gate, Buffer up, Buffer dOut, Buffer dGate, Buffer dUp) {
    int width = gate.width();
    for (Buffer buffer : new Buffer[] {gate, up, dOut, dGate, dUp}) {
      checkShape("activateInput", buffer, rows, width);
    }
    float[] g = floats(gate);
    float[] u = floats(up);
    float[] dy = floats(dOut);
    float[] dg = floats(dGate);
    float[] du = floats(dUp);
    TrainingCode code = backend.trainingCode();
    backend.divide(
        rows,
        24L * rows * width,
        (from, to, scratch) -> {
          if (code != null) {
            code.rows.activateInput(g, u, dy, dg, du, from * width, to * width, scratch);
          } else {
            activateInput(g, u, dy, dg, du, from * width, to * width);
          }
        });
  }

  private static void activateInput(
      float[] gate, float[] up, float[] dy, float[] dGate, float[] dUp, int from, int to) {
    for (int i = from; i < to; i++) {
      float g = gate[i];
      float sigmoid = 1 / (1 + Elementary.exp(-g));
      float silu = g * sigmoid;
      float slope = sigmoid * (1 + (g - silu));
      float d = dy[i];
      float u = up[i];
      dGate[i] = d * u * slope;
      dUp[i] = d * silu;
    }
  }

  @Override
  public double crossEntropy(int rows, Buffer logits, int[] targets, int from, float scale) {
    int width = logits.width();
    checkShape("crossEntropy: logits", logits, rows, width);
    for (int i = 0; i < rows; i++) {
      int target = targets[from + i];
      if (target < 0 || target >= width) {
        throw new IllegalArgumentException(
            "crossEntropy: row %d: target %d of a vocabulary of %d".formatted(i, target, width));
      }
    }
    float[] values = floats(logits);
    double[] losses = new double[rows];
    backend.divide(
        rows,
        24L * rows * width,
        (first, to, scratch) -> {
          for (int row = first; row < to; row++) {
            losses[row] =
                crossEntropy(values, row * width, width, targets[from + row], scale, scratch);
          }
        });
    double loss = 0;
    for (double row : losses) {
      loss += row;
    }
    return loss;
  }

  private double crossEntropy(
      float[] logits, int at, int width, int target, float scale, Scratch scratch) {
    float max = kernels.largest(logits, at, width);
    if (!Float.isFinite(max)) {
      return Double.NaN;
    }
    double sum = kernels.sumOfExponentials(logits, at, width, max, scratch);
    double loss = Elementary.log(sum) + (max - (double) logits[at + target]);
    float factor = (float) (scale / sum);
    float[] row = scratch.row(width);
    kernels.exponentials(logits, at, width, max, 1, row);
    for (int i = 0; i < width; i++) {
      logits[at + i] = row[i] * factor;
    }
    logits[at + target] -= scale;
    return loss;
  }

  @Override
  public void dropout(int rows, Buffer x, float p, long key, Buffer out) {
    drop("dropout", rows, x, p, key, out, false);
  }

  @Override
  public void dropoutInput(int rows, Buffer dy, float p, long key, Buffer dx) {
    drop("dropoutInput", rows, dy, p, key, dx, true);
  }

  private void drop(String what, int rows, Buffer x, float p, long key, Buffer out, boolean adds) {
    int width = x.width();
    checkShape(what + ": x", x, rows, width);
    checkShape(what + ": out", out, rows, width);
    if (!(p >= 0 && p < 1)) {
      throw new IllegalArgumentException(what + ": expected p in [0, 1), got " + p);
    }
    float[] in = floats(x);
    float[] y = floats(out);
    float kept = 1 / (1 - p);
    long bound = (long) (p * 0x1p32);
    TrainingCode code = backend.trainingCode();
    backend.divide(
        rows,
        16L * rows * width,
        (from, to, scratch) -> {
          if (code != null) {
            code.rows.drop(in, width, from, to, (int) bound, kept, key, y, adds, scratch);
            return;
          }
          int[] words = scratch.counter;
          for (int row = from; row < to; row++) {
            for (int i = 0; i < width; i += 4) {
              words[0] = row;
              words[1] = i;
              words[2] = 0;
              words[3] = 0;
              Philox.mix((int) key, (int) (key >>> 32), words);
              for (int j = 0; j < 4 && i + j < width; j++) {
                int at = row * width + i + j;
                float value = (words[j] & 0xffffffffL) < bound ? 0 : in[at] * kept;
                y[at] = adds ? y[at] + value : value;
              }
            }
          }
        });
  }

  @Override
  public void rowNorms(Matrix weight, float scale, Buffer a, Buffer b, Buffer norms) {
    Panels w = panels(weight);
    int rank = a.rows();
    checkShape("rowNorms: a", a, rank, w.cols());
    checkShape("rowNorms: b", b, w.rows(), rank);
    checkShape("rowNorms: norms", norms, 1, w.rows());
    float[] left = floats(b);
    float[] right = floats(a);
    float[] results = floats(norms);
    int width = w.cols();
    backend.divide(
        w.rows(),
        (long) w.rows() * width * (rank + 4),
        (from, to, scratch) -> {
          float[] row = scratch.row(2 * width);
          for (int out = from; out < to; out++) {
            w.row(out, row, 0);
            Arrays.fill(row, width, 2 * width, 0);
            for (int j = 0; j < rank; j++) {
              float factor = left[out * rank + j];
              for (int k = 0; k < width; k++) {
                row[width + k] = Math.fma(factor, right[j * width + k], row[width + k]);
              }
            }
            double sum = 0;
            for (int k = 0; k < width; k++) {
              double element = Math.fma(scale, row[width + k], row[k]);
              sum += element * element;
            }
            results[out] = (float) Math.sqrt(sum);
          }
        });
  }

  @Override
  public void divide(Buffer a, Buffer b, Buffer out) {
    checkShape("divide: b", b, a.rows(), a.width());
    checkShape("divide: out", out, a.rows(), a.width());
    float[] dividends = floats(a);
    float[] divisors = floats(b);
    float[] results = floats(out);
    for (int i = 0; i < dividends.length; i++) {
      results[i] = dividends[i] / divisors[i];
    }
  }

  @Override
  public void add(int rows, float scale, Buffer x, Buffer y) {
    int width = x.width();
    checkShape("add: x", x, rows, width);
    checkShape("add: y", y, rows, width);
    float[] in = floats(x);
    float[] out = floats(y);
    backend.divide(
        rows,
        (long) rows * width,
        (from, to, scratch) -> {
          for (int i = from * width; i < to * width; i++) {
            out[i] = Math.fma(scale, in[i], out[i]);
          }
        });
  }

  @Override
  public void addRow(int rows, Buffer row, Buffer y) {
    int width = y.width();
    checkShape("addRow: row", row, 1, width);
    checkShape("addRow: y", y, rows, width);
    float[] terms = floats(row);
    float[] out = floats(y);
    backend.divide(
        rows,
        (long) rows * width,
        (from, to, scratch) -> {
          for (int i = from; i < to; i++) {
            kernels.add(terms, 0, out, i * width, width);
          }
        });
  }

  @Override
  public void scaleColumns(int rows, Buffer x, Buffer gain, Buffer out) {
    int width = x.width();
    checkShape("scaleColumns: x", x, rows, width);
    checkShape("scaleColumns: gain", gain, 1, width);
    checkShape("scaleColumns: out", out, rows, width);
    float[] in = floats(x);
    float[] factors = floats(gain);
    float[] y = floats(out);
    backend.divide(
        rows,
        (long) rows * width,
        (from, to, scratch) -> {
          for (int row = from; row < to; row++) {
            int at = row * width;
            for (int i = 0; i < width; i++) {
              y[at + i] = in[at + i] * factors[i];
            }
          }
        });
  }

  @Override
  public void columnDots(int rows, Buffer a, Buffer b, Buffer sums) {
    int width = a.width();
    checkShape("columnDots: a", a, rows, width);
    checkShape("columnDots: b", b, rows, width);
    checkShape("columnDots: sums", sums, 1, width);
    float[] left = floats(a);
    float[] right = floats(b);
    float[] to = floats(sums);
    for (int row = 0; row < rows; row++) {
      int at = row * width;
      for (int i = 0; i < width; i++) {
        to[i] = Math.fma(left[at + i], right[at + i], to[i]);
      }
    }
  }

  @Override
  public void gather(Buffer x, int[] rows, int from, int count, Buffer out) {
    int width = x.width();
    checkShape("gather: out", out, count, width);
    float[] in = floats(x);
    float[] y = floats(out);
    for (int i = 0; i < count; i++) {
      checkShape("gather: x", x, rows[from + i] + 1, width);
      System.arraycopy(in, rows[from + i] * width, y, i * width, width);
    }
  }

  @Override
  public void scatter(Buffer y, int[] rows, int from, int count, Buffer x) {
    int width = y.width();
    checkShape("scatter: y", y, count, width);
    float[] in = floats(y);
    float[] out = floats(x);
    for (int i = 0; i < count; i++) {
      checkShape("scatter: x", x, rows[from + i] + 1, width);
      System.arraycopy(in, i * width, out, rows[from + i] * width, width);
    }
  }

  @Override
  public void clear(int rows, Buffer x) {
    checkShape("clear", x, rows, x.width());
    Arrays.fill(floats(x), 0, rows * x.width(), 0);
  }

  @Override
  public double sumOfSquares(Buffer x) {
    float[] values = floats(x);
    double sum = 0;
    for (int row = 0; row < x.rows(); row++) {
      double part = 0;
      for (int i = row * x.width(); i < (row + 1) * x.width(); i++) {
        part += (double) values[i] * values[i];
      }
      sum += part;
    }
    return sum;
  }

  @Override
  public void scale(Buffer x, float factor) {
    float[] values = floats(x);
    for (int i = 0; i < values.length; i++) {
      values[i] *= factor;
    }
  }

  @Override
  public void update(
      UpdateRule rule,
      Buffer parameter,
      Buffer gradient,
      int from,
      int count,
      MemorySegment state) {
    checkShape("update: gradient", gradient, parameter.rows(), parameter.width());
    float[] values = floats(parameter);
    if (from < 0 || count < 0 || from % UpdateRule.BLOCK != 0 || count > values.length - from) {
      throw new IllegalArgumentException(
          "update: expected whole blocks of %d within %d elements, got %d from %d"
              .formatted(UpdateRule.BLOCK, values.length, count, from));
    }
    if (state.byteSize() < rule.stateBytes(count)) {
      throw new IllegalArgumentException(
          "update: expected %d bytes of state, got %d"
              .formatted(rule.stateBytes(count), state.byteSize()));
    }
    Updates updates = new Updates(rule, values, floats(gradient), from, count, state);
    backend.divide(updates.blocks(), 4L * count, (first, end, scratch) -> updates.run(first, end));
  }
}
