package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The {@code loop} of a for: where it stands, and what comes before and after. */
final class Loop {

  private final Iterator<Object> source;
  private final int depth;
  private final @Nullable Callable recursion;

  /** Items read from the source ahead of their turn. */
  private final Deque<Object> ahead = new ArrayDeque<>();

  private @Nullable Object previous;
  private @Nullable Object current;
  private @Nullable List<Object> lastChanged;
  private int turn;

  /**
   * Begins before the first item.
   *
   * @param depth 1 for a loop that is not a recursion's
   * @param recursion what {@code loop(items)} calls; null unless the for is recursive
   */
  Loop(Iterator<Object> source, int depth, @Nullable Callable recursion) {
    this.source = source;
    this.depth = depth;
    this.recursion = recursion;
  }

  boolean hasNext() {
    return !ahead.isEmpty() || source.hasNext();
  }

  Object next() {
    Budget.steps(1);
    Object item = ahead.isEmpty() ? source.next() : ahead.remove();
    previous = current;
    current = item;
    turn++;
    return item;
  }

  /** The number of the current turn, from 1. */
  int turn() {
    return turn;
  }

  int length() {
    while (source.hasNext()) {
      Budget.steps(1);
      ahead.add(source.next());
    }
    return turn + ahead.size();
  }

  Object recurse(Arguments arguments) {
    if (recursion == null) {
      throw new TemplateFailure(
          "The loop must have the 'recursive' marker to be called recursively.");
    }
    return recursion.call(arguments);
  }

  @Nullable Object attribute(String name) {
    return switch (name) {
      case "index" -> BigInteger.valueOf(turn);
      case "index0" -> BigInteger.valueOf(turn - 1L);
      case "revindex" -> BigInteger.valueOf(length() - turn + 1L);
      case "revindex0" -> BigInteger.valueOf((long) length() - turn);
      case "first" -> turn == 1;
      case "last" -> !hasNext();
      case "length" -> BigInteger.valueOf(length());
      case "depth" -> BigInteger.valueOf(depth);
      case "depth0" -> BigInteger.valueOf(depth - 1L);
      case "previtem" -> previous != null ? previous : new Undefined("there is no previous item");
      case "nextitem" -> nextItem();
      case "cycle" -> (Callable) this::cycle;
      case "changed" -> (Callable) this::changed;
      default -> null;
    };
  }

  private Object nextItem() {
    if (!hasNext()) {
      return new Undefined("there is no next item");
    }
    if (ahead.isEmpty()) {
      ahead.add(source.next());
    }
    return ahead.element();
  }

  private Object cycle(Arguments arguments) {
    List<Object> choices = arguments.positional();
    if (choices.isEmpty()) {
      throw new TemplateFailure("no items for cycling given");
    }
    return choices.get((turn - 1) % choices.size());
  }

  private Object changed(Arguments arguments) {
    List<Object> now = arguments.positional();
    boolean changed = lastChanged == null || !Values.equal(lastChanged, now);
    lastChanged = now;
    return changed;
  }
}
