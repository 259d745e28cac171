package dev.wardrobe.adapter;

/**
 * What looking through the adapter roots came to.
 *
 * @param adapters directories that hold an {@code adapter_config.json}
 * @param broken those of them that cannot be used
 * @param complete whether everything was seen
 */
public record ScanResult(int adapters, int broken, boolean complete, long nanos) {

  /** For people. */
  @Override
  public String toString() {
    return "%d adapters, of which %d cannot be used, in %d ms%s"
        .formatted(
            adapters,
            broken,
            nanos / 1_000_000,
            complete ? "" : "; the scan ended early, there may be more");
  }
}
