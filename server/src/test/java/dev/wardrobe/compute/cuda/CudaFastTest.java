package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.safetensors.DType;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Fast mode: many rows by cuBLASLt, over weights that are widened for it. */
final class CudaFastTest {

  /** What a matrix is, its shape and its block. */
  @ParameterizedTest
  @CsvSource({
    "NF4, 48, 128, 64, true",
    "NF4, 50, 256, 128, true",
    "NF4, 33, 192, 64, false",
    "FP4, 40, 64, 64, true",
    "NF4, 50, 80, 64, true",
  })
  void linear_fourBit(QuantType type, int out, int in, int block, boolean nested) {
    try (Lab lab = Labs.fast(out)) {
      var stored = lab.quantized(out, in, type, block, nested);
      project(lab, lab.matrix(stored), Lab.values(stored), true);
    }
  }

  @ParameterizedTest
  @CsvSource({"BF16, 48, 128", "F16, 50, 80", "F32, 20, 31"})
  void linear_dense(DType type, int out, int in) {
    try (Lab lab = Labs.fast(out)) {
      var stored = lab.dense(type, out, in);
      project(lab, lab.matrix(stored), Lab.values(stored), true);
    }
  }

  /** Single tokens side by side are a graph's step, where grids are rounded up. */
  @Test
  void linear_stepThatIsReplayed() {
    try (Lab lab = Labs.fast(1)) {
      var stored = lab.quantized(48, 128, QuantType.NF4, 64, true);
      project(lab, lab.matrix(stored), Lab.values(stored), false);
    }
  }

  private static void project(Lab lab, Matrix w, float[] values, boolean oneSequence) {
    assertThat(lab.backend.math()).isEqualTo(MathMode.FAST);
    int tokens = 70;
    int out = w.rows();
    int in = w.cols();
    float[] x = lab.floats(tokens * in);
    float[] bias = lab.floats(out);
    Buffer y = lab.buffer(tokens, out);
    Step step = oneSequence ? prompt(lab, tokens, null) : lab.step(tokens);
    lab.backend.linear(
        step, List.of(new Linear(0, w, lab.buffer(bias, out))), lab.buffer(x, in), List.of(y));
    double[][] expected = Lab.product(values, out, in, x, tokens);
    for (int i = 0; i < expected[0].length; i++) {
      expected[0][i] += bias[i % out];
      expected[1][i] += Math.abs(bias[i % out]);
    }
    lab.assertProducts("y", lab.read(y), expected[0], expected[1]);
    if (oneSequence) {
      assertThat(Emulator.load().count("cuLaunchHostFunc")).as("calls of the library").isPositive();
    }
  }

  private static Step prompt(Lab lab, int tokens, Lora lora) {
    int[] blocks = new int[Math.ceilDiv(tokens, 16)];
    return lab.keep(
        lab.backend.step(
            new Batch(
                new int[tokens],
                List.of(new Batch.Run(0, tokens, 0, blocks)),
                List.of(new Batch.Segment(0, tokens, lora)),
                new int[0])));
  }

  @Test
  void linear_withAnAdapter() {
    try (Lab lab = Labs.fast(2)) {
      var stored = lab.quantized(48, 128, QuantType.NF4, 64, true);
      Matrix w = lab.matrix(stored);
      var a = lab.dense(DType.BF16, 8, 128);
      var b = lab.dense(DType.BF16, 48, 8);
      Delta delta = Lab.lowRank(a, b, 2);
      Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
      float[] x = lab.floats(70 * 128);
      Buffer with = lab.buffer(70, 48);
      Buffer without = lab.buffer(70, 48);
      Buffer input = lab.buffer(x, 128);
      List<Linear> linears = List.of(new Linear(0, w, null));
      lab.backend.linear(prompt(lab, 70, lora), linears, input, List.of(with));
      lab.backend.linear(prompt(lab, 70, null), linears, input, List.of(without));
      double[][] t = Lab.product(Lab.values(a), 8, 128, x, 70);
      float[] base = lab.read(without);
      float[] wide = Lab.values(b);
      double[] expected = new double[base.length];
      double[] size = new double[base.length];
      for (int i = 0; i < base.length; i++) {
        expected[i] = base[i];
        size[i] = Math.abs(base[i]);
        for (int j = 0; j < 8; j++) {
          double product = 2.0 * wide[i % 48 * 8 + j] * t[0][i / 48 * 8 + j];
          expected[i] += product;
          size[i] += Math.abs(2.0 * wide[i % 48 * 8 + j]) * t[1][i / 48 * 8 + j];
        }
      }
      lab.assertProducts("y", lab.read(with), expected, size);
    }
  }
}
