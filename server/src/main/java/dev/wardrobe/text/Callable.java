package dev.wardrobe.text;

/** Something that a template can call. */
@FunctionalInterface
interface Callable {
  Object call(Arguments arguments);
}
