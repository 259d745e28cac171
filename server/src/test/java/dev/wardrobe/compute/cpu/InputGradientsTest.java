package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Generated code against plain Java, bit by bit, at any number of threads and rows. */
final class InputGradientsTest {
  private static final int[] ROWS = {1, 2, 3, 6, 7, 17, 64, 65, 130};

  private final Kernels plain = new ScalarKernels();
  private final Scratch scratch = new Scratch();
  private final NativeMemory.Region region = new NativeMemory().region();

  @AfterEach
  void free() {
    region.close();
  }

  private static InputGradients generated() {
    Avx512Blocks blocks = Avx512Blocks.load();
    InputGradients generated = blocks == null ? null : InputGradients.load(blocks);
    return generated != null ? generated : abort("generated code needs a processor with AVX-512");
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, 64, true",
    "NF4, 64, 64, 64, false",
    "FP4, 5, 256, 128, true",
    "NF4, 100, 1024, 1024, true",
    "NF4, 300, 704, 64, true",
    "NF4, 290, 192, 64, true",
    "NF4, 1, 4096, 4096, true",
    "NF4, 40, 2048, 64, false"
  })
  void nibbles(QuantType type, int rows, int cols, int block, boolean nested) throws Exception {
    Random random = new Random(rows);
    QuantizedMatrix source =
        QuantizedMatrix.quantize(
            FloatSource.of("test", numbers(random, rows * cols)),
            rows,
            cols,
            new QuantOptions(type, block, nested),
            "float32");
    check(new NibblePanels(source, region), random);
  }

  @ParameterizedTest
  @CsvSource({"35, 64", "64, 192", "1, 2048", "97, 704"})
  void bfloat16(int rows, int cols) {
    Random random = new Random(rows);
    check(dense(rows, cols, random), random);
  }

  /** More rows than weights are dequantized for at once, and more than gradients are turned. */
  @ParameterizedTest
  @CsvSource({"40, 64, 1100", "70000, 64, 130"})
  void manyRows(int outputs, int inputs, int rows) {
    Random random = new Random(rows);
    check(dense(outputs, inputs, random), random, rows);
  }

  private void check(Panels w, Random random) {
    for (int rows : ROWS) {
      check(w, random, rows);
    }
  }

  private void check(Panels w, Random random, int rows) {
    float[] dy = numbers(random, rows * w.rows());
    float[] before = numbers(random, (rows + 1) * w.cols());
    float[] expected = before.clone();
    plain.linearInput(w, 0, w.units(), dy, rows, expected, scratch);
    for (int threads = 1; threads <= 3; threads++) {
      float[] actual = before.clone();
      run(w, dy, rows, actual, false, threads);
      assertThat(bits(actual)).as("%d rows, %d threads", rows, threads).isEqualTo(bits(expected));
    }
  }

  private static void run(Panels w, float[] dy, int rows, float[] dx, boolean fast, int threads) {
    try (WorkerPool pool = new WorkerPool(threads);
        InputGradients generated = generated()) {
      generated.run(w, dy, rows, dx, fast, pool);
    }
  }

  @ParameterizedTest
  @ValueSource(
      floats = {
        Float.NaN,
        Float.POSITIVE_INFINITY,
        Float.NEGATIVE_INFINITY,
        Float.MIN_VALUE,
        -1e-40f,
        -0f,
        Float.MAX_VALUE
      })
  void specialGradients(float special) {
    Random random = new Random(1);
    Panels w = dense(40, 128, random);
    for (int rows : new int[] {1, 9}) {
      float[] dy = numbers(random, rows * 40);
      dy[random.nextInt(dy.length)] = special;
      float[] expected = new float[rows * 128];
      float[] actual = expected.clone();
      plain.linearInput(w, 0, 2, dy, rows, expected, scratch);
      run(w, dy, rows, actual, false, 1);
      assertThat(bits(actual)).isEqualTo(bits(expected));
    }
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, true",
    "NF4, 64, 64, false",
    "FP4, 5, 256, true",
    "NF4, 300, 704, true"
  })
  void fast_nibbles(QuantType type, int rows, int cols, boolean nested) throws Exception {
    Random random = new Random(rows);
    QuantizedMatrix source =
        QuantizedMatrix.quantize(
            FloatSource.of("test", numbers(random, rows * cols)),
            rows,
            cols,
            new QuantOptions(type, 64, nested),
            "float32");
    checkFast(new NibblePanels(source, region), random);
  }

  @ParameterizedTest
  @CsvSource({"35, 64", "64, 192", "1, 2048", "97, 704"})
  void fast_bfloat16(int rows, int cols) {
    Random random = new Random(rows);
    checkFast(dense(rows, cols, random), random);
  }

  /** As the processor adds up: a pair's products, each rounded, the second one first. */
  private void checkFast(Panels w, Random random) {
    assumeTrue(CpuBackend.refusal(MathMode.FAST) == null, "no fast mode");
    int outputs = w.rows();
    int inputs = w.cols();
    float[] weights = new float[outputs * inputs];
    for (int o = 0; o < outputs; o++) {
      w.row(o, weights, o * inputs);
    }
    round(weights);
    for (int rows : ROWS) {
      float[] dy = numbers(random, rows * outputs);
      float[] before = numbers(random, rows * inputs);
      float[] expected = before.clone();
      float[] rounded = dy.clone();
      round(rounded);
      for (int row = 0; row < rows; row++) {
        for (int k = 0; k < inputs; k++) {
          float sum = 0;
          for (int o = 0; o < outputs; o += 2) {
            if (o + 1 < outputs) {
              sum = Math.fma(weights[(o + 1) * inputs + k], rounded[row * outputs + o + 1], sum);
            }
            sum = Math.fma(weights[o * inputs + k], rounded[row * outputs + o], sum);
          }
          expected[row * inputs + k] += sum;
        }
      }
      for (int threads = 1; threads <= 3; threads++) {
        float[] actual = before.clone();
        run(w, dy, rows, actual, true, threads);
        assertThat(bits(actual)).as("%d rows, %d threads", rows, threads).isEqualTo(bits(expected));
      }
    }
  }

  /** To the nearest bfloat16, ties to even; what is denormal to zero. */
  private static void round(float[] values) {
    for (int i = 0; i < values.length; i++) {
      int bits = Float.floatToIntBits(values[i]);
      float value = Float.intBitsToFloat(bits + 0x7fff + (bits >>> 16 & 1) & 0xffff0000);
      values[i] = Math.abs(values[i]) >= Float.MIN_NORMAL ? value : Math.copySign(0, value);
    }
  }

  private DensePanels dense(int rows, int cols, Random random) {
    MemorySegment data = MemorySegment.ofArray(new byte[2 * rows * cols]);
    DType.BF16.narrow(numbers(random, rows * cols), 0, rows * cols, data, 0);
    return new DensePanels(new DenseMatrix(DType.BF16, rows, cols, data), region);
  }

  private static float[] numbers(Random random, int count) {
    float[] numbers = new float[count];
    for (int i = 0; i < count; i++) {
      numbers[i] = (float) random.nextGaussian();
    }
    return numbers;
  }

  /** Of NaN all are one. */
  private static int[] bits(float[] numbers) {
    int[] bits = new int[numbers.length];
    Arrays.setAll(bits, i -> Float.floatToIntBits(numbers[i]));
    return bits;
  }
}
