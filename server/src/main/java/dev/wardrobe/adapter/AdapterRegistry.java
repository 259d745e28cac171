package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;
import static dev.wardrobe.adapter.AdapterException.quote;

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
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The adapters of a server: names, the digests they stand for, and what of them is resident.
 *
 * <p>A name is bound to a digest when it is loaded, and to another only when it is loaded again.
 * Requests hold {@link Lease leases}; an adapter's memory is freed when neither a lease nor the
 * registry wants it any more, so unloading, reloading and eviction never disturb a request. Two
 * names of the same content share one resident adapter.
 *
 * <p>A request for a name that is not loaded loads the directory of that name under a root, once
 * however many ask, unless the name was unloaded: then it stays away until it is loaded again. What
 * comes from the roots is cached up to a number of bytes; what the operator gave stays resident
 * until it is unloaded.
 *
 * <p>Safe for use by all threads. Files are read by {@code loaders} alone; no other method waits.
 */
public final class AdapterRegistry implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(AdapterRegistry.class);

  /*
   * One lock guards all of the state; reading files and uploading happen outside of it. Each
   * resident counts its holders: the cache, a name that pins it, each lease, and a load that is
   * about to hand it out. At zero it leaves `live` and joins `doomed`, which whoever has the lock
   * next out of hand closes, without the lock. The cache is called with the lock held only, and
   * runs its listener on the caller's thread, so there is one order of locks.
   */

  private static final Pattern NAME =
      Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*");
  private static final int LONGEST_NAME = 200;

  private final Loader loader;
  private final AdapterRoots roots;
  private final AdapterOptions options;
  private final Executor loaders;

  private final Object lock = new Object();
  private final SortedMap<String, Registration> names = new TreeMap<>();
  private final Map<String, Resident> live = new HashMap<>();
  private final Map<String, Demand> demands = new HashMap<>();
  private final Map<Order, CompletableFuture<AdapterEntry>> queued = new HashMap<>();
  private final Set<String> withdrawn = new HashSet<>();
  private final Cache<String, Resident> cache;
  private final ConcurrentLinkedQueue<Lora> doomed = new ConcurrentLinkedQueue<>();
  private boolean closed;

  /** A name and what it stands for. */
  private static final class Registration {
    final String name;
    final Facts facts;
    final Origin origin;
    final long bytes;
    final @Nullable Resident pinned;
    int inUse;
    long requests;

    Registration(String name, Facts facts, Origin origin, long bytes, @Nullable Resident pinned) {
      this.name = name;
      this.facts = facts;
      this.origin = origin;
      this.bytes = bytes;
      this.pinned = pinned;
    }
  }

  /** An adapter in the backend's memory. */
  private static final class Resident {
    final Facts facts;
    final Lora lora;
    int holders;

    Resident(Facts facts, Lora lora) {
      this.facts = facts;
      this.lora = lora;
    }
  }

  /** A load that requests wait for. */
  private static final class Demand {
    final Origin origin;

    /** Whether the name was bound when the load began; if it no longer is, it was unloaded. */
    final boolean bound;

    final List<Waiter> waiters = new ArrayList<>();

    Demand(Origin origin, boolean bound) {
      this.origin = origin;
      this.bound = bound;
    }
  }

  /** A load that was asked for in so many words. */
  private record Order(String name, String path) {}

  /** Who asked for a lease, and when. */
  private record Waiter(CompletableFuture<Lease> future, long since) {
    void give(Lease lease) {
      if (!future.complete(lease)) {
        lease.close();
      }
    }
  }

  /**
   * An empty registry.
   *
   * @param model what adapters are checked against
   * @param backend where they become resident
   * @param roots the directories that clients may load from; none: no loads by path
   * @param loaders runs what reads files; its size bounds how many are read at once
   * @throws AdapterException if a root is not a directory
   */
  public AdapterRegistry(
      Model model, Backend backend, List<Path> roots, AdapterOptions options, Executor loaders)
      throws AdapterException {
    this(
        new DirectoryLoader(model, backend, AdapterRoots.of(roots), options),
        AdapterRoots.of(roots),
        options,
        loaders);
  }

  AdapterRegistry(Loader loader, AdapterRoots roots, AdapterOptions options, Executor loaders) {
    this.loader = loader;
    this.roots = roots;
    this.options = options;
    this.loaders = loaders;
    this.cache =
        Caffeine.newBuilder()
            .maximumWeight(kibibytes(options.cacheBytes()))
            .weigher((String digest, Resident resident) -> weight(resident))
            .executor(Runnable::run)
            .removalListener(
                (@Nullable String digest, @Nullable Resident resident, RemovalCause cause) -> {
                  if (resident != null) {
                    release(resident);
                  }
                })
            .build();
  }

  private static int weight(Resident resident) {
    return (int) Math.min(Integer.MAX_VALUE, kibibytes(resident.lora.bytes()));
  }

  private static long kibibytes(long bytes) {
    return Math.max(1, (bytes >> 10) + ((bytes & 1023) == 0 ? 0 : 1));
  }

  /**
   * Loads an adapter from under a root and binds {@code name} to it, replacing what the name stood
   * for. Nothing changes unless all of it succeeds.
   *
   * @param path of its directory, relative to a root; null: the name
   * @return completed by a loader's thread; exceptionally with an {@link AdapterException}
   */
  public CompletableFuture<AdapterEntry> load(String name, @Nullable String path) {
    String from = path == null ? name : path;
    try {
      checkName(name);
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
    try {
      result.complete(loadNow(order.name(), new Origin.Rooted(order.path()), false));
    } catch (AdapterException e) {
      result.completeExceptionally(e.of(order.name()));
    }
  }

  private void forget(Order order) {
    synchronized (lock) {
      queued.remove(order);
    }
  }

  /**
   * Loads an adapter that the operator names, on this thread, to stay resident until it is
   * unloaded.
   *
   * @throws AdapterException if the name is taken, or the adapter cannot be used
   */
  public AdapterEntry loadTrusted(String name, Path directory) throws AdapterException {
    try {
      checkName(name);
      return loadNow(name, new Origin.Trusted(directory), true);
    } catch (AdapterException e) {
      throw e.of(name);
    }
  }

  private static void checkName(String name) throws AdapterException {
    if (name.length() > LONGEST_NAME || !NAME.matcher(name).matches() || name.contains("..")) {
      throw new AdapterException(
          Reason.INVALID,
          "name: expected at most %d letters, digits and ._-/ inside, beginning with a letter or"
                  .formatted(LONGEST_NAME)
              + " digit, got %s; choose another name".formatted(quote(name)));
    }
  }

  private AdapterEntry loadNow(String name, Origin origin, boolean pin) throws AdapterException {
    if (pin) {
      checkFree(name);
    }
    Resident resident = obtain(origin);
    resident.facts.warnings().forEach(warning -> log.warn("adapter '{}': {}", name, warning));
    try {
      synchronized (lock) {
        if (closed) {
          throw stopped();
        }
        if (pin) {
          checkFree(name);
        }
        return entry(bind(name, origin, resident, pin));
      }
    } finally {
      letGo(resident);
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
   * Reads an adapter and makes it resident, unless its content already is.
   *
   * @return held once for the caller
   */
  private Resident obtain(Origin origin) throws AdapterException {
    try (Loader.Candidate candidate = loader.read(origin)) {
      Resident present = hold(candidate.facts().digest());
      if (present != null) {
        return present;
      }
      Lora lora = candidate.upload();
      try {
        checkFits(origin, lora);
      } catch (AdapterException e) {
        lora.close();
        throw e;
      }
      synchronized (lock) {
        // Another load may have been faster.
        present = hold(candidate.facts().digest());
        if (present == null) {
          present = new Resident(candidate.facts(), lora);
          present.holders = 1;
          live.put(present.facts.digest(), present);
          return present;
        }
      }
      lora.close();
      return present;
    } catch (OutOfMemoryException | OutOfMemoryError e) {
      throw new AdapterException(
          Reason.TOO_LARGE,
          "there is no memory left for it; unload others, or give the server more",
          e);
    } catch (RuntimeException | Error e) {
      throw new AdapterException(
          Reason.IO, "loading failed unexpectedly (%s); please report it".formatted(e), e);
    }
  }

  private void checkFits(Origin origin, Lora lora) throws AdapterException {
    if (origin instanceof Origin.Rooted && lora.bytes() > options.cacheBytes()) {
      throw new AdapterException(
          Reason.TOO_LARGE,
          "expected at most %d bytes resident, the size of the adapter cache, got %d; raise it, or"
                  .formatted(options.cacheBytes(), lora.bytes())
              + " give the adapter at start");
    }
  }

  private @Nullable Resident hold(String digest) {
    synchronized (lock) {
      Resident resident = live.get(digest);
      if (resident != null) {
        resident.holders++;
      }
      return resident;
    }
  }

  private void release(Resident resident) {
    synchronized (lock) {
      if (--resident.holders == 0) {
        live.remove(resident.facts.digest(), resident);
        doomed.add(resident.lora);
      }
    }
  }

  private void letGo(Resident resident) {
    release(resident);
    closeDoomed();
  }

  private void closeDoomed() {
    for (Lora lora = doomed.poll(); lora != null; lora = doomed.poll()) {
      lora.close();
    }
  }

  /** Binds a name, with the lock held. */
  private Registration bind(String name, Origin origin, Resident resident, boolean pin) {
    if (pin) {
      resident.holders++;
    }
    Registration registration =
        new Registration(
            name, resident.facts, origin, resident.lora.bytes(), pin ? resident : null);
    Registration old = names.put(name, registration);
    if (old != null) {
      registration.requests = old.requests;
      abandon(old);
    }
    withdrawn.remove(name);
    if (!pin) {
      keep(resident);
    }
    return registration;
  }

  /** Drops what a name that is no longer there held, with the lock held. */
  private void abandon(Registration old) {
    if (old.pinned != null) {
      release(old.pinned);
    }
    String digest = old.facts.digest();
    if (names.values().stream().noneMatch(n -> n.facts.digest().equals(digest))) {
      cache.invalidate(digest);
    }
  }

  /** Puts into the cache, or touches what is there, with the lock held. */
  private void keep(Resident resident) {
    String digest = resident.facts.digest();
    if (cache.getIfPresent(digest) == null) {
      resident.holders++;
      cache.put(digest, resident);
      cache.cleanUp();
    }
  }

  /**
   * Opens a lease, loading the adapter if need be.
   *
   * @return completed at once if the adapter is resident; exceptionally with an {@link
   *     AdapterException}. Whoever drops the future unread still closes the lease it gets: {@code
   *     cancel} does so.
   */
  public CompletableFuture<Lease> lease(String nameOrDigest) {
    long since = System.nanoTime();
    CompletableFuture<Lease> future = new CompletableFuture<>();
    Demand begun = null;
    Lease lease = null;
    synchronized (lock) {
      Registration registration = find(nameOrDigest);
      AdapterException refused =
          closed ? stopped() : registration == null ? refusal(nameOrDigest) : null;
      if (refused != null) {
        return CompletableFuture.failedFuture(refused.of(nameOrDigest));
      }
      Resident resident = registration == null ? null : live.get(registration.facts.digest());
      if (registration != null && resident != null) {
        lease = open(registration, resident, 0);
      } else {
        Demand demand = demands.get(nameOrDigest);
        if (demand == null) {
          begun =
              demand =
                  registration == null
                      ? new Demand(new Origin.Rooted(nameOrDigest), false)
                      : new Demand(registration.origin, true);
          demands.put(nameOrDigest, demand);
        }
        demand.waiters.add(new Waiter(future, since));
      }
    }
    if (lease != null) {
      closeDoomed();
      future.complete(lease);
    } else if (begun != null) {
      Demand demand = begun;
      try {
        loaders.execute(() -> serve(nameOrDigest, demand));
      } catch (RejectedExecutionException e) {
        fail(nameOrDigest, demand, stopped());
      }
    }
    return future;
  }

  /** The name's registration, or one of the digest, with the lock held. */
  private @Nullable Registration find(String nameOrDigest) {
    Registration registration = names.get(nameOrDigest);
    if (registration == null && nameOrDigest.startsWith("sha256:")) {
      return names.values().stream()
          .filter(n -> n.facts.digest().equals(nameOrDigest))
          .findFirst()
          .orElse(null);
    }
    return registration;
  }

  /** Why a name that is not loaded is not looked for under the roots, or null if it is. */
  private @Nullable AdapterException refusal(String name) {
    String why = null;
    if (withdrawn.contains(name)) {
      why = "it was unloaded; load it again";
    } else if (roots.isEmpty()) {
      why = "give it at start with --adapter NAME=DIR, or start the server with --adapter-root";
    } else if (name.startsWith("sha256:")) {
      why = "a digest is found only among what is loaded; load it by its name";
    } else {
      try {
        checkName(name);
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

  /** Loads what requests wait for, on a loader's thread. */
  private void serve(String asked, Demand demand) {
    Resident loaded = null;
    AdapterException refused = null;
    try {
      loaded = obtain(demand.origin);
      loaded.facts.warnings().forEach(warning -> log.warn("adapter '{}': {}", asked, warning));
    } catch (AdapterException e) {
      refused = e;
    }
    List<Runnable> ready = new ArrayList<>();
    synchronized (lock) {
      Registration registration = find(asked);
      if (closed) {
        refused = stopped();
      } else if (registration == null && (demand.bound || withdrawn.contains(asked))) {
        refused = notLoaded("it was unloaded; load it again");
      } else if (registration == null && loaded != null) {
        registration = bind(asked, demand.origin, loaded, false);
      }
      // A load by order may have been faster, or have put other content there.
      Resident present = registration == null ? null : live.get(registration.facts.digest());
      if (registration != null && present != null && !closed) {
        demands.remove(asked, demand);
        for (Waiter waiter : demand.waiters) {
          long nanos = Math.max(1, System.nanoTime() - waiter.since());
          Lease lease = open(registration, present, nanos);
          ready.add(() -> waiter.give(lease));
        }
        refused = null;
      } else if (refused == null && registration != null && loaded != null) {
        refused = changed(registration, loaded);
      }
    }
    if (loaded != null) {
      letGo(loaded);
    }
    if (refused != null) {
      fail(asked, demand, refused);
    }
    ready.forEach(Runnable::run);
  }

  private static AdapterException changed(Registration registration, Resident found) {
    return new AdapterException(
        Reason.MISMATCH,
        "expected its files to be those of %s, got %s; they changed since it was loaded: load it"
                .formatted(registration.facts.digest(), found.facts.digest())
            + " again");
  }

  private void fail(String asked, Demand demand, AdapterException e) {
    List<Waiter> waiters;
    synchronized (lock) {
      demands.remove(asked, demand);
      waiters = List.copyOf(demand.waiters);
    }
    waiters.forEach(waiter -> waiter.future().completeExceptionally(e.of(asked)));
  }

  /** A lease, with the lock held. */
  private Lease open(Registration registration, Resident resident, long swapInNanos) {
    resident.holders++;
    registration.inUse++;
    registration.requests++;
    if (registration.pinned == null) {
      keep(resident);
    }
    return new Lease(
        registration.name,
        resident.facts.digest(),
        resident.lora,
        swapInNanos,
        () -> {
          synchronized (lock) {
            registration.inUse--;
          }
          letGo(resident);
        });
  }

  /**
   * Forgets a name. Requests that use it go on; its memory is freed when the last of them ends.
   *
   * @throws AdapterException NOT_FOUND if there is no such name
   */
  public Unloaded unload(String name) throws AdapterException {
    boolean returns = !roots.isEmpty() && roots.has(name);
    Unloaded unloaded;
    synchronized (lock) {
      Registration registration = names.remove(name);
      if (registration == null) {
        throw notLoaded("see the list of adapters").of(name);
      }
      abandon(registration);
      if (returns) {
        withdrawn.add(name);
      }
      unloaded = new Unloaded(registration.facts.digest(), registration.inUse);
    }
    closeDoomed();
    return unloaded;
  }

  /** All names, sorted. */
  public List<AdapterEntry> list() {
    synchronized (lock) {
      return names.values().stream().map(this::entry).toList();
    }
  }

  /**
   * What a name, or a digest, stands for.
   *
   * @throws AdapterException NOT_FOUND if it is not loaded
   */
  public AdapterEntry get(String nameOrDigest) throws AdapterException {
    synchronized (lock) {
      Registration registration = find(nameOrDigest);
      if (registration == null) {
        throw notLoaded("load it first").of(nameOrDigest);
      }
      return entry(registration);
    }
  }

  private AdapterEntry entry(Registration registration) {
    Facts facts = registration.facts;
    return new AdapterEntry(
        registration.name,
        facts.digest(),
        facts.kind(),
        facts.rank(),
        facts.modules(),
        facts.parameters(),
        registration.bytes,
        live.containsKey(facts.digest()),
        registration.inUse,
        registration.requests,
        facts.warnings());
  }

  /** Bytes of all resident adapters, those included that only a request still uses. */
  public long residentBytes() {
    synchronized (lock) {
      return live.values().stream().mapToLong(resident -> resident.lora.bytes()).sum();
    }
  }

  /** Forgets everything; what open leases use is freed when they close. */
  @Override
  public void close() {
    synchronized (lock) {
      closed = true;
      List<Registration> all = List.copyOf(names.values());
      names.clear();
      all.forEach(this::abandon);
    }
    closeDoomed();
  }

  /** Reads PEFT directories and uploads them. */
  private record DirectoryLoader(
      Model model, Backend backend, AdapterRoots roots, AdapterOptions options) implements Loader {

    @Override
    public Candidate read(Origin origin) throws AdapterException {
      AdapterDirectory directory =
          switch (origin) {
            case Origin.Rooted rooted -> roots.find(rooted.path());
            case Origin.Trusted trusted -> Adapter.trusted(trusted.directory());
          };
      Adapter adapter = Adapter.read(directory, model, options);
      return new Candidate() {
        @Override
        public Facts facts() {
          return Facts.of(adapter);
        }

        @Override
        public Lora upload() throws AdapterException {
          try {
            return backend.lora(adapter.deltas(), model::matrix);
          } catch (IllegalArgumentException e) {
            throw new AdapterException(Reason.INVALID, message(e), e);
          }
        }

        @Override
        public void close() {
          adapter.close();
        }
      };
    }
  }
}
