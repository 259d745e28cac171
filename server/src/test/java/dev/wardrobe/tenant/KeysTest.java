package dev.wardrobe.tenant;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.tenant.Keys.Shown;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class KeysTest {
  private static final Instant NOW = Instant.parse("2026-11-23T12:00:00Z");

  @TempDir private Path dir;

  private Path path() {
    return dir.resolve("keys.jsonl");
  }

  private KeyFile file() {
    return new KeyFile(path());
  }

  private String add(String id, Scope... scopes) throws Exception {
    String key = ApiKey.create();
    file().add(Grant.ofKey(key, id, "acme", Set.of(scopes), List.of("acme/*"), null));
    return key;
  }

  private static String why(Shown shown) {
    assertThat(shown).isInstanceOf(Shown.Refused.class);
    return ((Shown.Refused) shown).why();
  }

  private static Grant grant(Shown shown) {
    assertThat(shown).isInstanceOf(Shown.Known.class);
    return ((Shown.Known) shown).grant();
  }

  @Test
  void show_knowsWhatTheFileHolds() throws Exception {
    String one = add("one", Scope.INFERENCE);
    String two = add("two", Scope.INFERENCE, Scope.ADAPTERS);
    Keys keys = Keys.open(path());
    assertThat(keys.size()).isEqualTo(2);
    assertThat(grant(keys.show(one)).id()).isEqualTo("one");
    Caller caller = grant(keys.show(two)).caller();
    assertThat(caller.tenant()).isEqualTo("acme");
    assertThat(caller.scopes()).containsExactlyInAnyOrder(Scope.INFERENCE, Scope.ADAPTERS);
    assertThat(caller.sees("acme/x")).isTrue();
    assertThat(caller.sees("other/x")).isFalse();
    assertThat(Files.readString(path())).doesNotContain("wardrobe_", one, two);
  }

  @Test
  void show_refusesOthersWithoutRepeatingThem() throws Exception {
    String known = add("one", Scope.INFERENCE);
    Keys keys = Keys.open(path());
    String unknown = ApiKey.create();
    assertThat(why(keys.show(unknown))).contains("does not know").doesNotContain(unknown);
    String cut = known.substring(0, 40);
    assertThat(why(keys.show(cut))).contains("a part of one").doesNotContain(cut);
    assertThat(why(keys.show(""))).contains("something else");
    assertThat(why(keys.show("x".repeat(1 << 20)))).contains("something else");
    // Not the hash, which is no secret of the kind that opens doors.
    assertThat(why(keys.show(ApiKey.hash(known)))).contains("something else");
  }

  @Test
  void show_refusesWhatExpired() throws Exception {
    String key = ApiKey.create();
    Instant end = NOW.plus(Duration.ofHours(1));
    file().add(Grant.ofKey(key, "k", "acme", Set.of(Scope.ADMIN), List.of("*"), end));
    assertThat(grant(open(end.minusMillis(1)).show(key)).id()).isEqualTo("k");
    assertThat(why(open(end).show(key))).contains("expired at 2026-11-23T13:00:00Z");
  }

  private Keys open(Instant now) throws KeyFileException {
    return Keys.open(path(), Clock.fixed(now, ZoneOffset.UTC));
  }

  @Test
  void show_knowsCertificatesByAnyOfTheirNames() throws Exception {
    file()
        .add(
            Grant.ofCertificate(
                "gateway.acme.example", "gw", "acme", Set.of(Scope.INFERENCE), List.of("*"), null));
    Keys keys = Keys.open(path());
    assertThat(grant(keys.show(List.of("other", "gateway.acme.example"))).id()).isEqualTo("gw");
    assertThat(keys.show(List.of("other"))).isNull();
    assertThat(keys.show(List.of("gateway.acme.example.evil"))).isNull();
  }

  @Test
  void refresh_takesAChangedFile() throws Exception {
    String one = add("one", Scope.INFERENCE);
    Keys keys = Keys.open(path());
    String two = add("two", Scope.INFERENCE);
    assertThat(why(keys.show(two))).contains("does not know");
    keys.refresh();
    assertThat(grant(keys.show(two)).id()).isEqualTo("two");
    file().remove("one");
    keys.refresh();
    assertThat(why(keys.show(one))).contains("revoked");
    assertThat(grant(keys.show(two)).id()).isEqualTo("two");
  }

  @Test
  void refusal_isOfThoseWhoseKeyIsNoLongerWhatItWas() throws Exception {
    String kept = add("kept", Scope.INFERENCE);
    String changed = add("changed", Scope.INFERENCE);
    String gone = add("gone", Scope.INFERENCE);
    Keys keys = Keys.open(path());
    Caller one = grant(keys.show(kept)).caller();
    Caller two = grant(keys.show(changed)).caller();
    Caller three = grant(keys.show(gone)).caller();
    file().remove("changed");
    file()
        .add(
            Grant.ofKey(
                changed, "changed", "acme", Set.of(Scope.INFERENCE), List.of("acme/one"), null));
    file().remove("gone");
    assertThat(keys.refusal(two)).isNull();
    keys.refresh();
    assertThat(keys.refusal(one)).isNull();
    assertThat(keys.refusal(two)).contains("was changed");
    assertThat(keys.refusal(three)).contains("was revoked");
    assertThat(keys.refusal(grant(keys.show(changed)).caller())).isNull();
  }

  @Test
  void refusal_isOfThoseWhoseKeyHasExpired() throws Exception {
    Instant[] now = {NOW};
    String key = ApiKey.create();
    file()
        .add(Grant.ofKey(key, "k", "acme", Set.of(Scope.ADMIN), List.of("*"), NOW.plusSeconds(60)));
    Keys keys = Keys.open(path(), new Moving(now));
    Caller caller = grant(keys.show(key)).caller();
    assertThat(keys.refusal(caller)).isNull();
    now[0] = NOW.plusSeconds(60);
    assertThat(keys.refusal(caller)).contains("expired at");
  }

  /** Says what it is told to say. */
  private static final class Moving extends Clock {
    private final Instant[] now;

    Moving(Instant[] now) {
      this.now = now;
    }

    @Override
    public Instant instant() {
      return now[0];
    }

    @Override
    public ZoneId getZone() {
      return ZoneOffset.UTC;
    }

    @Override
    public Clock withZone(ZoneId zone) {
      return this;
    }
  }

  @Test
  void refresh_keepsTheOldKeysWhereTheNewFileCannotBeRead() throws Exception {
    String one = add("one", Scope.INFERENCE);
    Keys keys = Keys.open(path());
    String good = Files.readString(path());
    String two = add("two", Scope.INFERENCE);
    Files.writeString(path(), Files.readString(path()) + "{\"id\":");
    keys.refresh();
    assertThat(grant(keys.show(one)).id()).isEqualTo("one");
    assertThat(why(keys.show(two))).contains("does not know");
    Files.delete(path());
    keys.refresh();
    assertThat(grant(keys.show(one)).id()).isEqualTo("one");
    Files.writeString(path(), good.replace("\"one\"", "\"uno\""));
    keys.refresh();
    assertThat(grant(keys.show(one)).id()).isEqualTo("uno");
  }

  @Test
  void add_makesAFileForItsOwnerAlone() throws Exception {
    add("one", Scope.INFERENCE);
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(path())))
        .isEqualTo("rw-------");
    assertThat(file().checkMode()).isNull();
  }

  @Test
  void add_refusesATakenId() throws Exception {
    add("one", Scope.INFERENCE);
    String before = Files.readString(path());
    assertThatThrownBy(() -> add("one", Scope.ADMIN))
        .isInstanceOf(KeyFileException.class)
        .hasMessageContaining("revoke it first");
    assertThat(Files.readString(path())).isEqualTo(before);
  }

  @Test
  void add_endsALineThatWasNotEnded() throws Exception {
    String one = add("one", Scope.INFERENCE);
    Files.writeString(path(), Files.readString(path()).strip());
    String two = add("two", Scope.INFERENCE);
    Keys keys = Keys.open(path());
    assertThat(grant(keys.show(one)).id()).isEqualTo("one");
    assertThat(grant(keys.show(two)).id()).isEqualTo("two");
  }

  @Test
  void remove_leavesEverythingElseAsItWas() throws Exception {
    add("one", Scope.INFERENCE);
    Files.writeString(path(), "# ours\n\n" + Files.readString(path()));
    add("two", Scope.INFERENCE);
    String before = Files.readString(path());
    add("three", Scope.ADMIN);
    Files.setPosixFilePermissions(path(), PosixFilePermissions.fromString("rw-r-----"));
    file().remove("three");
    assertThat(Files.readString(path())).isEqualTo(before);
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(path())))
        .isEqualTo("rw-r-----");
    assertThatThrownBy(() -> file().remove("three")).hasMessageContaining("wardrobe keys list");
    try (var files = Files.list(dir)) {
      assertThat(files).containsExactly(path());
    }
  }

  @Test
  void open_refusesAFileThatOthersMayWriteTo() throws Exception {
    add("one", Scope.INFERENCE);
    Files.setPosixFilePermissions(path(), PosixFilePermissions.fromString("rw-rw-rw-"));
    assertThatThrownBy(() -> Keys.open(path()))
        .isInstanceOf(KeyFileException.class)
        .hasMessageContaining("chmod 600");
    Files.setPosixFilePermissions(path(), PosixFilePermissions.fromString("rw-r--r--"));
    assertThat(file().checkMode()).contains("others may read it");
    assertThat(Keys.open(path()).size()).isEqualTo(1);
  }

  @Test
  void open_saysWhatToDoWithoutAFile() {
    assertThatThrownBy(() -> Keys.open(path()))
        .isInstanceOf(KeyFileException.class)
        .hasMessageContaining("wardrobe keys create makes one");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          []                                              | expected a JSON object
          {"id":                                          | expected a JSON object
          {} {}                                           | expected a JSON object
          {"id":"a","id":"b"}                             | expected a JSON object
          {"key":"x"}                                     | expected the fields adapters, certificate
          {"id":"a"}                                      | either sha256 or certificate, got neither
          {"sha256":"ab"}                                 | 64 lower-case hexadecimal digits
          {"certificate":"x","scopes":["root"]}           | expected inference, adapters or admin, got 'root'
          {"certificate":"x","scopes":"admin"}            | scopes: expected a list of texts
          {"certificate":"x"}                             | scopes: expected a list of texts, got none
          {"certificate":"x","scopes":[],"adapters":["*"],"id":"a","tenant":"t"}      | at least one of
          {"certificate":"x","scopes":["admin"],"adapters":[],"id":"a","tenant":"t"}  | adapters: expected 1 to
          {"certificate":"x","scopes":["admin"],"id":"a","tenant":"t"}                | adapters: expected a list
          {"certificate":"x","scopes":["admin"],"adapters":["*"],"id":"a b","tenant":"t"} | id: expected
          {"certificate":"x","scopes":["admin"],"adapters":["*"],"id":"a","tenant":""}    | tenant: expected
          {"certificate":"x","scopes":["admin"],"adapters":["*"],"id":"a","tenant":"t","expires":"soon"} | expires: expected a time
          """)
  void read_refusesALineThatSaysNothingWhole(String line, String message) throws IOException {
    Files.writeString(path(), "# first\n" + line + "\n");
    assertThatThrownBy(() -> file().read())
        .isInstanceOf(KeyFileException.class)
        .hasMessageContaining("line 2: ")
        .hasMessageContaining(message);
  }

  @Test
  void read_doesNotRepeatAKeyThatWasPutThereByMistake() throws IOException {
    String key = ApiKey.create();
    for (String line :
        List.of(key, "{\"" + key + "\":1}", "{\"sha256\":\"" + key + "\"}", "{\"id\":" + key)) {
      Files.writeString(path(), line);
      assertThatThrownBy(() -> file().read())
          .isInstanceOf(KeyFileException.class)
          .message()
          .doesNotContain(key.substring(9));
    }
  }

  @Test
  void read_refusesAnIdOrAHashTwice() throws Exception {
    add("one", Scope.INFERENCE);
    String line = Files.readString(path());
    Files.writeString(path(), line + line);
    assertThatThrownBy(() -> file().read()).hasMessageContaining("line 2: id");
    Files.writeString(path(), line + line.replace("\"one\"", "\"two\""));
    assertThatThrownBy(() -> file().read()).hasMessageContaining("line 2: expected a key");
  }
}
