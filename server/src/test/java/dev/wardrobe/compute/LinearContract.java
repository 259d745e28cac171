package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Projections with and without adapters, against sums in double precision. */
public abstract class LinearContract extends BackendContract {

  @ParameterizedTest
  @CsvSource({
    "1, 64, NF4, 64, true",
    "31, 128, NF4, 64, true",
    "32, 1088, NF4, 64, true",
    "65, 320, NF4, 64, false",
    "16, 192, NF4, 64, true",
    "17, 128, NF4, 128, true",
    "33, 512, NF4, 256, true",
    "33, 64, FP4, 64, true",
    "16, 128, FP4, 64, false",
    "18, 96, NF4, 32, true",
    "300, 192, NF4, 64, true",
    "17, 80, NF4, 64, true",
    "33, 112, NF4, 64, false",
    "5, 7, NF4, 64, true",
    "16, 192, FP4, 128, true",
    "3, 65, FP4, 64, false",
    "40, 64, NF4, 4096, true",
  })
  void linear_fourBit(int rows, int cols, QuantType type, int block, boolean nested) {
    try (Lab lab = lab(rows * 1000L + cols)) {
      QuantizedMatrix stored = lab.quantized(rows, cols, type, block, nested);
      Matrix w = lab.matrix(stored);
      for (int tokens : new int[] {1, 2, 5, 70}) {
        check(lab, w, Lab.values(stored), rows, cols, tokens);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void linear_dense(DType dtype) {
    try (Lab lab = lab(dtype.name().length())) {
      for (int[] shape :
          new int[][] {{1, 1}, {31, 64}, {32, 80}, {17, 112}, {33, 131}, {65, 127}}) {
        DenseMatrix stored = lab.dense(dtype, shape[0], shape[1]);
        Matrix w = lab.matrix(stored);
        for (int tokens : new int[] {1, 3, 70}) {
          check(lab, w, Lab.values(stored), shape[0], shape[1], tokens);
        }
      }
    }
  }

  /** However many tokens there are, each has the bits that it has alone. */
  @ParameterizedTest
  @CsvSource({"33, 192, true", "65, 131, false", "40, 80, true", "31, 64, false"})
  void linear_anyNumberOfTokens(int rows, int cols, boolean fourBit) {
    try (Lab lab = lab(rows + cols)) {
      Matrix w =
          fourBit
              ? lab.matrix(lab.quantized(rows, cols, QuantType.NF4, 64, true))
              : lab.matrix(lab.dense(DType.BF16, rows, cols));
      int most = 70;
      float[] x = lab.floats(most * cols);
      float[] alone = new float[most * rows];
      for (int token = 0; token < most; token++) {
        float[] one = product(lab, w, Lab.rows(x, cols, token, token + 1), 1);
        System.arraycopy(one, 0, alone, token * rows, rows);
      }
      for (int tokens = 2; tokens <= most; tokens++) {
        int first = most - tokens;
        lab.assertSame(
            tokens + " tokens",
            product(lab, w, Lab.rows(x, cols, first, most), tokens),
            Lab.rows(alone, rows, first, most));
      }
    }
  }

  private static float[] product(Lab lab, Matrix w, float[] x, int tokens) {
    Buffer y = lab.buffer(tokens, w.rows());
    lab.backend.linear(
        lab.step(tokens), List.of(new Linear(0, w, null)), lab.buffer(x, w.cols()), List.of(y));
    return lab.read(y);
  }

  /** A row that is not finite stays so, and spoils no other. */
  @ParameterizedTest
  @ValueSource(floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY})
  void linear_notFinite(float wild) {
    try (Lab lab = lab(11)) {
      for (Matrix w :
          List.of(
              lab.matrix(lab.quantized(33, 192, QuantType.NF4, 64, true)),
              lab.matrix(lab.dense(DType.BF16, 33, 131)),
              lab.matrix(lab.dense(DType.F16, 33, 66)))) {
        int cols = w.cols();
        for (int tokens : new int[] {1, 2, 5, 13}) {
          float[] x = lab.floats(tokens * cols);
          float[] tame = product(lab, w, x, tokens);
          int row = tokens / 2;
          x[row * cols + cols - 1] = wild;
          float[] y = product(lab, w, x, tokens);
          for (int i = 0; i < y.length; i++) {
            if (i / 33 == row) {
              assertThat(Float.isFinite(y[i]))
                  .as("%d of %d, seed %d", i, tokens, lab.seed)
                  .isFalse();
            } else {
              assertThat(y[i]).as("%d of %d, seed %d", i, tokens, lab.seed).isEqualTo(tame[i]);
            }
          }
        }
      }
    }
  }

  @Test
  void linear_subnormalsAreNotFlushed() {
    try (Lab lab = lab(12)) {
      Matrix w = lab.matrix(Lab.dense(DType.F32, 1, 2, 1, 0.5f));
      for (int tokens : new int[] {1, 2, 7}) {
        float[] x = new float[2 * tokens];
        Arrays.fill(x, 3 * Float.MIN_VALUE);
        x[1] = 4 * Float.MIN_VALUE;
        assertThat(product(lab, w, x, tokens)[0]).isEqualTo(5 * Float.MIN_VALUE);
      }
    }
  }

  /** Shapes and numbers of a new seed each time; what fails names it. */
  @Test
  void linear_randomShapes() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    try (Lab lab = lab(seed)) {
      for (int i = 0; i < 40; i++) {
        int rows = 1 + random.nextInt(100);
        int tokens = 1 + random.nextInt(70);
        int cols = 1 + random.nextInt(400);
        if (i % 4 == 3) {
          DType dtype = List.of(DType.BF16, DType.F16, DType.F32).get(random.nextInt(3));
          DenseMatrix dense = lab.dense(dtype, rows, cols);
          check(lab, lab.matrix(dense), Lab.values(dense), rows, cols, tokens);
        } else {
          int block = 64 << random.nextInt(2);
          // Every other one has blocks that end with the rows.
          int width = i % 2 == 0 ? (cols + block - 1) / block * block : cols;
          QuantType type = random.nextBoolean() ? QuantType.NF4 : QuantType.FP4;
          QuantizedMatrix stored = lab.quantized(rows, width, type, block, random.nextBoolean());
          check(lab, lab.matrix(stored), Lab.values(stored), rows, width, tokens);
        }
      }
    }
  }

  private static void check(Lab lab, Matrix w, float[] values, int rows, int cols, int tokens) {
    float[] x = lab.floats(tokens * cols);
    Buffer y = lab.buffer(tokens, rows);
    lab.backend.linear(
        lab.step(tokens), List.of(new Linear(0, w, null)), lab.buffer(x, cols), List.of(y));
    double[][] expected = Lab.product(values, rows, cols, x, tokens);
    lab.assertProducts(
        "(%d, %d) x %d".formatted(rows, cols, tokens), lab.read(y), expected[0], expected[1]);
  }

  @Test
  void linear_halfPrecisionExtremes() {
    try (Lab lab = lab(1)) {
      // Subnormal, largest and signed zeros of float16; every value must widen exactly.
      float[] values = {6e-8f, -6e-8f, 6.1e-5f, 65504, -65504, 0, -0.0f, 1 / 3f};
      DenseMatrix stored = Lab.dense(DType.F16, 1, 8, values);
      Matrix w = lab.matrix(stored);
      float[] wide = Lab.values(stored);
      for (int k = 0; k < 8; k++) {
        float[] one = new float[8];
        one[k] = 1;
        Buffer y = lab.buffer(1, 1);
        lab.backend.linear(
            lab.step(1), List.of(new Linear(0, w, null)), lab.buffer(one, 8), List.of(y));
        assertThat(lab.read(y)[0]).isEqualTo(wide[k] + 0f);
      }
    }
  }

  @Test
  void linear_groupSharesItsInput() {
    try (Lab lab = lab(2)) {
      QuantizedMatrix q = lab.quantized(48, 64, QuantType.NF4, 64, true);
      DenseMatrix k = lab.dense(DType.BF16, 17, 64);
      Matrix qw = lab.matrix(q);
      Matrix kw = lab.matrix(k);
      float[] bias = lab.floats(17);
      float[] x = lab.floats(3 * 64);
      Buffer qy = lab.buffer(3, 48);
      Buffer ky = lab.buffer(5, 17);
      lab.backend.linear(
          lab.step(3),
          List.of(new Linear(0, qw, null), new Linear(1, kw, lab.buffer(bias, 17))),
          lab.buffer(x, 64),
          List.of(qy, ky));
      double[][] expectedQ = Lab.product(Lab.values(q), 48, 64, x, 3);
      lab.assertProducts("q", lab.read(qy), expectedQ[0], expectedQ[1]);
      double[][] expectedK = Lab.product(Lab.values(k), 17, 64, x, 3);
      for (int i = 0; i < 51; i++) {
        expectedK[0][i] += bias[i % 17];
        expectedK[1][i] += Math.abs(bias[i % 17]);
      }
      lab.assertProducts("k", lab.backend.read(ky, 0, 3), expectedK[0], expectedK[1]);
      assertThat(lab.backend.read(ky, 3, 2)).containsOnly(0);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 4, 7, 8, 16, 24, 37, 64, 256})
  void linear_lora(int rank) {
    try (Lab lab = lab(rank)) {
      for (DType dtype : new DType[] {DType.F32, DType.F16, DType.BF16}) {
        for (int[] shape : new int[][] {{33, 80}, {128, 64}, {5, 200}}) {
          int out = shape[0];
          int in = shape[1];
          DenseMatrix base = lab.dense(DType.F32, out, in);
          Matrix w = lab.matrix(base);
          DenseMatrix a = lab.dense(dtype, rank, in);
          DenseMatrix b = lab.dense(dtype, out, rank);
          Lora lora = lab.lora(Map.of(7, Lab.lowRank(a, b, 1.5f)), Map.of(7, w));
          int tokens = 6;
          float[] x = lab.floats(tokens * in);
          Buffer y = lab.buffer(tokens, out);
          lab.backend.linear(
              lab.step(tokens, segment(0, 1, null), segment(1, 6, lora)),
              List.of(new Linear(7, w, null)),
              lab.buffer(x, in),
              List.of(y));
          double[][] expected = Lab.product(Lab.values(base), out, in, x, tokens);
          addLowRank(expected, a, b, 1.5, x, 1, 6, null);
          lab.assertProducts(
              "r %d %s".formatted(rank, dtype), lab.read(y), expected[0], expected[1]);
        }
      }
    }
  }

  private static void addLowRank(
      double[][] y,
      DenseMatrix a,
      DenseMatrix b,
      double scale,
      float[] x,
      int from,
      int to,
      float @Nullable [] loraBias) {
    int out = b.rows();
    int rank = b.cols();
    int in = a.cols();
    float[] factorB = Lab.values(b);
    double[][] t = Lab.product(Lab.values(a), rank, in, x, x.length / in);
    for (int token = from; token < to; token++) {
      for (int o = 0; o < out; o++) {
        for (int j = 0; j < rank; j++) {
          y[0][token * out + o] += scale * factorB[o * rank + j] * t[0][token * rank + j];
          y[1][token * out + o] += Math.abs(scale * factorB[o * rank + j]) * t[1][token * rank + j];
        }
        if (loraBias != null) {
          y[0][token * out + o] += scale * loraBias[o];
          y[1][token * out + o] += Math.abs(scale * loraBias[o]);
        }
      }
    }
  }

  @Test
  void linear_loraBiasIsScaled() {
    try (Lab lab = lab(3)) {
      DenseMatrix base = lab.dense(DType.BF16, 20, 64);
      Matrix w = lab.matrix(base);
      DenseMatrix a = lab.dense(DType.F32, 4, 64);
      DenseMatrix b = lab.dense(DType.F32, 20, 4);
      float[] loraBias = lab.floats(20);
      float[] bias = lab.floats(20);
      Delta delta = new Delta(new Delta.LowRank(a, b), 4, null, loraBias, null, null);
      Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
      float[] x = lab.floats(64);
      Buffer y = lab.buffer(1, 20);
      lab.backend.linear(
          lab.step(1, segment(0, 1, lora)),
          List.of(new Linear(0, w, lab.buffer(bias, 20))),
          lab.buffer(x, 64),
          List.of(y));
      double[][] expected = Lab.product(Lab.values(base), 20, 64, x, 1);
      addLowRank(expected, a, b, 4, x, 0, 1, loraBias);
      for (int o = 0; o < 20; o++) {
        expected[0][o] += bias[o];
        expected[1][o] += Math.abs(bias[o]);
      }
      lab.assertProducts("y", lab.read(y), expected[0], expected[1]);
    }
  }

  @ParameterizedTest
  @CsvSource({"33, 64, 64", "20, 80, 64", "16, 128, 128"})
  void linear_doraOverFourBit(int out, int in, int block) {
    try (Lab lab = lab(out)) {
      QuantizedMatrix base = lab.quantized(out, in, QuantType.NF4, block, true);
      Matrix w = lab.matrix(base);
      DenseMatrix a = lab.dense(DType.BF16, 8, in);
      DenseMatrix b = lab.dense(DType.BF16, out, 8);
      float[] magnitude = lab.floats(out);
      float[] bias = lab.floats(out);
      Delta delta = new Delta(new Delta.LowRank(a, b), 2, magnitude, null, bias, null);
      Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
      float[] x = lab.floats(2 * in);
      Buffer y = lab.buffer(2, out);
      lab.backend.linear(
          lab.step(2, segment(0, 2, lora)),
          List.of(new Linear(0, w, lab.buffer(lab.floats(out), out))),
          lab.buffer(x, in),
          List.of(y));
      double[][] expected = Lab.product(Lab.values(base), out, in, x, 2);
      addLowRank(expected, a, b, 2, x, 0, 2, null);
      float[] wide = Lab.values(base);
      float[] wideA = Lab.values(a);
      float[] wideB = Lab.values(b);
      for (int o = 0; o < out; o++) {
        double square = 0;
        for (int k = 0; k < in; k++) {
          double element = wide[o * in + k];
          for (int j = 0; j < 8; j++) {
            element += 2.0 * wideB[o * 8 + j] * wideA[j * in + k];
          }
          square += element * element;
        }
        double gain = magnitude[o] / Math.sqrt(square);
        for (int t = 0; t < 2; t++) {
          int i = t * out + o;
          expected[0][i] = gain * expected[0][i] + bias[o];
          expected[1][i] = 2 * Math.abs(gain) * expected[1][i] + Math.abs(bias[o]);
        }
      }
      lab.assertProducts("y", lab.read(y), expected[0], expected[1]);
    }
  }

  @Test
  void linear_mixedBatchInOneCall() {
    try (Lab lab = lab(5)) {
      QuantizedMatrix base = lab.quantized(40, 64, QuantType.NF4, 64, true);
      Matrix w = lab.matrix(base);
      float[] bias = lab.floats(40);
      Linear linear = new Linear(3, w, lab.buffer(bias, 40));
      DenseMatrix a = lab.dense(DType.BF16, 4, 64);
      DenseMatrix b = lab.dense(DType.BF16, 40, 4);
      DenseMatrix replacement = lab.dense(DType.F16, 40, 64);
      float[] newBias = lab.floats(40);
      Lora low = lab.lora(Map.of(3, Lab.lowRank(a, b, 2)), Map.of(3, w));
      Lora other = lab.lora(Map.of(1, Lab.bias(lab.floats(3))), Map.of());
      Lora biased = lab.lora(Map.of(3, Lab.bias(newBias)), Map.of());
      Lora replaced = lab.lora(Map.of(3, Lab.weight(replacement)), Map.of());

      int tokens = 9;
      float[] x = lab.floats(tokens * 64);
      Buffer y = lab.buffer(tokens, 40);
      lab.backend.linear(
          lab.step(
              tokens,
              segment(0, 2, null),
              segment(2, 4, low),
              segment(4, 5, replaced),
              segment(5, 6, other),
              segment(6, 8, biased),
              segment(8, 9, null)),
          List.of(linear),
          lab.buffer(x, 64),
          List.of(y));

      double[][] expected = Lab.product(Lab.values(base), 40, 64, x, tokens);
      double[][] full = Lab.product(Lab.values(replacement), 40, 64, x, tokens);
      System.arraycopy(full[0], 4 * 40, expected[0], 4 * 40, 40);
      System.arraycopy(full[1], 4 * 40, expected[1], 4 * 40, 40);
      addLowRank(expected, a, b, 2, x, 2, 4, null);
      for (int t = 0; t < tokens; t++) {
        for (int o = 0; o < 40; o++) {
          expected[0][t * 40 + o] += t == 6 || t == 7 ? newBias[o] : bias[o];
        }
      }
      lab.assertProducts("y", lab.read(y), expected[0], expected[1]);
    }
  }

  /**
   * Adapters of any rank and type in one batch: each row is right, the same alone as in the batch,
   * and as if there were no adapters where it has none.
   */
  @RepeatedTest(3)
  void linear_mixedAdapters() {
    try (Lab lab = lab(new SplittableRandom().nextLong())) {
      int in = 1 + lab.below(150);
      int[] outs = {1 + lab.below(150), 1 + lab.below(40)};
      List<DenseMatrix> stored = new ArrayList<>();
      List<Linear> linears = new ArrayList<>();
      Map<Integer, Matrix> base = new HashMap<>();
      for (int i = 0; i < outs.length; i++) {
        stored.add(lab.dense(DType.F32, outs[i], in));
        Matrix w = lab.matrix(stored.get(i));
        base.put(i, w);
        linears.add(new Linear(i, w, null));
      }
      DType[] dtypes = {DType.BF16, DType.F16, DType.F32};
      List<Batch.Segment> segments = new ArrayList<>();
      List<Map<Integer, Delta>> deltas = new ArrayList<>();
      int tokens = 0;
      for (int i = 0; i < 14; i++) {
        int count = lab.below(3) == 0 ? 1 + lab.below(9) : 1;
        Map<Integer, Delta> delta = new HashMap<>();
        for (int module = 0; module < outs.length && lab.below(4) > 0; module++) {
          DType dtype = dtypes[lab.below(3)];
          int rank = lab.below(2) == 0 ? 8 * (1 + lab.below(4)) : 1 + lab.below(40);
          delta.put(
              module,
              Lab.lowRank(lab.dense(dtype, rank, in), lab.dense(dtype, outs[module], rank), 1.25f));
        }
        Lora lora = delta.isEmpty() ? null : lab.lora(delta, base);
        segments.add(segment(tokens, tokens + count, lora));
        deltas.add(delta);
        tokens += count;
      }
      float[] x = lab.floats(tokens * in);
      float[][] together = project(lab, linears, x, tokens, segments.toArray(Batch.Segment[]::new));
      float[][] without = project(lab, linears, x, tokens, segment(0, tokens, null));

      for (int module = 0; module < outs.length; module++) {
        int out = outs[module];
        double[][] expected = Lab.product(Lab.values(stored.get(module)), out, in, x, tokens);
        for (int i = 0; i < segments.size(); i++) {
          Batch.Segment segment = segments.get(i);
          Delta delta = deltas.get(i).get(module);
          if (delta == null) {
            lab.assertSame(
                "without delta, segment " + i,
                Lab.rows(together[module], out, segment.from(), segment.to()),
                Lab.rows(without[module], out, segment.from(), segment.to()));
          } else {
            Delta.LowRank factors = delta.lowRank();
            addLowRank(
                expected, factors.a(), factors.b(), 1.25, x, segment.from(), segment.to(), null);
          }
        }
        lab.assertProducts("module " + module, together[module], expected[0], expected[1]);
      }
      for (Batch.Segment segment : segments) {
        for (int row = segment.from(); row < segment.to(); row++) {
          float[] one = Lab.rows(x, in, row, row + 1);
          float[][] alone = project(lab, linears, one, 1, segment(0, 1, segment.lora()));
          for (int module = 0; module < outs.length; module++) {
            lab.assertSame(
                "row " + row,
                alone[module],
                Lab.rows(together[module], outs[module], row, row + 1));
          }
        }
      }
    }
  }

  private static float[][] project(
      Lab lab, List<Linear> linears, float[] x, int tokens, Batch.Segment... segments) {
    List<Buffer> outs = new ArrayList<>();
    for (Linear linear : linears) {
      outs.add(lab.buffer(tokens, linear.weight().rows()));
    }
    Buffer input = lab.buffer(x, x.length / tokens);
    lab.backend.linear(lab.step(tokens, segments), linears, input, outs);
    float[][] results = new float[outs.size()][];
    for (int i = 0; i < results.length; i++) {
      results[i] = lab.read(outs.get(i));
    }
    return results;
  }

  /** A row's bits are the same alone as among any others. */
  @ParameterizedTest
  @CsvSource({"64, 64", "80, 64", "256, 128"})
  void linear_batchInvariance(int in, int block) {
    try (Lab lab = lab(in)) {
      int out = 50;
      Matrix w = lab.matrix(lab.quantized(out, in, QuantType.NF4, block, true));
      Matrix head = lab.matrix(lab.dense(DType.BF16, out, in));
      Lora[] loras = new Lora[4];
      for (int i = 1; i < loras.length; i++) {
        loras[i] =
            lab.lora(
                Map.of(
                    0,
                    Lab.lowRank(
                        lab.dense(DType.BF16, 3 * i, in), lab.dense(DType.BF16, out, 3 * i), 2)),
                Map.of(0, w));
      }
      List<Linear> linears = List.of(new Linear(0, w, null), new Linear(1, head, null));
      int tokens = 67;
      float[] x = lab.floats(tokens * in);
      int[] cuts = {0, 3, 4, 30, 67};
      Batch.Segment[] segments = new Batch.Segment[4];
      for (int i = 0; i < 4; i++) {
        segments[i] = segment(cuts[i], cuts[i + 1], loras[i]);
      }
      Buffer y = lab.buffer(tokens, out);
      Buffer z = lab.buffer(tokens, out);
      lab.backend.linear(lab.step(tokens, segments), linears, lab.buffer(x, in), List.of(y, z));
      float[] all = lab.read(y);
      float[] allDense = lab.read(z);
      Buffer one = lab.buffer(1, out);
      Buffer oneDense = lab.buffer(1, out);
      for (int i = 0; i < 4; i++) {
        for (int row = cuts[i]; row < cuts[i + 1]; row++) {
          lab.backend.linear(
              lab.step(1, segment(0, 1, loras[i])),
              linears,
              lab.buffer(Lab.rows(x, in, row, row + 1), in),
              List.of(one, oneDense));
          lab.assertSame("row " + row, lab.read(one), Lab.rows(all, out, row, row + 1));
          lab.assertSame(
              "dense row " + row, lab.read(oneDense), Lab.rows(allDense, out, row, row + 1));
        }
      }
    }
  }

  @Test
  void logits_ofChosenRows() {
    try (Lab lab = lab(6)) {
      DenseMatrix table = lab.dense(DType.BF16, 50, 64);
      Matrix w = lab.matrix(table);
      DenseMatrix a = lab.dense(DType.F32, 2, 64);
      DenseMatrix b = lab.dense(DType.F32, 50, 2);
      Lora lora = lab.lora(Map.of(9, Lab.lowRank(a, b, 1)), Map.of(9, w));
      float[] x = lab.floats(5 * 64);
      Step step =
          lab.keep(
              lab.backend.step(
                  new Batch(
                      new int[5],
                      List.of(
                          new Batch.Run(0, 3, 0, new int[] {0}),
                          new Batch.Run(3, 5, 0, new int[] {1})),
                      List.of(segment(0, 3, null), segment(3, 5, lora)),
                      new int[] {0, 2, 4})));
      double[][] expected = Lab.product(Lab.values(table), 50, 64, x, 5);
      addLowRank(expected, a, b, 1, x, 3, 5, null);
      Linear head = new Linear(9, w, null);
      Buffer logits = lab.buffer(2, 50);
      lab.backend.logits(step, head, lab.buffer(x, 64), 1, 3, logits);
      float[] both = lab.read(logits);
      for (int i = 0; i < 2; i++) {
        int row = i == 0 ? 2 : 4;
        lab.assertProducts(
            "row " + row,
            Lab.rows(both, 50, i, i + 1),
            Arrays.copyOfRange(expected[0], row * 50, row * 50 + 50),
            Arrays.copyOfRange(expected[1], row * 50, row * 50 + 50));
      }
      Buffer first = lab.buffer(1, 50);
      lab.backend.logits(step, head, lab.buffer(x, 64), 0, 1, first);
      Buffer one = lab.buffer(1, 50);
      lab.backend.linear(
          lab.step(1), List.of(head), lab.buffer(Lab.rows(x, 64, 0, 1), 64), List.of(one));
      lab.assertSame("alone", lab.read(first), lab.read(one));
    }
  }

  @Test
  void linear_shapesThatDoNotFit() {
    try (Lab lab = lab(7)) {
      Matrix w = lab.matrix(lab.dense(DType.F32, 8, 4));
      List<Linear> linears = List.of(new Linear(0, w, null));
      Step step = lab.step(2);
      Buffer x = lab.buffer(2, 4);
      Buffer y = lab.buffer(2, 8);
      assertThatThrownBy(() -> lab.backend.linear(step, linears, lab.buffer(2, 5), List.of(y)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("4");
      assertThatThrownBy(() -> lab.backend.linear(step, linears, lab.buffer(1, 4), List.of(y)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.backend.linear(step, linears, x, List.of(lab.buffer(2, 9))))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.backend.linear(step, linears, x, List.of()))
          .isInstanceOf(IllegalArgumentException.class);
      Lora wrong = lab.lora(Map.of(0, Lab.weight(lab.dense(DType.F32, 8, 5))), Map.of(0, w));
      assertThatThrownBy(
              () -> lab.backend.linear(lab.step(2, segment(0, 2, wrong)), linears, x, List.of(y)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("(8, 5)");
    }
  }

  @Test
  void lora_thatDoesNotFitLeavesNothing() {
    try (Lab lab = lab(8)) {
      Matrix w = lab.matrix(lab.dense(DType.F32, 8, 4));
      DenseMatrix a = lab.dense(DType.F32, 2, 4);
      DenseMatrix b = lab.dense(DType.F32, 8, 2);
      Map<Integer, Matrix> base = Map.of(0, w);
      for (Delta bad :
          List.of(
              Lab.lowRank(a, lab.dense(DType.F32, 8, 3), 1),
              Lab.lowRank(lab.dense(DType.F32, 2, 5), b, 1),
              Lab.lowRank(a, lab.dense(DType.F32, 9, 2), 1),
              new Delta(new Delta.LowRank(a, b), 1, new float[7], null, null, null),
              new Delta(new Delta.LowRank(a, b), 1, new float[8], new float[8], null, null),
              new Delta(new Delta.LowRank(a, b), 1, null, new float[9], null, null),
              new Delta(null, 1, new float[8], null, null, null))) {
        assertThatThrownBy(() -> lab.lora(Map.of(0, bad), base))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("module 0");
      }
      // A zero row has no direction, so DoRA cannot give it a magnitude.
      Matrix zeros = lab.matrix(Lab.dense(DType.F32, 8, 4, new float[32]));
      Delta dora =
          new Delta(
              new Delta.LowRank(a, Lab.dense(DType.F32, 8, 2, new float[16])),
              1,
              lab.floats(8),
              null,
              null,
              null);
      assertThatThrownBy(() -> lab.lora(Map.of(0, dora), Map.of(0, zeros)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("norm");
    }
  }

  static Batch.Segment segment(int from, int to, @Nullable Lora lora) {
    return new Batch.Segment(from, to, lora);
  }
}
