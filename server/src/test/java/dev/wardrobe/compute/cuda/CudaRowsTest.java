package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.RowsContract;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The contract, and where the device's bits are the CPU's. */
final class CudaRowsTest extends RowsContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }

  private static Lab cpu(long seed) {
    return new Lab(new CpuBackend(1), open -> ((CpuBackend) open).liveBytes(), seed);
  }

  /** A 4-bit table by tiles, and one whose blocks end anywhere. */
  @ParameterizedTest
  @CsvSource({
    "128, 64, NF4, true",
    "128, 64, NF4, false",
    "40, 64, NF4, true",
    "64, 64, FP4, false"
  })
  void embed_fourBitRows(int width, int block, QuantType type, boolean nested) {
    try (Lab lab = lab(1)) {
      QuantizedMatrix table = lab.quantized(35, width, type, block, nested);
      int[] tokens = {34, 0, 17, 8, 9};
      Buffer out = lab.buffer(tokens.length, width);
      Step step = lab.step(tokens, new Batch.Segment(0, tokens.length, null));
      lab.backend.embed(step, 0, lab.matrix(table), out);
      float[] actual = lab.read(out);
      for (int i = 0; i < tokens.length; i++) {
        lab.assertSame(
            "row " + i,
            Lab.rows(actual, width, i, i + 1),
            Lab.rows(Lab.values(table), width, tokens[i], tokens[i] + 1));
      }
    }
  }

  @Test
  void embed_mixAsOnTheCpu() {
    try (Lab lab = lab(2);
        Lab cpu = cpu(2)) {
      lab.assertSame("mix", mix(lab), mix(cpu));
    }
  }

  /** Rows of two adapters at once, between rows of the base and of a replaced table. */
  private static float[] mix(Lab lab) {
    Matrix table = lab.matrix(lab.dense(DType.F16, 50, 300));
    Map<Integer, Matrix> base = Map.of(1, table);
    Lora first =
        lab.lora(
            Map.of(1, Lab.lowRank(lab.dense(DType.BF16, 5, 50), lab.dense(DType.F16, 300, 5), 2)),
            base);
    Lora second =
        lab.lora(
            Map.of(1, Lab.lowRank(lab.dense(DType.F32, 2, 50), lab.dense(DType.F32, 300, 2), 0.3f)),
            base);
    Lora replaced = lab.lora(Map.of(1, Lab.weight(lab.dense(DType.BF16, 50, 300))), base);
    Buffer out = lab.buffer(6, 300);
    lab.backend.embed(
        lab.step(
            new int[] {3, 49, 49, 7, 3, 3},
            new Batch.Segment(0, 1, null),
            new Batch.Segment(1, 3, first, 0.7f),
            new Batch.Segment(1, 3, second, -2),
            new Batch.Segment(3, 4, replaced),
            new Batch.Segment(4, 6, second)),
        1,
        table,
        out);
    return lab.read(out);
  }

  @Test
  void activate_asOnTheCpu() {
    try (Lab lab = lab(3);
        Lab cpu = cpu(3)) {
      lab.assertSame("silu", activated(lab), activated(cpu));
    }
  }

  private static float[] activated(Lab lab) {
    float[] gate = lab.floats(2 * 517, 30);
    gate[5] = Float.NaN;
    gate[6] = Float.POSITIVE_INFINITY;
    Buffer out = lab.buffer(2, 517);
    Buffer up = lab.buffer(lab.floats(2 * 517), 517);
    lab.backend.activate(lab.step(2), lab.buffer(gate, 517), up, out);
    float[] values = lab.read(out);
    values[5] = Float.isNaN(values[5]) ? Float.NaN : 0;
    return values;
  }

  /** A row alone has the bits that it has among others, whatever the order of threads. */
  @ParameterizedTest
  @ValueSource(ints = {7, 256, 300, 1030})
  void norm_rowsByThemselves(int width) {
    try (Lab lab = lab(width)) {
      int rows = 5;
      float[] residual = lab.floats(rows * width);
      float[] x = lab.floats(rows * width);
      Buffer weight = lab.buffer(lab.floats(width), width);
      Buffer out = lab.buffer(rows, width);
      lab.backend.norm(
          lab.step(rows), 0, lab.buffer(residual, width), lab.buffer(x, width), weight, 1e-5f, out);
      float[] together = lab.read(out);
      for (int seed = 1; seed <= 20; seed++) {
        Emulator.load().seed(seed);
        int row = seed % rows;
        lab.backend.norm(
            lab.step(1),
            0,
            lab.buffer(Lab.rows(residual, width, row, row + 1), width),
            lab.buffer(Lab.rows(x, width, row, row + 1), width),
            weight,
            1e-5f,
            out);
        lab.assertSame(
            "row " + row, lab.backend.read(out, 0, 1), Lab.rows(together, width, row, row + 1));
      }
    }
  }

  @Test
  void normHeads_manyHeadsWithReplacedWeight() {
    try (Lab lab = lab(4)) {
      float[] x = lab.floats(2 * 11 * 48);
      float[] other = lab.floats(48);
      Lora lora = lab.lora(Map.of(3, Lab.weight(Lab.dense(DType.F32, 1, 48, other))), Map.of());
      Buffer heads = lab.buffer(x, 11 * 48);
      Buffer each = lab.buffer(x, 48);
      Buffer weight = lab.buffer(lab.floats(48), 48);
      lab.backend.normHeads(
          lab.step(2, new Batch.Segment(0, 1, null), new Batch.Segment(1, 2, lora)),
          3,
          heads,
          48,
          weight,
          1e-6f);
      lab.backend.normHeads(
          lab.step(22, new Batch.Segment(0, 11, null), new Batch.Segment(11, 22, lora)),
          3,
          each,
          48,
          weight,
          1e-6f);
      lab.assertSame("heads", lab.read(heads), lab.read(each));
    }
  }

  @Test
  void adapters_thatDoNotFit() {
    try (Lab lab = lab(5)) {
      DenseMatrix a = lab.dense(DType.F32, 2, 30);
      DenseMatrix b = lab.dense(DType.F32, 20, 2);
      Matrix table = lab.matrix(lab.dense(DType.F32, 30, 20));
      Matrix wider = lab.matrix(lab.dense(DType.F32, 30, 24));
      Lora low = lab.lora(Map.of(1, Lab.lowRank(a, b, 1)), Map.of(1, table));
      Lora weight = lab.lora(Map.of(1, Lab.weight(lab.dense(DType.F32, 1, 24))), Map.of());
      Buffer x = lab.buffer(1, 20);
      Buffer ones = lab.buffer(1, 20);
      for (Lora lora : new Lora[] {low, weight}) {
        Step step = lab.step(1, new Batch.Segment(0, 1, lora));
        assertThatThrownBy(() -> lab.backend.norm(step, 1, x, null, ones, 1e-5f, x))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("a norm of 20 takes nothing but a weight");
        assertThatThrownBy(() -> lab.backend.normHeads(step, 1, x, 20, ones, 1e-5f))
            .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> lab.backend.embed(step, 1, wider, lab.buffer(1, 24)))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("module 1: expected");
      }
    }
  }
}
