package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import java.nio.file.Path;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Whole models in the fast mode against the exact one. */
final class FastModeTest {
  /** Root mean square of the differences, of that of the logits about their mean. */
  private static final double TOLERANCE = 0.02;

  @Test
  void logits_ofTheSmallestModel() throws Exception {
    agree(Golden.smallest().directory("nf4-dq"));
  }

  @Test
  void logits_ofTheDemo() throws Exception {
    agree(Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo", "base"));
  }

  private static void agree(Path directory) throws Exception {
    String refusal = CpuBackend.refusal(MathMode.FAST);
    assumeTrue(refusal == null, () -> "the fast mode is not to be had: " + refusal);
    try (Forward exact = new Forward(directory, LoadOptions.DEFAULT);
        Forward fast = new Forward(directory, LoadOptions.DEFAULT, MathMode.FAST)) {
      assertThat(fast.backend().math()).isEqualTo(MathMode.FAST);
      Random random = new Random(1);
      int vocabulary = exact.model().config().vocabulary();
      int[] tokens = random.ints(53, 0, vocabulary).toArray();
      float[][] expected = exact.logits(tokens, tokens.length);
      float[][] actual = fast.logits(tokens, tokens.length);
      double relative = Deviation.of(expected, actual).together();
      assertThat(relative).as("%s", directory).isGreaterThan(0).isLessThan(TOLERANCE);
      // A piece of fewer rows is not computed otherwise.
      int[] few = random.ints(15, 0, vocabulary).toArray();
      assertThat(fast.logits(few, 15)).isDeepEqualTo(exact.logits(few, 15));
    }
  }
}
