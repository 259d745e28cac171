package dev.wardrobe.serve;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.adapter.ShadowCopy;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.engine.AdapterPart;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineException;
import dev.wardrobe.engine.EngineStats;
import dev.wardrobe.engine.Finish;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.Ticket;
import dev.wardrobe.engine.TokenListener;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Answered requests, asked once more of the candidates that shadow their aliases.
 *
 * <p>A copy begins when the real answer is complete, and only while the engine has room to spare:
 * no sequence waits, and no more than half of the places and of the blocks are in use. It is ended
 * as soon as somebody has to wait. Few run at a time, few wait, and none for long; the rest are
 * dropped. So a real request is never refused for a copy's sake, nor waits for one longer than a
 * step.
 */
final class Shadows {
  private static final Logger log = LoggerFactory.getLogger(Shadows.class);

  /** Copies are charged to nobody who waits for an answer. */
  private static final String TENANT = "wardrobe:shadow";

  private static final int RUNNING = 2;
  private static final int WAITING = 64;

  /** Longest prompt and answer together: what waits stays in memory. */
  private static final int MOST_TOKENS = 1 << 16;

  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(10);
  private static final long LOOK_MILLIS = 5;

  private final AdapterRegistry adapters;
  private final Engine engine;
  private final ThreadPoolExecutor threads;

  /** Copies that the engine has taken, and that have no place in the batch yet. */
  private final AtomicInteger unplaced = new AtomicInteger();

  Shadows(AdapterRegistry adapters, Engine engine) {
    this.adapters = adapters;
    this.engine = engine;
    this.threads =
        new ThreadPoolExecutor(
            RUNNING,
            RUNNING,
            1,
            TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(WAITING),
            Thread.ofPlatform().daemon().name("wardrobe-shadow-", 0).factory());
    threads.allowCoreThreadTimeOut(true);
  }

  /** The copy of a request that has a place in the batch, or null where there is to be none. */
  @Nullable Tap tap(List<AdapterPart> parts, Plan plan) {
    // Of a mixture, or of several answers, there is no one answer to compare with.
    if (parts.size() != 1 || plan.choices() != 1) {
      return null;
    }
    ShadowCopy copy = parts.getFirst().lease().takeCopy();
    return copy == null ? null : new Tap(copy, plan, parts.getFirst().scale());
  }

  /** Listens to a real answer, for its copy. Belongs to the engine's thread. */
  final class Tap {
    private final ShadowCopy copy;
    private final Plan plan;
    private final float scale;
    private int[] tokens = new int[16];
    private int count;

    private Tap(ShadowCopy copy, Plan plan, float scale) {
      this.copy = copy;
      this.plan = plan;
      this.scale = scale;
    }

    void token(int token) {
      if (count == tokens.length) {
        tokens = Arrays.copyOf(tokens, 2 * count);
      }
      tokens[count++] = token;
    }

    /** Hands the copy over, if there is something to compare it with. */
    void finished(Finish finish) {
      boolean complete =
          switch (finish.reason()) {
            case STOP, LENGTH, EOS -> true;
            case CANCELLED, DEADLINE, FAILED -> false;
          };
      if (!complete || count == 0 || (long) plan.prompt().length + count > MOST_TOKENS) {
        copy.dropped();
        return;
      }
      ShadowCopy.Answer real =
          new ShadowCopy.Answer(
              Arrays.copyOf(tokens, count), finish.firstTokenNanos(), finish.totalNanos());
      try {
        threads.execute(() -> ask(copy, plan, scale, real));
      } catch (RejectedExecutionException e) {
        copy.dropped();
      }
    }
  }

  private void ask(ShadowCopy copy, Plan plan, float scale, ShadowCopy.Answer real) {
    try {
      long latest = System.nanoTime() + PATIENCE;
      while (!hasRoom()) {
        if (!copy.wanted() || System.nanoTime() > latest) {
          copy.dropped();
          return;
        }
        Thread.sleep(LOOK_MILLIS);
      }
      if (!copy.wanted()) {
        copy.dropped();
        return;
      }
      run(copy, plan, scale, real);
    } catch (EngineException e) {
      // The queue is full, or the server stops.
      copy.dropped();
    } catch (ExecutionException | TimeoutException | RuntimeException e) {
      log.warn("a copy for '{}' failed: {}", copy.candidate(), String.valueOf(e.getMessage()));
      copy.failed();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      copy.dropped();
    }
  }

  private boolean hasRoom() {
    EngineStats stats = engine.stats();
    return stats.waiting() <= unplaced.get()
        && 2 * (stats.running() + stats.paused()) <= engine.options().maxSequences()
        && 2L * (stats.blocks() - stats.freeBlocks() - stats.lentBlocks()) <= stats.blocks();
  }

  private void run(ShadowCopy copy, Plan plan, float scale, ShadowCopy.Answer real)
      throws EngineException, ExecutionException, TimeoutException, InterruptedException {
    CompletableFuture<Lease> leasing = adapters.lease(copy.candidate());
    Lease lease;
    try {
      lease = leasing.get(PATIENCE, TimeUnit.NANOSECONDS);
    } finally {
      // What comes later closes itself.
      leasing.cancel(false);
    }
    Candidate candidate = new Candidate(real.tokens().length);
    Ticket ticket;
    unplaced.incrementAndGet();
    try {
      ticket = engine.submit(candidate.task(plan, new AdapterPart(lease, scale)), candidate);
    } catch (EngineException | RuntimeException e) {
      unplaced.decrementAndGet();
      lease.close();
      throw e;
    }
    while (!candidate.ended.isDone()) {
      if (engine.stats().waiting() > unplaced.get() || !copy.wanted()) {
        ticket.cancel();
      }
      candidate.await();
    }
    Finish finish = candidate.ended.join();
    switch (finish.reason()) {
      case STOP, LENGTH, EOS -> copy.completed(real, candidate.answer(finish));
      case CANCELLED, DEADLINE -> copy.dropped();
      case FAILED -> copy.failed();
    }
  }

  /** A candidate's answer, of which only the tokens are kept. */
  private final class Candidate implements TokenListener {
    private final int[] tokens;
    private final CompletableFuture<Finish> ended = new CompletableFuture<>();
    private int count;
    private boolean placed;

    Candidate(int most) {
      tokens = new int[most];
    }

    /** As many tokens as the real answer has: more there would be nothing to compare with. */
    GenerationTask task(Plan plan, AdapterPart part) {
      return new GenerationTask(
          plan.id(),
          TENANT,
          plan.prompt(),
          List.of(part),
          plan.sampling(),
          tokens.length,
          plan.eos(),
          plan.stopTokens(),
          0,
          false,
          GenerationTask.NO_DEADLINE,
          plan.grammar());
    }

    /** Until the end, or the next look at whether anybody waits. */
    void await() throws InterruptedException, ExecutionException {
      try {
        Finish _ = ended.get(LOOK_MILLIS, TimeUnit.MILLISECONDS);
      } catch (TimeoutException e) {
        // It goes on.
      }
    }

    ShadowCopy.Answer answer(Finish finish) {
      return new ShadowCopy.Answer(
          Arrays.copyOf(tokens, count), finish.firstTokenNanos(), finish.totalNanos());
    }

    @Override
    public boolean ready() {
      return true;
    }

    @Override
    public void admitted() {
      place();
    }

    private void place() {
      if (!placed) {
        placed = true;
        unplaced.decrementAndGet();
      }
    }

    @Override
    public void promptScored(List<Draw.Outcome> scores) {}

    @Override
    public boolean token(Draw.Outcome outcome, boolean last) {
      tokens[count++] = outcome.token();
      return count < tokens.length;
    }

    @Override
    public void finished(Finish finish) {
      place();
      ended.complete(finish);
    }
  }
}
