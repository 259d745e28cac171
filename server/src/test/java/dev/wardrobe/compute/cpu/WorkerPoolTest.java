package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Timeout(60)
final class WorkerPoolTest {

  @ParameterizedTest
  @CsvSource({"1, 1", "1, 5", "2, 2", "2, 1", "2, 9", "3, 3", "3, 2", "3, 70", "8, 8", "8, 33"})
  void run_eachShareOnceARound(int threads, int shares) {
    try (WorkerPool pool = new WorkerPool(threads)) {
      AtomicIntegerArray rounds = new AtomicIntegerArray(shares);
      for (int round = 1; round <= 3_000; round++) {
        pool.run(shares, (share, scratch) -> rounds.incrementAndGet(share));
        for (int share = 0; share < shares; share++) {
          assertThat(rounds.get(share)).isEqualTo(round);
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
      pool.run((share, scratch) -> count[share]++);
      assertThat(count).containsExactly(1, 1, 1);
    }
  }

  /** One thread's shares are others' when it is kept from them. */
  @Test
  void run_sharesOfASlowThreadAreTaken() {
    try (WorkerPool pool = new WorkerPool(2)) {
      AtomicInteger others = new AtomicInteger();
      pool.run(
          8,
          (share, scratch) -> {
            if (share == 0) {
              // Whoever has it goes on when all others are done, so by the other thread.
              await().until(() -> others.get() == 7);
            } else {
              others.incrementAndGet();
            }
          });
      assertThat(others).hasValue(7);
    }
  }

  @Test
  void run_scratchIsTheThreadsOwn() {
    try (WorkerPool pool = new WorkerPool(3)) {
      Map<Scratch, Thread> owners = new ConcurrentHashMap<>();
      for (int round = 0; round < 200; round++) {
        pool.run(
            12,
            (share, scratch) -> {
              Thread owner = owners.putIfAbsent(scratch, Thread.currentThread());
              assertThat(owner).isIn(null, Thread.currentThread());
            });
      }
      assertThat(owners).containsEntry(pool.scratch(), Thread.currentThread());
    }
  }

  @Test
  void run_tooManyShares() {
    try (WorkerPool pool = new WorkerPool(2)) {
      int most = WorkerPool.MOST_SHARES;
      AtomicInteger count = new AtomicInteger();
      pool.run(most, (share, scratch) -> count.incrementAndGet());
      assertThat(count).hasValue(most);
      assertThatThrownBy(() -> pool.run(most + 1, (share, scratch) -> {}))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("65535");
    }
  }

  @Test
  void run_slowWorkerIsWaitedFor() {
    try (WorkerPool pool = new WorkerPool(2)) {
      boolean[] done = new boolean[1];
      CyclicBarrier bothBegan = new CyclicBarrier(2);
      pool.run(
          (share, scratch) -> {
            meet(bothBegan);
            if (!Thread.currentThread().getName().startsWith("wardrobe-compute-")) {
              Thread.currentThread().interrupt();
            } else {
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
    CyclicBarrier allBegan = new CyclicBarrier(3);
    pool.run(
        (share, scratch) -> {
          meet(allBegan);
          String name = Thread.currentThread().getName();
          int number = name.startsWith("wardrobe") ? name.charAt(name.length() - 1) - '0' : 0;
          threads[number] = Thread.currentThread();
        });
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

  /** Has each share run by a thread of its own. */
  private static void meet(CyclicBarrier all) {
    try {
      all.await();
    } catch (InterruptedException | BrokenBarrierException e) {
      throw new AssertionError(e);
    }
  }
}
