package dev.wardrobe.tenant;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class CallerTest {
  private static Caller caller(Scope scope, String... adapters) {
    return new Caller(
        "k", "acme", Set.of(scope), List.of(adapters).stream().map(NamePattern::new).toList());
  }

  @ParameterizedTest
  @CsvSource({
    "acme/*, acme/support, true",
    "acme/*, acme/de/support, true",
    "acme/*, acme, false",
    "acme/*, acme2/support, false",
    "acme/*, globex/acme/x, false",
    "acme/*, acme/support@3, true",
    "acme/*, acme/support@prod, true",
    "support, support, true",
    "support, support@1, true",
    "support, support2, false",
    "*-public, a/b-public, true",
    "*-public, a/b-publicx, false",
    "a*b*c, a1b2c, true",
    "a*b*c, abcc, true",
    "a*b*c, acb, false",
    "a.c, abc, false",
  })
  void sees_whatItsNamesMatch(String pattern, String name, boolean seen) {
    assertThat(caller(Scope.INFERENCE, pattern).sees(name)).isEqualTo(seen);
  }

  @Test
  void sees_asARegularExpressionWould() {
    long seed = 20_261_123;
    Random random = new Random(seed);
    for (int i = 0; i < 20_000; i++) {
      String pattern = text(random, "ab*", 1 + random.nextInt(8));
      String name = text(random, "ab", random.nextInt(10));
      assertThat(new NamePattern(pattern).matches(name))
          .as("%s on %s, seed %d", pattern, name, seed)
          .isEqualTo(Pattern.matches(pattern.replace("*", ".*"), name));
    }
  }

  private static String text(Random random, String letters, int length) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < length; i++) {
      text.append(letters.charAt(random.nextInt(letters.length())));
    }
    return text.toString();
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "a b", "acme/?", "a@1", "[a-z]", "ä"})
  void pattern_isRefusedIfNoNameCouldMatch(String text) {
    assertThatThrownBy(() -> new NamePattern(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("adapters: expected names in which * stands for anything");
  }

  @Test
  void admin_mayAndSeesEverything() {
    Caller admin = caller(Scope.ADMIN, "acme/*");
    assertThat(Scope.values()).allMatch(admin::may);
    assertThat(admin.sees("globex/x")).isTrue();
    assertThat(admin.seesAll()).isTrue();
  }

  @Test
  void others_mayWhatTheirScopesSay() {
    Caller reader = caller(Scope.INFERENCE, "*");
    assertThat(reader.may(Scope.INFERENCE)).isTrue();
    assertThat(reader.may(Scope.ADAPTERS)).isFalse();
    assertThat(reader.may(Scope.ADMIN)).isFalse();
    assertThat(reader.seesAll()).isTrue();
    assertThat(caller(Scope.ADAPTERS, "*").may(Scope.INFERENCE)).isFalse();
  }

  @Test
  void anyone_mayEverything() {
    assertThat(Scope.values()).allMatch(Caller.ANYONE::may);
    assertThat(Caller.ANYONE.seesAll()).isTrue();
    assertThat(Caller.ANYONE.tenant()).isNull();
  }
}
