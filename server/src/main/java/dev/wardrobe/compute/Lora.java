package dev.wardrobe.compute;

/**
 * One adapter's deltas resident in a backend's memory, at their exact rank and stored type.
 * Immutable; closed when no request uses it any more.
 */
public interface Lora extends AutoCloseable {
  long bytes();

  /**
   * Whether all it does is to add its deltas, so that they can be scaled and summed with others':
   * low-rank products and the biases of their B. DoRA rescales, and a bias or a weight of its own
   * replaces what the base has.
   */
  boolean additive();

  @Override
  void close();
}
