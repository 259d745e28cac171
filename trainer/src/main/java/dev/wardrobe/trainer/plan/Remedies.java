package dev.wardrobe.trainer.plan;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions.Rule;
import dev.wardrobe.trainer.plan.PlanOptions.Budget;
import java.util.ArrayList;
import java.util.List;

/**
 * Options that would make a run fit: each alone if one does, else several, in the order in which
 * they cost least.
 *
 * @param alone changes of which any one is enough
 * @param together changes that are enough together, if none is alone; empty if not even all are
 */
record Remedies(List<Remedy> alone, List<Remedy> together) {

  /**
   * A change.
   *
   * @param option as it is typed
   * @param total bytes of fast memory with it, and with those before it if they come together
   */
  record Remedy(String option, long total) {}

  private record Change(String option, PlanOptions options) {}

  private interface Step {
    List<Change> from(PlanOptions options, ModelConfig config);
  }

  private static final List<Step> STEPS =
      List.of(
          Remedies::checkpointing,
          Remedies::paging,
          Remedies::eightBits,
          Remedies::smallerBatch,
          Remedies::shorter,
          Remedies::lowerRank);

  static Remedies of(ModelConfig config, PlanOptions options, Device device)
      throws ModelException, AdapterException {
    List<Remedy> alone = new ArrayList<>();
    for (Step step : STEPS) {
      for (Change change : step.from(options, config)) {
        MemoryPlan plan = MemoryPlan.of(config, change.options(), device);
        if (plan.fits()) {
          alone.add(new Remedy(change.option(), plan.total()));
          break;
        }
      }
    }
    if (!alone.isEmpty()) {
      return new Remedies(alone, List.of());
    }
    List<Remedy> together = new ArrayList<>();
    PlanOptions changed = options;
    long before = MemoryPlan.of(config, options, device).total();
    for (Step step : STEPS) {
      for (Change change : step.from(changed, config)) {
        MemoryPlan plan = MemoryPlan.of(config, change.options(), device);
        if (plan.total() >= before) {
          continue;
        }
        // Of one option the mildest that is enough, or else the strongest there is.
        changed = change.options();
        before = plan.total();
        together.removeIf(r -> name(r.option()).equals(name(change.option())));
        together.add(new Remedy(change.option(), plan.total()));
        if (plan.fits()) {
          return new Remedies(List.of(), together);
        }
      }
    }
    return new Remedies(List.of(), List.of());
  }

  private static String name(String option) {
    return option.substring(0, option.indexOf(' '));
  }

  private static List<Change> checkpointing(PlanOptions options, ModelConfig config) {
    return options.keep() == 0
        ? List.of()
        : List.of(new Change("--keep-layers 0", options.withKeep(0)));
  }

  private static List<Change> paging(PlanOptions options, ModelConfig config) {
    OptimizerOptions now = options.optimizer();
    if (now.rule() == Rule.SGD) {
      return List.of();
    }
    String name = "paged_%s_%s".formatted(rule(now), now.eightBit() ? "8bit" : "32bit");
    OptimizerOptions paged = OptimizerOptions.named(name);
    if (!now.paged()) {
      return List.of(new Change("--optim " + name, options.withOptimizer(paged, Budget.TENTH)));
    }
    Budget less = new Budget(0.01, Long.MAX_VALUE);
    return List.of(new Change("--paged-budget 1%", options.withOptimizer(now, less)));
  }

  private static List<Change> eightBits(PlanOptions options, ModelConfig config) {
    OptimizerOptions now = options.optimizer();
    if (now.eightBit() || now.rule() == Rule.SGD) {
      return List.of();
    }
    String name = now.paged() ? "paged_%s_8bit".formatted(rule(now)) : rule(now) + "8bit";
    return List.of(
        new Change(
            "--optim " + name,
            options.withOptimizer(OptimizerOptions.named(name), options.pagedBudget())));
  }

  private static String rule(OptimizerOptions options) {
    return options.rule() == Rule.LION ? "lion" : "adamw";
  }

  private static List<Change> smallerBatch(PlanOptions options, ModelConfig config) {
    List<Change> changes = new ArrayList<>();
    for (int batch = options.batch() / 2; batch >= 1; batch /= 2) {
      changes.add(
          new Change("--batch-size " + batch, options.withShape(options.sequence(), batch)));
    }
    return changes;
  }

  private static List<Change> shorter(PlanOptions options, ModelConfig config) {
    List<Change> changes = new ArrayList<>();
    for (int tokens = options.sequence() / 2; tokens >= 128; tokens /= 2) {
      changes.add(new Change("--seq-len " + tokens, options.withShape(tokens, options.batch())));
    }
    return changes;
  }

  private static List<Change> lowerRank(PlanOptions options, ModelConfig config) {
    List<Change> changes = new ArrayList<>();
    LoraOptions lora = options.lora();
    for (int rank = lora.rank() / 2; rank >= 4; rank /= 2) {
      changes.add(
          new Change(
              "--rank " + rank,
              options.withLora(
                  new LoraOptions(
                      rank,
                      lora.alpha(),
                      lora.dropout(),
                      lora.rsLora(),
                      lora.dora(),
                      lora.rankPattern(),
                      lora.alphaPattern(),
                      lora.targets(),
                      lora.further(),
                      lora.init()))));
    }
    return changes;
  }
}
