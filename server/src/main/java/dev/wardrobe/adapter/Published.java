package dev.wardrobe.adapter;

/**
 * A version that is in the store.
 *
 * @param adapter as it was when it was published
 * @param existed whether it was there before, with that content
 */
public record Published(AdapterEntry adapter, String version, boolean existed) {
  /** {@code NAME@VERSION}. */
  public String name() {
    return adapter.name();
  }
}
