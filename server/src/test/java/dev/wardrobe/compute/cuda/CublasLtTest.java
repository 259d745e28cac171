package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.offset;

import dev.wardrobe.compute.UnavailableException;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.util.SplittableRandom;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The binding of cuBLASLt, against one that computes on the emulated device. */
@SuppressWarnings("restricted") // native code is the point
final class CublasLtTest {

  /**
   * Tokens, inputs, outputs, floats from a row of results to the next; twice, as a plan is kept.
   */
  @ParameterizedTest
  @CsvSource({"1, 64, 16, 16", "33, 128, 48, 48", "20, 80, 50, 61"})
  void multiply_byRows(int tokens, int in, int out, int stride) throws UnavailableException {
    Emulator emulator = Emulator.load();
    emulator.reset();
    SplittableRandom random = new SplittableRandom(tokens);
    float[] w = numbers(random, out * in);
    float[] x = numbers(random, tokens * in);
    try (Arena arena = Arena.ofConfined();
        Gpu gpu = Gpu.open();
        CublasLt blas =
            CublasLt.load(SymbolLookup.libraryLookup(emulator.cublasLt(), Arena.global()), gpu);
        Gpu.Memory weights = gpu.allocate("w", 2L * w.length);
        Gpu.Memory inputs = gpu.allocate("x", 2L * x.length);
        Gpu.Memory results = gpu.allocate("y", 4L * tokens * stride)) {
      gpu.upload(narrowed(w, arena), weights.address());
      gpu.upload(narrowed(x, arena), inputs.address());
      for (int round = 0; round < 2; round++) {
        gpu.clear(results);
        blas.multiply(
            weights.address(), out, in, inputs.address(), tokens, results.address(), stride);
        float[] y = new float[tokens * stride];
        gpu.download(results.address(), MemorySegment.ofArray(y));
        for (int t = 0; t < tokens; t++) {
          for (int o = 0; o < stride; o++) {
            double sum = 0;
            for (int k = 0; o < out && k < in; k++) {
              sum += (double) w[o * in + k] * x[t * in + k];
            }
            assertThat((double) y[t * stride + o])
                .as("(%d, %d)", t, o)
                .isCloseTo(sum, offset(1e-4));
          }
        }
      }
    }
    assertThat(emulator.reset()).isZero();
  }

  /** Numbers that bf16 has. */
  private static float[] numbers(SplittableRandom random, int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      float value = (float) random.nextDouble(-1, 1);
      values[i] = Float.intBitsToFloat(Float.floatToRawIntBits(value) & 0xffff0000);
    }
    return values;
  }

  private static MemorySegment narrowed(float[] values, Arena arena) {
    MemorySegment halves = arena.allocate(2L * values.length);
    DType.BF16.narrow(values, 0, values.length, halves, 0);
    return halves;
  }
}
