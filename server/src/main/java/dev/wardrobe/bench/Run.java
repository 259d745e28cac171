package dev.wardrobe.bench;

import java.util.List;

/**
 * One timed run.
 *
 * @param tokens prefilled or generated in it, over all streams
 * @param seconds it took
 * @param others share of the machine that other processes and the hypervisor took; NaN if unknown
 * @param costs of its operations, if asked for
 */
public record Run(long tokens, double seconds, double others, List<Cost> costs) {
  /** A run that shared more of the machine than this says little. */
  public static final double MOST_OTHERS = 0.06;

  public Run {
    costs = List.copyOf(costs);
  }

  /** Tokens per second. */
  public double rate() {
    return tokens / seconds;
  }

  /** Whether the machine was ours; so it is taken to be where nobody says. */
  public boolean undisturbed() {
    return !(others > MOST_OTHERS);
  }
}
