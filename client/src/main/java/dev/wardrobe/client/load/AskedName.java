package dev.wardrobe.client.load;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Set;

/**
 * A name that requests ask for, and what it may have stood for at each time. A change that is under
 * way has happened or has not: until it is done, both are right.
 */
final class AskedName {
  /** Instead of a digest: that there is nothing of this name. */
  static final String NOTHING = "nothing";

  /** States that a request may still have seen. */
  private static final int KEPT = 256;

  private final String name;
  private final Deque<State> states = new ArrayDeque<>();

  private record State(long since, Set<String> digests) {}

  /**
   * @param digest what it stands for, or {@link #NOTHING}
   */
  AskedName(String name, String digest) {
    this.name = name;
    add(Set.of(digest));
  }

  String name() {
    return name;
  }

  private synchronized void add(Set<String> digests) {
    states.addFirst(new State(System.nanoTime(), digests));
    if (states.size() > KEPT) {
      states.removeLast();
    }
  }

  /** It is about to stand for something else. */
  synchronized void changing(String digest) {
    Set<String> either = new HashSet<>(states.getFirst().digests);
    either.add(digest);
    add(either);
  }

  /** It stands for this from now on. */
  void changed(String digest) {
    add(Set.of(digest));
  }

  /** What it stands for, if no change is under way; else any of what it may. */
  synchronized String now() {
    return states.getFirst().digests.iterator().next();
  }

  /** All that it may have stood for between two times. */
  synchronized Set<String> between(long from, long to) {
    Set<String> possible = new HashSet<>();
    Iterator<State> latestFirst = states.iterator();
    while (latestFirst.hasNext()) {
      State state = latestFirst.next();
      if (state.since - to <= 0) {
        possible.addAll(state.digests);
        if (state.since - from < 0) {
          break;
        }
      }
    }
    return possible;
  }
}
