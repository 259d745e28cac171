package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.PatternSyntaxException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

final class PythonRegexTest {

  /** What Python takes and this does not: it depends on more than sets of positions, or is rare. */
  private static final List<String> UNSUPPORTED =
      List.of(
          "a*+", "a++", "a?+", "(a)\\1", "(a)(?(1)aaa|b)", "(?>a)aaa", "(?x)a a", "(?P<a>a)(?P=a)");

  private static final JsonNode EXPECTED = Adapters.expectations("regex.json");

  static List<JsonNode> cases() {
    List<JsonNode> cases = new ArrayList<>();
    EXPECTED.get("cases").forEach(cases::add);
    return cases;
  }

  @ParameterizedTest
  @MethodSource("cases")
  void matches_asPythonDoes(JsonNode expected) {
    String pattern = expected.get("pattern").textValue();
    if (expected.has("error") || UNSUPPORTED.contains(pattern)) {
      assertThatThrownBy(() -> PythonRegex.compile(pattern))
          .as(expected.toString())
          .isInstanceOf(PatternSyntaxException.class);
      return;
    }
    PythonRegex regex = PythonRegex.compile(pattern);
    List<String> all = new ArrayList<>();
    List<String> start = new ArrayList<>();
    for (JsonNode path : EXPECTED.get("paths")) {
      String text = path.textValue();
      if (regex.matchesAll(text, new PythonRegex.Steps())) {
        all.add(text);
      }
      if (regex.matchesStart(text, new PythonRegex.Steps())) {
        start.add(text);
      }
    }
    assertThat(all).as("%s, all", pattern).isEqualTo(texts(expected.get("all")));
    assertThat(start).as("%s, start", pattern).isEqualTo(texts(expected.get("start")));
  }

  private static List<String> texts(JsonNode list) {
    List<String> texts = new ArrayList<>();
    list.forEach(text -> texts.add(text.textValue()));
    return texts;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"(([a-z_.0-9]+)+)+\\$x", "(a+)+b", "((a|a)*)*b", "(a|aa)+$b", "(.*.*.*.*)*b"})
  void matches_whatBacktracksForAgesInNoTime(String pattern) {
    PythonRegex.Steps steps = new PythonRegex.Steps();
    assertThat(PythonRegex.compile(pattern).matchesAll("a".repeat(60), steps)).isFalse();
  }

  @Test
  void matches_countedRepeatsOfCountedRepeatsEnd() {
    PythonRegex regex = PythonRegex.compile("(((a{0,99999}){0,99999}){0,99999}){99999}b");
    assertThatThrownBy(() -> regex.matchesAll("a".repeat(60), new PythonRegex.Steps()))
        .isInstanceOf(PatternSyntaxException.class)
        .hasMessageContaining("steps");
  }

  @Test
  void steps_areSharedByAllMatches() {
    PythonRegex regex = PythonRegex.compile("(a|b)*c");
    PythonRegex.Steps steps = new PythonRegex.Steps();
    assertThatThrownBy(
            () -> {
              for (int i = 0; i < 1_000_000; i++) {
                regex.matchesAll("a".repeat(60), steps);
              }
            })
        .hasMessageContaining("steps");
  }

  @Test
  void compile_deepAndLongPatterns() {
    assertThatThrownBy(() -> PythonRegex.compile("(".repeat(5000) + ")".repeat(5000)))
        .isInstanceOf(PatternSyntaxException.class);
    assertThatThrownBy(() -> PythonRegex.compile("a".repeat(100_000)))
        .isInstanceOf(PatternSyntaxException.class);
    assertThatThrownBy(() -> PythonRegex.compile("a{99999999999999999999}"))
        .isInstanceOf(PatternSyntaxException.class);
  }
}
