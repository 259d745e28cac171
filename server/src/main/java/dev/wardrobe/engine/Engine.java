package dev.wardrobe.engine;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.DeviceLostException;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.compute.Step;
import dev.wardrobe.model.Decoder;
import dev.wardrobe.model.Model;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The step loop: one thread that batches many sequences over many adapters.
 *
 * <p>Each step takes the tokens that the {@link Scheduler} planned, one of every sequence that
 * decodes and some of those that prefill, through one forward pass, draws from the logits that are
 * wanted, and delivers. Everything that changes is changed by this thread; other threads only leave
 * submissions and flags, and wake it.
 *
 * <p>A sequence's tokens and log-probabilities depend on the model, its adapter and its task alone
 * (see {@link Backend}), never on what shared its steps or on how its prompt was cut.
 */
public final class Engine implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Engine.class);

  private static final long RETRY_UNKNOWN = TimeUnit.SECONDS.toNanos(1);
  private static final long RETRY_SOONEST = TimeUnit.MILLISECONDS.toNanos(50);
  private static final long RETRY_LATEST = TimeUnit.SECONDS.toNanos(30);

  /** Prompt tokens that make a step's time a measure of what they take. */
  private static final int WORTH_MEASURING = 16;

  private final Backend backend;
  private final EngineOptions options;
  private final KvCache cache;
  private final Decoder decoder;
  private final PagePool pool;
  private final Scheduler scheduler;
  private final Residency residency;
  private final int vocabulary;
  private final int context;
  private final StepLog log = new StepLog();
  private final EngineMeters meters = new EngineMeters();

  /** Who wants to know what there is. */
  private final ConcurrentLinkedQueue<CompletableFuture<EngineState>> inspections =
      new ConcurrentLinkedQueue<>();

  /** When the step that is computed began; 0 between steps. */
  private volatile long stepBegan;

  private final Runnable waker = this::wake;
  private final Thread thread;

  // Guarded by inbox.
  private final ArrayDeque<Sequence> inbox = new ArrayDeque<>();
  private final ArrayDeque<Prefetch> wishes = new ArrayDeque<>();
  private int wished;
  private long submitted;
  private long ended;
  private int queued;
  private int running;
  private int paused;
  private int touchedBlocks;
  private int lentBlocks;
  private int freeBlocks;
  private int cachedBlocks;
  private long steps;
  private final Departures departures = new Departures();
  private long publishedSubmitted;
  private long publishedEnded;
  private long preemptions;
  private long prefixLookups;
  private long prefixHits;
  private long prefixEvictions;
  private long adapterLoads;
  private long adapterEvictions;
  private boolean draining;
  private boolean gone;

  /** Set with every wake-up, since what a listener does may use up the thread's permit. */
  private volatile boolean signalled;

  private volatile boolean cancelAll;
  private volatile boolean handBack;
  private volatile boolean closing;
  private volatile boolean anew;
  private volatile boolean failed;

  private final AtomicLong arrivals = new AtomicLong();

  /** Those in the queue or in the batch that were cancelled. */
  private final ConcurrentLinkedQueue<Sequence> cancelled = new ConcurrentLinkedQueue<>();

  // The engine thread's own.
  private final Heap<Sequence> deadlines = new Heap<>();
  private final Map<Identity, EffectiveAdapter> adapters = new HashMap<>();
  private final List<Prefetch> prefetches = new ArrayList<>();
  private final Rate promptRate = new Rate();
  private final Rate stepRate = new Rate();
  private final List<Draw> draws = new ArrayList<>();

  /** Whose the draws are. */
  private final List<Sequence> drawn = new ArrayList<>();

  private final List<Sequence> dying = new ArrayList<>();
  private final List<Sequence> arrived = new ArrayList<>();
  private final Batch batch = new Batch();

  // Whose the batch's outputs are, and the positions they are at.
  private Sequence[] outputSequences = new Sequence[64];
  private int[] outputPositions = new int[64];
  private int adapterNumbers;

  /** When the last step ended; 0 after an idle time. */
  private long lastEnd;

  /** An adapter that is to be in memory before anybody asks for it. */
  private static final class Prefetch {
    final Lease lease;
    final CompletableFuture<Boolean> done = new CompletableFuture<>();
    @Nullable Residence residence;

    Prefetch(Lease lease) {
      this.lease = lease;
    }
  }

  /**
   * Starts the engine.
   *
   * @throws dev.wardrobe.compute.OutOfMemoryException if the KV cache does not fit
   */
  public Engine(Model model, Backend backend, EngineOptions options) {
    this.backend = backend;
    this.options = options;
    Budget budget = options.budget(model.config());
    KvShape shape = budget.shape();
    vocabulary = model.config().vocabulary();
    context = (int) Math.min(model.config().contextLength(), budget.mostTokens());
    cache = backend.kvCache(shape);
    try {
      pool = new PagePool(cache);
      residency =
          new Residency(
              pool, budget.kvFloor(), budget.adapterFloor(), options.maxLoads(), waker, meters);
      scheduler =
          new Scheduler(options.maxSequences(), options.prefillTokens(), pool, residency, waker);
      decoder =
          new Decoder(
              model,
              backend,
              cache,
              options.maxSequences() + options.prefillTokens(),
              options.maxLogitRows());
    } catch (Throwable e) {
      cache.close();
      throw e;
    }
    freeBlocks = pool.available();
    thread = Thread.ofPlatform().name("wardrobe-engine").daemon().unstarted(this::run);
    thread.start();
  }

  public EngineOptions options() {
    return options;
  }

  /**
   * Most tokens of one sequence: the model's context, or what the KV cache holds if that is less.
   */
  public int contextLength() {
    return context;
  }

  /** How the backend computes. */
  public MathMode math() {
    return backend.math();
  }

  /** The KV cache's shape. */
  public KvShape kvShape() {
    return cache.shape();
  }

  /** Whether the step loop is there; once it failed, nothing is answered any more. */
  public boolean alive() {
    return !failed;
  }

  /** Bytes of the forward pass's activations and tables. */
  public long workspaceBytes() {
    return decoder.bytes();
  }

  public EngineStats stats() {
    synchronized (inbox) {
      return new EngineStats(
          steps,
          running,
          paused,
          queued,
          pool.blocks(),
          touchedBlocks,
          lentBlocks,
          freeBlocks,
          cachedBlocks,
          publishedSubmitted,
          publishedEnded,
          preemptions,
          prefixLookups,
          prefixHits,
          prefixEvictions,
          adapterLoads,
          adapterEvictions);
    }
  }

  /** What is measured as it goes. */
  public EngineMeters meters() {
    return meters;
  }

  /** How long the step that is being computed has taken so far, in nanoseconds; 0 between steps. */
  public long stepNanos() {
    long began = stepBegan;
    return began == 0 ? 0 : Math.max(0, System.nanoTime() - began);
  }

  /** Whether it takes no more sequences. */
  public boolean draining() {
    synchronized (inbox) {
      return draining;
    }
  }

  /**
   * What the engine has before it, once the step that is computed has ended: wait for it no longer
   * than for a step, which may be stuck.
   */
  public CompletableFuture<EngineState> inspect() {
    CompletableFuture<EngineState> state = new CompletableFuture<>();
    inspections.add(state);
    if (!thread.isAlive()) {
      endInspections();
    } else {
      wake();
    }
    return state;
  }

  /**
   * Measures and counts tokens and lookups from here on, as if nothing had been computed so far;
   * steps keep their numbers. Between steps, as {@link #inspect}.
   */
  public CompletableFuture<Void> measureAnew() {
    anew = true;
    return inspect().thenAccept(_ -> {});
  }

  private void endInspections() {
    for (CompletableFuture<EngineState> next = inspections.poll();
        next != null;
        next = inspections.poll()) {
      next.completeExceptionally(
          new EngineException(EngineException.Reason.CLOSED, "the engine has stopped"));
    }
  }

  /** The kept steps with a number over {@code after}, in order; the latest 1024 are kept. */
  public List<StepRecord> recentSteps(long after) {
    return log.after(after);
  }

  /**
   * Puts a sequence into the queue. From here on its leases are the engine's to close; on an
   * exception they stay the caller's.
   *
   * @throws EngineException if it can never fit, the queue is full, or the engine is closing
   * @throws IllegalArgumentException if the prompt is empty or a token is outside the vocabulary
   */
  public Ticket submit(GenerationTask task, TokenListener listener) throws EngineException {
    return submit(task, List.of(listener)).getFirst();
  }

  /**
   * Puts as many sequences of one task into the queue as there are listeners, or none. They share
   * the prompt's blocks: the first computes them, the others follow. The first one's tokens are
   * those that the task gives alone, and it alone scores the prompt; the others draw with seeds of
   * their own, see {@link dev.wardrobe.sampling.SamplingParams#forChoice}. The lease is closed when
   * all have ended.
   *
   * @return a ticket for each
   * @throws EngineException as {@link #submit(GenerationTask, TokenListener)}
   */
  public List<Ticket> submit(GenerationTask task, List<? extends TokenListener> listeners)
      throws EngineException {
    check(task);
    if (listeners.isEmpty()) {
      throw new IllegalArgumentException("expected a listener for each sequence, got none");
    }
    Identity identity = Identity.of(cache.shape().type(), backend.math(), task.adapters());
    Identity sharing = options.tenantsApart() ? identity.of(task.tenant()) : identity;
    Siblings siblings = new Siblings();
    List<Sequence> sequences = new ArrayList<>();
    long arrival = arrivals.getAndAdd(listeners.size());
    long now = System.nanoTime();
    for (TokenListener listener : listeners) {
      int choice = sequences.size();
      sequences.add(
          new Sequence(task, listener, siblings, choice, identity, sharing, arrival + choice, now));
    }
    siblings.are(sequences);
    synchronized (inbox) {
      if (draining || gone) {
        throw new EngineException(
            EngineException.Reason.CLOSED, "the server is shutting down; try another one");
      }
      if (listeners.size() > options.maxWaiting() - queued) {
        throw new EngineException(
            EngineException.Reason.FULL,
            "%d requests are waiting, at most %d may, and this one is %d of them; try again later"
                .formatted(queued, options.maxWaiting(), listeners.size()),
            retryAfter(listeners.size()));
      }
      if (ended == submitted) {
        departures.begin(now);
      }
      submitted += sequences.size();
      queued += sequences.size();
      inbox.addAll(sequences);
    }
    wake();
    return sequences.stream().map(sequence -> new Ticket(this, sequence)).toList();
  }

  /** When so many requests may have left the queue, holding {@code inbox}. */
  private Duration retryAfter(int requests) {
    long nanos = (long) departures.of(requests, System.nanoTime());
    return Duration.ofNanos(
        nanos == 0 ? RETRY_UNKNOWN : Math.clamp(nanos, RETRY_SOONEST, RETRY_LATEST));
  }

  /**
   * Brings an adapter into memory before anybody asks for it, if there is room beside what is used
   * or waited for, and not too many such wishes are open.
   *
   * @param lease the engine closes it
   * @return whether it is in memory; exceptionally with an {@link AdapterException} if it cannot be
   */
  public CompletableFuture<Boolean> prefetch(Lease lease) {
    Prefetch prefetch = new Prefetch(lease);
    boolean refused;
    synchronized (inbox) {
      refused = draining || gone || wished >= options.maxWaiting();
      if (!refused) {
        wished++;
        wishes.add(prefetch);
      }
    }
    if (refused) {
      lease.close();
      prefetch.done.complete(false);
    } else {
      wake();
    }
    return prefetch.done.copy();
  }

  private void check(GenerationTask task) throws EngineException {
    if (task.prompt().length == 0 || task.maxTokens() < 0) {
      throw new IllegalArgumentException(
          "expected a prompt of at least 1 token and max tokens of at least 0, got %d and %d"
              .formatted(task.prompt().length, task.maxTokens()));
    }
    for (int token : task.prompt()) {
      if (token < 0 || token >= vocabulary) {
        throw new IllegalArgumentException(
            "token %d is outside the vocabulary of %d".formatted(token, vocabulary));
      }
    }
    if ((long) task.prompt().length + task.maxTokens() > context) {
      throw new EngineException(
          EngineException.Reason.TOO_LONG,
          ("a prompt of %d tokens and %d tokens to generate make %d, but %d is the most that one"
                  + " request may have; shorten one of them")
              .formatted(
                  task.prompt().length,
                  task.maxTokens(),
                  (long) task.prompt().length + task.maxTokens(),
                  context));
    }
    checkAdapters(task);
  }

  private void checkAdapters(GenerationTask task) throws EngineException {
    List<AdapterPart> adapters = task.adapters();
    long pages = 0;
    Set<String> digests = new HashSet<>();
    for (AdapterPart part : adapters) {
      Lease lease = part.lease();
      if (!lease.additive() && (adapters.size() > 1 || part.scale() != 1)) {
        throw new IllegalArgumentException(
            "adapter '%s' replaces or rescales what the base computes: expected it alone and at"
                    .formatted(lease.name())
                + " scale 1, got %d adapters, it at scale %s"
                    .formatted(adapters.size(), part.scale()));
      }
      pages += digests.add(lease.digest()) ? residency.pages(lease.deviceBytes()) : 0;
    }
    int kv = Sequence.blocks(task.prompt().length + task.maxTokens());
    if (pages > residency.most() || pages + kv > pool.blocks()) {
      throw new EngineException(
          EngineException.Reason.TOO_LARGE,
          ("%s: %d pages resident, and %d for the request's tokens, are more than adapters may have"
                  + " (%d) or than there are (%d, of %d bytes); give the server more memory, or ask"
                  + " for fewer tokens")
              .formatted(
                  names(adapters), pages, kv, residency.most(), pool.blocks(), pool.blockBytes()));
    }
  }

  private static String names(List<AdapterPart> adapters) {
    return adapters.isEmpty()
        ? "the base"
        : adapters.stream()
            .map(part -> "adapter '" + part.lease().name() + "'")
            .collect(Collectors.joining(" and "));
  }

  /**
   * Takes no more sequences, lets those that it has end, and hands back what is left after {@code
   * limit}: it fails as {@link EngineException.Reason#CLOSED}. Waits for all of it.
   *
   * @return whether all ended by themselves
   */
  public boolean drain(Duration limit) throws InterruptedException {
    if (Thread.currentThread() == thread) {
      throw new IllegalStateException("a listener cannot wait for the engine that calls it");
    }
    synchronized (inbox) {
      draining = true;
      boolean clean = awaitEnd(System.nanoTime() + limit.toNanos());
      handBack = true;
      wake();
      awaitEnd(Long.MAX_VALUE);
      return clean;
    }
  }

  /** Waits, holding {@code inbox}, until every sequence has ended. */
  private boolean awaitEnd(long until) throws InterruptedException {
    while (ended < submitted) {
      long left = until == Long.MAX_VALUE ? 0 : (until - System.nanoTime()) / 1_000_000 + 1;
      if (until != Long.MAX_VALUE && until - System.nanoTime() <= 0) {
        return false;
      }
      inbox.wait(left);
    }
    return true;
  }

  /** Cancels every sequence, and gives all memory back. */
  @Override
  public void close() {
    if (Thread.currentThread() == thread) {
      throw new IllegalStateException("a listener cannot wait for the engine that calls it");
    }
    synchronized (inbox) {
      draining = true;
    }
    cancelAll = true;
    closing = true;
    wake();
    boolean interrupted = false;
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    synchronized (inbox) {
      if (!gone) {
        gone = true;
        decoder.close();
        cache.close();
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Ends a sequence within one step. */
  void cancel(Sequence sequence) {
    if (!sequence.cancelled) {
      sequence.cancelled = true;
      cancelled.add(sequence);
      wake();
    }
  }

  void wake() {
    signalled = true;
    LockSupport.unpark(thread);
  }

  // From here on: the engine thread.

  private void run() {
    try {
      while (!(closing && idle())) {
        signalled = false;
        long now = System.nanoTime();
        receive();
        land();
        reap(now);
        if (inspections.peek() != null) {
          if (anew) {
            anew = false;
            meters.clear();
            scheduler.countAnew();
            publish();
          }
          showState(now);
        }
        long preemptions = scheduler.preemptions();
        List<Sequence> plan = scheduler.plan();
        prefetch();
        boolean again = endBroken() || endHopeless();
        if (plan.isEmpty() && scheduler.preemptions() > preemptions) {
          // What was given back may be the room that somebody has just been refused.
          continue;
        }
        if (plan.isEmpty()) {
          again = again || endStuck();
          publish();
          lastEnd = 0;
          if (!again) {
            park(now);
          }
        } else {
          step(plan);
          publish();
        }
      }
    } catch (Throwable e) {
      LOG.error("the step loop failed", e);
      abandon(e);
    } finally {
      stepBegan = 0;
      endInspections();
      endPrefetches();
      residency.close();
    }
  }

  private boolean idle() {
    synchronized (inbox) {
      return ended == submitted;
    }
  }

  /** Waits until somebody wakes the engine, or the next deadline passes. */
  private void park(long now) {
    Sequence first = deadlines.first();
    long nearest = first == null ? Long.MAX_VALUE : first.task.deadline() - now;
    if (signalled || closing) {
      return;
    }
    if (nearest == Long.MAX_VALUE) {
      LockSupport.park(this);
    } else if (nearest > 0) {
      LockSupport.parkNanos(this, nearest);
    }
    // An interrupt would turn parking into spinning.
    Thread.interrupted();
  }

  private void receive() {
    synchronized (inbox) {
      for (Sequence next = inbox.poll(); next != null; next = inbox.poll()) {
        if (!next.task.adapters().isEmpty()) {
          next.adapter = join(next.identity, next.task.adapters());
        }
        scheduler.add(next);
        if (next.task.deadline() != GenerationTask.NO_DEADLINE) {
          deadlines.add(next);
        }
        arrived.add(next);
      }
      if (!wishes.isEmpty()) {
        // Nothing at all would be copied by way of an array, too.
        prefetches.addAll(wishes);
        wishes.clear();
      }
    }
    for (int i = 0; i < arrived.size(); i++) {
      Sequence sequence = arrived.get(i);
      // Its mask is made while it waits; and who cannot go on need not wait.
      sequence.look(waker);
      if (sequence.cancelled) {
        dying.add(sequence);
      } else if (sequence.broken != null) {
        endBroken(sequence);
      } else {
        refuseIfLate(sequence);
      }
    }
    arrived.clear();
  }

  /** Ends a sequence that cannot meet its deadline however well things go. */
  private void refuseIfLate(Sequence sequence) {
    long now = System.nanoTime();
    if (sequence.task.deadline() == GenerationTask.NO_DEADLINE || sequence.expired(now)) {
      return;
    }
    double swapIn = 0;
    EffectiveAdapter adapter = sequence.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      Residence residence = adapter.residence(i);
      if (residence.state == Residence.State.ABSENT) {
        swapIn = Math.max(swapIn, residency.loadRate().of(residence.bytes));
      }
    }
    // Only its own line's are sure to go first, and only those that have no place beside it: what
    // they compute it may share, or overtake.
    int before = sequence.line().ahead(sequence);
    int prompt = sequence.uncached(pool);
    int least = Math.min(sequence.task.maxTokens(), Math.max(1, sequence.sampling.minTokens()));
    double queue = stepRate.of(before / options.maxSequences());
    double own = promptRate.of(prompt) + stepRate.of(Math.max(0, least - 1));
    double left = sequence.task.deadline() - now;
    if (swapIn + queue + own > left) {
      // Who is refused measures nothing.
      promptRate.doubt();
      stepRate.doubt();
      if (swapIn > 0) {
        residency.loadRate().doubt();
      }
      end(
          sequence,
          Finish.Reason.FAILED,
          new EngineException(
              EngineException.Reason.LATE,
              ("the deadline cannot be met: %.0f ms are left, but at the least %.0f ms are needed"
                   + " (%.0f in the queue, %.0f for its adapters, %.0f for %d tokens of the prompt"
                   + " and %d of the answer); allow more time, or ask for less")
                  .formatted(
                      left / 1e6,
                      (swapIn + queue + own) / 1e6,
                      queue / 1e6,
                      swapIn / 1e6,
                      own / 1e6,
                      prompt,
                      least)));
    }
  }

  /** What a byte of an adapter takes to load, for tests. */
  Rate loadRate() {
    return residency.loadRate();
  }

  /** What a token of a prompt takes, for tests. */
  Rate promptRate() {
    return promptRate;
  }

  /** The effective adapter of these parts, with one more sequence. */
  private EffectiveAdapter join(Identity identity, List<AdapterPart> parts) {
    EffectiveAdapter adapter = adapters.computeIfAbsent(identity, i -> effectiveAdapter(i, parts));
    adapter.sequences++;
    return adapter;
  }

  private EffectiveAdapter effectiveAdapter(Identity identity, List<AdapterPart> parts) {
    Residence[] residences = new Residence[parts.size()];
    float[] scales = new float[parts.size()];
    for (int i = 0; i < residences.length; i++) {
      residences[i] = residency.enter(parts.get(i).lease());
      scales[i] = parts.get(i).scale();
    }
    return new EffectiveAdapter(identity, ++adapterNumbers, residency, residences, scales);
  }

  private void showState(long now) {
    EngineState state = state(now);
    for (CompletableFuture<EngineState> next = inspections.poll();
        next != null;
        next = inspections.poll()) {
      // Those who go on with it do so elsewhere.
      next.completeAsync(() -> state);
    }
  }

  private EngineState state(long now) {
    Map<List<String>, List<Sequence>> lines = new LinkedHashMap<>();
    Map<String, Integer> waiting = new HashMap<>();
    for (Sequence sequence : scheduler.waiting()) {
      for (AdapterPart part : sequence.task.adapters()) {
        waiting.merge(part.lease().digest(), 1, Integer::sum);
      }
      List<String> key = new ArrayList<>(names(sequence));
      key.addFirst(sequence.task.tenant());
      lines.computeIfAbsent(key, _ -> new ArrayList<>()).add(sequence);
    }
    List<EngineState.Line> queue = new ArrayList<>();
    lines.forEach(
        (key, sequences) ->
            queue.add(
                new EngineState.Line(
                    key.getFirst(),
                    key.subList(1, key.size()),
                    sequences.size(),
                    now - sequences.getFirst().submitted)));
    List<EngineState.Seat> batch = new ArrayList<>();
    for (Sequence sequence : scheduler.admitted()) {
      batch.add(
          new EngineState.Seat(
              sequence.task.id(),
              sequence.task.tenant(),
              names(sequence),
              sequence.promptLength,
              sequence.computed,
              sequence.generated(),
              sequence.task.maxTokens(),
              sequence.blockCount,
              sequence.ready,
              now - sequence.submitted));
    }
    return new EngineState(queue, batch, residency.held(waiting), prefetches.size());
  }

  private static List<String> names(Sequence sequence) {
    return sequence.task.adapters().stream().map(part -> part.lease().name()).toList();
  }

  /** Takes note of the loads that have ended; who waits for one that failed ends with it. */
  private void land() {
    List<Residence> failed = residency.land();
    for (int i = 0; i < failed.size(); i++) {
      Residence residence = failed.get(i);
      Throwable failure = residency.failure(residence);
      for (Prefetch prefetch : List.copyOf(prefetches)) {
        if (prefetch.residence == residence) {
          end(prefetch, failure, false);
        }
      }
      for (Sequence sequence : List.copyOf(scheduler.waiting())) {
        if (!sequence.ended && sequence.adapter != null && sequence.adapter.uses(residence)) {
          end(
              sequence,
              Finish.Reason.FAILED,
              new EngineException(
                  EngineException.Reason.ADAPTER, String.valueOf(failure.getMessage()), failure));
        }
      }
    }
  }

  /** Has the adapters loaded that nobody asks for yet, after those that somebody does. */
  private void prefetch() {
    for (int i = prefetches.size() - 1; i >= 0; i--) {
      Prefetch prefetch = prefetches.get(i);
      if (prefetch.residence == null) {
        prefetch.residence = residency.enter(prefetch.lease);
      }
      residency.ask(prefetch.residence, prefetch.lease);
      if (prefetch.residence.ready()) {
        end(prefetch, null, true);
      } else if (!residency.loading()) {
        // It could have begun, but for the room.
        end(prefetch, null, false);
      }
    }
  }

  /** Ends one for whom there will be no room; false if there is none. */
  private boolean endHopeless() {
    Sequence hopeless = scheduler.hopeless();
    if (hopeless != null) {
      endRoomless(hopeless);
    }
    return hopeless != null;
  }

  /**
   * Ends one that would wait for ever, since nothing runs, nothing is being loaded, and yet there
   * is no room; others may have it then. False if nobody waits so.
   */
  private boolean endStuck() {
    if (residency.loading() || !scheduler.admitted().isEmpty() || signalled) {
      return false;
    }
    Sequence stuck = scheduler.first();
    if (stuck != null) {
      endRoomless(stuck);
    }
    return stuck != null;
  }

  private void endRoomless(Sequence sequence) {
    end(
        sequence,
        Finish.Reason.FAILED,
        new EngineException(
            EngineException.Reason.TOO_LARGE,
            ("%s and %d tokens: there is no room for that beside the adapters that are to stay"
                 + " resident, which have %d of %d pages; ask for fewer tokens, unload one of them,"
                 + " or give the server more memory")
                .formatted(
                    names(sequence.task.adapters()),
                    sequence.promptLength + sequence.task.maxTokens(),
                    residency.pinned(),
                    pool.blocks())));
  }

  private void end(Prefetch prefetch, @Nullable Throwable failure, boolean ready) {
    prefetches.remove(prefetch);
    synchronized (inbox) {
      wished--;
    }
    if (prefetch.residence != null) {
      residency.forgo(prefetch.residence);
    }
    prefetch.lease.close();
    if (failure == null) {
      prefetch.done.complete(ready);
    } else {
      prefetch.done.completeExceptionally(failure);
    }
  }

  private void endPrefetches() {
    synchronized (inbox) {
      draining = true;
      prefetches.addAll(wishes);
      wishes.clear();
    }
    List.copyOf(prefetches).forEach(prefetch -> end(prefetch, null, false));
  }

  /** Ends what was cancelled or is late; asks those in the batch whether they are ready. */
  private void reap(long now) {
    if (cancelAll || handBack) {
      dying.addAll(scheduler.waiting());
      dying.addAll(scheduler.admitted());
    }
    for (Sequence next = cancelled.poll(); next != null; next = cancelled.poll()) {
      // Who has not been received yet is looked at then.
      if (next.line != null) {
        dying.add(next);
      }
    }
    for (Sequence next = deadlines.first();
        next != null && next.expired(now);
        next = deadlines.first()) {
      deadlines.remove(next);
      dying.add(next);
    }
    // By index, here as in all that each step does: an iterator is an object.
    for (int i = 0; i < dying.size(); i++) {
      Sequence sequence = dying.get(i);
      if (sequence.ended) {
        continue;
      }
      if (sequence.cancelled || cancelAll) {
        end(sequence, Finish.Reason.CANCELLED, null);
      } else if (sequence.expired(now)) {
        end(sequence, Finish.Reason.DEADLINE, null);
      } else {
        end(
            sequence,
            Finish.Reason.FAILED,
            new EngineException(
                EngineException.Reason.CLOSED,
                "the server is shutting down, and had generated %d tokens; ask another one"
                    .formatted(sequence.generated())));
      }
    }
    dying.clear();
    for (int i = scheduler.admitted().size() - 1; i >= 0; i--) {
      Sequence sequence = scheduler.admitted().get(i);
      sequence.look(waker);
      if (sequence.broken != null) {
        // Removes it, at or after which nothing is left to look at.
        endBroken(sequence);
      }
    }
  }

  /** Ends those of whom the scheduler found that they cannot go on; false if there are none. */
  private boolean endBroken() {
    List<Sequence> broken = scheduler.broken();
    boolean some = !broken.isEmpty();
    for (int i = 0; i < broken.size(); i++) {
      if (!broken.get(i).ended) {
        endBroken(broken.get(i));
      }
    }
    broken.clear();
    return some;
  }

  private void endBroken(Sequence sequence) {
    Throwable cause = Objects.requireNonNull(sequence.broken);
    if (cause instanceof EngineException failure) {
      end(sequence, Finish.Reason.FAILED, failure);
    } else {
      fail(sequence, cause);
    }
  }

  private void step(List<Sequence> plan) {
    long start = System.nanoTime();
    admit(plan, start);
    if (plan.isEmpty()) {
      return;
    }
    stepBegan = start;
    fill(plan);
    int sequences = plan.size();
    int adapters = batch.segments().size();
    int prefill = 0;
    for (int i = 0; i < sequences; i++) {
      Sequence sequence = plan.get(i);
      if (sequence.generated() == 0 || sequence.pending() > 1) {
        prefill += sequence.share;
      }
      sequence.steps++;
      sequence.maxStepSequences = Math.max(sequence.maxStepSequences, sequences);
      sequence.maxStepAdapters = Math.max(sequence.maxStepAdapters, adapters);
    }
    try (Step step = backend.step(batch)) {
      decoder.forward(step);
      for (int i = 0; i < sequences; i++) {
        if (plan.get(i).pooled != null) {
          pool(plan.get(i), batch.runs().get(i));
        }
        plan.get(i).computed += plan.get(i).share;
        plan.get(i).index(pool);
      }
      for (int from = 0; from < batch.outputs(); from += options.maxLogitRows()) {
        int to = Math.min(from + options.maxLogitRows(), batch.outputs());
        draw(step, from, to);
      }
      for (int i = 0; i < sequences; i++) {
        Sequence sequence = plan.get(i);
        if (!sequence.ended && sequence.task.maxTokens() == 0 && sequence.pending() == 0) {
          complete(sequence);
        }
      }
    } catch (DeviceLostException e) {
      failStep(plan, e);
      throw e;
    } catch (Throwable e) {
      failStep(plan, e);
    }
    long end = System.nanoTime();
    stepBegan = 0;
    meters.step(sequences, adapters, prefill, batch.size(), end - start);
    if (prefill >= WORTH_MEASURING && 2 * prefill >= batch.size()) {
      promptRate.measure(prefill, end - start);
    } else if (prefill == 0) {
      stepRate.measure(1, end - start);
    }
    log.add(
        sequences,
        adapters,
        prefill,
        batch.size() - prefill,
        end - start,
        lastEnd == 0 ? 0 : start - lastEnd);
    lastEnd = end;
  }

  /** Tells those that are in a step for the first time; leaves out whose listener throws. */
  private void admit(List<Sequence> plan, long now) {
    for (int i = 0; i < plan.size(); i++) {
      Sequence sequence = plan.get(i);
      if (!sequence.admitted) {
        sequence.admitted = true;
        sequence.admittedAt = now;
        try {
          sequence.listener.admitted();
        } catch (Throwable e) {
          fail(sequence, e);
          plan.remove(i--);
        }
      }
    }
  }

  /** Lays the plan's tokens side by side, and notes which rows' logits are wanted. */
  private void fill(List<Sequence> plan) {
    batch.clear();
    for (int i = 0; i < plan.size(); i++) {
      Sequence sequence = plan.get(i);
      int first = batch.size() - sequence.computed;
      int end = sequence.computed + sequence.share;
      batch.add(
          sequence.tokens, sequence.computed, sequence.share, sequence.blocks, sequence.mix());
      for (int position = sequence.computed; position < end; position++) {
        if (wanted(sequence, position)) {
          want(sequence, first + position, position);
        }
      }
    }
  }

  /** Keeps what a sequence wants of a run's hidden states. */
  private void pool(Sequence sequence, Batch.Run run) {
    Pooled pooled = Objects.requireNonNull(sequence.pooled);
    int from = pooled.from(run.position());
    int end = run.position() + run.to() - run.from();
    if (from < end) {
      int row = run.from() + from - run.position();
      pooled.add(decoder.hidden(row, end - from), decoder.hiddenSize());
    }
  }

  /** Ends a sequence that only wanted its prompt computed. */
  private void complete(Sequence sequence) {
    if (sequence.pooled != null) {
      float[] vector = sequence.pooled.vector();
      for (float value : vector) {
        if (!Float.isFinite(value)) {
          end(
              sequence,
              Finish.Reason.FAILED,
              new EngineException(
                  EngineException.Reason.STEP,
                  "the model with these adapters gives no numbers for this text, but " + value));
          return;
        }
      }
      try {
        sequence.listener.pooled(vector);
      } catch (Throwable e) {
        fail(sequence, e);
        return;
      }
    }
    end(sequence, Finish.Reason.LENGTH, null);
  }

  /** Whether the logits at a position are wanted: to score the token after it, or to draw it. */
  private static boolean wanted(Sequence sequence, int position) {
    int next = position + 1;
    return next == sequence.length
        ? sequence.task.maxTokens() > 0
        : sequence.task.echo() && next >= sequence.scored && next < sequence.promptLength;
  }

  private void want(Sequence sequence, int row, int position) {
    int output = batch.outputs();
    if (output == outputPositions.length) {
      outputSequences = Arrays.copyOf(outputSequences, 2 * output);
      outputPositions = Arrays.copyOf(outputPositions, 2 * output);
    }
    outputSequences[output] = sequence;
    outputPositions[output] = position;
    batch.want(row);
  }

  /** Draws and scores the outputs {@code from} to {@code to}, and hands them out. */
  private void draw(Step step, int from, int to) {
    Buffer logits = decoder.logits(step, from, to);
    draws.clear();
    drawn.clear();
    for (int i = from; i < to; i++) {
      if (!outputSequences[i].ended) {
        draws.add(outputSequences[i].draw(i - from, outputPositions[i] + 1));
        drawn.add(outputSequences[i]);
      }
    }
    boolean sampled = draws.isEmpty();
    while (!sampled) {
      try {
        backend.sample(step, logits, draws);
        sampled = true;
      } catch (NotFiniteException e) {
        failDraws(e);
        sampled = draws.isEmpty();
      }
    }
    deliver();
  }

  /** Ends the sequences that nothing can be drawn for; the others' draws are left. */
  private void failDraws(NotFiniteException e) {
    if (e.draws().length == 0) {
      throw e;
    }
    for (int failed : e.draws()) {
      Sequence sequence = drawn.get(failed);
      if (!sequence.ended) {
        end(
            sequence,
            Finish.Reason.FAILED,
            new EngineException(
                EngineException.Reason.STEP,
                "%s: there are no numbers to choose a token by: %s"
                    .formatted(names(sequence.task.adapters()), e.getMessage()),
                e));
      }
    }
    for (int i = drawn.size() - 1; i >= 0; i--) {
      if (drawn.get(i).ended) {
        drawn.remove(i);
        draws.remove(i);
      }
    }
  }

  /** Hands outcomes to the sequences they belong to, a sequence's scores at once. */
  private void deliver() {
    for (int i = 0; i < draws.size(); ) {
      Sequence sequence = drawn.get(i);
      int first = i;
      while (i < draws.size() && drawn.get(i) == sequence && draws.get(i).score() >= 0) {
        i++;
      }
      if (sequence.ended) {
        i = Math.max(i, first + 1);
      } else if (i > first) {
        score(sequence, draws.subList(first, i).stream().map(Draw::outcome).toList());
      } else {
        accept(sequence, draws.get(i++).outcome());
      }
    }
  }

  private void score(Sequence sequence, List<Draw.Outcome> scores) {
    sequence.scored += scores.size();
    try {
      sequence.listener.promptScored(scores);
    } catch (Throwable e) {
      fail(sequence, e);
    }
  }

  private void accept(Sequence sequence, Draw.Outcome outcome) {
    GenerationTask task = sequence.task;
    sequence.append(outcome.token());
    scheduler.served(sequence);
    long now = System.nanoTime();
    meters.token(sequence.tokenAt == 0 ? 0 : now - sequence.tokenAt);
    sequence.tokenAt = now;
    if (sequence.generated() == 1) {
      sequence.firstTokenAt = now;
    }
    boolean eos = sequence.endsAsEos(outcome.token());
    boolean last = eos || sequence.endsAsStop(outcome.token());
    boolean more;
    boolean whole;
    try {
      more = sequence.listener.token(outcome, last);
      whole = !last && more && sequence.completes(outcome.token());
    } catch (Throwable e) {
      fail(sequence, e);
      return;
    }
    if (eos) {
      end(sequence, Finish.Reason.EOS, null);
    } else if (last || !more || whole) {
      end(sequence, Finish.Reason.STOP, null);
    } else if (sequence.generated() == task.maxTokens()) {
      end(sequence, Finish.Reason.LENGTH, null);
    }
  }

  /** Ends a sequence whose listener threw. */
  private void fail(Sequence sequence, Throwable cause) {
    LOG.warn("request {}: its listener failed", sequence.task.id(), cause);
    end(
        sequence,
        Finish.Reason.FAILED,
        new EngineException(
            EngineException.Reason.LISTENER, "delivering the answer failed: " + cause, cause));
  }

  private void failStep(List<Sequence> plan, Throwable cause) {
    LOG.error("a step of {} sequences failed", plan.size(), cause);
    EngineException failure =
        new EngineException(
            EngineException.Reason.STEP,
            "computing a step failed: %s; the request may be tried again".formatted(cause),
            cause);
    for (Sequence sequence : List.copyOf(plan)) {
      if (!sequence.ended) {
        end(sequence, Finish.Reason.FAILED, failure);
      }
    }
  }

  /** Gives back all that the sequence holds, then tells its listener. Once for each sequence. */
  private void end(Sequence sequence, Finish.Reason reason, @Nullable EngineException failure) {
    sequence.ended = true;
    long now = System.nanoTime();
    long begun = sequence.admitted ? sequence.admittedAt : now;
    long swapIn = sequence.swapInNanos(begun);
    scheduler.remove(sequence);
    deadlines.remove(sequence);
    leave(sequence);
    try {
      sequence.listener.finished(
          new Finish(
              reason,
              failure,
              sequence.promptLength,
              sequence.cached,
              sequence.generated(),
              begun - sequence.submitted - swapIn,
              swapIn,
              sequence.firstTokenAt == 0 ? 0 : sequence.firstTokenAt - sequence.submitted,
              now - sequence.submitted,
              sequence.steps,
              sequence.maxStepSequences,
              sequence.maxStepAdapters,
              sequence.preemptions));
    } catch (Throwable e) {
      LOG.warn("request {}: its listener failed at the end", sequence.task.id(), e);
    }
    // Last: who drains the engine may close what the listener writes to.
    synchronized (inbox) {
      ended++;
      departures.end(now);
      inbox.notifyAll();
    }
  }

  private void leave(Sequence sequence) {
    EffectiveAdapter adapter = sequence.adapter;
    if (adapter != null && --adapter.sequences == 0) {
      adapters.remove(adapter.identity);
      for (int i = 0; i < adapter.size(); i++) {
        residency.forgo(adapter.residence(i));
      }
    }
    if (!sequence.siblings.ended()) {
      return;
    }
    for (AdapterPart part : sequence.task.adapters()) {
      try {
        part.lease().close();
      } catch (Throwable e) {
        LOG.error("request {}: closing its lease failed", sequence.task.id(), e);
      }
    }
  }

  /** After a failure of the loop itself: ends everything, and takes nothing more. */
  private void abandon(Throwable cause) {
    failed = true;
    synchronized (inbox) {
      draining = true;
    }
    receive();
    List<Sequence> all = new ArrayList<>(scheduler.admitted());
    all.addAll(scheduler.waiting());
    failStep(all, cause);
    publish();
  }

  private void publish() {
    int ready = 0;
    for (int i = 0; i < scheduler.admitted().size(); i++) {
      ready += scheduler.admitted().get(i).ready ? 1 : 0;
    }
    synchronized (inbox) {
      steps = log.steps();
      running = ready;
      paused = scheduler.admitted().size() - ready;
      queued = scheduler.waiting().size() + inbox.size();
      touchedBlocks = pool.touched();
      lentBlocks = pool.lent();
      freeBlocks = pool.available();
      publishedSubmitted = submitted;
      publishedEnded = ended;
      preemptions = scheduler.preemptions();
      cachedBlocks = pool.cached();
      prefixLookups = scheduler.lookedUp();
      prefixHits = scheduler.found();
      prefixEvictions = pool.evictions();
      adapterLoads = residency.loaded();
      adapterEvictions = residency.evictions();
    }
  }
}
