package dev.wardrobe.grammar;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Our automata against Java's own expressions. */
final class RegexTest {

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "a",
        "ab|ba",
        "(a|b)*abb",
        "a{2,3}b?",
        "(ab){1,}|b{0}",
        "[^a]+",
        "[ab]{2}",
        "a*b*",
        "(a*)*b",
        "(a|ab)(c|bcd)?(d*)",
        "^a|b$",
        "(^a|b)+",
        "a$b?",
        "(a|b$)*",
        "\\x61[\\u0062-\\u{64}]",
        "(?:a|(?<x>b))c",
        "\\w+\\d",
        "[\\w-]+",
        "[]a]",
        "[a\\]]+",
        "é+|ß",
        ".{2}",
        "\\p{L}+",
        "\\P{L}",
        "(?i)aB",
        "\\Aab\\z",
        "a+?b*?",
        "𝒳|[𝒳-𝒵]"
      })
  void whole_isJavasFullMatch(String regex) throws Exception {
    if (regex.equals("[]a]")) {
      assertThatThrownBy(() -> automaton(regex)).hasMessageContaining("empty class");
      return;
    }
    Automaton automaton = automaton(regex);
    Pattern java = Pattern.compile(regex.replace("\\u{64}", "d"));
    for (String text : texts("ab1é𝒳cd-", 4)) {
      assertThat(automaton.matches(bytes(text)))
          .as("%s against %s", regex, text)
          .isEqualTo(java.matcher(text).matches());
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"a", "^a", "a$", "^a$", "^(a|b)c?$", "^a|b$", "", "^$", "b^a", "(^|b)a", "ab*$"})
  void within_isJavasFind(String regex) throws Exception {
    Automaton automaton = Regex.within(regex, Spelling.PLAIN, new Budget());
    Pattern java = Pattern.compile(regex);
    for (String text : texts("abc", 5)) {
      assertThat(automaton.matches(bytes(text)))
          .as("%s in %s", regex, text)
          .isEqualTo(java.matcher(text).find());
    }
  }

  @Test
  void random_expressions_areJavas() throws Exception {
    for (int seed = 0; seed < 300; seed++) {
      String regex = expression(new Random(seed), 4);
      Automaton automaton = automaton(regex);
      Pattern java = Pattern.compile(regex);
      for (String text : texts("ab", 6)) {
        assertThat(automaton.matches(bytes(text)))
            .as("seed %d: %s against %s", seed, regex, text)
            .isEqualTo(java.matcher(text).matches());
      }
    }
  }

  private static String expression(Random random, int depth) {
    return switch (depth == 0 ? random.nextInt(3) : random.nextInt(8)) {
      case 0 -> "a";
      case 1 -> "b";
      case 2 -> "[^a]";
      case 3, 4 -> expression(random, depth - 1) + expression(random, depth - 1);
      case 5 -> "(" + expression(random, depth - 1) + "|" + expression(random, depth - 1) + ")";
      case 6 -> "(" + expression(random, depth - 1) + ")" + "*+?".charAt(random.nextInt(3));
      default -> "(" + expression(random, depth - 1) + "){" + random.nextInt(2) + ",2}";
    };
  }

  @Test
  void classes_areAtMostWhatLanguagesAgreeOn() throws Exception {
    for (String regex : List.of("\\d", "\\w", "\\s", "\\S", "\\W", ".", "\\p{Lu}", "\\p{Nd}")) {
      Automaton automaton = automaton(regex);
      Pattern ascii = Pattern.compile(regex);
      for (int c = 0; c <= Character.MAX_CODE_POINT; c += c < 0x3000 ? 1 : 37) {
        if (c >= 0xd800 && c <= 0xdfff) {
          continue;
        }
        String text = Character.toString(c);
        if (automaton.matches(bytes(text))) {
          assertThat(ascii.matcher(text).matches()).as("%s and %x", regex, c).isTrue();
        }
      }
    }
  }

  @Test
  void properties_areAllOfThem() throws Exception {
    Automaton letters = automaton("\\p{Script=Greek}");
    for (int c = 0; c <= 0xffff; c++) {
      if (c < 0xd800 || c > 0xdfff) {
        assertThat(letters.matches(bytes(Character.toString(c))))
            .isEqualTo(Character.UnicodeScript.of(c) == Character.UnicodeScript.GREEK);
      }
    }
  }

  @Test
  void countedClassesOfManyRanges_areTaken() throws Exception {
    Automaton automaton = automaton("[\\p{L}\\p{N} ,.]{1,200}");
    assertThat(automaton.matches(bytes("é".repeat(199) + "日"))).isTrue();
    assertThat(automaton.matches(bytes("é".repeat(200) + "日"))).isFalse();
    assertThat(automaton.matches(bytes("é!"))).isFalse();
    for (String regex : List.of("\\p{L}", "[^\\p{Lu}aé]", "\\p{Script=Han}|\\S")) {
      Automaton one = automaton(regex);
      Pattern java = Pattern.compile(regex);
      for (int c = 0; c <= Character.MAX_CODE_POINT; c += c < 0x3400 ? 1 : 61) {
        if ((c < 0xd800 || c > 0xdfff) && c != 0x180e && !Regex.isBlank(c)) {
          assertThat(one.matches(bytes(Character.toString(c))))
              .as("%s and %x", regex, c)
              .isEqualTo(java.matcher(Character.toString(c)).matches());
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "(a; 1; not closed",
        "a); 2; not open",
        "*a; 1; nothing to repeat",
        "a**; 3; repetition of a repetition",
        "a++; 3; possessive",
        "(?=a); 1; look-ahead",
        "(?<=a); 1; look-behind",
        "(a)\\1; 4; references back",
        "\\bword; 1; word boundaries",
        "[b-a]; 5; no order",
        "[a; 1; not closed",
        "a{3,2}; 2; the most is less than the least",
        "a{,3}; 2; different ways",
        "a{1000000}; 2; repetitions of more than",
        "\\; 1; backslash at the end",
        "\\q; 1; not supported",
        "\\p{Nope}; 1; not supported",
        "\\x4; 1; hexadecimal",
        "^*; 2; anchor",
        "[[:alpha:]]; 2; named classes"
      })
  void refusals_sayWhereAndWhy(String regex, int character, String why) {
    assertThatThrownBy(() -> automaton(regex))
        .isInstanceOf(GrammarException.class)
        .hasMessageContaining("character " + character)
        .hasMessageContaining(why);
  }

  @ParameterizedTest
  @Timeout(30)
  @ValueSource(
      strings = {
        "((a{1,1000}){1,1000}){1,1000}",
        "(a|b)*a(a|b){30}",
        "(x+x+)+y",
        "(.{1,1000}){1,1000}",
        "(((((((((a*)*)*)*)*)*)*)*)*)*b",
        "[\\p{L}\\p{N}]{100000}",
        "(\\p{L}|\\p{Ll}){1,5000}z"
      })
  void hostile_isAnsweredSoon(String regex) {
    try {
      automaton(regex);
    } catch (GrammarException e) {
      assertThat(e).hasMessageMatching("(?s).*(more than|at most).*");
    }
  }

  @Test
  @Timeout(30)
  void deepNesting_isRefused() {
    assertThatThrownBy(() -> automaton("(".repeat(8_000) + "a" + ")".repeat(8_000)))
        .hasMessageContaining("deeper than");
    assertThatThrownBy(() -> automaton("a".repeat(20_000))).hasMessageContaining("20000");
  }

  private static Automaton automaton(String regex) throws GrammarException {
    return Regex.whole(regex, Spelling.PLAIN, new Budget());
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  /** All texts of up to {@code most} of these characters. */
  private static List<String> texts(String characters, int most) {
    int[] alphabet = characters.codePoints().toArray();
    List<String> texts = new ArrayList<>(List.of(""));
    for (int from = 0, length = 0; length < most; length++) {
      int to = texts.size();
      for (int i = from; i < to; i++) {
        for (int c : alphabet) {
          texts.add(texts.get(i) + Character.toString(c));
        }
      }
      from = to;
    }
    return texts;
  }
}
