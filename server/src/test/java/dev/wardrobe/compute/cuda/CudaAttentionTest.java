package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.AttentionContract;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Step;
import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The contract, and that however rows are divided among blocks their bits are the same. */
final class CudaAttentionTest extends AttentionContract {
  private static final int BLOCK = KvShape.BLOCK_TOKENS;

  /** Rows at the end of a context that are attended to: more than one tile of most kernels. */
  private static final int ROWS = 19;

  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }

  /** A cache that holds one sequence's keys and values, and the queries of its last rows. */
  private static final class Context {
    private final Lab lab;
    private final Heads heads;
    private final KvShape.Type type;
    private final int length;
    private final int[] blocks;
    private final KvCache cache;
    private final float[] keys;
    private final float[] values;
    private final float[] queries;

    Context(Lab lab, Heads heads, KvShape.Type type, int length) {
      this.lab = lab;
      this.heads = heads;
      this.type = type;
      this.length = length;
      blocks = new int[Math.ceilDiv(length, BLOCK)];
      for (int i = 0; i < blocks.length; i++) {
        blocks[i] = (i ^ 1) + 1;
      }
      cache = lab.cache(new KvShape(2, heads.keyValues(), heads.size(), blocks.length + 2, type));
      keys = rounded(lab.floats(length * heads.keyValues() * heads.size()));
      values = rounded(lab.floats(length * heads.keyValues() * heads.size()));
      queries = rounded(lab.floats(Math.min(length, ROWS) * heads.queries() * heads.size()));
    }

    /** Numbers that are bfloat16's, so that what attention rounds is its weights alone. */
    private static float[] rounded(float[] x) {
      for (int i = 0; i < x.length; i++) {
        x[i] = DType.bfloat16ToFloat(DType.floatToBfloat16(x[i]));
      }
      return x;
    }

    int rows() {
      return Math.min(length, ROWS);
    }

    int position(int row) {
      return length - rows() + row;
    }

    private Step step(int tokens, List<Batch.Run> runs) {
      return lab.backend.step(
          new Batch(
              new int[tokens], runs, List.of(new Batch.Segment(0, tokens, null)), new int[0]));
    }

    /** Writes keys and values as they are: by angles of 0. */
    void fill() {
      float[] cos = new float[length * heads.size() / 2];
      Arrays.fill(cos, 1);
      int width = heads.keyValues() * heads.size();
      try (Step step = step(length, List.of(new Batch.Run(0, length, 0, blocks)))) {
        lab.backend.rope(
            step,
            heads,
            lab.buffer(cos, heads.size() / 2),
            lab.buffer(new float[cos.length], heads.size() / 2),
            lab.buffer(
                new float[length * heads.queries() * heads.size()], heads.queries() * heads.size()),
            lab.buffer(keys, width),
            lab.buffer(values, width),
            cache,
            1);
      }
    }

    /** Attends to the last rows, in runs of so many. */
    float[] attend(int run) {
      List<Batch.Run> runs = new ArrayList<>();
      for (int from = 0; from < rows(); from += run) {
        int to = Math.min(rows(), from + run);
        runs.add(new Batch.Run(from, to, position(from), blocks));
      }
      Buffer q = lab.buffer(queries, heads.queries() * heads.size());
      try (Buffer out = lab.backend.buffer(rows(), q.width());
          Step step = step(rows(), runs)) {
        lab.backend.attention(step, heads, q, cache, 1, out);
        return lab.backend.read(out, 0, rows());
      }
    }

    /** One head of a row in double, and the sums of absolute weighted values. */
    private double[][] expected(int row, int head) {
      int size = heads.size();
      int position = position(row);
      int first = heads.window() == 0 ? 0 : Math.max(0, position + 1 - heads.window());
      int stride = heads.keyValues() * size;
      int kvHead = head / (heads.queries() / heads.keyValues()) * size;
      double[] weights = new double[position + 1];
      double max = Double.NEGATIVE_INFINITY;
      for (int p = first; p <= position; p++) {
        for (int d = 0; d < size; d++) {
          double q = queries[(row * heads.queries() + head) * size + d];
          weights[p] += q * keys[p * stride + kvHead + d] * heads.scale();
        }
        max = Math.max(max, weights[p]);
      }
      double sum = 0;
      double[] out = new double[size];
      double[] absolute = new double[size];
      for (int p = first; p <= position; p++) {
        double weight = StrictMath.exp(weights[p] - max);
        sum += weight;
        for (int d = 0; d < size; d++) {
          out[d] += weight * values[p * stride + kvHead + d];
          absolute[d] += weight * Math.abs(values[p * stride + kvHead + d]);
        }
      }
      for (int d = 0; d < size; d++) {
        out[d] /= sum;
        absolute[d] /= sum;
      }
      return new double[][] {out, absolute};
    }

    /** Weights are off by a part of 2^-9 at most, and so is their sum. */
    void check(float[] actual) {
      int size = heads.size();
      for (int row : new int[] {0, rows() / 2, rows() - 1}) {
        for (int head : new int[] {0, heads.queries() / 2, heads.queries() - 1}) {
          double[][] expected = expected(row, head);
          int at = row * heads.queries() + head;
          lab.assertProducts(
              "%s %s position %d head %d".formatted(heads, type, position(row), head),
              Lab.rows(actual, size, at, at + 1),
              expected[0],
              expected[1]);
        }
      }
    }
  }

  private static Heads heads(int queries, int keyValues, int size, int window) {
    return new Heads(queries, keyValues, size, (float) (1 / Math.sqrt(size)), window);
  }

  /** Runs of one token and of a few have blocks for each chunk, longer ones walk through them. */
  @ParameterizedTest
  @CsvSource({
    "1, 1, 64, 0, BF16, 40",
    "2, 1, 128, 0, BF16, 257",
    "6, 2, 80, 0, BF16, 300",
    "4, 1, 64, 0, F32, 513",
    "7, 1, 96, 0, BF16, 530",
    "8, 1, 32, 100, BF16, 600",
    "16, 1, 16, 0, F32, 274",
    "20, 1, 8, 0, BF16, 275",
    "70, 1, 4, 0, BF16, 258",
    "3, 3, 2, 0, BF16, 767",
    "2, 2, 256, 0, BF16, 260",
    "4, 2, 160, 256, F32, 521",
    "2, 1, 50, 255, BF16, 520",
    "5, 1, 24, 1, BF16, 257",
    "4, 2, 66, 300, BF16, 769",
  })
  void attention_divisionsOfRows(
      int queries, int keyValues, int size, int window, KvShape.Type type, int length) {
    try (Lab lab = lab(length)) {
      Context context = new Context(lab, heads(queries, keyValues, size, window), type, length);
      context.fill();
      float[] walked = context.attend(ROWS);
      context.check(walked);
      for (int run : new int[] {1, 3, Attention.SHORT_RUN}) {
        lab.assertSame("runs of " + run, context.attend(run), walked);
      }
    }
  }

  /** Little memory for what chunks have found: a few rows at a time. */
  @Test
  void attention_rowsInTurn() {
    try (Lab lab = lab(1)) {
      Context context = new Context(lab, heads(4, 1, 16, 0), KvShape.Type.BF16, 530);
      context.fill();
      float[] expected = context.attend(ROWS);
      Gpu gpu = ((CudaBackend) lab.backend).gpu();
      for (long bytes : new long[] {1, 3 * 4 * 4 * 18 * 7, 1 << 20}) {
        for (int length : new int[] {1, 5, Attention.SHORT_RUN}) {
          List<Batch.Run> runs = new ArrayList<>();
          for (int from = 0; from < ROWS; from += length) {
            int to = Math.min(ROWS, from + length);
            runs.add(new Batch.Run(from, to, context.position(from), context.blocks));
          }
          Buffer q = lab.buffer(context.queries, 64);
          try (Attention attention = new Attention(gpu, bytes);
              Buffer out = lab.backend.buffer(ROWS, 64);
              Step step = context.step(ROWS, runs)) {
            attention.attend(
                (CudaStep) step,
                context.heads,
                CudaBackend.own(q),
                CudaKvCache.own(context.cache, context.heads, 1),
                1,
                CudaBackend.own(out));
            lab.assertSame("%d bytes".formatted(bytes), lab.backend.read(out, 0, ROWS), expected);
            ((CudaStep) step).tape().abandon();
          }
        }
      }
    }
  }

  /** What is not finite in an early chunk shows in the rows that see it, divided or not. */
  @ParameterizedTest
  @CsvSource({"0, BF16", "270, F32"})
  void attention_notFiniteInChunks(int window, KvShape.Type type) {
    try (Lab lab = lab(2)) {
      Context clean = new Context(lab, heads(2, 1, 16, window), type, 523);
      clean.fill();
      float[] reference = clean.attend(ROWS);
      Context spoiled = new Context(lab, clean.heads, type, 523);
      System.arraycopy(clean.keys, 0, spoiled.keys, 0, clean.keys.length);
      System.arraycopy(clean.values, 0, spoiled.values, 0, clean.values.length);
      System.arraycopy(clean.queries, 0, spoiled.queries, 0, clean.queries.length);
      // Within the last rows' windows, but for those of the later ones; and among the last rows.
      spoiled.values[244 * 16 + 3] = Float.NEGATIVE_INFINITY;
      spoiled.values[515 * 16 + 9] = Float.NaN;
      spoiled.fill();
      for (int run : new int[] {ROWS, 1, 4}) {
        float[] actual = spoiled.attend(run);
        for (int i = 0; i < actual.length; i++) {
          int position = spoiled.position(i / 32);
          String what = "runs of %d, position %d, element %d".formatted(run, position, i % 32);
          if (i % 16 == 3 && (window == 0 || position < 244 + window)) {
            assertThat(actual[i]).as(what).isEqualTo(Float.NEGATIVE_INFINITY);
          } else if (i % 16 == 9 && position >= 515) {
            assertThat(actual[i]).as(what).isNaN();
          } else {
            assertThat(actual[i]).as(what).isEqualTo(reference[i]);
          }
        }
      }
    }
  }

  /** Single tokens of three sequences over a chunk's border, as graphs. */
  @Test
  void attention_replayed() {
    try (Lab lab = lab(3)) {
      Context context = new Context(lab, heads(4, 2, 16, 0), KvShape.Type.BF16, 265);
      context.fill();
      float[] expected = context.attend(ROWS);
      int width = 64;
      try (Buffer q = lab.backend.buffer(3, width);
          Buffer out = lab.backend.buffer(3, width)) {
        for (int row = 0; row + 2 < ROWS; row++) {
          List<Batch.Run> runs = new ArrayList<>();
          for (int i = 0; i < 3; i++) {
            runs.add(new Batch.Run(i, i + 1, context.position(row + i), context.blocks));
          }
          lab.backend.write(q, 0, Lab.rows(context.queries, width, row, row + 3));
          try (Step step = context.step(3, runs)) {
            lab.backend.attention(step, context.heads, q, context.cache, 1, out);
            lab.assertSame(
                "row " + row, lab.backend.read(out, 0, 3), Lab.rows(expected, width, row, row + 3));
          }
        }
        assertThat(((CudaBackend) lab.backend).replays()).isEqualTo(ROWS - 2 - 2);
      }
    }
  }

  @Test
  void attention_sameBitsWhateverTheSchedule() {
    try (Lab lab = lab(4)) {
      Context context = new Context(lab, heads(3, 1, 32, 0), KvShape.Type.BF16, 290);
      context.fill();
      float[] expected = context.attend(ROWS);
      for (int seed = 1; seed <= 20; seed++) {
        Emulator.load().seed(seed);
        lab.assertSame("seed " + seed, context.attend(seed % 2 == 0 ? 1 : ROWS), expected);
      }
    }
  }

  @Test
  void kvCache_headsTooLarge() {
    try (Lab lab = lab(5)) {
      assertThat(lab.backend.math()).isEqualTo(MathMode.EXACT);
      assertThatThrownBy(() -> lab.backend.kvCache(new KvShape(1, 1, 258, 4, KvShape.Type.BF16)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("258")
          .hasMessageContaining("--backend cpu");
    }
  }
}
