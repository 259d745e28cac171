package dev.wardrobe.text;

/** Python's {@code None}. */
enum None {
  NONE
}
