package dev.wardrobe.trainer.plan;

import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a run is to do, as far as memory depends on it.
 *
 * @param load how the base becomes resident
 * @param sequence tokens of the longest sequence
 * @param batch sequences of a micro-batch
 * @param keep layers that keep their activations instead of computing them again; all of them is no
 *     checkpointing
 * @param pagedBudget of a paged optimizer
 * @param fast whether products take bfloat16; on a GPU activations then are bfloat16 too
 */
public record PlanOptions(
    LoadOptions load,
    LoraOptions lora,
    int sequence,
    int batch,
    int keep,
    OptimizerOptions optimizer,
    Budget pagedBudget,
    boolean fast) {
  /**
   * How much of a paged optimizer's state may be in fast memory.
   *
   * @param share of all of it
   * @param bytes if that is less
   */
  public record Budget(double share, long bytes) {
    /** What {@code wardrobe train} takes if nothing else is said. */
    public static final Budget TENTH = new Budget(0.1, Long.MAX_VALUE);

    /**
     * A budget as it is typed: bytes, or a share such as 10%.
     *
     * @throws IllegalArgumentException if it is neither
     */
    public static Budget of(String option, String text) {
      Matcher percent =
          Pattern.compile("([0-9]{1,3}(?:\\.[0-9]{1,6})?)\\s*%").matcher(text.strip());
      return percent.matches()
          ? new Budget(Double.parseDouble(percent.group(1)) / 100, Long.MAX_VALUE)
          : new Budget(1, Device.bytes(option, text));
    }

    /** Bytes of so many of state. */
    public long of(long state) {
      return Math.min(bytes, (long) (share * state));
    }
  }

  /**
   * @throws IllegalArgumentException if a number is out of range
   */
  public PlanOptions {
    if (sequence < 1 || batch < 1 || (long) sequence * batch > Integer.MAX_VALUE) {
      throw new IllegalArgumentException(
          "sequence and batch: expected at least 1 and fewer than 2^31 tokens, got %d and %d"
              .formatted(sequence, batch));
    }
    if (keep < 0) {
      throw new IllegalArgumentException("kept layers: expected at least 0, got " + keep);
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

  PlanOptions withOptimizer(OptimizerOptions changed, Budget budget) {
    return new PlanOptions(load, lora, sequence, batch, keep, changed, budget, fast);
  }
}
