package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class AdapterStoreTest {
  static final Instant TIME = Instant.parse("2026-01-02T03:04:05.678Z");
  private static final StoreOptions OPTIONS = StoreOptions.DEFAULT;

  @TempDir private Path temp;

  static AdapterStore open(Path directory) throws AdapterException {
    return AdapterStore.open(directory, OPTIONS, new Unforced(), Runnable::run);
  }

  /** A disk that waits for nothing: what outlives a process, not a loss of power. */
  static class Unforced extends Disk {
    @Override
    void force(FileChannel file) throws IOException {
      assertThat(file.isOpen()).isTrue();
    }

    @Override
    void forceDirectory(Path directory) throws IOException {
      assertThat(directory).isDirectory();
    }
  }

  static byte[] config(int number) {
    // Several adapters share one configuration, as they do in life.
    return ("{\"r\": " + number / 4 + "}").getBytes(StandardCharsets.US_ASCII);
  }

  static byte[] weights(int number) {
    byte[] bytes = new byte[1000 + number];
    new Random(number).nextBytes(bytes);
    return bytes;
  }

  /** Takes in an adapter that only this store's tests would take for one. */
  static AdapterStore.Hold add(AdapterStore store, int number) throws AdapterException {
    byte[] config = config(number);
    byte[] weights = weights(number);
    try (Upload upload = store.upload(config.length, weights.length)) {
      upload.config(ByteBuffer.wrap(config));
      upload.weights(ByteBuffer.wrap(weights, 0, weights.length / 2));
      upload.weights(
          ByteBuffer.wrap(weights, weights.length / 2, weights.length - weights.length / 2));
      return upload.finish(null);
    }
  }

  static Content publish(AdapterStore store, String name, String version, int number)
      throws AdapterException {
    try (AdapterStore.Hold hold = add(store, number)) {
      store.update(catalog -> catalog.publish(name, version, hold.content(), TIME));
      return hold.content();
    }
  }

  static byte[] read(AdapterStore store, String digest, String file) throws AdapterException {
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile open = store.files(digest).open(file)) {
      return open.read(1 << 20, arena).bytes().toArray(ValueLayout.JAVA_BYTE);
    }
  }

  static List<String> names(Path directory) throws IOException {
    try (Stream<Path> entries = Files.list(directory)) {
      return entries.map(path -> path.getFileName().toString()).sorted().toList();
    }
  }

  static Path blobs(Path store) {
    return store.resolve("blobs").resolve("sha256");
  }

  static void refuses(Reason reason, ThrowingCallable change, String... words) {
    assertThatThrownBy(change)
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(reason))
        .hasMessageContainingAll(words)
        .message()
        .doesNotContain("\n");
  }

  @Test
  void publish_isThereAfterReopening() throws Exception {
    Content one;
    Content two;
    Catalog catalog;
    try (AdapterStore store = open(temp)) {
      one = publish(store, "support", "1", 1);
      two = publish(store, "support", "2", 2);
      Catalog.Target split =
          new Catalog.Target(
              List.of(new Catalog.Share(one.digest(), 5), new Catalog.Share(two.digest(), 95)));
      store.update(
          c ->
              c.setAlias("support", "prod", Catalog.Target.of(one.digest()), null, TIME)
                  .setAlias(
                      "support", "prod", split, new Catalog.Shadow(one.digest(), 0.125), TIME));
      catalog = store.catalog();
    }
    try (AdapterStore store = open(temp)) {
      assertThat(store.catalog()).isEqualTo(catalog);
      assertThat(store.catalog().revision()).isEqualTo(4);
      assertThat(read(store, one.digest(), AdapterConfig.FILE)).isEqualTo(config(1));
      assertThat(read(store, two.digest(), Adapter.WEIGHTS)).isEqualTo(weights(2));
      assertThat(
              store.update(c -> c.rollback("support", "prod", TIME)).find("support@prod").target())
          .isEqualTo(Catalog.Target.of(one.digest()));
    }
    try (AdapterStore reader = AdapterStore.openToRead(temp, OPTIONS)) {
      assertThat(reader.catalog().revision()).isEqualTo(5);
      refuses(Reason.IN_USE, () -> reader.update(c -> c.delete("support")), "reading");
    }
    assertThat(names(temp.resolve(".staging"))).isEmpty();
  }

  @Test
  void digest_isThatOfTheCanonicalManifest() throws Exception {
    try (AdapterStore store = open(temp)) {
      Content content = publish(store, "a", "1", 3);
      byte[] manifest =
          Files.readAllBytes(blobs(temp).resolve(content.digest().substring("sha256:".length())));
      assertThat(new String(manifest, StandardCharsets.US_ASCII))
          .isEqualTo(
              "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
                  + "\"artifactType\":\"application/vnd.wardrobe.adapter.v1\",\"config\":{"
                  + "\"mediaType\":\"application/vnd.wardrobe.adapter.config.v1+json\","
                  + "\"digest\":\"%s\",\"size\":%d},\"layers\":[{\"mediaType\":"
                      .formatted(sha(config(3)), config(3).length)
                  + "\"application/vnd.wardrobe.adapter.weights.v1.safetensors\","
                  + "\"digest\":\"%s\",\"size\":%d}]}"
                      .formatted(sha(weights(3)), weights(3).length));
      assertThat(content.digest()).isEqualTo(sha(manifest));
      assertThat(Manifest.bytes(content)).isEqualTo(manifest.length);
    }
  }

  private static String sha(byte[] bytes) {
    var sha = Manifest.sha256();
    sha.update(bytes);
    return Manifest.digest(sha);
  }

  @Test
  void open_twice_isRefused() throws Exception {
    try (AdapterStore store = open(temp)) {
      refuses(Reason.IN_USE, () -> open(temp), "another process");
      publish(store, "a", "1", 1);
    }
    open(temp).close();
  }

  @Test
  void delete_removesBlobsThatNothingElseHas() throws Exception {
    try (AdapterStore store = open(temp)) {
      publish(store, "a", "1", 0);
      Content second = publish(store, "a", "2", 1); // Of the same configuration.
      List<String> both = names(blobs(temp));
      assertThat(both).hasSize(5);
      store.update(c -> c.deleteVersion("a", "1"));
      assertThat(names(blobs(temp))).hasSize(3);
      assertThat(read(store, second.digest(), AdapterConfig.FILE)).isEqualTo(config(1));
      store.update(c -> c.delete("a"));
      assertThat(names(blobs(temp))).isEmpty();
      assertThat(names(temp.resolve(".staging"))).isEmpty();
    }
  }

  @Test
  void hold_keepsContentUntilItIsClosed() throws Exception {
    try (AdapterStore store = open(temp)) {
      Content content = publish(store, "a", "1", 7);
      AdapterStore.Hold hold = store.hold(content.digest());
      store.update(c -> c.delete("a"));
      assertThat(read(store, content.digest(), Adapter.WEIGHTS)).isEqualTo(weights(7));
      AdapterStore.Hold second = store.hold(content.digest());
      hold.close();
      hold.close();
      assertThat(read(store, content.digest(), Adapter.WEIGHTS)).isEqualTo(weights(7));
      second.close();
      assertThat(names(blobs(temp))).isEmpty();
      refuses(Reason.NOT_FOUND, () -> store.hold(content.digest()), content.digest());
    }
  }

  @Test
  void upload_thatLies_leavesNothing() throws Exception {
    try (AdapterStore store = open(temp)) {
      List<ThrowingCallable> lies = new ArrayList<>();
      lies.add(() -> upload(store, 2, 4, "{}", "123", null)); // cut off
      lies.add(() -> upload(store, 2, 2, "{}", "123", null));
      lies.add(() -> upload(store, 1, 3, "{}", "123", null));
      lies.add(() -> upload(store, 2, 3, "{}", "123", CatalogTest.content(1).digest()));
      for (ThrowingCallable lie : lies) {
        refuses(Reason.INVALID, lie, "expected");
        assertThat(names(blobs(temp))).isEmpty();
        assertThat(names(temp.resolve(".staging"))).isEmpty();
      }
      Upload given = store.upload(2, 1000);
      given.weights(ByteBuffer.allocate(500));
      given.close();
      refuses(Reason.INVALID, () -> given.weights(ByteBuffer.allocate(1)), "ended");
      refuses(Reason.INVALID, () -> given.finish(null), "ended");
      upload(store, 2, 3, "{}", "123", null); // Whole, but nobody publishes it.
      assertThat(names(blobs(temp))).isEmpty();
      assertThat(names(temp.resolve(".staging"))).isEmpty();
      assertThat(store.catalog()).isEqualTo(Catalog.EMPTY);
    }
  }

  private static void upload(
      AdapterStore store,
      long configBytes,
      long weightBytes,
      String config,
      String weights,
      String digest)
      throws AdapterException {
    try (Upload upload = store.upload(configBytes, weightBytes)) {
      upload.config(ByteBuffer.wrap(config.getBytes(StandardCharsets.US_ASCII)));
      upload.weights(ByteBuffer.wrap(weights.getBytes(StandardCharsets.US_ASCII)));
      upload.finish(digest).close();
    }
  }

  @Test
  void upload_isBounded() throws Exception {
    StoreOptions options = new StoreOptions(1000, 2, 1500);
    try (AdapterStore store = AdapterStore.open(temp, options)) {
      refuses(Reason.TOO_LARGE, () -> store.upload(1, 1001), "1000", "1001");
      refuses(Reason.TOO_LARGE, () -> store.upload(1L << 40, 1), "adapter_config.json");
      refuses(Reason.INVALID, () -> store.upload(1, -1), "-1");
      try (Upload first = store.upload(1, 900)) {
        refuses(Reason.TOO_LARGE, () -> store.upload(1, 900), "1500", "901");
        try (Upload second = store.upload(1, 100)) {
          refuses(Reason.TOO_LARGE, () -> store.upload(0, 1), "at most 2 uploads");
          second.weights(ByteBuffer.allocate(1));
        }
        store.upload(1, 100).close();
        first.weights(ByteBuffer.allocate(1));
      }
      store.upload(1, 999).close();
    }
    StoreOptions endless = new StoreOptions(Long.MAX_VALUE, 2, Long.MAX_VALUE);
    try (AdapterStore store = AdapterStore.open(temp, endless)) {
      refuses(Reason.TOO_LARGE, () -> store.upload(1, 1L << 60), "free");
      refuses(Reason.TOO_LARGE, () -> store.upload(1, Long.MAX_VALUE), "expected");
    }
  }

  @Test
  void update_withContentThatIsNotHere_isRefused() throws Exception {
    try (AdapterStore store = open(temp)) {
      publish(store, "a", "1", 1);
      Catalog before = store.catalog();
      refuses(
          Reason.INVALID,
          () -> store.update(c -> c.publish("a", "2", CatalogTest.content(5), TIME)),
          CatalogTest.content(5).digest());
      assertThat(store.catalog()).isEqualTo(before);
    }
  }

  /** The store as another process would find it, after {@code change} to its index. */
  private void index(Consumer<ObjectNode> change) throws IOException {
    Path file = temp.resolve("index.json");
    ObjectNode index = (ObjectNode) Adapters.JSON.readTree(file.toFile());
    change.accept(index);
    Adapters.JSON.writeValue(file.toFile(), index);
  }

  private ObjectNode index() throws IOException {
    return (ObjectNode) Adapters.JSON.readTree(temp.resolve("index.json").toFile());
  }

  private List<String> tags() throws IOException {
    List<String> tags = new ArrayList<>();
    for (JsonNode tag : index().path("manifests")) {
      tags.add(
          tag.at("/annotations/org.opencontainers.image.ref.name").asText("-")
              + " "
              + tag.path("digest").asText());
    }
    return tags;
  }

  @Test
  void index_hasATagForEachVersionAndAlias() throws Exception {
    try (AdapterStore store = open(temp)) {
      Content one = publish(store, "support", "1", 1);
      Content two = publish(store, "support", "2", 2);
      Catalog.Target split =
          new Catalog.Target(
              List.of(new Catalog.Share(two.digest(), 5), new Catalog.Share(one.digest(), 95)));
      store.update(c -> c.setAlias("support", "prod", split, null, TIME));
      assertThat(tags())
          .containsExactly(
              "support@1 " + one.digest(),
              "support@2 " + two.digest(),
              "support@latest " + two.digest(),
              "support@prod " + one.digest());
      assertThat(index().path("schemaVersion").asInt()).isEqualTo(2);
      JsonNode first = index().path("manifests").get(0);
      assertThat(first.path("mediaType").asText())
          .isEqualTo("application/vnd.oci.image.manifest.v1+json");
      assertThat(first.path("size").asLong())
          .isEqualTo(Files.size(blobs(temp).resolve(one.digest().substring(7))));
      assertThat(Files.readString(temp.resolve("oci-layout")))
          .isEqualTo("{\"imageLayoutVersion\":\"1.0.0\"}");
    }
  }

  /** What skopeo does when it copies into a layout: see the test of its own. */
  @Test
  void otherTools_mayAddAndMoveTags() throws Exception {
    try (AdapterStore store = open(temp)) {
      Content one = publish(store, "a", "1", 1);
      Content two = publish(store, "b", "1", 20);
      index(
          index -> {
            index.put("x-other", "kept");
            ((ObjectNode) index.path("annotations")).put("org.example", "kept, too");
            ArrayNode manifests = (ArrayNode) index.path("manifests");
            // The first descriptor of this digest is overwritten, the tag is moved.
            manifests.set(0, tag("theirs", one.digest()));
            manifests.add(tag("b@1", one.digest()));
            manifests.add(tag("more/theirs@7", two.digest()));
          });
      Catalog before = store.catalog();
      try (AdapterStore reader = AdapterStore.openToRead(temp, OPTIONS)) {
        assertThat(reader.catalog()).isEqualTo(before);
        assertThat(reader.verify().faults()).isEmpty();
      }
      store.update(c -> c.setAlias("a", "prod", Catalog.Target.of(one.digest()), null, TIME));
      assertThat(tags())
          .containsExactly(
              "a@1 " + one.digest(),
              "a@latest " + one.digest(),
              "a@prod " + one.digest(),
              "b@1 " + two.digest(),
              "b@latest " + two.digest(),
              "theirs " + one.digest(),
              "- " + one.digest(),
              "more/theirs@7 " + two.digest());
      assertThat(index().path("x-other").asText()).isEqualTo("kept");
      assertThat(index().path("annotations").path("org.example").asText()).isEqualTo("kept, too");
      // Their tags keep the blobs of what we delete.
      store.update(c -> c.delete("b").delete("a"));
      assertThat(names(blobs(temp))).hasSize(6);
      index(index -> ((ArrayNode) index.path("manifests")).removeAll());
      assertThat(store.collect(Duration.ofHours(1))).isEqualTo(new AdapterStore.Collected(0, 0, 6));
      assertThat(store.collect(Duration.ZERO).removed()).isEqualTo(6);
      assertThat(names(blobs(temp))).isEmpty();
    }
  }

  private static ObjectNode tag(String name, String digest) {
    ObjectNode tag = Adapters.JSON.createObjectNode();
    tag.put("mediaType", "application/vnd.oci.image.manifest.v1+json");
    tag.put("digest", digest).put("size", 400);
    tag.putObject("annotations").put("org.opencontainers.image.ref.name", name);
    return tag;
  }

  @Test
  void collect_keepsWhatOtherToolsIndexesLeadTo() throws Exception {
    try (AdapterStore store = open(temp)) {
      String layer = put("a layer");
      String config = put("{}");
      String image =
          put(
              "{\"config\":{\"digest\":\"%s\"},\"layers\":[{\"digest\":\"%s\"}]}"
                  .formatted(config, layer));
      String list =
          put(
              "{\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
                  + "\"digest\":\"%s\"},{\"digest\":\"%s\"}]}"
                      .formatted(image, CatalogTest.content(7).digest()));
      put("rubbish");
      index(
          index ->
              ((ArrayNode) index.path("manifests"))
                  .add(
                      tag("theirs", list)
                          .put("mediaType", "application/vnd.oci.image.index.v1+json")));
      assertThat(store.collect(Duration.ZERO).removed()).isEqualTo(1);
      assertThat(names(blobs(temp))).hasSize(4);
      // What cannot be understood might refer to anything.
      Files.writeString(blobs(temp).resolve(list.substring(7)), "{\"manifests\":");
      put("rubbish");
      refuses(Reason.DAMAGED, () -> store.collect(Duration.ZERO), list);
      assertThat(names(blobs(temp))).hasSize(5);
    }
  }

  private String put(String text) throws IOException {
    String digest = sha(text.getBytes(StandardCharsets.UTF_8));
    Files.writeString(blobs(temp).resolve(digest.substring(7)), text);
    return digest;
  }

  @Test
  void blob_damaged_isRefusedAndMendedByPublishingAgain() throws Exception {
    try (AdapterStore store = open(temp)) {
      Content content = publish(store, "a", "1", 6);
      Path weights = blobs(temp).resolve(sha(weights(6)).substring(7));
      byte[] bytes = Files.readAllBytes(weights);
      bytes[bytes.length / 2] ^= 1;
      Files.write(weights, bytes);
      refuses(
          Reason.DAMAGED,
          () -> read(store, content.digest(), Adapter.WEIGHTS),
          Adapter.WEIGHTS,
          sha(weights(6)),
          sha(bytes));
      assertThat(store.verify().faults()).hasSize(1);
      Files.write(weights, new byte[10]);
      refuses(
          Reason.DAMAGED, () -> read(store, content.digest(), Adapter.WEIGHTS), "bytes, got 10");
      Files.delete(weights);
      refuses(Reason.DAMAGED, () -> read(store, content.digest(), Adapter.WEIGHTS), "got none");
      assertThat(store.verify().faults()).hasSize(1).first().asString().contains("got none");
      Path secret = Files.write(temp.resolve("secret"), weights(6));
      Files.createSymbolicLink(weights, secret);
      refuses(Reason.DAMAGED, () -> read(store, content.digest(), Adapter.WEIGHTS), "regular file");
      assertThat(store.verify().faults()).isNotEmpty();
      publish(store, "a", "2", 6);
      assertThat(read(store, content.digest(), Adapter.WEIGHTS)).isEqualTo(weights(6));
      assertThat(store.verify().faults()).isEmpty();
      assertThat(Files.isRegularFile(secret)).isTrue();
    }
  }

  @Test
  void manifest_thatIsAnother_isRefused() throws Exception {
    Content one;
    Content two;
    try (AdapterStore store = open(temp)) {
      one = publish(store, "a", "1", 1);
      two = publish(store, "b", "1", 2);
    }
    // A swap by name: each blob whole, but not the one that was asked for.
    Files.copy(
        blobs(temp).resolve(two.digest().substring(7)),
        blobs(temp).resolve(one.digest().substring(7)),
        StandardCopyOption.REPLACE_EXISTING);
    try (AdapterStore store = open(temp)) {
      refuses(Reason.DAMAGED, () -> store.files(one.digest()), one.digest(), two.digest());
      assertThat(store.verify().faults()).hasSize(2);
      assertThat(read(store, two.digest(), Adapter.WEIGHTS)).isEqualTo(weights(2));
      // With a manifest missing it cannot be told what is unneeded, so nothing goes.
      refuses(Reason.DAMAGED, () -> store.collect(Duration.ZERO), one.digest());
    }
    assertThat(names(blobs(temp))).hasSize(5);
    try (AdapterStore store = open(temp)) {
      store.update(c -> c.delete("a"));
      assertThat(store.verify().faults()).hasSize(1);
      assertThat(store.collect(Duration.ZERO).removed()).isEqualTo(2);
      assertThat(store.verify().faults()).isEmpty();
      assertThat(read(store, two.digest(), Adapter.WEIGHTS)).isEqualTo(weights(2));
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "{",
        "[]",
        "null",
        "{\"schemaVersion\":2}",
        "{\"schemaVersion\":1,\"manifests\":[]}",
        "{\"schemaVersion\":\"2\",\"manifests\":[]}",
        "{\"schemaVersion\":2,\"manifests\":{}}",
        "{\"schemaVersion\":2,\"manifests\":[1]}",
        "{\"schemaVersion\":2,\"manifests\":[{}]}",
        "{\"schemaVersion\":2,\"manifests\":[{\"digest\":7}]}",
        "{\"schemaVersion\":2,\"manifests\":[]} {}",
        "{\"schemaVersion\":2,\"manifests\":[],\"manifests\":[]}",
        "{\"schemaVersion\":2,\"mediaType\":\"text/plain\",\"manifests\":[]}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":[]}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":{\"a\":1}}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":{\"dev.wardrobe.revision\":\"x\"}}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":{\"dev.wardrobe.name.a\":\"{}\"}}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":{\"dev.wardrobe.name...\":\"{}\"}}",
        "{\"schemaVersion\":2,\"manifests\":[],\"annotations\":{\"dev.wardrobe.name.a\":\"[\"}}"
      })
  void index_damaged_isRefusedAndLeft(String text) throws Exception {
    open(temp).close();
    Files.writeString(temp.resolve("index.json"), text);
    refuses(Reason.DAMAGED, () -> open(temp), "index.json", "damaged");
    refuses(Reason.DAMAGED, () -> AdapterStore.openToRead(temp, OPTIONS), "index.json");
    assertThat(Files.readString(temp.resolve("index.json"))).isEqualTo(text);
  }

  @Test
  void index_whoseCatalogContradictsItself_isRefused() throws Exception {
    try (AdapterStore store = open(temp)) {
      publish(store, "a", "1", 1);
      publish(store, "a", "2", 2);
    }
    byte[] good = Files.readAllBytes(temp.resolve("index.json"));
    List<String[]> changes =
        List.of(
            new String[] {"\"version\":\"2\"", "\"version\":\"1\""},
            new String[] {"\"version\":\"2\"", "\"version\":\"latest\""},
            new String[] {"\"version\":\"2\"", "\"version\":\"../2\""},
            new String[] {"\"latest\":", "\"newest\":"},
            new String[] {"\"weight\":1", "\"weight\":0"},
            new String[] {"\"weight\":1", "\"weight\":1e99"},
            new String[] {"\"config\":", "\"config\":-"},
            new String[] {"\"time\":\"2026", "\"time\":\"x"},
            new String[] {
              "\"target\":[{\"digest\":\"sha256:", "\"target\":[{\"digest\":\"sha256:0"
            });
    for (String[] change : changes) {
      Files.write(temp.resolve("index.json"), good);
      index(
          index -> {
            ObjectNode annotations = (ObjectNode) index.path("annotations");
            String entry = annotations.path("dev.wardrobe.name.a").asText();
            assertThat(entry).contains(change[0]);
            annotations.put("dev.wardrobe.name.a", entry.replace(change[0], change[1]));
          });
      refuses(Reason.DAMAGED, () -> open(temp), "index.json", "'a'");
    }
  }

  @Test
  void index_ofAGigabyte_isRefusedUnread() throws Exception {
    open(temp).close();
    try (RandomAccessFile file = new RandomAccessFile(temp.resolve("index.json").toFile(), "rw")) {
      file.setLength(1 << 30);
    }
    refuses(Reason.DAMAGED, () -> open(temp), "index.json", "" + (1 << 30));
  }

  @Test
  void index_deepOrManyTokens_isRefused() throws Exception {
    open(temp).close();
    String deep = "[".repeat(5000) + "]".repeat(5000);
    Files.writeString(
        temp.resolve("index.json"), "{\"schemaVersion\":2,\"manifests\":[],\"x\":" + deep + "}");
    refuses(Reason.DAMAGED, () -> open(temp), "index.json");
    String many = "[" + "[],".repeat(4_100_000) + "1]";
    Files.writeString(
        temp.resolve("index.json"), "{\"schemaVersion\":2,\"manifests\":[],\"x\":" + many + "}");
    refuses(Reason.DAMAGED, () -> open(temp), "index.json");
  }

  @Test
  void open_whatIsNoStore_isRefused() throws Exception {
    refuses(Reason.NOT_FOUND, () -> AdapterStore.openToRead(temp.resolve("none"), OPTIONS), "none");
    Files.writeString(temp.resolve("adapter_config.json"), "{}");
    refuses(Reason.INVALID, () -> open(temp), "adapter_config.json", "empty directory");
    assertThat(names(temp)).containsExactly("adapter_config.json");
    Path file = Files.writeString(temp.resolve("file"), "");
    refuses(Reason.IO, () -> open(file), "cannot be opened");
  }

  @Test
  void open_layoutThatIsOdd_isRefused() throws Exception {
    Path store = temp.resolve("store");
    open(store).close();
    Files.writeString(store.resolve("oci-layout"), "{\"imageLayoutVersion\":\"2.0.0\"}");
    refuses(Reason.DAMAGED, () -> open(store), "oci-layout", "2.0.0");
    Files.writeString(store.resolve("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}");
    Files.move(store.resolve("index.json"), temp.resolve("aside"));
    refuses(Reason.DAMAGED, () -> open(store), "index.json", "none");
    Files.createSymbolicLink(store.resolve("index.json"), temp.resolve("aside"));
    refuses(Reason.DAMAGED, () -> open(store), "index.json", "regular file");
    Files.delete(store.resolve("index.json"));
    Files.move(temp.resolve("aside"), store.resolve("index.json"));
    open(store).close();
    Files.move(store.resolve("blobs"), temp.resolve("blobs"));
    Files.createSymbolicLink(store.resolve("blobs"), temp.resolve("blobs"));
    refuses(Reason.DAMAGED, () -> AdapterStore.openToRead(store, OPTIONS), "blobs", "link");
    refuses(Reason.IO, () -> open(store), "cannot be opened");
  }

  @Test
  void digest_thatIsAPath_isRefused() throws Exception {
    try (AdapterStore store = open(temp)) {
      Files.writeString(temp.resolve("secret"), "secret");
      for (String digest : List.of("", "sha256:", "sha256:../../secret", "../../secret", "é")) {
        refuses(Reason.INVALID, () -> store.files(digest), "sha256");
        refuses(Reason.NOT_FOUND, () -> store.hold(digest), "expected");
      }
    }
  }

  @Test
  void uploads_manyAtOnce() throws Exception {
    try (AdapterStore store =
            AdapterStore.open(
                temp, OPTIONS, new Unforced(), task -> Thread.ofVirtual().start(task));
        ExecutorService threads = Executors.newFixedThreadPool(8)) {
      List<Future<?>> all = new ArrayList<>();
      for (int i = 0; i < 64; i++) {
        int number = i;
        all.add(
            threads.submit(
                () -> {
                  String name = "n" + number % 8;
                  try (AdapterStore.Hold hold = add(store, number % 16)) {
                    store.update(c -> c.publish(name, c.nextVersion(name), hold.content(), TIME));
                  }
                  add(store, number % 16).close();
                  if (number % 4 == 3) {
                    store.update(
                        c -> c.deleteVersion(name, c.entry(name).versions().getFirst().label()));
                  }
                  return null;
                }));
      }
      for (Future<?> each : all) {
        each.get();
      }
      assertThat(
              store.catalog().entries().values().stream().mapToInt(e -> e.versions().size()).sum())
          .isEqualTo(48);
      assertThat(store.verify().faults()).isEmpty();
    }
    try (AdapterStore store = open(temp)) {
      assertThat(store.verify().faults()).isEmpty();
      assertThat(store.verify().unreferred()).isZero();
      assertThat(names(temp.resolve(".staging"))).isEmpty();
    }
  }
}
