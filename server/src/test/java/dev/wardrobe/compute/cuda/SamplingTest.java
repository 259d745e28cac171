package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.TokenBias;
import dev.wardrobe.compute.cpu.CpuBackend;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Draws on the device are the CPU's, bit by bit, in any company and whatever runs first. */
final class SamplingTest {
  private static final int ROWS = 6;

  /** What a draw gave, so that differences are easy to read. */
  private record Given(int token, int logprob, List<Integer> top, List<Integer> topLogprobs) {
    static Given of(Draw draw) {
      Draw.Outcome outcome = draw.outcome();
      List<Integer> top = new ArrayList<>();
      for (int token : outcome.topTokens()) {
        top.add(token);
      }
      List<Integer> logprobs = new ArrayList<>();
      for (float logprob : outcome.topLogprobs()) {
        logprobs.add(Float.floatToRawIntBits(logprob));
      }
      return new Given(outcome.token(), Float.floatToRawIntBits(outcome.logprob()), top, logprobs);
    }
  }

  /** Rows of many kinds: wide and narrow, with ties, and with tokens that are impossible. */
  private static float[] logits(long seed, int vocabulary) {
    Random random = new Random(seed);
    float[] logits = new float[ROWS * vocabulary];
    for (int row = 0; row < ROWS; row++) {
      double spread = new double[] {0.01, 1, 2.5, 4, 8, 30}[row];
      for (int i = 0; i < vocabulary; i++) {
        float logit = (float) (spread * random.nextGaussian());
        boolean tied = random.nextInt(4) < row % 3;
        boolean impossible = row == 4 && i > 0 && random.nextInt(9) == 0;
        logits[row * vocabulary + i] =
            impossible ? Float.NEGATIVE_INFINITY : tied ? Math.round(2 * logit) / 2f : logit;
      }
    }
    return logits;
  }

  /** As many draws, each with some of what there is switched on; the same for the same seed. */
  private static List<Draw> draws(long seed, int vocabulary, int count) {
    Random random = new Random(seed);
    List<Draw> draws = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      boolean penalized = random.nextInt(4) == 0;
      int length = random.nextInt(40);
      int[] tokens = new int[length + 3];
      for (int t = 0; t < tokens.length; t++) {
        tokens[t] = random.nextInt(random.nextBoolean() ? Math.min(vocabulary, 5) : vocabulary);
      }
      int prompt = length == 0 ? 0 : random.nextInt(length);
      Draw draw =
          new Draw(
              random.nextInt(ROWS),
              random.nextInt(9) == 0 ? random.nextInt(vocabulary) : -1,
              pick(random, 0, 0.2f, 0.7f, 1, 1, 1.7f),
              random.nextInt(3) == 0 ? 1 + random.nextInt(2 * vocabulary) : 0,
              pick(random, 1, 1, 0.95f, 0.9f, 0.5f, 0.999f, random.nextFloat()),
              pick(random, 0, 0, 0, 0.05f, 0.3f),
              penalized ? pick(random, 1, 1.1f, 0.8f, 1.3f) : 1,
              penalized ? pick(random, 0, 0.5f, -0.2f) : 0,
              penalized ? pick(random, 0, 0.1f, 0.3f) : 0,
              tokens,
              prompt,
              length,
              random.nextLong(),
              random.nextInt(5000),
              random.nextInt(5) == 0 ? random.nextInt(25) : random.nextInt(40) == 0 ? -1 : 0);
      if (random.nextInt(5) == 0) {
        draw.biased(bias(random, vocabulary));
      }
      if (random.nextInt(5) == 0) {
        draw.masked(mask(random, vocabulary));
      }
      draws.add(draw);
    }
    return draws;
  }

  private static float pick(Random random, float... from) {
    return from[random.nextInt(from.length)];
  }

  /** Token 0 stays possible, so that there is always one. */
  private static TokenBias bias(Random random, int vocabulary) {
    Map<Integer, Float> values = new HashMap<>();
    for (int i = 0; i < random.nextInt(6); i++) {
      values.put(random.nextInt(vocabulary), (float) (5 * random.nextGaussian()));
    }
    int[] held = vocabulary == 1 ? new int[0] : new int[random.nextInt(4)];
    for (int i = 0; i < held.length; i++) {
      held[i] = 1 + random.nextInt(vocabulary);
    }
    return TokenBias.of(values, held, random.nextInt(30));
  }

  private static long[] mask(Random random, int vocabulary) {
    long[] mask = new long[(vocabulary + 63) / 64];
    long density = random.nextInt(3);
    for (int i = 0; i < mask.length; i++) {
      mask[i] = density == 0 ? random.nextLong() & random.nextLong() & random.nextLong() : -1L;
      mask[i] = density == 2 ? random.nextLong() : mask[i];
    }
    mask[0] |= 1;
    return mask;
  }

  private static List<Given> sample(Backend backend, Step step, Buffer logits, List<Draw> draws) {
    backend.sample(step, logits, draws);
    return draws.stream().map(Given::of).toList();
  }

  private static List<Given> onTheCpu(long seed, int vocabulary, int count) {
    try (Lab lab = new Lab(new CpuBackend(1), b -> ((CpuBackend) b).liveBytes(), seed)) {
      Buffer logits = lab.buffer(logits(seed, vocabulary), vocabulary);
      return sample(lab.backend, lab.step(1), logits, draws(seed, vocabulary, count));
    }
  }

  @ParameterizedTest
  @CsvSource({"1, 100", "2, 300", "33, 1500", "1000, 800", "1025, 400", "4101, 300", "33000, 40"})
  void draws_areTheCpus(int vocabulary, int count) {
    List<Given> expected = onTheCpu(vocabulary, vocabulary, count);
    try (Lab lab = Labs.cuda(vocabulary)) {
      Buffer logits = lab.buffer(logits(vocabulary, vocabulary), vocabulary);
      List<Given> given =
          sample(lab.backend, lab.step(1), logits, draws(vocabulary, vocabulary, count));
      assertThat(given).hasSameSizeAs(expected);
      for (int i = 0; i < count; i++) {
        assertThat(given.get(i)).as("draw %d", i).isEqualTo(expected.get(i));
      }
    }
  }

  /** Nearly all the mass, of numbers that differ in their last bits only, and of equal ones. */
  @Test
  void nucleus_ofNumbersThatAreClose() {
    int vocabulary = 3000;
    Random random = new Random(5);
    float[] logits = new float[vocabulary];
    for (int i = 0; i < vocabulary; i++) {
      logits[i] = i % 3 == 0 ? 1 : 1 + 1e-6f * random.nextInt(9);
    }
    List<Integer> expected;
    try (Lab lab = new Lab(new CpuBackend(1), b -> ((CpuBackend) b).liveBytes(), 5)) {
      expected = nuclei(lab, logits);
    }
    try (Lab lab = Labs.cuda(5)) {
      assertThat(nuclei(lab, logits)).isEqualTo(expected);
    }
  }

  private static List<Integer> nuclei(Lab lab, float[] logits) {
    List<Draw> draws = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      float topP = i / 200f;
      draws.add(new Draw(0, -1, 1, 0, topP, 0, 1, 0, 0, new int[0], 0, 0, 3, 7 * i, 0));
    }
    lab.backend.sample(lab.step(1), lab.buffer(logits, logits.length), draws);
    return draws.stream().map(draw -> draw.outcome().token()).toList();
  }

  @Test
  void draws_inAnyCompany() {
    int vocabulary = 1500;
    List<Given> expected = onTheCpu(3, vocabulary, 40);
    try (Lab lab = Labs.cuda(3)) {
      Buffer logits = lab.buffer(logits(3, vocabulary), vocabulary);
      List<Draw> all = draws(3, vocabulary, 40);
      Collections.reverse(all);
      List<Given> reversed = new ArrayList<>(sample(lab.backend, lab.step(8), logits, all));
      Collections.reverse(reversed);
      assertThat(reversed).isEqualTo(expected);
      Collections.reverse(all);
      List<Given> alone = new ArrayList<>();
      for (Draw draw : all) {
        alone.addAll(sample(lab.backend, lab.step(1), logits, List.of(draw)));
      }
      assertThat(alone).isEqualTo(expected);
    }
  }

  @Test
  void draws_withEveryOrderOfThreads() {
    int vocabulary = 700;
    List<Given> expected = onTheCpu(4, vocabulary, 24);
    Emulator emulator = Emulator.load();
    try (Lab lab = Labs.cuda(4)) {
      Buffer logits = lab.buffer(logits(4, vocabulary), vocabulary);
      for (int seed = 1; seed <= 20; seed++) {
        emulator.seed(seed);
        List<Draw> draws = draws(4, vocabulary, 24);
        assertThat(sample(lab.backend, lab.step(1), logits, draws))
            .as("seed %d", seed)
            .isEqualTo(expected);
      }
    }
  }

  /** Steps of the same sizes are one graph, whatever their draws ask for and however many end. */
  @Test
  void draws_asPartOfAGraph() {
    int vocabulary = 300;
    Emulator emulator = Emulator.load();
    try (Lab lab = Labs.cuda(6)) {
      CudaBackend backend = (CudaBackend) lab.backend;
      Buffer logits = lab.buffer(logits(6, vocabulary), vocabulary);
      for (int round = 0; round < 12; round++) {
        int count = 4 - round % 2;
        List<Given> expected = onTheCpu(6, vocabulary, 50).subList(4 * round, 4 * round + count);
        List<Draw> draws = draws(6, vocabulary, 50).subList(4 * round, 4 * round + count);
        long kernels = emulator.count("cuLaunchKernel");
        long graphs = emulator.count("cuGraphLaunch");
        try (Step step = lab.step(4)) {
          assertThat(sample(backend, step, logits, draws)).isEqualTo(expected);
          if (round > 0) {
            assertThat(emulator.count("cuLaunchKernel")).isEqualTo(kernels);
            assertThat(emulator.count("cuGraphLaunch")).isEqualTo(graphs + 1);
          }
        }
      }
      assertThat(backend.replays()).isEqualTo(11);
    }
  }
}
