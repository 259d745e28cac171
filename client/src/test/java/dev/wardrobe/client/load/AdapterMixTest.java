package dev.wardrobe.client.load;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class AdapterMixTest {
  private static final int DRAWS = 100_000;

  private static Map<String, Integer> drawn(AdapterMix mix) {
    AdapterMix.Chooser chooser = mix.chooser();
    SplittableRandom random = new SplittableRandom(5);
    Map<String, Integer> counts = new HashMap<>();
    for (int i = 0; i < DRAWS; i++) {
      counts.merge(chooser.choose(i, i % 7, random), 1, Integer::sum);
    }
    return counts;
  }

  @Test
  void names_ofListsAndRanges() {
    assertThat(AdapterMix.names("none")).containsExactly("");
    assertThat(AdapterMix.names("sql, a{08..11}x,none"))
        .containsExactly("sql", "a08x", "a09x", "a10x", "a11x", "");
  }

  @Test
  void zipf_followsItsLaw() {
    Map<String, Integer> counts = drawn(AdapterMix.parse("a{0..9}", "zipf:1.0"));
    double sum = 0;
    for (int i = 1; i <= 10; i++) {
      sum += 1.0 / i;
    }
    for (int i = 0; i < 10; i++) {
      assertThat(counts.get("a" + i) / (double) DRAWS)
          .as("a%d", i)
          .isCloseTo(1 / (i + 1.0) / sum, within(0.01));
    }
  }

  @Test
  void uniform_isEven() {
    Map<String, Integer> counts = drawn(AdapterMix.parse("a{0..9}", "uniform"));
    assertThat(counts).hasSize(10);
    assertThat(counts.values()).allMatch(n -> Math.abs(n - DRAWS / 10) < DRAWS / 100);
  }

  @Test
  void roundRobin_andEach_areDealt() {
    SplittableRandom random = new SplittableRandom(1);
    AdapterMix.Chooser turns = AdapterMix.parse("x,y", "round-robin").chooser();
    assertThat(List.of(turns.choose(0, 9, random), turns.choose(1, 9, random)))
        .containsExactly("x", "y");
    AdapterMix.Chooser each = AdapterMix.parse("x,y", "each").chooser();
    assertThat(List.of(each.choose(0, 1, random), each.choose(5, 1, random)))
        .containsExactly("y", "y");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "a,,b", "a{5..3}", "a{0..99999999}"})
  void names_thatAreNone_areRefused(String text) {
    assertThatThrownBy(() -> AdapterMix.names(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("--adapters");
  }

  @ParameterizedTest
  @ValueSource(strings = {"zip", "zipf:", "zipf:x", "zipf:-1", "zipf1", "random"})
  void picks_thatAreNone_areRefused(String text) {
    assertThatThrownBy(() -> AdapterMix.parse("a", text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("--pick");
  }

  @Test
  void lengths_areOneOrARange() {
    assertThat(Lengths.parse("--x", "64")).isEqualTo(new Lengths(64, 64));
    assertThat(Lengths.parse("--x", "16-64")).isEqualTo(new Lengths(16, 64));
    SplittableRandom random = new SplittableRandom(1);
    for (int i = 0; i < 100; i++) {
      assertThat(new Lengths(3, 5).draw(random)).isBetween(3, 5);
    }
    for (String wrong : List.of("0", "5-3", "x", "-4", "99999999999")) {
      assertThatThrownBy(() -> Lengths.parse("--x", wrong))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("--x");
    }
  }
}
