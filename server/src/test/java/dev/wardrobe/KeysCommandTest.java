package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.tenant.Keys;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** {@code wardrobe keys}. */
final class KeysCommandTest {
  @TempDir private Path dir;
  private String out = "";
  private String err = "";

  private int keys(String... words) {
    StringWriter standard = new StringWriter();
    StringWriter errors = new StringWriter();
    CommandLine commands =
        Main.commandLine().setOut(new PrintWriter(standard)).setErr(new PrintWriter(errors));
    List<String> all = new ArrayList<>(List.of("keys"));
    all.addAll(List.of(words));
    all.addAll(2, List.of("--keys", path() + ""));
    int code = commands.execute(all.toArray(String[]::new));
    out = standard.toString();
    err = errors.toString();
    return code;
  }

  private Path path() {
    return dir.resolve("keys.jsonl");
  }

  @Test
  void create_printsTheKeyAloneAndKeepsItsHash() throws Exception {
    assertThat(keys("create", "--tenant", "acme", "--adapters", "acme/*,shared")).isZero();
    String key = out.strip();
    assertThat(out).matches("wardrobe_[0-9A-Za-z]{49}\\R");
    assertThat(err).contains("acme-1: key of tenant acme for inference, adapters acme/*, shared");
    assertThat(err).doesNotContain(key);
    assertThat(Files.readString(path())).doesNotContain(key);
    Keys known = Keys.open(path());
    assertThat(known.show(key)).isInstanceOf(Keys.Shown.Known.class);
    assertThat(keys("create", "--tenant", "acme", "--scope", "inference,adapters")).isZero();
    assertThat(err).startsWith("acme-2: ").contains("inference, adapters, adapters *");
  }

  @Test
  void list_showsWhatThereIs() throws Exception {
    keys("create", "--tenant", "acme", "--expires", "90d");
    String key = out.strip();
    keys("create", "--tenant", "ops", "--scope", "admin", "--certificate", "ops.example");
    assertThat(out).isEmpty();
    assertThat(keys("list")).isZero();
    assertThat(out.lines()).hasSize(3);
    assertThat(out).contains("acme-1", "certificate ops.example", "never").doesNotContain(key);
    assertThat(keys("list", "--json")).isZero();
    JsonNode list = new ObjectMapper().readTree(out);
    assertThat(list.size()).isEqualTo(2);
    assertThat(list.path(0).has("expires")).isTrue();
    assertThat(list.path(1).path("scopes").path(0).asText()).isEqualTo("admin");
    assertThat(out).doesNotContain("sha256");
  }

  @Test
  void revoke_takesAwayOneKey() throws Exception {
    keys("create", "--tenant", "acme");
    String one = out.strip();
    keys("create", "--tenant", "acme");
    String two = out.strip();
    assertThat(keys("revoke", "acme-1")).isZero();
    Keys known = Keys.open(path());
    assertThat(known.show(one)).isInstanceOf(Keys.Shown.Refused.class);
    assertThat(known.show(two)).isInstanceOf(Keys.Shown.Known.class);
    assertThat(keys("revoke", "acme-1")).isEqualTo(4);
    assertThat(err).contains("wardrobe: expected the id of a key in").contains("got 'acme-1'");
  }

  @Test
  void mistakes_areSaidAndChangeNothing() {
    assertThat(keys("create", "--tenant", "acme", "--scope", "root")).isEqualTo(2);
    assertThat(err).contains("--scope: expected inference, adapters or admin, got 'root'");
    assertThat(keys("create", "--tenant", "")).isEqualTo(2);
    assertThat(err).contains("--tenant: expected 1 to 128");
    assertThat(keys("create", "--tenant", "a", "--adapters", "a b")).isEqualTo(2);
    assertThat(err).contains("--adapters: expected names");
    assertThat(keys("create", "--tenant", "a", "--expires", "-1d")).isEqualTo(2);
    assertThat(keys("create", "--tenant", "a", "--expires", "2001-01-01T00:00:00Z")).isEqualTo(2);
    assertThat(err).contains("--expires: expected 30m");
    assertThat(path()).doesNotExist();
    assertThat(keys("list")).isEqualTo(1);
    assertThat(err).contains("wardrobe keys create makes one");
  }
}
