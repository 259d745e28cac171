package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Generated code against plain Java, bit by bit, at any number of threads. */
final class Avx512ProductsTest {

  private static Avx512Products generated() {
    Avx512Products generated = Avx512Products.load();
    return generated != null ? generated : abort("generated code needs a processor with AVX-512");
  }

  @ParameterizedTest
  @CsvSource({
    "1, 1, 1",
    "3, 16, 5",
    "17, 8, 130",
    "65, 17, 64",
    "64, 33, 7",
    "130, 64, 67",
    "16, 300, 129",
    "8, 130, 513",
    "31, 65, 1",
    "97, 200, 16",
    "200, 97, 3",
    "500, 16, 40",
    "75, 150, 150",
    "1, 2048, 16",
    "3000, 1, 9",
    "2, 7, 5000"
  })
  void products(int m, int n, int k) {
    Random random = new Random(m);
    for (int kind = 0; kind < 3; kind++) {
      boolean transposeA = kind == 2;
      boolean transposeB = kind == 1;
      float scale = kind == 0 ? 1 : (float) random.nextGaussian();
      // Longer than they need be, as buffers are.
      float[] a = numbers(random, m * k + 3);
      float[] b = numbers(random, k * n + 5);
      float[] before = numbers(random, m * n + 7);
      float[] expected = before.clone();
      product(scale, a, transposeA, b, transposeB, m, n, k, expected);
      for (int threads = 1; threads <= 3; threads++) {
        for (boolean alone : new boolean[] {false, true}) {
          float[] actual = before.clone();
          try (WorkerPool pool = new WorkerPool(threads);
              Avx512Products generated = generated()) {
            generated.run(scale, a, transposeA, b, transposeB, m, n, k, actual, alone, pool);
          }
          assertThat(bits(actual))
              .as("a %s, b %s, %d threads, alone %s", transposeA, transposeB, threads, alone)
              .isEqualTo(bits(expected));
        }
      }
    }
  }

  /** One after the other, so that what an earlier one has packed is there. */
  @Test
  void products_inTurn() {
    Random random = new Random(1);
    try (WorkerPool pool = new WorkerPool(2);
        Avx512Products generated = generated()) {
      for (int times = 0; times < 50; times++) {
        int m = 1 + random.nextInt(70);
        int n = 1 + random.nextInt(200);
        int k = 1 + random.nextInt(100);
        boolean transposeA = times % 3 == 2;
        boolean transposeB = times % 3 == 1;
        float[] a = numbers(random, m * k);
        float[] b = numbers(random, k * n);
        float[] expected = numbers(random, m * n);
        float[] actual = expected.clone();
        product(2, a, transposeA, b, transposeB, m, n, k, expected);
        generated.run(2, a, transposeA, b, transposeB, m, n, k, actual, times % 2 == 0, pool);
        assertThat(bits(actual)).as("(%d, %d, %d)", m, n, k).isEqualTo(bits(expected));
      }
    }
  }

  @ParameterizedTest
  @ValueSource(
      floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.MIN_VALUE, -1e-40f, -0f, Float.MAX_VALUE})
  void specialNumbers(float special) {
    Random random = new Random(1);
    for (int kind = 0; kind < 3; kind++) {
      float[] a = numbers(random, 19 * 21);
      float[] b = numbers(random, 21 * 35);
      float[] expected = numbers(random, 19 * 35);
      a[random.nextInt(a.length)] = special;
      b[random.nextInt(b.length)] = special;
      expected[random.nextInt(expected.length)] = special;
      float[] actual = expected.clone();
      product(0.5f, a, kind == 2, b, kind == 1, 19, 35, 21, expected);
      try (WorkerPool pool = new WorkerPool(1);
          Avx512Products generated = generated()) {
        generated.run(0.5f, a, kind == 2, b, kind == 1, 19, 35, 21, actual, true, pool);
      }
      assertThat(bits(actual)).isEqualTo(bits(expected));
    }
  }

  private static void product(
      float scale,
      float[] a,
      boolean transposeA,
      float[] b,
      boolean transposeB,
      int m,
      int n,
      int k,
      float[] c) {
    for (int row = 0; row < m; row++) {
      for (int column = 0; column < n; column++) {
        float sum = 0;
        for (int i = 0; i < k; i++) {
          sum =
              Math.fma(
                  a[transposeA ? i * m + row : row * k + i],
                  b[transposeB ? column * k + i : i * n + column],
                  sum);
        }
        c[row * n + column] = Math.fma(scale, sum, c[row * n + column]);
      }
    }
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
