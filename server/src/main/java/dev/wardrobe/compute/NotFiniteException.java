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

  /** Which of the draws failed: indices into the list given to {@link Backend#sample}. */
  public int[] draws() {
    return draws.clone();
  }
}
