package dev.wardrobe.compute;

/**
 * One adapter's deltas resident in a backend's memory, at their exact rank and stored type.
 * Immutable; closed when no request uses it any more.
 */
public interface Lora extends AutoCloseable {
  long bytes();

  @Override
  void close();
}
