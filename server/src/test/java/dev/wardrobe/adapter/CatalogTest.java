package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.time.Instant;
import java.util.List;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class CatalogTest {
  private static final Instant TIME = Instant.parse("2026-01-02T03:04:05.678Z");
  private static final Content A = content(1);
  private static final Content B = content(2);
  private static final Content C = content(3);

  static Content content(int number) {
    return new Content("sha256:" + "%064x".formatted(number), 10 + number, 1000 + number);
  }

  private static Catalog three() throws AdapterException {
    return Catalog.EMPTY
        .publish("support", "1", A, TIME)
        .publish("support", "2", B, TIME.plusSeconds(1))
        .publish("support", "3", C, TIME.plusSeconds(2));
  }

  private static String digest(Catalog catalog, String reference) {
    Catalog.Found found = catalog.find(reference);
    return found == null ? "none" : found.target().main();
  }

  private static void refuses(Reason reason, ThrowingCallable change, String... words) {
    assertThatThrownBy(change)
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(reason))
        .hasMessageContainingAll(words);
  }

  @Test
  void find_nameVersionAliasAndDigest() throws AdapterException {
    Catalog catalog =
        three().setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME);
    assertThat(digest(catalog, "support")).isEqualTo(C.digest());
    assertThat(digest(catalog, "support@latest")).isEqualTo(C.digest());
    assertThat(digest(catalog, "support@2")).isEqualTo(B.digest());
    assertThat(digest(catalog, "support@prod")).isEqualTo(A.digest());
    assertThat(digest(catalog, B.digest())).isEqualTo(B.digest());
    for (String unknown : List.of("", "@", "support@", "support@4", "other", content(9).digest())) {
      assertThat(catalog.find(unknown)).as(unknown).isNull();
    }
    assertThat(catalog.revision()).isEqualTo(4);
  }

  @Test
  void publish_sameAgain_changesNothing() throws AdapterException {
    Catalog catalog = three();
    assertThat(catalog.publish("support", "2", B, TIME.plusSeconds(9))).isSameAs(catalog);
  }

  @Test
  void publish_takenLabel_isRefused() throws AdapterException {
    Catalog catalog =
        three().setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME);
    refuses(Reason.EXISTS, () -> catalog.publish("support", "2", A, TIME), "'2'", B.digest());
    refuses(Reason.EXISTS, () -> catalog.publish("support", "prod", A, TIME), "'prod'", "alias");
    refuses(Reason.INVALID, () -> catalog.publish("support", "latest", A, TIME), "latest");
    // Of 'support' alone the path /v1/adapters/support/versions tells.
    refuses(
        Reason.INVALID,
        () -> catalog.publish("support/versions", "1", A, TIME),
        "/versions",
        "choose another name");
    refuses(Reason.INVALID, () -> catalog.publish("support/aliases", "1", A, TIME), "/aliases");
  }

  @Test
  void nextVersion_isNeverGivenTwice() throws AdapterException {
    assertThat(Catalog.EMPTY.nextVersion("support")).isEqualTo("1");
    Catalog catalog = three().publish("support", "v7-rc", C, TIME);
    assertThat(catalog.nextVersion("support")).isEqualTo("4");
    assertThat(catalog.deleteVersion("support", "3").nextVersion("support")).isEqualTo("4");
  }

  @Test
  void setAlias_checksLabelAndDigests() throws AdapterException {
    Catalog catalog = three().publish("other", "1", content(8), TIME);
    Catalog.Target a = Catalog.Target.of(A.digest());
    refuses(Reason.INVALID, () -> catalog.setAlias("support", "4", a, null, TIME), "'4'");
    refuses(Reason.NOT_FOUND, () -> catalog.setAlias("nobody", "prod", a, null, TIME), "'nobody'");
    refuses(Reason.NOT_FOUND, () -> catalog.setAlias("other", "prod", a, null, TIME), A.digest());
    refuses(
        Reason.NOT_FOUND,
        () ->
            catalog.setAlias(
                "support", "prod", a, new Catalog.Shadow(content(8).digest(), 0.5), TIME),
        content(8).digest());
    Catalog v = catalog.publish("support", "vb", B, TIME);
    refuses(Reason.EXISTS, () -> v.setAlias("support", "vb", a, null, TIME), "'vb'");
  }

  @Test
  void rollback_goesBackStepByStep() throws AdapterException {
    Catalog.Target split =
        new Catalog.Target(
            List.of(new Catalog.Share(A.digest(), 5), new Catalog.Share(B.digest(), 95)));
    Catalog.Shadow shadow = new Catalog.Shadow(C.digest(), 0.25);
    Catalog catalog =
        three()
            .setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME)
            .setAlias("support", "prod", split, shadow, TIME)
            .setAlias("support", "prod", Catalog.Target.of(C.digest()), null, TIME);
    assertThat(digest(catalog, "support@prod")).isEqualTo(C.digest());
    Instant later = TIME.plusSeconds(60);
    Catalog once = catalog.rollback("support", "prod", later);
    assertThat(once.entries().get("support").alias("prod").current().time()).isEqualTo(later);
    Catalog.Found found = once.find("support@prod");
    assertThat(found).isEqualTo(new Catalog.Found("support", "prod", split, shadow));
    assertThat(digest(once, "support@prod")).isEqualTo(B.digest());
    Catalog twice = once.rollback("support", "prod", TIME);
    assertThat(digest(twice, "support@prod")).isEqualTo(A.digest());
    refuses(Reason.NOT_FOUND, () -> twice.rollback("support", "prod", TIME), "'prod'", "earlier");
    assertThat(digest(catalog.rollback("support", "latest", TIME), "support"))
        .isEqualTo(B.digest());
  }

  @Test
  void history_isBounded() throws AdapterException {
    Catalog catalog = three();
    for (int i = 0; i < 100; i++) {
      catalog =
          catalog.setAlias(
              "support", "prod", Catalog.Target.of((i % 2 == 0 ? A : B).digest()), null, TIME);
    }
    Catalog.Entry entry = catalog.entry("support");
    assertThat(entry).isNotNull();
    assertThat(entry.alias("prod").earlier()).hasSize(Catalog.LONGEST_HISTORY);
  }

  @Test
  void deleteVersion_thatAnAliasNeeds_isRefused() throws AdapterException {
    Catalog catalog =
        three()
            .setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME)
            .setAlias(
                "support",
                "canary",
                Catalog.Target.of(B.digest()),
                new Catalog.Shadow(C.digest(), 1),
                TIME);
    refuses(Reason.IN_USE, () -> catalog.deleteVersion("support", "1"), "'1'", "prod");
    refuses(Reason.IN_USE, () -> catalog.deleteVersion("support", "2"), "canary");
    refuses(Reason.IN_USE, () -> catalog.deleteVersion("support", "3"), "canary");
    refuses(Reason.NOT_FOUND, () -> catalog.deleteVersion("support", "4"), "'4'");
    refuses(Reason.IN_USE, () -> catalog.deleteAlias("support", "latest"), "latest");
    Catalog free = catalog.deleteAlias("support", "prod").deleteVersion("support", "1");
    assertThat(free.find("support@1")).isNull();
    assertThat(free.contents()).doesNotContainKey(A.digest());
  }

  @Test
  void undo_asIfNeverSet() throws AdapterException {
    Catalog catalog =
        three().setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME);
    Catalog set =
        catalog.setAlias(
            "support", "prod", Catalog.Target.of(B.digest()), null, TIME.plusSeconds(60));
    assertThat(set.undo("support", "prod").entries()).isEqualTo(catalog.entries());
  }

  @Test
  void numbers_areBoundedAndNotGivenAgain() throws AdapterException {
    Catalog catalog = three().publish("support", "999999999999999", B, TIME);
    assertThat(catalog.nextVersion("support")).isEqualTo("1000000000000000");
    refuses(
        Reason.INVALID,
        () -> catalog.publish("support", "1000000000000000", B, TIME),
        "15 digits",
        "'1000000000000000'");
    assertThat(three().numberFrom("support", 7).nextVersion("support")).isEqualTo("8");
    assertThat(three().numberFrom("support", 2).nextVersion("support")).isEqualTo("4");
    assertThat(three().numberFrom("other", 7).nextVersion("other")).isEqualTo("1");
  }

  @Test
  void deleteVersion_movesLatest_andForgetsItInHistories() throws AdapterException {
    Catalog catalog =
        three()
            .setAlias("support", "prod", Catalog.Target.of(C.digest()), null, TIME)
            .setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME)
            .deleteVersion("support", "3");
    assertThat(digest(catalog, "support")).isEqualTo(B.digest());
    refuses(Reason.NOT_FOUND, () -> catalog.rollback("support", "prod", TIME), "earlier");
    Catalog one = catalog.deleteAlias("support", "prod").deleteVersion("support", "2");
    assertThat(digest(one, "support")).isEqualTo(A.digest());
    assertThat(one.deleteVersion("support", "1").entries()).isEmpty();
  }

  /** Not to the newest version: that may be the one that was rolled back. */
  @Test
  void deleteVersion_thatLatestSharesWithOthers_leavesItToThose() throws AdapterException {
    Catalog.Target split =
        new Catalog.Target(
            List.of(new Catalog.Share(A.digest(), 95), new Catalog.Share(B.digest(), 5)));
    Catalog.Shadow shadow = new Catalog.Shadow(B.digest(), 0.5);
    for (Catalog.Target target : List.of(split, Catalog.Target.of(A.digest()))) {
      Catalog.Alias latest =
          three()
              .setAlias("support", Catalog.LATEST, target, shadow, TIME)
              .deleteVersion("support", "2")
              .entry("support")
              .alias(Catalog.LATEST);
      assertThat(latest.shadow()).isNull();
      assertThat(latest.target().shares())
          .containsExactly(new Catalog.Share(A.digest(), target.shares().getFirst().weight()));
    }
  }

  @Test
  void deleteVersion_ofContentThatAnotherVersionHas_keepsAliases() throws AdapterException {
    Catalog catalog =
        three()
            .publish("support", "again", A, TIME)
            .setAlias("support", "prod", Catalog.Target.of(A.digest()), null, TIME)
            .deleteVersion("support", "1");
    assertThat(digest(catalog, "support@prod")).isEqualTo(A.digest());
    refuses(Reason.IN_USE, () -> catalog.deleteVersion("support", "again"), "prod");
  }

  @Test
  void target_refusesWhatIsNoSplit() {
    Catalog.Share a = new Catalog.Share(A.digest(), 1);
    assertThatThrownBy(() -> new Catalog.Target(List.of())).hasMessageContaining("1 to 16");
    assertThatThrownBy(() -> new Catalog.Target(List.of(a, a))).hasMessageContaining("twice");
    assertThatThrownBy(() -> new Catalog.Target(List.of(new Catalog.Share(A.digest(), 0))))
        .hasMessageContaining("weights");
    assertThatThrownBy(() -> new Catalog.Shadow(A.digest(), Double.NaN))
        .hasMessageContaining("fraction");
    assertThatThrownBy(() -> new Catalog.Shadow(A.digest(), 1.5)).hasMessageContaining("fraction");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "..",
        "../x",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "a@b",
        "a:b",
        "a b",
        "a\u0000",
        "a\nb",
        "a..b",
        "a__b",
        ".a",
        "a.",
        "-a",
        "a---b",
        "é",
        "a\\b",
        "a+b",
        "sha256:00"
      })
  void name_thatOtherToolsOrFilesWouldMisread_isRefused(String name) {
    refuses(Reason.INVALID, () -> Catalog.EMPTY.publish(name, "1", A, TIME), "name");
  }

  @Test
  void name_lengthIsBounded() throws AdapterException {
    assertThat(Catalog.EMPTY.publish("a".repeat(200), "1", A, TIME).entries()).hasSize(1);
    refuses(Reason.INVALID, () -> Catalog.EMPTY.publish("a".repeat(201), "1", A, TIME), "200", "…");
    refuses(
        Reason.INVALID, () -> Catalog.EMPTY.publish("a", "1".repeat(65), A, TIME), "64", "version");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "..", "a/b", "a@b", "1:2", " 1", "1\n", "--", "1.", "é"})
  void label_thatOtherToolsWouldMisread_isRefused(String label) {
    refuses(Reason.INVALID, () -> Catalog.EMPTY.publish("a", label, A, TIME), "version");
    refuses(
        Reason.INVALID,
        () -> three().setAlias("support", label, Catalog.Target.of(A.digest()), null, TIME),
        "alias");
  }

  @ParameterizedTest
  @ValueSource(strings = {"a", "A1", "team/support", "a-b_c.d", "a--b", "0", "my.org/x/y"})
  void name_plain_isTaken(String name) throws AdapterException {
    assertThat(Catalog.EMPTY.publish(name, "v1.0+b-2", A, TIME).find(name + "@v1.0+b-2"))
        .isNotNull();
  }
}
