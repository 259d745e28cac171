package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;

import com.github.benmanes.caffeine.cache.Cache;
import com.github.benmanes.caffeine.cache.Caffeine;
import com.github.benmanes.caffeine.cache.RemovalCause;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.model.Model;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.NavigableSet;
import java.util.Objects;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The adapters of a server: names, the digests they stand for, and their copies on the host.
 *
 * <p>A name is bound to a digest when it is loaded, and to another only when it is loaded again.
 * Requests hold {@link Lease leases}: the right to one digest, whatever becomes of its name. What
 * of it is in the backend's memory is decided elsewhere, by whoever has leases {@linkplain
 * Lease#upload upload}; the registry keeps the copies that this is done from, in a cache of so many
 * bytes, and hears when one is made resident and when it goes.
 *
 * <p>A request for a name that is not loaded reads the directory of that name under a root, once
 * however many ask, unless the name was unloaded: then it stays away until it is loaded again.
 *
 * <p>Safe for use by all threads. Files are read by {@code loaders} alone; no other method waits.
 */
public final class AdapterRegistry implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(AdapterRegistry.class);

  /*
   * One lock guards all of the state; reading files and uploading happen outside of it. Each host
   * copy counts its holders; at zero it is closed, and that, like telling others, is left to be
   * done without the lock, see `settle`. The cache is called with the lock held only, and runs its
   * listener on the caller's thread, so there is one order of locks.
   */

  /** Events that are kept for those who watch. */
  private static final int KEPT_EVENTS = 65_536;

  /** How often a request is resolved anew when its version is deleted under its hands. */
  private static final int ATTEMPTS = 100;

  private final Loader loader;
  private final AdapterRoots roots;
  private final String base;
  private final AdapterOptions options;
  private final Executor loaders;
  private final EventLog events;
  private final RootScan scan;
  private final @Nullable Releases releases;

  private final Object lock = new Object();
  private final SortedMap<String, Registration> names = new TreeMap<>();
  private final Map<String, Presence> presences = new HashMap<>();
  private final Map<String, Demand> demands = new HashMap<>();
  private final Map<Order, CompletableFuture<AdapterEntry>> queued = new HashMap<>();
  private final Set<String> withdrawn = new HashSet<>();
  private final Cache<String, HostCopy> cache;
  private final ConcurrentLinkedQueue<Runnable> unsettled = new ConcurrentLinkedQueue<>();
  private boolean closed;

  private volatile Function<Lease, CompletableFuture<Boolean>> prefetch =
      lease -> {
        lease.close();
        return CompletableFuture.completedFuture(false);
      };

  /** A load that was asked for in so many words. */
  private record Order(String name, String path) {}

  /** An empty registry without a store. */
  public AdapterRegistry(
      Model model, Backend backend, List<Path> roots, AdapterOptions options, Executor loaders)
      throws AdapterException {
    this(model, backend, roots, null, options, loaders);
  }

  AdapterRegistry(Loader loader, AdapterRoots roots, AdapterOptions options, Executor loaders) {
    this(loader, roots, null, options, loaders);
  }

  /**
   * An empty registry.
   *
   * @param model what adapters are checked against
   * @param backend where they become resident
   * @param roots the directories that clients may load from; none: no loads by path
   * @param store of published versions, which stays its owner's; null: none
   * @param loaders runs what reads files and uploads; its size bounds how much at once
   * @throws AdapterException if a root is not a directory
   */
  public AdapterRegistry(
      Model model,
      Backend backend,
      List<Path> roots,
      @Nullable AdapterStore store,
      AdapterOptions options,
      Executor loaders)
      throws AdapterException {
    this(
        new FileLoader(model, backend, AdapterRoots.of(roots), store, options),
        AdapterRoots.of(roots),
        store,
        options,
        loaders,
        model == null ? "" : model.name());
  }

  AdapterRegistry(
      Loader loader,
      AdapterRoots roots,
      @Nullable AdapterStore store,
      AdapterOptions options,
      Executor loaders) {
    this(loader, roots, store, options, loaders, "");
  }

  /**
   * As the others.
   *
   * @param base the base's name, which no adapter can have; empty: unknown
   */
  AdapterRegistry(
      Loader loader,
      AdapterRoots roots,
      @Nullable AdapterStore store,
      AdapterOptions options,
      Executor loaders,
      String base) {
    this.base = base;
    this.loader = loader;
    this.roots = roots;
    this.options = options;
    this.loaders = loaders;
    this.events = EventLog.begunNow(KEPT_EVENTS);
    this.scan = new RootScan(roots, options, base, events);
    this.releases = store == null ? null : new Releases(store, options, events);
    this.cache =
        Caffeine.newBuilder()
            .maximumWeight(kibibytes(options.hostBytes()))
            .weigher((String digest, HostCopy copy) -> weight(copy))
            .executor(Runnable::run)
            .removalListener(
                (@Nullable String digest, @Nullable HostCopy copy, RemovalCause cause) -> {
                  if (copy != null) {
                    release(copy);
                  }
                })
            .build();
  }

  private static int weight(HostCopy copy) {
    return (int) Math.min(Integer.MAX_VALUE, Math.max(1, kibibytes(copy.candidate.hostBytes())));
  }

  private static long kibibytes(long bytes) {
    return (bytes >> 10) + ((bytes & 1023) == 0 ? 0 : 1);
  }

  /**
   * From now on what is loaded, by order or by the operator, goes through {@code prefetch} before a
   * name is bound to it: it is given a lease, which it closes, and completes with whether the
   * adapter is resident now; with an exception if it cannot be, and then the load fails.
   */
  public void prefetchBy(Function<Lease, CompletableFuture<Boolean>> prefetch) {
    this.prefetch = prefetch;
  }

  /**
   * Loads an adapter from under a root and binds {@code name} to it, replacing what the name stood
   * for. Nothing changes unless all of it succeeds. A name of the store is bound already: what it
   * stands for is made resident.
   *
   * @param path of its directory, relative to a root; null: the name
   * @return completed by another thread; exceptionally with an {@link AdapterException}
   */
  public CompletableFuture<AdapterEntry> load(String name, @Nullable String path) {
    String from = path == null ? name : path;
    try {
      Route route = point(name);
      if (route != null && path == null) {
        return makeResident(route);
      }
      checkNotStored(name);
      AdapterName.check(name);
      AdapterName.checkNotBase(name, base);
      roots.check(from);
    } catch (AdapterException e) {
      return CompletableFuture.failedFuture(e.of(name));
    }
    Order order = new Order(name, from);
    CompletableFuture<AdapterEntry> result = new CompletableFuture<>();
    synchronized (lock) {
      // One that has begun may have read what has changed since: only a queued one is joined.
      CompletableFuture<AdapterEntry> joined = queued.putIfAbsent(order, result);
      if (joined != null) {
        return joined.copy();
      }
    }
    try {
      loaders.execute(() -> carryOut(order, result));
    } catch (RejectedExecutionException e) {
      forget(order);
      result.completeExceptionally(stopped().of(name));
    }
    return result.copy();
  }

  private void carryOut(Order order, CompletableFuture<AdapterEntry> result) {
    forget(order);
    load(order.name(), new Origin.Rooted(order.path()), false, result);
  }

  private void forget(Order order) {
    synchronized (lock) {
      queued.remove(order);
    }
  }

  /**
   * Loads an adapter that the operator names. This thread reads it, and waits until it is resident
   * if there is room; then it stays so until it is unloaded.
   *
   * @throws AdapterException if the name is taken, or the adapter cannot be used
   */
  public AdapterEntry loadTrusted(String name, Path directory) throws AdapterException {
    CompletableFuture<AdapterEntry> result = new CompletableFuture<>();
    try {
      AdapterName.check(name);
      AdapterName.checkNotBase(name, base);
      checkNotStored(name);
      checkFree(name);
    } catch (AdapterException e) {
      throw e.of(name);
    }
    load(name, new Origin.Trusted(directory), true, result);
    try {
      return result.join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof AdapterException refusal) {
        throw refusal;
      }
      throw e;
    }
  }

  private void checkNotStored(String name) throws AdapterException {
    if (releases != null && releases.catalog().entry(name) != null) {
      throw new AdapterException(
          Reason.EXISTS,
          "the name is the store's; publish a version of it, or choose another name");
    }
  }

  private void checkFree(String name) throws AdapterException {
    synchronized (lock) {
      if (names.containsKey(name)) {
        throw new AdapterException(
            Reason.EXISTS, "the name is taken; give each adapter a name of its own");
      }
    }
  }

  /**
   * Reads on this thread; the rest follows when it is resident, on whichever thread makes it so.
   */
  private void load(
      String name, Origin origin, boolean pin, CompletableFuture<AdapterEntry> result) {
    Presence presence;
    CompletableFuture<Boolean> ready;
    try {
      presence = obtain(origin);
    } catch (AdapterException e) {
      failed(name, "", e);
      result.completeExceptionally(e.of(name));
      return;
    }
    synchronized (lock) {
      // Until the name is bound the load stands for it: it must not be evicted between.
      presence.load(1);
      presence.pin(pin ? 1 : 0);
      presence.holders++;
    }
    ready = prefetch.apply(new Lease(this, name, presence, null, () -> letGo(presence)));
    CompletableFuture<?> _ =
        ready.whenComplete(
            (_, failure) -> {
              AdapterEntry bound = null;
              AdapterException refused = null;
              try {
                bound = bind(name, origin, presence, pin, failure);
              } catch (AdapterException e) {
                refused = e.of(name);
              } finally {
                letGo(presence);
              }
              if (bound != null) {
                result.complete(bound);
              } else if (refused != null) {
                result.completeExceptionally(refused);
              }
            });
  }

  private AdapterEntry bind(
      String name, Origin origin, Presence presence, boolean pin, @Nullable Throwable failure)
      throws AdapterException {
    try {
      if (failure != null) {
        throw refusal(failure);
      }
      presence.facts.warnings().forEach(warning -> log.warn("adapter '{}': {}", name, warning));
      synchronized (lock) {
        if (closed) {
          throw stopped();
        }
        // It may have been published since the load began.
        checkNotStored(name);
        if (pin) {
          checkFree(name);
        }
        return entry(bind(name, origin, presence, pin));
      }
    } finally {
      synchronized (lock) {
        presence.load(-1);
        presence.pin(pin ? -1 : 0);
        presence.tellUnwanted(unsettled);
      }
      settle();
    }
  }

  /** What a prefetch failed by, without the name, which is said later. */
  private static AdapterException refusal(Throwable failure) {
    Throwable cause =
        failure instanceof CompletionException e && e.getCause() != null ? e.getCause() : failure;
    if (cause instanceof AdapterException refusal) {
      return refusal.getCause() instanceof AdapterException plain ? plain : refusal;
    }
    return new AdapterException(
        Reason.IO, "loading failed unexpectedly (%s); please report it".formatted(cause), cause);
  }

  /**
   * Reads an adapter.
   *
   * @return its presence, held once for the caller
   */
  private Presence obtain(Origin origin) throws AdapterException {
    HostCopy copy = read(origin);
    try {
      Facts facts = copy.candidate.facts();
      if (facts.deviceBytes() > options.deviceBytes()) {
        throw new AdapterException(
            Reason.TOO_LARGE,
            "expected at most %d bytes resident, all that adapters may have, got %d; give the server"
                    .formatted(options.deviceBytes(), facts.deviceBytes())
                + " more with --memory-mib");
      }
      synchronized (lock) {
        Presence presence =
            presences.computeIfAbsent(facts.digest(), d -> new Presence(facts, origin));
        presence.holders++;
        return presence;
      }
    } finally {
      letGo(copy);
    }
  }

  /**
   * Reads and checks, and keeps what it read in the cache.
   *
   * @return held once for the caller
   */
  private HostCopy read(Origin origin) throws AdapterException {
    Loader.Candidate candidate;
    try {
      candidate = loader.read(origin);
    } catch (OutOfMemoryException | OutOfMemoryError e) {
      throw outOfMemory(e);
    } catch (RuntimeException | Error e) {
      throw unexpected(e);
    }
    synchronized (lock) {
      String digest = candidate.facts().digest();
      HostCopy present = cache.getIfPresent(digest);
      if (present != null) {
        // Another was faster; nothing uses this one.
        unsettled.add(candidate::close);
        present.holders++;
        return present;
      }
      HostCopy copy = new HostCopy(candidate);
      // The caller first: the cache may let go of it at once.
      copy.holders++;
      if (!closed) {
        copy.holders++;
        cache.put(digest, copy);
        cache.cleanUp();
      }
      return copy;
    }
  }

  private static AdapterException outOfMemory(Throwable e) {
    return new AdapterException(
        Reason.TOO_LARGE,
        "there is no memory left for it; unload others, or give the server more",
        e);
  }

  private static AdapterException unexpected(Throwable e) {
    return new AdapterException(
        Reason.IO, "loading failed unexpectedly (%s); please report it".formatted(e), e);
  }

  private void release(HostCopy copy) {
    synchronized (lock) {
      if (--copy.holders == 0) {
        unsettled.add(copy.candidate::close);
      }
    }
  }

  private void letGo(HostCopy copy) {
    synchronized (lock) {
      release(copy);
      // What was read in vain is of no use to anyone.
      String digest = copy.candidate.facts().digest();
      if (!presences.containsKey(digest)) {
        cache.invalidate(digest);
      }
    }
    settle();
  }

  private void letGo(Presence presence) {
    synchronized (lock) {
      presence.holders--;
      tidy(presence);
    }
    settle();
  }

  /** Forgets what nobody has to do with any more, with the lock held. */
  private void tidy(Presence presence) {
    if (presence.holders == 0 && presence.kept != null) {
      release(presence.kept);
      presence.kept = null;
    }
    if (presence.holders == 0 && presence.names().isEmpty()) {
      String digest = presence.facts.digest();
      cache.invalidate(digest);
      if (presence.residents.isEmpty()) {
        presences.remove(digest, presence);
      }
    }
    leaveStore(presence);
  }

  /** Lets the store's content go, once no version and no lease needs it; with the lock held. */
  private void leaveStore(Presence presence) {
    if (presence.hold == null || presence.holders > 0) {
      return;
    }
    Origin other = null;
    for (String name : presence.names()) {
      Registration registration = names.get(name);
      if (registration != null && registration.origin instanceof Origin.Stored) {
        return;
      }
      other = registration == null ? other : registration.origin;
    }
    presence.hold.close();
    presence.hold = null;
    if (other != null) {
      presence.origin = other;
    }
  }

  /** Does what was put off until the lock was given back. */
  private void settle() {
    for (Runnable next = unsettled.poll(); next != null; next = unsettled.poll()) {
      next.run();
    }
  }

  /** Binds a name, with the lock held. */
  private Registration bind(String name, Origin origin, Presence presence, boolean pin) {
    Registration old = names.get(name);
    // What is pinned stays so however often its name is loaded.
    boolean stays = pin || (old != null && old.pin && !(origin instanceof Origin.Stored));
    Registration registration = new Registration(name, origin, presence, stays);
    names.put(name, registration);
    if (presence.hold == null) {
      presence.origin = origin;
    }
    if (origin instanceof Origin.Stored stored && presence.hold == null) {
      presence.hold = hold(stored.digest());
    }
    presence.addName(name);
    presence.pin(stays ? 1 : 0);
    if (!(origin instanceof Origin.Stored) && (old == null || old.presence != presence)) {
      events.append(RegistryEvent.Kind.BOUND, name, presence.facts.digest());
    }
    if (old != null) {
      registration.requests = old.requests;
      abandon(old);
    }
    withdrawn.remove(name);
    return registration;
  }

  /** Drops what a name stood for, which may be bound anew by now; with the lock held. */
  private void abandon(Registration old) {
    Presence presence = old.presence;
    presence.pin(old.pinned() ? -1 : 0);
    Registration now = names.get(old.name);
    if (now == null || now.presence != presence) {
      presence.removeName(old.name);
    }
    if (presence.hold == null && old.origin.equals(presence.origin)) {
      // Where that name had it may be something else soon; the others' files are still theirs.
      presence.names().stream().limit(1).forEach(name -> presence.origin = origin(name, presence));
    }
    if (presence.names().isEmpty()) {
      HostCopy copy = cache.getIfPresent(presence.facts.digest());
      if (copy != null && presence.holders > 0 && presence.kept == null) {
        copy.holders++;
        presence.kept = copy;
      }
      cache.invalidate(presence.facts.digest());
      presence.tellUnwanted(unsettled);
    }
    tidy(presence);
  }

  private Origin origin(String name, Presence presence) {
    Registration registration = names.get(name);
    return registration == null ? presence.origin : registration.origin;
  }

  /** As {@link #lease(String, String)}, drawing whose request it is. */
  public CompletableFuture<Lease> lease(String reference) {
    return lease(reference, null);
  }

  /**
   * Opens a lease, reading the adapter if it never was.
   *
   * @param reference a name, {@code NAME@VERSION}, {@code NAME@ALIAS} or a digest; what it stands
   *     for is settled now
   * @param key whose request it is, to an alias that divides its requests; null: drawn
   * @return completed at once if the adapter is known; exceptionally with an {@link
   *     AdapterException}. Whoever drops the future unread still closes the lease it gets: {@code
   *     cancel} does so, and if nobody else waits the adapter is not read.
   */
  public CompletableFuture<Lease> lease(String reference, @Nullable String key) {
    try {
      for (int attempt = 1; ; attempt++) {
        Route route = releases == null ? null : releases.route(reference, key);
        CompletableFuture<Lease> lease = route == null ? plain(reference) : stored(route);
        if (lease != null) {
          return lease;
        }
        // Its version was deleted just now: another may stand there.
        if (attempt == ATTEMPTS) {
          throw notLoaded("its versions come and go; ask again");
        }
      }
    } catch (AdapterException e) {
      return CompletableFuture.failedFuture(e.of(reference));
    }
  }

  /** A lease of what is not in the store. */
  private CompletableFuture<Lease> plain(String reference) throws AdapterException {
    CompletableFuture<Lease> future = new CompletableFuture<>();
    Demand begun;
    synchronized (lock) {
      Registration registration = find(reference);
      AdapterException refused =
          closed ? stopped() : registration == null ? refusal(reference) : null;
      if (refused != null) {
        throw refused;
      }
      if (registration != null) {
        return CompletableFuture.completedFuture(open(registration, null));
      }
      begun = join(reference, new Origin.Rooted(reference), null, new Demand.Waiter(future, null));
    }
    begin(begun);
    return future;
  }

  /** A lease of what is in the store; null if it no longer is. */
  private @Nullable CompletableFuture<Lease> stored(Route route) throws AdapterException {
    CompletableFuture<Lease> future = new CompletableFuture<>();
    Demand begun;
    synchronized (lock) {
      if (closed) {
        throw stopped();
      }
      Registration registration = bound(route);
      if (registration != null) {
        return CompletableFuture.completedFuture(open(registration, route.copy()));
      }
      AdapterStore.Hold hold = hold(route.digest());
      if (hold == null) {
        if (route.copy() != null) {
          route.copy().dropped();
        }
        return null;
      }
      begun =
          join(
              route.name(),
              new Origin.Stored(route.digest()),
              hold,
              new Demand.Waiter(future, route.copy()));
    }
    begin(begun);
    return future;
  }

  /** What keeps a digest's content in the store, or null if that is not there any more. */
  private AdapterStore.@Nullable Hold hold(String digest) {
    try {
      return releases == null ? null : releases.store().hold(digest);
    } catch (AdapterException e) {
      return null;
    }
  }

  /** The registration of a route, if it still is what it was; with the lock held. */
  private @Nullable Registration bound(Route route) {
    Registration registration = names.get(route.name());
    return registration != null && registration.presence.facts.digest().equals(route.digest())
        ? registration
        : null;
  }

  /**
   * Adds to those who wait for a name, with the lock held.
   *
   * @return the demand if it has to begin
   */
  private @Nullable Demand join(
      String name, Origin origin, AdapterStore.@Nullable Hold hold, Demand.Waiter waiter) {
    Demand demand = demands.get(Demand.key(name, origin));
    if (demand != null) {
      demand.waiters.add(waiter);
      if (hold != null) {
        hold.close();
      }
      return null;
    }
    demand = new Demand(name, origin, hold);
    demand.waiters.add(waiter);
    demands.put(demand.key(), demand);
    return demand;
  }

  private void begin(@Nullable Demand demand) {
    if (demand != null) {
      try {
        loaders.execute(() -> serve(demand));
      } catch (RejectedExecutionException e) {
        fail(demand, stopped());
      }
    }
  }

  /** The name's registration, or one of the digest, with the lock held. */
  private @Nullable Registration find(String nameOrDigest) {
    Registration registration = names.get(nameOrDigest);
    if (registration == null && nameOrDigest.startsWith("sha256:")) {
      Presence presence = presences.get(nameOrDigest);
      if (presence != null && !presence.names().isEmpty()) {
        return names.get(presence.names().iterator().next());
      }
    }
    return registration;
  }

  /** Why a name that is not loaded is not looked for under the roots, or null if it is. */
  private @Nullable AdapterException refusal(String name) {
    return refusal(name, withdrawn.contains(name));
  }

  private @Nullable AdapterException refusal(String name, boolean unloaded) {
    String why = null;
    if (unloaded) {
      why = "it was unloaded; load it again";
    } else if (roots.isEmpty()) {
      why = "give it at start with --adapter NAME=DIR, or start the server with --adapter-root";
    } else if (!base.isEmpty() && name.equals(base)) {
      why = "it is the base's, which is asked by naming no adapter";
    } else if (name.startsWith("sha256:")) {
      why =
          Manifest.isDigest(name)
              ? "a digest is found only among what is loaded or published; load it by its name"
              : "a digest is sha256: and 64 lower-case hexadecimal digits; give all of it";
    } else {
      try {
        AdapterName.check(name);
      } catch (AdapterException e) {
        return e;
      }
    }
    return why == null ? null : notLoaded(why);
  }

  private static AdapterException notLoaded(String why) {
    return new AdapterException(
        Reason.NOT_FOUND, "expected an adapter that is loaded, got none of this name; " + why);
  }

  private static AdapterException stopped() {
    return new AdapterException(Reason.IO, "the server is stopping; ask again once it is up");
  }

  /** Reads what requests wait for, on a loader's thread. */
  private void serve(Demand demand) {
    boolean idle;
    synchronized (lock) {
      idle = demand.waiters.stream().allMatch(waiter -> waiter.future().isDone());
      if (idle) {
        demands.remove(demand.key(), demand);
      }
    }
    if (idle) {
      fail(demand, notLoaded("nobody waited for it any more"));
      return;
    }
    String asked = demand.name;
    Presence read = null;
    AdapterException refused = null;
    try {
      read = obtain(demand.origin);
      read.facts.warnings().forEach(warning -> log.warn("adapter '{}': {}", asked, warning));
    } catch (AdapterException e) {
      refused = e;
      failed(asked, digest(demand.origin), e);
    }
    List<Runnable> ready = new ArrayList<>();
    synchronized (lock) {
      // A load by order may have been faster.
      Registration registration = registration(demand);
      if (closed) {
        refused = stopped();
      } else if (registration == null && withdrawn.contains(asked)) {
        refused = notLoaded("it was unloaded; load it again");
      } else if (registration == null && read != null) {
        registration = bind(asked, demand.origin, read, false);
      }
      if (registration != null && !closed) {
        demands.remove(demand.key(), demand);
        for (Demand.Waiter waiter : demand.waiters) {
          Lease lease = open(registration, waiter.copy());
          ready.add(
              () -> {
                if (!waiter.future().complete(lease)) {
                  lease.close();
                }
              });
        }
        refused = null;
        forgetIfGone(registration);
      }
    }
    if (read != null) {
      letGo(read);
    }
    if (refused != null) {
      fail(demand, refused);
    } else {
      end(demand);
    }
    ready.forEach(Runnable::run);
  }

  private static String digest(Origin origin) {
    return origin instanceof Origin.Stored stored ? stored.digest() : "";
  }

  /** What a demand asks for, if it is there by now; with the lock held. */
  private @Nullable Registration registration(Demand demand) {
    return demand.origin instanceof Origin.Stored stored
        ? bound(new Route(demand.name, stored.digest(), null))
        : find(demand.name);
  }

  /**
   * Unbinds a version that was deleted before it was bound, and a name of a root that was published
   * before it was; with the lock held.
   */
  private void forgetIfGone(Registration registration) {
    if (releases == null || names.get(registration.name) != registration) {
      return;
    }
    if (registration.origin instanceof Origin.Stored) {
      if (!releases.has(registration.name, registration.presence.facts.digest())) {
        names.remove(registration.name);
        abandon(registration);
      }
    } else if (isStored(registration.name)) {
      drop(registration);
    }
  }

  /** As {@link #forgetIfGone(Registration)}, of whatever is bound; with the lock held. */
  private void forgetIfGone(String name) {
    Registration registration = names.get(name);
    if (registration != null) {
      forgetIfGone(registration);
    }
  }

  private void fail(Demand demand, AdapterException e) {
    List<Demand.Waiter> waiters;
    synchronized (lock) {
      demands.remove(demand.key(), demand);
      waiters = List.copyOf(demand.waiters);
    }
    end(demand);
    waiters.forEach(waiter -> waiter.fail(e.of(demand.name)));
  }

  private static void end(Demand demand) {
    if (demand.hold != null) {
      demand.hold.close();
    }
  }

  private void failed(String name, String digest, AdapterException e) {
    // What is not there did not fail: else whoever asks for names at random would fill the log.
    if (e.reason() != Reason.NOT_FOUND) {
      events.append(RegistryEvent.Kind.FAILED, name, digest, "", message(e));
    }
  }

  /** A lease, with the lock held. */
  private Lease open(Registration registration, @Nullable ShadowCopy copy) {
    Presence presence = registration.presence;
    presence.holders++;
    registration.inUse++;
    registration.requests++;
    return new Lease(
        this,
        registration.name,
        presence,
        copy,
        () -> {
          synchronized (lock) {
            registration.inUse--;
          }
          letGo(presence);
        });
  }

  /** See {@link Lease#share}. */
  Lease share(String name, Presence presence, BooleanSupplier lapsed) {
    synchronized (lock) {
      // One that lapses after this has not let go of the presence yet.
      if (lapsed.getAsBoolean()) {
        throw new IllegalStateException("the lease of adapter '" + name + "' is closed");
      }
      presence.holders++;
    }
    return new Lease(this, name, presence, null, () -> letGo(presence));
  }

  /** See {@link Lease#upload}; the lease is open. */
  CompletableFuture<Resident> upload(String name, Presence presence, BooleanSupplier wanted) {
    CompletableFuture<Resident> future = new CompletableFuture<>();
    synchronized (lock) {
      if (closed) {
        return CompletableFuture.failedFuture(stopped().of(name));
      }
      presence.holders++;
    }
    try {
      loaders.execute(() -> upload(name, presence, wanted, future));
    } catch (RejectedExecutionException e) {
      letGo(presence);
      future.completeExceptionally(stopped().of(name));
    }
    return future;
  }

  private void upload(
      String name, Presence presence, BooleanSupplier wanted, CompletableFuture<Resident> future) {
    Resident resident = null;
    AdapterException refused = null;
    try {
      resident = make(name, presence, wanted);
    } catch (AdapterException e) {
      refused = e.of(name);
      failed(name, presence.facts.digest(), e);
    } finally {
      letGo(presence);
    }
    if (refused != null) {
      future.completeExceptionally(refused);
    } else if (resident == null) {
      future.cancel(false);
    } else if (!future.complete(resident)) {
      resident.close();
    }
  }

  /** Null if it is no longer wanted. */
  private @Nullable Resident make(String name, Presence presence, BooleanSupplier wanted)
      throws AdapterException {
    if (!wanted.getAsBoolean()) {
      return null;
    }
    String digest = presence.facts.digest();
    events.append(RegistryEvent.Kind.LOADING, name, digest);
    long begun = System.nanoTime();
    HostCopy copy = copy(presence);
    try {
      if (!wanted.getAsBoolean()) {
        events.append(
            RegistryEvent.Kind.EVICTED, name, digest, "", "nobody waited for it any more");
        return null;
      }
      Lora lora = copy.candidate.upload();
      Resident resident = new Resident(this, name, presence, lora, System.nanoTime() - begun);
      synchronized (lock) {
        presence.residents.add(resident);
        events.append(RegistryEvent.Kind.READY, name, digest);
      }
      return resident;
    } catch (OutOfMemoryException | OutOfMemoryError e) {
      throw outOfMemory(e);
    } catch (RuntimeException | Error e) {
      throw unexpected(e);
    } finally {
      letGo(copy);
    }
  }

  /** The host's copy, read again if need be; held once for the caller. */
  private HostCopy copy(Presence presence) throws AdapterException {
    String digest = presence.facts.digest();
    Origin origin;
    synchronized (lock) {
      HostCopy present = presence.kept != null ? presence.kept : cache.getIfPresent(digest);
      if (present != null) {
        present.holders++;
        return present;
      }
      origin = presence.origin;
    }
    HostCopy read = read(origin);
    String found = read.candidate.facts().digest();
    if (!found.equals(digest)) {
      letGo(read);
      throw new AdapterException(
          Reason.MISMATCH,
          "expected its files to be those of %s, got %s; they changed since it was loaded: load it"
                  .formatted(digest, found)
              + " again");
    }
    return read;
  }

  void watch(Resident resident, Runnable unwanted, Runnable repinned) {
    synchronized (lock) {
      resident.told(unwanted, repinned);
    }
  }

  /** A resident was closed. */
  void gone(Resident resident) {
    Presence presence = resident.presence();
    synchronized (lock) {
      presence.residents.remove(resident);
      events.append(RegistryEvent.Kind.EVICTED, resident.name(), resident.digest());
      tidy(presence);
    }
    settle();
  }

  /**
   * Forgets a name. Requests that use it go on; its memory is freed when the last of them ends. Of
   * a name of the store only the memory is given up: it comes back when it is asked for.
   *
   * @throws AdapterException NOT_FOUND if there is no such name
   */
  public Unloaded unload(String name) throws AdapterException {
    try {
      Route route = point(name);
      if (route != null) {
        return unload(route);
      }
      String bound;
      synchronized (lock) {
        Registration registration = find(name);
        bound = registration == null ? name : registration.name;
      }
      boolean returns = !roots.isEmpty() && roots.has(bound);
      Unloaded unloaded;
      synchronized (lock) {
        Registration registration = names.get(bound);
        if (registration == null) {
          throw notLoaded("see the list of adapters");
        }
        unloaded = drop(registration);
        if (returns) {
          withdrawn.add(bound);
        }
      }
      settle();
      return unloaded;
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  private Unloaded unload(Route route) {
    Unloaded unloaded;
    synchronized (lock) {
      Registration registration = bound(route);
      unloaded = registration == null ? new Unloaded(route.digest(), 0) : drop(registration);
    }
    settle();
    return unloaded;
  }

  /** Unbinds a name, with the lock held. */
  private Unloaded drop(Registration registration) {
    String digest = registration.presence.facts.digest();
    names.remove(registration.name, registration);
    events.append(RegistryEvent.Kind.UNLOADED, registration.name, digest);
    abandon(registration);
    return new Unloaded(digest, registration.inUse);
  }

  /**
   * All names that stand for a digest, those that are loaded first; for names of the store, {@code
   * NAME@VERSION}.
   */
  public Set<String> names(String digest) {
    Set<String> found = new LinkedHashSet<>();
    synchronized (lock) {
      Presence presence = presences.get(digest);
      if (presence != null) {
        found.addAll(presence.names());
      }
    }
    if (releases != null) {
      for (Catalog.Entry entry : releases.catalog().entries().values()) {
        for (Catalog.Version version : entry.versions()) {
          if (version.digest().equals(digest)) {
            found.add(entry.name() + "@" + version.label());
          }
        }
      }
    }
    return found;
  }

  /** What a request for an adapter, or an order to load it, is told if there is none. */
  public AdapterException absent(String reference) {
    int at = reference.indexOf('@');
    AdapterException why;
    if (releases != null && at >= 0) {
      why = Releases.missing(reference.substring(0, at));
    } else {
      AdapterException refused = refusal(reference, false);
      why = refused == null ? AdapterRoots.missing(reference) : refused;
    }
    return why.of(reference);
  }

  /** What those are told who manage an adapter that is not there. */
  public AdapterException unknown(String reference) {
    int at = reference.indexOf('@');
    return (releases != null && at >= 0
            ? Releases.missing(reference.substring(0, at))
            : notLoaded("see the list of adapters"))
        .of(reference);
  }

  /** What those are told who ask for a name's versions and aliases that is not in the store. */
  public AdapterException unreleased(String name) {
    try {
      var _ = releases();
      return Releases.missingRelease(name).of(name);
    } catch (AdapterException e) {
      return e.of(name);
    }
  }

  /** What a reference to the store points at, or null if it is none. */
  private @Nullable Route point(String reference) throws AdapterException {
    return releases == null ? null : releases.point(reference);
  }

  /** All names that are bound, sorted. */
  public List<AdapterEntry> list() {
    synchronized (lock) {
      return names.values().stream().map(this::entry).toList();
    }
  }

  /**
   * What can be asked for by name, in order: what is bound, the store's versions, and what lies
   * under the roots.
   *
   * @param after the last name of the page before, or null
   */
  public AdapterPage page(@Nullable String after, int most) {
    return page(after, most, _ -> true);
  }

  /**
   * As {@link #page(String, int)}, of some.
   *
   * @param visible which, by their names without version
   */
  public AdapterPage page(@Nullable String after, int most, Predicate<String> visible) {
    long revision = events.revision();
    boolean scanning = scan.running();
    NavigableSet<String> order = new TreeSet<>(Releases.ORDER);
    String from = after == null ? "" : Releases.base(after);
    synchronized (lock) {
      names.tailMap(from).keySet().stream()
          .filter(name -> name.indexOf('@') < 0 && !isStored(name) && visible.test(name))
          .filter(name -> isAfter(name, after))
          .limit(most + 1L)
          .forEach(order::add);
    }
    scan.found().tailMap(from).keySet().stream()
        .filter(name -> !isStored(name) && visible.test(name))
        .filter(name -> isAfter(name, after))
        .limit(most + 1L)
        .forEach(order::add);
    if (releases != null) {
      releases
          .names(from)
          .filter(name -> visible.test(Releases.base(name)) && isAfter(name, after))
          .limit(most + 1L)
          .forEach(order::add);
    }
    List<AdapterEntry> entries = new ArrayList<>();
    String last = null;
    for (String name : order) {
      if (entries.size() == most) {
        return new AdapterPage(entries, last, revision, scanning);
      }
      AdapterEntry entry = known(name);
      if (entry != null) {
        entries.add(entry);
        last = name;
      }
    }
    return new AdapterPage(entries, null, revision, scanning);
  }

  private static boolean isAfter(String name, @Nullable String after) {
    return after == null || Releases.ORDER.compare(name, after) > 0;
  }

  private boolean isStored(String name) {
    return releases != null && releases.catalog().entry(name) != null;
  }

  /** The entry of a listed name, or null if it went away. */
  private @Nullable AdapterEntry known(String name) {
    Route route = null;
    if (releases != null && name.indexOf('@') >= 0) {
      try {
        route = releases.point(name);
      } catch (AdapterException e) {
        return null;
      }
    }
    if (route != null) {
      return entry(route);
    }
    synchronized (lock) {
      Registration registration = names.get(name);
      if (registration != null) {
        return entry(registration);
      }
    }
    RootScan.Found found = scan.found().get(name);
    return found == null ? null : entry(found);
  }

  /**
   * What a reference stands for.
   *
   * @throws AdapterException NOT_FOUND if there is nothing of that name; INVALID if it is an alias
   *     that stands for several
   */
  public AdapterEntry get(String reference) throws AdapterException {
    try {
      Route route = point(reference);
      if (route != null) {
        return entry(route);
      }
      synchronized (lock) {
        Registration registration = find(reference);
        if (registration != null) {
          return entry(registration);
        }
      }
      RootScan.Found found = scan.found().get(reference);
      if (found == null) {
        throw notLoaded("see the list of adapters");
      }
      return entry(found);
    } catch (AdapterException e) {
      throw e.of(reference);
    }
  }

  private AdapterEntry entry(Registration registration) {
    Facts facts = registration.presence.facts;
    return new AdapterEntry(
        registration.name,
        facts.digest(),
        facts.kind(),
        facts.rank(),
        facts.modules(),
        facts.parameters(),
        facts.deviceBytes(),
        place(registration.presence),
        registration.inUse,
        registration.requests,
        facts.warnings(),
        registration.origin instanceof Origin.Trusted
            ? AdapterEntry.Source.START
            : AdapterEntry.Source.ROOT,
        List.of(),
        registration.presence.pinned(),
        "",
        null,
        registration.presence.firstTokens.millis());
  }

  /** With the lock held. */
  private AdapterEntry.Place place(Presence presence) {
    if (!presence.residents.isEmpty()) {
      return AdapterEntry.Place.DEVICE;
    }
    // As a map: being looked at is no use of it.
    return presence.kept != null || cache.asMap().containsKey(presence.facts.digest())
        ? AdapterEntry.Place.HOST
        : AdapterEntry.Place.DISK;
  }

  private AdapterEntry entry(Route route) {
    Releases known = Objects.requireNonNull(releases);
    AdapterEntry bound = null;
    synchronized (lock) {
      Registration registration = bound(route);
      if (registration != null) {
        bound = entry(registration);
      }
    }
    return bound == null ? known.entry(route) : known.entry(route, bound);
  }

  private static AdapterEntry entry(RootScan.Found found) {
    return new AdapterEntry(
        found.name(),
        "",
        found.kind(),
        found.rank(),
        0,
        0,
        0,
        AdapterEntry.Place.DISK,
        0,
        0,
        List.of(),
        AdapterEntry.Source.ROOT,
        List.of(),
        false,
        found.problem() == null ? "" : found.problem(),
        null,
        0);
  }

  /** What happens, in order. */
  public EventLog events() {
    return events;
  }

  /** Looks through the roots, on a thread of its own; beside a running scan, once more after it. */
  public CompletableFuture<ScanResult> scan() {
    return scan.start();
  }

  private CompletableFuture<AdapterEntry> makeResident(Route route) {
    return onLoader(
        lease(route.name()).thenCompose(lease -> prefetch.apply(lease)), _ -> entry(route));
  }

  /**
   * Goes on with what a future comes to. The engine's thread completes what is prefetched, and must
   * not read files.
   */
  private <T, R> CompletableFuture<R> onLoader(CompletableFuture<T> future, Function<T, R> next) {
    return future
        .thenApplyAsync(next, loaders)
        .exceptionallyCompose(
            failure ->
                CompletableFuture.failedFuture(
                    failure.getCause() instanceof RejectedExecutionException
                        ? stopped()
                        : failure));
  }

  /**
   * Makes an adapter resident, to stay so until it is unpinned, unloaded or deleted. If that cannot
   * be, it is as it was: pinned, if it has been before.
   *
   * @return completed by another thread; exceptionally with an {@link AdapterException}
   */
  public CompletableFuture<AdapterEntry> pin(String reference) {
    Route route;
    try {
      route = point(reference);
    } catch (AdapterException e) {
      return CompletableFuture.failedFuture(e.of(reference));
    }
    return lease(route == null ? reference : route.name())
        .thenCompose(
            lease -> {
              Registration registration = beginPin(lease.name(), lease.digest());
              if (registration == null) {
                lease.close();
                return CompletableFuture.failedFuture(goneMeanwhile().of(reference));
              }
              return onLoader(
                  prefetch
                      .apply(lease)
                      .handle((ready, failure) -> endPin(registration, ready, failure)),
                  refused -> pinned(registration.name, refused));
            });
  }

  private static AdapterException goneMeanwhile() {
    return new AdapterException(
        Reason.NOT_FOUND, "it was unloaded, or loaded anew, meanwhile; ask again");
  }

  /** What a name stands for, if it still is that digest; not to be evicted until the pin ends. */
  private @Nullable Registration beginPin(String name, String digest) {
    synchronized (lock) {
      Registration registration = names.get(name);
      if (registration == null || !registration.presence.facts.digest().equals(digest)) {
        return null;
      }
      setPin(registration, registration.pin, registration.pinning + 1);
      return registration;
    }
  }

  /** Why a pin comes to nothing, now that its adapter is resident or cannot be; or null. */
  private @Nullable AdapterException endPin(
      Registration registration, @Nullable Boolean ready, @Nullable Throwable failure) {
    boolean resident = failure == null && ready != null && ready;
    boolean bound;
    synchronized (lock) {
      bound = names.get(registration.name) == registration;
      setPin(registration, registration.pin || resident, registration.pinning - 1);
    }
    if (failure != null) {
      return refusal(failure);
    }
    if (!resident) {
      return new AdapterException(
          Reason.TOO_LARGE,
          "there is no room for it beside what is in use or pinned; unpin others, or give the"
              + " server more with --memory-mib");
    }
    return bound ? null : goneMeanwhile();
  }

  private AdapterEntry pinned(String name, @Nullable AdapterException refused) {
    try {
      if (refused != null) {
        throw refused;
      }
      return get(name);
    } catch (AdapterException e) {
      throw new CompletionException(e.of(name));
    }
  }

  /** Says who keeps what a name stands for resident; with the lock held. */
  private void setPin(Registration registration, boolean pin, int pinning) {
    boolean before = registration.pinned();
    registration.pin = pin;
    registration.pinning = pinning;
    // One that the name no longer stands for has been abandoned, its pins with it.
    if (names.get(registration.name) == registration && registration.pinned() != before) {
      registration.presence.pin(before ? -1 : 1);
    }
  }

  /**
   * Lets an adapter's memory go to others when it is not in use.
   *
   * @throws AdapterException NOT_FOUND if there is nothing of that name
   */
  public AdapterEntry unpin(String reference) throws AdapterException {
    String name = get(reference).name();
    synchronized (lock) {
      Registration registration = names.get(name);
      if (registration != null) {
        setPin(registration, false, registration.pinning);
      }
    }
    return get(name);
  }

  private Releases releases() throws AdapterException {
    if (releases == null) {
      throw new AdapterException(
          Reason.NOT_SET_UP,
          "expected a server with a store, got one without; start it with --store DIR");
    }
    return releases;
  }

  /**
   * Begins to take a version in.
   *
   * @param configBytes exact size of {@code adapter_config.json}
   * @param weightBytes exact size of {@code adapter_model.safetensors}
   * @throws AdapterException if it cannot be published, whatever it holds
   */
  public Publication publish(Announcement announcement, long configBytes, long weightBytes)
      throws AdapterException {
    try {
      check(announcement);
      return new Publication(
          this, announcement, releases().store().upload(configBytes, weightBytes));
    } catch (AdapterException e) {
      throw e.of(announcement.name());
    }
  }

  /**
   * Takes a version in from under a root.
   *
   * @throws AdapterException if it cannot be published, whatever it holds, or not be read
   */
  public Publication publishFrom(Announcement announcement, String path) throws AdapterException {
    try {
      check(announcement);
      return Publication.from(this, releases().store(), announcement, roots.find(path));
    } catch (AdapterException e) {
      throw e.of(announcement.name());
    }
  }

  /**
   * Takes a version in from files that were sent: the two files, or an archive with them.
   *
   * @throws AdapterException if it cannot be published, whatever it holds, or there is not one
   *     adapter in the files
   */
  public Publication publishSent(Announcement announcement, List<SentFile> files)
      throws AdapterException {
    try {
      check(announcement);
      try (Parcel parcel = Parcel.of(files)) {
        return parcel.publish(this, releases().store(), announcement);
      }
    } catch (AdapterException e) {
      throw e.of(announcement.name());
    }
  }

  /**
   * Where files may lie while they are sent, on the store's disk: what is left of them is removed
   * when the store is next opened. Null without a store.
   */
  public @Nullable Path staging() {
    return releases == null ? null : releases.store().staging();
  }

  /**
   * Checks what can be said of a publication before its files are there.
   *
   * @throws AdapterException if it cannot be published, whatever it holds
   */
  public void checkPublishable(Announcement announcement) throws AdapterException {
    try {
      check(announcement);
    } catch (AdapterException e) {
      throw e.of(announcement.name());
    }
  }

  private void check(Announcement announcement) throws AdapterException {
    releases();
    announcement.check();
    AdapterName.checkNotBase(announcement.name(), base);
    checkNotGiven(announcement.name());
  }

  /** Refuses the names that the operator gave to adapters outside of the store. */
  private void checkNotGiven(String name) throws AdapterException {
    synchronized (lock) {
      Registration registration = names.get(name);
      if (registration != null && registration.origin instanceof Origin.Trusted) {
        throw new AdapterException(
            Reason.EXISTS,
            "the name was given at start, with --adapter; publish under another name");
      }
    }
  }

  /** See {@link Publication#finish}. */
  Published publish(AdapterStore.Hold hold, Announcement announcement) throws AdapterException {
    Origin origin = new Origin.Stored(hold.content().digest());
    Presence presence = obtain(origin);
    try {
      checkNotGiven(announcement.name());
      Releases.Placed placed;
      try {
        placed = releases().publish(hold, announcement);
      } finally {
        // Also if it failed, since it may be seen even so: the name is the store's from now on, and
        // what a root has under it is not found any more.
        synchronized (lock) {
          forgetIfGone(announcement.name());
        }
      }
      Route route = new Route(placed.name(), presence.facts.digest(), null);
      synchronized (lock) {
        if (!closed && bound(route) == null) {
          forgetIfGone(bind(placed.name(), origin, presence, false));
        }
      }
      presence
          .facts
          .warnings()
          .forEach(warning -> log.warn("adapter '{}': {}", placed.name(), warning));
      // Now, since it may be deleted before anybody looks.
      return new Published(entry(route), placed.label(), placed.existed());
    } finally {
      letGo(presence);
    }
  }

  /**
   * A name's versions and aliases.
   *
   * @throws AdapterException NOT_FOUND if the store has no such name
   */
  public Release release(String name) throws AdapterException {
    try {
      return releases().release(name);
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  /** A release's versions, oldest first. */
  public List<AdapterEntry> versions(Release release) {
    return release.entry().versions().stream()
        .map(
            version ->
                entry(
                    new Route(
                        release.entry().name() + "@" + version.label(), version.digest(), null)))
        .toList();
  }

  /**
   * Points an alias at a version, or divides its requests; the next request sees it. Touches files,
   * as the next three.
   *
   * @param shares of versions, by label or digest
   * @param shadow of a version, by label or digest; null: none
   * @return the name, with the alias as it was set
   * @throws AdapterException if there is no such name or version, or the alias is not one
   */
  public Release setAlias(
      String name, String alias, List<Catalog.Share> shares, Catalog.@Nullable Shadow shadow)
      throws AdapterException {
    try {
      return releases().setAlias(name, alias, shares, shadow);
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  /**
   * Puts an alias back to what it was.
   *
   * @return the name, with the alias as it is now
   * @throws AdapterException NOT_FOUND if there is none, or nothing before
   */
  public Release rollback(String name, String alias) throws AdapterException {
    try {
      return releases().rollback(name, alias);
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  /**
   * Removes an alias.
   *
   * @throws AdapterException NOT_FOUND if there is none
   */
  public void deleteAlias(String name, String alias) throws AdapterException {
    try {
      releases().deleteAlias(name, alias);
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  /**
   * Removes a version; requests that use it go on.
   *
   * @param force even if aliases point to it
   * @throws AdapterException NOT_FOUND if there is none; IN_USE if an alias points to it
   */
  public Unloaded deleteVersion(String name, String version, boolean force)
      throws AdapterException {
    try {
      Deleted deleted;
      int inUse = 0;
      try {
        deleted = releases().delete(name, version, force);
      } finally {
        // Also if it failed, since it may be gone even so.
        synchronized (lock) {
          Registration registration = names.get(name + "@" + version);
          if (registration != null) {
            inUse = registration.inUse;
            forgetIfGone(registration);
          }
        }
        settle();
      }
      return new Unloaded(deleted.digest(), inUse, deleted.aliases());
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  /** Bytes of all adapters in the backend's memory, those included that no name stands for. */
  public long residentBytes() {
    synchronized (lock) {
      return presences.values().stream()
          .flatMap(presence -> presence.residents.stream())
          .mapToLong(Resident::bytes)
          .sum();
    }
  }

  /** Forgets everything, and turns away who waits; what is resident stays until it is closed. */
  @Override
  public void close() {
    List<Demand> waiting;
    scan.close();
    synchronized (lock) {
      closed = true;
      List<Registration> all = List.copyOf(names.values());
      names.clear();
      all.forEach(this::abandon);
      cache.invalidateAll();
      waiting = List.copyOf(demands.values());
    }
    settle();
    waiting.forEach(demand -> fail(demand, stopped()));
  }
}
