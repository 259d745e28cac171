package dev.wardrobe.serve;

import java.util.List;

/**
 * Watches an answer for the texts that end it, wherever the borders of its pieces fall.
 *
 * <p>The answer ends at the stop text that is complete first, the longest if several end at the
 * same character; what stands before it is released. Text that may still become a stop text is held
 * back.
 *
 * <p>A stop text that is complete before the answer may end is none, but one that only begins
 * before is.
 */
final class StopText {
  private final List<String> stops;
  private String held = "";
  private boolean found;

  StopText(List<String> stops) {
    this.stops = List.copyOf(stops);
  }

  /** Whether a stop text was found. */
  boolean found() {
    return found;
  }

  /**
   * Takes the next piece; returns what can be released.
   *
   * @param mayEnd whether the answer may end with this piece
   */
  String add(String piece, boolean mayEnd) {
    if (found || piece.isEmpty()) {
      return "";
    }
    if (stops.isEmpty()) {
      return piece;
    }
    String text = held + piece;
    int end = Integer.MAX_VALUE;
    int start = 0;
    for (String stop : mayEnd ? stops : List.<String>of()) {
      // What was held back has no stop text in it, unless one that was none.
      int at = text.indexOf(stop, Math.max(0, held.length() - stop.length() + 1));
      if (at >= 0 && (at + stop.length() < end || (at + stop.length() == end && at < start))) {
        start = at;
        end = at + stop.length();
      }
    }
    found = end != Integer.MAX_VALUE;
    int released = found ? start : text.length() - undecided(text);
    held = found ? "" : text.substring(released);
    return text.substring(0, released);
  }

  /** The answer is over: releases what was held back. */
  String flush() {
    String rest = held;
    held = "";
    return rest;
  }

  /** Length of the longest end of {@code text} that begins a stop text. */
  private int undecided(String text) {
    int longest = 0;
    for (String stop : stops) {
      for (int n = Math.min(stop.length() - 1, text.length()); n > longest; n--) {
        if (text.regionMatches(text.length() - n, stop, 0, n)) {
          longest = n;
        }
      }
    }
    return longest;
  }
}
