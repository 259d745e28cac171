package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.Delta.LowRank;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Weighted sums of adapters, against sums in double precision and against each alone. */
public abstract class MixContract extends BackendContract {
  private static final DType[] DTYPES = {DType.BF16, DType.F16, DType.F32};

  /** A delta of module 0, and the adapter that has it. */
  private record Part(DenseMatrix a, DenseMatrix b, float scale, float @Nullable [] bias) {
    Lora upload(Lab lab, Matrix w) {
      return lab.lora(
          Map.of(0, new Delta(new LowRank(a, b), scale, null, bias, null, null)), Map.of(0, w));
    }
  }

  /** Adapters of one sequence; none of them is the base. */
  private record Mixed(List<Part> parts, List<Lora> loras, float[] scales) {
    List<Batch.Segment> segments(int from, int to) {
      if (loras.isEmpty()) {
        return List.of(new Batch.Segment(from, to, null));
      }
      List<Batch.Segment> segments = new ArrayList<>();
      for (int i = 0; i < loras.size(); i++) {
        segments.add(new Batch.Segment(from, to, loras.get(i), scales[i]));
      }
      return segments;
    }
  }

  private static Part part(Lab lab, int in, int out) {
    DType dtype = DTYPES[lab.below(3)];
    int rank = lab.below(2) == 0 ? 8 * (1 + lab.below(4)) : 1 + lab.below(40);
    return new Part(
        lab.dense(dtype, rank, in),
        lab.dense(dtype, out, rank),
        0.25f + lab.below(8),
        lab.below(4) == 0 ? lab.floats(out) : null);
  }

  private static Mixed mixed(Lab lab, Matrix w, int count) {
    List<Part> parts = new ArrayList<>();
    List<Lora> loras = new ArrayList<>();
    float[] scales = lab.floats(count);
    for (int i = 0; i < count; i++) {
      parts.add(part(lab, w.cols(), w.rows()));
      loras.add(parts.getLast().upload(lab, w));
    }
    return new Mixed(parts, loras, scales);
  }

  private static void add(double[][] y, Part part, double scale, float[] x, int from, int to) {
    int out = part.b.rows();
    int rank = part.b.cols();
    int in = part.a.cols();
    float[] b = Lab.values(part.b);
    double[][] t = Lab.product(Lab.values(part.a), rank, in, x, x.length / in);
    double all = scale * part.scale;
    for (int token = from; token < to; token++) {
      for (int o = 0; o < out; o++) {
        int at = token * out + o;
        for (int j = 0; j < rank; j++) {
          y[0][at] += all * b[o * rank + j] * t[0][token * rank + j];
          y[1][at] += Math.abs(all * b[o * rank + j]) * t[1][token * rank + j];
        }
        if (part.bias != null) {
          y[0][at] += all * part.bias[o];
          y[1][at] += Math.abs(all * part.bias[o]);
        }
      }
    }
  }

  private static float[] project(Lab lab, Linear linear, float[] x, List<Batch.Segment> segments) {
    int tokens = x.length / linear.weight().cols();
    Buffer y = lab.buffer(tokens, linear.weight().rows());
    lab.backend.linear(
        lab.step(tokens, segments.toArray(Batch.Segment[]::new)),
        List.of(linear),
        lab.buffer(x, linear.weight().cols()),
        List.of(y));
    return lab.read(y);
  }

  /**
   * Mixes of any ranks and types beside single adapters and the base: each row is the sum of its
   * deltas, and has the bits that it has alone.
   */
  @RepeatedTest(6)
  void linear_isTheSumOfDeltas() {
    try (Lab lab = lab(new SplittableRandom().nextLong())) {
      int in = 1 + lab.below(150);
      int out = 1 + lab.below(150);
      DenseMatrix stored = lab.dense(DType.F32, out, in);
      Matrix w = lab.matrix(stored);
      float[] bias = lab.floats(out);
      Linear linear = new Linear(0, w, lab.buffer(bias, out));
      List<Mixed> mixes = new ArrayList<>();
      List<int[]> rows = new ArrayList<>();
      List<Batch.Segment> segments = new ArrayList<>();
      int tokens = 0;
      for (int i = 0; i < 12; i++) {
        Mixed mixed = mixed(lab, w, lab.below(5));
        int end = tokens + (lab.below(3) == 0 ? 1 + lab.below(9) : 1);
        segments.addAll(mixed.segments(tokens, end));
        mixes.add(mixed);
        rows.add(new int[] {tokens, end});
        tokens = end;
      }
      float[] x = lab.floats(tokens * in);
      float[] together = project(lab, linear, x, segments);

      double[][] expected = Lab.product(Lab.values(stored), out, in, x, tokens);
      for (int i = 0; i < expected[0].length; i++) {
        expected[0][i] += bias[i % out];
        expected[1][i] += Math.abs(bias[i % out]);
      }
      for (int i = 0; i < mixes.size(); i++) {
        Mixed mixed = mixes.get(i);
        for (int j = 0; j < mixed.parts.size(); j++) {
          add(expected, mixed.parts.get(j), mixed.scales[j], x, rows.get(i)[0], rows.get(i)[1]);
        }
      }
      lab.assertProducts("(%d, %d)".formatted(out, in), together, expected[0], expected[1]);
      for (int i = 0; i < mixes.size(); i++) {
        for (int row = rows.get(i)[0]; row < rows.get(i)[1]; row++) {
          lab.assertSame(
              "row " + row,
              project(lab, linear, Lab.rows(x, in, row, row + 1), mixes.get(i).segments(0, 1)),
              Lab.rows(together, out, row, row + 1));
        }
      }
    }
  }

  /** The order of a mix is kept whatever form its factors take, for one token and for many. */
  @ParameterizedTest
  @CsvSource({
    "BF16, 8, F16, 5",
    "F16, 8, BF16, 8",
    "F32, 16, BF16, 8",
    "BF16, 8, BF16, 2",
    "BF16, 3, F32, 4",
  })
  void linear_keepsTheOrder(DType first, int firstRank, DType second, int secondRank) {
    try (Lab lab = lab(firstRank)) {
      Matrix w = lab.matrix(lab.quantized(96, 64, QuantType.NF4, 64, true));
      Linear linear = new Linear(0, w, null);
      // So large and opposite that another order of sums has other bits.
      float[] huge = lab.floats(96 * firstRank, 1e4);
      float[] less = new float[96 * firstRank];
      for (int i = 0; i < less.length; i++) {
        less[i] = -huge[i];
      }
      DenseMatrix a = lab.dense(first, firstRank, 64);
      Lora plus = new Part(a, Lab.dense(first, 96, firstRank, huge), 1, null).upload(lab, w);
      Lora minus = new Part(a, Lab.dense(first, 96, firstRank, less), 1, null).upload(lab, w);
      Lora between =
          new Part(lab.dense(second, secondRank, 64), lab.dense(second, 96, secondRank), 1, null)
              .upload(lab, w);
      float[] x = lab.floats(6 * 64);
      float[] inner = project(lab, linear, x, sum(6, plus, between, minus));
      float[] outer = project(lab, linear, x, sum(6, plus, minus, between));
      assertThat(inner).as("seed %d", lab.seed).isNotEqualTo(outer);
      for (int row = 0; row < 6; row++) {
        float[] one = Lab.rows(x, 64, row, row + 1);
        lab.assertSame(
            "inner " + row,
            project(lab, linear, one, sum(1, plus, between, minus)),
            Lab.rows(inner, 96, row, row + 1));
        lab.assertSame(
            "outer " + row,
            project(lab, linear, one, sum(1, plus, minus, between)),
            Lab.rows(outer, 96, row, row + 1));
      }
    }
  }

  private static List<Batch.Segment> sum(int tokens, Lora... loras) {
    return Arrays.stream(loras).map(lora -> new Batch.Segment(0, tokens, lora)).toList();
  }

  /** A scale multiplies the adapter's own, and no other number. */
  @Test
  void linear_scaleOfOne() {
    try (Lab lab = lab(21)) {
      QuantizedMatrix stored = lab.quantized(70, 128, QuantType.NF4, 64, true);
      Matrix w = lab.matrix(stored);
      Linear linear = new Linear(0, w, null);
      Part part = new Part(lab.dense(DType.BF16, 8, 128), lab.dense(DType.BF16, 70, 8), 0.3f, null);
      Part third = new Part(part.a, part.b, 0.3f * 0.7f, null);
      Lora lora = part.upload(lab, w);
      Lora scaled = third.upload(lab, w);
      for (int tokens : new int[] {1, 5}) {
        float[] x = lab.floats(tokens * 128);
        lab.assertSame(
            "scale 0.7",
            project(lab, linear, x, List.of(new Batch.Segment(0, tokens, lora, 0.7f))),
            project(lab, linear, x, List.of(new Batch.Segment(0, tokens, scaled))));
        lab.assertSame(
            "scale 0",
            project(lab, linear, x, List.of(new Batch.Segment(0, tokens, lora, 0))),
            project(lab, linear, x, List.of(new Batch.Segment(0, tokens, null))));
      }
    }
  }

  @Test
  void embed_isTheSumOfDeltas() {
    try (Lab lab = lab(22)) {
      DenseMatrix table = lab.dense(DType.BF16, 37, 20);
      Matrix w = lab.matrix(table);
      DenseMatrix[] a = {lab.dense(DType.F32, 3, 37), lab.dense(DType.BF16, 8, 37)};
      DenseMatrix[] b = {lab.dense(DType.F32, 20, 3), lab.dense(DType.BF16, 20, 8)};
      float[] scales = {-0.5f, 1.25f};
      List<Lora> loras = new ArrayList<>();
      for (int i = 0; i < 2; i++) {
        loras.add(lab.lora(Map.of(4, Lab.lowRank(a[i], b[i], 2)), Map.of(4, w)));
      }
      int[] tokens = {36, 7, 7, 5};
      Buffer out = lab.buffer(4, 20);
      lab.backend.embed(
          lab.step(
              tokens,
              new Batch.Segment(0, 1, null),
              new Batch.Segment(1, 3, loras.get(0), scales[0]),
              new Batch.Segment(1, 3, loras.get(1), scales[1]),
              new Batch.Segment(3, 4, loras.get(1))),
          4,
          w,
          out);
      float[] actual = lab.read(out);
      float[] values = Lab.values(table);
      for (int row = 0; row < 4; row++) {
        double[] expected = new double[20];
        for (int h = 0; h < 20; h++) {
          expected[h] = values[tokens[row] * 20 + h];
          for (int i = 0; i < 2; i++) {
            double scale = row == 0 || (row == 3 && i == 0) ? 0 : row == 3 ? 1 : scales[i];
            int rank = a[i].rows();
            for (int j = 0; j < rank; j++) {
              expected[h] +=
                  2
                      * scale
                      * Lab.values(b[i])[h * rank + j]
                      * Lab.values(a[i])[j * 37 + tokens[row]];
            }
          }
        }
        lab.assertClose(
            "row " + row, Lab.rows(actual, 20, row, row + 1), expected, Lab.fill(20, 5));
      }
    }
  }

  /** Whatever outputs are asked for, each has its own row's adapters. */
  @Test
  void logits_ofChosenRows() {
    try (Lab lab = lab(23)) {
      Matrix w = lab.matrix(lab.dense(DType.BF16, 50, 64));
      Linear head = new Linear(0, w, null);
      List<LoraMix> mixes = new ArrayList<>();
      for (int count : new int[] {2, 0, 3, 1, 2}) {
        Mixed mixed = mixed(lab, w, count);
        mixes.add(LoraMix.of(mixed.loras, mixed.scales));
      }
      assertThat(mixes.get(1)).isNull();
      int[] lengths = {3, 2, 1, 4, 2};
      int[] wanted = {0, 2, 4, 5, 6, 9, 11};
      Batch batch = new Batch();
      int[] mixOf = new int[12];
      for (int i = 0, row = 0; i < 5; i++) {
        batch.add(new int[lengths[i]], 0, lengths[i], new int[] {i}, mixes.get(i));
        Arrays.fill(mixOf, row, row + lengths[i], i);
        row += lengths[i];
      }
      for (int row : wanted) {
        batch.want(row);
      }
      float[] x = lab.floats(12 * 64);
      Buffer input = lab.buffer(x, 64);
      Step step = lab.keep(lab.backend.step(batch));
      for (int from = 0; from < wanted.length; from++) {
        for (int to = from + 1; to <= wanted.length; to++) {
          Buffer logits = lab.buffer(to - from, 50);
          lab.backend.logits(step, head, input, from, to, logits);
          float[] all = lab.read(logits);
          for (int i = from; i < to; i++) {
            Batch alone = new Batch();
            alone.add(new int[1], 0, 1, new int[] {0}, mixes.get(mixOf[wanted[i]]));
            Buffer one = lab.buffer(1, 50);
            lab.backend.linear(
                lab.keep(lab.backend.step(alone)),
                List.of(head),
                lab.buffer(Lab.rows(x, 64, wanted[i], wanted[i] + 1), 64),
                List.of(one));
            lab.assertSame(
                "%d of %d to %d".formatted(i, from, to),
                Lab.rows(all, 50, i - from, i - from + 1),
                lab.read(one));
          }
        }
      }
    }
  }

  /** What replaces or rescales is served as it is, and refused in a mix or at another scale. */
  @Test
  void notAdditive_isRefused() {
    try (Lab lab = lab(24)) {
      Matrix w = lab.matrix(lab.dense(DType.F32, 8, 4));
      LowRank factors = new LowRank(lab.dense(DType.F32, 2, 4), lab.dense(DType.F32, 8, 2));
      Map<Integer, Matrix> base = Map.of(0, w);
      Lora plain = lab.lora(Map.of(0, new Delta(factors, 1, null, null, null, null)), base);
      Lora biased =
          lab.lora(Map.of(0, new Delta(factors, 1, null, lab.floats(8), null, null)), base);
      assertThat(plain.additive()).isTrue();
      assertThat(biased.additive()).isTrue();
      for (Delta delta :
          List.of(
              new Delta(factors, 1, lab.floats(8), null, null, null),
              new Delta(factors, 1, null, null, lab.floats(8), null),
              Lab.bias(lab.floats(8)),
              Lab.weight(lab.dense(DType.F32, 8, 4)))) {
        Lora lora = lab.lora(Map.of(0, delta), base);
        assertThat(lora.additive()).isFalse();
        assertThat(LoraMix.of(List.of(lora, plain), 1, 0)).isEqualTo(LoraMix.of(lora));
        assertThatThrownBy(() -> LoraMix.of(List.of(plain, lora), 1, 1))
            .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> LoraMix.of(List.of(lora), 0.5f))
            .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> lab.step(1, new Batch.Segment(0, 1, lora, 2)))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("scale");
        assertThatThrownBy(
                () -> lab.step(1, new Batch.Segment(0, 1, plain), new Batch.Segment(0, 1, lora)))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("segment 1");
      }
      assertThatThrownBy(
              () -> lab.step(2, new Batch.Segment(0, 2, plain), new Batch.Segment(0, 1, biased)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("0 to 2");
      assertThatThrownBy(
              () -> lab.step(1, new Batch.Segment(0, 1, plain), new Batch.Segment(0, 1, null)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.step(1, new Batch.Segment(0, 1, plain, Float.NaN)))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }
}
