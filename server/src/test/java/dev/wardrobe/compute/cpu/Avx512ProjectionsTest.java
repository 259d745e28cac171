package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Generated code against the plain kernels, bit by bit. */
final class Avx512ProjectionsTest {
  private static final int MOST = 70;

  private final Kernels plain = new ScalarKernels();
  private final Scratch scratch = new Scratch();
  private final NativeMemory.Region region = new NativeMemory().region();

  @AfterEach
  void free() {
    region.close();
  }

  private static Avx512Projections generated() {
    Avx512Projections generated = Avx512Projections.load();
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
  void linear_nibbles(QuantType type, int rows, int cols, int block, boolean nested)
      throws Exception {
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
  void linear_bfloat16(int rows, int cols) {
    Random random = new Random(rows);
    check(dense(rows, cols, random), random);
  }

  /** All numbers of tokens, from a token and a panel on that are not always the first. */
  private void check(Panels w, Random random) {
    Avx512Projections generated = generated();
    assertThat(Avx512Projections.takes(w)).isTrue();
    float[] x = numbers(random, (MOST + 2) * w.cols());
    for (int tokens = 1; tokens <= MOST; tokens++) {
      int from = random.nextInt(3);
      int panelFrom = random.nextInt(w.panels());
      int panelTo = panelFrom + 1 + random.nextInt(w.panels() - panelFrom);
      float[] expected = new float[(MOST + 2) * w.rows()];
      float[] actual = expected.clone();
      plain.linear(w, panelFrom, panelTo, x, from, from + tokens, expected, scratch);
      generated.linear(w, panelFrom, panelTo, x, from, from + tokens, actual, scratch);
      assertThat(bits(actual))
          .as("%d tokens from %d, panels %d to %d", tokens, from, panelFrom, panelTo)
          .isEqualTo(bits(expected));
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
  void linear_specialInputs(float special) {
    Avx512Projections generated = generated();
    Random random = new Random(1);
    Panels w = dense(32, 128, random);
    for (int tokens : new int[] {1, 9}) {
      float[] x = numbers(random, tokens * 128);
      x[random.nextInt(x.length)] = special;
      float[] expected = new float[tokens * 32];
      float[] actual = expected.clone();
      plain.linear(w, 0, 1, x, 0, tokens, expected, scratch);
      generated.linear(w, 0, 1, x, 0, tokens, actual, scratch);
      assertThat(bits(actual)).isEqualTo(bits(expected));
    }
  }

  @Test
  void takes_wholeUnitsOnly() throws Exception {
    assertThat(Avx512Projections.takes(dense(32, 100, new Random(1)))).isFalse();
    for (int block : new int[] {32, 64}) {
      QuantizedMatrix source =
          QuantizedMatrix.quantize(
              FloatSource.of("test", new float[32 * 96]),
              32,
              96,
              new QuantOptions(QuantType.NF4, block, true),
              "float32");
      assertThat(Avx512Projections.takes(new NibblePanels(source, region))).isFalse();
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
