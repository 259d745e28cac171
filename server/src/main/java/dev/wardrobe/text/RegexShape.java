package dev.wardrobe.text;

import java.util.ArrayDeque;
import java.util.Deque;
import org.jspecify.annotations.Nullable;

/**
 * A look at a tokenizer's regular expression for what makes matching take exponential time: a
 * repetition or choice inside a repeated group, or references back to groups. The native engine
 * gives up on such a match by ending the process. No tokenizer in use splits text with either.
 */
final class RegexShape {

  private static final int MAX_LENGTH = 20_000;

  private RegexShape() {}

  /** Returns what is wrong with the pattern, or null. */
  static @Nullable String objection(String regex) {
    if (regex.isEmpty() || regex.length() > MAX_LENGTH) {
      return "has " + regex.length() + " characters; 1 to " + MAX_LENGTH + " are supported";
    }
    // For each open group, whether something inside it repeats or chooses.
    Deque<Boolean> repeats = new ArrayDeque<>();
    repeats.push(false);
    boolean groupRepeats = false;
    boolean afterGroup = false;
    int i = 0;
    while (i < regex.length()) {
      char c = regex.charAt(i);
      boolean wasGroup = afterGroup;
      afterGroup = false;
      switch (c) {
        case '\\' -> {
          char next = i + 1 < regex.length() ? regex.charAt(i + 1) : 0;
          if ((next >= '1' && next <= '9') || next == 'k' || next == 'g') {
            return "refers back to a group";
          }
          i++;
        }
        case '[' -> i = classEnd(regex, i);
        case '(' -> repeats.push(false);
        case ')' -> {
          if (repeats.size() == 1) {
            return "closes a group that is not open";
          }
          groupRepeats = repeats.pop();
          if (groupRepeats) {
            repeats.pop();
            repeats.push(true);
          }
          afterGroup = true;
        }
        case '*', '+', '{' -> {
          int end = c == '{' ? regex.indexOf('}', i) : i;
          if (c == '{' && (end < 0 || !regex.substring(i + 1, end).matches("\\d*,?\\d*"))) {
            break;
          }
          if (wasGroup && groupRepeats) {
            return "repeats a group that holds a repetition or a choice";
          }
          boolean small = c == '{' && regex.substring(i + 1, end).matches("\\d(,\\d)?");
          if (!small || wasGroup) {
            repeats.pop();
            repeats.push(true);
          }
          i = end;
          // A group that was repeated once must not be repeated again: (a+)?+ and the like.
          afterGroup = wasGroup;
          groupRepeats |= !small;
        }
        case '|' -> {
          // Several ways to match the same text, as (a|aa)+ has, multiply too.
          repeats.pop();
          repeats.push(true);
        }
        case '?' -> afterGroup = wasGroup;
        default -> {}
      }
      i++;
    }
    return null;
  }

  /** Where a character class ends; classes may stand inside one another. */
  private static int classEnd(String regex, int open) {
    int depth = 0;
    for (int i = open; i < regex.length(); i++) {
      char c = regex.charAt(i);
      if (c == '\\') {
        i++;
      } else if (c == '[') {
        depth++;
        boolean negated = i + 1 < regex.length() && regex.charAt(i + 1) == '^';
        int first = negated ? i + 2 : i + 1;
        if (first < regex.length() && regex.charAt(first) == ']') {
          i = first;
        }
      } else if (c == ']' && --depth == 0) {
        return i;
      }
    }
    return regex.length();
  }
}
