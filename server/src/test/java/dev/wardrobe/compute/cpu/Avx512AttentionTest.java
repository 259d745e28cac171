package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import dev.wardrobe.compute.Heads;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Generated code against plain Java, bit by bit, at any number of threads. */
final class Avx512AttentionTest {
  private static Avx512Attention generated() {
    Avx512Blocks blocks = Avx512Blocks.load();
    Avx512Attention generated = blocks == null ? null : Avx512Attention.load(blocks);
    return generated != null ? generated : abort("generated code needs a processor with AVX-512");
  }

  /**
   * @param lengths of sequences
   */
  @ParameterizedTest
  @CsvSource({
    "1, 1, 1, 16, 0",
    "3, 2, 1, 64, 0",
    "130, 4, 2, 64, 0",
    "64 1 17 65, 3, 3, 32, 0",
    "200, 4, 1, 48, 70",
    "1 130 0 5, 2, 2, 80, 1",
    "190, 6, 2, 128, 64",
    "300, 2, 1, 16, 129",
    "70 70, 2, 1, 90, 3",
    "150, 2, 2, 256, 0",
    "40, 1, 1, 6, 0"
  })
  void attention(String lengths, int queries, int keyValues, int size, int window) {
    int[] starts = starts(lengths);
    int rows = starts[starts.length - 1];
    Heads heads = new Heads(queries, keyValues, size, 0.7f / (float) Math.sqrt(size), window);
    Random random = new Random(size);
    float[] q = numbers(random, (rows + 1) * queries * size);
    float[] k = numbers(random, (rows + 1) * keyValues * size);
    float[] v = numbers(random, (rows + 1) * keyValues * size);
    float[] dOut = numbers(random, (rows + 1) * queries * size);
    PlainAttention plain = new PlainAttention(starts, heads);
    float[] out = numbers(new Random(2), q.length);
    float[] logSums = numbers(new Random(3), (rows + 1) * queries);
    float[] dq = numbers(new Random(4), q.length);
    float[] dk = numbers(new Random(5), k.length);
    float[] dv = numbers(new Random(6), k.length);
    for (int row = 0; row < rows; row++) {
      for (int head = 0; head < queries; head++) {
        plain.attend(row, head, q, k, v, out, logSums);
      }
    }
    for (int head = 0; head < keyValues; head++) {
      plain.differentiate(head, q, k, v, out, logSums, dOut, dq, dk, dv);
    }
    for (int threads = 1; threads <= 3; threads++) {
      float[] actualOut = numbers(new Random(2), q.length);
      float[] actualSums = numbers(new Random(3), (rows + 1) * queries);
      float[] actualDq = numbers(new Random(4), q.length);
      float[] actualDk = numbers(new Random(5), k.length);
      float[] actualDv = numbers(new Random(6), k.length);
      try (WorkerPool pool = new WorkerPool(threads);
          Avx512Attention generated = generated()) {
        generated.attention(starts, heads, q, k, v, actualOut, actualSums, pool);
        generated.attentionInput(
            starts,
            heads,
            q,
            k,
            v,
            actualOut,
            actualSums,
            dOut,
            actualDq,
            actualDk,
            actualDv,
            pool);
      }
      assertSame("out", actualOut, out);
      assertSame("logSums", actualSums, logSums);
      assertSame("dq", actualDq, dq);
      assertSame("dk", actualDk, dk);
      assertSame("dv", actualDv, dv);
    }
  }

  private static void assertSame(String what, float[] actual, float[] expected) {
    for (int i = 0; i < expected.length; i++) {
      assertThat(Float.floatToIntBits(actual[i]))
          .as("%s[%d] = %s, expected %s", what, i, actual[i], expected[i])
          .isEqualTo(Float.floatToIntBits(expected[i]));
    }
  }

  private static int[] starts(String lengths) {
    int[] each = Arrays.stream(lengths.split(" ")).mapToInt(Integer::parseInt).toArray();
    int[] starts = new int[each.length + 1];
    for (int i = 0; i < each.length; i++) {
      starts[i + 1] = starts[i] + each[i];
    }
    return starts;
  }

  private static float[] numbers(Random random, int count) {
    float[] numbers = new float[count];
    for (int i = 0; i < count; i++) {
      numbers[i] = (float) random.nextGaussian();
    }
    return numbers;
  }
}
