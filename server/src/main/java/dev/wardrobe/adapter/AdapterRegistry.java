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
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.regex.Pattern;
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

  private static final Pattern NAME =
      Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*");
  private static final int LONGEST_NAME = 200;

  private final Loader loader;
  private final AdapterRoots roots;
  private final AdapterOptions options;
  private final Executor loaders;

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

  /** A name and what it stands for. */
  private static final class Registration {
    final String name;
    final Presence presence;
    final boolean pin;
    int inUse;
    long requests;

    Registration(String name, Presence presence, boolean pin) {
      this.name = name;
      this.presence = presence;
      this.pin = pin;
    }
  }

  /** A name that is read because requests ask for it. */
  private static final class Demand {
    final List<CompletableFuture<Lease>> waiters = new ArrayList<>();
  }

  /** A load that was asked for in so many words. */
  private record Order(String name, String path) {}

  /**
   * An empty registry.
   *
   * @param model what adapters are checked against
   * @param backend where they become resident
   * @param roots the directories that clients may load from; none: no loads by path
   * @param loaders runs what reads files and uploads; its size bounds how much at once
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
   * for. Nothing changes unless all of it succeeds.
   *
   * @param path of its directory, relative to a root; null: the name
   * @return completed by another thread; exceptionally with an {@link AdapterException}
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
      checkName(name);
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

  private static void checkName(String name) throws AdapterException {
    if (name.length() > LONGEST_NAME || !NAME.matcher(name).matches() || name.contains("..")) {
      throw new AdapterException(
          Reason.INVALID,
          "name: expected at most %d letters, digits and ._-/ inside, beginning with a letter or"
                  .formatted(LONGEST_NAME)
              + " digit, got %s; choose another name".formatted(quote(name)));
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
      result.completeExceptionally(e.of(name));
      return;
    }
    synchronized (lock) {
      // Until the name is bound the load stands for it: what is pinned must not be evicted between.
      presence.pins += pin ? 1 : 0;
      presence.holders++;
    }
    ready = prefetch.apply(new Lease(this, name, presence, () -> letGo(presence)));
    CompletableFuture<?> _ =
        ready.whenComplete(
            (_, failure) -> {
              try {
                result.complete(bind(name, origin, presence, pin, failure));
              } catch (AdapterException e) {
                result.completeExceptionally(e.of(name));
              } finally {
                letGo(presence);
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
        if (pin) {
          checkFree(name);
        }
        return entry(bind(name, origin, presence, pin));
      }
    } finally {
      synchronized (lock) {
        presence.pins -= pin ? 1 : 0;
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
    if (presence.holders == 0 && presence.names.isEmpty()) {
      String digest = presence.facts.digest();
      cache.invalidate(digest);
      if (presence.residents.isEmpty()) {
        presences.remove(digest, presence);
      }
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
    Registration registration = new Registration(name, presence, pin);
    Registration old = names.put(name, registration);
    presence.origin = origin;
    presence.names.add(name);
    presence.pins += pin ? 1 : 0;
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
    presence.pins -= old.pin ? 1 : 0;
    Registration now = names.get(old.name);
    if (now == null || now.presence != presence) {
      presence.names.remove(old.name);
    }
    if (presence.names.isEmpty()) {
      HostCopy copy = cache.getIfPresent(presence.facts.digest());
      if (copy != null && presence.holders > 0 && presence.kept == null) {
        copy.holders++;
        presence.kept = copy;
      }
      cache.invalidate(presence.facts.digest());
      presence.residents.forEach(resident -> unsettled.add(resident.unwanted()));
      tidy(presence);
    }
  }

  /**
   * Opens a lease, reading the adapter if it never was.
   *
   * @return completed at once if the adapter is known; exceptionally with an {@link
   *     AdapterException}. Whoever drops the future unread still closes the lease it gets: {@code
   *     cancel} does so, and if nobody else waits the adapter is not read.
   */
  public CompletableFuture<Lease> lease(String nameOrDigest) {
    CompletableFuture<Lease> future = new CompletableFuture<>();
    Demand begun = null;
    synchronized (lock) {
      Registration registration = find(nameOrDigest);
      AdapterException refused =
          closed ? stopped() : registration == null ? refusal(nameOrDigest) : null;
      if (refused != null) {
        return CompletableFuture.failedFuture(refused.of(nameOrDigest));
      }
      if (registration != null) {
        return CompletableFuture.completedFuture(open(registration));
      }
      Demand demand = demands.get(nameOrDigest);
      if (demand == null) {
        begun = demand = new Demand();
        demands.put(nameOrDigest, demand);
      }
      demand.waiters.add(future);
    }
    if (begun != null) {
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
      Presence presence = presences.get(nameOrDigest);
      if (presence != null && !presence.names.isEmpty()) {
        return names.get(presence.names.iterator().next());
      }
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

  /** Reads what requests wait for, on a loader's thread. */
  private void serve(String asked, Demand demand) {
    synchronized (lock) {
      if (demand.waiters.stream().allMatch(CompletableFuture::isDone)) {
        demands.remove(asked, demand);
        return;
      }
    }
    Origin origin = new Origin.Rooted(asked);
    Presence read = null;
    AdapterException refused = null;
    try {
      read = obtain(origin);
      read.facts.warnings().forEach(warning -> log.warn("adapter '{}': {}", asked, warning));
    } catch (AdapterException e) {
      refused = e;
    }
    List<Runnable> ready = new ArrayList<>();
    synchronized (lock) {
      // A load by order may have been faster.
      Registration registration = find(asked);
      if (closed) {
        refused = stopped();
      } else if (registration == null && withdrawn.contains(asked)) {
        refused = notLoaded("it was unloaded; load it again");
      } else if (registration == null && read != null) {
        registration = bind(asked, origin, read, false);
      }
      if (registration != null && !closed) {
        demands.remove(asked, demand);
        for (CompletableFuture<Lease> waiter : demand.waiters) {
          Lease lease = open(registration);
          ready.add(
              () -> {
                if (!waiter.complete(lease)) {
                  lease.close();
                }
              });
        }
        refused = null;
      }
    }
    if (read != null) {
      letGo(read);
    }
    if (refused != null) {
      fail(asked, demand, refused);
    }
    ready.forEach(Runnable::run);
  }

  private void fail(String asked, Demand demand, AdapterException e) {
    List<CompletableFuture<Lease>> waiters;
    synchronized (lock) {
      demands.remove(asked, demand);
      waiters = List.copyOf(demand.waiters);
    }
    waiters.forEach(waiter -> waiter.completeExceptionally(e.of(asked)));
  }

  /** A lease, with the lock held. */
  private Lease open(Registration registration) {
    Presence presence = registration.presence;
    presence.holders++;
    registration.inUse++;
    registration.requests++;
    return new Lease(
        this,
        registration.name,
        presence,
        () -> {
          synchronized (lock) {
            registration.inUse--;
          }
          letGo(presence);
        });
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
      resident = upload(presence, wanted);
    } catch (AdapterException e) {
      refused = e.of(name);
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
  private @Nullable Resident upload(Presence presence, BooleanSupplier wanted)
      throws AdapterException {
    if (!wanted.getAsBoolean()) {
      return null;
    }
    long begun = System.nanoTime();
    HostCopy copy = copy(presence);
    try {
      if (!wanted.getAsBoolean()) {
        return null;
      }
      Lora lora = copy.candidate.upload();
      Resident resident = new Resident(this, presence, lora, System.nanoTime() - begun);
      synchronized (lock) {
        presence.residents.add(resident);
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

  boolean pinned(Presence presence) {
    synchronized (lock) {
      return presence.pins > 0;
    }
  }

  boolean wanted(Presence presence) {
    synchronized (lock) {
      return !presence.names.isEmpty();
    }
  }

  void watch(Resident resident, Runnable unwanted) {
    synchronized (lock) {
      resident.unwanted(unwanted);
    }
  }

  /** A resident was closed. */
  void gone(Resident resident) {
    Presence presence = resident.presence();
    synchronized (lock) {
      presence.residents.remove(resident);
      tidy(presence);
    }
    settle();
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
      unloaded = new Unloaded(registration.presence.facts.digest(), registration.inUse);
    }
    settle();
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
    Facts facts = registration.presence.facts;
    return new AdapterEntry(
        registration.name,
        facts.digest(),
        facts.kind(),
        facts.rank(),
        facts.modules(),
        facts.parameters(),
        facts.deviceBytes(),
        !registration.presence.residents.isEmpty(),
        registration.inUse,
        registration.requests,
        facts.warnings());
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
    List<Map.Entry<String, Demand>> waiting;
    synchronized (lock) {
      closed = true;
      List<Registration> all = List.copyOf(names.values());
      names.clear();
      all.forEach(this::abandon);
      cache.invalidateAll();
      waiting = List.copyOf(demands.entrySet());
    }
    settle();
    waiting.forEach(demand -> fail(demand.getKey(), demand.getValue(), stopped()));
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
      Facts facts = Facts.of(adapter, backend.loraBytes(adapter.deltas()));
      return new Candidate() {
        @Override
        public Facts facts() {
          return facts;
        }

        @Override
        public long hostBytes() {
          return adapter.hostBytes();
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
