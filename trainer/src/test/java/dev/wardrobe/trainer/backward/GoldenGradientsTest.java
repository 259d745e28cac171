package dev.wardrobe.trainer.backward;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Losses and gradients of whole models, against transformers, PEFT and bitsandbytes in float32. */
final class GoldenGradientsTest {
  private static final double TOLERANCE = 1e-4;

  @ParameterizedTest
  @CsvSource({
    "llama3, lora", "llama3, rslora", "llama3, dora", "llama3, default_init",
    "qwen3, lora", "qwen3, rslora", "qwen3, dora", "qwen3, default_init"
  })
  void firstStep_hasTheReferencesLossAndGradients(String base, String variant) throws Exception {
    try (GoldenTraining run = new GoldenTraining(base, variant, 2, 0);
        SafetensorsFile expected =
            SafetensorsFile.open(run.folder.resolve("gradients_step0.safetensors"))) {
      double loss = run.accumulate(0);
      double reference = run.curve.path("steps").get(0).path("loss").asDouble();
      assertThat(loss).isCloseTo(reference, within(TOLERANCE * reference));
      assertThat(expected.tensors()).hasSize(run.adapter.parameters().size());
      for (Parameter parameter : run.adapter.parameters()) {
        boolean magnitude = parameter.role() == Parameter.Role.MAGNITUDE;
        TensorInfo tensor = expected.require(parameter.name() + (magnitude ? ".weight" : ""));
        float[] theirs = expected.floats(tensor);
        float[] ours = run.gradient(parameter);
        float largest = 0;
        for (float value : theirs) {
          largest = Math.max(largest, Math.abs(value));
        }
        double worst = 0;
        for (int i = 0; i < theirs.length; i++) {
          worst = Math.max(worst, Math.abs(ours[i] - theirs[i]));
        }
        assertThat(worst).as(parameter.name()).isLessThanOrEqualTo(TOLERANCE * largest);
      }
    }
  }

  @Test
  void gradients_doNotDependOnThreadsNorOnWhatIsKept() throws Exception {
    float[][] expected = gradients(1, 0);
    assertThat(gradients(2, 0)).isDeepEqualTo(expected);
    assertThat(gradients(3, 1)).isDeepEqualTo(expected);
    assertThat(gradients(2, 9)).isDeepEqualTo(expected);
  }

  private static float[][] gradients(int threads, int keep) throws Exception {
    try (GoldenTraining run = new GoldenTraining("llama3", "dora", threads, keep)) {
      run.accumulate(0);
      return run.adapter.parameters().stream().map(run::gradient).toArray(float[][]::new);
    }
  }

  @Test
  void aLossAlone_isThatOfTheForwardPassAndLeavesGradients() throws Exception {
    try (GoldenTraining run = new GoldenTraining("llama3", "lora", 2, 0)) {
      double loss = run.accumulate(0);
      float[] before = run.gradient(run.adapter.parameters().getFirst());
      double sum = 0;
      for (var batch : run.step(0)) {
        sum += run.trainable.loss(batch);
      }
      int targets = run.step(0).stream().mapToInt(b -> b.targetCount()).sum();
      assertThat(sum / targets).isEqualTo(loss);
      assertThat(run.gradient(run.adapter.parameters().getFirst())).isEqualTo(before);
      assertThat(Arrays.equals(before, new float[before.length])).isFalse();
    }
  }
}
