package dev.wardrobe.trainer.backward;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.trainer.optim.Optimizer;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.PagerOptions;
import dev.wardrobe.trainer.optim.Schedule;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Whole runs of fifty steps, against transformers, PEFT and bitsandbytes in float32. */
final class GoldenCurveTest {
  private static final int STEPS = 50;
  private static final double WEIGHTS_TOLERANCE = 1e-4;

  @ParameterizedTest
  @CsvSource({
    "llama3, lora", "llama3, rslora", "llama3, dora", "llama3, default_init", "llama3, loraplus16",
    "qwen3, lora", "qwen3, rslora", "qwen3, dora", "qwen3, default_init", "qwen3, loraplus16"
  })
  void fiftySteps_haveTheReferencesLossesNormsRatesAndWeights(String base, String variant)
      throws Exception {
    try (GoldenTraining run = new GoldenTraining(base, variant, 2, 0)) {
      OptimizerOptions options = OptimizerOptions.named("adamw").withWeightDecay(0.01);
      if (variant.startsWith("loraplus")) {
        options = options.withLoraPlus(16);
      }
      Schedule schedule =
          new Schedule(Schedule.Kind.COSINE, run.curve.path("peak_lr").asDouble(), 5, STEPS, 1);
      try (Optimizer optimizer =
          new Optimizer(run.adapter.parameters(), options, run.backend, PagerOptions.RESIDENT)) {
        for (int step = 0; step < STEPS; step++) {
          JsonNode expected = run.curve.path("steps").get(step);
          double tolerance = step < 10 ? 1e-4 : step < 20 ? 1e-3 : 1e-2;
          double loss = expected.path("loss").asDouble();
          double norm = expected.path("grad_norm").asDouble();
          String where = "%s %s step %d ".formatted(base, variant, step);
          assertThat(run.accumulate(step))
              .as(where + "loss")
              .isCloseTo(loss, within(tolerance * Math.max(1, loss)));
          assertThat(optimizer.clip(1.0))
              .as(where + "norm")
              .isCloseTo(norm, within(10 * tolerance * norm));
          double rate = schedule.rate(step);
          assertThat(rate).isCloseTo(expected.path("lr").asDouble(), within(1e-12));
          optimizer.step(rate);
          compareWeights(run, step + 1);
        }
      }
    }
  }

  /** After ten steps at most; later ones drift apart by rounding. */
  private static void compareWeights(GoldenTraining run, int steps) throws Exception {
    Path file = run.folder.resolve("weights_after_%d.safetensors".formatted(steps));
    if (steps > 10 || !Files.exists(file)) {
      return;
    }
    try (SafetensorsFile weights = SafetensorsFile.open(file)) {
      for (Parameter parameter : run.adapter.parameters()) {
        TensorInfo tensor = weights.find(parameter.name());
        if (tensor == null) {
          tensor = weights.require(parameter.name() + ".weight");
        }
        float[] expected = weights.floats(tensor);
        float[] ours = run.value(parameter);
        assertThat(ours).hasSize(expected.length);
        for (int i = 0; i < ours.length; i++) {
          assertThat(ours[i])
              .as("%s after %d steps", parameter.name(), steps)
              .isCloseTo(expected[i], within((float) WEIGHTS_TOLERANCE));
        }
      }
    }
  }
}
