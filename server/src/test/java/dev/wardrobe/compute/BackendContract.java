package dev.wardrobe.compute;

/**
 * What the contract tests share: each is written once against {@link Backend} and runs on every
 * backend through a subclass.
 */
public abstract class BackendContract {
  /** A new backend, with a seed for the test's numbers. */
  public abstract Lab lab(long seed);
}
