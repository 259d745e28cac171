package dev.wardrobe.trainer.plan;

import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;

/**
 * What a run is to do, as far as memory depends on it.
 *
 * @param load how the base becomes resident
 * @param sequence tokens of the longest sequence
 * @param batch sequences of a micro-batch
 * @param keep layers that keep their activations instead of computing them again; all of them is no
 *     checkpointing
 * @param pagedBudget bytes of optimizer state in fast memory, for a paged optimizer
 * @param fast whether products take bfloat16; on a GPU activations then are bfloat16 too
 */
public record PlanOptions(
    LoadOptions load,
    LoraOptions lora,
    int sequence,
    int batch,
    int keep,
    OptimizerOptions optimizer,
    long pagedBudget,
    boolean fast) {
  /** What stays of a paged optimizer's state in fast memory if nothing else is said. */
  public static final long PAGED_BUDGET = 64L << 20;

  /**
   * @throws IllegalArgumentException if a number is out of range
   */
  public PlanOptions {
    if (sequence < 1 || batch < 1 || (long) sequence * batch > Integer.MAX_VALUE) {
      throw new IllegalArgumentException(
          "sequence and batch: expected at least 1 and fewer than 2^31 tokens, got %d and %d"
              .formatted(sequence, batch));
    }
    if (keep < 0 || pagedBudget < 1) {
      throw new IllegalArgumentException(
          "kept layers and paged budget: expected at least 0 and 1, got %d and %d"
              .formatted(keep, pagedBudget));
    }
  }

  /** Rows of a micro-batch. */
  int rows() {
    return sequence * batch;
  }

  PlanOptions withLora(LoraOptions changed) {
    return new PlanOptions(load, changed, sequence, batch, keep, optimizer, pagedBudget, fast);
  }

  PlanOptions withShape(int tokens, int sequences) {
    return new PlanOptions(load, lora, tokens, sequences, keep, optimizer, pagedBudget, fast);
  }

  PlanOptions withKeep(int layers) {
    return new PlanOptions(load, lora, sequence, batch, layers, optimizer, pagedBudget, fast);
  }

  PlanOptions withOptimizer(OptimizerOptions changed, long budget) {
    return new PlanOptions(load, lora, sequence, batch, keep, changed, budget, fast);
  }
}
