package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class AdapterStoreTest {
  static final Instant TIME = Instant.parse("2026-01-02T03:04:05.678Z");
  private static final StoreOptions OPTIONS = StoreOptions.DEFAULT;

  @TempDir private Path temp;

  static AdapterStore open(Path directory) throws AdapterException {
    return AdapterStore.open(directory, OPTIONS, new Disk(), Runnable::run);
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
      assertThat(store.update(c -> c.rollback("support", "prod")).find("support@prod").target())
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
}
