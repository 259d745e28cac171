package dev.wardrobe.compute;

/**
 * What to do with one row of logits: draw a token, or score a given one.
 *
 * <p>Log-probabilities are always of the raw distribution (softmax of the logits, no penalty, no
 * temperature). Drawing applies, in this order: repetition penalty (over all of {@code tokens}; a
 * positive logit is divided by it, a negative one multiplied; arXiv 1909.05858), presence and
 * frequency penalty (over the generated part of {@code tokens}), then greedy choice (lowest id wins
 * a tie) if temperature is 0, else temperature, top-k, top-p, min-p, and inversion of the
 * cumulative distribution in id order with a uniform number that depends on nothing but {@code
 * seed} and {@code position}. Where equal logits straddle the border of top-k or top-p, the lower
 * ids stay.
 *
 * @param row row in the logits buffer
 * @param score the token to score without drawing, or -1 to draw
 * @param temperature 0 is greedy
 * @param topK 0 is off
 * @param topP 1 is off
 * @param minP 0 is off
 * @param repetition 1 is off
 * @param tokens prompt, then generated tokens; read up to {@code length}
 * @param promptLength where the generated part begins
 * @param length tokens so far
 * @param seed the request's seed
 * @param position the drawn token's position in its sequence
 * @param top how many of the most probable tokens to report; {@link #ALL} for the whole vocabulary
 */
public record Draw(
    int row,
    int score,
    float temperature,
    int topK,
    float topP,
    float minP,
    float repetition,
    float presence,
    float frequency,
    int[] tokens,
    int promptLength,
    int length,
    long seed,
    int position,
    int top) {
  public static final int ALL = -1;

  /**
   * The outcome.
   *
   * @param token drawn or scored
   * @param logprob of {@code token}, natural logarithm
   * @param topTokens the most probable, descending, lowest id first among equals
   * @param topLogprobs theirs; with {@link Draw#ALL}, {@code topTokens} is empty and this is
   *     indexed by token id
   */
  public record Outcome(int token, float logprob, int[] topTokens, float[] topLogprobs) {}
}
