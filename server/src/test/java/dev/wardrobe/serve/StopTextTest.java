package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class StopTextTest {

  private static String all(StopText stops, String... pieces) {
    StringBuilder text = new StringBuilder();
    for (String piece : pieces) {
      text.append(stops.add(piece, true));
    }
    return text + (stops.found() ? "" : stops.flush());
  }

  @Test
  void add_noStops_passesOn() {
    StopText stops = new StopText(List.of());
    assertThat(stops.add("abc", true)).isEqualTo("abc");
    assertThat(stops.found()).isFalse();
  }

  @Test
  void add_acrossPieces() {
    StopText stops = new StopText(List.of("STOP"));
    assertThat(stops.add("go S", true)).isEqualTo("go ");
    assertThat(stops.add("TO", true)).isEmpty();
    assertThat(stops.found()).isFalse();
    assertThat(stops.add("P and more", true)).isEmpty();
    assertThat(stops.found()).isTrue();
    assertThat(stops.add("nothing", true)).isEmpty();
  }

  @Test
  void add_beganButWasNone_isReleased() {
    StopText stops = new StopText(List.of("aab"));
    assertThat(stops.add("aa", true)).isEmpty();
    assertThat(stops.add("aa", true)).isEqualTo("aa");
    assertThat(stops.add("c", true)).isEqualTo("aac");
    assertThat(stops.found()).isFalse();
  }

  @Test
  void add_firstToBeComplete_wins() {
    assertThat(all(new StopText(List.of("abcd", "bc")), "xabcd")).isEqualTo("xa");
    assertThat(all(new StopText(List.of("b", "ab")), "xab")).isEqualTo("x");
    assertThat(all(new StopText(List.of("later", "x")), "later x")).isEmpty();
  }

  @Test
  void flush_releasesWhatMightHaveBecomeOne() {
    StopText stops = new StopText(List.of("###"));
    assertThat(stops.add("end ##", true)).isEqualTo("end ");
    assertThat(stops.flush()).isEqualTo("##");
    assertThat(stops.flush()).isEmpty();
  }

  @Test
  void add_beforeItMayEnd() {
    StopText stops = new StopText(List.of("ab", "bcd"));
    assertThat(stops.add("xab", false)).isEqualTo("xa");
    assertThat(stops.add("cab", false)).isEqualTo("bca");
    assertThat(stops.add("c", true)).isEmpty();
    assertThat(stops.add("d", true)).isEmpty();
    assertThat(stops.found()).isTrue();
  }

  /** However the text is cut, the result is that of looking at it character by character. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void add_anyCuts_sameText(long seed) {
    Random random = new Random(seed);
    for (int round = 0; round < 2000; round++) {
      String text = letters(random, random.nextInt(14));
      List<String> list = new ArrayList<>();
      for (int i = random.nextInt(3); i >= 0; i--) {
        list.add(letters(random, 1 + random.nextInt(4)));
      }
      // Up to here no stop text counts; where a piece crosses it, it does.
      int free = random.nextInt(3) * random.nextInt(5);
      StopText stops = new StopText(list);
      StringBuilder actual = new StringBuilder();
      int ended = 0;
      for (int at = 0; at < text.length(); ) {
        int to = Math.min(text.length(), at + 1 + random.nextInt(4));
        ended = to <= free ? to : ended;
        actual.append(stops.add(text.substring(at, to), to > free));
        at = to;
      }
      boolean found = stops.found();
      if (!found) {
        actual.append(stops.flush());
      }
      String expected = expected(text, list, ended);
      assertThat(actual.toString())
          .as("seed %d: '%s' until %s after %d", seed, text, list, ended)
          .isEqualTo(expected == null ? text : expected);
      assertThat(found).isEqualTo(expected != null);
    }
  }

  private static String letters(Random random, int length) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < length; i++) {
      text.append((char) ('a' + random.nextInt(2)));
    }
    return text.toString();
  }

  private static @Nullable String expected(String text, List<String> stops, int after) {
    for (int end = after + 1; end <= text.length(); end++) {
      String prefix = text.substring(0, end);
      int longest =
          stops.stream().filter(prefix::endsWith).mapToInt(String::length).max().orElse(-1);
      if (longest > 0) {
        return prefix.substring(0, end - longest);
      }
    }
    return null;
  }
}
