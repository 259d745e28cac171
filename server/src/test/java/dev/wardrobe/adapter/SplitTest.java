package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.junit.jupiter.api.Test;

/** Proportions, and keys that stay where they are. */
final class SplitTest {
  private static final int KEYS = 100_000;

  private static int[] counts(Split split, int shares, String salt) {
    int[] counts = new int[shares];
    for (int i = 0; i < KEYS; i++) {
      counts[split.choose(salt, "user-" + i)]++;
    }
    return counts;
  }

  @Test
  void keys_divideByTheWeights() {
    // Deviations of the binomial distribution's standard deviation times five.
    int[] counts = counts(new Split(List.of(95, 5)), 2, "support@prod");
    assertThat(counts[1]).isBetween(5_000 - 345, 5_000 + 345);
    assertThat(counts[0] + counts[1]).isEqualTo(KEYS);
    int[] three = counts(new Split(List.of(1, 1, 2)), 3, "support@prod");
    assertThat(three[0]).isBetween(25_000 - 685, 25_000 + 685);
    assertThat(three[1]).isBetween(25_000 - 685, 25_000 + 685);
    assertThat(three[2]).isBetween(50_000 - 790, 50_000 + 790);
  }

  @Test
  void draws_divideByTheWeights() {
    Split split = new Split(List.of(95, 5));
    int second = 0;
    for (int i = 0; i < KEYS; i++) {
      second += split.choose("support@prod", null);
    }
    // Seven standard deviations: once in 10^11 runs.
    assertThat(second).isBetween(5_000 - 483, 5_000 + 483);
  }

  @Test
  void key_staysWhileTheWeightsStay_andMovesAsLittleAsTheyDo() {
    Split before = new Split(List.of(95, 5));
    Split same = new Split(List.of(95, 5));
    Split after = new Split(List.of(90, 10));
    int moved = 0;
    for (int i = 0; i < KEYS; i++) {
      String key = "user-" + i;
      int share = before.choose("a@prod", key);
      assertThat(same.choose("a@prod", key)).isEqualTo(share);
      if (after.choose("a@prod", key) != share) {
        assertThat(share).as("who was with the candidate stays there").isZero();
        moved++;
      }
    }
    assertThat(moved).isBetween(5_000 - 345, 5_000 + 345);
  }

  @Test
  void aliases_divideIndependently() {
    Split split = new Split(List.of(1, 1));
    int same = 0;
    for (int i = 0; i < KEYS; i++) {
      if (split.choose("a@prod", "user-" + i) == split.choose("b@prod", "user-" + i)) {
        same++;
      }
    }
    assertThat(same).isBetween(50_000 - 790, 50_000 + 790);
  }

  @Test
  void hash_isTheSameEverywhere() {
    // Computed by another program: a change of the function would move everyone's keys.
    assertThat(Split.hash("support@prod", "user-1")).isEqualTo(HASH_OF_USER_1);
    assertThat(Split.hash("support@prod", "")).isNotEqualTo(Split.hash("", "support@prod"));
  }

  private static final long HASH_OF_USER_1 = 0xae802a5631bff6ffL;

  @Test
  void at_theEnds() {
    Split split = new Split(List.of(95, 5));
    assertThat(split.at(0)).isZero();
    assertThat(split.at(-1)).isEqualTo(1);
    assertThat(new Split(List.of(7)).choose("a", "b")).isZero();
    Split large = new Split(List.of(Integer.MAX_VALUE, Integer.MAX_VALUE, 1));
    assertThat(large.at(0)).isZero();
    assertThat(large.at(Long.MIN_VALUE)).isEqualTo(1);
    assertThat(large.at(-1)).isEqualTo(2);
  }

  @Test
  void weights_thatAreNone() {
    assertThatThrownBy(() -> new Split(List.of())).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> new Split(List.of(1, 0))).isInstanceOf(IllegalArgumentException.class);
  }
}
