package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Who takes part in the coming step, with how many tokens. Belongs to the engine's thread.
 *
 * <p>A sequence waits until its adapters are in memory, there is a place in the batch, and its
 * tokens' pages are likely to be had; then it is admitted and takes pages as it grows. Older
 * sequences go first everywhere. When pages run out, a sequence whose reader is not ready gives its
 * pages back, else the youngest does; it waits again at its old place in the queue, and its tokens
 * are computed again. So the oldest always gets on, and since no sequence may need more pages than
 * there are, each ends.
 */
final class Scheduler {
  private final int maxSequences;
  private final int prefillTokens;
  private final PagePool pool;

  /** Sequences without pages, oldest first. */
  private final List<Sequence> waiting = new ArrayList<>();

  /** Sequences that may hold pages, oldest first. */
  private final List<Sequence> admitted = new ArrayList<>();

  /** Sequences of the coming step, oldest first. */
  private final List<Sequence> planned = new ArrayList<>();

  /** The same, those of an adapter side by side. */
  private final List<Sequence> plan = new ArrayList<>();

  private long preemptions;
  private long lookedUp;
  private long found;

  Scheduler(int maxSequences, int prefillTokens, PagePool pool) {
    this.maxSequences = maxSequences;
    this.prefillTokens = prefillTokens;
    this.pool = pool;
  }

  List<Sequence> waiting() {
    return waiting;
  }

  List<Sequence> admitted() {
    return admitted;
  }

  long preemptions() {
    return preemptions;
  }

  private void note(Sequence sequence, int adopted) {
    found += adopted;
    if (sequence.preemptions == 0) {
      sequence.cached += adopted;
    }
  }

  /** Tokens that were looked up in the prefix index. */
  long lookedUp() {
    return lookedUp;
  }

  /** Tokens that were found in the prefix index. */
  long found() {
    return found;
  }

  void add(Sequence sequence) {
    insert(waiting, sequence);
  }

  /** Forgets a sequence and takes its pages back. */
  void remove(Sequence sequence) {
    waiting.remove(sequence);
    admitted.remove(sequence);
    sequence.release(pool);
  }

  /**
   * The sequences of the coming step, with their {@link Sequence#share}, same adapters side by
   * side. Reads {@link Sequence#ready}. Empty only if no sequence is ready.
   */
  List<Sequence> plan() {
    planned.clear();
    resume();
    admit();
    shareOut(prefillTokens);
    reserve();
    plan.clear();
    for (int i = 0; i < planned.size(); i++) {
      if (planned.get(i).share > 0) {
        insertByAdapter(planned.get(i));
      }
    }
    return plan;
  }

  /** Keeps the plan in the order of adapters, and within one in that of arrival. */
  private void insertByAdapter(Sequence sequence) {
    int i = plan.size();
    while (i > 0 && plan.get(i - 1).adapterNumber() > sequence.adapterNumber()) {
      i--;
    }
    plan.add(i, sequence);
  }

  /** Plans the admitted that are ready. */
  private void resume() {
    for (int i = 0; i < admitted.size(); i++) {
      Sequence sequence = admitted.get(i);
      sequence.share = 0;
      if (sequence.ready && planned.size() < maxSequences) {
        if (sequence.pending() > 1) {
          note(sequence, sequence.adopt(pool));
        }
        planned.add(sequence);
      }
    }
  }

  private void admit() {
    for (int i = 0; i < waiting.size() && planned.size() < maxSequences; ) {
      Sequence next = waiting.get(i);
      if (!next.ready || !next.adapted() || next.siblings.waits(next)) {
        // Without a place in the batch: the others go on.
        i++;
        continue;
      }
      next.makeRoom();
      // Before it is asked what room the others leave: so nobody takes those blocks away.
      int adopted = next.adopt(pool);
      if (!room(next)) {
        next.release(pool);
        return;
      }
      lookedUp += next.shareable();
      note(next, adopted);
      // By identity: making room may have put others before it.
      waiting.remove(next);
      insert(admitted, next);
      next.hold();
      next.share = 0;
      insert(planned, next);
    }
  }

  /**
   * Gives who decodes one token each, and shares {@code budget} out among those that prefill: those
   * with the least left go first, so that none waits for a long prompt, but a quarter is the
   * oldest's, so that it gets on whatever comes after it.
   */
  private void shareOut(int budget) {
    Sequence oldest = null;
    for (int i = 0; i < planned.size(); i++) {
      Sequence sequence = planned.get(i);
      if (sequence.pending() == 1) {
        sequence.share = 1;
      } else if (oldest == null) {
        oldest = sequence;
      }
    }
    if (oldest == null) {
      return;
    }
    int kept = Math.min(oldest.pending(), Math.ceilDiv(budget, 4));
    int left = budget - kept;
    for (Sequence next = shortest(); next != null; next = shortest()) {
      if (next == oldest) {
        left += kept;
        kept = 0;
      }
      int share = Math.min(next.pending(), left);
      if (share == 0) {
        break;
      }
      next.share = share;
      left -= share;
    }
    oldest.share = Math.max(oldest.share, kept);
  }

  /** Of the planned without a share the one with the least to compute, the oldest of equals. */
  private @Nullable Sequence shortest() {
    Sequence shortest = null;
    for (int i = 0; i < planned.size(); i++) {
      Sequence sequence = planned.get(i);
      if (sequence.share == 0 && (shortest == null || sequence.pending() < shortest.pending())) {
        shortest = sequence;
      }
    }
    return shortest;
  }

  /** Whether pages for all its tokens can be had, beside those that the admitted will need. */
  private boolean room(Sequence next) {
    int promised = Sequence.blocks(next.length) - next.blockCount;
    for (int i = 0; i < admitted.size(); i++) {
      Sequence sequence = admitted.get(i);
      if (sequence.ready) {
        promised += Math.max(0, Sequence.blocks(sequence.length) - sequence.blockCount);
      }
    }
    while (pool.available() < promised) {
      Sequence idle = youngestIdle();
      if (idle == null) {
        return false;
      }
      preempt(idle);
    }
    return true;
  }

  /** Takes the planned sequences' pages, oldest first. */
  private void reserve() {
    for (int i = 0; i < planned.size(); i++) {
      Sequence sequence = planned.get(i);
      while (sequence.share > 0 && !sequence.reserve(pool, sequence.computed + sequence.share)) {
        Sequence victim = youngestIdle();
        preempt(victim != null ? victim : admitted.getLast());
      }
    }
  }

  private @Nullable Sequence youngestIdle() {
    for (int i = admitted.size() - 1; i >= 0; i--) {
      Sequence sequence = admitted.get(i);
      if (!sequence.ready && sequence.blockCount > 0) {
        return sequence;
      }
    }
    return null;
  }

  private void preempt(Sequence victim) {
    victim.release(pool);
    victim.share = 0;
    victim.preemptions++;
    preemptions++;
    admitted.remove(victim);
    insert(waiting, victim);
  }

  /** Keeps the list oldest first. */
  private static void insert(List<Sequence> list, Sequence sequence) {
    int i = list.size();
    while (i > 0 && list.get(i - 1).arrival > sequence.arrival) {
      i--;
    }
    list.add(i, sequence);
  }
}
