package dev.wardrobe.text;

import java.util.List;

/**
 * Python's tuple.
 *
 * @param names attributes for the items, as a named tuple has; empty for a plain one
 */
record Tuple(List<Object> items, List<String> names) {

  Tuple(List<Object> items) {
    this(items, List.of());
  }

  static Tuple of(Object... items) {
    return new Tuple(List.of(items));
  }
}
