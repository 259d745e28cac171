package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Objects;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The fast mode's generated code against plain Java, bit by bit. */
final class Bfloat16ProjectionsTest {
  private static final int GROUP = NibblePanels.GROUP;

  private final Scratch scratch = new Scratch();
  private final NativeMemory memory = new NativeMemory();
  private final NativeMemory.Region region = memory.region();

  @BeforeAll
  static void needsTheProcessor() throws OneDnn.UnavailableException {
    assumeTrue(CpuBackend.refusal(dev.wardrobe.compute.MathMode.FAST) == null, "no fast mode");
    try (OneDnn library = OneDnn.load()) {
      assumeTrue(library.avx512(), "generated code is for AVX512-BF16 without AMX");
    }
  }

  @AfterEach
  void free() {
    region.close();
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, 64, true",
    "NF4, 64, 64, 64, false",
    "FP4, 5, 256, 128, true",
    "NF4, 100, 1024, 1024, true",
    "NF4, 300, 704, 64, true",
    "NF4, 1, 4096, 4096, true",
    "NF4, 48, 2048, 64, false",
    "NF4, 290, 192, 64, true",
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
    NibblePanels w = new NibblePanels(source, region);
    float[] values = new float[rows * cols];
    float[] scales = new float[rows * cols / block];
    float[] some = new float[Panels.HEIGHT];
    for (int row = 0; row < rows; row++) {
      int panel = row / Panels.HEIGHT;
      int lane = row % Panels.HEIGHT;
      for (int k = 0; k < cols; k++) {
        int word = w.packed().getAtIndex(ValueLayout.JAVA_INT, w.word(panel, k / GROUP) + lane);
        values[row * cols + k] = w.codebook()[word >>> 4 * (k % GROUP) & 15];
      }
      for (int i = 0; i < cols / block; i++) {
        w.scales(panel, i, some);
        scales[row * (cols / block) + i] = some[lane];
      }
    }
    check(w, values, scales, block, random);
  }

  @ParameterizedTest
  @CsvSource({"35, 64", "64, 192", "1, 2048", "97, 704"})
  void linear_dense(int rows, int cols) {
    Random random = new Random(rows);
    float[] values = numbers(random, rows * cols);
    float[] ones = new float[rows];
    Arrays.fill(ones, 1);
    check(dense(rows, cols, values), values, ones, cols, random);
  }

  /** All numbers of tokens that a chunk may have, from a token and a panel on that vary. */
  private void check(Panels w, float[] values, float[] scales, int block, Random random) {
    assertThat(Avx512Projections.takes(w)).isTrue();
    int most = Bfloat16Projections.CHUNK + 2;
    float[] x = numbers(random, most * w.cols());
    int[] expected = product(values, scales, block, x, w.rows(), w.cols());
    int[] untouched = new int[most * w.rows()];
    for (int tokens = 16; tokens <= Bfloat16Projections.CHUNK; tokens++) {
      int first = random.nextInt(3);
      int panelFrom = random.nextInt(w.panels());
      int panelTo = panelFrom + 1 + random.nextInt(w.panels() - panelFrom);
      float[] y = new float[most * w.rows()];
      linear(w, panelFrom, panelTo, x, first, tokens, y);
      int[] right = untouched.clone();
      for (int token = first; token < first + tokens; token++) {
        int from = token * w.rows() + panelFrom * Panels.HEIGHT;
        int to = token * w.rows() + Math.min(w.rows(), panelTo * Panels.HEIGHT);
        System.arraycopy(expected, from, right, from, to - from);
      }
      assertThat(bits(y))
          .as("%d tokens from %d, panels %d to %d", tokens, first, panelFrom, panelTo)
          .isEqualTo(right);
    }
  }

  /** In two parts, as by two threads. */
  private void linear(
      Panels w, int panelFrom, int panelTo, float[] x, int first, int tokens, float[] y) {
    Bfloat16Projections generated = Objects.requireNonNull(Bfloat16Projections.load());
    Bfloat16Projections.Frame frame = scratch.fastFrame();
    long bytes = Bfloat16Projections.bytes((long) tokens * w.cols());
    try (NativeMemory.Region own = memory.region()) {
      long at = own.allocate("inputs", bytes).address();
      generated.round(x, first, 0, tokens / 3, tokens, w.cols(), at, frame);
      generated.round(x, first, tokens / 3, tokens, tokens, w.cols(), at, frame);
      generated.linear(w, panelFrom, panelTo, at, tokens, y, first, frame, scratch);
    }
  }

  /** What the class says, in plain Java: bits, of NaN all the same. */
  private static int[] product(
      float[] values, float[] scales, int block, float[] x, int rows, int cols) {
    float[] w = rounded(values);
    float[] in = rounded(x);
    float[] y = new float[x.length / cols * rows];
    for (int i = 0; i < y.length; i++) {
      int row = i % rows;
      int xAt = i / rows * cols;
      int wAt = row * cols;
      for (int unit = 0; unit < cols; unit += Panels.UNIT) {
        float sum = 0;
        for (int group = unit; group < unit + Panels.UNIT; group += GROUP) {
          for (int k = group; k < group + GROUP / 2; k++) {
            // Of a pair the processor adds the second first.
            sum = Math.fma(w[wAt + k + GROUP / 2], in[xAt + k + GROUP / 2], sum);
            sum = Math.fma(w[wAt + k], in[xAt + k], sum);
          }
        }
        y[i] = Math.fma(sum, scales[(wAt + unit) / block], y[i]);
      }
    }
    return bits(y);
  }

  /** To the nearest bfloat16, ties to even; what is denormal to zero. */
  private static float[] rounded(float[] values) {
    float[] rounded = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      int bits = Float.floatToIntBits(values[i]);
      float value = Float.intBitsToFloat(bits + 0x7fff + (bits >>> 16 & 1) & 0xffff0000);
      rounded[i] =
          Float.isNaN(values[i]) || Math.abs(values[i]) >= Float.MIN_NORMAL
              ? value
              : Math.copySign(0, value);
    }
    return rounded;
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
    Random random = new Random(1);
    float[] values = numbers(random, 32 * 128);
    float[] ones = new float[32];
    Arrays.fill(ones, 1);
    float[] x = numbers(random, 17 * 128);
    x[random.nextInt(x.length)] = special;
    float[] y = new float[17 * 32];
    linear(dense(32, 128, values), 0, 1, x, 0, 17, y);
    assertThat(bits(y)).isEqualTo(product(values, ones, 128, x, 32, 128));
  }

  @Test
  void linear_specialWeights() {
    Random random = new Random(2);
    float[] specials = {Float.NaN, Float.NEGATIVE_INFINITY, Float.MIN_VALUE, 0x1p-127f, -0f};
    float[] values = numbers(random, 40 * 64);
    for (int i = 0; i < specials.length; i++) {
      values[i * 8 * 64 + random.nextInt(64)] = specials[i];
    }
    float[] ones = new float[40];
    Arrays.fill(ones, 1);
    float[] x = numbers(random, 16 * 64);
    float[] y = new float[16 * 40];
    linear(dense(40, 64, values), 0, 2, x, 0, 16, y);
    assertThat(bits(y)).isEqualTo(product(values, ones, 64, x, 40, 64));
  }

  private DensePanels dense(int rows, int cols, float[] values) {
    MemorySegment data = MemorySegment.ofArray(new byte[2 * rows * cols]);
    DType.BF16.narrow(values, 0, rows * cols, data, 0);
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
