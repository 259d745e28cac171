package dev.wardrobe.compute.cpu;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * Threads that share the work of one caller, who is one of them. Work is divided beforehand, by
 * number of threads alone; which thread runs which share never shows in a result.
 *
 * <p>A round belongs to the thread that calls {@link #run}; it allocates nothing.
 */
final class WorkerPool implements AutoCloseable {
  /*
   * Each thread has a range of shares of its own, takes them in order, and then takes what is left
   * of the others': alone on the machine all is as if the ranges were fixed, and a thread that has
   * lost its processor to a neighbour keeps nothing waiting but the share that it is in.
   *
   * A range is one number: the round, the next share, the end. Taking a share compares all three, so
   * that a thread which comes late to a round takes nothing of a later one.
   *
   * Who has nothing to do spins for a moment, since the next work usually comes within microseconds,
   * then parks: a thread that spins takes the processor from a neighbour, and when it waits for a
   * thread of its own that has none, from that one. By the clock, since the processor's pause takes
   * anything from 10 to 150 cycles.
   */

  /** A part of the work. */
  interface Work {
    void run(int share, Scratch scratch);
  }

  /** Most shares of a round. */
  static final int MOST_SHARES = (1 << 16) - 1;

  /** How long a thread spins; most pauses between a step's rounds are shorter. */
  private static final long SPIN_NANOS = 20_000;

  /** Turns between two looks at the clock. */
  private static final int TURNS = 16;

  /** Longs between two ranges, so that they lie in cache lines of their own. */
  private static final int APART = 16;

  private final int threads;
  private final Worker[] workers;
  private final Scratch scratch = new Scratch();
  private final AtomicLongArray ranges;

  /** Shares of the round that are not done. */
  private final AtomicInteger left = new AtomicInteger();

  private volatile int round;
  private volatile boolean closed;
  private volatile boolean awaited;
  private volatile @Nullable Work work;
  private volatile @Nullable Thread caller;
  private volatile @Nullable Throwable failure;

  WorkerPool(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("threads: expected at least 1, got " + threads);
    }
    this.threads = threads;
    ranges = new AtomicLongArray(threads * APART);
    workers = new Worker[threads - 1];
    for (int i = 0; i < workers.length; i++) {
      workers[i] = new Worker(i + 1);
    }
    for (Worker worker : workers) {
      worker.start();
    }
  }

  int threads() {
    return threads;
  }

  /** The caller's own scratch, for work that is not shared. */
  Scratch scratch() {
    return scratch;
  }

  /** Runs as many shares as there are threads, see {@link #run(int, Work)}. */
  void run(Work work) {
    run(threads, work);
  }

  /** Runs shares 0 to {@code shares} (exclusive) and waits for them; throws the first failure. */
  void run(int shares, Work work) {
    if (workers.length == 0) {
      for (int share = 0; share < shares; share++) {
        work.run(share, scratch);
      }
      return;
    }
    if (closed) {
      throw new IllegalStateException("the backend is closed");
    }
    if (shares > MOST_SHARES) {
      throw new IllegalArgumentException(
          "shares: expected at most %d, got %d".formatted(MOST_SHARES, shares));
    }
    int current = round + 1;
    this.work = work;
    caller = Thread.currentThread();
    left.set(shares);
    for (int i = 0; i < threads; i++) {
      int from = (int) ((long) shares * i / threads);
      int to = (int) ((long) shares * (i + 1) / threads);
      ranges.set(i * APART, range(current, from, to));
    }
    round = current;
    for (Worker worker : workers) {
      if (worker.parked) {
        LockSupport.unpark(worker);
      }
    }
    take(current, 0, scratch);
    await();
    this.work = null;
    Throwable thrown = failure;
    failure = null;
    if (thrown instanceof RuntimeException e) {
      throw e;
    }
    if (thrown instanceof Error e) {
      throw e;
    }
  }

  private static long range(int round, int from, int to) {
    return (long) round << 32 | (long) from << 16 | to;
  }

  /** Takes and runs shares of a round until none is left, a thread's own first. */
  private void take(int current, int thread, Scratch scratch) {
    int done = 0;
    for (int i = 0; i < threads; i++) {
      int at = (thread + i) % threads * APART;
      while (true) {
        long range = ranges.get(at);
        int next = (int) range >>> 16;
        if ((int) (range >>> 32) != current || next == (range & 0xffff)) {
          break;
        }
        if (ranges.compareAndSet(at, range, range + (1 << 16))) {
          run(next, scratch);
          done++;
        }
      }
    }
    // Only a thread that did something may count: for others the round may be over.
    if (done > 0 && left.addAndGet(-done) == 0 && awaited) {
      LockSupport.unpark(caller);
    }
  }

  private void run(int share, Scratch scratch) {
    try {
      Work shares = work;
      if (shares != null) {
        shares.run(share, scratch);
      }
    } catch (Throwable e) {
      fail(e);
    }
  }

  @SuppressWarnings("ReferenceEquality") // Nothing can be suppressed by itself.
  private synchronized void fail(Throwable e) {
    Throwable first = failure;
    if (first == null) {
      failure = e;
    } else if (first != e) {
      first.addSuppressed(e);
    }
  }

  /** Waits until all shares are done. */
  private void await() {
    long start = System.nanoTime();
    int turns = 0;
    boolean interrupted = false;
    while (left.get() != 0) {
      if (++turns % TURNS != 0 || System.nanoTime() - start < SPIN_NANOS) {
        Thread.onSpinWait();
      } else {
        awaited = true;
        if (left.get() != 0) {
          LockSupport.park(this);
        }
        awaited = false;
        interrupted |= Thread.interrupted();
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  @Override
  public void close() {
    closed = true;
    for (Worker worker : workers) {
      LockSupport.unpark(worker);
    }
    boolean interrupted = false;
    for (Worker worker : workers) {
      while (worker.isAlive()) {
        try {
          worker.join();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private final class Worker extends Thread {
    private final int number;
    private final Scratch own = new Scratch();
    private volatile boolean parked;

    Worker(int number) {
      super("wardrobe-compute-" + number);
      this.number = number;
      setDaemon(true);
    }

    @Override
    public void run() {
      int seen = 0;
      while (awaitRound(seen)) {
        seen = round;
        take(seen, number, own);
      }
    }

    /** Waits for a round after {@code seen}; false when there is none any more. */
    private boolean awaitRound(int seen) {
      long start = System.nanoTime();
      int turns = 0;
      while (round == seen) {
        if (closed) {
          return false;
        }
        if (++turns % TURNS != 0 || System.nanoTime() - start < SPIN_NANOS) {
          Thread.onSpinWait();
        } else {
          parked = true;
          if (round == seen && !closed) {
            LockSupport.park(WorkerPool.this);
          }
          parked = false;
        }
      }
      return true;
    }
  }
}
