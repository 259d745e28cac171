package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.function.Function;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Generated code against plain Java, bit by bit, at any number of threads. */
final class Avx512RowsTest {
  private static final float[] SPECIAL = {
    Float.NaN,
    Float.POSITIVE_INFINITY,
    Float.NEGATIVE_INFINITY,
    0f,
    -0f,
    Float.MIN_VALUE,
    -1e-40f,
    Float.MAX_VALUE,
    -88.5f,
    88.5f,
    -104f,
    -103.9f,
    104f,
    -200f
  };

  @ParameterizedTest
  @CsvSource({"1, 1", "3, 15", "17, 64", "5, 67", "130, 33", "64, 704", "2, 5000"})
  void activate(int rows, int width) {
    same(
        backend -> {
          List<Buffer> b = buffers(backend, 5, rows, width, 1);
          backend.gradients().activate(rows - rows / 3, b.get(0), b.get(1), b.get(2));
          backend.gradients().activateInput(rows, b.get(0), b.get(1), b.get(2), b.get(3), b.get(4));
          return b;
        });
  }

  /** Results in the place of arguments. */
  @Test
  void activateInput_inPlace() {
    same(
        backend -> {
          List<Buffer> b = buffers(backend, 3, 9, 50, 1);
          Gradients gradients = backend.gradients();
          gradients.activateInput(9, b.get(0), b.get(1), b.get(2), b.get(0), b.get(2));
          gradients.activateInput(9, b.get(0), b.get(1), b.get(2), b.get(0), b.get(1));
          return b;
        });
  }

  @Test
  void activate_specialNumbers() {
    same(
        backend -> {
          List<Buffer> b = buffers(backend, 5, 14, 14, 1);
          float[] gates = new float[14 * 14];
          for (int i = 0; i < gates.length; i++) {
            gates[i] = SPECIAL[i % SPECIAL.length];
          }
          backend.write(b.get(0), 0, gates);
          backend.gradients().activate(14, b.get(0), b.get(1), b.get(2));
          backend.gradients().activateInput(14, b.get(0), b.get(1), b.get(1), b.get(3), b.get(4));
          return b;
        });
  }

  /** All of exp's range, by steps. */
  @Test
  void activate_manyNumbers() {
    same(
        backend -> {
          List<Buffer> b = buffers(backend, 3, 100, 2000, 1);
          float[] gates = new float[100 * 2000];
          for (int i = 0; i < gates.length; i++) {
            gates[i] = -110 + i * (220f / gates.length);
          }
          backend.write(b.get(0), 0, gates);
          backend.gradients().activate(100, b.get(0), b.get(1), b.get(2));
          return b;
        });
  }

  @ParameterizedTest
  @CsvSource({"1, 16, 1", "3, 64, 4", "17, 130, 1", "65, 2048, 1", "4, 5, 3", "2, 48, 7"})
  void normInput(int rows, int width, int heads) {
    same(
        backend -> {
          List<Buffer> b = buffers(backend, 3, rows, width * heads, 1);
          Buffer weight = buffers(backend, 1, 1, width, 2).getFirst();
          backend.gradients().normInput(b.get(0), weight, 1e-5f, rows, b.get(1), b.get(2));
          return b;
        });
  }

  @ParameterizedTest
  @CsvSource({"1, 1, 0.5", "3, 33, 0.1", "70, 64, 0", "17, 100, 0.999", "5, 4097, 0.3"})
  void dropout(int rows, int width, float p) {
    for (long key : new long[] {0, 42, -1, 0x123456789abcdef0L}) {
      same(
          backend -> {
            List<Buffer> b = buffers(backend, 3, rows, width, 1);
            backend.gradients().dropout(rows - rows / 4, b.get(0), p, key, b.get(1));
            backend.gradients().dropoutInput(rows, b.get(0), p, key, b.get(2));
            return b;
          });
    }
  }

  /** Runs it plainly and with generated code. */
  private static void same(Function<CpuBackend, List<Buffer>> run) {
    List<float[]> expected = values(new CpuBackend(1, new ScalarKernels()), run);
    for (int threads = 1; threads <= 3; threads++) {
      CpuBackend backend = new CpuBackend(threads, TieredKernels.shared());
      assumeTrue(backend.trainingCode() != null, "generated code needs a processor with AVX-512");
      List<float[]> actual = values(backend, run);
      for (int buffer = 0; buffer < expected.size(); buffer++) {
        for (int i = 0; i < expected.get(buffer).length; i++) {
          assertThat(Float.floatToIntBits(actual.get(buffer)[i]))
              .as(
                  "buffer %d, element %d: %s, expected %s",
                  buffer, i, actual.get(buffer)[i], expected.get(buffer)[i])
              .isEqualTo(Float.floatToIntBits(expected.get(buffer)[i]));
        }
      }
    }
  }

  private static List<float[]> values(CpuBackend backend, Function<CpuBackend, List<Buffer>> run) {
    try (backend) {
      List<float[]> values = new ArrayList<>();
      for (Buffer buffer : run.apply(backend)) {
        values.add(backend.read(buffer, 0, buffer.rows()));
        buffer.close();
      }
      return values;
    }
  }

  private static List<Buffer> buffers(
      CpuBackend backend, int count, int rows, int width, long seed) {
    Random random = new Random(seed);
    List<Buffer> buffers = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      float[] values = new float[rows * width];
      for (int j = 0; j < values.length; j++) {
        values[j] = (float) (3 * random.nextGaussian());
      }
      Buffer buffer = backend.buffer(rows, width);
      backend.write(buffer, 0, values);
      buffers.add(buffer);
    }
    return buffers;
  }
}
