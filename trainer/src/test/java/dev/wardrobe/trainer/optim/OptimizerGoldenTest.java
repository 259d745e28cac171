package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.Parameter.Role;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.assertj.core.data.Offset;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Twenty steps over 600 elements as PyTorch and bitsandbytes take them; for 8 bits, as bitsandbytes
 * would with exact search for the nearest code.
 */
final class OptimizerGoldenTest {
  private static final int STEPS = 20;
  private static final int SIZE = 600;
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  @TempDir Path folder;

  /** Looks at the state file after each step. */
  private interface Check {
    void run(int step, float[] parameters, MemorySegment state);
  }

  @Test
  void adamW_asPyTorch() throws IOException {
    OptimizerOptions options = OptimizerOptions.named("adamw").withWeightDecay(0.1);
    float[][] expected = rows("adamw_torch.p");
    float[] m = floats("adamw_bnb32.m");
    float[] v = floats("adamw_bnb32.v");
    run(
        options,
        0.01,
        (step, p, state) -> {
          assertClose("step " + step, p, expected[step], 1.5e-7f);
          if (step == STEPS - 1) {
            for (int i = 0; i < SIZE; i++) {
              long at = i / 256 * 2048L + i % 256 * 4L;
              assertThat(state.get(FLOAT, at))
                  .isCloseTo(m[i], within(1e-6f * Math.abs(m[i]) + 1e-8f));
              assertThat(state.get(FLOAT, at + 1024)).isCloseTo(v[i], within(1e-6f * v[i]));
            }
          }
        });
  }

  @Test
  void adamW8_asExactSearch() throws IOException {
    OptimizerOptions options =
        OptimizerOptions.named("adamw8bit").withWeightDecay(0.1).withLeastEightBit(0);
    float[][] expected = rows("adamw8_exact_emulated.p");
    byte[] mCodes = bytes("adamw8_exact_emulated.m_codes");
    byte[] vCodes = bytes("adamw8_exact_emulated.v_codes");
    float[] mLargest = floats("adamw8_exact_emulated.m_absmax");
    float[] vLargest = floats("adamw8_exact_emulated.v_absmax");
    int[] other = {0};
    run(
        options,
        0.01,
        (step, p, state) -> {
          assertClose("step " + step, p, expected[step], 1e-6f);
          for (int i = 0; i < SIZE; i++) {
            long record = i / 256 * 520L;
            assertThat(state.get(FLOAT, record))
                .isCloseTo(
                    mLargest[step * 3 + i / 256], within(1e-6f * mLargest[step * 3 + i / 256]));
            assertThat(state.get(FLOAT, record + 4))
                .isCloseTo(
                    vLargest[step * 3 + i / 256], within(1e-6f * vLargest[step * 3 + i / 256]));
            int code = state.get(ValueLayout.JAVA_BYTE, record + 8 + i % 256) & 0xff;
            int second = state.get(ValueLayout.JAVA_BYTE, record + 264 + i % 256) & 0xff;
            other[0] += code == (mCodes[step * SIZE + i] & 0xff) ? 0 : 1;
            other[0] += second == (vCodes[step * SIZE + i] & 0xff) ? 0 : 1;
          }
        });
    assertThat(other[0]).as("codes other than expected").isZero();
  }

  @Test
  void lion_asBitsAndBytes() throws IOException {
    OptimizerOptions options = OptimizerOptions.named("lion").withWeightDecay(0.1);
    float[][] expected = rows("lion_bnb32.p");
    float[] m = floats("lion_bnb32.m");
    run(
        options,
        0.001,
        (step, p, state) -> {
          assertClose("step " + step, p, expected[step], 1.5e-7f);
          if (step == STEPS - 1) {
            for (int i = 0; i < SIZE; i++) {
              assertThat(state.get(FLOAT, i * 4L))
                  .isCloseTo(m[i], within(1e-6f * Math.abs(m[i]) + 1e-8f));
            }
          }
        });
  }

  private void run(OptimizerOptions options, double rate, Check check) throws IOException {
    float[][] gradients = rows("grads");
    try (CpuBackend backend = new CpuBackend(2);
        Buffer value = backend.buffer(2, SIZE / 2);
        Buffer gradient = backend.buffer(2, SIZE / 2);
        Optimizer optimizer =
            new Optimizer(
                List.of(new Parameter("p", Role.A, value, gradient)),
                options,
                backend,
                PagerOptions.RESIDENT)) {
      backend.write(value, 0, floats("p0"));
      for (int step = 0; step < STEPS; step++) {
        backend.write(gradient, 0, gradients[step]);
        optimizer.step(rate);
        Path file = folder.resolve("state");
        optimizer.save(file);
        try (SafetensorsFile saved = SafetensorsFile.open(file)) {
          check.run(step, backend.read(value, 0, 2), saved.data(saved.require("p")));
        }
      }
    }
  }

  private static void assertClose(String what, float[] got, float[] expected, float most) {
    for (int i = 0; i < got.length; i++) {
      assertThat(got[i]).as("%s, element %d", what, i).isCloseTo(expected[i], within(most));
    }
  }

  private static Offset<Float> within(float most) {
    return Offset.offset(most);
  }

  private static float[][] rows(String name) throws IOException {
    float[] all = floats(name);
    float[][] rows = new float[STEPS][];
    for (int i = 0; i < STEPS; i++) {
      rows[i] = Arrays.copyOfRange(all, i * SIZE, (i + 1) * SIZE);
    }
    return rows;
  }

  private static float[] floats(String name) throws IOException {
    try (SafetensorsFile file = golden()) {
      return file.floats(file.require(name));
    }
  }

  private static byte[] bytes(String name) throws IOException {
    try (SafetensorsFile file = golden()) {
      return file.data(file.require(name)).toArray(ValueLayout.JAVA_BYTE);
    }
  }

  private static SafetensorsFile golden() throws IOException {
    try (var in = OptimizerGoldenTest.class.getResourceAsStream("/optimizers/steps.safetensors")) {
      return SafetensorsFile.of(MemorySegment.ofArray(in.readAllBytes()), "steps.safetensors");
    }
  }
}
