package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Generated code against the plain kernels, bit by bit. */
final class Avx512AdaptersTest {
  private static final int[] RANKS = {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 32, 64, 100, 256};
  private static final int[] LENGTHS = {1, 15, 16, 31, 32, 33, 64, 90, 127, 256, 704};

  private final Kernels plain = new ScalarKernels();
  private final Scratch scratch = new Scratch();
  private final NativeMemory.Region region = new NativeMemory().region();
  private final Random random = new Random(1);

  @AfterEach
  void free() {
    region.close();
  }

  private static Avx512Adapters generated() {
    Avx512Adapters generated = Avx512Adapters.load();
    return generated != null ? generated : abort("generated code needs a processor with AVX-512");
  }

  @ParameterizedTest
  @EnumSource(names = {"BF16", "F32"})
  void shrinkAll(DType dtype) {
    Avx512Adapters generated = generated();
    Shrinks shrinks = new Shrinks();
    for (int rank : RANKS) {
      for (int length : LENGTHS) {
        Factor a = Factor.rows(dense(dtype, rank, length), region);
        int rows = Shrinks.rows(a);
        assertThat(rows).isEqualTo(a.inLines() == length ? rank & -Factor.GROUP : 0);
        float[] x = numbers(3 * length);
        for (int from = 0; from < rows; from += 2 * Factor.GROUP) {
          float[] expected = new float[rank + 25];
          float[] actual = expected.clone();
          plain.shrink(a, from, rows, x, 2, 3, expected, 5, scratch);
          shrinks.clear();
          shrinks.add(a, from, rows, 2, 5);
          generated.shrinkAll(
              shrinks, MemorySegment.ofArray(x), MemorySegment.ofArray(actual), scratch);
          assertThat(actual).as("rank %d, %d inputs", rank, length).isEqualTo(expected);
        }
      }
    }
  }

  @Test
  void shrinkAll_mixed() {
    Avx512Adapters generated = generated();
    Shrinks shrinks = new Shrinks();
    int tokens = 200;
    for (int length : new int[] {32, 96, 256}) {
      float[] x = numbers(tokens * length);
      float[] expected = new float[tokens * 256];
      float[] actual = expected.clone();
      shrinks.clear();
      int at = 0;
      for (int token = 0; token < tokens; token++) {
        int rank = RANKS[random.nextInt(RANKS.length)];
        DType dtype = random.nextBoolean() ? DType.BF16 : DType.F32;
        Factor a = Factor.rows(dense(dtype, rank, length), region);
        int rows = Shrinks.rows(a);
        if (rows > 0) {
          int from = random.nextInt(rows / Factor.GROUP) * Factor.GROUP;
          plain.shrink(a, from, rows, x, token, token + 1, expected, at, scratch);
          shrinks.add(a, from, rows, token, at);
        }
        at += rank;
      }
      generated.shrinkAll(
          shrinks, MemorySegment.ofArray(x), MemorySegment.ofArray(actual), scratch);
      assertThat(actual).as("%d inputs", length).isEqualTo(expected);
      shrinks.clear();
      generated.shrinkAll(
          shrinks, MemorySegment.ofArray(x), MemorySegment.ofArray(actual), scratch);
      assertThat(actual).isEqualTo(expected);
    }
  }

  @Test
  void shrinks_noFloat16() {
    assertThat(Shrinks.rows(Factor.rows(dense(DType.F16, 8, 64), region))).isZero();
  }

  @Test
  void expandAll_mixed() {
    Avx512Adapters generated = generated();
    int tokens = 40;
    for (int length : new int[] {16, 48, 96, 111}) {
      int whole = length & -Factor.LANES;
      for (int from = 0; from < whole; from += 2 * Factor.LANES) {
        float[] t = numbers(tokens * 260);
        float[] expected = numbers(tokens * length);
        float[] actual = expected.clone();
        Expansions expansions = new Expansions();
        int at = 0;
        for (int token = 0; token < tokens; token++) {
          int rank = RANKS[random.nextInt(RANKS.length)];
          DType dtype = random.nextBoolean() ? DType.BF16 : DType.F32;
          Factor b = Factor.panels(dense(dtype, length, rank), region);
          float scale = random.nextFloat();
          if (Expansions.kind(b, 1, null) != Expansions.NONE) {
            plain.expand(b, scale, null, t, at, from, whole, expected, token, token + 1, scratch);
            expansions.add(b, scale, at, token);
          }
          at += rank;
        }
        generated.expandAll(
            expansions,
            MemorySegment.ofArray(t),
            from,
            whole,
            MemorySegment.ofArray(actual),
            scratch);
        assertThat(actual).as("%d outputs from %d", length, from).isEqualTo(expected);
        expansions.clear();
        generated.expandAll(
            expansions,
            MemorySegment.ofArray(t),
            from,
            whole,
            MemorySegment.ofArray(actual),
            scratch);
        assertThat(actual).isEqualTo(expected);
      }
    }
  }

  @Test
  void expansions_fewTokensWithoutBias() {
    Factor b = Factor.panels(dense(DType.BF16, 64, 8), region);
    int most = Expansions.MOST_TOKENS;
    assertThat(Expansions.kind(b, 1, null)).isEqualTo(1);
    assertThat(Expansions.kind(b, most, null)).isEqualTo(1);
    assertThat(Expansions.kind(b, most + 1, null)).isEqualTo(Expansions.NONE);
    assertThat(Expansions.kind(b, 1, new float[64])).isEqualTo(Expansions.NONE);
    assertThat(kind(DType.BF16, 7)).isEqualTo(Expansions.NONE);
    assertThat(kind(DType.F16, 8)).isEqualTo(Expansions.NONE);
    assertThat(kind(DType.BF16, 2)).isZero();
    assertThat(kind(DType.F32, 7)).isEqualTo(2);
    assertThat(kind(DType.F32, 8)).isEqualTo(3);
  }

  private int kind(DType dtype, int rank) {
    return Expansions.kind(Factor.panels(dense(dtype, 64, rank), region), 1, null);
  }

  private DenseMatrix dense(DType dtype, int rows, int cols) {
    MemorySegment data = MemorySegment.ofArray(new byte[dtype.bytes() * rows * cols]);
    dtype.narrow(numbers(rows * cols), 0, rows * cols, data, 0);
    return new DenseMatrix(dtype, rows, cols, data);
  }

  private float[] numbers(int count) {
    float[] numbers = new float[count];
    for (int i = 0; i < count; i++) {
      numbers[i] = (float) random.nextGaussian();
    }
    return numbers;
  }
}
