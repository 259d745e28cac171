package dev.wardrobe.compute;

import org.jspecify.annotations.Nullable;

/**
 * What to do with one row of logits: draw a token, or score a given one; then what came of it.
 *
 * <p>Log-probabilities are always of the raw distribution (softmax of the logits, no mask, no
 * penalty, no temperature). Drawing applies, in this order: its {@link TokenBias}, repetition
 * penalty (over all of {@code tokens}; a positive logit is divided by it, a negative one
 * multiplied; arXiv 1909.05858), presence and frequency penalty (over the generated part of {@code
 * tokens}), its mask (all other tokens are impossible; where the bias holds back all that are left,
 * it gives way), then greedy choice (lowest id wins a tie) if temperature is 0, else temperature,
 * top-k, top-p, min-p, and inversion of the cumulative distribution in id order with a uniform
 * number that depends on nothing but {@code seed} and {@code position}. Where equal logits straddle
 * the border of top-k or top-p, the lower ids stay.
 *
 * <p>One of a sequence's is used for all of its tokens, see {@link #next}: a step is to allocate
 * nothing.
 */
public final class Draw {
  public static final int ALL = -1;

  private static final int[] NO_TOKENS = {};
  private static final float[] NO_LOGPROBS = {};

  private int row;
  private final int score;
  private final float temperature;
  private final int topK;
  private final float topP;
  private final float minP;
  private final float repetition;
  private final float presence;
  private final float frequency;
  private final int[] tokens;
  private final int promptLength;
  private int length;
  private final long seed;
  private int position;
  private final int top;
  private @Nullable TokenBias bias;
  private long @Nullable [] mask;
  private final Outcome outcome = new Outcome();

  /** What a draw gave; the next draw overwrites it. */
  public static final class Outcome {
    private int token = -1;
    private float logprob;
    private int[] topTokens = NO_TOKENS;
    private float[] topLogprobs = NO_LOGPROBS;

    private Outcome() {}

    /** The token drawn or scored; -1 before, and where no number of the row was finite. */
    public int token() {
      return token;
    }

    /** The token's, natural logarithm. */
    public float logprob() {
      return logprob;
    }

    /** The most probable, descending, lowest id first among equals. */
    public int[] topTokens() {
      return topTokens;
    }

    /** Theirs; with {@link Draw#ALL}, {@link #topTokens} is empty and this is by token id. */
    public float[] topLogprobs() {
      return topLogprobs;
    }

    /** For the backend. */
    public void set(int token, float logprob) {
      this.token = token;
      this.logprob = logprob;
    }

    /** For the backend: makes the two arrays so long. */
    public void room(int tokens, int logprobs) {
      if (topTokens.length != tokens) {
        topTokens = new int[tokens];
      }
      if (topLogprobs.length != logprobs) {
        topLogprobs = new float[logprobs];
      }
    }

    /** One that stays as it is. */
    public Outcome copy() {
      Outcome copy = new Outcome();
      copy.token = token;
      copy.logprob = logprob;
      copy.topTokens = topTokens.clone();
      copy.topLogprobs = topLogprobs.clone();
      return copy;
    }
  }

  /**
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
   * @param top how many of the most probable tokens to report; {@link #ALL} for the whole
   *     vocabulary
   */
  public Draw(
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
    this.row = row;
    this.score = score;
    this.temperature = temperature;
    this.topK = topK;
    this.topP = topP;
    this.minP = minP;
    this.repetition = repetition;
    this.presence = presence;
    this.frequency = frequency;
    this.tokens = tokens;
    this.promptLength = promptLength;
    this.length = length;
    this.seed = seed;
    this.position = position;
    this.top = top;
  }

  /** Biases tokens from now on; null for none. */
  public Draw biased(@Nullable TokenBias bias) {
    this.bias = bias;
    return this;
  }

  /**
   * Draws among these tokens from now on: bit {@code t % 64} of number {@code t / 64} says whether
   * token {@code t} is one. The caller's array, read while sampling; null for all tokens.
   */
  public Draw masked(long @Nullable [] mask) {
    this.mask = mask;
    return this;
  }

  /** The same for the sequence's token at {@code position}, which {@code position} precede. */
  public void next(int row, int position) {
    this.row = row;
    this.position = position;
    this.length = position;
  }

  public int row() {
    return row;
  }

  public int score() {
    return score;
  }

  public float temperature() {
    return temperature;
  }

  public int topK() {
    return topK;
  }

  public float topP() {
    return topP;
  }

  public float minP() {
    return minP;
  }

  public float repetition() {
    return repetition;
  }

  public float presence() {
    return presence;
  }

  public float frequency() {
    return frequency;
  }

  /** Prompt, then generated tokens; read up to {@link #length}. */
  public int[] tokens() {
    return tokens;
  }

  public int promptLength() {
    return promptLength;
  }

  public int length() {
    return length;
  }

  public long seed() {
    return seed;
  }

  public int position() {
    return position;
  }

  public int top() {
    return top;
  }

  /** What biases this draw, or null. */
  public @Nullable TokenBias bias() {
    return bias != null && bias.applies(length - promptLength) ? bias : null;
  }

  public long @Nullable [] mask() {
    return mask;
  }

  /**
   * Checks that it fits a buffer of logits.
   *
   * @param i names it in the error
   * @throws IllegalArgumentException if a row or a token is none of the buffer's, or a parameter is
   *     out of range
   */
  public void check(int i, Buffer logits) {
    if (row < 0 || row >= logits.rows()) {
      throw new IllegalArgumentException(
          "draw %d: row %d of %d rows of logits".formatted(i, row, logits.rows()));
    }
    if (score >= logits.width()) {
      throw new IllegalArgumentException(
          "draw %d: token %d of a vocabulary of %d".formatted(i, score, logits.width()));
    }
    if (length > tokens.length || promptLength > length) {
      throw new IllegalArgumentException(
          "draw %d: a prompt of %d and %d tokens in all, but %d given"
              .formatted(i, promptLength, length, tokens.length));
    }
    if (!(temperature >= 0) || !(repetition > 0)) {
      throw new IllegalArgumentException(
          "draw %d: temperature %s (expected at least 0), repetition penalty %s (above 0)"
              .formatted(i, temperature, repetition));
    }
    checkTokens(i, tokens, length, logits);
    TokenBias applied = bias();
    if (applied != null) {
      checkTokens(i, applied.tokens(), applied.tokens().length, logits);
    }
    if (mask != null && mask.length < Math.ceilDiv(logits.width(), 64)) {
      throw new IllegalArgumentException(
          "draw %d: a mask of %d numbers for a vocabulary of %d"
              .formatted(i, mask.length, logits.width()));
    }
  }

  private static void checkTokens(int draw, int[] tokens, int count, Buffer logits) {
    for (int at = 0; at < count; at++) {
      if (tokens[at] < 0 || tokens[at] >= logits.width()) {
        throw new IllegalArgumentException(
            "draw %d: token %d of a vocabulary of %d".formatted(draw, tokens[at], logits.width()));
      }
    }
  }

  /** What came of it, once it was sampled. */
  public Outcome outcome() {
    return outcome;
  }
}
