package dev.wardrobe.sampling;

import java.util.Map;

/**
 * How a sequence's tokens are chosen: every value settled and in its range. {@link
 * dev.wardrobe.compute.Draw} says what each one does.
 *
 * @param temperature 0 to 100; 0 is greedy
 * @param topK 0 is off
 * @param topP over 0, to 1; 1 is off
 * @param minP 0 to 1; 0 is off
 * @param repetition 0.01 to 100; 1 is off
 * @param presence -2 to 2; 0 is off
 * @param frequency -2 to 2; 0 is off
 * @param seed any 64 bits
 * @param logitBias what is added to tokens' logits, -100 to 100, at most {@link #MOST_BIASED}
 * @param minTokens tokens before which nothing that would end the sequence is drawn
 */
public record SamplingParams(
    float temperature,
    int topK,
    float topP,
    float minP,
    float repetition,
    float presence,
    float frequency,
    long seed,
    Map<Integer, Float> logitBias,
    int minTokens) {

  /** Tokens that may be biased at once. */
  public static final int MOST_BIASED = 1024;

  /** The same with another seed. */
  public SamplingParams withSeed(long other) {
    return new SamplingParams(
        temperature,
        topK,
        topP,
        minP,
        repetition,
        presence,
        frequency,
        other,
        logitBias,
        minTokens);
  }

  /** Greedy, without penalties. */
  public static final SamplingParams GREEDY = new SamplingParams(0, 0, 1, 0, 1, 0, 0, 0);

  /** Without biases. */
  public SamplingParams(
      float temperature,
      int topK,
      float topP,
      float minP,
      float repetition,
      float presence,
      float frequency,
      long seed) {
    this(temperature, topK, topP, minP, repetition, presence, frequency, seed, Map.of(), 0);
  }

  /**
   * Checks every value.
   *
   * @throws SamplingException if one is out of its range
   */
  public SamplingParams {
    check("temperature", temperature, 0, 100, "0 is greedy");
    if (topK < 0) {
      throw new SamplingException("top_k", "top_k: expected 0 or more (0 is off), got " + topK);
    }
    if (!(topP > 0 && topP <= 1)) {
      throw new SamplingException(
          "top_p", "top_p: expected a number over 0, to 1 (1 is off), got " + topP);
    }
    check("min_p", minP, 0, 1, "0 is off");
    check("repetition_penalty", repetition, 0.01f, 100, "1 is off");
    check("presence_penalty", presence, -2, 2, "0 is off");
    check("frequency_penalty", frequency, -2, 2, "0 is off");
    if (logitBias.size() > MOST_BIASED) {
      throw new SamplingException(
          "logit_bias",
          "logit_bias: expected at most %d tokens, got %d"
              .formatted(MOST_BIASED, logitBias.size()));
    }
    for (float bias : logitBias.values()) {
      check("logit_bias", bias, -100, 100, "0 is off");
    }
    if (minTokens < 0) {
      throw new SamplingException(
          "min_tokens", "min_tokens: expected 0 or more (0 is off), got " + minTokens);
    }
    logitBias = Map.copyOf(logitBias);
  }

  /**
   * The same for the {@code choice}th answer, from 0, to one request: with a seed of its own, 53
   * bits of a mix of the request's and the number; the first one's is the request's.
   */
  public SamplingParams forChoice(int choice) {
    return choice == 0 ? this : withSeed(mix(seed + choice * 0x9E3779B97F4A7C15L) >>> 11);
  }

  /** SplitMix64's output function: neighbouring seeds' choices have nothing in common. */
  private static long mix(long z) {
    long y = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
    y = (y ^ y >>> 27) * 0x94D049BB133111EBL;
    return y ^ y >>> 31;
  }

  // Written so that NaN fails.
  private static void check(String name, float value, float low, float high, String meaning) {
    if (!(value >= low && value <= high)) {
      throw new SamplingException(
          name,
          "%s: expected a number from %s to %s (%s), got %s"
              .formatted(name, plain(low), plain(high), meaning, value));
    }
  }

  private static String plain(float value) {
    return value == (int) value ? Integer.toString((int) value) : Float.toString(value);
  }
}
