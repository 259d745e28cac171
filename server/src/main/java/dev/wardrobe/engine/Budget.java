package dev.wardrobe.engine;

import dev.wardrobe.compute.KvShape;

/**
 * The memory that keys and values share with adapters, in pages: the KV cache's blocks.
 *
 * @param shape of the KV cache if it had all of it
 * @param kvFloor pages that adapters leave to keys and values
 * @param adapterFloor pages that keys and values leave to adapters
 */
public record Budget(KvShape shape, int kvFloor, int adapterFloor) {
  public Budget {
    if (kvFloor < 1 || adapterFloor < 0 || kvFloor > shape.blocks() - adapterFloor) {
      throw new IllegalArgumentException(
          ("memory-mib: expected room for the %d pages of keys and values and the %d of adapters"
               + " that each is sure of, got %d; give more, or make kv-tokens or adapter-cache-mib"
               + " less")
              .formatted(kvFloor, adapterFloor, shape.blocks()));
    }
  }

  /** Most tokens that one sequence may have by it. */
  public long mostTokens() {
    return (long) (shape.blocks() - adapterFloor) * KvShape.BLOCK_TOKENS;
  }

  /** Most bytes that adapters may have. */
  public long mostAdapterBytes() {
    return (shape.blocks() - kvFloor) * shape.blockBytes();
  }
}
