package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.trainer.Golden;
import dev.wardrobe.trainer.backward.TrainableAdapter;
import dev.wardrobe.trainer.backward.TrainableModel;
import dev.wardrobe.trainer.data.DataOptions;
import dev.wardrobe.trainer.data.Dataset;
import dev.wardrobe.trainer.data.MicroBatch;
import dev.wardrobe.trainer.data.ModelText;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A real model on real rows: SmolLM2-135M learns SQL, as with transformers, PEFT, bitsandbytes. */
final class SmolLm2CurveTest {
  @TempDir Path scratch;

  @Test
  void sixtySteps_haveTheReferencesLossesAndEvaluations() throws Exception {
    Path folder = Golden.shared("models/smollm2-135m-instruct-nf4");
    JsonNode golden =
        new JsonMapper()
            .readTree(Files.readAllBytes(Golden.shared("golden/training/smollm2.json")));
    Path init = Golden.shared("models/smollm2-adapters/sql-init");
    Path valid = Golden.shared("data/sql/valid.jsonl");
    try (CpuBackend backend = new CpuBackend(2, MathMode.EXACT);
        Model model = ModelLoader.load(folder, LoadOptions.AS_STORED, backend);
        TrainableAdapter adapter = TrainableAdapter.read(init, model, backend);
        TrainableModel trainable = new TrainableModel(model, backend, adapter, 0);
        Optimizer optimizer =
            new Optimizer(
                adapter.parameters(),
                OptimizerOptions.named("adamw"),
                backend,
                PagerOptions.RESIDENT);
        ModelText text = ModelText.read(folder, model.config().vocabulary(), model.config().eos());
        Dataset held = Dataset.read(List.of(valid), text, DataOptions.of(512).scratch(scratch))) {
      Schedule schedule = new Schedule(Schedule.Kind.COSINE, 1e-3, 10, 70, 1);
      for (int step = 0; step < 60; step++) {
        if (golden.path("eval").has("" + step)) {
          evaluate(trainable, held, golden.path("eval").path("" + step).asDouble());
        }
        JsonNode expected = golden.path("steps").get(step);
        double tolerance = step < 20 ? 2e-3 : 2e-2;
        MicroBatch batch = batch(expected);
        assertThat(batch.targetCount()).isEqualTo(expected.path("targets").asInt());
        trainable.clearGradients();
        double loss =
            trainable.accumulate(batch, 1f / batch.targetCount(), 0) / batch.targetCount();
        assertThat(loss)
            .as("loss of step " + step)
            .isCloseTo(expected.path("loss").asDouble(), within(tolerance));
        double norm = expected.path("grad_norm").asDouble();
        assertThat(optimizer.clip(1.0)).isCloseTo(norm, within(0.1 * norm));
        assertThat(schedule.rate(step)).isCloseTo(expected.path("lr").asDouble(), within(1e-12));
        optimizer.step(schedule.rate(step));
      }
      evaluate(trainable, held, golden.path("eval").path("60").asDouble());
    }
  }

  private static void evaluate(TrainableModel trainable, Dataset held, double expected) {
    double sum = 0;
    int targets = 0;
    for (int row = 0; row < 16; row++) {
      MicroBatch batch = held.rows().batch(row);
      sum += trainable.loss(batch);
      targets += batch.targetCount();
    }
    assertThat(sum / targets).as("evaluation").isCloseTo(expected, within(2e-2));
  }

  private static MicroBatch batch(JsonNode step) {
    int rows = 0;
    int sequences = step.path("input_ids").size();
    for (JsonNode ids : step.path("input_ids")) {
      rows += ids.size();
    }
    int[] tokens = new int[rows];
    int[] targets = new int[rows];
    int[] starts = new int[sequences + 1];
    int row = 0;
    for (int s = 0; s < sequences; s++) {
      JsonNode ids = step.path("input_ids").get(s);
      int first = step.path("first_target").get(s).asInt();
      for (int i = 0; i < ids.size(); i++, row++) {
        tokens[row] = ids.get(i).asInt();
        boolean learned = i + 1 < ids.size() && i + 1 >= first;
        targets[row] = learned ? ids.get(i + 1).asInt() : MicroBatch.NONE;
      }
      starts[s + 1] = row;
    }
    return new MicroBatch(tokens, targets, starts);
  }
}
