package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Program;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Scalar and vector kernels, all widths and any number of threads give the same bits. */
final class CpuExactnessTest {
  private static final long SEED = 20_26;

  @ParameterizedTest
  @CsvSource({"128, 1", "256, 2", "512, 3", "512, 1"})
  void program_sameBitsAtEveryWidth(int bits, int threads) {
    Backend backend = Widths.backend(bits, threads);
    assertThat(backend.describe()).contains(bits + "-bit").contains(threads + " thread");
    try (Lab scalar = Labs.of(new CpuBackend(1, new ScalarKernels()), SEED);
        Lab vector = Widths.lab(backend, SEED)) {
      compare(scalar, vector);
    }
  }

  @ParameterizedTest
  @CsvSource({"2", "3", "7"})
  void program_sameBitsOnAnyThreads(int threads) {
    try (Lab one = Labs.of(new CpuBackend(1, new ScalarKernels()), SEED + threads);
        Lab many = Labs.of(new CpuBackend(threads, new ScalarKernels()), SEED + threads)) {
      compare(one, many);
    }
  }

  /** As it is used: where there is generated code for the processor, with that. */
  @ParameterizedTest
  @ValueSource(ints = {1, 2})
  void program_sameBitsAsItIsUsed(int threads) {
    try (Lab scalar = Labs.of(new CpuBackend(1, new ScalarKernels()), SEED);
        Lab usual = Labs.of(new CpuBackend(threads), SEED)) {
      compare(scalar, usual);
    }
  }

  /** Neither the compiler's work shows, nor the change from plain to vector kernels. */
  @Test
  void program_sameBitsWhenCompiled() {
    try (Lab lab = Labs.of(new CpuBackend(1), SEED)) {
      Map<String, float[]> first = Program.run(lab);
      for (int i = 0; i < 3; i++) {
        try (Lab again = Labs.of(new CpuBackend(2), SEED)) {
          compare(again, first);
        }
      }
    }
  }

  private static void compare(Lab expected, Lab actual) {
    compare(actual, Program.run(expected));
  }

  private static void compare(Lab lab, Map<String, float[]> expected) {
    Map<String, float[]> actual = Program.run(lab);
    assertThat(actual.keySet()).isEqualTo(expected.keySet());
    actual.forEach(
        (what, values) -> lab.assertSame(what, values, expected.getOrDefault(what, new float[0])));
  }
}
