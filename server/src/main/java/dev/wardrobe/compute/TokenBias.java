package dev.wardrobe.compute;

import java.util.Map;
import java.util.TreeMap;

/**
 * What a sequence adds to single tokens' logits before they are chosen from, and which tokens it
 * does not take at first.
 *
 * @param tokens each at most once
 * @param values what is added to the logit of the token of the same index
 * @param held tokens that are not drawn as long as fewer than {@code least} were; some may be
 *     outside the vocabulary
 * @param least tokens
 */
public record TokenBias(int[] tokens, float[] values, int[] held, int least) {
  public TokenBias {
    if (tokens.length != values.length) {
      throw new IllegalArgumentException(
          "bias: %d tokens and %d values".formatted(tokens.length, values.length));
    }
  }

  /** Whether there is anything to do when so many tokens were drawn. */
  public boolean applies(int drawn) {
    return tokens.length > 0 || drawn < least;
  }

  /** From values by token. */
  public static TokenBias of(Map<Integer, Float> values, int[] held, int least) {
    int[] tokens = new int[values.size()];
    float[] added = new float[tokens.length];
    int i = 0;
    for (Map.Entry<Integer, Float> entry : new TreeMap<>(values).entrySet()) {
      tokens[i] = entry.getKey();
      added[i++] = entry.getValue();
    }
    return new TokenBias(tokens, added, held, least);
  }
}
