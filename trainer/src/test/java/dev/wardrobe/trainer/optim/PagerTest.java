package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class PagerTest {
  private static final int SIZE = 4096;

  @ParameterizedTest
  @CsvSource({
    "24, 24, 4",
    "24, 23, 4",
    "24, 12, 2",
    "24, 6, 3",
    "24, 3, 3",
    "24, 1, 1",
    "24, 1, 4",
    "24, 2, 4",
    "7, 5, 3",
    "7, 6, 4",
    "5, 3, 3",
    "5, 4, 4",
    "2, 1, 1",
    "1, 1, 4",
    "3, 2, 4"
  })
  void scans_moveWhatWasPlanned_andLoseNothing(int pages, int frames, int ring) throws IOException {
    FakeStore store = new FakeStore(pages * 31L + frames, 200);
    int steps = 5;
    try (Pager pager = new Pager(pages, SIZE, frames, ring, store, () -> {})) {
      PagePlan plan = pager.plan();
      assertThat(plan.resident() + plan.ring()).isEqualTo(frames);
      long in = 0;
      long out = 0;
      for (int step = 0; step < steps; step++) {
        scan(pager, pages, step);
        in += step == 0 ? plan.firstIn() : plan.in();
        out += plan.out();
        assertThat(pager.stats().pagesIn()).as("in, step %d", step).isEqualTo(in);
        assertThat(pager.stats().pagesOut()).as("out, step %d", step).isEqualTo(out);
      }
      look(pager, pages, steps);
      assertThat(store.reads.get()).isBetween((int) in, (int) in + pages);
      assertThat(store.writes.get()).isEqualTo((int) out);
      assertThat(pager.stats().residentBytes()).isEqualTo((long) frames * SIZE);
    }
    assertThat(store.closed).isTrue();
  }

  @Test
  void plan_ofATenth_isWhatStreams() {
    assertThat(PagePlan.of(100, 10, 4)).isEqualTo(new PagePlan(100, 6, 4));
    assertThat(PagePlan.of(100, 10, 4).in()).isEqualTo(94);
    assertThat(PagePlan.of(100, 10, 4).firstIn()).isEqualTo(4);
    assertThat(PagePlan.of(100, 100, 4).out()).isZero();
    assertThat(PagePlan.of(100, 1, 4)).isEqualTo(new PagePlan(100, 0, 1));
  }

  /** Any sequence of steps, spikes, their ends and looks leaves what steps alone would leave. */
  @Test
  void spikes_changeNothing() throws IOException {
    for (long seed = 1; seed <= 30; seed++) {
      Random random = new Random(seed);
      int pages = 1 + random.nextInt(30);
      int frames = 1 + random.nextInt(pages);
      FakeStore store = new FakeStore(seed, 60);
      try (Pager pager = new Pager(pages, SIZE, frames, 1 + random.nextInt(5), store, () -> {})) {
        int steps = 0;
        for (int i = 0; i < 25; i++) {
          int before = (int) (pager.stats().residentBytes() / SIZE);
          switch (random.nextInt(5)) {
            case 0 -> {
              int asked = random.nextInt(pages + 2);
              int fewer = Math.min(asked, before - 1);
              assertThat(pager.makeRoom((long) asked * SIZE))
                  .as("seed %d", seed)
                  .isEqualTo((long) fewer * SIZE);
              assertThat(pager.stats().frames()).isEqualTo(before - fewer);
            }
            case 1 -> {
              pager.restore();
              assertThat(pager.stats().frames()).isEqualTo(frames);
            }
            case 2 -> look(pager, pages, steps);
            default -> scan(pager, pages, steps++);
          }
        }
        look(pager, pages, steps);
      }
    }
  }

  @Test
  void spike_movesItsPages_outAndInAgain() throws IOException {
    try (Pager pager = new Pager(20, SIZE, 20, 4, new FakeStore(1, 0), () -> {})) {
      scan(pager, 20, 0);
      assertThat(pager.makeRoom(15L * SIZE - 1)).isEqualTo(15L * SIZE);
      // Five frames are left: one page stays, a ring of four is empty.
      assertThat(pager.plan()).isEqualTo(new PagePlan(20, 1, 4));
      assertThat(pager.stats().pagesOut()).isEqualTo(19);
      assertThat(pager.stats().hostBytes()).isEqualTo(19L * SIZE);
      pager.restore();
      assertThat(pager.stats().pagesIn()).isEqualTo(19);
      assertThat(pager.stats().frames()).isEqualTo(20);
      assertThat(pager.stats().hostBytes()).isZero();
      look(pager, 20, 1);
    }
  }

  @Test
  void makeRoom_withoutAPlaceToGo_makesNone() throws IOException {
    try (Pager pager = new Pager(4, SIZE, 4, 2, null, () -> {})) {
      assertThat(pager.makeRoom(4L * SIZE)).isZero();
      pager.restore();
      assertThat(pager.stats().frames()).isEqualTo(4);
    }
  }

  @ParameterizedTest
  @CsvSource({"0", "7", "15", "16", "30"})
  void failedWrite_isSaid_andEndsAllButClosing(int failing) throws IOException {
    FakeStore store = new FakeStore(failing, 100);
    store.failingWrite = failing;
    try (Pager pager = new Pager(20, SIZE, 8, 4, store, () -> {})) {
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(
              () -> {
                for (int step = 0; step < 4; step++) {
                  scan(pager, 20, step);
                }
              })
          .withMessageMatching(
              "optimizer state: writing page \\d+ failed: No space left on device; the step is not"
                  + " complete: free space or repair the disk, and resume from the last"
                  + " checkpoint");
      for (int i = 0; i < 2; i++) {
        assertThatExceptionOfType(OptimizerException.class)
            .isThrownBy(() -> pager.scan((page, bytes) -> {}))
            .withMessageContaining("No space left");
        assertThatExceptionOfType(OptimizerException.class)
            .isThrownBy(() -> pager.look((page, bytes) -> {}));
        assertThatExceptionOfType(OptimizerException.class).isThrownBy(() -> pager.makeRoom(SIZE));
      }
    }
    assertThat(store.closed).isTrue();
  }

  @Test
  void failedRead_isSaid() throws IOException {
    FakeStore store = new FakeStore(1, 0);
    store.failingRead = 9;
    try (Pager pager = new Pager(20, SIZE, 8, 4, store, () -> {})) {
      scan(pager, 20, 0);
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> scan(pager, 20, 1))
          .withMessageContaining("reading page")
          .withMessageContaining("Input/output error");
    }
  }

  @Test
  void failedSpike_isSaid() throws IOException {
    FakeStore store = new FakeStore(1, 50);
    store.failingWrite = 3;
    try (Pager pager = new Pager(20, SIZE, 20, 4, store, () -> {})) {
      scan(pager, 20, 0);
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> pager.makeRoom(10L * SIZE))
          .withMessageContaining("No space left on device");
    }
    assertThat(store.closed).isTrue();
  }

  @Test
  void useThatFails_endsAllButClosing() throws IOException {
    try (Pager pager = new Pager(20, SIZE, 8, 4, new FakeStore(1, 50), () -> {})) {
      assertThatIllegalStateException()
          .isThrownBy(
              () ->
                  pager.scan(
                      (page, bytes) -> {
                        if (page == 9) {
                          throw new IllegalStateException("kernel");
                        }
                      }));
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> pager.scan((page, bytes) -> {}))
          .withMessageContaining("unusable");
    }
  }

  @Test
  void close_endsThreads_andFreesPages() throws IOException {
    List<MemorySegment> seen = new ArrayList<>();
    Pager pager = new Pager(20, SIZE, 8, 4, new FakeStore(1, 500), () -> {});
    pager.scan((page, bytes) -> seen.add(bytes));
    pager.close();
    pager.close();
    assertThat(seen).hasSize(20).noneMatch(bytes -> bytes.scope().isAlive());
    assertThat(pager.stats().residentBytes()).isZero();
    assertThat(Thread.getAllStackTraces().keySet())
        .extracting(Thread::getName)
        .doesNotContain("wardrobe-pages-in", "wardrobe-pages-out");
    assertThatIllegalStateException().isThrownBy(() -> pager.scan((page, bytes) -> {}));
  }

  /** Each page must be as the step before left it; then it is marked with this one. */
  private static void scan(Pager pager, int pages, int step) throws OptimizerException {
    boolean[] seen = new boolean[pages];
    pager.scan(
        (page, bytes) -> {
          assertThat(seen[page]).isFalse();
          seen[page] = true;
          assertThat(bytes.byteSize()).isEqualTo(SIZE);
          for (long at = 0; at < SIZE; at += 4) {
            int expected = step == 0 ? 0 : mark(page, step - 1, at);
            if (bytes.get(ValueLayout.JAVA_INT, at) != expected) {
              assertThat(bytes.get(ValueLayout.JAVA_INT, at))
                  .as("step %d, page %d, byte %d", step, page, at)
                  .isEqualTo(expected);
            }
            bytes.set(ValueLayout.JAVA_INT, at, mark(page, step, at));
          }
        });
    assertThat(seen).doesNotContain(false);
  }

  private static void look(Pager pager, int pages, int steps) throws IOException {
    int[] next = {0};
    pager.look(
        (page, bytes) -> {
          assertThat(page).isEqualTo(next[0]++);
          for (long at = 0; at < SIZE; at += 4) {
            int expected = steps == 0 ? 0 : mark(page, steps - 1, at);
            assertThat(bytes.get(ValueLayout.JAVA_INT, at)).isEqualTo(expected);
          }
        });
    assertThat(next[0]).isEqualTo(pages);
  }

  private static int mark(int page, int step, long at) {
    return (page * 1009 + step * 131 + 7) * 31 + (int) at;
  }
}
