package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.RunningServer;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListVersionsResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** The commands for adapters as people type them, against a server in this process. */
@Timeout(180)
final class AdaptersCommandTest {
  private static final String DIGEST = "sha256:[0-9a-f]{64}";

  @TempDir private static Path folder;
  private static RunningServer server;

  /** What a command came to. */
  private record Run(int exit, String out, String err) {
    /** What it printed; it succeeded. */
    String said() {
      assertThat(exit).as("%s%s", out, err).isZero();
      assertThat(err).isEmpty();
      return out;
    }

    /** Its one line of complaint; it failed. */
    String refused() {
      assertThat(exit)
          .as("%s%s", out, err)
          .isIn(ExitCode.FAILED, ExitCode.NOT_FOUND, ExitCode.REFUSED);
      assertThat(out).isEmpty();
      assertThat(err.lines()).singleElement().asString().startsWith("wardrobe: ");
      return err;
    }

    /** What was wrong with the way it was called. */
    String wrong() {
      assertThat(exit).as("%s%s", out, err).isEqualTo(2);
      assertThat(out).isEmpty();
      return err;
    }
  }

  @BeforeAll
  static void start() throws Exception {
    server = server("first", "--adapter", "pirate=" + RunningServer.adapter("pirate"));
  }

  private static RunningServer server(String name, String... arguments) throws Exception {
    Path root = Files.createDirectories(folder.resolve(name).resolve("root"));
    for (String adapter : List.of("sql", "json")) {
      Path to = Files.createDirectories(root.resolve(adapter));
      for (String file : List.of("adapter_config.json", "adapter_model.safetensors")) {
        Files.copy(RunningServer.adapter(adapter).resolve(file), to.resolve(file));
      }
    }
    Files.writeString(
        Files.createDirectory(root.resolve("torn")).resolve("adapter_config.json"), "{");
    return new RunningServer(root, folder.resolve(name).resolve("store"), arguments);
  }

  @AfterAll
  static void stop() throws IOException {
    server.close();
  }

  private static Run execute(StringWriter out, List<String> words) {
    StringWriter err = new StringWriter();
    CommandLine commands = Cli.commandLine();
    commands.setOut(new PrintWriter(out, true));
    commands.setErr(new PrintWriter(err, true));
    int exit = commands.execute(words.toArray(String[]::new));
    return new Run(exit, out.toString(), err.toString());
  }

  private static Run run(String... words) {
    List<String> all = new ArrayList<>(List.of("adapters"));
    all.addAll(List.of(words));
    all.addAll(List.of("--server", server.target()));
    return execute(new StringWriter(), all);
  }

  private static <T extends Message.Builder> T json(String text, T into) throws IOException {
    JsonFormat.parser().merge(text, into);
    return into;
  }

  private static Adapter shown(String reference) throws IOException {
    return json(run("show", reference, "--json").said(), Adapter.newBuilder()).build();
  }

  @Test
  void list_saysWhatThereIs_andWhatIsBroken() throws Exception {
    assertThat(run("scan").said()).matches("3 adapters, of which 1 cannot be used, in .* ms\\R");
    assertThat(run("list").said().lines())
        .anyMatch(line -> line.matches("NAME +KIND +RANK .*"))
        .anyMatch(line -> line.matches("pirate +lora +8 .* pinned +" + DIGEST))
        .anyMatch(line -> line.matches("sql +rslora +16 *.*"));
    assertThat(run("list", "--broken").said().lines())
        .hasSize(2)
        .anyMatch(line -> line.matches("torn +broken +.*JSON.*"));
    ListAdaptersResponse listed =
        json(run("list", "--json").said(), ListAdaptersResponse.newBuilder()).build();
    assertThat(listed.getRevision()).isPositive();
    assertThat(listed.getAdaptersList())
        .extracting(Adapter::getName)
        .contains("json", "pirate", "sql", "torn");
    // Given at start: it is there before anyone asks.
    assertThat(listed.getAdaptersList())
        .filteredOn(adapter -> adapter.getName().equals("pirate"))
        .singleElement()
        .matches(Adapter::getPinned)
        .matches(Adapter::getResident);
  }

  @Test
  void load_pin_unpin_unload() throws Exception {
    assertThat(run("load", "one", "sql").said())
        .matches("one " + DIGEST + " loaded in [0-9.]+ ms\\R");
    assertThat(run("show", "one").said())
        .containsPattern("name +one\\R")
        .containsPattern("digest +" + DIGEST)
        .containsPattern("source +root\\R")
        .containsPattern("state +resident\\R");
    assertThat(shown("one").getResident()).isTrue();
    assertThat(run("pin", "one").said()).matches("one " + DIGEST + " pinned\\R");
    assertThat(run("show", "one").said()).containsPattern("state +pinned\\R");
    assertThat(run("unpin", shown("one").getDigest()).said())
        .matches("one " + DIGEST + " unpinned\\R");
    assertThat(shown("one").getPinned()).isFalse();
    assertThat(run("unload", "one").said()).isEqualToIgnoringNewLines("one unloaded");

    assertThat(run("unload", "one").refused()).contains("'one'", "list of adapters");
    assertThat(run("show", "one").refused()).contains("'one'", "list of adapters");
    assertThat(run("pin", "nobody").refused()).contains("'nobody'", "under an adapter root");
    assertThat(run("load", "nobody").refused()).contains("'nobody'", "copy it there");
    assertThat(run("load", "one", "../root/sql").refused()).contains("'../root/sql'", "without");
    assertThat(run("load", "torn").refused()).contains("adapter_config.json", "JSON");
  }

  @Test
  void publish_alias_split_rollback_delete() throws Exception {
    String sql = RunningServer.adapter("sql").toString();
    assertThat(run("publish", sql, "s", "--alias", "prod").said())
        .matches("s@1 " + DIGEST + " published in [0-9.]+ ms; latest, prod\\R");
    assertThat(run("publish", sql, "s@1").said()).contains("s@1", "was there already");
    assertThat(run("publish", "json", "s@next", "--on-server", "--keep-latest").said())
        .matches("s@next " + DIGEST + " published in [0-9.]+ ms\\R");
    assertThat(run("publish", sql, "s@next").refused()).contains("a version never changes");
    assertThat(run("publish", sql, "pirate").refused()).contains("--adapter");
    assertThat(run("publish", folder.toString(), "t").refused())
        .contains("expected a PEFT directory");
    assertThat(run("publish", sql, "t", "--digest", shown("s@next").getDigest()).refused())
        .contains(shown("s@1").getDigest());
    assertThat(run("versions", "t").refused()).contains("publish it first");

    assertThat(run("alias", "s@prod", "next", "--shadow", "1=0.5").said())
        .isEqualToIgnoringNewLines("s@prod is next, shadowed by 1 (50.0 %)");
    assertThat(run("alias", "s@prod", "9").refused()).contains("'9'", "it has 1, next");
    assertThat(run("split", "s@prod", "1=95", "next=5").said())
        .isEqualToIgnoringNewLines("s@prod is 1 (95.0 %), next (5.00 %)");
    assertThat(run("split", "s@prod", "1=0", "next=1").refused()).contains("weights from 1");
    assertThat(run("show", "s@prod").refused()).contains("divides", "name a version");
    String answered = ask("s@prod");
    for (int i = 0; i < 3; i++) {
      assertThat(ask("s@prod")).isEqualTo(answered);
    }
    assertThat(run("versions", "s").said())
        .containsPattern("s@1 +rslora +16 .*= latest, prod\\R")
        .contains("s@prod is 1 (95.0 %), next (5.00 %), since ")
        .contains("requests answered by " + answered.substring(2) + ": 4")
        .contains("was next, shadowed by 1 (50.0 %) from ");
    ListVersionsResponse versions =
        json(run("versions", "s", "--json").said(), ListVersionsResponse.newBuilder()).build();
    assertThat(versions.getVersionsList())
        .extracting(Adapter::getName)
        .containsExactly("s@1", "s@next");
    assertThat(versions.getAliases(1).getHistoryCount()).isEqualTo(2);

    assertThat(run("rollback", "s@prod").said())
        .isEqualToIgnoringNewLines("s@prod is next, shadowed by 1 (50.0 %)");
    assertThat(run("rollback", "s").refused()).contains("'latest'", "an earlier setting");
    assertThat(run("delete", "s@1").refused()).contains("latest, prod", "force");
    assertThat(run("delete", "s@1", "--force").said())
        .isEqualToIgnoringNewLines("s@1 deleted; taken out of latest, prod");
    assertThat(run("delete", "s@1").refused()).contains("'1'", "list its versions");
    assertThat(run("alias", "s@latest", "--remove").refused()).contains("'latest' stays");
    assertThat(run("alias", "s@prod", "--remove").said())
        .isEqualToIgnoringNewLines("s@prod removed");
    assertThat(run("load", "s").said()).startsWith("s@next ");
    assertThat(run("unload", "s").said()).isEqualToIgnoringNewLines("s unloaded");
    assertThat(run("delete", "s@next", "--force").said())
        .isEqualToIgnoringNewLines("s@next deleted; taken out of latest");
  }

  /** Which version answers, always for the same customer. */
  private static String ask(String reference) throws IOException {
    List<String> words =
        List.of(
            "generate",
            "--adapter",
            reference,
            "--request-key",
            "customer 7",
            "--max-tokens",
            "1",
            "--json",
            "--server",
            server.target(),
            "hello");
    return json(execute(new StringWriter(), words).said(), GenerateResponse.newBuilder())
        .getAdapter();
  }

  @Test
  void wrongUsage_saysHowItIsUsed() {
    for (List<String> words :
        List.of(
            List.of("alias", "s", "2"),
            List.of("alias", "s@prod"),
            List.of("alias", "s@prod", "2", "--remove"),
            List.of("alias", "s@prod", "2", "--shadow", "1=much"),
            List.of("split", "s@prod", "1=95", "2"),
            List.of("split", "s@prod", "1=some"),
            List.of("split", "s@prod"),
            List.of("delete", "s"),
            List.of("publish", ".", "s@"),
            List.of("load"),
            List.of("watch", "--after", "now"))) {
      assertThat(run(words.toArray(String[]::new)).wrong())
          .as("%s", words)
          .contains("wardrobe adapters " + words.getFirst() + " --help");
    }
  }

  @Test
  void watch_tellsWhatHappens_untilTheServerStops() throws Exception {
    RunningServer before = server;
    StringWriter lines = new StringWriter();
    StringWriter documents = new StringWriter();
    CompletableFuture<Run> plain;
    CompletableFuture<Run> asJson;
    List<Adapter> loaded = new ArrayList<>();
    try (RunningServer other = server("other")) {
      server = other;
      ListAdaptersResponse listed =
          json(run("list", "--json").said(), ListAdaptersResponse.newBuilder()).build();
      String revision = String.valueOf(listed.getRevision());
      assertThat(run("watch", "--after", "5").refused()).contains("got 5", "list the adapters");
      run("load", "one", "sql").said();
      loaded.add(shown("one"));
      run("unload", "one").said();
      List<String> watch = List.of("adapters", "watch", "--after", revision, "--server");
      plain = CompletableFuture.supplyAsync(() -> execute(lines, with(watch, other.target())));
      asJson =
          CompletableFuture.supplyAsync(
              () -> execute(documents, with(watch, other.target(), "--json")));
      await()
          .until(
              () ->
                  lines.toString().contains("  unloaded  ")
                      && documents.toString().contains("KIND_UNLOADED"));
    } finally {
      server = before;
    }
    for (CompletableFuture<Run> each : List.of(plain, asJson)) {
      Run run = each.get(60, TimeUnit.SECONDS);
      assertThat(run.exit()).isEqualTo(ExitCode.UNREACHABLE);
      assertThat(run.err().lines())
          .singleElement()
          .asString()
          .contains("the server is stopping; watch again once it is up");
    }
    String digest = loaded.getFirst().getDigest();
    assertThat(lines.toString().lines().map(line -> line.replaceFirst(".*\\d\\d:\\d\\d  ", "")))
        .containsSubsequence(
            "loading  one  " + digest,
            "ready  one  " + digest,
            "bound  one  " + digest,
            "unloaded  one  " + digest,
            "evicted  one  " + digest);
    List<AdapterEvent.Kind> kinds = new ArrayList<>();
    for (String line : documents.toString().lines().toList()) {
      kinds.add(json(line, AdapterEvent.newBuilder()).getKind());
    }
    assertThat(kinds)
        .startsWith(
            AdapterEvent.Kind.KIND_WATCHING,
            AdapterEvent.Kind.KIND_LOADING,
            AdapterEvent.Kind.KIND_READY,
            AdapterEvent.Kind.KIND_BOUND,
            AdapterEvent.Kind.KIND_UNLOADED);
  }

  private static List<String> with(List<String> words, String... more) {
    List<String> all = new ArrayList<>(words);
    all.addAll(List.of(more));
    return all;
  }
}
