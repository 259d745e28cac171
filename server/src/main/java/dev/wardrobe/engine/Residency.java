package dev.wardrobe.engine;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.adapter.Resident;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.jspecify.annotations.Nullable;

/**
 * Which adapters are in the backend's memory. Belongs to the engine's thread; loaders only leave
 * word that a load has ended.
 *
 * <p>Memory is counted in pages, which are the KV cache's blocks: a load has its pages lent before
 * it begins, and the adapter keeps them until it is evicted, so at no time is more in memory than
 * there is room for. What a sequence in the batch uses stays; of the rest, what was worth least
 * goes first. Adapters leave the KV cache so many pages that it is sure of, and are sure of so many
 * themselves. Above that, what makes room is whichever holds more that nobody uses: idle adapters
 * or cached prefixes.
 *
 * <p>Worth is <em>credit</em> (GreedyDual-Size; Cao and Irani, 1997): with each use an adapter gets
 * what it costs to load again, for each of its pages, on top of the credit of the last one that was
 * evicted. So what costs much stays longer, and whatever is not used any more goes in the end. Of
 * equals the one that was not used for longest goes. Costs are measured, and rounded to powers of
 * two, lest chance decide between equals.
 */
final class Residency {
  private final PagePool pool;
  private final int kvFloor;
  private final int adapterFloor;
  private final int maxLoads;
  private final Runnable wake;
  private final EngineMeters meters;
  private final Map<String, Residence> residences = new HashMap<>();

  /** Those in memory. */
  private final List<Residence> ready = new ArrayList<>();

  /** Those of them that may go: nobody in the batch uses them, and they are not to stay. */
  private final Heap<Residence> spares = new Heap<>();

  /** Those that were left where they are while others were looked for. */
  private final List<Residence> passed = new ArrayList<>();

  private final List<Residence> failed = new ArrayList<>();

  /** Those whose load has ended. */
  private final ConcurrentLinkedQueue<Residence> landed = new ConcurrentLinkedQueue<>();

  /** Those in memory of which other threads say that they are to stay, or to go. */
  private final ConcurrentLinkedQueue<Residence> changed = new ConcurrentLinkedQueue<>();

  private volatile boolean closed;
  private final Rate loadRate = new Rate();
  private int loads;

  /** The least that there was no room for in this pass. */
  private int refused;

  /** What loads may take in this pass: the rest is for somebody who is waited for. */
  private int spare;

  /** Pages of those that are pinned. */
  private int pinned;

  /** Pages of the {@link #spares}, and what of it was asked for in this pass. */
  private int sparePages;

  private int claimedPages;

  private long pass;
  private double floor;
  private long loaded;
  private long evictions;

  /**
   * @param kvFloor pages that adapters leave to keys and values
   * @param adapterFloor pages that keys and values leave to adapters
   * @param maxLoads most loads at a time
   * @param wake wakes the engine
   * @param meters hear of loads
   */
  Residency(
      PagePool pool,
      int kvFloor,
      int adapterFloor,
      int maxLoads,
      Runnable wake,
      EngineMeters meters) {
    this.pool = pool;
    this.kvFloor = kvFloor;
    this.adapterFloor = adapterFloor;
    this.maxLoads = maxLoads;
    this.wake = wake;
    this.meters = meters;
  }

  /** Pages that so many bytes take. */
  int pages(long bytes) {
    return Math.toIntExact(Math.min(Integer.MAX_VALUE, Math.ceilDiv(bytes, pool.blockBytes())));
  }

  /** Most pages that adapters may have. */
  int most() {
    return pool.blocks() - kvFloor;
  }

  /** Most pages that keys and values may have. */
  int mostKv() {
    return pool.blocks() - adapterFloor;
  }

  /** Pages that keys and values may take as things are. */
  int kvAvailable() {
    return pool.available() - Math.max(0, adapterFloor - pool.lent());
  }

  /** What it takes to load a byte. */
  Rate loadRate() {
    return loadRate;
  }

  /** Loads that succeeded so far. */
  long loaded() {
    return loaded;
  }

  long evictions() {
    return evictions;
  }

  /** Whether a load is under way. */
  boolean loading() {
    return loads > 0;
  }

  /** Somebody needs the adapter: from now on until {@link #forgo}. */
  Residence enter(Lease lease) {
    Residence residence =
        residences.computeIfAbsent(
            lease.digest(), d -> new Residence(lease, pages(lease.deviceBytes())));
    residence.interested++;
    residence.wanted = true;
    return residence;
  }

  /** Somebody does not need it any more. A load that nobody needs, and has not begun, does not. */
  void forgo(Residence residence) {
    if (--residence.interested == 0) {
      residence.wanted = false;
      tidy(residence);
    }
  }

  /** A sequence that uses it joins the batch. */
  void use(Residence residence) {
    if (!residence.ready()) {
      throw new IllegalStateException("adapter '%s' is not resident".formatted(residence.name));
    }
    residence.users++;
    sort(residence);
    touch(residence);
  }

  /** A sequence that uses it leaves the batch. */
  void leave(Residence residence) {
    residence.users--;
    touch(residence);
    sort(residence);
    tidy(residence);
  }

  /** Takes note of whether it may go by now. What orders the spares changes outside of them. */
  private void sort(Residence residence) {
    boolean stays = residence.pinned();
    if (stays != residence.stays) {
      residence.stays = stays;
      pinned += stays ? residence.pages : -residence.pages;
    }
    boolean spare = residence.idle() && !stays;
    if (spare != spares.contains(residence)) {
      int pages = spare ? residence.pages : -residence.pages;
      sparePages += pages;
      claimedPages += residence.claimed == pass ? pages : 0;
      if (spare) {
        spares.add(residence);
      } else {
        spares.remove(residence);
      }
    }
  }

  private void touch(Residence residence) {
    residence.used = pass;
    Resident resident = residence.resident;
    if (resident != null) {
      residence.credit =
          floor + Long.highestOneBit(Math.max(1, resident.loadNanos() / residence.pages));
    }
  }

  private void tidy(Residence residence) {
    if (residence.interested > 0 || residence.users > 0) {
      return;
    }
    Resident resident = residence.resident;
    if (residence.state == Residence.State.ABSENT) {
      residences.remove(residence.digest, residence);
    } else if (resident != null && !resident.wanted()) {
      evict(residence);
    }
  }

  /** Begins a pass over the queue: what is asked for in it stays until the next one. */
  void begin() {
    pass++;
    refused = Integer.MAX_VALUE;
    spare = Integer.MAX_VALUE;
    claimedPages = 0;
  }

  /** Lets loads take no more than so many pages until the next pass. */
  void spare(int pages) {
    spare = pages;
  }

  /**
   * Asks for an adapter, on behalf of who is next in the queue: what was asked for earlier in this
   * pass is not evicted for it. Its load begins, unless there are enough loads or there is no room.
   *
   * @param lease an open one
   */
  void ask(Residence residence, Lease lease) {
    if (residence.claimed != pass) {
      residence.claimed = pass;
      claimedPages += spares.contains(residence) ? residence.pages : 0;
    }
    if (residence.state == Residence.State.ABSENT && loads < maxLoads) {
      if (residence.pages < refused && residence.pages <= spare && makeRoom(residence.pages)) {
        spare -= residence.pages;
        load(residence, lease);
      } else {
        refused = Math.min(refused, residence.pages);
      }
    }
  }

  /** Whether in this pass there was no room for it. */
  boolean roomless(Residence residence) {
    return residence.state == Residence.State.ABSENT && residence.pages >= refused;
  }

  /** Evicts until so many pages can be lent; false, and nothing is evicted, if that cannot be. */
  private boolean makeRoom(int needed) {
    int least = Math.max(pool.lent() + needed - most(), needed - pool.available());
    if (sparePages - claimedPages < least) {
      return false;
    }
    int lent = pool.lent();
    boolean enough = false;
    while (!enough) {
      int evictable = sparePages - claimedPages;
      enough =
          lent - pool.lent() >= least
              && (pool.available() - pool.cached() >= needed || evictable <= pool.cached());
      Residence victim = enough ? null : victim(false);
      if (victim == null) {
        break;
      }
      discard(victim);
    }
    // One that was pinned at this moment may have made the sum untrue.
    return needed <= pool.available() && pool.lent() + needed <= most();
  }

  /**
   * Evicts idle adapters until keys and values can have so many pages; false if they cannot.
   *
   * @param running whether they are for who is in the batch already, before whom those who wait
   *     have no claims
   */
  boolean makeKvRoom(int needed, boolean running) {
    while (kvAvailable() < needed) {
      Residence victim = pool.lent() <= adapterFloor ? null : victim(running);
      if (victim == null) {
        return false;
      }
      discard(victim);
    }
    return true;
  }

  /** The spare that is worth least; null if there is none, or others have claimed them all. */
  private @Nullable Residence victim(boolean claimed) {
    Residence worst = spares.first();
    while (worst != null && (worst.pinned() || (!claimed && worst.claimed == pass))) {
      if (worst.pinned()) {
        sort(worst);
      } else {
        spares.remove(worst);
        passed.add(worst);
      }
      worst = spares.first();
    }
    for (int i = 0; i < passed.size(); i++) {
      spares.add(passed.get(i));
    }
    passed.clear();
    return worst;
  }

  private void discard(Residence victim) {
    floor = Math.max(floor, victim.credit);
    evict(victim);
    evictions++;
  }

  private void evict(Residence residence) {
    Resident resident = residence.resident;
    residence.resident = null;
    residence.state = Residence.State.ABSENT;
    residence.drained = false;
    sort(residence);
    Residence last = ready.removeLast();
    if (last != residence) {
      ready.set(residence.at, last);
      last.at = residence.at;
    }
    if (resident != null) {
      resident.close();
    }
    pool.reclaim(residence.pages);
    if (residence.interested == 0) {
      residences.remove(residence.digest, residence);
    }
  }

  /** Pages of those that stay whatever happens. */
  int pinned() {
    return pinned;
  }

  /** What is in memory, in no order. */
  List<Residence> ready() {
    return ready;
  }

  /**
   * Whatever is in memory, on the way there, or waited for.
   *
   * @param waiting how many sequences wait for a place, by digest
   */
  List<EngineState.Held> held(Map<String, Integer> waiting) {
    List<EngineState.Held> held = new ArrayList<>();
    for (Residence residence : residences.values()) {
      held.add(
          new EngineState.Held(
              residence.name,
              residence.digest,
              residence.bytes,
              residence.pages,
              residence.state.name().toLowerCase(Locale.ROOT),
              residence.users,
              waiting.getOrDefault(residence.digest, 0),
              residence.pinned(),
              residence.used));
    }
    return held;
  }

  private void load(Residence residence, Lease lease) {
    if (!pool.lend(residence.pages)) {
      throw new IllegalStateException("no pages for adapter '%s'".formatted(residence.name));
    }
    residence.state = Residence.State.LOADING;
    loads++;
    CompletableFuture<Resident> load = lease.upload(() -> residence.wanted && !closed);
    residence.load = load;
    CompletableFuture<?> _ =
        load.whenComplete(
            (_, _) -> {
              landed.add(residence);
              wake.run();
            });
  }

  /**
   * Takes note of the loads that have ended.
   *
   * @return those that failed; valid until the next call, see {@link #failure}
   */
  List<Residence> land() {
    failed.clear();
    for (Residence next = landed.poll(); next != null; next = landed.poll()) {
      loads--;
      try {
        Resident resident = next.load == null ? null : next.load.join();
        if (resident != null) {
          settle(next, resident);
        }
      } catch (CompletionException | CancellationException e) {
        pool.reclaim(next.pages);
        next.state = Residence.State.ABSENT;
        // Whoever came after it was called off has it begin again.
        if (!called(e)) {
          failed.add(next);
        } else {
          next.load = null;
          tidy(next);
        }
      }
    }
    for (Residence next = changed.poll(); next != null; next = changed.poll()) {
      sort(next);
      tidy(next);
    }
    return failed;
  }

  private static boolean called(Throwable e) {
    return e instanceof CancellationException || e.getCause() instanceof CancellationException;
  }

  private void settle(Residence residence, Resident resident) {
    residence.load = null;
    residence.resident = resident;
    residence.state = Residence.State.READY;
    residence.at = ready.size();
    ready.add(residence);
    residence.readyAt = System.nanoTime();
    loaded++;
    loadRate.measure(residence.bytes, resident.loadNanos());
    meters.loaded(resident.loadNanos());
    touch(residence);
    Runnable change =
        () -> {
          changed.add(residence);
          wake.run();
        };
    resident.watch(change, change);
    sort(residence);
    tidy(residence);
  }

  /** What a load failed by; asked once for each that {@link #land} gave. */
  Throwable failure(Residence residence) {
    CompletableFuture<Resident> load = residence.load;
    residence.load = null;
    Throwable failure = load == null ? new IllegalStateException() : load.exceptionNow();
    tidy(residence);
    return failure;
  }

  /** Gives all memory back; what is still being loaded is given back by its loader. */
  void close() {
    closed = true;
    for (Residence residence : List.copyOf(residences.values())) {
      CompletableFuture<Resident> load = residence.load;
      if (load != null) {
        CompletableFuture<?> _ = load.thenAccept(Resident::close);
      }
      if (residence.resident != null) {
        evict(residence);
      }
    }
  }
}
