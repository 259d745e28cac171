package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.Catalog.Shadow;
import dev.wardrobe.adapter.Catalog.Share;
import dev.wardrobe.adapter.RegistryEvent.Kind;
import dev.wardrobe.compute.Lora;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.OptionalLong;
import java.util.Random;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Versions, aliases and what becomes of requests meanwhile; adapters are real files, only counted.
 */
@Timeout(120)
final class ReleasesTest {
  private static final long SIZE = 1000;
  private static final String CONFIG =
      "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"q_proj\"]}";

  @TempDir Path folder;

  private ExecutorService loaders = Executors.newFixedThreadPool(2);
  private final AtomicLong live = new AtomicLong();
  private final AtomicInteger candidates = new AtomicInteger();
  private Path root;
  private AdapterStore store;
  private AdapterRegistry registry;

  /** Directories under the root that are about to be read, and those that may be. */
  private final Semaphore reading = new Semaphore(0);

  private final Semaphore mayRead = new Semaphore(1 << 20);

  @BeforeEach
  void open() throws Exception {
    root = Files.createDirectory(folder.resolve("root"));
    store = AdapterStore.open(folder.resolve("store"), StoreOptions.DEFAULT);
    registry = registry(AdapterOptions.DEFAULT);
  }

  private AdapterRegistry registry(AdapterOptions options) throws AdapterException {
    AdapterRoots roots = AdapterRoots.of(List.of(root));
    return new AdapterRegistry(
        origin ->
            switch (origin) {
              case Origin.Rooted rooted -> {
                AdapterFiles files = roots.find(rooted.path());
                reading.release();
                mayRead.acquireUninterruptibly();
                yield read(files);
              }
              case Origin.Trusted trusted -> read(Adapter.trusted(trusted.directory()));
              case Origin.Stored stored -> read(store.files(stored.digest()));
            },
        roots,
        store,
        options,
        loaders);
  }

  @AfterEach
  void close() throws Exception {
    registry.close();
    loaders.shutdown();
    assertThat(loaders.awaitTermination(20, TimeUnit.SECONDS)).isTrue();
    store.close();
    assertThat(live).as("bytes left").hasValue(0);
    assertThat(candidates).as("host copies left").hasValue(0);
  }

  /** Weights that begin with "bad" fit no base. */
  private Loader.Candidate read(AdapterFiles files) throws AdapterException {
    String digest;
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile config = files.open(AdapterConfig.FILE);
        AdapterFiles.OpenFile weights = files.open(Adapter.WEIGHTS)) {
      AdapterFiles.Contents bytes = weights.read(1 << 20, arena);
      digest = new Manifest(config.read(1 << 20, arena).blob(), bytes.blob()).digest();
      if (new String(bytes.bytes().toArray(ValueLayout.JAVA_BYTE), StandardCharsets.UTF_8)
          .startsWith("bad")) {
        throw new AdapterException(Reason.INVALID, "it fits no base");
      }
    }
    candidates.incrementAndGet();
    return new Loader.Candidate() {
      @Override
      public Facts facts() {
        return new Facts(digest, "lora", 4, 1, 10, true, SIZE, List.of());
      }

      @Override
      public long hostBytes() {
        return SIZE;
      }

      @Override
      public Lora upload() {
        live.addAndGet(SIZE);
        return new Lora() {
          @Override
          public long bytes() {
            return SIZE;
          }

          @Override
          public boolean additive() {
            return true;
          }

          @Override
          public void close() {
            live.addAndGet(-SIZE);
          }
        };
      }

      @Override
      public void close() {
        candidates.decrementAndGet();
      }
    };
  }

  private static Announcement announce(String name, @Nullable String version, String... aliases) {
    return new Announcement(name, version, List.of(aliases), false, null);
  }

  private static ByteBuffer bytes(String text) {
    return ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
  }

  private Published publish(Announcement announcement, String content) throws AdapterException {
    try (Publication publication =
        registry.publish(announcement, CONFIG.length(), content.length())) {
      publication.config(bytes(CONFIG));
      publication.weights(bytes(content));
      return publication.finish();
    }
  }

  private Published publish(String name, String content) throws AdapterException {
    return publish(announce(name, null), content);
  }

  private static String digest(String content) {
    return new Manifest(blob(CONFIG), blob(content)).digest();
  }

  private static Manifest.Blob blob(String content) {
    byte[] bytes = content.getBytes(StandardCharsets.UTF_8);
    return new Manifest.Blob(
        Manifest.digest(java.lang.foreign.MemorySegment.ofArray(bytes)), bytes.length);
  }

  private Lease lease(String reference) throws Exception {
    return registry.lease(reference).get();
  }

  private String answers(String reference) throws Exception {
    try (Lease lease = lease(reference)) {
      return lease.name() + " " + lease.digest();
    }
  }

  private static void assertRefused(ThrowingCallable call, Reason reason, String... words) {
    assertThatThrownBy(call)
        .satisfies(
            thrown -> {
              Throwable cause = thrown instanceof AdapterException ? thrown : thrown.getCause();
              assertThat(cause).isInstanceOf(AdapterException.class);
              assertThat(((AdapterException) cause).reason())
                  .as(cause.getMessage())
                  .isEqualTo(reason);
              for (String word : words) {
                assertThat(cause.getMessage()).contains(word);
              }
            });
  }

  private void place(String path, String content) throws Exception {
    Path directory = Files.createDirectories(root.resolve(path));
    Files.writeString(directory.resolve(AdapterConfig.FILE), CONFIG);
    Files.writeString(directory.resolve(Adapter.WEIGHTS), content);
  }

  private List<RegistryEvent> events() {
    return registry.events().all();
  }

  private long blobs() throws Exception {
    try (Stream<Path> files = Files.list(folder.resolve("store/blobs/sha256"))) {
      return files.count();
    }
  }

  private long staged() throws Exception {
    try (Stream<Path> files = Files.list(folder.resolve("store/.staging"))) {
      return files.count();
    }
  }

  @Test
  void publish_movesLatest_andEveryNameLeadsThere() throws Exception {
    Published first = publish("a", "one");
    assertThat(first.version()).isEqualTo("1");
    assertThat(first.existed()).isFalse();
    assertThat(first.adapter()).isEqualTo(registry.get("a@1"));
    assertThat(publish(announce("a", null, "prod"), "two").name()).isEqualTo("a@2");
    for (String reference : List.of("a", "a@latest", "a@2", "a@prod", digest("two"))) {
      assertThat(answers(reference)).as(reference).isEqualTo("a@2 " + digest("two"));
    }
    assertThat(answers("a@1")).isEqualTo("a@1 " + digest("one"));
    AdapterEntry entry = registry.get("a@prod");
    assertThat(entry.name()).isEqualTo("a@2");
    assertThat(entry.aliases()).containsExactly("latest", "prod");
    assertThat(entry.source()).isEqualTo(AdapterEntry.Source.STORE);
    assertThat(entry.published()).isNotNull();
    assertThat(events())
        .extracting(e -> e.kind() + " " + e.name() + " " + e.alias() + " " + e.detail())
        .containsExactly(
            "PUBLISHED a@1  ",
            "ALIAS_SET a latest 1",
            "PUBLISHED a@2  ",
            "ALIAS_SET a latest 2",
            "ALIAS_SET a prod 2");
  }

  @Test
  void publish_keepLatest() throws Exception {
    publish("a", "one");
    publish(new Announcement("a", "rc-1", List.of("next"), true, null), "two");
    assertThat(answers("a")).startsWith("a@1 ");
    assertThat(answers("a@next")).startsWith("a@rc-1 ");
    publish(new Announcement("b", null, List.of(), true, null), "three");
    assertThat(answers("b")).startsWith("b@1 ");
  }

  @Test
  void publish_again_changesNothing() throws Exception {
    publish(announce("a", "1", "prod"), "one");
    publish(announce("a", "2", "prod"), "two");
    assertThat(publish(announce("a", "1", "prod"), "one").existed()).isTrue();
    assertThat(answers("a")).startsWith("a@2 ");
    assertThat(answers("a@prod")).startsWith("a@2 ");
    assertRefused(() -> publish(announce("a", "1"), "three"), Reason.EXISTS, "never changes");
    assertRefused(() -> publish(announce("a", "prod"), "three"), Reason.EXISTS, "alias");
    await().untilAsserted(() -> assertThat(blobs()).isEqualTo(5));
  }

  @Test
  void publish_thatIsRefused_leavesNothing() throws Exception {
    List<ThrowingCallable> lies =
        List.of(
            () -> upload(CONFIG.length(), 4, CONFIG, "thr"),
            () -> upload(CONFIG.length(), 4, CONFIG, "three"),
            () -> upload(CONFIG.length() + 1, 3, CONFIG, "one"),
            () -> upload(CONFIG.length() - 1, 3, CONFIG, "one"),
            () -> upload(CONFIG.length(), 3, CONFIG, "bad"),
            () -> upload(-1, 3, CONFIG, "one"),
            () -> upload(CONFIG.length(), -1, CONFIG, "one"),
            () ->
                publish(new Announcement("a", null, List.of(), false, digest("other")), "content"),
            () -> publish(new Announcement("a", null, List.of(), false, "sha256:12"), "content"));
    for (ThrowingCallable lie : lies) {
      assertRefused(lie, Reason.INVALID);
    }
    assertRefused(() -> upload(CONFIG.length(), Long.MAX_VALUE, CONFIG, "one"), Reason.TOO_LARGE);
    try (Publication cut = registry.publish(announce("a", null), CONFIG.length(), 10)) {
      cut.config(bytes(CONFIG));
      cut.weights(bytes("five!"));
      assertThat(staged()).isPositive();
      assertRefused(() -> cut.config(bytes("more")), Reason.INVALID, "after");
    }
    assertThat(registry.page(null, 10).entries()).isEmpty();
    assertThat(events()).isEmpty();
    await().untilAsserted(() -> assertThat(blobs() + staged()).isZero());
  }

  private Published upload(long configBytes, long weightBytes, String config, String weights)
      throws AdapterException {
    try (Publication publication =
        registry.publish(announce("a", null), configBytes, weightBytes)) {
      publication.config(bytes(config));
      publication.weights(bytes(weights));
      return publication.finish();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        " ",
        "a@1",
        "@",
        "../a",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        "a b",
        "a\n",
        "\u0430",
        "a:b",
        "sha256:1",
        "a\u0000",
        ".",
        "..",
        "\u202ea",
        "a\\b",
        "%2e%2e"
      })
  void publish_badNames(String name) throws Exception {
    assertRefused(() -> publish(name, "one"), Reason.INVALID, "name");
    if (!name.isEmpty()) {
      publish("a", "one");
      assertRefused(() -> publish(announce("a", name), "two"), Reason.INVALID);
      assertRefused(() -> publish(announce("a", null, name), "two"), Reason.INVALID);
      assertRefused(
          () -> registry.setAlias("a", name, List.of(new Share("1", 1)), null), Reason.INVALID);
    }
    assertThat(staged()).isZero();
  }

  @Test
  void references_thatLeadNowhere() throws Exception {
    publish("a", "one");
    place("dir/b", "two");
    String digest = digest("one");
    for (String reference :
        List.of(
            "a@",
            "@1",
            "@",
            "a@1@1",
            "a@../1",
            "a@2",
            "A@1",
            "a@\uff11",
            "\u0430@1",
            "a@latest ",
            "a @1",
            "dir/b@1",
            "../root/dir/b",
            "a/../dir/b",
            digest.substring(0, 20),
            digest.substring(0, digest.length() - 1),
            digest + "0",
            "sha256:" + digest.substring(7).toUpperCase(java.util.Locale.ROOT),
            digest.substring(7),
            "a@" + digest)) {
      assertThatThrownBy(() -> registry.lease(reference).join())
          .as(reference)
          .satisfies(
              thrown ->
                  assertThat(((AdapterException) thrown.getCause()).reason())
                      .isIn(Reason.NOT_FOUND, Reason.INVALID));
      assertThatThrownBy(() -> registry.get(reference)).isInstanceOf(AdapterException.class);
      assertThatThrownBy(() -> registry.unload(reference)).isInstanceOf(AdapterException.class);
    }
    assertThat(answers("dir/b")).isEqualTo("dir/b " + digest("two"));
  }

  @Test
  void alias_flipsForTheNextRequest_andBack() throws Exception {
    publish(announce("a", null, "prod"), "one");
    publish("a", "two");
    try (Lease before = lease("a@prod")) {
      registry.setAlias("a", "prod", List.of(new Share("2", 1)), null);
      try (Lease after = lease("a@prod")) {
        assertThat(before.digest()).isEqualTo(digest("one"));
        assertThat(before.name()).isEqualTo("a@1");
        assertThat(after.digest()).isEqualTo(digest("two"));
      }
      registry.rollback("a", "prod");
      assertThat(answers("a@prod")).startsWith("a@1 ");
      assertRefused(() -> registry.rollback("a", "prod"), Reason.NOT_FOUND);
    }
    registry.rollback("a", "latest");
    assertThat(answers("a")).startsWith("a@1 ");
    registry.setAlias("a", "gone", List.of(new Share(digest("two"), 3)), null);
    assertThat(answers("a@gone")).startsWith("a@2 ");
    registry.deleteAlias("a", "gone");
    assertRefused(() -> lease("a@gone"), Reason.NOT_FOUND, "latest, prod");
  }

  @Test
  void alias_badTargets() throws Exception {
    publish("a", "one");
    publish("b", "two");
    assertRefused(() -> registry.setAlias("a", "x", List.of(), null), Reason.INVALID);
    assertRefused(() -> set("a", new Share("1", 0)), Reason.INVALID);
    assertRefused(() -> set("a", new Share("1", -5)), Reason.INVALID);
    assertRefused(() -> set("a", new Share("1", 1), new Share("1", 1)), Reason.INVALID);
    assertRefused(() -> set("a", new Share("9", 1)), Reason.NOT_FOUND);
    assertRefused(() -> set("a", new Share(digest("two"), 1)), Reason.NOT_FOUND);
    assertRefused(() -> set("nobody", new Share("1", 1)), Reason.NOT_FOUND);
    assertRefused(
        () -> registry.setAlias("a", "x", List.of(new Share("1", 1)), new Shadow("9", 1)),
        Reason.NOT_FOUND);
    assertRefused(
        () -> registry.setAlias("a", "1", List.of(new Share("1", 1)), null), Reason.INVALID);
    assertRefused(() -> lease("a@x"), Reason.NOT_FOUND);
  }

  private void set(String name, Share... shares) throws AdapterException {
    registry.setAlias(name, "x", List.of(shares), null);
  }

  @Test
  void split_dividesAndSticks_andIsCounted() throws Exception {
    publish("a", "one");
    publish("a", "two");
    registry.setAlias("a", "prod", List.of(new Share("1", 95), new Share("2", 5)), null);
    int requests = 20_000;
    Map<String, Integer> counts = new HashMap<>();
    for (int i = 0; i < requests; i++) {
      try (Lease lease = registry.lease("a@prod", "user-" + i).get()) {
        counts.merge(lease.name(), 1, Integer::sum);
        if (i % 100 == 0) {
          try (Lease again = registry.lease("a@prod", "user-" + i).get()) {
            assertThat(again.name()).isEqualTo(lease.name());
          }
        }
      }
    }
    // Five standard deviations of the binomial distribution.
    assertThat(counts.get("a@2")).isBetween(1000 - 155, 1000 + 155);
    Release.Alias alias = registry.release("a").alias("prod");
    assertThat(alias.answered().get(0) + alias.answered().get(1)).isEqualTo(requests + 200);
    assertThat(alias.answered().get(1)).isBetween(1000L - 155, 1010L + 165);
    assertRefused(() -> registry.get("a@prod"), Reason.INVALID, "divides");
    assertRefused(() -> registry.pin("a@prod").join(), Reason.INVALID, "divides");
    assertThat(registry.get("a@2").aliases()).contains("prod");
    // The counts are of the alias as it is.
    registry.setAlias("a", "other", List.of(new Share("1", 1)), null);
    assertThat(registry.release("a").alias("prod").answered()).isEqualTo(alias.answered());
    registry.setAlias("a", "prod", List.of(new Share("2", 1)), null);
    assertThat(registry.release("a").alias("prod").answered()).containsExactly(0L);
  }

  @Test
  void restart_keepsWhatNamesLeadTo_andWhoGoesWhere() throws Exception {
    publish("a", "one");
    publish("a", "two");
    publish("a", "three");
    registry.setAlias("a", "prod", List.of(new Share("1", 1)), null);
    registry.setAlias(
        "a", "prod", List.of(new Share("1", 1), new Share("2", 1)), new Shadow("3", 0.5f));
    registry.rollback("a", "latest");
    Map<String, String> byKey = new HashMap<>();
    for (int i = 0; i < 50; i++) {
      try (Lease lease = registry.lease("a@prod", "key " + i).get()) {
        byKey.put("key " + i, lease.name());
      }
    }
    assertThat(byKey.values()).contains("a@1", "a@2");
    Release before = registry.release("a");
    long revision = registry.events().revision();

    registry.close();
    store.close();
    store = AdapterStore.open(folder.resolve("store"), StoreOptions.DEFAULT);
    registry = registry(AdapterOptions.DEFAULT);

    assertThat(registry.release("a").entry()).isEqualTo(before.entry());
    assertThat(answers("a")).startsWith("a@2 ");
    // Whoever watches must not take new events for old ones.
    assertThat(registry.events().revision()).isGreaterThanOrEqualTo(revision);
    // What went where is counted from the start.
    Release.Alias prod = registry.release("a").alias("prod");
    assertThat(prod.answered()).containsExactly(0L, 0L);
    assertThat(Objects.requireNonNull(prod.shadow()).requests()).isZero();
    for (Map.Entry<String, String> each : byKey.entrySet()) {
      try (Lease lease = registry.lease("a@prod", each.getKey()).get()) {
        assertThat(lease.name()).isEqualTo(each.getValue());
      }
    }
    registry.rollback("a", "prod");
    assertThat(answers("a@prod")).startsWith("a@1 ");
  }

  @Test
  void shadow_isToldOfEachCopyOnce() throws Exception {
    publish("a", "one");
    publish("a", "two");
    registry.setAlias("a", "prod", List.of(new Share("1", 1)), new Shadow("2", 1));
    lease("a@prod").close();
    Lease lease = lease("a@prod");
    ShadowCopy copy = Objects.requireNonNull(lease.takeCopy());
    assertThat(lease.takeCopy()).isNull();
    lease.close();
    assertThat(copy.candidate()).isEqualTo("a@2");
    assertThat(copy.wanted()).isTrue();
    copy.completed(
        new ShadowCopy.Answer(new int[] {1, 2, 3, 4}, 2_000_000, 8_000_000),
        new ShadowCopy.Answer(new int[] {1, 2, 9, 4}, 1_000_000, 4_000_000));
    copy.failed();
    ShadowTraffic.Counts counts =
        Objects.requireNonNull(registry.release("a").alias("prod").shadow());
    assertThat(counts)
        .isEqualTo(
            new ShadowTraffic.Counts(
                2,
                1,
                1,
                0,
                4,
                2,
                0,
                new ShadowTraffic.Latency(1, 4),
                new ShadowTraffic.Latency(2, 8)));
    registry.setAlias("a", "prod", List.of(new Share("1", 1)), new Shadow("2", 0.25));
    assertThat(copy.wanted()).isFalse();
    int copies = 0;
    for (int i = 0; i < 4000; i++) {
      try (Lease each = lease("a@prod")) {
        copies += each.takeCopy() == null ? 0 : 1;
      }
    }
    assertThat(copies).isBetween(1000 - 165, 1000 + 165);
    try (Lease direct = lease("a@1")) {
      assertThat(direct.takeCopy()).isNull();
    }
  }

  @Test
  void delete_whileInUse_theRequestGoesOn() throws Exception {
    registry.close();
    // Nothing stays on the host: what is uploaded comes from the store each time.
    registry = registry(AdapterOptions.DEFAULT.withHostBytes(0));
    publish("a", "one");
    publish("a", "two");
    Lease lease = lease("a@1");
    assertThat(registry.deleteVersion("a", "1", false)).isEqualTo(new Unloaded(digest("one"), 1));
    assertRefused(() -> lease("a@1"), Reason.NOT_FOUND);
    assertRefused(() -> lease(digest("one")), Reason.NOT_FOUND);
    Resident resident = lease.upload(() -> true).get();
    assertThat(resident.digest()).isEqualTo(digest("one"));
    resident.close();
    assertThat(blobs()).isEqualTo(5);
    lease.close();
    await().untilAsserted(() -> assertThat(blobs()).isEqualTo(3));
    assertThat(answers("a")).startsWith("a@2 ");
  }

  @Test
  void delete_isRefusedWhileAnAliasPointsThere_unlessForced() throws Exception {
    publish("a", "one");
    publish("a", "two");
    publish("a", "three");
    registry.setAlias("a", "prod", List.of(new Share("1", 9), new Share("2", 1)), null);
    registry.setAlias("a", "old", List.of(new Share("2", 1)), null);
    registry.setAlias("a", "test", List.of(new Share("3", 1)), new Shadow("2", 1));
    assertRefused(() -> registry.deleteVersion("a", "2", false), Reason.IN_USE, "old, prod, test");
    assertRefused(() -> registry.deleteVersion("a", "3", false), Reason.IN_USE, "latest");
    assertThat(registry.deleteVersion("a", "2", true).aliases())
        .containsExactly("old", "prod", "test");
    for (int i = 0; i < 100; i++) {
      assertThat(answers("a@prod")).startsWith("a@1 ");
    }
    assertRefused(() -> lease("a@old"), Reason.NOT_FOUND);
    assertThat(registry.release("a").alias("test").shadow()).isNull();
    registry.deleteVersion("a", "3", true);
    assertThat(answers("a")).startsWith("a@1 ");
    registry.deleteVersion("a", "1", true);
    assertRefused(() -> lease("a"), Reason.NOT_FOUND);
    assertRefused(() -> registry.deleteVersion("a", "1", true), Reason.NOT_FOUND);
    assertThat(registry.page(null, 10).entries()).isEmpty();
    await().untilAsserted(() -> assertThat(blobs()).isZero());
  }

  @Test
  void version_deletedAndPublishedAnew_isNeverTheOldOne() throws Exception {
    publish(announce("a", "x"), "one");
    publish(announce("a", "y"), "two");
    Lease old = lease("a@x");
    registry.deleteVersion("a", "x", true);
    publish(announce("a", "x"), "three");
    try (Lease fresh = lease("a@x")) {
      assertThat(fresh.digest()).isEqualTo(digest("three"));
      assertThat(old.digest()).isEqualTo(digest("one"));
    }
    old.close();
    assertThat(registry.get("a@x").requests()).isEqualTo(1);
  }

  @Test
  void names_ofTheOperatorAndOfRoots() throws Exception {
    place("b", "from the root");
    place("c", "given");
    registry.loadTrusted("c", root.resolve("c"));
    assertRefused(() -> publish("c", "one"), Reason.EXISTS, "--adapter");
    try (Lease rooted = lease("b")) {
      assertThat(rooted.digest()).isEqualTo(digest("from the root"));
      publish("b", "published");
      assertThat(answers("b")).isEqualTo("b@1 " + digest("published"));
      assertThat(rooted.name()).isEqualTo("b");
    }
    assertRefused(() -> registry.load("b", "c").join(), Reason.EXISTS, "store");
    assertRefused(() -> registry.loadTrusted("b", root.resolve("c")), Reason.EXISTS, "store");
    assertThat(registry.load("b", null).get().name()).isEqualTo("b@1");
    assertThat(registry.load("b@1", null).get().digest()).isEqualTo(digest("published"));
    registry.deleteVersion("b", "1", true);
    assertThat(answers("b")).isEqualTo("b " + digest("from the root"));
  }

  @Test
  void scan_ofHundreds_holdsUpNobody() throws Exception {
    int count = 300;
    for (int i = 0; i < count; i++) {
      place("n%03d".formatted(i), "content " + i);
    }
    Files.createDirectory(root.resolve("torn"));
    Files.writeString(root.resolve("torn").resolve(AdapterConfig.FILE), "{");
    // Before anybody has looked.
    assertThat(answers("n250")).isEqualTo("n250 " + digest("content 250"));
    assertThat(names(7)).containsExactly("n250");
    OptionalLong revision = OptionalLong.of(registry.events().revision());
    CompletableFuture<ScanResult> scanning = registry.scan();
    int pages = 0;
    do {
      // In its midst: whatever has been found is there once, in order.
      assertThat(names(7)).isSorted().doesNotHaveDuplicates().contains("n250");
      String asked = "n%03d".formatted(250 + pages++ % 50);
      assertThat(answers(asked)).startsWith(asked + " ");
    } while (!scanning.isDone());
    ScanResult scanned = scanning.get();
    assertThat(scanned.adapters()).isEqualTo(count + 1);
    assertThat(scanned.broken()).isEqualTo(1);
    assertThat(scanned.complete()).isTrue();
    assertThat(names(7)).isEqualTo(names(10_000)).hasSize(count + 1).contains("n000", "torn");
    assertThat(registry.get("n000").digest()).isEmpty();
    assertThat(registry.get("torn").problem()).contains("JSON");
    assertThat(registry.page(null, 1).scanning()).isFalse();
    try (EventLog.Watch watch = registry.events().watch(revision, () -> {})) {
      List<RegistryEvent> told = new ArrayList<>();
      drain(watch, told);
      assertThat(told).filteredOn(e -> e.kind() == Kind.SCANNED).hasSize(1);
    }
  }

  private List<String> names(int most) {
    List<String> names = new ArrayList<>();
    String next = null;
    do {
      AdapterPage page = registry.page(next, most);
      assertThat(page.entries()).hasSizeLessThanOrEqualTo(most);
      page.entries().forEach(entry -> names.add(entry.name()));
      next = page.next();
    } while (next != null);
    return names;
  }

  @Test
  void load_ofWhatIsPublishedMeanwhile_isRefused() throws Exception {
    place("b", "from the root");
    mayRead.drainPermits();
    CompletableFuture<AdapterEntry> loading = registry.load("b", null);
    reading.acquire();
    publish("b", "published");
    mayRead.release();
    assertRefused(loading::join, Reason.EXISTS, "store");
    // Nothing is left of it, in sight or out of it.
    assertThat(registry.list()).extracting(AdapterEntry::name).containsExactly("b@1");
    assertRefused(() -> registry.get(digest("from the root")), Reason.NOT_FOUND);
    assertThat(candidates).hasValue(1);
  }

  @Test
  void request_forWhatIsPublishedMeanwhile_getsWhatItBeganWith() throws Exception {
    place("b", "from the root");
    mayRead.drainPermits();
    CompletableFuture<Lease> waiting = registry.lease("b");
    reading.acquire();
    publish("b", "published");
    mayRead.release();
    try (Lease lease = waiting.get()) {
      assertThat(lease.digest()).isEqualTo(digest("from the root"));
      assertThat(registry.list()).extracting(AdapterEntry::name).containsExactly("b@1");
      lease.upload(() -> true).get().close();
    }
    assertThat(candidates).hasValue(1);
    mayRead.release(10);
    place("b", "later");
    registry.deleteVersion("b", "1", true);
    assertThat(answers("b")).isEqualTo("b " + digest("later"));
  }

  /** A disk that does as it is told, but once, when asked to, denies that a change is safe. */
  private static final class Doubtful extends AdapterStoreTest.Unforced {
    private final Path directory;
    private boolean doubts;

    Doubtful(Path directory) {
      this.directory = directory;
    }

    @Override
    void forceDirectory(Path forced) throws IOException {
      if (doubts && forced.endsWith(directory.getFileName())) {
        doubts = false;
        throw new IOException("planted");
      }
    }
  }

  @Test
  void change_thatIsMadeButSaidToHaveFailed_isMadeEverywhere() throws Exception {
    close();
    Doubtful disk = new Doubtful(folder.resolve("doubtful"));
    store =
        AdapterStore.open(
            folder.resolve("doubtful"), StoreOptions.DEFAULT, disk, task -> task.run());
    loaders = Executors.newFixedThreadPool(2);
    registry = registry(AdapterOptions.DEFAULT);
    place("b", "from the root");
    lease("b").close();
    disk.doubts = true;
    assertRefused(() -> publish("b", "published"), Reason.IO, "the change is made");
    assertThat(answers("b")).isEqualTo("b@1 " + digest("published"));
    assertThat(registry.list()).extracting(AdapterEntry::name).containsExactly("b@1");
    disk.doubts = true;
    assertRefused(() -> registry.deleteVersion("b", "1", true), Reason.IO, "the change is made");
    assertThat(registry.list()).isEmpty();
    assertThat(answers("b")).isEqualTo("b " + digest("from the root"));
  }

  @Test
  void content_thatAnotherNameHasToo_leavesTheStoreWithItsLastVersion() throws Exception {
    place("b", "shared");
    place("c", "shared");
    registry.loadTrusted("c", root.resolve("c"));
    lease("b").close();
    publish("a", "shared");
    assertRefused(() -> publish("c", "other"), Reason.EXISTS, "--adapter");
    assertThat(registry.get("c").source()).isEqualTo(AdapterEntry.Source.START);
    try (Lease lease = lease("a")) {
      registry.deleteVersion("a", "1", true);
      assertThat(blobs()).isEqualTo(3);
      lease.upload(() -> true).get().close();
    }
    await().untilAsserted(() -> assertThat(blobs() + staged()).isZero());
    try (Lease lease = lease("b")) {
      lease.upload(() -> true).get().close();
    }
  }

  @Test
  void publishFrom_aRoot() throws Exception {
    place("team/b", "from the root");
    try (Publication publication = registry.publishFrom(announce("b", "1"), "team/b")) {
      assertThat(publication.finish().name()).isEqualTo("b@1");
    }
    assertThat(answers("b")).isEqualTo("b@1 " + digest("from the root"));
    assertRefused(
        () -> registry.publishFrom(announce("b", null), "../store").close(), Reason.REFUSED_PATH);
    assertRefused(
        () -> registry.publishFrom(announce("b", null), "nobody").close(), Reason.NOT_FOUND);
    assertThat(staged()).isZero();
  }

  @Test
  void unload_ofAVersion_givesItsMemoryBackAlone() throws Exception {
    publish("a", "one");
    registry.prefetchBy(
        lease ->
            lease
                .upload(() -> true)
                .whenComplete((_, _) -> lease.close())
                .thenApply(
                    resident -> {
                      resident.onUnwanted(resident::close);
                      return true;
                    }));
    assertThat(registry.pin("a").get().pinned()).isTrue();
    assertThat(registry.get("a").resident()).isTrue();
    assertThat(registry.unpin("a@1").pinned()).isFalse();
    assertThat(registry.unload("a").digest()).isEqualTo(digest("one"));
    assertThat(registry.get("a").resident()).isFalse();
    assertThat(live).hasValue(0);
    assertThat(answers("a")).startsWith("a@1 ");
    assertThat(events())
        .extracting(RegistryEvent::kind)
        .containsExactly(
            Kind.PUBLISHED, Kind.ALIAS_SET, Kind.LOADING, Kind.READY, Kind.UNLOADED, Kind.EVICTED);
  }

  @Test
  void page_showsEverythingOnce() throws Exception {
    for (int i = 0; i < 12; i++) {
      publish("a", "content " + i);
    }
    for (String name : List.of("a-b", "a/c", "b", "sub/d")) {
      place(name, name);
    }
    place("a", "hidden by the store");
    place("broken", "x");
    Files.delete(root.resolve("broken").resolve(Adapter.WEIGHTS));
    lease("b").close();
    registry.loadTrusted("zz", root.resolve("b"));
    assertThat(registry.scan().get().adapters()).isEqualTo(6);
    List<String> names = new ArrayList<>();
    String after = null;
    for (int page = 0; page == 0 || after != null; page++) {
      AdapterPage part = registry.page(after, 5);
      assertThat(part.entries().size()).isBetween(1, 5);
      part.entries().forEach(entry -> names.add(entry.name()));
      after = part.next();
    }
    List<String> expected = new ArrayList<>();
    for (int i = 1; i <= 12; i++) {
      expected.add("a@" + i);
    }
    expected.addAll(List.of("a-b", "a/c", "b", "broken", "sub/d", "zz"));
    assertThat(names).isEqualTo(expected);
    List<AdapterEntry> all = registry.page(null, 100).entries();
    assertThat(all).filteredOn(e -> !e.problem().isEmpty()).singleElement();
    assertThat(registry.get("broken").problem()).contains(Adapter.WEIGHTS);
    assertThat(registry.get("sub/d").digest()).isEmpty();
    assertThat(registry.get("sub/d").kind()).isEqualTo("lora");
    assertThat(registry.get("b").digest()).isEqualTo(digest("b"));
    // Of a version that nobody asked for since the start, the config is read.
    registry.close();
    registry = registry(AdapterOptions.DEFAULT);
    assertThat(registry.get("a@3").rank()).isEqualTo(4);
    assertThat(registry.get("a@3").parameters()).isZero();
    assertThat(answers("a@3")).endsWith(digest("content 2"));
    assertThat(registry.get("a@3").parameters()).isEqualTo(10);
  }

  @Test
  void withoutAStore_itSaysWhatToDo() throws Exception {
    try (AdapterRegistry storeless =
        new AdapterRegistry(
            origin -> {
              throw new AdapterException(Reason.NOT_FOUND, "none");
            },
            AdapterRoots.of(List.of(root)),
            AdapterOptions.DEFAULT,
            loaders)) {
      assertRefused(
          () -> storeless.publish(announce("a", null), 1, 1).close(), Reason.NOT_SET_UP, "--store");
      assertRefused(() -> storeless.release("a"), Reason.NOT_SET_UP, "--store");
      assertRefused(() -> storeless.lease("a@1").join(), Reason.INVALID, "name");
    }
  }

  /**
   * Clients lease by every kind of name while versions come, go and are pointed at: none is lost,
   * and each answer is what its name stood for.
   */
  @Test
  void everything_atOnce() throws Exception {
    long seed = System.nanoTime();
    Map<String, String> published = new ConcurrentHashMap<>();
    for (String name : List.of("a", "b")) {
      for (int i = 1; i <= 2; i++) {
        published.put(name + "@" + i, digest(name + i));
        publish(announce(name, null, "prod"), name + i);
      }
    }
    AtomicBoolean over = new AtomicBoolean();
    AtomicInteger answered = new AtomicInteger();
    long from = registry.page(null, 100).revision();
    try (EventLog.Watch watch = registry.events().watch(OptionalLong.of(from), () -> {});
        ExecutorService threads = Executors.newCachedThreadPool()) {
      Future<List<RegistryEvent>> watched =
          threads.submit(
              () -> {
                List<RegistryEvent> seen = new ArrayList<>();
                while (!over.get()) {
                  drain(watch, seen);
                  Thread.sleep(1);
                }
                return seen;
              });
      List<Future<?>> clients = new ArrayList<>();
      for (int client = 0; client < 3; client++) {
        Random random = new Random(seed + client);
        clients.add(
            threads.submit(
                () -> {
                  while (!over.get()) {
                    String reference =
                        (random.nextBoolean() ? "a" : "b")
                            + List.of("", "@prod", "@latest").get(random.nextInt(3));
                    try (Lease lease = registry.lease(reference, "k" + random.nextInt(50)).join()) {
                      assertThat(lease.digest())
                          .as("seed %d", seed)
                          .isEqualTo(published.get(lease.name()));
                      if (random.nextInt(200) == 0) {
                        try (Resident resident = lease.upload(() -> true).join()) {
                          assertThat(resident.digest()).isEqualTo(lease.digest());
                        }
                      }
                      answered.incrementAndGet();
                    }
                  }
                  return null;
                }));
      }
      List<Future<?>> operators = new ArrayList<>();
      for (String name : List.of("a", "b")) {
        Random random = new Random(seed ^ name.hashCode());
        operators.add(threads.submit(() -> operate(name, random, published)));
      }
      for (Future<?> operator : operators) {
        operator.get();
      }
      over.set(true);
      for (Future<?> client : clients) {
        client.get();
      }
      List<RegistryEvent> seen = watched.get();
      drain(watch, seen);
      assertEventsTell(from, seen);
    }
    assertThat(answered).hasPositiveValue();
    for (AdapterEntry entry : registry.page(null, 1000).entries()) {
      assertThat(entry.inUse()).as(entry.name()).isZero();
    }
    assertThat(live).hasValue(0);
  }

  private @Nullable Void operate(String name, Random random, Map<String, String> published)
      throws Exception {
    int next = 3;
    for (int step = 0; step < 40; step++) {
      List<Catalog.Version> versions = registry.release(name).entry().versions();
      String some = versions.get(random.nextInt(versions.size())).label();
      try {
        switch (random.nextInt(5)) {
          case 0, 1 -> {
            published.put(name + "@" + next, digest(name + next));
            publish(announce(name, String.valueOf(next), "prod"), name + next);
            next++;
          }
          case 2 -> registry.rollback(name, "prod");
          case 3 ->
              registry.setAlias(
                  name, "prod", List.of(new Share(some, 1 + random.nextInt(9))), null);
          default -> registry.deleteVersion(name, some, false);
        }
      } catch (AdapterException e) {
        assertThat(e.reason()).isIn(Reason.IN_USE, Reason.NOT_FOUND);
      }
    }
    return null;
  }

  private static void drain(EventLog.Watch watch, List<RegistryEvent> into)
      throws AdapterException {
    for (RegistryEvent event = watch.next(); event != null; event = watch.next()) {
      into.add(event);
    }
  }

  /** What the events since a list say is what is there now. */
  private void assertEventsTell(long from, List<RegistryEvent> events) throws Exception {
    TreeSet<String> versions = new TreeSet<>(List.of("a@1", "a@2", "b@1", "b@2"));
    Map<String, String> aliases = new HashMap<>();
    long expected = from;
    for (RegistryEvent event : events) {
      assertThat(event.revision()).isEqualTo(++expected);
      switch (event.kind()) {
        case PUBLISHED -> assertThat(versions.add(event.name())).isTrue();
        case DELETED -> assertThat(versions.remove(event.name())).isTrue();
        case ALIAS_SET -> aliases.put(event.name() + "@" + event.alias(), event.digest());
        default -> {}
      }
    }
    TreeSet<String> there = new TreeSet<>();
    registry.page(null, 1000).entries().forEach(entry -> there.add(entry.name()));
    assertThat(versions).isEqualTo(there);
    for (Map.Entry<String, String> alias : aliases.entrySet()) {
      assertThat(registry.get(alias.getKey()).digest()).isEqualTo(alias.getValue());
    }
  }

  @Test
  void requests_duringAPublish_seeTheOldOrTheNew() throws Exception {
    publish("a", "0");
    AtomicBoolean over = new AtomicBoolean();
    try (ExecutorService threads = Executors.newCachedThreadPool()) {
      Future<Integer> reader =
          threads.submit(
              () -> {
                int last = 0;
                while (!over.get()) {
                  try (Lease lease = registry.lease("a").join()) {
                    int version = Integer.parseInt(lease.name().substring(2));
                    // Never back, never a version without its content.
                    assertThat(version).isGreaterThanOrEqualTo(last);
                    assertThat(lease.digest()).isEqualTo(digest(String.valueOf(version - 1)));
                    last = version;
                  }
                }
                return last;
              });
      for (int i = 1; i <= 30; i++) {
        publish("a", String.valueOf(i));
        // Who asks after a publish has returned gets it.
        assertThat(answers("a")).startsWith("a@" + (i + 1) + " ");
      }
      over.set(true);
      assertThat(reader.get()).isPositive();
    }
    CompletableFuture<Lease> last = registry.lease("a");
    last.get().close();
  }
}
