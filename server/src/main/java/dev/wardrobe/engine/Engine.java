package dev.wardrobe.engine;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.compute.Step;
import dev.wardrobe.model.Decoder;
import dev.wardrobe.model.Model;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
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

  private final Backend backend;
  private final EngineOptions options;
  private final KvCache cache;
  private final Decoder decoder;
  private final PagePool pool;
  private final Scheduler scheduler;
  private final int vocabulary;
  private final int context;
  private final StepLog log = new StepLog();
  private final Thread thread;

  // Guarded by inbox.
  private final ArrayDeque<Sequence> inbox = new ArrayDeque<>();
  private long submitted;
  private long ended;
  private int queued;
  private boolean draining;
  private boolean gone;

  /** Set with every wake-up, since what a listener does may use up the thread's permit. */
  private volatile boolean signalled;

  private volatile boolean cancelAll;
  private volatile boolean closing;
  private volatile EngineStats stats;
  private volatile boolean failed;

  // The engine thread's own.
  private final IdentityHashMap<Lora, AdapterUse> adapters = new IdentityHashMap<>();
  private final List<Draw> draws = new ArrayList<>();

  /** Whose the draws are. */
  private final List<Sequence> drawn = new ArrayList<>();

  private final List<Sequence> dying = new ArrayList<>();
  private Sequence[] outputSequences = new Sequence[64];
  private int[] outputRows = new int[64];
  private int[] outputPositions = new int[64];
  private int outputs;
  private int adapterNumbers;
  private long steps;

  /** When the last step ended; 0 after an idle time. */
  private long lastEnd;

  private static final class AdapterUse {
    final int number;
    int sequences;

    AdapterUse(int number) {
      this.number = number;
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
    KvShape shape = options.shape(model.config());
    vocabulary = model.config().vocabulary();
    context =
        (int)
            Math.min(model.config().contextLength(), (long) shape.blocks() * KvShape.BLOCK_TOKENS);
    pool = new PagePool(shape.blocks());
    scheduler = new Scheduler(options.maxSequences(), options.prefillTokens(), pool);
    cache = backend.kvCache(shape);
    try {
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
    stats = new EngineStats(0, 0, 0, 0, shape.blocks(), shape.blocks(), 0, 0, 0);
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
    return stats;
  }

  /** The kept steps with a number over {@code after}, in order; the latest 1024 are kept. */
  public List<StepRecord> recentSteps(long after) {
    return log.after(after);
  }

  /**
   * Puts a sequence into the queue. From here on its lease is the engine's to close; on an
   * exception it stays the caller's.
   *
   * @throws EngineException if it can never fit, the queue is full, or the engine is closing
   * @throws IllegalArgumentException if the prompt is empty or a token is outside the vocabulary
   */
  public Ticket submit(GenerationTask task, TokenListener listener) throws EngineException {
    check(task);
    Sequence sequence;
    synchronized (inbox) {
      if (draining || gone) {
        throw new EngineException(
            EngineException.Reason.CLOSED, "the server is shutting down; try another one");
      }
      if (queued >= options.maxWaiting()) {
        throw new EngineException(
            EngineException.Reason.FULL,
            "%d requests are waiting, at most %d may; try again later"
                .formatted(queued, options.maxWaiting()));
      }
      sequence = new Sequence(task, listener, submitted++, System.nanoTime());
      queued++;
      inbox.add(sequence);
    }
    wake();
    return new Ticket(this, sequence);
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
  }

  /**
   * Takes no more sequences, lets those that it has end, and cancels what is left after {@code
   * limit}. Waits for all of it.
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
      cancelAll = true;
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
        reap(now);
        List<Sequence> plan = scheduler.plan();
        if (plan.isEmpty()) {
          publish();
          lastEnd = 0;
          park(now);
        } else {
          step(plan);
          publish();
        }
      }
    } catch (Throwable e) {
      LOG.error("the step loop failed", e);
      abandon(e);
    }
  }

  private boolean idle() {
    synchronized (inbox) {
      return ended == submitted;
    }
  }

  /** Waits until somebody wakes the engine, or the next deadline passes. */
  private void park(long now) {
    long nearest = Long.MAX_VALUE;
    for (Sequence sequence : scheduler.waiting()) {
      nearest = Math.min(nearest, left(sequence, now));
    }
    for (Sequence sequence : scheduler.admitted()) {
      nearest = Math.min(nearest, left(sequence, now));
    }
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

  private static long left(Sequence sequence, long now) {
    long deadline = sequence.task.deadline();
    return deadline == GenerationTask.NO_DEADLINE ? Long.MAX_VALUE : deadline - now;
  }

  private void receive() {
    synchronized (inbox) {
      for (Sequence next = inbox.poll(); next != null; next = inbox.poll()) {
        if (next.lora != null) {
          AdapterUse use =
              adapters.computeIfAbsent(next.lora, l -> new AdapterUse(++adapterNumbers));
          use.sequences++;
          next.adapter = use.number;
        }
        scheduler.add(next);
      }
    }
  }

  /** Ends what was cancelled or is late; asks the others whether they are ready. */
  private void reap(long now) {
    look(scheduler.waiting(), now);
    look(scheduler.admitted(), now);
    for (Sequence sequence : dying) {
      if (!sequence.ended) {
        end(
            sequence,
            sequence.cancelled || cancelAll ? Finish.Reason.CANCELLED : Finish.Reason.DEADLINE,
            null);
      }
    }
    dying.clear();
  }

  private void look(List<Sequence> sequences, long now) {
    for (int i = sequences.size() - 1; i >= 0; i--) {
      Sequence sequence = sequences.get(i);
      if (cancelAll || sequence.cancelled || sequence.expired(now)) {
        dying.add(sequence);
        continue;
      }
      try {
        sequence.ready = sequence.listener.ready();
      } catch (Throwable e) {
        // Removes the sequence, at or after which nothing is left to look at.
        fail(sequence, e);
      }
    }
  }

  private void step(List<Sequence> plan) {
    long start = System.nanoTime();
    for (Sequence sequence : plan) {
      if (!sequence.admitted) {
        sequence.admitted = true;
        sequence.admittedAt = start;
        tell(sequence, s -> s.listener.admitted());
      }
    }
    plan.removeIf(s -> s.ended);
    if (plan.isEmpty()) {
      return;
    }
    int prefill = 0;
    for (Sequence sequence : plan) {
      if (sequence.generated() == 0 || sequence.pending() > 1) {
        prefill += sequence.share;
      }
    }
    Batch batch = batch(plan);
    for (Sequence sequence : plan) {
      sequence.steps++;
      sequence.maxStepSequences = Math.max(sequence.maxStepSequences, plan.size());
      sequence.maxStepAdapters = Math.max(sequence.maxStepAdapters, batch.segments().size());
    }
    int sequences = plan.size();
    try (Step step = backend.step(batch)) {
      decoder.forward(step);
      for (Sequence sequence : plan) {
        sequence.computed += sequence.share;
      }
      for (int from = 0; from < outputs; from += options.maxLogitRows()) {
        int to = Math.min(from + options.maxLogitRows(), outputs);
        draw(step, from, to);
      }
      for (Sequence sequence : plan) {
        if (!sequence.ended && sequence.task.maxTokens() == 0 && sequence.pending() == 0) {
          end(sequence, Finish.Reason.LENGTH, null);
        }
      }
    } catch (Throwable e) {
      failStep(plan, e);
    }
    long end = System.nanoTime();
    log.add(
        new StepRecord(
            ++steps,
            sequences,
            batch.segments().size(),
            prefill,
            batch.size() - prefill,
            end - start,
            lastEnd == 0 ? 0 : start - lastEnd));
    lastEnd = end;
  }

  /** Lays the plan's tokens side by side, and notes which rows' logits are wanted. */
  private Batch batch(List<Sequence> plan) {
    int size = 0;
    for (Sequence sequence : plan) {
      size += sequence.share;
    }
    int[] tokens = new int[size];
    List<Batch.Run> runs = new ArrayList<>(plan.size());
    List<Batch.Segment> segments = new ArrayList<>();
    outputs = 0;
    int row = 0;
    int segmentStart = 0;
    for (int i = 0; i < plan.size(); i++) {
      Sequence sequence = plan.get(i);
      System.arraycopy(sequence.tokens, sequence.computed, tokens, row, sequence.share);
      for (int p = sequence.computed; p < sequence.computed + sequence.share; p++) {
        if (wanted(sequence, p)) {
          addOutput(sequence, row + p - sequence.computed, p);
        }
      }
      int end = row + sequence.share;
      runs.add(new Batch.Run(row, end, sequence.computed, sequence.blocks));
      row = end;
      if (i + 1 == plan.size() || plan.get(i + 1).adapter != sequence.adapter) {
        segments.add(new Batch.Segment(segmentStart, row, sequence.lora));
        segmentStart = row;
      }
    }
    return new Batch(tokens, runs, segments, Arrays.copyOf(outputRows, outputs));
  }

  /** Whether the logits at a position are wanted: to score the token after it, or to draw it. */
  private static boolean wanted(Sequence sequence, int position) {
    int next = position + 1;
    return next == sequence.length
        ? sequence.task.maxTokens() > 0
        : sequence.task.echo() && next >= sequence.scored && next < sequence.promptLength;
  }

  private void addOutput(Sequence sequence, int row, int position) {
    if (outputs == outputRows.length) {
      outputSequences = Arrays.copyOf(outputSequences, 2 * outputs);
      outputRows = Arrays.copyOf(outputRows, 2 * outputs);
      outputPositions = Arrays.copyOf(outputPositions, 2 * outputs);
    }
    outputSequences[outputs] = sequence;
    outputRows[outputs] = row;
    outputPositions[outputs] = position;
    outputs++;
  }

  /** Draws and scores the outputs {@code from} to {@code to}, and hands them out. */
  private void draw(Step step, int from, int to) {
    Buffer logits = decoder.logits(step, from, to);
    draws.clear();
    drawn.clear();
    for (int i = from; i < to; i++) {
      if (!outputSequences[i].ended) {
        draws.add(draw(outputSequences[i], i - from, outputPositions[i] + 1));
        drawn.add(outputSequences[i]);
      }
    }
    List<Draw.Outcome> outcomes = draws.isEmpty() ? List.of() : null;
    while (outcomes == null) {
      try {
        outcomes = backend.sample(step, logits, draws);
      } catch (NotFiniteException e) {
        failDraws(e);
        outcomes = draws.isEmpty() ? List.of() : null;
      }
    }
    deliver(outcomes);
  }

  /** Ends the sequences that nothing can be drawn for; the others' draws are left. */
  private void failDraws(NotFiniteException e) {
    if (e.draws().length == 0) {
      throw e;
    }
    for (int failed : e.draws()) {
      Sequence sequence = drawn.get(failed);
      if (!sequence.ended) {
        Lease lease = sequence.task.lease();
        end(
            sequence,
            Finish.Reason.FAILED,
            new EngineException(
                EngineException.Reason.STEP,
                "the %s gives no numbers to choose a token by: %s"
                    .formatted(
                        lease == null ? "base" : "adapter '" + lease.name() + "'", e.getMessage()),
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

  private static Draw draw(Sequence sequence, int row, int position) {
    var sampling = sequence.task.sampling();
    return new Draw(
        row,
        position < sequence.length ? sequence.tokens[position] : -1,
        sampling.temperature(),
        sampling.topK(),
        sampling.topP(),
        sampling.minP(),
        sampling.repetition(),
        sampling.presence(),
        sampling.frequency(),
        sequence.tokens,
        sequence.promptLength,
        sequence.length,
        sampling.seed(),
        position,
        sequence.task.top());
  }

  /** Hands outcomes to the sequences they belong to, a sequence's scores at once. */
  private void deliver(List<Draw.Outcome> outcomes) {
    for (int i = 0; i < outcomes.size(); ) {
      Sequence sequence = drawn.get(i);
      int first = i;
      while (i < outcomes.size() && drawn.get(i) == sequence && draws.get(i).score() >= 0) {
        i++;
      }
      if (sequence.ended) {
        i = Math.max(i, first + 1);
      } else if (i > first) {
        List<Draw.Outcome> scores = List.copyOf(outcomes.subList(first, i));
        sequence.scored += scores.size();
        tell(sequence, s -> s.listener.promptScored(scores));
      } else {
        accept(sequence, outcomes.get(i++));
      }
    }
  }

  private void accept(Sequence sequence, Draw.Outcome outcome) {
    GenerationTask task = sequence.task;
    sequence.append(outcome.token());
    if (sequence.generated() == 1) {
      sequence.firstTokenAt = System.nanoTime();
    }
    boolean eos = task.eos().contains(outcome.token());
    boolean last = eos || task.stopTokens().contains(outcome.token());
    boolean more;
    try {
      more = sequence.listener.token(outcome, last);
    } catch (Throwable e) {
      fail(sequence, e);
      return;
    }
    if (eos) {
      end(sequence, Finish.Reason.EOS, null);
    } else if (last || !more) {
      end(sequence, Finish.Reason.STOP, null);
    } else if (sequence.generated() == task.maxTokens()) {
      end(sequence, Finish.Reason.LENGTH, null);
    }
  }

  private void tell(Sequence sequence, Consumer<Sequence> what) {
    try {
      what.accept(sequence);
    } catch (Throwable e) {
      fail(sequence, e);
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
    scheduler.remove(sequence);
    leave(sequence);
    try {
      sequence.listener.finished(
          new Finish(
              reason,
              failure,
              sequence.promptLength,
              sequence.generated(),
              (sequence.admitted ? sequence.admittedAt : now) - sequence.submitted,
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
      inbox.notifyAll();
    }
  }

  private void leave(Sequence sequence) {
    Lora lora = sequence.lora;
    AdapterUse use = lora == null ? null : adapters.get(lora);
    if (use != null && --use.sequences == 0) {
      adapters.remove(lora);
    }
    if (sequence.task.lease() != null) {
      try {
        sequence.task.lease().close();
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
    int running = 0;
    for (Sequence sequence : scheduler.admitted()) {
      running += sequence.ready ? 1 : 0;
    }
    synchronized (inbox) {
      queued = scheduler.waiting().size() + inbox.size();
      stats =
          new EngineStats(
              steps,
              running,
              scheduler.admitted().size() - running,
              queued,
              pool.blocks(),
              pool.available(),
              submitted,
              ended,
              scheduler.preemptions());
    }
  }
}
