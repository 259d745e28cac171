package dev.wardrobe.model;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Several threads that do one thing together: the caller's, and others while it lasts. */
final class Workers {
  private static final int MOST = 8;

  private Workers() {}

  /** A share of the work; it takes its parts from a counter that all share. */
  @FunctionalInterface
  interface Work {
    void run() throws IOException;
  }

  /**
   * Runs {@code work} on as many threads as there are processors and parts, and waits.
   *
   * @throws IOException if one of them failed, the first one's
   */
  static void run(int parts, Work work) throws IOException {
    int threads = Math.min(parts, Math.min(MOST, Runtime.getRuntime().availableProcessors()));
    @Nullable Throwable[] failures = new Throwable[Math.max(1, threads)];
    List<Thread> others = new ArrayList<>();
    for (int i = 1; i < threads; i++) {
      int number = i;
      Thread thread = new Thread(() -> failures[number] = failure(work), "wardrobe-loading-" + i);
      thread.setDaemon(true);
      thread.start();
      others.add(thread);
    }
    failures[0] = failure(work);
    boolean interrupted = false;
    for (Thread thread : others) {
      while (thread.isAlive()) {
        try {
          thread.join();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    for (Throwable failure : failures) {
      switch (failure) {
        case null -> {}
        case IOException e -> throw e;
        case RuntimeException e -> throw e;
        case Error e -> throw e;
        default -> throw new AssertionError(failure);
      }
    }
  }

  private static @Nullable Throwable failure(Work work) {
    try {
      work.run();
      return null;
    } catch (IOException | RuntimeException | Error e) {
      return e;
    }
  }
}
