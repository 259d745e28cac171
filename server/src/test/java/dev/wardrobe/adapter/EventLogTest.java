package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.RegistryEvent.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Revisions without gaps, and readers that cost nobody anything. */
@Timeout(60)
final class EventLogTest {
  private static final Runnable NOBODY = () -> {};

  private static List<Long> read(EventLog.Watch watch) throws AdapterException {
    List<Long> revisions = new ArrayList<>();
    for (RegistryEvent event = watch.next(); event != null; event = watch.next()) {
      revisions.add(event.revision());
    }
    return revisions;
  }

  private static void assertOutdated(EventLog log, long after) {
    assertThatThrownBy(() -> log.watch(OptionalLong.of(after), NOBODY).close())
        .isInstanceOfSatisfying(
            AdapterException.class,
            e -> {
              assertThat(e.reason()).isEqualTo(Reason.OUTDATED);
              assertThat(e).hasMessageContaining("list the adapters again");
              assertThat(e).hasMessageContaining(String.valueOf(after));
            });
  }

  @Test
  void watch_fromARevision_getsWhatCameAfter() throws Exception {
    EventLog log = new EventLog(100, 8);
    assertThat(log.revision()).isEqualTo(100);
    for (int i = 0; i < 5; i++) {
      assertThat(log.append(Kind.READY, "a" + i, "d").revision()).isEqualTo(101 + i);
    }
    try (EventLog.Watch watch = log.watch(OptionalLong.of(102), NOBODY)) {
      assertThat(watch.revision()).isEqualTo(102);
      assertThat(watch.next())
          .satisfies(
              event -> {
                assertThat(event.name()).isEqualTo("a2");
                assertThat(event.kind()).isEqualTo(Kind.READY);
              });
      assertThat(read(watch)).containsExactly(104L, 105L);
      assertThat(watch.revision()).isEqualTo(105);
    }
    try (EventLog.Watch all = log.watch(OptionalLong.of(100), NOBODY);
        EventLog.Watch none = log.watch(OptionalLong.empty(), NOBODY)) {
      assertThat(read(all)).containsExactly(101L, 102L, 103L, 104L, 105L);
      assertThat(read(none)).isEmpty();
    }
  }

  @Test
  void watch_ofWhatIsNotKept_isRefused() throws Exception {
    EventLog log = new EventLog(10, 4);
    assertOutdated(log, 9);
    assertOutdated(log, 11);
    for (int i = 0; i < 6; i++) {
      log.append(Kind.READY, "a", "d");
    }
    assertOutdated(log, 11);
    assertOutdated(log, 17);
    assertOutdated(log, 0);
    try (EventLog.Watch watch = log.watch(OptionalLong.of(12), NOBODY)) {
      assertThat(read(watch)).containsExactly(13L, 14L, 15L, 16L);
    }
  }

  @Test
  void reader_withinTheBound_losesNothing_beyondItIsTold() throws Exception {
    EventLog log = new EventLog(0, 4);
    try (EventLog.Watch watch = log.watch(OptionalLong.of(0), NOBODY)) {
      for (int i = 0; i < 4; i++) {
        log.append(Kind.READY, "a", "d");
      }
      assertThat(watch.next()).isNotNull();
      log.append(Kind.READY, "a", "d");
      assertThat(read(watch)).containsExactly(2L, 3L, 4L, 5L);
      for (int i = 0; i < 5; i++) {
        log.append(Kind.READY, "a", "d");
      }
      assertThatThrownBy(watch::next)
          .isInstanceOfSatisfying(
              AdapterException.class, e -> assertThat(e.reason()).isEqualTo(Reason.OUTDATED));
    }
  }

  @Test
  void wake_comesOnceForEachWait() throws Exception {
    EventLog log = new EventLog(0, 16);
    AtomicInteger woken = new AtomicInteger();
    try (EventLog.Watch watch = log.watch(OptionalLong.empty(), woken::incrementAndGet)) {
      log.append(Kind.READY, "a", "d");
      assertThat(woken).as("not asked for yet").hasValue(0);
      assertThat(read(watch)).hasSize(1);
      log.append(Kind.READY, "a", "d");
      log.append(Kind.READY, "a", "d");
      assertThat(woken).hasValue(1);
      assertThat(read(watch)).hasSize(2);
      log.append(Kind.READY, "a", "d");
      assertThat(woken).hasValue(2);
    }
    log.append(Kind.READY, "a", "d");
    assertThat(woken).hasValue(2);
  }

  @Test
  void readersAndWriters_atOnce_seeTheSameOrderWithoutGaps() throws Exception {
    int writers = 4;
    int each = 5_000;
    EventLog log = new EventLog(7, writers * each);
    CountDownLatch begin = new CountDownLatch(1);
    try (ExecutorService threads = Executors.newCachedThreadPool()) {
      List<Future<List<RegistryEvent>>> readers = new ArrayList<>();
      for (int reader = 0; reader < 4; reader++) {
        readers.add(
            threads.submit(
                () -> {
                  Semaphore woken = new Semaphore(0);
                  List<RegistryEvent> seen = new ArrayList<>();
                  try (EventLog.Watch watch = log.watch(OptionalLong.of(7), woken::release)) {
                    begin.await();
                    while (seen.size() < writers * each) {
                      RegistryEvent event = watch.next();
                      if (event == null) {
                        woken.acquire();
                      } else {
                        seen.add(event);
                      }
                    }
                  }
                  return seen;
                }));
      }
      for (int writer = 0; writer < writers; writer++) {
        String name = "w" + writer;
        threads.submit(
            () -> {
              begin.await();
              for (int i = 0; i < each; i++) {
                log.append(Kind.READY, name, String.valueOf(i));
              }
              return null;
            });
      }
      begin.countDown();
      List<RegistryEvent> first = readers.getFirst().get();
      for (int i = 0; i < first.size(); i++) {
        assertThat(first.get(i).revision()).isEqualTo(8 + i);
      }
      for (Future<List<RegistryEvent>> reader : readers) {
        assertThat(reader.get()).isEqualTo(first);
      }
      for (int writer = 0; writer < writers; writer++) {
        String name = "w" + writer;
        assertThat(first.stream().filter(event -> event.name().equals(name)))
            .extracting(event -> Integer.parseInt(event.digest()))
            .hasSize(each)
            .isSorted();
      }
      assertThat(log.all()).isEqualTo(first);
    }
  }
}
