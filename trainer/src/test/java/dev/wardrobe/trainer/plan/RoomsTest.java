package dev.wardrobe.trainer.plan;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.TextNode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.MemoryUse;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.trainer.Golden;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.backward.TrainableAdapter;
import dev.wardrobe.trainer.backward.TrainableModel;
import dev.wardrobe.trainer.data.MicroBatch;
import dev.wardrobe.trainer.optim.Optimizer;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.PagerOptions;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The plan beside what a run allocates. */
final class RoomsTest {

  @ParameterizedTest
  @CsvSource({
    "llama3, 0, false, 0, 37, adamw",
    "llama3, 0.1, true, 1, 64, adamw8bit",
    "qwen3, 0.1, false, 2, 100, lion",
    "qwen3, 0, true, 0, 11, sgd",
    "qwen2, 0, false, 99, 200, lion8bit",
    "smollm2, 0.2, true, 0, 16, adamw"
  })
  void plan_isWhatIsAllocated(
      String base, double dropout, boolean dora, int keep, int rows, String optimizer)
      throws Exception {
    LoraOptions lora =
        new LoraOptions(
            16,
            16,
            dropout,
            false,
            dora,
            new LinkedHashMap<>(),
            new LinkedHashMap<>(),
            TextNode.valueOf(LoraOptions.ALL_LINEAR),
            Map.of(),
            LoraOptions.Init.RANDOM);
    OptimizerOptions chosen = OptimizerOptions.named(optimizer);
    try (CpuBackend backend = new CpuBackend(2);
        Model model =
            ModelLoader.load(
                Golden.path("models/%s-nf4-dq".formatted(base)), LoadOptions.DEFAULT, backend);
        TrainableAdapter adapter = TrainableAdapter.create(lora, 1, model, backend);
        TrainableModel trainable = new TrainableModel(model, backend, adapter, keep);
        Optimizer state =
            new Optimizer(adapter.parameters(), chosen, backend, PagerOptions.RESIDENT)) {
      PlanOptions options =
          new PlanOptions(
              LoadOptions.DEFAULT, lora, rows, 1, keep, chosen, PlanOptions.Budget.TENTH, false);
      MemoryPlan plan = MemoryPlan.of(model.config(), options, Device.machine());
      trainable.accumulate(batch(rows), 1f / rows, 1);
      long activations =
          plan.bytes("checkpoints")
              + plan.bytes("activations")
              + plan.bytes("scratch")
              + plan.bytes("logits");
      assertThat(activations).isEqualTo(trainable.activationBytes());
      assertThat(plan.bytes("adapter")).isEqualTo(8 * adapter.size());
      assertThat(plan.bytes("optimizer")).isEqualTo(state.paging().residentBytes());
      MemoryUse use = model.memory();
      // Where blocks run across row ends, a matrix keeps more; no real model's do.
      boolean odd = model.config().hidden() % 64 != 0;
      assertThat(use.quantized())
          .isBetween(plan.bytes("base"), plan.bytes("base") * (odd ? 115 : 100) / 100);
      assertThat(plan.bytes("other_weights")).isEqualTo(use.total() - use.quantized());
      assertThat(plan.parameters()).isEqualTo(use.parameters());
    }
  }

  private static MicroBatch batch(int rows) {
    int[] tokens = new int[rows];
    int[] targets = new int[rows];
    for (int i = 0; i < rows; i++) {
      tokens[i] = 1 + i % 7;
      targets[i] = i + 1 == rows ? MicroBatch.NONE : 1 + (i + 1) % 7;
    }
    return new MicroBatch(tokens, targets, new int[] {0, rows});
  }
}
