package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The sequences that wait, in the order in which they are to be admitted. Belongs to the engine's
 * thread.
 *
 * <p>Every tenant has a counter of the tokens that it was served, and so has every effective
 * adapter within a tenant: its <em>line</em>. A prompt token counts once, a generated one twice.
 * Whose counter is lowest goes first (virtual token counters; Sheng et al., 2024): first the
 * tenant's, then the line's, and within a line who came first. Who comes back is lifted to the
 * lowest counter of those that are there, so that nobody saves up by staying away.
 *
 * <p>The order is kept as counters change, so that a step costs no more for those who wait behind.
 */
final class FairQueue {
  private static final int PROMPT_PRICE = 1;
  private static final int OUTPUT_PRICE = 2;

  /** Tenants, and lines of a tenant, that are remembered though none of their sequences is left. */
  private static final int REMEMBERED = 1024;

  /** Who shares the machine with others. */
  static final class Tenant {
    private final Map<Identity, Line> lines = new HashMap<>();

    /** Lines with somebody waiting, in order. */
    private final List<Line> waiting = new ArrayList<>();

    /** Lines with somebody in the batch. */
    private final List<Line> inBatch = new ArrayList<>();

    private long served;
    private int sequences;
    private int activeLines;

    /** Its sequences in the batch. */
    private int running;

    /** The pass that it was last looked at in, and how many of its lines have had their turn. */
    private long seen;

    private int passed;

    /** Its sequences in the batch. */
    int running() {
      return running;
    }

    private boolean before(Tenant other) {
      return served != other.served
          ? served < other.served
          : waiting.getFirst().before(other.waiting.getFirst());
    }
  }

  /** A tenant's sequences of one effective adapter. */
  static final class Line {
    final Tenant tenant;

    /** Oldest first. */
    private final List<Sequence> waiting = new ArrayList<>();

    private long served;
    private int sequences;
    private int running;
    private long seen;

    private Line(Tenant tenant) {
      this.tenant = tenant;
    }

    /** Its sequences in the batch. */
    int running() {
      return running;
    }

    /** How many of those that wait came before it, and are not its siblings. */
    int ahead(Sequence sequence) {
      int at = find(waiting, sequence.arrival);
      while (at > 0 && waiting.get(at - 1).siblings == sequence.siblings) {
        at--;
      }
      return at;
    }

    private boolean before(Line other) {
      return served != other.served
          ? served < other.served
          : waiting.getFirst().arrival < other.waiting.getFirst().arrival;
    }
  }

  private final Runnable wake;
  private final Map<String, Tenant> tenants = new HashMap<>();
  private int activeTenants;

  /** Tenants with somebody waiting, in order. */
  private final List<Tenant> waiting = new ArrayList<>();

  /** Tenants with somebody in the batch. */
  private final List<Tenant> inBatch = new ArrayList<>();

  private final List<Sequence> broken = new ArrayList<>();
  private long pass;
  private int passedTenants;

  /**
   * @param wake wakes the engine, once who was not ready may be
   */
  FairQueue(Runnable wake) {
    this.wake = wake;
  }

  /** Takes up a new sequence; until {@link #exit} it belongs to a line, waiting or not. */
  void enter(Sequence sequence) {
    Tenant tenant = tenants.get(sequence.task.tenant());
    if (tenant == null) {
      tenant = new Tenant();
      tenants.put(sequence.task.tenant(), tenant);
    }
    if (tenant.sequences++ == 0) {
      activeTenants++;
      tenant.served = Math.max(tenant.served, least());
    }
    Line line = tenant.lines.get(sequence.identity);
    if (line == null) {
      line = new Line(tenant);
      tenant.lines.put(sequence.identity, line);
    }
    if (line.sequences++ == 0) {
      tenant.activeLines++;
      line.served = Math.max(line.served, least(tenant));
    }
    sequence.line = line;
  }

  /** The lowest counter of the tenants that are there; 0 if there are none. */
  private long least() {
    long least = waiting.isEmpty() ? Long.MAX_VALUE : waiting.getFirst().served;
    for (int i = 0; i < inBatch.size(); i++) {
      least = Math.min(least, inBatch.get(i).served);
    }
    return least == Long.MAX_VALUE ? 0 : least;
  }

  /** The same of a tenant's lines. */
  private static long least(Tenant tenant) {
    long least = tenant.waiting.isEmpty() ? Long.MAX_VALUE : tenant.waiting.getFirst().served;
    for (int i = 0; i < tenant.inBatch.size(); i++) {
      least = Math.min(least, tenant.inBatch.get(i).served);
    }
    return least == Long.MAX_VALUE ? 0 : least;
  }

  /** A sequence has ended. */
  void exit(Sequence sequence) {
    Line line = sequence.line();
    Tenant tenant = line.tenant;
    if (--line.sequences == 0) {
      tenant.activeLines--;
    }
    // Who is alone owes nobody; and strangers' names are not to fill the memory.
    if (--tenant.sequences == 0) {
      activeTenants--;
      tenant.lines.clear();
    } else if (tenant.lines.size() - tenant.activeLines > REMEMBERED) {
      tenant.lines.values().removeIf(each -> each.sequences == 0);
    }
    if (activeTenants == 0) {
      tenants.clear();
    } else if (tenants.size() - activeTenants > REMEMBERED) {
      tenants.values().removeIf(each -> each.sequences == 0);
    }
  }

  /** The sequence waits. */
  void add(Sequence sequence) {
    Line line = sequence.line();
    takeOut(line);
    line.waiting.add(find(line.waiting, sequence.arrival), sequence);
    putIn(line);
  }

  /** The sequence waits no longer; nothing happens if it did not. */
  void remove(Sequence sequence) {
    Line line = sequence.line();
    int at = find(line.waiting, sequence.arrival);
    if (at < line.waiting.size() && line.waiting.get(at) == sequence) {
      takeOut(line);
      line.waiting.remove(at);
      putIn(line);
    }
  }

  /** The sequence joins the batch. */
  void join(Sequence sequence) {
    Line line = sequence.line();
    if (line.running++ == 0) {
      line.tenant.inBatch.add(line);
    }
    if (line.tenant.running++ == 0) {
      inBatch.add(line.tenant);
    }
  }

  /** The sequence leaves the batch. */
  void part(Sequence sequence) {
    Line line = sequence.line();
    if (--line.running == 0) {
      line.tenant.inBatch.remove(line);
    }
    if (--line.tenant.running == 0) {
      inBatch.remove(line.tenant);
    }
  }

  /** The sequence is about to have its first tokens computed. */
  void chargePrompt(Sequence sequence, int tokens) {
    charge(sequence.line(), (long) PROMPT_PRICE * tokens);
  }

  /** A token was generated. */
  void chargeOutput(Sequence sequence) {
    charge(sequence.line(), OUTPUT_PRICE);
  }

  private void charge(Line line, long price) {
    takeOut(line);
    line.served += price;
    line.tenant.served += price;
    putIn(line);
  }

  /** Before a change of what orders a line: takes it and its tenant from where they are. */
  private void takeOut(Line line) {
    Tenant tenant = line.tenant;
    if (!tenant.waiting.isEmpty()) {
      waiting.remove(find(waiting, tenant));
    }
    if (!line.waiting.isEmpty()) {
      tenant.waiting.remove(find(tenant.waiting, line));
    }
  }

  /** After the change: puts them where they belong by now. */
  private void putIn(Line line) {
    Tenant tenant = line.tenant;
    if (!line.waiting.isEmpty()) {
      tenant.waiting.add(find(tenant.waiting, line), line);
    }
    if (!tenant.waiting.isEmpty()) {
      waiting.add(find(waiting, tenant), tenant);
    }
  }

  /** Where a tenant is in the order, or would be. */
  private static int find(List<Tenant> tenants, Tenant tenant) {
    int from = 0;
    int to = tenants.size();
    while (from < to) {
      int middle = (from + to) >>> 1;
      if (tenants.get(middle).before(tenant)) {
        from = middle + 1;
      } else {
        to = middle;
      }
    }
    return from;
  }

  /** Where a line is in the order, or would be. */
  private static int find(List<Line> lines, Line line) {
    int from = 0;
    int to = lines.size();
    while (from < to) {
      int middle = (from + to) >>> 1;
      if (lines.get(middle).before(line)) {
        from = middle + 1;
      } else {
        to = middle;
      }
    }
    return from;
  }

  /** Where the sequence of that arrival is among those, oldest first, or would be. */
  static int find(List<Sequence> sequences, long arrival) {
    int from = 0;
    int to = sequences.size();
    while (from < to) {
      int middle = (from + to) >>> 1;
      if (sequences.get(middle).arrival < arrival) {
        from = middle + 1;
      } else {
        to = middle;
      }
    }
    return from;
  }

  /** Tenants that are remembered. */
  int tenants() {
    return tenants.size();
  }

  /** Begins a pass over the lines with somebody waiting. */
  void begin() {
    pass++;
    passedTenants = 0;
  }

  /**
   * The next line of this pass, in order; null at the end. What goes back in the order, since it
   * was charged, has its turn later; who begins to wait meanwhile may have it in the next pass.
   */
  @Nullable Line nextLine() {
    for (; passedTenants < waiting.size(); passedTenants++) {
      Tenant tenant = waiting.get(passedTenants);
      if (tenant.seen != pass) {
        tenant.seen = pass;
        tenant.passed = 0;
      }
      for (; tenant.passed < tenant.waiting.size(); tenant.passed++) {
        Line line = tenant.waiting.get(tenant.passed);
        if (line.seen != pass) {
          line.seen = pass;
          return line;
        }
      }
    }
    return null;
  }

  /** Lets a line have another turn in this pass, where its place in the order is by now. */
  void again(Line line) {
    line.seen = pass - 1;
  }

  /** Who goes first of a line's that could: whose reader is ready, and that await no sibling. */
  @Nullable Sequence next(Line line) {
    for (int i = 0; i < line.waiting.size(); i++) {
      Sequence sequence = line.waiting.get(i);
      if (sequence.siblings.waits(sequence)) {
        continue;
      }
      sequence.look(wake);
      if (sequence.broken != null) {
        broken.add(sequence);
      } else if (sequence.ready) {
        return sequence;
      }
    }
    return null;
  }

  /** The same as was found last: nobody is asked again. */
  static @Nullable Sequence lastNext(Line line) {
    for (int i = 0; i < line.waiting.size(); i++) {
      Sequence sequence = line.waiting.get(i);
      if (sequence.ready && sequence.broken == null && !sequence.siblings.waits(sequence)) {
        return sequence;
      }
    }
    return null;
  }

  /** Those that were found to be {@link Sequence#broken}; the caller empties it. */
  List<Sequence> broken() {
    return broken;
  }
}
