package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cuda.Projections.Tiling;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Projections of every division of the work, against sums over what is multiplied, and packing. */
final class CudaProjectionsTest {

  /** The kernels multiply bf16: against these numbers they are as exact as float32 sums are. */
  @ParameterizedTest
  @CsvSource({
    "NF4, 64, true, 16, 64",
    "NF4, 64, true, 33, 192",
    "NF4, 64, false, 50, 320",
    "FP4, 64, true, 31, 128",
    "NF4, 128, true, 17, 1152",
    "NF4, 256, false, 40, 1280",
    "NF4, 64, true, 530, 576",
  })
  void linear_fourBitOfEveryDivision(QuantType type, int block, boolean nested, int out, int in) {
    try (Lab lab = Labs.cuda(out)) {
      QuantizedMatrix stored = lab.quantized(out, in, type, block, nested);
      float[] codes = rounded(stored.codebook());
      float[] values = new float[out * in];
      for (int i = 0; i < values.length; i++) {
        values[i] = codes[stored.code(i)] * stored.absmax(i / block);
      }
      check(lab, lab.matrix(stored), values);
    }
  }

  @ParameterizedTest
  @CsvSource({"16, 64", "33, 192", "17, 1152", "530, 576"})
  void linear_denseOfEveryDivision(int out, int in) {
    try (Lab lab = Labs.cuda(out)) {
      DenseMatrix stored = lab.dense(DType.BF16, out, in);
      check(lab, lab.matrix(stored), Lab.values(stored));
    }
  }

  private static void check(Lab lab, Matrix w, float[] values) {
    int most = 70;
    float[] x = lab.floats(most * w.cols());
    double[][] expected = Lab.product(values, w.rows(), w.cols(), rounded(x), most);
    float[] all = null;
    for (Tiling tiling : Tiling.values()) {
      ((CudaBackend) lab.backend).projections().divideBy(tiling);
      for (int tokens : new int[] {70, 1, 2, 7, 8, 9, 16, 17, 33}) {
        float[] y = product(lab, w, Lab.rows(x, w.cols(), most - tokens, most));
        if (all == null) {
          all = y;
          lab.assertClose(tiling.name(), y, expected[0], expected[1]);
        }
        lab.assertSame(
            "%s, %d tokens".formatted(tiling, tokens),
            y,
            Lab.rows(all, w.rows(), most - tokens, most));
      }
    }
    ((CudaBackend) lab.backend).projections().divideBy(null);
  }

  private static float[] product(Lab lab, Matrix w, float[] x, Batch.Segment... segments) {
    int tokens = x.length / w.cols();
    try (Buffer y = lab.backend.buffer(tokens, w.rows());
        Buffer input = lab.backend.buffer(tokens, w.cols());
        Step step = segments.length == 0 ? lab.step(tokens) : lab.step(tokens, segments)) {
      lab.backend.write(input, 0, x);
      lab.backend.linear(step, List.of(new Linear(0, w, null)), input, List.of(y));
      return lab.read(y);
    }
  }

  private static float[] rounded(float[] values) {
    MemorySegment narrow = MemorySegment.ofArray(new byte[2 * values.length]);
    DType.BF16.narrow(values, 0, values.length, narrow, 0);
    float[] wide = new float[values.length];
    DType.BF16.widen(narrow, 0, wide, 0, wide.length);
    return wide;
  }

  /** More tokens than are projected at once, some of them with an adapter. */
  @Test
  void linear_moreThanOnePass() {
    try (Lab lab = Labs.cuda(4)) {
      int tokens = 1061;
      Matrix w = lab.matrix(lab.quantized(20, 64, QuantType.NF4, 64, true));
      Delta delta = Lab.lowRank(lab.dense(DType.BF16, 3, 64), lab.dense(DType.BF16, 20, 3), 1);
      Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
      float[] x = lab.floats(tokens * 64);
      float[] all =
          product(
              lab, w, x, new Batch.Segment(0, 1000, null), new Batch.Segment(1000, tokens, lora));
      for (int row : new int[] {0, 999, 1000, 1023, 1024, 1030, 1060}) {
        lab.assertSame(
            "row " + row,
            product(
                lab,
                w,
                Lab.rows(x, 64, row, row + 1),
                new Batch.Segment(0, 1, row < 1000 ? null : lora)),
            Lab.rows(all, 20, row, row + 1));
      }
    }
  }

  /** Many adapters of ranks 1 to 256 side by side: each row is right, and the same as alone. */
  @Test
  void linear_manyAdaptersInOneBatch() {
    try (Lab lab = Labs.cuda(6)) {
      int in = 192;
      int[] outs = {40, 24, 17};
      DType[] dtypes = {DType.BF16, DType.F16, DType.F32};
      int adapters = 32;
      List<DenseMatrix> stored = new ArrayList<>();
      List<Linear> linears = new ArrayList<>();
      Map<Integer, Matrix> base = new HashMap<>();
      for (int i = 0; i < outs.length; i++) {
        stored.add(lab.dense(DType.F32, outs[i], in));
        base.put(i, lab.matrix(stored.get(i)));
        linears.add(new Linear(i, lab.matrix(stored.get(i)), null));
      }
      List<Map<Integer, Delta>> deltas = new ArrayList<>();
      List<Lora> loras = new ArrayList<>();
      Batch.Segment[] segments = new Batch.Segment[adapters];
      for (int i = 0; i < adapters; i++) {
        int rank = i == 0 ? 256 : i == 1 ? 1 : 1 + lab.below(72);
        Map<Integer, Delta> delta = new HashMap<>();
        for (int module = 0; module < outs.length; module++) {
          if (lab.below(4) > 0) {
            DType dtype = dtypes[lab.below(3)];
            delta.put(
                module,
                Lab.lowRank(
                    lab.dense(dtype, rank, in), lab.dense(dtype, outs[module], rank), 0.5f));
          }
        }
        deltas.add(delta);
        loras.add(lab.lora(delta, base));
        segments[i] = new Batch.Segment(i, i + 1, loras.get(i));
      }
      float[] x = lab.floats(adapters * in);
      float[][] together = project(lab, linears, x, segments);
      for (int module = 0; module < outs.length; module++) {
        int out = outs[module];
        double[][] expected = Lab.product(Lab.values(stored.get(module)), out, in, x, adapters);
        for (int row = 0; row < adapters; row++) {
          Delta delta = deltas.get(row).get(module);
          if (delta != null) {
            Delta.LowRank factors = delta.lowRank();
            int rank = factors.rank();
            double[][] t =
                Lab.product(Lab.values(factors.a()), rank, in, Lab.rows(x, in, row, row + 1), 1);
            float[] b = Lab.values(factors.b());
            for (int o = 0; o < out; o++) {
              for (int j = 0; j < rank; j++) {
                expected[0][row * out + o] += 0.5 * b[o * rank + j] * t[0][j];
                expected[1][row * out + o] += Math.abs(0.5 * b[o * rank + j]) * t[1][j];
              }
            }
          }
        }
        // Nothing here is rounded to bf16.
        lab.assertClose("module " + module, together[module], expected[0], expected[1]);
      }
      for (int row : new int[] {0, 1, 13, 31}) {
        float[][] alone =
            project(
                lab,
                linears,
                Lab.rows(x, in, row, row + 1),
                new Batch.Segment(0, 1, loras.get(row)));
        for (int module = 0; module < outs.length; module++) {
          lab.assertSame(
              "row " + row, alone[module], Lab.rows(together[module], outs[module], row, row + 1));
        }
      }
    }
  }

  private static float[][] project(
      Lab lab, List<Linear> linears, float[] x, Batch.Segment... segments) {
    int in = linears.getFirst().weight().cols();
    int tokens = x.length / in;
    List<Buffer> outs = new ArrayList<>();
    for (Linear linear : linears) {
      outs.add(lab.buffer(tokens, linear.weight().rows()));
    }
    lab.backend.linear(lab.step(tokens, segments), linears, lab.buffer(x, in), outs);
    return outs.stream().map(lab::read).toArray(float[][]::new);
  }

  /** Steps of the same sizes are replayed, whatever rows and adapters they have. */
  @Test
  void linear_replayed() {
    try (Lab lab = Labs.cuda(7)) {
      CudaBackend backend = (CudaBackend) lab.backend;
      Matrix w = lab.matrix(lab.quantized(48, 128, QuantType.NF4, 64, true));
      Matrix head = lab.matrix(lab.dense(DType.BF16, 70, 128));
      Lora[] loras = new Lora[3];
      for (int i = 0; i < loras.length; i++) {
        Delta delta =
            Lab.lowRank(lab.dense(DType.BF16, 5 + i, 128), lab.dense(DType.BF16, 48, 5 + i), 1);
        loras[i] = lab.lora(Map.of(0, delta), Map.of(0, w));
      }
      Buffer input = lab.buffer(8, 128);
      Buffer y = lab.buffer(8, 48);
      Buffer logits = lab.buffer(8, 70);
      for (int round = 0; round < 6; round++) {
        int tokens = 5 + round % 3;
        int cut = 1 + round % 4;
        float[] x = lab.floats(tokens * 128);
        lab.backend.write(input, 0, x);
        Lora first = loras[round % 3];
        Lora second = loras[(round + 1) % 3];
        try (Step step =
            lab.step(
                tokens, new Batch.Segment(0, cut, first), new Batch.Segment(cut, tokens, second))) {
          lab.backend.linear(step, List.of(new Linear(0, w, null)), input, List.of(y));
          lab.backend.logits(step, new Linear(1, head, null), input, 0, tokens, logits);
        }
        float[] all = lab.backend.read(y, 0, tokens);
        float[] scores = lab.backend.read(logits, 0, tokens);
        for (int row = 0; row < tokens; row++) {
          float[] one = Lab.rows(x, 128, row, row + 1);
          Batch.Segment segment = new Batch.Segment(0, 1, row < cut ? first : second);
          lab.assertSame(
              "row " + row, product(lab, w, one, segment), Lab.rows(all, 48, row, row + 1));
          lab.assertSame("row " + row, product(lab, head, one), Lab.rows(scores, 70, row, row + 1));
        }
      }
      assertThat(backend.replays()).isPositive();
    }
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, 64, true",
    "NF4, 16, 64, 64, false",
    "FP4, 5, 256, 128, true",
    "NF4, 7, 100, 64, true",
    "FP4, 19, 37, 64, false",
    "NF4, 600, 64, 64, true",
  })
  void stored_fourBit(QuantType type, int rows, int cols, int block, boolean nested) {
    try (Lab lab = Labs.cuda(rows)) {
      checkStored(lab, lab.matrix(lab.quantized(rows, cols, type, block, nested)));
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"F32", "F16", "BF16"})
  void stored_dense(DType dtype) {
    try (Lab lab = Labs.cuda(9)) {
      checkStored(lab, lab.matrix(lab.dense(dtype, 35, 64)));
    }
  }

  private static void checkStored(Lab lab, Matrix matrix) {
    CudaBackend backend = (CudaBackend) lab.backend;
    PackedMatrix packed = matrix.stored();
    float[] x = lab.floats(3 * matrix.cols());
    long before = backend.liveBytes();
    try (Matrix again = backend.matrix(packed)) {
      assertThat(backend.liveBytes() - before).isEqualTo(matrix.footprint().total());
      assertThat(again.footprint()).isEqualTo(matrix.footprint());
      lab.assertSame("made again", product(lab, again, x), product(lab, matrix, x));
      assertThat(again.stored().form().mismatch(packed.form())).isEqualTo(-1);
    }
    for (int i = 0; i < packed.parts().size(); i++) {
      List<MemorySegment> cut = new ArrayList<>(packed.parts());
      cut.set(i, cut.get(i).asSlice(0, cut.get(i).byteSize() - 1));
      refused(backend, new PackedMatrix(packed.form(), cut));
      refused(backend, new PackedMatrix(packed.form(), packed.parts().subList(0, i)));
    }
    for (long length = 0; length < packed.form().byteSize(); length++) {
      refused(backend, new PackedMatrix(packed.form().asSlice(0, length), packed.parts()));
    }
  }

  private static void refused(CudaBackend backend, PackedMatrix packed) {
    long before = backend.liveBytes();
    assertThatThrownBy(() -> backend.matrix(packed))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("packed matrix");
    assertThat(backend.liveBytes()).isEqualTo(before);
  }

  /** Wherever the device's memory ends, what was begun leaves nothing. */
  @Test
  void load_outOfMemory() {
    try (Lab lab = Labs.cuda(10)) {
      CudaBackend backend = (CudaBackend) lab.backend;
      QuantizedMatrix stored = lab.quantized(512, 1024, QuantType.NF4, 64, true);
      Emulator emulator = Emulator.load();
      emulator.budget(emulator.liveBytes() + 100_000);
      assertThatThrownBy(() -> lab.matrix(stored))
          .isInstanceOf(OutOfMemoryException.class)
          .hasMessageContaining("NF4 matrix (512, 1024)");
      assertThat(backend.liveBytes()).isZero();
      emulator.budget(1L << 30);
      Matrix w = lab.matrix(stored);
      Delta delta = Lab.lowRank(lab.dense(DType.BF16, 64, 1024), lab.dense(DType.BF16, 512, 64), 1);
      long before = backend.liveBytes();
      emulator.budget(emulator.liveBytes() + 100_000);
      assertThatThrownBy(() -> lab.lora(Map.of(0, delta), Map.of(0, w)))
          .isInstanceOf(OutOfMemoryException.class)
          .hasMessageContaining("adapter");
      assertThat(backend.liveBytes()).isEqualTo(before);
      emulator.budget(1L << 30);
      float[] x = new float[1024];
      Arrays.fill(x, 1);
      lab.lora(Map.of(0, delta), Map.of(0, w));
      assertThat(product(lab, w, x)).doesNotContain(Float.NaN);
    }
  }
}
