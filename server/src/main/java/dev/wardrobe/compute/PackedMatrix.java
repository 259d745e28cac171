package dev.wardrobe.compute;

import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * A resident matrix as bytes, in its backend's own layout: what a file keeps, so that the matrix
 * can be made resident again without its source.
 *
 * @param form what the parts are; small, and read by the backend alone
 * @param parts the weights and their statistics, each aligned to {@link #ALIGNMENT} bytes
 */
public record PackedMatrix(MemorySegment form, List<MemorySegment> parts) {
  /** A cache line, and the widest vector. */
  public static final int ALIGNMENT = 64;

  public PackedMatrix {
    parts = List.copyOf(parts);
  }
}
