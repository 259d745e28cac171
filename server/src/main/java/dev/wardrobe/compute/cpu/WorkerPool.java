package dev.wardrobe.compute.cpu;

import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * Threads that share the work of one caller, who is worker 0. Work is divided beforehand, by number
 * of workers alone; which worker does what never shows in a result.
 *
 * <p>Idle workers spin for a moment, because the next piece of work usually follows within
 * microseconds, then park: a spinning thread beside a busy neighbour costs more than a wake-up.
 */
final class WorkerPool implements AutoCloseable {
  /** A worker's share. */
  interface Work {
    void run(int worker, Scratch scratch);
  }

  private static final int SPINS = 2_000;

  private final Worker[] workers;
  private final Scratch scratch = new Scratch();
  private volatile int round;
  private volatile boolean closed;
  private volatile @Nullable Work work;
  private volatile @Nullable Thread caller;

  WorkerPool(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("threads: expected at least 1, got " + threads);
    }
    workers = new Worker[threads - 1];
    for (int i = 0; i < workers.length; i++) {
      workers[i] = new Worker(i + 1);
    }
    for (Worker worker : workers) {
      worker.start();
    }
  }

  int threads() {
    return workers.length + 1;
  }

  /** Runs all shares and waits for them; the first failure is thrown here. */
  void run(Work shares) {
    if (workers.length == 0) {
      shares.run(0, scratch);
      return;
    }
    if (closed) {
      throw new IllegalStateException("the backend is closed");
    }
    work = shares;
    caller = Thread.currentThread();
    int current = round + 1;
    round = current;
    for (Worker worker : workers) {
      if (worker.parked) {
        LockSupport.unpark(worker);
      }
    }
    Throwable failure = null;
    try {
      shares.run(0, scratch);
    } catch (RuntimeException | Error e) {
      failure = e;
    }
    for (Worker worker : workers) {
      await(worker, current);
      Throwable theirs = worker.failure;
      if (theirs != null) {
        worker.failure = null;
        if (failure == null) {
          failure = theirs;
        } else {
          failure.addSuppressed(theirs);
        }
      }
    }
    work = null;
    if (failure instanceof RuntimeException e) {
      throw e;
    }
    if (failure instanceof Error e) {
      throw e;
    }
  }

  /** The caller's own scratch, for work that is not shared. */
  Scratch scratch() {
    return scratch;
  }

  private void await(Worker worker, int current) {
    int spins = 0;
    boolean interrupted = false;
    while (worker.done != current) {
      if (spins < SPINS) {
        spins++;
        Thread.onSpinWait();
      } else {
        worker.awaited = true;
        if (worker.done != current) {
          LockSupport.park(this);
        }
        worker.awaited = false;
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
    private volatile int done;
    private volatile boolean parked;
    private volatile boolean awaited;
    private volatile @Nullable Throwable failure;

    Worker(int number) {
      super("wardrobe-compute-" + number);
      this.number = number;
      setDaemon(true);
    }

    @Override
    public void run() {
      int seen = 0;
      while (true) {
        int current = next(seen);
        if (current == seen) {
          return;
        }
        seen = current;
        try {
          Work shares = work;
          if (shares != null) {
            shares.run(number, own);
          }
        } catch (Throwable e) {
          failure = e;
        }
        done = seen;
        if (awaited) {
          LockSupport.unpark(caller);
        }
      }
    }

    /** The next round, or {@code seen} when there is none any more. */
    private int next(int seen) {
      int spins = 0;
      while (round == seen) {
        if (closed) {
          return seen;
        }
        if (spins < SPINS) {
          spins++;
          Thread.onSpinWait();
        } else {
          parked = true;
          if (round == seen && !closed) {
            LockSupport.park(WorkerPool.this);
          }
          parked = false;
        }
      }
      return round;
    }
  }
}
