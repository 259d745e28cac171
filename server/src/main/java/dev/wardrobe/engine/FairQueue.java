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
 */
final class FairQueue {
  private static final int PROMPT_PRICE = 1;
  private static final int OUTPUT_PRICE = 2;

  /** Tenants, and lines of a tenant, that are remembered though none of their sequences is left. */
  private static final int REMEMBERED = 1024;

  /** Who shares the machine with others. */
  static final class Tenant {
    private final Map<Identity, Line> lines = new HashMap<>();
    private long served;
    private int sequences;

    /** Its sequences in the batch. */
    int running;
  }

  /** A tenant's sequences of one effective adapter. */
  static final class Line {
    final Tenant tenant;

    /** Oldest first. */
    private final List<Sequence> waiting = new ArrayList<>();

    private long served;
    private int sequences;

    /** Its sequences in the batch. */
    int running;

    /** The pass over the queue in which it was last looked at. */
    long seen;

    private Line(Tenant tenant) {
      this.tenant = tenant;
    }

    /** Who goes first of those that could: whose reader is ready, and that await no sibling. */
    @Nullable Sequence next() {
      for (int i = 0; i < waiting.size(); i++) {
        Sequence sequence = waiting.get(i);
        if (sequence.ready && !sequence.siblings.waits(sequence)) {
          return sequence;
        }
      }
      return null;
    }

    /** Those that wait, oldest first. */
    List<Sequence> waiting() {
      return waiting;
    }

    private boolean before(Line other) {
      if (tenant.served != other.tenant.served) {
        return tenant.served < other.tenant.served;
      }
      if (served != other.served) {
        return served < other.served;
      }
      return waiting.getFirst().arrival < other.waiting.getFirst().arrival;
    }
  }

  private final Map<String, Tenant> tenants = new HashMap<>();

  /** Those with somebody waiting; in order after {@link #sort}. */
  private List<Line> lines = new ArrayList<>();

  private List<Line> spare = new ArrayList<>();

  /** Takes up a new sequence; until {@link #exit} it belongs to a line, waiting or not. */
  void enter(Sequence sequence) {
    Tenant tenant = tenants.get(sequence.task.tenant());
    if (tenant == null) {
      tenant = new Tenant();
      tenants.put(sequence.task.tenant(), tenant);
    }
    if (tenant.sequences++ == 0) {
      tenant.served = Math.max(tenant.served, least(tenant));
    }
    Line line = tenant.lines.get(sequence.identity);
    if (line == null) {
      line = new Line(tenant);
      tenant.lines.put(sequence.identity, line);
    }
    if (line.sequences++ == 0) {
      line.served = Math.max(line.served, least(line));
    }
    sequence.line = line;
  }

  /** The lowest counter of the others that are there; 0 if there are none. */
  private long least(Tenant other) {
    long least = Long.MAX_VALUE;
    for (Tenant tenant : tenants.values()) {
      if (tenant != other && tenant.sequences > 0) {
        least = Math.min(least, tenant.served);
      }
    }
    return least == Long.MAX_VALUE ? 0 : least;
  }

  private static long least(Line other) {
    long least = Long.MAX_VALUE;
    for (Line line : other.tenant.lines.values()) {
      if (line != other && line.sequences > 0) {
        least = Math.min(least, line.served);
      }
    }
    return least == Long.MAX_VALUE ? 0 : least;
  }

  /** A sequence has ended. */
  void exit(Sequence sequence) {
    Line line = sequence.line();
    Tenant tenant = line.tenant;
    line.sequences--;
    tenant.sequences--;
    // Who is alone owes nobody; and strangers' names are not to fill the memory.
    if (tenant.lines.size() > REMEMBERED || tenant.sequences == 0) {
      tenant.lines.values().removeIf(each -> each.sequences == 0);
    }
    if (tenants.size() > REMEMBERED || tenants.values().stream().allMatch(t -> t.sequences == 0)) {
      tenants.values().removeIf(each -> each.sequences == 0);
    }
  }

  /** The sequence waits. */
  void add(Sequence sequence) {
    Line line = sequence.line();
    int at = line.waiting.size();
    while (at > 0 && line.waiting.get(at - 1).arrival > sequence.arrival) {
      at--;
    }
    line.waiting.add(at, sequence);
    if (line.waiting.size() == 1) {
      lines.add(line);
    }
  }

  /** The sequence waits no longer; nothing happens if it did not. */
  void remove(Sequence sequence) {
    Line line = sequence.line();
    if (line.waiting.remove(sequence) && line.waiting.isEmpty()) {
      lines.remove(line);
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

  private static void charge(Line line, long price) {
    line.served += price;
    line.tenant.served += price;
  }

  /** Tenants that are remembered. */
  int tenants() {
    return tenants.size();
  }

  /** Lines with somebody waiting. */
  int lines() {
    return lines.size();
  }

  /** The {@code i}th line in order, see {@link #sort}. */
  Line line(int i) {
    return lines.get(i);
  }

  /** Puts the lines in order: at no cost where they are. Allocates nothing. */
  void sort() {
    int count = lines.size();
    for (int width = 1; width < count && !sorted(); width *= 2) {
      for (int from = 0; from < count; from += 2 * width) {
        merge(from, Math.min(from + width, count), Math.min(from + 2 * width, count));
      }
      List<Line> merged = spare;
      spare = lines;
      lines = merged;
      spare.clear();
    }
  }

  private boolean sorted() {
    for (int i = 1; i < lines.size(); i++) {
      if (lines.get(i).before(lines.get(i - 1))) {
        return false;
      }
    }
    return true;
  }

  private void merge(int from, int middle, int to) {
    int left = from;
    int right = middle;
    while (left < middle || right < to) {
      boolean second = left == middle || (right < to && lines.get(right).before(lines.get(left)));
      spare.add(lines.get(second ? right++ : left++));
    }
  }
}
