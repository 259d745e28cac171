package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.AdapterSummary;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.StoreOptions;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** {@code wardrobe store}, on the demo's adapters. */
final class StoreCommandTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo");
  private static final Path ADAPTERS = DEMO.resolve("adapters");

  @TempDir private Path dir;
  private String out = "";
  private String err = "";

  private int run(String... words) {
    StringWriter standard = new StringWriter();
    StringWriter errors = new StringWriter();
    CommandLine commands =
        Main.commandLine().setOut(new PrintWriter(standard)).setErr(new PrintWriter(errors));
    int code = commands.execute(words);
    out = standard.toString();
    err = errors.toString();
    return code;
  }

  private int store(String command, Object... words) {
    List<String> all = new ArrayList<>(List.of("store", command, "--store", place() + ""));
    Stream.of(words).map(String::valueOf).forEach(all::add);
    return run(all.toArray(String[]::new));
  }

  private Path place() {
    return dir.resolve("store");
  }

  private static String digest(String adapter) throws Exception {
    return AdapterSummary.read(ADAPTERS.resolve(adapter), AdapterOptions.DEFAULT).digest();
  }

  private static Path blob(Path store, String digest) {
    return store.resolve("blobs/sha256").resolve(digest.substring("sha256:".length()));
  }

  @Test
  void import_list_export_verify() throws Exception {
    assertThat(store("import", "--each", ADAPTERS)).as(err).isZero();
    assertThat(out).contains("json@1", "pirate@1", "sql@1", digest("sql"), "4 adapters taken in");
    assertThat(store("import", "--alias", "prod", "--name", "sql", ADAPTERS.resolve("terse")))
        .as(err)
        .isZero();
    assertThat(out).contains("sql@2", digest("terse"));
    assertThat(store("import", "--version", "v1.0", ADAPTERS.resolve("sql"))).isZero();

    assertThat(store("list")).isZero();
    assertThat(out)
        .containsPattern("sql@1 +" + digest("sql"))
        .containsPattern("sql@latest +-> v1.0")
        .containsPattern("sql@prod +-> 2")
        .contains("4 names, 4 adapters");
    assertThat(store("list", "--json")).isZero();
    JsonNode json = new ObjectMapper().readTree(out);
    assertThat(json.at("/names/2/name").asText()).isEqualTo("sql");
    assertThat(json.at("/names/2/versions")).hasSize(3);
    assertThat(json.at("/names/2/aliases/1/target/0/digest").asText()).isEqualTo(digest("terse"));

    assertThat(store("export", "sql@prod", dir.resolve("out"))).as(err).isZero();
    for (String file : List.of("adapter_config.json", "adapter_model.safetensors")) {
      assertThat(dir.resolve("out").resolve(file))
          .hasSameBinaryContentAs(ADAPTERS.resolve("terse").resolve(file));
    }
    assertThat(store("export", digest("sql"), dir.resolve("out"))).isEqualTo(1);
    assertThat(err).contains("new or empty directory").hasLineCount(1);
    assertThat(store("export", "nobody", dir.resolve("other"))).isEqualTo(4);
    assertThat(err).contains("'nobody'").hasLineCount(1);

    assertThat(store("verify")).isZero();
    assertThat(out).contains("4 adapters", ": whole");
    assertThat(store("verify", "--json")).isZero();
    JsonNode verified = new ObjectMapper().readTree(out);
    assertThat(verified.get("adapters").intValue()).isEqualTo(4);
    assertThat(verified.get("faults").isArray()).isTrue();
    assertThat(verified.get("faults")).isEmpty();
  }

  @Test
  void import_again_changesNothing() throws Exception {
    assertThat(store("import", "--each", ADAPTERS)).isZero();
    String first = out;
    byte[] index = Files.readAllBytes(place().resolve("index.json"));
    assertThat(store("import", "--each", ADAPTERS)).isZero();
    assertThat(out).isEqualTo(first);
    assertThat(Files.readAllBytes(place().resolve("index.json"))).isEqualTo(index);
  }

  @Test
  void import_whatIsNoAdapter_isRefusedAlone() throws Exception {
    Path mixed = dir.resolve("mixed");
    copy(ADAPTERS.resolve("sql"), mixed.resolve("good"));
    copy(ADAPTERS.resolve("sql"), mixed.resolve("cut"));
    byte[] weights = Files.readAllBytes(mixed.resolve("cut/adapter_model.safetensors"));
    Files.write(
        mixed.resolve("cut/adapter_model.safetensors"), Arrays.copyOf(weights, weights.length / 2));
    copy(ADAPTERS.resolve("sql"), mixed.resolve("bad__name"));
    copy(ADAPTERS.resolve("sql"), mixed.resolve("pickle"));
    Files.move(
        mixed.resolve("pickle/adapter_model.safetensors"),
        mixed.resolve("pickle/adapter_model.bin"));
    assertThat(store("import", "--each", mixed)).isEqualTo(1);
    assertThat(out).contains("good@1", "1 adapter taken in, 3 refused");
    assertThat(err)
        .hasLineCount(3)
        .containsPattern("cut: refused: .*damaged")
        .containsPattern("bad__name: refused: name: ")
        .containsPattern("pickle: refused: .*pickle");
    assertThat(store("verify")).isZero();
    assertThat(out).contains("1 adapter, 3 blobs").doesNotContain("nothing refers");
  }

  @Test
  void import_withAModel_runsTheGate() throws Exception {
    Path model = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    assertThat(store("import", "--model", model, ADAPTERS.resolve("sql"))).as(err).isZero();
    Path other =
        Path.of(StoreCommandTest.class.getResource("/golden/models/llama_mha/config.json").toURI());
    assertThat(store("import", "--model", other.getParent(), ADAPTERS.resolve("json")))
        .isEqualTo(1);
    assertThat(err).containsPattern("json: refused: .*expected").hasLineCount(1);
    assertThat(store("list")).isZero();
    assertThat(out).contains("sql@1").doesNotContain("json");
  }

  @Test
  void verify_damage_isNamed() throws Exception {
    assertThat(store("import", ADAPTERS.resolve("sql"))).isZero();
    try (Stream<Path> blobs = Files.list(place().resolve("blobs/sha256"))) {
      Path largest =
          blobs.max((a, b) -> Long.compare(a.toFile().length(), b.toFile().length())).get();
      byte[] bytes = Files.readAllBytes(largest);
      bytes[bytes.length - 1]++;
      Files.write(largest, bytes);
      assertThat(store("verify")).isEqualTo(1);
      assertThat(err).contains(largest.getFileName() + "").hasLineCount(1);
      assertThat(out).contains("1 fault");
      assertThat(store("export", "sql", dir.resolve("out"))).isEqualTo(1);
      assertThat(err).contains("damaged").hasLineCount(1);
      assertThat(dir.resolve("out")).isEmptyDirectory();
    }
    assertThat(store("import", ADAPTERS.resolve("sql"))).isZero();
    assertThat(store("verify")).isZero();
  }

  @Test
  void gc_besideAWriter_isRefused() throws Exception {
    assertThat(store("gc")).isEqualTo(1);
    assertThat(err).contains("expected a store", place() + "").hasLineCount(1);
    assertThat(place()).doesNotExist();
    try (AdapterStore open = AdapterStore.open(place(), StoreOptions.DEFAULT)) {
      assertThat(open.catalog().entries()).isEmpty();
      assertThat(store("gc")).isEqualTo(1);
      assertThat(err).contains("another process writes").hasLineCount(1);
      assertThat(store("import", ADAPTERS.resolve("sql"))).isEqualTo(1);
      assertThat(err).contains("another process writes").hasLineCount(1);
      assertThat(store("list")).isZero();
      assertThat(store("verify")).isZero();
    }
    Path stray = blob(place(), "sha256:" + "0".repeat(64));
    Files.writeString(stray, "12345");
    assertThat(store("verify")).isEqualTo(1);
    assertThat(store("gc")).isZero();
    assertThat(out).contains("0 blobs removed, 0 bytes; 1 kept");
    assertThat(store("gc", "--grace", "0s")).isZero();
    assertThat(out).contains("1 blob removed, 5 bytes; 0 kept");
    assertThat(stray).doesNotExist();
    assertThat(store("gc", "--grace", "soon")).isEqualTo(2);
    assertThat(err).contains("--grace", "'soon'");
  }

  @Test
  void import_anotherLayout_keepsNamesAndDigests() throws Exception {
    assertThat(store("import", "--each", ADAPTERS)).isZero();
    assertThat(store("import", "--name", "sql", "--alias", "prod", ADAPTERS.resolve("terse")))
        .isZero();
    assertThat(store("import", "--name", "sql", ADAPTERS.resolve("pirate"))).isZero();
    try (AdapterStore open = AdapterStore.open(place(), StoreOptions.DEFAULT)) {
      open.update(c -> c.deleteVersion("sql", "1").deleteVersion("sql", "3"));
    }
    Path copy = dir.resolve("copy");
    assertThat(run("store", "import", "--store", copy + "", place() + "")).as(err).isZero();
    try (AdapterStore from = AdapterStore.openToRead(place(), StoreOptions.DEFAULT);
        AdapterStore to = AdapterStore.openToRead(copy, StoreOptions.DEFAULT)) {
      assertThat(to.catalog().contents()).isEqualTo(from.catalog().contents());
      for (String reference : List.of("sql", "sql@2", "sql@prod", "json@1", "pirate@latest")) {
        assertThat(to.catalog().find(reference)).isEqualTo(from.catalog().find(reference));
      }
      assertThat(to.catalog().entry("sql").versions())
          .isEqualTo(from.catalog().entry("sql").versions());
      assertThat(to.catalog().nextVersion("sql")).isEqualTo("4");
    }
    assertThat(run("store", "verify", "--store", copy + "")).isZero();
    assertThat(run("store", "import", "--store", copy + "", "--name", "x", place() + ""))
        .isEqualTo(2);
  }

  /** As skopeo leaves them: descriptors with a name and nothing else. */
  @Test
  void import_ofItself_takesOverOtherToolsTags() throws Exception {
    assertThat(store("import", "--each", ADAPTERS)).isZero();
    Path file = place().resolve("index.json");
    ObjectMapper json = new ObjectMapper();
    ObjectNode index = (ObjectNode) json.readTree(file.toFile());
    Map<String, String> theirs = new LinkedHashMap<>();
    theirs.put("sql@9", digest("terse"));
    theirs.put("new@prod", digest("json"));
    theirs.put("new@3", digest("json"));
    theirs.put("words@v2", digest("sql"));
    theirs.put("bare", digest("pirate"));
    theirs.put("json@1", digest("terse")); // Is taken, and stays what it is.
    theirs.put("none@1", "sha256:" + "0".repeat(64));
    theirs.put("path@1", "sha256:../../../etc/passwd");
    theirs.put("not..ours@1", digest("sql"));
    theirs.forEach(
        (name, digest) ->
            ((ArrayNode) index.path("manifests"))
                .addObject()
                .put("mediaType", "application/vnd.oci.image.manifest.v1+json")
                .put("digest", digest)
                .put("size", 477)
                .putObject("annotations")
                .put("org.opencontainers.image.ref.name", name));
    json.writeValue(file.toFile(), index);

    assertThat(store("import", place())).isEqualTo(1);
    assertThat(err)
        .hasLineCount(3)
        .containsPattern("none: refused: .*0000.*got none")
        .containsPattern("path: refused: expected sha256")
        .containsPattern("not..ours: refused: name: ");
    try (AdapterStore store = AdapterStore.open(place(), StoreOptions.DEFAULT)) {
      Map<String, String> found = new LinkedHashMap<>();
      for (String reference :
          List.of("sql@9", "sql@1", "new@3", "new@prod", "words@v2", "bare@1", "json@1")) {
        Catalog.Found one = store.catalog().find(reference);
        found.put(reference, one == null ? "none" : one.target().main());
      }
      assertThat(found)
          .containsExactly(
              Map.entry("sql@9", digest("terse")),
              Map.entry("sql@1", digest("sql")),
              Map.entry("new@3", digest("json")),
              Map.entry("new@prod", digest("json")),
              Map.entry("words@v2", digest("sql")),
              Map.entry("bare@1", digest("pirate")),
              Map.entry("json@1", digest("json")));
      assertThat(store.catalog().entry("new").aliases()).containsOnlyKeys("latest", "prod");
      assertThat(store.verify().faults()).isEmpty();
    }
    assertThat(store("import", place())).isEqualTo(1);
    assertThat(err).hasLineCount(3);
  }

  @Test
  void store_withoutACommand_saysSo() {
    assertThat(run("store")).isEqualTo(2);
    assertThat(err).contains("expected a command of the store", "verify", "gc", "import");
  }

  private static void copy(Path from, Path to) throws IOException {
    Files.createDirectories(to);
    try (Stream<Path> files = Files.list(from)) {
      for (Path file : files.toList()) {
        Files.copy(file, to.resolve(file.getFileName()));
      }
    }
  }
}
