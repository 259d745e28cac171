package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Random;
import org.junit.jupiter.api.Test;

final class ElementaryTest {

  @Test
  void exp_withinOneAndATenthUlp() {
    double worst = 0;
    float at = 0;
    // Every 1,009th float of the range in which the result is neither 0 nor infinite.
    for (long bits = 0; bits < 1L << 32; bits += 1009) {
      float x = Float.intBitsToFloat((int) bits);
      if (!(x > -87.3f && x < 88.7f)) {
        continue;
      }
      double exact = StrictMath.exp(x);
      double error = Math.abs(Elementary.exp(x) - exact) / Math.ulp((float) exact);
      if (error > worst) {
        worst = error;
        at = x;
      }
    }
    assertThat(worst).as("at %s", at).isLessThan(1.1);
  }

  @Test
  void exp_ends() {
    assertThat(Elementary.exp(0)).isEqualTo(1);
    assertThat(Elementary.exp(-0f)).isEqualTo(1);
    assertThat(Elementary.exp(Float.NEGATIVE_INFINITY)).isZero();
    assertThat(Elementary.exp(-1e30f)).isZero();
    assertThat(Elementary.exp(Float.POSITIVE_INFINITY)).isEqualTo(Float.POSITIVE_INFINITY);
    assertThat(Elementary.exp(88.73f)).isEqualTo(Float.POSITIVE_INFINITY);
    assertThat(Elementary.exp(88.72f)).isFinite();
    assertThat(Elementary.exp(Float.NaN)).isNaN();
    // Results below the normal range lose precision one bit at a time.
    assertThat(Elementary.exp(-100))
        .isCloseTo((float) StrictMath.exp(-100), within(2 * Float.MIN_VALUE));
  }

  @Test
  void log_againstStrictMath() {
    Random random = new Random(1);
    for (int i = 0; i < 100_000; i++) {
      double x = Math.scalb(1 + random.nextDouble(), random.nextInt(60) - 30);
      double exact = StrictMath.log(x);
      assertThat(Elementary.log(x)).isCloseTo(exact, within(5e-16 * (1 + Math.abs(exact))));
    }
    assertThat(Elementary.log(1)).isZero();
  }

  /** The known answers of the paper's own library, Random123. */
  @Test
  void philox_knownAnswers() {
    assertThat(mixed(0, 0, 0, 0, 0, 0))
        .containsExactly(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    assertThat(mixed(-1, -1, -1, -1, -1, -1))
        .containsExactly(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    assertThat(mixed(0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344))
        .containsExactly(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
  }

  private static int[] mixed(int key0, int key1, int... counter) {
    Philox.mix(key0, key1, counter);
    return counter;
  }

  @Test
  void philox_uniformIsFlat() {
    int[] counts = new int[16];
    for (int i = 0; i < 160_000; i++) {
      double u = Philox.uniform(7, i, new int[4]);
      assertThat(u).isBetween(0.0, Math.nextDown(1.0));
      counts[(int) (u * 16)]++;
    }
    for (int count : counts) {
      assertThat(count).isBetween(9_600, 10_400);
    }
  }
}
