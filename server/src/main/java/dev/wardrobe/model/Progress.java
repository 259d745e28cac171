package dev.wardrobe.model;

/** Told how far something is that takes long; by one thread at a time. */
@FunctionalInterface
public interface Progress {
  /** For what nobody waits for. */
  Progress NONE = (_, _, _) -> {};

  /** So many of so many are done; {@code what} is the last of them, or the next. */
  void at(long done, long of, String what);
}
