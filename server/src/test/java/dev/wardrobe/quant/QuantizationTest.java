package dev.wardrobe.quant;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.ForkJoinPool;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

final class QuantizationTest {
  /** The same rules, written for one element at a time. */
  private static final class Oracle {
    final byte[] codes;
    final float[] absmax;

    Oracle(float[] values, QuantType type, int blockSize) {
      codes = new byte[values.length + values.length % 2];
      absmax = new float[(values.length + blockSize - 1) / blockSize];
      for (int i = 0; i < codes.length; i++) {
        float v = 0;
        if (i < values.length) {
          int from = i / blockSize * blockSize;
          int to = Math.min(values.length, from + blockSize);
          float largest = 0;
          for (int j = from; j < to; j++) {
            largest = Math.max(largest, Math.abs(values[j]));
          }
          boolean full = to - from == blockSize;
          float clamped = Math.max(largest, 1e-38f);
          absmax[i / blockSize] = full ? largest : clamped;
          v = full ? values[i] * (1f / clamped) : values[i] / clamped;
        }
        codes[i] = nearest(v, type);
      }
    }

    /** The nearest code; of two equally near ones that of the lower value, in float32 midpoints. */
    private static byte nearest(float v, QuantType type) {
      float[] values = type.codes();
      int best = -1;
      for (int code = 0; code < 16; code++) {
        if (best < 0) {
          best = code;
        } else {
          float low = Math.min(values[best], values[code]);
          float high = Math.max(values[best], values[code]);
          boolean takeHigh = v > (low + high) / 2;
          boolean codeIsHigh = low == high ? true : values[code] == high;
          if (takeHigh == codeIsHigh) {
            best = code;
          }
        }
      }
      return (byte) best;
    }
  }

  @ParameterizedTest
  @CsvSource({
    "1, 1, 64",
    "1, 2, 64",
    "3, 1, 32",
    "1, 63, 64",
    "1, 64, 64",
    "1, 65, 64",
    "7, 33, 64",
    "5, 13, 128",
    "3, 683, 256",
    "31, 67, 2048",
    "257, 129, 64",
    "3, 16384, 4096",
    "129, 127, 4096"
  })
  void quantize_anyShape_asTheOracle(int rows, int cols, int blockSize) throws QuantException {
    long seed = 31L * rows + cols;
    float[] values = new float[rows * cols];
    Random random = new Random(seed);
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (random.nextGaussian() * Math.scalb(1.0, random.nextInt(6)));
      if (random.nextInt(20) == 0) {
        values[i] = random.nextBoolean() ? 0f : -0f;
      }
    }
    for (QuantType type : QuantType.values()) {
      assertQuantizes(values, rows, cols, type, blockSize, "seed " + seed);
    }
  }

  private static void assertQuantizes(
      float[] values, int rows, int cols, QuantType type, int blockSize, String what)
      throws QuantException {
    Oracle oracle = new Oracle(values, type, blockSize);
    QuantizedMatrix matrix =
        QuantizedMatrix.quantize(
            FloatSource.of("w", values),
            rows,
            cols,
            new QuantOptions(type, blockSize, false),
            "float32");
    assertThat(matrix.packed().byteSize()).isEqualTo((values.length + 1) / 2);
    assertThat(matrix.blocks()).isEqualTo(oracle.absmax.length);
    for (int i = 0; i < oracle.codes.length; i++) {
      assertThat(matrix.code(i)).as("%s, %s, element %d", what, type, i).isEqualTo(oracle.codes[i]);
    }
    for (int i = 0; i < values.length; i++) {
      assertThat(matrix.absmax(i / blockSize)).as(what).isEqualTo(oracle.absmax[i / blockSize]);
      assertThat(matrix.value(i))
          .as(what)
          .isEqualTo(type.codes()[oracle.codes[i]] * oracle.absmax[i / blockSize]);
    }
  }

  @ParameterizedTest
  @ValueSource(floats = {0f, -0f, Float.MIN_VALUE, 1e-40f, Float.MIN_NORMAL, 1f, Float.MAX_VALUE})
  void quantize_oneMagnitude_asTheOracle(float magnitude) throws QuantException {
    float[] values = new float[3 * 50];
    for (int i = 0; i < values.length; i++) {
      values[i] = i % 3 == 0 ? magnitude : i % 3 == 1 ? -magnitude : magnitude / 3;
    }
    for (QuantType type : QuantType.values()) {
      assertQuantizes(values, 3, 50, type, 64, "magnitude " + magnitude);
    }
  }

  @ParameterizedTest
  @EnumSource
  void quantize_ties_takeTheLowerCode(QuantType type) throws QuantException {
    float[] sorted = type.codes();
    Arrays.sort(sorted);
    float[] values = new float[64];
    values[0] = 1;
    for (int i = 0; i < 15; i++) {
      float tie = (sorted[i] + sorted[i + 1]) / 2;
      values[1 + i] = tie;
      values[17 + i] = Math.nextUp(tie);
      values[33 + i] = Math.nextDown(tie);
    }
    assertQuantizes(values, 1, 64, type, 64, "ties");
    QuantizedMatrix matrix =
        QuantizedMatrix.quantize(
            FloatSource.of("w", values), 1, 64, new QuantOptions(type, 64, false), "float32");
    for (int i = 0; i < 15; i++) {
      assertThat(matrix.value(1 + i)).as("tie %d", i).isEqualTo(sorted[i]);
      assertThat(matrix.value(17 + i)).as("above tie %d", i).isEqualTo(sorted[i + 1]);
      assertThat(matrix.value(33 + i)).as("below tie %d", i).isEqualTo(sorted[i]);
    }
  }

  @Test
  void quantize_zeros() throws QuantException {
    QuantizedMatrix full = quantize(new float[64], true);
    assertThat(full.packed().toArray(ValueLayout.JAVA_BYTE)).containsOnly(0x77);
    assertThat(full.nestedOffset()).isZero();
    assertThat(full.nestedAbsmax()).containsExactly(0f);
    assertThat(full.absmaxCodes().get(ValueLayout.JAVA_BYTE, 0)).isEqualTo((byte) 127);
    assertThat(full.value(5)).isZero();
    QuantizedMatrix tail = quantize(new float[3], false);
    assertThat(tail.absmax(0)).isEqualTo(1e-38f);
    assertThat(tail.packed().toArray(ValueLayout.JAVA_BYTE)).containsExactly(0x77, 0x77);
  }

  @ParameterizedTest
  @ValueSource(floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY})
  void quantize_notFinite_namesTheFirst(float bad) {
    float[] values = new float[300 * 257];
    values[200 * 257 + 11] = bad;
    values[200 * 257 + 12] = Float.NaN;
    values[299 * 257] = Float.NaN;
    assertThatThrownBy(
            () ->
                QuantizedMatrix.quantize(
                    FloatSource.of("layer.weight", values),
                    300,
                    257,
                    QuantOptions.DEFAULT,
                    "float32"))
        .isInstanceOf(QuantException.class)
        .hasMessage(
            "layer.weight: element [200, 11] is " + bad + "; only finite weights can be quantized");
  }

  @Test
  void quantize_meanOverflows_refused() throws QuantException {
    float[] values = new float[64 * 100];
    Arrays.fill(values, Float.MAX_VALUE);
    assertThatThrownBy(() -> quantize(values, true))
        .isInstanceOf(QuantException.class)
        .hasMessageContaining("without double quantization");
    assertThat(quantize(values, false).value(77)).isEqualTo(Float.MAX_VALUE);
  }

  @Test
  void quantize_anyThreads_sameBytes() throws Exception {
    float[] values = new float[300 * 257];
    Random random = new Random(9);
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    QuantizedMatrix here = quantize(values, true);
    try (ForkJoinPool one = new ForkJoinPool(1);
        ForkJoinPool seven = new ForkJoinPool(7)) {
      for (ForkJoinPool pool : new ForkJoinPool[] {one, seven}) {
        QuantizedMatrix there = pool.submit(() -> quantize(values, true)).get();
        assertThat(there.packed().mismatch(here.packed())).isEqualTo(-1);
        assertThat(there.absmaxCodes().mismatch(here.absmaxCodes())).isEqualTo(-1);
        assertThat(there.nestedOffset()).isEqualTo(here.nestedOffset());
      }
    }
  }

  @Test
  void dequantize_anyRange_asElementByElement() throws QuantException {
    long seed = 5;
    Random random = new Random(seed);
    float[] values = new float[7 * 333];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    for (boolean doubleQuant : new boolean[] {false, true}) {
      QuantizedMatrix matrix = quantize(values, doubleQuant);
      for (int round = 0; round < 300; round++) {
        int from = random.nextInt(values.length + 1);
        int count = random.nextInt(Math.min(values.length - from, round) + 1);
        float[] out = new float[count + 3];
        matrix.dequantize(from, out, 2, count);
        for (int i = 0; i < count; i++) {
          assertThat(out[2 + i]).as("seed %d", seed).isEqualTo(matrix.value(from + i));
        }
        assertThat(out[1] + out[2 + count]).isZero();
      }
    }
  }

  @Test
  void dequantize_outOfRange_refused() throws QuantException {
    QuantizedMatrix matrix = quantize(new float[65], true);
    assertThatThrownBy(() -> matrix.dequantize(60, new float[6], 0, 6))
        .isInstanceOf(IndexOutOfBoundsException.class);
    assertThatThrownBy(() -> matrix.dequantize(0, new float[6], 1, 6))
        .isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void footprint_isFourPointOneTwoSevenBits() throws QuantException {
    QuantizedMatrix matrix = quantize(new float[256 * 1024], true);
    assertThat(matrix.footprint())
        .isEqualTo(new QuantizedMatrix.Footprint(128 * 1024, 4096, 64, 0));
    assertThat(8.0 * matrix.bytes() / matrix.elements()).isEqualTo(4.126953125);
    assertThat(quantize(new float[64], false).bytes()).isEqualTo(32 + 4);
  }

  @Test
  void quantize_intoGivenMemory() throws QuantException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(4096, 64);
      QuantizedMatrix matrix =
          Quantization.quantize(
              FloatSource.of("w", new float[64]),
              8,
              8,
              QuantOptions.DEFAULT,
              "bfloat16",
              SegmentAllocator.slicingAllocator(memory));
      assertThat(matrix.packed().isReadOnly()).isTrue();
      assertThat(memory.get(ValueLayout.JAVA_BYTE, 0)).isEqualTo((byte) 0x77);
      assertThat(memory.get(ValueLayout.JAVA_BYTE, 64)).isEqualTo((byte) 127);
    }
  }

  @Test
  void options_blockSize() {
    for (int size : new int[] {0, 16, 48, 100, 8192, -64, Integer.MIN_VALUE}) {
      assertThatThrownBy(() -> new QuantOptions(QuantType.NF4, size, true))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("expected a power of two from 32 to 4096, got " + size);
    }
  }

  @Test
  void nearest_isNearest_tiesDown() {
    long seed = 17;
    Random random = new Random(seed);
    for (DynamicMap map : new DynamicMap[] {DynamicMap.SIGNED, DynamicMap.UNSIGNED}) {
      float[] values = map.values();
      for (int i = 0; i < 256; i++) {
        assertThat(map.nearest(values[i])).isEqualTo(i);
      }
      for (int round = 0; round < 20_000; round++) {
        float v = (float) (random.nextDouble() * 2.2 - 1.1) * Math.scalb(1f, -random.nextInt(25));
        if (round % 4 == 0) {
          int i = random.nextInt(255);
          v = (float) (((double) values[i] + values[i + 1]) / 2);
        }
        int best = 0;
        for (int i = 1; i < 256; i++) {
          if (Math.abs((double) values[i] - v) < Math.abs((double) values[best] - v)) {
            best = i;
          }
        }
        assertThat(map.nearest(v)).as("seed %d, v %s", seed, v).isEqualTo(best);
      }
    }
  }

  @Test
  void mean_isWithinTwoUlps() {
    long seed = 23;
    Random random = new Random(seed);
    for (int length : new int[] {1, 7, 8, 31, 32, 33, 511, 512, 513, 4096, 100_003, 1 << 20}) {
      float[] values = new float[length];
      double sum = 0;
      for (int i = 0; i < length; i++) {
        values[i] = (float) Math.abs(random.nextGaussian()) * 0.05f;
        sum += values[i];
      }
      float exact = (float) (sum / length);
      assertThat(Math.abs(NestedAbsmax.mean(values) - exact))
          .as("%d values, seed %d", length, seed)
          .isLessThanOrEqualTo(2 * Math.ulp(exact));
    }
  }

  private static QuantizedMatrix quantize(float[] values, boolean doubleQuant)
      throws QuantException {
    return QuantizedMatrix.quantize(
        FloatSource.of("w", values),
        1,
        values.length,
        new QuantOptions(QuantType.NF4, 64, doubleQuant),
        "float32");
  }
}
