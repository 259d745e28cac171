package dev.wardrobe.engine;

import dev.wardrobe.adapter.Lease;

/**
 * One of the adapters that a sequence adds to the base.
 *
 * @param scale by what its deltas are multiplied; finite, and not 0
 */
public record AdapterPart(Lease lease, float scale) {
  public AdapterPart {
    if (!Float.isFinite(scale) || scale == 0) {
      throw new IllegalArgumentException(
          "adapter '%s': expected a finite scale other than 0, got %s"
              .formatted(lease.name(), scale));
    }
  }

  /** An adapter as it is. */
  public AdapterPart(Lease lease) {
    this(lease, 1);
  }
}
