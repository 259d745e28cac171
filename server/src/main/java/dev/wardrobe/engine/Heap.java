package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A binary heap that knows where each of its entries is, so that any can leave. What orders an
 * entry must not change while it is in here.
 */
final class Heap<T extends Heap.Entry<T>> {
  /** What can be in one heap at a time. */
  abstract static class Entry<T> {
    /** Its index there, or -1. */
    private int place = -1;

    /** Whether it leaves before {@code other}, if neither is taken out. */
    abstract boolean before(T other);
  }

  private final List<T> entries = new ArrayList<>();

  /** The first one, which stays; null if there is none. */
  @Nullable T first() {
    return entries.isEmpty() ? null : entries.getFirst();
  }

  boolean contains(T entry) {
    return place(entry) >= 0;
  }

  void add(T entry) {
    entries.add(entry);
    up(entries.size() - 1, entry);
  }

  /** Takes an entry out; nothing happens if it is not there. */
  void remove(T entry) {
    int at = place(entry);
    if (at < 0) {
      return;
    }
    place(entry, -1);
    T last = entries.removeLast();
    if (at < entries.size()) {
      up(at, last);
      down(place(last), last);
    }
  }

  private void up(int from, T entry) {
    int at = from;
    while (at > 0 && entry.before(entries.get((at - 1) / 2))) {
      set(at, entries.get((at - 1) / 2));
      at = (at - 1) / 2;
    }
    set(at, entry);
  }

  private void down(int from, T entry) {
    int at = from;
    int child = least(at);
    while (child < entries.size() && entries.get(child).before(entry)) {
      set(at, entries.get(child));
      at = child;
      child = least(at);
    }
    set(at, entry);
  }

  /** The child that leaves first; past the end if there is none. */
  private int least(int at) {
    int left = 2 * at + 1;
    int right = left + 1;
    return right < entries.size() && entries.get(right).before(entries.get(left)) ? right : left;
  }

  private void set(int at, T entry) {
    entries.set(at, entry);
    place(entry, at);
  }

  private static int place(Entry<?> entry) {
    return entry.place;
  }

  private static void place(Entry<?> entry, int at) {
    entry.place = at;
  }
}
