package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.OutOfMemoryException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Names, leases and memory, over adapters that are only counted. */
@Timeout(60)
final class AdapterRegistryTest {
  private static final long SIZE = 10_000;

  @TempDir Path root;

  private final Shelf shelf = new Shelf();
  private final ExecutorService loaders = Executors.newFixedThreadPool(4);
  private AdapterRegistry registry;

  /** Content by path, and what is in memory of it. */
  private static final class Shelf implements Loader {
    final Map<String, String> content = new ConcurrentHashMap<>();
    final AtomicInteger reads = new AtomicInteger();
    final AtomicInteger openCandidates = new AtomicInteger();
    final AtomicInteger uploads = new AtomicInteger();
    final AtomicLong live = new AtomicLong();
    final Map<String, Semaphore> gates = new ConcurrentHashMap<>();
    volatile @Nullable RuntimeException uploadFails;

    @Override
    public Candidate read(Origin origin) throws AdapterException {
      String path =
          switch (origin) {
            case Origin.Rooted rooted -> rooted.path();
            case Origin.Trusted trusted -> trusted.directory().toString();
          };
      reads.incrementAndGet();
      String found = content.get(path);
      Semaphore gate = gates.get(path);
      if (gate != null) {
        gate.acquireUninterruptibly();
      }
      if (found == null) {
        throw new AdapterException(Reason.NOT_FOUND, "expected a directory, got none");
      }
      openCandidates.incrementAndGet();
      return new Candidate() {
        @Override
        public Facts facts() {
          return new Facts("sha256:" + found, "lora", 8, 4, 100, List.of());
        }

        @Override
        public Lora upload() {
          uploads.incrementAndGet();
          RuntimeException failure = uploadFails;
          if (failure != null) {
            throw failure;
          }
          live.addAndGet(SIZE);
          return new Counted(live);
        }

        @Override
        public void close() {
          openCandidates.decrementAndGet();
        }
      };
    }
  }

  private static final class Counted implements Lora {
    private final AtomicLong live;
    private boolean closed;

    Counted(AtomicLong live) {
      this.live = live;
    }

    @Override
    public long bytes() {
      return SIZE;
    }

    @Override
    public boolean additive() {
      return true;
    }

    synchronized boolean closed() {
      return closed;
    }

    @Override
    public synchronized void close() {
      assertThat(closed).as("closed twice").isFalse();
      closed = true;
      live.addAndGet(-SIZE);
    }
  }

  @BeforeEach
  void open() throws Exception {
    registry = registry(AdapterOptions.DEFAULT);
  }

  private AdapterRegistry registry(AdapterOptions options) throws AdapterException {
    return new AdapterRegistry(shelf, AdapterRoots.of(List.of(root)), options, loaders);
  }

  @AfterEach
  void close() throws Exception {
    shelf.gates.values().forEach(gate -> gate.release(1000));
    loaders.shutdown();
    assertThat(loaders.awaitTermination(20, TimeUnit.SECONDS)).isTrue();
    registry.close();
    assertThat(shelf.live).as("bytes left").hasValue(0);
    assertThat(shelf.openCandidates).as("host copies left").hasValue(0);
    assertThat(registry.residentBytes()).isZero();
  }

  private void place(String path, String content) throws Exception {
    Files.createDirectories(root.resolve(path));
    shelf.content.put(path, content);
  }

  private AdapterEntry load(String name) throws Exception {
    return registry.load(name, null).get();
  }

  private Lease lease(String name) throws Exception {
    return registry.lease(name).get();
  }

  private static AdapterException refusal(CompletableFuture<?> future) {
    try {
      future.join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof AdapterException refusal) {
        return refusal;
      }
      throw e;
    }
    throw new AssertionError("accepted");
  }

  @Test
  void load_bindsTheName() throws Exception {
    place("dir/a", "1");
    AdapterEntry entry = registry.load("a", "dir/a").get();
    assertThat(entry.name()).isEqualTo("a");
    assertThat(entry.digest()).isEqualTo("sha256:1");
    assertThat(entry.resident()).isTrue();
    assertThat(entry.bytes()).isEqualTo(SIZE);
    assertThat(registry.list()).containsExactly(entry);
    assertThat(registry.get("a")).isEqualTo(entry);
    assertThat(registry.get("sha256:1")).isEqualTo(entry);
    assertThat(registry.residentBytes()).isEqualTo(SIZE);
  }

  @Test
  void lease_countsAndIsIdempotent() throws Exception {
    place("a", "1");
    load("a");
    Lease first = lease("a");
    Lease second = lease("sha256:1");
    assertThat(first.digest()).isEqualTo("sha256:1");
    assertThat(second.name()).isEqualTo("a");
    assertThat(first.swapInNanos()).isZero();
    assertThat(registry.get("a").inUse()).isEqualTo(2);
    assertThat(first.lora()).isSameAs(second.lora());
    first.close();
    first.close();
    assertThat(registry.get("a").inUse()).isEqualTo(1);
    assertThatThrownBy(first::lora).isInstanceOf(IllegalStateException.class);
    second.close();
    assertThat(registry.get("a").inUse()).isZero();
    assertThat(registry.get("a").requests()).isEqualTo(2);
    assertThat(shelf.live).hasValue(SIZE);
  }

  @Test
  void lease_loadsFromTheRootOnceHoweverManyAsk() throws Exception {
    place("slow", "1");
    place("fast", "2");
    load("fast");
    Semaphore gate = new Semaphore(0);
    shelf.gates.put("slow", gate);
    shelf.reads.set(0);
    List<CompletableFuture<Lease>> waiting = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      waiting.add(registry.lease("slow"));
    }
    // Others go on meanwhile.
    lease("fast").close();
    assertThat(waiting).noneMatch(CompletableFuture::isDone);
    gate.release(1);
    for (CompletableFuture<Lease> each : waiting) {
      Lease lease = each.get();
      assertThat(lease.swapInNanos()).isPositive();
      assertThat(lease.name()).isEqualTo("slow");
    }
    assertThat(shelf.reads).hasValue(1);
    assertThat(shelf.live).hasValue(2 * SIZE);
    assertThat(registry.get("slow").inUse()).isEqualTo(50);
    for (CompletableFuture<Lease> each : waiting) {
      each.get().close();
    }
  }

  @Test
  void lease_cancelledWhileItLoadsIsGivenBack() throws Exception {
    place("slow", "1");
    Semaphore gate = new Semaphore(0);
    shelf.gates.put("slow", gate);
    CompletableFuture<Lease> gone = registry.lease("slow");
    CompletableFuture<Lease> stays = registry.lease("slow");
    gone.cancel(false);
    gate.release(1);
    Lease lease = stays.get();
    loaders.submit(() -> {}).get();
    assertThat(registry.get("slow").inUse()).isLessThanOrEqualTo(2);
    lease.close();
    loaders.shutdown();
    loaders.awaitTermination(10, TimeUnit.SECONDS);
    assertThat(registry.get("slow").inUse()).isZero();
  }

  @Test
  void lease_ofNothing() {
    assertThat(refusal(registry.lease("nothing")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(refusal(registry.lease("sha256:9")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(refusal(registry.lease("../a")).reason()).isEqualTo(Reason.INVALID);
    assertThat(refusal(registry.lease("")).reason()).isEqualTo(Reason.INVALID);
    assertThat(refusal(registry.lease("nothing"))).hasMessageContaining("'nothing'");
  }

  @Test
  void lease_loadThatFailedIsTriedAgain() throws Exception {
    place("a", "1");
    shelf.uploadFails = new OutOfMemoryException("full");
    AdapterException refusal = refusal(registry.lease("a"));
    assertThat(refusal.reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(registry.list()).isEmpty();
    shelf.uploadFails = new IllegalStateException("a bug");
    assertThat(refusal(registry.lease("a"))).hasMessageContaining("a bug");
    assertThat(refusal(registry.load("a", null))).hasMessageContaining("a bug");
    assertThat(shelf.live).hasValue(0);
    shelf.uploadFails = null;
    lease("a").close();
    assertThat(registry.list()).hasSize(1);
  }

  @Test
  void unload_freesAfterTheLastLease() throws Exception {
    place("a", "1");
    load("a");
    Lease first = lease("a");
    Lease second = lease("a");
    assertThat(registry.unload("a")).isEqualTo(new Unloaded("sha256:1", 2));
    assertThat(registry.list()).isEmpty();
    assertThat(refusal(registry.lease("a")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(refusal(registry.lease("sha256:1")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThatThrownBy(() -> registry.unload("a"))
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.NOT_FOUND));
    assertThat(((Counted) first.lora()).closed()).isFalse();
    first.close();
    assertThat(shelf.live).hasValue(SIZE);
    assertThat(registry.residentBytes()).isEqualTo(SIZE);
    second.close();
    assertThat(shelf.live).hasValue(0);
    assertThat(registry.residentBytes()).isZero();
  }

  @Test
  void unload_staysAwayUntilItIsLoadedAgain() throws Exception {
    place("a", "1");
    lease("a").close();
    registry.unload("a");
    assertThat(refusal(registry.lease("a"))).hasMessageContaining("unloaded");
    load("a");
    lease("a").close();
  }

  @Test
  void unload_whileItLoadsForARequest() throws Exception {
    place("dir", "1");
    AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withCacheBytes(SIZE));
    tight.load("a", "dir").get();
    place("b", "2");
    place("c", "3");
    for (int i = 0; i < 20 && tight.get("a").resident(); i++) {
      tight.lease("b").get().close();
      tight.lease("c").get().close();
    }
    assertThat(tight.get("a").resident()).isFalse();
    Semaphore gate = new Semaphore(0);
    shelf.gates.put("dir", gate);
    CompletableFuture<Lease> waiting = tight.lease("a");
    tight.unload("a");
    gate.release(1);
    assertThat(refusal(waiting).reason()).isEqualTo(Reason.NOT_FOUND);
    tight.close();
  }

  @Test
  void load_againWithOtherContent() throws Exception {
    place("a", "1");
    load("a");
    Lease old = lease("a");
    shelf.content.put("a", "2");
    assertThat(load("a").digest()).isEqualTo("sha256:2");
    Lease fresh = lease("a");
    assertThat(old.digest()).isEqualTo("sha256:1");
    assertThat(((Counted) old.lora()).closed()).isFalse();
    assertThat(fresh.digest()).isEqualTo("sha256:2");
    assertThat(registry.get("a").inUse()).isEqualTo(1);
    assertThat(shelf.live).hasValue(2 * SIZE);
    old.close();
    assertThat(shelf.live).hasValue(SIZE);
    fresh.close();
  }

  @Test
  void load_thatFailsChangesNothing() throws Exception {
    place("a", "1");
    AdapterEntry before = load("a");
    shelf.content.remove("a");
    assertThat(refusal(registry.load("a", null)).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(registry.list()).containsExactly(before);
    lease("a").close();
    assertThat(shelf.live).hasValue(SIZE);
  }

  @Test
  void load_queuedOrdersAreJoined() throws Exception {
    place("a", "1");
    Semaphore gate = new Semaphore(0);
    for (int i = 0; i < 4; i++) {
      loaders.execute(gate::acquireUninterruptibly);
    }
    List<CompletableFuture<AdapterEntry>> loads = new ArrayList<>();
    for (int i = 0; i < 20; i++) {
      loads.add(registry.load("a", null));
    }
    gate.release(4);
    for (CompletableFuture<AdapterEntry> each : loads) {
      assertThat(each.get().digest()).isEqualTo("sha256:1");
    }
    assertThat(shelf.reads).hasValue(1);
  }

  @Test
  void load_sameContentUnderTwoNames() throws Exception {
    place("a", "1");
    place("b", "1");
    load("a");
    load("b");
    assertThat(shelf.live).hasValue(SIZE);
    assertThat(shelf.uploads).hasValue(1);
    Lease lease = lease("b");
    registry.unload("a");
    assertThat(shelf.live).hasValue(SIZE);
    registry.unload("b");
    assertThat(shelf.live).hasValue(SIZE);
    lease.close();
    assertThat(shelf.live).hasValue(0);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        " ",
        "a b",
        ".a",
        "-a",
        "a/",
        "/a",
        "a//b",
        "a/../b",
        "..",
        "a..b",
        "a\n",
        "é",
        "a:b",
        "sha256:1",
        "a\u0000"
      })
  void load_badNames(String name) {
    assertThat(refusal(registry.load(name, "a")).reason()).isEqualTo(Reason.INVALID);
    assertThat(shelf.reads).hasValue(0);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "/etc", "..", "../x", "a/../../x", "a/./b", "a//b", "a\u0000b", "a\\b", "C:x"})
  void load_badPaths(String path) {
    assertThat(refusal(registry.load("a", path)).reason()).isEqualTo(Reason.REFUSED_PATH);
    assertThat(shelf.reads).hasValue(0);
  }

  @Test
  void load_withoutRoots() throws Exception {
    try (AdapterRegistry rootless =
        new AdapterRegistry(shelf, AdapterRoots.of(List.of()), AdapterOptions.DEFAULT, loaders)) {
      AdapterException refusal = refusal(rootless.load("a", "a"));
      assertThat(refusal.reason()).isEqualTo(Reason.REFUSED_PATH);
      assertThat(refusal).hasMessageContaining("--adapter-root");
      assertThat(refusal(rootless.lease("a")).reason()).isEqualTo(Reason.NOT_FOUND);
      shelf.content.put("/given", "1");
      rootless.loadTrusted("a", Path.of("/given"));
      rootless.lease("a").get().close();
      rootless.unload("a");
      assertThat(refusal(rootless.lease("a")).reason()).isEqualTo(Reason.NOT_FOUND);
    }
  }

  @Test
  void loadTrusted_nameTaken() throws Exception {
    shelf.content.put("/given", "1");
    registry.loadTrusted("a", Path.of("/given"));
    assertThatThrownBy(() -> registry.loadTrusted("a", Path.of("/given")))
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.EXISTS));
    assertThat(shelf.live).hasValue(SIZE);
  }

  @Test
  void eviction_reloadsOnDemand() throws Exception {
    try (AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withCacheBytes(3 * SIZE))) {
      shelf.content.put("/given", "pinned");
      tight.loadTrusted("pinned", Path.of("/given"));
      for (int i = 0; i < 10; i++) {
        place("a" + i, "c" + i);
        tight.load("a" + i, null).get();
      }
      assertThat(tight.residentBytes()).isLessThanOrEqualTo(4 * SIZE);
      assertThat(shelf.live).hasValue(tight.residentBytes());
      assertThat(tight.list()).hasSize(11);
      assertThat(tight.get("pinned").resident()).isTrue();
      for (int i = 0; i < 10; i++) {
        try (Lease lease = tight.lease("a" + i).get()) {
          assertThat(lease.digest()).isEqualTo("sha256:c" + i);
          assertThat(tight.get("a" + i).resident()).isTrue();
        }
      }
      assertThat(tight.residentBytes()).isLessThanOrEqualTo(4 * SIZE);
    }
  }

  @Test
  void eviction_neverTakesWhatIsInUse() throws Exception {
    try (AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withCacheBytes(2 * SIZE))) {
      List<Lease> leases = new ArrayList<>();
      for (int i = 0; i < 8; i++) {
        place("a" + i, "c" + i);
        leases.add(tight.lease("a" + i).get());
      }
      int reads = shelf.reads.get();
      for (int i = 0; i < 8; i++) {
        assertThat(((Counted) leases.get(i).lora()).closed()).isFalse();
        try (Lease again = tight.lease("a" + i).get()) {
          assertThat(again.lora()).isSameAs(leases.get(i).lora());
          assertThat(again.swapInNanos()).isZero();
        }
      }
      assertThat(shelf.reads).hasValue(reads);
      assertThat(shelf.live).hasValue(8 * SIZE);
      leases.forEach(Lease::close);
      assertThat(shelf.live.get()).isLessThanOrEqualTo(2 * SIZE);
    }
  }

  @Test
  void eviction_filesThatChangedMeanwhile() throws Exception {
    try (AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withCacheBytes(SIZE))) {
      place("a", "1");
      place("b", "2");
      tight.lease("a").get().close();
      for (int i = 0; i < 20 && tight.get("a").resident(); i++) {
        tight.lease("b").get().close();
      }
      assertThat(tight.get("a").resident()).isFalse();
      shelf.content.put("a", "changed");
      AdapterException refusal = refusal(tight.lease("a"));
      assertThat(refusal.reason()).isEqualTo(Reason.MISMATCH);
      assertThat(refusal).hasMessageContaining("load it again");
      tight.load("a", null).get();
      try (Lease lease = tight.lease("a").get()) {
        assertThat(lease.digest()).isEqualTo("sha256:changed");
      }
    }
  }

  @Test
  void load_largerThanTheCache() throws Exception {
    try (AdapterRegistry tiny = registry(AdapterOptions.DEFAULT.withCacheBytes(SIZE - 1))) {
      place("a", "1");
      assertThat(refusal(tiny.load("a", null)).reason()).isEqualTo(Reason.TOO_LARGE);
      assertThat(refusal(tiny.lease("a")).reason()).isEqualTo(Reason.TOO_LARGE);
      assertThat(shelf.live).hasValue(0);
      shelf.content.put("/given", "1");
      tiny.loadTrusted("given", Path.of("/given"));
    }
  }

  @Test
  void close_refusesAndFrees() throws Exception {
    place("a", "1");
    place("slow", "2");
    load("a");
    Lease lease = lease("a");
    Semaphore gate = new Semaphore(0);
    shelf.gates.put("slow", gate);
    CompletableFuture<Lease> waiting = registry.lease("slow");
    CompletableFuture<AdapterEntry> loading = registry.load("slow", null);
    registry.close();
    gate.release(10);
    assertThat(refusal(waiting)).hasMessageContaining("stopping");
    assertThat(refusal(loading)).hasMessageContaining("stopping");
    assertThat(refusal(registry.lease("a"))).hasMessageContaining("stopping");
    assertThat(((Counted) lease.lora()).closed()).isFalse();
    lease.close();
  }

  @Test
  void loaders_thatRefuse() throws Exception {
    place("a", "1");
    AdapterRegistry refused =
        new AdapterRegistry(
            shelf,
            AdapterRoots.of(List.of(root)),
            AdapterOptions.DEFAULT,
            task -> {
              throw new RejectedExecutionException();
            });
    assertThat(refusal(refused.lease("a"))).hasMessageContaining("stopping");
    assertThat(refusal(refused.lease("a"))).hasMessageContaining("stopping");
    assertThat(refusal(refused.load("a", null))).hasMessageContaining("stopping");
  }

  @Test
  void everything_atOnce() throws Exception {
    long seed = System.nanoTime();
    try (AdapterRegistry busy = registry(AdapterOptions.DEFAULT.withCacheBytes(3 * SIZE));
        ExecutorService clients = Executors.newFixedThreadPool(8)) {
      for (int i = 0; i < 6; i++) {
        place("a" + i, "c" + i % 4);
      }
      List<Future<?>> done = new ArrayList<>();
      for (int client = 0; client < 8; client++) {
        Random random = new Random(seed + client);
        done.add(
            clients.submit(
                () -> {
                  for (int step = 0; step < 400; step++) {
                    act(busy, random);
                  }
                  return null;
                }));
      }
      for (Future<?> each : done) {
        each.get();
      }
      assertThat(busy.list()).as("seed %d", seed).allMatch(e -> e.inUse() == 0);
      assertThat(shelf.live.get()).as("seed %d", seed).isEqualTo(busy.residentBytes());
      assertThat(busy.residentBytes()).as("seed %d", seed).isLessThanOrEqualTo(3 * SIZE);
    }
    assertThat(shelf.live).as("seed %d", seed).hasValue(0);
  }

  private static void act(AdapterRegistry registry, Random random) throws Exception {
    String name = "a" + random.nextInt(6);
    try {
      switch (random.nextInt(10)) {
        case 0 -> registry.unload(name);
        case 1, 2 -> registry.load(name, "a" + random.nextInt(6)).get();
        case 3 -> {
          CompletableFuture<Lease> future = registry.lease(name);
          if (!future.cancel(false) && !future.isCompletedExceptionally()) {
            future.join().close();
          }
        }
        default -> {
          try (Lease lease = registry.lease(name).join()) {
            assertThat(((Counted) lease.lora()).closed()).isFalse();
            Thread.onSpinWait();
            assertThat(((Counted) lease.lora()).closed()).isFalse();
          }
        }
      }
    } catch (AdapterException e) {
      assertThat(e.reason()).isIn(Reason.NOT_FOUND, Reason.MISMATCH);
    } catch (CompletionException | ExecutionException e) {
      assertThat(e.getCause()).isInstanceOf(AdapterException.class);
      assertThat(((AdapterException) e.getCause()).reason())
          .isIn(Reason.NOT_FOUND, Reason.MISMATCH);
    }
  }
}
