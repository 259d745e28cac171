package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Who takes part in the coming step, with how many tokens. Belongs to the engine's thread.
 *
 * <p>A sequence waits until its adapters are in memory, there is a place in the batch, and its
 * tokens' pages are likely to be had; then it is admitted and takes pages as it grows. The queue
 * says who is admitted first, see {@link FairQueue}. Whose adapters are not in memory holds no
 * place: their loads begin, those of the first in the queue first, and the others go on.
 *
 * <p>When pages run out, idle adapters go; then a sequence whose reader is not ready gives its
 * pages back, else the youngest does. It waits again at its old place in its line, and its tokens
 * are computed again. So the oldest always gets on, and since no sequence may need more pages than
 * there are, each ends.
 *
 * <p>Waits are bounded. Who has been first of those without room for their adapters for {@link
 * #PATIENCE} steps has adapters drained for it: those with the least left to do take no further
 * sequences until they can go. Who has been without a place for as long takes that of the youngest
 * sequence of the tenant, or within its own of the line, that has most of them, and at least two
 * more than its own.
 */
final class Scheduler {
  /** Steps that somebody may be passed by before others make room. */
  static final int PATIENCE = 16;

  private final int maxSequences;
  private final int prefillTokens;
  private final PagePool pool;
  private final Residency residency;
  private final FairQueue queue;

  /** Sequences without pages, oldest first. */
  private final List<Sequence> waiting = new ArrayList<>();

  /** Sequences that may hold pages, oldest first. */
  private final List<Sequence> admitted = new ArrayList<>();

  /** Sequences of the coming step, oldest first. */
  private final List<Sequence> planned = new ArrayList<>();

  /** The same, those of an adapter side by side. */
  private final List<Sequence> plan = new ArrayList<>();

  /** For whom adapters are drained. */
  private @Nullable Sequence thirsty;

  /** Somebody whom the adapters that stay leave no room. */
  private @Nullable Sequence hopeless;

  private long steps;
  private long preemptions;
  private long lookedUp;
  private long found;

  /**
   * @param wake wakes the engine, once who was not ready may be
   */
  Scheduler(
      int maxSequences, int prefillTokens, PagePool pool, Residency residency, Runnable wake) {
    queue = new FairQueue(wake);
    this.maxSequences = maxSequences;
    this.prefillTokens = prefillTokens;
    this.pool = pool;
    this.residency = residency;
  }

  FairQueue queue() {
    return queue;
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

  /** Forgets what was looked up and found so far. */
  void countAnew() {
    lookedUp = 0;
    found = 0;
  }

  /** Tokens that were looked up in the prefix index. */
  long lookedUp() {
    return lookedUp;
  }

  /** Tokens that were found in the prefix index. */
  long found() {
    return found;
  }

  /** Takes up a new sequence. */
  void add(Sequence sequence) {
    queue.enter(sequence);
    line(sequence);
  }

  private void line(Sequence sequence) {
    insert(waiting, sequence);
    queue.add(sequence);
  }

  /** Forgets a sequence and takes its pages back. */
  void remove(Sequence sequence) {
    if (remove(waiting, sequence)) {
      queue.remove(sequence);
    }
    leave(sequence);
    queue.exit(sequence);
    if (sequence == thirsty) {
      quench();
    }
  }

  /** Takes it from the batch, if it is there, and its pages from it. */
  private void leave(Sequence sequence) {
    if (remove(admitted, sequence)) {
      queue.part(sequence);
    }
    sequence.release(pool);
  }

  /** A token of the sequence's was generated. */
  void served(Sequence sequence) {
    queue.chargeOutput(sequence);
  }

  /**
   * The sequences of the coming step, with their {@link Sequence#share}, same adapters side by
   * side. Reads {@link Sequence#ready}.
   */
  List<Sequence> plan() {
    planned.clear();
    hopeless = null;
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
    steps += plan.isEmpty() ? 0 : 1;
    return plan;
  }

  /** Who was found to have no room beside the adapters that stay, now or later: it is to end. */
  @Nullable Sequence hopeless() {
    return hopeless;
  }

  /**
   * Of those that wait, who was to go first as {@link #plan} found them; null if none of them
   * could. Who has become ready since may have all the room there is in the next plan.
   */
  @Nullable Sequence first() {
    if (thirsty != null) {
      return thirsty;
    }
    queue.begin();
    for (FairQueue.Line line = queue.nextLine(); line != null; line = queue.nextLine()) {
      Sequence next = FairQueue.lastNext(line);
      if (next != null) {
        return next;
      }
    }
    return null;
  }

  /** Those that wait and were found to be {@link Sequence#broken}; the caller empties it. */
  List<Sequence> broken() {
    return queue.broken();
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

  /** Goes through the queue: admits who can be, and has loaded what the others need. */
  private void admit() {
    residency.begin();
    queue.begin();
    if (waiting.isEmpty()) {
      return;
    }
    if (thirsty != null) {
      // What is drained for it is not for who comes first by now.
      ask(thirsty);
      if (thirsty.adapted()) {
        quench();
      } else {
        // Nor are others' loads to take what becomes free for it.
        residency.spare(drainable(thirsty) - needed(thirsty));
      }
    }
    Sequence roomless = null;
    boolean swapped = false;
    // Where all places are taken, those far behind will not have one now.
    int looks = maxSequences;
    for (FairQueue.Line line = queue.nextLine(); line != null; line = queue.nextLine()) {
      if (planned.size() == maxSequences && --looks < 0) {
        break;
      }
      Sequence next = queue.next(line);
      if (next == null || drained(next)) {
        continue;
      }
      ask(next);
      if (!next.adapted()) {
        if (roomless == null && roomless(next) && !givesUp(next)) {
          roomless = next;
        }
        continue;
      }
      if (givesUp(next)) {
        continue;
      }
      if (planned.size() == maxSequences) {
        if (swapped || !takePlace(next)) {
          continue;
        }
        swapped = true;
      }
      if (held(next)) {
        continue;
      }
      next.makeRoom();
      // Before it is asked what room the others leave: so nobody takes those blocks away.
      int adopted = next.adopt(pool);
      next.hold();
      if (!room(next)) {
        next.release(pool);
        break;
      }
      admit(next, adopted);
      // Its line may have more.
      queue.again(line);
    }
    if (roomless != null) {
      thirst(roomless);
    }
    if (thirsty != null) {
      drain(thirsty);
    }
  }

  /** Whether there will be no room for it beside the adapters that stay; takes note of one such. */
  private boolean givesUp(Sequence next) {
    int pages = residency.pinned();
    if (pages == 0) {
      // Then there is room: what there is none for was not taken up.
      return false;
    }
    EffectiveAdapter adapter = next.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      pages += adapter.residence(i).pinned() ? 0 : adapter.residence(i).pages;
    }
    boolean never =
        pages > residency.most()
            || pages + Sequence.blocks(next.promptLength + next.task.maxTokens()) > pool.blocks();
    if (never && hopeless == null) {
      hopeless = next;
    }
    return never;
  }

  private void ask(Sequence sequence) {
    EffectiveAdapter adapter = sequence.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      residency.ask(adapter.residence(i), sequence.task.adapters().get(i).lease());
    }
  }

  private static boolean drained(Sequence sequence) {
    EffectiveAdapter adapter = sequence.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      if (adapter.residence(i).drained) {
        return true;
      }
    }
    return false;
  }

  private boolean roomless(Sequence sequence) {
    EffectiveAdapter adapter = sequence.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      if (residency.roomless(adapter.residence(i))) {
        return true;
      }
    }
    return false;
  }

  private void admit(Sequence next, int adopted) {
    lookedUp += next.shareable();
    note(next, adopted);
    if (!next.charged) {
      next.charged = true;
      queue.chargePrompt(next, next.pending());
    }
    remove(waiting, next);
    queue.remove(next);
    insert(admitted, next);
    queue.join(next);
    next.roomlessSince = -1;
    next.placelessSince = -1;
    next.share = 0;
    insert(planned, next);
  }

  /** Takes note of who is first of those without room; if for long, adapters are drained for it. */
  private void thirst(Sequence roomless) {
    if (roomless.roomlessSince < 0) {
      roomless.roomlessSince = steps;
    }
    // Where nobody runs, no step would ever pass: readers that are not there keep the room.
    boolean still = planned.isEmpty() && !residency.loading();
    if (thirsty == null && (still || steps - roomless.roomlessSince >= PATIENCE)) {
      thirsty = roomless;
    }
  }

  /** Pages that its adapters are yet to have. */
  private static int needed(Sequence sequence) {
    int needed = 0;
    EffectiveAdapter adapter = sequence.adapter;
    for (int i = 0; adapter != null && i < adapter.size(); i++) {
      Residence residence = adapter.residence(i);
      needed += residence.state == Residence.State.ABSENT ? residence.pages : 0;
    }
    return needed;
  }

  /** Pages that it can have for its adapters once what is drained is idle. */
  private int drainable(Sequence sequence) {
    int room = Math.min(residency.most() - pool.lent(), pool.available());
    List<Residence> ready = residency.ready();
    for (int i = 0; i < ready.size(); i++) {
      Residence residence = ready.get(i);
      if ((residence.drained || residence.idle()) && goes(residence, sequence)) {
        room += residence.pages;
      }
    }
    return room;
  }

  /** Whether an adapter may be evicted for a sequence, once it is idle. */
  private static boolean goes(Residence residence, Sequence sequence) {
    EffectiveAdapter adapter = sequence.adapter;
    return !residence.pinned() && (adapter == null || !adapter.uses(residence));
  }

  /** Drains what has the least left to do until that is enough, with what is idle. */
  private void drain(Sequence sequence) {
    int needed = needed(sequence);
    int room = drainable(sequence);
    Residence next = room < needed ? leastLeft(sequence) : null;
    while (next != null) {
      next.drained = true;
      room += next.pages;
      next = room < needed ? leastLeft(sequence) : null;
    }
    // A reader that is not there would keep its adapter for as long as it likes.
    for (int i = admitted.size() - 1; i >= 0; i--) {
      Sequence idle = admitted.get(i);
      if (!idle.ready && drained(idle)) {
        preempt(idle);
      }
    }
  }

  private @Nullable Residence leastLeft(Sequence other) {
    Residence least = null;
    int leastLeft = Integer.MAX_VALUE;
    for (int i = 0; i < residency.ready().size(); i++) {
      Residence residence = residency.ready().get(i);
      if (residence.drained || residence.users == 0 || !goes(residence, other)) {
        continue;
      }
      int left = 0;
      for (int j = 0; j < admitted.size(); j++) {
        Sequence sequence = admitted.get(j);
        if (sequence.adapter != null && sequence.adapter.uses(residence)) {
          left = Math.max(left, sequence.ready ? sequence.left() : 0);
        }
      }
      if (left < leastLeft) {
        least = residence;
        leastLeft = left;
      }
    }
    return least;
  }

  /** Nobody is waited for any more: what was drained takes sequences again. */
  private void quench() {
    thirsty = null;
    for (int i = 0; i < residency.ready().size(); i++) {
      residency.ready().get(i).drained = false;
    }
  }

  /**
   * Whether it is not to take pages now: adapters are drained for another one, and still it would
   * not have room, since keys and values take it.
   */
  private boolean held(Sequence next) {
    if (thirsty == null || thirsty == next || steps - thirsty.roomlessSince < 4 * PATIENCE) {
      return false;
    }
    return needed(thirsty) > pool.available() + pool.lent() - residency.pinned();
  }

  /** Takes a place in the batch from who has too many, for who has waited long. */
  private boolean takePlace(Sequence next) {
    if (next.placelessSince < 0) {
      next.placelessSince = steps;
    }
    if (steps - next.placelessSince < PATIENCE) {
      return false;
    }
    Sequence victim = null;
    int most = next.line().tenant.running() + 1;
    for (int i = planned.size() - 1; i >= 0; i--) {
      Sequence sequence = planned.get(i);
      if (sequence.line().tenant != next.line().tenant && sequence.line().tenant.running() > most) {
        victim = sequence;
        most = sequence.line().tenant.running();
      }
    }
    if (victim == null) {
      most = next.line().running() + 1;
      for (int i = planned.size() - 1; i >= 0; i--) {
        Sequence sequence = planned.get(i);
        if (sequence.line().tenant == next.line().tenant && sequence.line().running() > most) {
          victim = sequence;
          most = sequence.line().running();
        }
      }
    }
    if (victim == null) {
      return false;
    }
    planned.remove(victim);
    preempt(victim);
    return true;
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
    while (!residency.makeKvRoom(promised, false)) {
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
      while (sequence.share > 0) {
        int positions = sequence.computed + sequence.share;
        if (residency.makeKvRoom(Sequence.blocks(positions) - sequence.blockCount, true)
            && sequence.reserve(pool, positions)) {
          break;
        }
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
    leave(victim);
    victim.share = 0;
    victim.preemptions++;
    preemptions++;
    line(victim);
  }

  /** Keeps the list oldest first. */
  private static void insert(List<Sequence> list, Sequence sequence) {
    list.add(FairQueue.find(list, sequence.arrival), sequence);
  }

  /** Takes it from a list that is kept oldest first; false if it is not there. */
  private static boolean remove(List<Sequence> list, Sequence sequence) {
    int at = FairQueue.find(list, sequence.arrival);
    if (at == list.size() || list.get(at) != sequence) {
      return false;
    }
    list.remove(at);
    return true;
  }
}
