package dev.wardrobe.compute;

/**
 * Rows of logits from which nothing can be drawn: they hold NaN or infinity, or leave no token
 * possible. Nothing was drawn for any row; the others may be sampled again.
 */
public final class NotFiniteException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final int[] draws;

  /**
   * @param draws indices into the list of draws, ascending
   */
  public NotFiniteException(String message, int[] draws) {
    super(message);
    this.draws = draws.clone();
  }

  /**
   * What is wrong with the row of logits {@code (vocabulary)} from {@code at} on, from which
   * nothing could be drawn.
   */
  public static String problem(float[] logits, int at, int vocabulary) {
    for (int i = 0; i < vocabulary; i++) {
      float logit = logits[at + i];
      if (Float.isNaN(logit) || logit == Float.POSITIVE_INFINITY) {
        return "the logit of token %d is %s".formatted(i, logit);
      }
    }
    return "no token has a finite logit";
  }

  /** Which of the draws failed: indices into the list given to {@link Backend#sample}. */
  public int[] draws() {
    return draws.clone();
  }
}
