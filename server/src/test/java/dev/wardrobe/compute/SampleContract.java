package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Drawing and scoring, against a plain reading of {@link Draw}. */
public abstract class SampleContract extends BackendContract {
  private static final int[] NONE = new int[0];

  /** A draw with everything off; the methods below switch one thing on. */
  private static Draw greedy(int row) {
    return draw(row, 0, 0, 1, 0, 0, 0);
  }

  private static Draw draw(
      int row, float temperature, int topK, float topP, float minP, long seed, int position) {
    return new Draw(row, -1, temperature, topK, topP, minP, 1, 0, 0, NONE, 0, 0, seed, position, 0);
  }

  private static Draw penalties(
      float repetition, float presence, float frequency, int promptLength, int... tokens) {
    return new Draw(
        0,
        -1,
        0,
        0,
        1,
        0,
        repetition,
        presence,
        frequency,
        tokens,
        promptLength,
        tokens.length,
        0,
        0,
        0);
  }

  private static Draw score(int row, int token, int top) {
    return new Draw(row, token, 0, 0, 1, 0, 1, 0, 0, NONE, 0, 0, 0, 0, top);
  }

  private static List<Draw.Outcome> sample(Lab lab, float[] logits, int width, Draw... draws) {
    Buffer buffer = lab.buffer(logits, width);
    lab.backend.sample(lab.step(1), buffer, List.of(draws));
    return Stream.of(draws).map(Draw::outcome).toList();
  }

  private static double[] logprobs(float[] logits) {
    double max = Double.NEGATIVE_INFINITY;
    for (float logit : logits) {
      max = Math.max(max, logit);
    }
    double sum = 0;
    for (float logit : logits) {
      sum += StrictMath.exp(logit - max);
    }
    double[] logprobs = new double[logits.length];
    for (int i = 0; i < logits.length; i++) {
      logprobs[i] = logits[i] - max - StrictMath.log(sum);
    }
    return logprobs;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 15, 16, 17, 1024, 1025, 5000, 50_001})
  void score_wholeDistribution(int width) {
    try (Lab lab = lab(width)) {
      float[] logits = lab.floats(width, 4);
      Draw.Outcome outcome = sample(lab, logits, width, score(0, width / 2, Draw.ALL)).get(0);
      double[] expected = logprobs(logits);
      assertThat(outcome.token()).isEqualTo(width / 2);
      assertThat(outcome.topTokens()).isEmpty();
      assertThat(outcome.topLogprobs()).hasSize(width);
      for (int i = 0; i < width; i++) {
        assertThat((double) outcome.topLogprobs()[i])
            .isCloseTo(expected[i], within(2e-6 * Math.max(1, Math.abs(expected[i]))));
      }
      assertThat(outcome.logprob()).isEqualTo(outcome.topLogprobs()[width / 2]);
    }
  }

  @ParameterizedTest
  @CsvSource({"1, 1", "50, 1", "50, 7", "50, 50", "50, 80", "3000, 20"})
  void top_descendingLowestIdFirst(int width, int n) {
    try (Lab lab = lab(width)) {
      float[] logits = lab.floats(width);
      for (int i = 0; i < width; i += 3) {
        logits[i] = Math.round(logits[i]);
      }
      Draw.Outcome outcome = sample(lab, logits, width, score(0, 0, n)).get(0);
      int[] expected =
          IntStream.range(0, width)
              .boxed()
              .sorted((a, b) -> Float.compare(logits[b], logits[a]))
              .limit(n)
              .mapToInt(i -> i)
              .toArray();
      assertThat(outcome.topTokens()).as("seed %d", lab.seed).isEqualTo(expected);
      double[] logprobs = logprobs(logits);
      for (int i = 0; i < expected.length; i++) {
        assertThat((double) outcome.topLogprobs()[i])
            .isCloseTo(logprobs[expected[i]], within(1e-5));
      }
    }
  }

  @Test
  void greedy_lowestIdWinsATie() {
    try (Lab lab = lab(1)) {
      float[] logits = {1, 3, 2, 3, 3};
      assertThat(sample(lab, logits, 5, greedy(0)).get(0).token()).isEqualTo(1);
    }
  }

  @Test
  void penalties_inTheirOrder() {
    try (Lab lab = lab(2)) {
      float[] logits = {4, 3.9f, -1, 3.5f};
      // Repetition divides positive and multiplies negative logits, of the prompt too, once.
      assertThat(sample(lab, logits, 4, penalties(1.1f, 0, 0, 2, 0, 0)).get(0).token())
          .isEqualTo(1);
      assertThat(sample(lab, logits, 4, penalties(1.01f, 0, 0, 2, 0, 0, 2, 2)).get(0).token())
          .isEqualTo(0);
      // Presence and frequency count the generated part only.
      assertThat(sample(lab, logits, 4, penalties(1, 0.2f, 0, 1, 0)).get(0).token()).isEqualTo(0);
      assertThat(sample(lab, logits, 4, penalties(1, 0.2f, 0, 1, 0, 0)).get(0).token())
          .isEqualTo(1);
      assertThat(sample(lab, logits, 4, penalties(1, 0, 0.06f, 0, 0)).get(0).token()).isEqualTo(0);
      assertThat(sample(lab, logits, 4, penalties(1, 0, 0.06f, 0, 0, 0)).get(0).token())
          .isEqualTo(1);
      // A negative frequency rewards.
      assertThat(sample(lab, logits, 4, penalties(1, 0, -1, 0, 3)).get(0).token()).isEqualTo(3);
      // The log-probability is of the raw distribution.
      Draw.Outcome outcome = sample(lab, logits, 4, penalties(2, 0, 0, 1, 0)).get(0);
      assertThat((double) outcome.logprob())
          .isCloseTo(logprobs(logits)[outcome.token()], within(1e-6));
    }
  }

  @Test
  void bias_beforeEverythingElse() {
    try (Lab lab = lab(13)) {
      float[] logits = {4, 3.9f, -1, 3.5f};
      assertThat(biased(lab, logits, greedy(0), Map.of(3, 0.6f))).isEqualTo(3);
      assertThat(biased(lab, logits, greedy(0), Map.of(0, -0.2f, 1, 0f))).isEqualTo(1);
      assertThat(biased(lab, logits, greedy(0), Map.of(2, 100f))).isEqualTo(2);
      // The penalty is of the biased logit: 3.5 + 1 is more than 4, half of it is less.
      Draw penalized = penalties(2, 0, 0, 1, 3, 3);
      assertThat(biased(lab, logits, penalized, Map.of(3, 1f))).isZero();
      assertThat(biased(lab, logits, penalized, Map.of(3, 5f))).isEqualTo(3);
      // What is left to draw from, and that the log-probability stays that of the raw logits.
      for (int position = 0; position < 50; position++) {
        Draw draw =
            draw(0, 1, 0, 1, 0, 8, position)
                .biased(TokenBias.of(Map.of(0, -100f, 3, -100f), new int[] {1}, 1));
        Draw.Outcome outcome = sample(lab, logits, 4, draw).get(0);
        assertThat(outcome.token()).isEqualTo(2);
        assertThat((double) outcome.logprob()).isCloseTo(logprobs(logits)[2], within(1e-6));
      }
      // Many draws: the distribution is the softmax of the biased logits.
      int n = 20_000;
      Draw[] draws = new Draw[n];
      Arrays.setAll(
          draws, i -> draw(0, 1, 0, 1, 0, 9, i).biased(TokenBias.of(Map.of(2, 4f), new int[0], 0)));
      double[] expected = logprobs(new float[] {4, 3.9f, 3, 3.5f});
      int[] counts = new int[4];
      for (Draw.Outcome outcome : sample(lab, logits, 4, draws)) {
        counts[outcome.token()]++;
      }
      for (int i = 0; i < 4; i++) {
        double p = Math.exp(expected[i]);
        assertThat((double) counts[i]).isCloseTo(n * p, within(4.5 * Math.sqrt(n * p * (1 - p))));
      }
      assertThatThrownBy(() -> biased(lab, logits, greedy(0), Map.of(4, 1f)))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }

  private static int biased(Lab lab, float[] logits, Draw draw, Map<Integer, Float> bias) {
    draw.biased(TokenBias.of(bias, new int[0], 0));
    return sample(lab, logits, logits.length, draw).get(0).token();
  }

  /** Only tokens of the mask are drawn, whatever is kept of the others. */
  @Test
  void mask_leavesNothingElse() {
    try (Lab lab = lab(15)) {
      Random random = new Random(15);
      float[] logits = new float[300];
      for (int i = 0; i < logits.length; i++) {
        logits[i] = 6 * random.nextFloat();
      }
      long[] mask = {0, -1L << 63, 0, 0b101, 1L << 43};
      List<Integer> allowed = List.of(127, 192, 194, 299);
      int best = allowed.stream().max(Comparator.comparing(t -> logits[t])).orElseThrow();
      assertThat(sample(lab, logits, 300, greedy(0).masked(mask)).get(0).token()).isEqualTo(best);
      for (int position = 0; position < 60; position++) {
        Draw[] draws = {
          draw(0, 1.5f, 0, 1, 0, 3, position),
          draw(0, 1.5f, 1, 1, 0, 3, position),
          draw(0, 1.5f, 40, 0.9f, 0, 3, position),
          draw(0, 1.5f, 0, 0.5f, 0, 3, position),
          draw(0, 1.5f, 0, 1, 0.5f, 3, position)
        };
        for (Draw draw : draws) {
          Draw.Outcome outcome = sample(lab, logits, 300, draw.masked(mask)).get(0);
          assertThat(allowed).contains(outcome.token());
          assertThat((double) outcome.logprob())
              .isCloseTo(logprobs(logits)[outcome.token()], within(1e-5));
        }
      }
      // Taken off again, anything may be drawn.
      Draw free = greedy(0).masked(mask).masked(null);
      int top = sample(lab, logits, 300, greedy(0)).get(0).token();
      assertThat(sample(lab, logits, 300, free).get(0).token()).isEqualTo(top);
      // What would end the sequence is held back, unless it is all that may come.
      TokenBias held = TokenBias.of(Map.of(), new int[] {best}, 9);
      Draw holding = greedy(0).biased(held).masked(mask);
      assertThat(sample(lab, logits, 300, holding).get(0).token()).isIn(allowed).isNotEqualTo(best);
      long[] only = new long[5];
      only[best / 64] = 1L << best;
      assertThat(sample(lab, logits, 300, greedy(0).biased(held).masked(only)).get(0).token())
          .isEqualTo(best);
      Draw nothing = greedy(0).masked(new long[5]);
      assertThatThrownBy(() -> sample(lab, logits, 300, nothing))
          .isInstanceOf(NotFiniteException.class);
      Draw tooShort = greedy(0).masked(new long[4]);
      assertThatThrownBy(() -> sample(lab, logits, 300, tooShort))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }

  /** Tokens are held back until enough others were generated; the prompt does not count. */
  @Test
  void bias_holdsTokensBack() {
    try (Lab lab = lab(14)) {
      float[] logits = {1, 4, 3, 2};
      TokenBias bias = TokenBias.of(Map.of(), new int[] {4, 1, 2, -1}, 3);
      int[] tokens = {0, 1, 2, 3, 0, 0, 0};
      int[] expected = {3, 3, 3, 1, 1};
      for (int generated = 0; generated < expected.length; generated++) {
        Draw draw =
            new Draw(0, -1, 0, 0, 1, 0, 1, 0, 0, tokens, 2, 2 + generated, 0, 2 + generated, 0)
                .biased(bias);
        assertThat(sample(lab, logits, 4, draw).get(0).token()).isEqualTo(expected[generated]);
      }
      Draw nothing = greedy(0).biased(TokenBias.of(Map.of(), new int[] {0, 1, 2, 3}, 1));
      assertThatThrownBy(() -> sample(lab, logits, 4, nothing))
          .isInstanceOf(NotFiniteException.class);
      // A row's other draws see the logits as they are.
      assertThat(sample(lab, logits, 4, greedy(0)).get(0).token()).isEqualTo(1);
    }
  }

  @Test
  void draw_dependsOnSeedAndPositionAlone() {
    try (Lab lab = lab(3)) {
      int width = 500;
      float[] logits = lab.floats(2 * width);
      System.arraycopy(logits, 0, logits, width, width);
      Draw[] draws = new Draw[64];
      for (int i = 0; i < 32; i++) {
        draws[i] = draw(0, 1, 0, 1, 0, 5, i);
        draws[63 - i] = draw(1, 1, 0, 1, 0, 5, i);
      }
      List<Draw.Outcome> outcomes = sample(lab, logits, width, draws);
      int[] tokens = new int[32];
      for (int i = 0; i < 32; i++) {
        tokens[i] = outcomes.get(i).token();
        assertThat(outcomes.get(63 - i).token()).isEqualTo(tokens[i]);
        assertThat(sample(lab, logits, width, draws[i]).get(0).token()).isEqualTo(tokens[i]);
      }
      assertThat(IntStream.of(tokens).distinct().count()).isGreaterThan(20);
      assertThat(sample(lab, logits, width, draw(0, 1, 0, 1, 0, 6, 0)).get(0).token())
          .isNotEqualTo(tokens[0]);
    }
  }

  /** 20,000 draws have the frequencies that the settings allow, and nothing else is drawn. */
  @ParameterizedTest
  @CsvSource({
    "1, 0, 1, 0",
    "0.5, 0, 1, 0",
    "2, 0, 1, 0",
    "1, 3, 1, 0",
    "1, 0, 0.7, 0",
    "1, 0, 1, 0.2",
    "1.5, 8, 0.9, 0.1",
    "1, 1, 1, 0",
    "1, 0, 0, 0",
  })
  void draw_frequencies(float temperature, int topK, float topP, float minP) {
    try (Lab lab = lab(4)) {
      int width = 12;
      float[] logits = lab.floats(width, 1.5);
      logits[5] = Float.NEGATIVE_INFINITY;
      double[] expected = filtered(logits, temperature, topK, topP, minP);
      int n = 20_000;
      List<Draw> draws = new ArrayList<>();
      for (int i = 0; i < n; i++) {
        draws.add(draw(0, temperature, topK, topP, minP, 99, i));
      }
      int[] counts = new int[width];
      lab.backend.sample(lab.step(1), lab.buffer(logits, width), draws);
      for (Draw draw : draws) {
        Draw.Outcome outcome = draw.outcome();
        counts[outcome.token()]++;
      }
      for (int i = 0; i < width; i++) {
        if (expected[i] == 0) {
          assertThat(counts[i]).as("token %d, %s", i, Arrays.toString(counts)).isZero();
        }
        double deviation = Math.sqrt(n * expected[i] * (1 - expected[i]));
        assertThat((double) counts[i])
            .as("token %d, %s", i, Arrays.toString(counts))
            .isCloseTo(n * expected[i], within(4.5 * deviation + 1e-9));
      }
    }
  }

  private static double[] filtered(
      float[] logits, double temperature, int topK, double topP, double minP) {
    int width = logits.length;
    double[] scaled = new double[width];
    for (int i = 0; i < width; i++) {
      scaled[i] = logits[i] / temperature;
    }
    Integer[] order =
        IntStream.range(0, width)
            .boxed()
            .sorted((a, b) -> Double.compare(scaled[b], scaled[a]))
            .toArray(Integer[]::new);
    double[] p = new double[width];
    double total = 0;
    for (int i = 0; i < width; i++) {
      if (topK == 0 || i < topK) {
        p[order[i]] = StrictMath.exp(scaled[order[i]] - scaled[order[0]]);
        total += p[order[i]];
      }
    }
    double sum = 0;
    for (int i = 0; i < width; i++) {
      boolean keep = i == 0 || sum < topP * total;
      sum += p[order[i]];
      if (!keep || p[order[i]] < minP) {
        p[order[i]] = 0;
      }
    }
    double left = Arrays.stream(p).sum();
    return Arrays.stream(p).map(x -> x / left).toArray();
  }

  /** Over a whole vocabulary nothing is drawn that the settings leave out. */
  @ParameterizedTest
  @CsvSource({
    "1, 40, 1, 0, 3",
    "1, 0, 0.9, 0, 3",
    "0.7, 0, 0.5, 0, 1",
    "1, 0, 1, 0.05, 2",
    "1.2, 100, 0.8, 0.01, 3",
    "1, 0, 0.99, 0.001, 0.1"
  })
  void draw_wholeVocabulary(float temperature, int topK, float topP, float minP, double spread) {
    try (Lab lab = lab(9)) {
      int width = 128_256;
      float[] logits = lab.floats(width, spread);
      double[] expected = filtered(logits, temperature, topK, topP, minP);
      double allowed = Arrays.stream(expected).filter(p -> p > 0).count();
      Draw[] draws = new Draw[100];
      Arrays.setAll(draws, i -> draw(0, temperature, topK, topP, minP, 5, i));
      List<Draw.Outcome> outcomes = sample(lab, logits, width, draws);
      for (Draw.Outcome outcome : outcomes) {
        assertThat(expected[outcome.token()]).as("token %d", outcome.token()).isPositive();
      }
      // Draws are spread over what is allowed: in id order, halves of the mass come up about alike.
      int below = 0;
      for (Draw.Outcome outcome : outcomes) {
        double before = Arrays.stream(expected, 0, outcome.token()).sum();
        below += before < 0.5 ? 1 : 0;
      }
      assertThat(allowed).isGreaterThan(10);
      assertThat(below).isBetween(25, 75);
    }
  }

  /** Among many equal probabilities the nucleus takes the lowest ids. */
  @Test
  void draw_nucleusOfEquals() {
    try (Lab lab = lab(5)) {
      float[] logits = new float[1000];
      for (int i = 0; i < 200; i++) {
        int token = sample(lab, logits, 1000, draw(0, 1, 0, 0.1f, 0, 3, i)).get(0).token();
        assertThat(token).isBetween(0, 100);
      }
    }
  }

  @Test
  void draw_extremeTemperatures() {
    try (Lab lab = lab(6)) {
      float[] logits = {3e38f, -3e38f, 2.9e38f};
      assertThat(sample(lab, logits, 3, draw(0, 1e-30f, 0, 1, 0, 1, 1)).get(0).token()).isZero();
      assertThat(sample(lab, logits, 3, draw(0, 1e30f, 0, 1, 0, 1, 1)).get(0).token())
          .isBetween(0, 2);
    }
  }

  @Test
  void sample_logitsThatAreNotFinite() {
    try (Lab lab = lab(7)) {
      float inf = Float.POSITIVE_INFINITY;
      float[] logits = {0, 1, -inf, 0, Float.NaN, 2, inf, 0, 0, -inf, -inf, -inf, 1, 2, 3};
      assertThatThrownBy(
              () ->
                  sample(
                      lab,
                      logits,
                      3,
                      greedy(0),
                      score(1, 0, 0),
                      draw(2, 1, 0, 1, 0, 0, 0),
                      greedy(3),
                      greedy(4)))
          .isInstanceOfSatisfying(
              NotFiniteException.class, e -> assertThat(e.draws()).containsExactly(1, 2, 3))
          .hasMessageContaining("row 1: the logit of token 1 is NaN")
          .hasMessageContaining("row 2: the logit of token 0 is Infinity")
          .hasMessageContaining("row 3: no token");
      List<Draw.Outcome> fine = sample(lab, logits, 3, greedy(0), score(0, 2, 3), greedy(4));
      assertThat(fine.get(0).token()).isEqualTo(1);
      assertThat(fine.get(1).logprob()).isEqualTo(-inf);
      assertThat(fine.get(1).topTokens()).containsExactly(1, 0, 2);
      assertThat(fine.get(2).token()).isEqualTo(2);
    }
  }

  @Test
  void sample_drawsThatDoNotFit() {
    try (Lab lab = lab(8)) {
      float[] logits = new float[4];
      for (Draw bad :
          List.of(
              greedy(1),
              greedy(-1),
              score(0, 4, 0),
              draw(0, -1, 0, 1, 0, 0, 0),
              draw(0, Float.NaN, 0, 1, 0, 0, 0),
              penalties(0, 0, 0, 0),
              penalties(2, 0, 0, 0, 4),
              penalties(2, 0, 0, 0, -1),
              penalties(2, 0, 0, 3, 1))) {
        assertThatThrownBy(() -> sample(lab, logits, 4, bad))
            .isInstanceOf(IllegalArgumentException.class);
      }
    }
  }
}
