package dev.wardrobe.compute;

/**
 * A batch as the backend sees it: its tables uploaded once, used by every operation of the step.
 */
public interface Step extends AutoCloseable {
  Batch batch();

  @Override
  void close();
}
