package dev.wardrobe.trainer.loop;

import dev.wardrobe.trainer.optim.Schedule;

/**
 * How a run goes.
 *
 * @param schedule of learning rates; its total is the run's steps
 * @param maxNorm gradients are clipped to it; 0 for not at all
 * @param seed of dropout
 * @param mostSkipped after so many steps in a row whose loss or gradient is not finite, the run
 *     ends
 * @param evalSteps steps between evaluations
 * @param patience evaluations that are no better before the run ends; 0 for any number
 * @param leastGain by how much an evaluation must be better than the best
 * @param sampleSteps steps between samples
 * @param saveSteps steps between checkpoints; 0 for one at the end alone
 */
public record LoopOptions(
    Schedule schedule,
    double maxNorm,
    long seed,
    int mostSkipped,
    int evalSteps,
    int patience,
    double leastGain,
    int sampleSteps,
    int saveSteps) {

  /**
   * @throws IllegalArgumentException if a number is out of range
   */
  public LoopOptions {
    if (!(maxNorm >= 0) || mostSkipped < 1 || evalSteps < 1 || patience < 0) {
      throw new IllegalArgumentException(
          "expected a norm and a patience of at least 0, skipped steps and steps between"
              + " evaluations of at least 1, got %s, %d, %d, %d"
                  .formatted(maxNorm, patience, mostSkipped, evalSteps));
    }
    if (!(leastGain >= 0) || sampleSteps < 1 || saveSteps < 0) {
      throw new IllegalArgumentException(
          "expected a gain and steps between checkpoints of at least 0, steps between samples of at"
              + " least 1, got %s, %d, %d".formatted(leastGain, saveSteps, sampleSteps));
    }
  }

  /** The run's steps. */
  public int steps() {
    return schedule.total();
  }
}
