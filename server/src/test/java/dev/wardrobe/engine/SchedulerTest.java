package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

final class SchedulerTest {
  private final PagePool pool = new PagePool(new Pages(10));
  private final Residency residency = new Residency(pool, 1, 0, 1, () -> {}, new EngineMeters());
  private final Scheduler scheduler = new Scheduler(4, 32, pool, residency, () -> {});
  private long arrivals;

  private Sequence add(int prompt) {
    Sequence sequence = sequence(prompt, new Siblings(), 0);
    scheduler.add(sequence);
    return sequence;
  }

  private Sequence sequence(int prompt, Siblings siblings, int choice) {
    Sequence sequence =
        new Sequence(
            Tasks.greedy(new int[prompt], 100),
            new Recorder(),
            siblings,
            choice,
            Identity.of(KvShape.Type.F32, MathMode.EXACT, List.of()),
            Identity.of(KvShape.Type.F32, MathMode.EXACT, List.of()),
            arrivals++,
            0);
    sequence.ready = true;
    return sequence;
  }

  /** Plans a step and pretends that it ran: each sequence that is up to date gets a token. */
  private List<Sequence> step() {
    List<Sequence> plan = new ArrayList<>(scheduler.plan());
    for (Sequence sequence : plan) {
      sequence.computed += sequence.share;
      if (sequence.pending() == 0) {
        sequence.append(1);
      }
    }
    return plan;
  }

  @Test
  void plan_decodesBesidePrefill_withinBudget() {
    Sequence first = add(20);
    Sequence second = add(40);
    assertThat(step()).containsExactly(first, second);
    assertThat(first.share).isEqualTo(20);
    assertThat(second.share).isEqualTo(12);

    assertThat(step()).containsExactly(first, second);
    assertThat(first.share).isEqualTo(1);
    assertThat(second.share).isEqualTo(28);
    assertThat(pool.available()).isEqualTo(10 - 2 - 3);
  }

  @Test
  void plan_longPrompts_holdUpNoShortOne() {
    Sequence longest = add(80);
    assertThat(step()).containsExactly(longest);
    assertThat(longest.share).isEqualTo(32);
    Sequence shorter = add(40);
    Sequence shortest = add(10);
    step();
    // A quarter for the oldest; of the rest the shortest takes what it needs first.
    assertThat(longest.share).isEqualTo(8);
    assertThat(shortest.share).isEqualTo(10);
    assertThat(shorter.share).isEqualTo(14);
    step();
    assertThat(longest.share).isEqualTo(8);
    assertThat(shorter.share).isEqualTo(24);
    assertThat(shortest.share).isEqualTo(1);
  }

  @Test
  void plan_shortPrompts_neverStarveTheOldest() {
    Sequence longest = add(100);
    for (int i = 0; longest.pending() > 1; i++) {
      assertThat(i).as("steps of at least a quarter of 32 tokens").isLessThan(13);
      Sequence other = add(24);
      step();
      scheduler.remove(other);
    }
  }

  /** Else it would be ended for want of room, though nobody has looked for any. */
  @Test
  void first_notWhoBecomesReadyAfterThePlan() {
    Sequence sequence = add(1);
    Recorder.ready(sequence, false);
    assertThat(step()).isEmpty();
    ((Recorder) sequence.listener).ready = true;
    assertThat(scheduler.first()).isNull();
    assertThat(step()).containsExactly(sequence);
  }

  @Test
  void plan_adaptersSideBySide() {
    Sequence base = add(1);
    Sequence a = add(1);
    Sequence baseToo = add(1);
    Sequence aToo = add(1);
    EffectiveAdapter adapter =
        new EffectiveAdapter(
            Identity.of(KvShape.Type.BF16, MathMode.EXACT, List.of()),
            1,
            residency,
            new Residence[0],
            new float[0]);
    a.adapter = adapter;
    aToo.adapter = adapter;
    assertThat(step()).containsExactly(base, baseToo, a, aToo);
  }

  @Test
  void plan_noMoreThanPlaces() {
    List<Sequence> all = List.of(add(1), add(1), add(1), add(1), add(1));
    assertThat(step()).containsExactlyElementsOf(all.subList(0, 4));
    scheduler.remove(all.get(1));
    assertThat(step()).containsExactly(all.get(0), all.get(2), all.get(3), all.get(4));
  }

  @Test
  void plan_notReady_leavesItsPlaceToOthers() {
    List<Sequence> all = List.of(add(1), add(1), add(1), add(1), add(1));
    step();
    Recorder.ready(all.get(0), false);
    assertThat(step()).containsExactlyElementsOf(all.subList(1, 5));
    Recorder.ready(all.get(0), true);
    assertThat(step()).containsExactlyElementsOf(all.subList(0, 4));
  }

  @Test
  void admit_waitsForPages_inOrder() {
    Sequence large = add(100);
    step();
    Sequence waits = add(60);
    Sequence small = add(1);
    step();
    assertThat(scheduler.waiting()).containsExactly(waits, small);
    scheduler.remove(large);
    assertThat(step()).containsExactly(waits, small);
  }

  @Test
  void preempt_youngest_whenPagesRunOut() {
    Sequence first = add(70);
    Sequence second = add(75);
    for (int i = 0; i < 30 && scheduler.preemptions() == 0; i++) {
      step();
    }
    assertThat(scheduler.preemptions()).isEqualTo(1);
    assertThat(second.preemptions).isEqualTo(1);
    assertThat(second.computed).isZero();
    assertThat(second.blockCount).isZero();
    assertThat(scheduler.waiting()).containsExactly(second);
    assertThat(scheduler.admitted()).containsExactly(first);

    scheduler.remove(first);
    int tokens = second.length;
    step();
    assertThat(second.share).isEqualTo(32);
    step();
    step();
    assertThat(second.length).isEqualTo(tokens + 1);
    scheduler.remove(second);
    assertThat(pool.available()).isEqualTo(10);
  }

  @Test
  void preempt_itself_whenYoungest() {
    Sequence first = add(70);
    step();
    step();
    step();
    Sequence second = add(64);
    step();
    step();
    step();
    // 5 and 4 blocks are taken, and the second needs its fifth, then its sixth.
    for (int i = 0; i < 40 && scheduler.preemptions() == 0; i++) {
      Recorder.ready(first, true);
      step();
    }
    assertThat(second.preemptions).isEqualTo(1);
    assertThat(first.preemptions).isZero();
  }

  @Test
  void preempt_notReady_first() {
    Sequence first = add(70);
    Sequence second = add(60);
    for (int i = 0; i < 5; i++) {
      step();
    }
    Recorder.ready(first, false);
    for (int i = 0; i < 40 && scheduler.preemptions() == 0; i++) {
      step();
    }
    assertThat(first.preemptions).isEqualTo(1);
    assertThat(second.preemptions).isZero();

    Recorder.ready(first, true);
    scheduler.remove(second);
    assertThat(step()).containsExactly(first);
  }

  /** As {@link #step}, with each sequence's own tokens, and its complete blocks indexed. */
  private void sharingStep() {
    for (Sequence sequence : scheduler.plan()) {
      sequence.computed += sequence.share;
      sequence.index(pool);
      if (sequence.pending() == 0) {
        sequence.append((int) sequence.arrival + 1);
      }
    }
  }

  @Test
  void preempt_sharedBlocks_stayWithTheOther() {
    Sequence first = add(65);
    for (int i = 0; i < 3; i++) {
      sharingStep();
    }
    Sequence second = add(65);
    sharingStep();
    assertThat(second.cached).isEqualTo(64);
    assertThat(second.share).isEqualTo(1);
    assertThat(Arrays.copyOf(second.blocks, 4)).isEqualTo(Arrays.copyOf(first.blocks, 4));
    assertThat(pool.available()).isEqualTo(10 - 4 - 1 - 1);

    while (scheduler.preemptions() == 0) {
      sharingStep();
      assertThat(pool.available())
          .isEqualTo(10 - first.blockCount - Math.max(0, second.blockCount - 4));
    }
    assertThat(second.preemptions).isEqualTo(1);
    assertThat(first.blockCount).isEqualTo(8);
    // What it had computed alone is cached, but for the block that the first one took.
    assertThat(pool.cached()).isEqualTo(2);
    assertThat(pool.available()).isEqualTo(2);

    scheduler.remove(first);
    int length = second.length;
    sharingStep();
    // It goes on where it was: 4 blocks of the prompt and 2 of its own were still there.
    assertThat(second.share).isEqualTo(length - 6 * 16);
    assertThat(second.cached).isEqualTo(64);
    assertThat(scheduler.found()).isEqualTo(64 + 96);
    scheduler.remove(second);
    assertThat(pool.available()).isEqualTo(10);
  }

  @Test
  void admit_hitsDoNotNeedRoomTwice() {
    Sequence first = add(129);
    for (int i = 0; i < 5; i++) {
      sharingStep();
    }
    // 9 of 10 blocks are taken; another one with this prompt needs but one.
    Sequence second = add(129);
    Sequence third = add(129);
    sharingStep();
    assertThat(scheduler.admitted()).containsExactly(first, second);
    assertThat(scheduler.waiting()).containsExactly(third);
    assertThat(third.blockCount).isZero();
    assertThat(pool.available()).isZero();
  }

  @Test
  void siblings_waitForTheFirst() {
    Siblings siblings = new Siblings();
    List<Sequence> all = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      all.add(sequence(70, siblings, i));
    }
    siblings.are(all);
    all.forEach(scheduler::add);
    sharingStep();
    assertThat(scheduler.admitted()).containsExactly(all.getFirst());
    sharingStep();
    assertThat(scheduler.admitted()).containsExactly(all.getFirst());
    sharingStep();
    assertThat(scheduler.admitted()).containsExactlyElementsOf(all);
    assertThat(all.get(2).share).isEqualTo(6);
  }
}
