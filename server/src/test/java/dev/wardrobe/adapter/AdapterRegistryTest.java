package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.OutOfMemoryException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
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
    final Map<String, Semaphore> uploadGates = new ConcurrentHashMap<>();
    volatile @Nullable RuntimeException uploadFails;

    @Override
    public Candidate read(Origin origin) throws AdapterException {
      String path =
          switch (origin) {
            case Origin.Rooted rooted -> rooted.path();
            case Origin.Trusted trusted -> trusted.directory().toString();
            case Origin.Stored stored -> stored.digest();
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
        private volatile boolean closed;

        @Override
        public Facts facts() {
          return new Facts("sha256:" + found, "lora", 8, 4, 100, true, SIZE, List.of());
        }

        @Override
        public long hostBytes() {
          return SIZE;
        }

        @Override
        public Lora upload() {
          uploads.incrementAndGet();
          Semaphore hold = uploadGates.get(path);
          if (hold != null) {
            hold.acquireUninterruptibly();
          }
          assertThat(closed).as("the host copy is closed while it is read").isFalse();
          RuntimeException failure = uploadFails;
          if (failure != null) {
            throw failure;
          }
          live.addAndGet(SIZE);
          return new Counted(live);
        }

        @Override
        public void close() {
          assertThat(closed).as("a host copy is closed twice").isFalse();
          closed = true;
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

  /** Keeps what was loaded by order resident until no name stands for it, as an engine may. */
  private static final class Keeper implements Function<Lease, CompletableFuture<Boolean>> {
    final List<Resident> kept = new CopyOnWriteArrayList<>();

    @Override
    public CompletableFuture<Boolean> apply(Lease lease) {
      return lease
          .upload(() -> true)
          .whenComplete((_, _) -> lease.close())
          .thenApply(
              resident -> {
                kept.add(resident);
                resident.onUnwanted(() -> giveBack(resident));
                return true;
              });
    }

    private void giveBack(Resident resident) {
      kept.remove(resident);
      resident.close();
    }

    void giveAllBack() {
      List.copyOf(kept).forEach(this::giveBack);
    }
  }

  private static Resident upload(Lease lease) throws Exception {
    return lease.upload(() -> true).get();
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
    shelf.uploadGates.values().forEach(gate -> gate.release(1000));
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
    assertThat(entry.resident()).isFalse();
    assertThat(entry.bytes()).isEqualTo(SIZE);
    assertThat(registry.list()).containsExactly(entry);
    assertThat(registry.get("a")).isEqualTo(entry);
    assertThat(registry.get("sha256:1")).isEqualTo(entry);
    assertThat(registry.residentBytes()).isZero();
  }

  @Test
  void load_nameOfTheBase_orOfItsOwnPath_isRefused() throws Exception {
    place("tiny", "1");
    place("a/versions", "2");
    registry.close();
    registry =
        new AdapterRegistry(
            shelf, AdapterRoots.of(List.of(root)), null, AdapterOptions.DEFAULT, loaders, "tiny");
    assertThatThrownBy(() -> registry.load("tiny", null).get())
        .hasMessageContaining("the base's")
        .hasMessageContaining("choose another name");
    assertThatThrownBy(() -> registry.loadTrusted("tiny", Path.of("/given")))
        .hasMessageContaining("the base's");
    assertThatThrownBy(() -> registry.lease("tiny").get())
        .hasMessageContaining("by naming no adapter");
    assertThatThrownBy(() -> registry.load("a/versions", null).get())
        .hasMessageContaining("/versions")
        .hasMessageContaining("choose another name");
    // What lies there may be had by another name.
    assertThat(registry.load("small", "tiny").get().digest()).isEqualTo("sha256:1");
  }

  @Test
  void load_isPrefetched() throws Exception {
    Keeper keeper = new Keeper();
    registry.prefetchBy(keeper);
    place("a", "1");
    assertThat(load("a").resident()).isTrue();
    assertThat(registry.residentBytes()).isEqualTo(SIZE);
    assertThat(keeper.kept).singleElement().matches(Resident::wanted).matches(r -> !r.pinned());
    shelf.content.put("/given", "2");
    registry.loadTrusted("given", Path.of("/given"));
    Resident pinned = keeper.kept.get(1);
    assertThat(pinned.pinned()).isTrue();

    registry.unload("a");
    registry.unload("given");
    assertThat(keeper.kept).isEmpty();
    assertThat(pinned.pinned()).isFalse();
    assertThat(registry.residentBytes()).isZero();
  }

  @Test
  void load_isWantedBeforeItsNameIsBound() throws Exception {
    List<Boolean> wanted = new CopyOnWriteArrayList<>();
    List<Resident> given = new CopyOnWriteArrayList<>();
    CompletableFuture<Boolean> kept = new CompletableFuture<>();
    registry.prefetchBy(
        lease ->
            lease
                .upload(() -> true)
                .thenCompose(
                    resident -> {
                      lease.close();
                      resident.onUnwanted(resident::close);
                      wanted.add(resident.wanted());
                      given.add(resident);
                      return kept;
                    }));
    place("a", "1");
    CompletableFuture<AdapterEntry> first = registry.load("a", null);
    CompletableFuture<AdapterEntry> second = registry.load("b", "a");
    await().until(() -> given.size() == 2);
    assertThat(wanted).containsExactly(true, true);
    registry.close();
    kept.complete(true);
    assertThat(refusal(first)).hasMessageContaining("stopping");
    assertThat(refusal(second)).hasMessageContaining("stopping");
    assertThat(given).noneMatch(Resident::wanted);
    assertThat(registry.residentBytes()).isZero();
  }

  @Test
  void load_prefetchFails_changesNothing() throws Exception {
    Keeper keeper = new Keeper();
    registry.prefetchBy(keeper);
    place("a", "1");
    shelf.uploadFails = new OutOfMemoryException("full");
    AdapterException refusal = refusal(registry.load("a", null));
    assertThat(refusal.reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(refusal.getMessage()).startsWith("adapter 'a': there is no memory");
    assertThat(registry.list()).isEmpty();
    shelf.content.put("/given", "2");
    assertThatThrownBy(() -> registry.loadTrusted("given", Path.of("/given")))
        .isInstanceOf(AdapterException.class);
    assertThat(registry.list()).isEmpty();
    assertThat(shelf.openCandidates).hasValue(0);
  }

  @Test
  void lease_countsAndIsIdempotent() throws Exception {
    place("a", "1");
    load("a");
    Lease first = lease("a");
    Lease second = lease("sha256:1");
    assertThat(first.digest()).isEqualTo("sha256:1");
    assertThat(first.deviceBytes()).isEqualTo(SIZE);
    assertThat(second.name()).isEqualTo("a");
    assertThat(registry.get("a").inUse()).isEqualTo(2);
    first.close();
    first.close();
    assertThat(registry.get("a").inUse()).isEqualTo(1);
    assertThatThrownBy(() -> first.upload(() -> true)).isInstanceOf(IllegalStateException.class);
    second.close();
    assertThat(registry.get("a").inUse()).isZero();
    assertThat(registry.get("a").requests()).isEqualTo(2);
    assertThat(shelf.live).hasValue(0);
  }

  @Test
  void upload_isFromTheHostsCopy_andReported() throws Exception {
    place("a", "1");
    Lease lease = lease("a");
    assertThat(registry.get("a").resident()).isFalse();
    Resident resident = upload(lease);
    assertThat(resident.digest()).isEqualTo("sha256:1");
    assertThat(resident.bytes()).isEqualTo(SIZE);
    assertThat(resident.loadNanos()).isPositive();
    assertThat(registry.get("a").resident()).isTrue();
    assertThat(registry.residentBytes()).isEqualTo(SIZE);
    // It outlives the lease: who had it uploaded decides.
    lease.close();
    assertThat(registry.get("a").resident()).isTrue();
    resident.close();
    resident.close();
    assertThat(registry.get("a").resident()).isFalse();
    assertThat(shelf.reads).hasValue(1);
  }

  @Test
  void upload_notWantedAnyMore_isNotDone() throws Exception {
    place("a", "1");
    Lease lease = lease("a");
    CompletableFuture<Resident> called = lease.upload(() -> false);
    assertThatThrownBy(called::join).isInstanceOf(CancellationException.class);
    assertThat(shelf.uploads).hasValue(0);
    lease.close();
  }

  @Test
  void upload_fails_nothingIsLeft_andTheNextIsTried() throws Exception {
    place("a", "1");
    Lease lease = lease("a");
    shelf.uploadFails = new OutOfMemoryException("full");
    AdapterException refusal = refusal(lease.upload(() -> true));
    assertThat(refusal.reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(refusal).hasMessageContaining("'a'");
    shelf.uploadFails = new IllegalStateException("a bug");
    assertThat(refusal(lease.upload(() -> true))).hasMessageContaining("a bug");
    assertThat(registry.residentBytes()).isZero();
    shelf.uploadFails = null;
    upload(lease).close();
    lease.close();
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
      assertThat(lease.name()).isEqualTo("slow");
    }
    assertThat(shelf.reads).hasValue(1);
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
  void lease_nobodyWaits_isNotRead() throws Exception {
    place("a", "1");
    List<Runnable> held = new ArrayList<>();
    try (AdapterRegistry slow =
        new AdapterRegistry(
            shelf, AdapterRoots.of(List.of(root)), AdapterOptions.DEFAULT, held::add)) {
      CompletableFuture<Lease> gone = slow.lease("a");
      gone.cancel(false);
      held.removeFirst().run();
      assertThat(shelf.reads).hasValue(0);
      CompletableFuture<Lease> again = slow.lease("a");
      held.removeFirst().run();
      again.get().close();
      assertThat(shelf.reads).hasValue(1);
    }
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
  void lease_readThatFailedIsTriedAgain() throws Exception {
    Files.createDirectories(root.resolve("a"));
    assertThat(refusal(registry.lease("a")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(registry.list()).isEmpty();
    place("a", "1");
    lease("a").close();
    assertThat(registry.list()).hasSize(1);
  }

  @Test
  void unload_leasesGoOn_evenIfTheFilesAreGone() throws Exception {
    place("a", "1");
    load("a");
    Lease first = lease("a");
    Lease second = lease("a");
    Resident resident = upload(first);
    AtomicInteger told = new AtomicInteger();
    resident.onUnwanted(told::incrementAndGet);
    assertThat(resident.wanted()).isTrue();
    assertThat(registry.unload("a")).isEqualTo(new Unloaded("sha256:1", 2));
    assertThat(resident.wanted()).isFalse();
    assertThat(told).hasValue(1);
    assertThat(registry.list()).isEmpty();
    assertThat(refusal(registry.lease("a")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(refusal(registry.lease("sha256:1")).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThatThrownBy(() -> registry.unload("a"))
        .isInstanceOfSatisfying(
            AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.NOT_FOUND));
    resident.close();
    shelf.content.remove("a");
    first.close();
    // Evicted, unloaded, deleted: who began with it still gets it.
    Resident again = upload(second);
    assertThat(registry.residentBytes()).isEqualTo(SIZE);
    second.close();
    assertThat(shelf.openCandidates).hasValue(0);
    again.close();
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
  void unload_whileItIsReadForARequest() throws Exception {
    place("a", "1");
    load("a");
    registry.unload("a");
    load("a");
    Semaphore gate = new Semaphore(0);
    shelf.gates.put("b", gate);
    place("b", "2");
    CompletableFuture<Lease> waiting = registry.lease("b");
    await().until(() -> shelf.reads.get() == 3);
    CompletableFuture<AdapterEntry> ordered = registry.load("b", "a");
    ordered.get();
    registry.unload("b");
    gate.release(1);
    assertThat(refusal(waiting)).hasMessageContaining("unloaded");
    assertThat(registry.list()).extracting(AdapterEntry::name).containsExactly("a");
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
    assertThat(fresh.digest()).isEqualTo("sha256:2");
    assertThat(registry.get("a").inUse()).isEqualTo(1);
    try (Resident first = upload(old);
        Resident second = upload(fresh)) {
      assertThat(first.digest()).isEqualTo("sha256:1");
      assertThat(second.digest()).isEqualTo("sha256:2");
      assertThat(first.wanted()).isFalse();
      assertThat(registry.residentBytes()).isEqualTo(2 * SIZE);
    }
    old.close();
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
  }

  @Test
  void load_thatFails_isToldToWhoeverWatches() throws Exception {
    place("a", "1");
    try (AdapterRegistry tiny = registry(AdapterOptions.DEFAULT.withDeviceBytes(SIZE - 1))) {
      refusal(tiny.load("a", null));
      refusal(tiny.lease("a"));
      refusal(tiny.lease("nobody"));
      refusal(tiny.load("nobody", null));
      assertThat(tiny.events().all())
          .hasSize(2)
          .allMatch(e -> e.kind() == RegistryEvent.Kind.FAILED && e.name().equals("a"))
          .allMatch(e -> e.detail().contains("10000"));
    }
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

  private static Function<Lease, CompletableFuture<Boolean>> answering(boolean resident) {
    return lease -> {
      lease.close();
      return CompletableFuture.completedFuture(resident);
    };
  }

  private boolean isPinned(String name) throws Exception {
    try (Lease lease = lease(name)) {
      assertThat(registry.get(name).pinned()).isEqualTo(lease.pinned());
      return lease.pinned();
    }
  }

  @Test
  void pin_thatFails_leavesWhatWas() throws Exception {
    place("a", "1");
    registry.prefetchBy(answering(false));
    assertThat(refusal(registry.pin("a")).reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(isPinned("a")).isFalse();
    registry.prefetchBy(answering(true));
    assertThat(registry.pin("a").get().pinned()).isTrue();
    registry.prefetchBy(answering(false));
    assertThat(refusal(registry.pin("a")).reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(isPinned("a")).isTrue();
    assertThat(registry.unpin("a").pinned()).isFalse();
    assertThat(isPinned("a")).isFalse();
  }

  @Test
  void pins_besideEachOther() throws Exception {
    place("a", "1");
    List<CompletableFuture<Boolean>> prefetched = new CopyOnWriteArrayList<>();
    registry.prefetchBy(
        lease -> {
          lease.close();
          prefetched.add(new CompletableFuture<>());
          return prefetched.getLast();
        });
    CompletableFuture<AdapterEntry> first = registry.pin("a");
    await().until(() -> prefetched.size() == 1);
    // Else it could be evicted before the answer is there.
    assertThat(isPinned("a")).isTrue();
    CompletableFuture<AdapterEntry> second = registry.pin("a");
    await().until(() -> prefetched.size() == 2);
    prefetched.get(1).complete(true);
    assertThat(second.get().pinned()).isTrue();
    prefetched.get(0).complete(false);
    assertThat(refusal(first).reason()).isEqualTo(Reason.TOO_LARGE);
    assertThat(isPinned("a")).isTrue();

    CompletableFuture<AdapterEntry> third = registry.pin("a");
    await().until(() -> prefetched.size() == 3);
    registry.unload("a");
    shelf.content.put("a", "2");
    prefetched.get(2).complete(true);
    assertThat(refusal(third).reason()).isEqualTo(Reason.NOT_FOUND);
    assertThat(registry.list()).isEmpty();
  }

  @Test
  void load_again_staysPinned() throws Exception {
    place("a", "1");
    registry.prefetchBy(answering(true));
    registry.pin("a").get();
    shelf.content.put("a", "2");
    assertThat(load("a").pinned()).isTrue();
    assertThat(isPinned("a")).isTrue();
    assertThat(registry.unpin("a").pinned()).isFalse();
    assertThat(isPinned("a")).isFalse();
  }

  @Test
  void unload_ofOneOfTwoDirectoriesOfTheSame() throws Exception {
    try (AdapterRegistry none = registry(AdapterOptions.DEFAULT.withHostBytes(0))) {
      place("a", "1");
      place("b", "1");
      none.load("a", null).get();
      none.load("b", null).get();
      none.unload("b");
      shelf.content.remove("b");
      try (Lease lease = none.lease("a").get()) {
        upload(lease).close();
      }
    }
  }

  @Test
  void unload_byDigest() throws Exception {
    place("a", "1");
    load("a");
    assertThat(registry.unload("sha256:1").digest()).isEqualTo("sha256:1");
    assertThat(registry.list()).isEmpty();
    // It was under a root, and stays away as one does that is unloaded by its name.
    assertThat(refusal(registry.lease("a"))).hasMessageContaining("load it again");
  }

  @Test
  void load_sameContentUnderTwoNames() throws Exception {
    place("a", "1");
    place("b", "1");
    load("a");
    load("b");
    assertThat(shelf.openCandidates).hasValue(1);
    Lease lease = lease("b");
    Resident resident = upload(lease);
    assertThat(registry.get("a").resident()).isTrue();
    registry.unload("a");
    assertThat(resident.wanted()).isTrue();
    registry.unload("b");
    assertThat(resident.wanted()).isFalse();
    resident.close();
    lease.close();
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
  }

  @Test
  void hostCopies_areBounded_andReadAgain() throws Exception {
    try (AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withHostBytes(3 * SIZE))) {
      for (int i = 0; i < 10; i++) {
        place("a" + i, "c" + i);
        tight.lease("a" + i).get().close();
        assertThat(shelf.openCandidates.get()).isLessThanOrEqualTo(3);
      }
      assertThat(tight.list()).hasSize(10);
      int reads = shelf.reads.get();
      for (int i = 0; i < 10; i++) {
        // What is known of it needs no files.
        Lease lease = tight.lease("a" + i).get();
        assertThat(lease.digest()).isEqualTo("sha256:c" + i);
        upload(lease).close();
        lease.close();
      }
      assertThat(shelf.reads.get()).isBetween(reads + 7, reads + 10);
      assertThat(shelf.openCandidates.get()).isLessThanOrEqualTo(3);
    }
  }

  @Test
  void hostCopy_evictedWhileItIsUploaded_staysUntilThen() throws Exception {
    try (AdapterRegistry tight = registry(AdapterOptions.DEFAULT.withHostBytes(SIZE))) {
      place("a", "1");
      Lease lease = tight.lease("a").get();
      Semaphore gate = new Semaphore(0);
      shelf.uploadGates.put("a", gate);
      CompletableFuture<Resident> upload = lease.upload(() -> true);
      await().until(() -> shelf.uploads.get() == 1);
      for (int i = 0; i < 8; i++) {
        place("b" + i, "b" + i);
        tight.lease("b" + i).get().close();
      }
      gate.release(1);
      // The candidate itself objects if it is closed by now.
      upload.get().close();
      lease.close();
      await().until(() -> shelf.openCandidates.get() <= 1);
    }
  }

  @Test
  void hostCopies_noneAtAll() throws Exception {
    try (AdapterRegistry none = registry(AdapterOptions.DEFAULT.withHostBytes(0))) {
      place("a", "1");
      Lease lease = none.lease("a").get();
      assertThat(shelf.openCandidates).hasValue(0);
      upload(lease).close();
      lease.close();
      await().until(() -> shelf.openCandidates.get() == 0);
    }
  }

  @Test
  void upload_filesThatChangedMeanwhile() throws Exception {
    try (AdapterRegistry none = registry(AdapterOptions.DEFAULT.withHostBytes(0))) {
      place("a", "1");
      Lease lease = none.lease("a").get();
      shelf.content.put("a", "changed");
      AdapterException refusal = refusal(lease.upload(() -> true));
      assertThat(refusal.reason()).isEqualTo(Reason.MISMATCH);
      assertThat(refusal).hasMessageContaining("load it again");
      lease.close();
      none.load("a", null).get();
      try (Lease again = none.lease("a").get()) {
        assertThat(again.digest()).isEqualTo("sha256:changed");
        upload(again).close();
      }
    }
  }

  @Test
  void load_largerThanMemory() throws Exception {
    try (AdapterRegistry tiny = registry(AdapterOptions.DEFAULT.withDeviceBytes(SIZE - 1))) {
      place("a", "1");
      assertThat(refusal(tiny.load("a", null)).reason()).isEqualTo(Reason.TOO_LARGE);
      assertThat(refusal(tiny.lease("a")).reason()).isEqualTo(Reason.TOO_LARGE);
      shelf.content.put("/given", "1");
      assertThatThrownBy(() -> tiny.loadTrusted("given", Path.of("/given")))
          .hasMessageContaining("9999")
          .hasMessageContaining("10000");
      assertThat(shelf.openCandidates).hasValue(0);
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
    // At once, not only when the file was read.
    assertThat(refusal(waiting)).hasMessageContaining("stopping");
    gate.release(10);
    assertThat(refusal(loading)).hasMessageContaining("stopping");
    assertThat(refusal(registry.lease("a"))).hasMessageContaining("stopping");
    assertThat(refusal(lease.upload(() -> true))).hasMessageContaining("stopping");
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
  void loaders_thatRefuseFromSomeTimeOn() throws Exception {
    place("a", "1");
    AtomicBoolean refuse = new AtomicBoolean();
    try (AdapterRegistry refused =
        new AdapterRegistry(
            shelf,
            AdapterRoots.of(List.of(root)),
            AdapterOptions.DEFAULT,
            task -> {
              if (refuse.get()) {
                throw new RejectedExecutionException();
              }
              task.run();
            })) {
      refused.prefetchBy(answering(true));
      refused.load("a", null).get();
      refuse.set(true);
      assertThat(refusal(refused.pin("a"))).hasMessageContaining("stopping");
    }
  }

  @Test
  void everything_atOnce() throws Exception {
    long seed = System.nanoTime();
    try (AdapterRegistry busy = registry(AdapterOptions.DEFAULT.withHostBytes(3 * SIZE));
        ExecutorService clients = Executors.newFixedThreadPool(8)) {
      Keeper keeper = new Keeper();
      busy.prefetchBy(keeper);
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
      assertThat(busy.residentBytes()).as("seed %d", seed).isEqualTo(keeper.kept.size() * SIZE);
      assertThat(shelf.openCandidates.get()).as("seed %d", seed).isLessThanOrEqualTo(3);
      keeper.giveAllBack();
      assertThat(shelf.live).as("seed %d", seed).hasValue(0);
    }
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
          try (Lease lease = registry.lease(name).join();
              Resident resident = lease.upload(() -> true).join()) {
            assertThat(((Counted) resident.lora()).closed()).isFalse();
            assertThat(resident.digest()).isEqualTo(lease.digest());
            Thread.onSpinWait();
            assertThat(((Counted) resident.lora()).closed()).isFalse();
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
