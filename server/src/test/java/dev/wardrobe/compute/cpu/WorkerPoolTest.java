package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(60)
final class WorkerPoolTest {

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 8})
  void run_eachWorkerOnceARound(int threads) {
    try (WorkerPool pool = new WorkerPool(threads)) {
      AtomicIntegerArray rounds = new AtomicIntegerArray(threads);
      for (int round = 1; round <= 3_000; round++) {
        pool.run((worker, scratch) -> rounds.incrementAndGet(worker));
        for (int worker = 0; worker < threads; worker++) {
          assertThat(rounds.get(worker)).isEqualTo(round);
        }
        if (round % 500 == 0) {
          // Long enough for the workers to park.
          LockSupport.parkNanos(Duration.ofMillis(5).toNanos());
        }
      }
    }
  }

  @Test
  void run_failuresReachTheCaller() {
    try (WorkerPool pool = new WorkerPool(3)) {
      for (int failing = 0; failing < 3; failing++) {
        int which = failing;
        assertThatThrownBy(
                () ->
                    pool.run(
                        (worker, scratch) -> {
                          if (worker == which) {
                            throw new IllegalStateException("worker " + worker);
                          }
                        }))
            .isInstanceOf(IllegalStateException.class)
            .hasMessage("worker " + which);
      }
      assertThatThrownBy(
              () ->
                  pool.run(
                      (worker, scratch) -> {
                        throw new AssertionError("all");
                      }))
          .isInstanceOf(AssertionError.class)
          .satisfies(e -> assertThat(e.getSuppressed()).hasSize(2));
      int[] count = new int[3];
      pool.run((worker, scratch) -> count[worker]++);
      assertThat(count).containsExactly(1, 1, 1);
    }
  }

  @Test
  void run_slowWorkerIsWaitedFor() {
    try (WorkerPool pool = new WorkerPool(2)) {
      boolean[] done = new boolean[1];
      Thread.currentThread().interrupt();
      pool.run(
          (worker, scratch) -> {
            if (worker == 1) {
              LockSupport.parkNanos(Duration.ofMillis(50).toNanos());
              done[0] = true;
            }
          });
      assertThat(done[0]).isTrue();
      assertThat(Thread.interrupted()).isTrue();
    }
  }

  @Test
  void close_endsTheThreads() {
    WorkerPool pool = new WorkerPool(3);
    Thread[] threads = new Thread[3];
    pool.run((worker, scratch) -> threads[worker] = Thread.currentThread());
    assertThat(threads[0]).isSameAs(Thread.currentThread());
    assertThat(threads[1].getName()).isEqualTo("wardrobe-compute-1");
    assertThat(threads[1].isDaemon()).isTrue();
    pool.close();
    assertThat(threads[1].isAlive()).isFalse();
    assertThat(threads[2].isAlive()).isFalse();
    assertThatThrownBy(() -> pool.run((worker, scratch) -> {}))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> new WorkerPool(0)).isInstanceOf(IllegalArgumentException.class);
  }
}
