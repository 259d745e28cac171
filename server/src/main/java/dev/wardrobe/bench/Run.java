package dev.wardrobe.bench;

/**
 * One timed run.
 *
 * @param tokens prefilled or generated in it, over all streams
 * @param seconds it took
 * @param others share of the machine that other processes and the hypervisor took; NaN if unknown
 */
public record Run(long tokens, double seconds, double others) {
  /** A run that shared more of the machine than this says little. */
  public static final double MOST_OTHERS = 0.06;

  /** Tokens per second. */
  public double rate() {
    return tokens / seconds;
  }

  /** Whether the machine was ours; so it is taken to be where nobody says. */
  public boolean undisturbed() {
    return !(others > MOST_OTHERS);
  }
}
