package dev.wardrobe.engine;

/**
 * What is left of a prompt's hidden states as they are computed. Sums are in double precision, over
 * the tokens in their order, so that the bits do not depend on how the prompt was cut.
 */
final class Pooled {
  private final Pooling pooling;
  private final int promptLength;
  private double[] sums = new double[0];

  /** Tokens that are in the sums, the first ones. */
  private int added;

  Pooled(Pooling pooling, int promptLength) {
    this.pooling = pooling;
    this.promptLength = promptLength;
  }

  /** Whether every token must be computed, found as its keys and values may be elsewhere. */
  boolean wantsAll() {
    return pooling == Pooling.MEAN;
  }

  /**
   * The first position that is wanted of a run from {@code position} on: a preempted sequence
   * computes some again.
   */
  int from(int position) {
    return pooling == Pooling.LAST ? Math.max(position, promptLength - 1) : added;
  }

  /** Adds the states of tokens from {@link #from} on, {@code (tokens, width)}. */
  void add(float[] states, int width) {
    if (sums.length == 0) {
      sums = new double[width];
    }
    for (int at = 0; at < states.length; at += width) {
      for (int i = 0; i < width; i++) {
        sums[i] += states[at + i];
      }
      added++;
    }
  }

  /** The vector, when all tokens were computed. */
  float[] vector() {
    float[] vector = new float[sums.length];
    for (int i = 0; i < vector.length; i++) {
      vector[i] = (float) (sums[i] / added);
    }
    return vector;
  }
}
