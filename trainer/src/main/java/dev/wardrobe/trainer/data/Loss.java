package dev.wardrobe.trainer.data;

/** Which tokens of a row are learned. */
public enum Loss {
  /**
   * What the assistant says, or the completion, and the token that ends it; everything where a row
   * has no such part.
   */
  ASSISTANT,
  /** Every token but the first, which nothing precedes. */
  ALL
}
