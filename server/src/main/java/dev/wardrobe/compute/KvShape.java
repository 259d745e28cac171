package dev.wardrobe.compute;

/**
 * The shape of a paged KV cache.
 *
 * @param blocks blocks of {@link #BLOCK_TOKENS} tokens, shared by all sequences
 */
public record KvShape(int layers, int kvHeads, int headDim, int blocks, Type type) {
  /** Tokens a block holds. */
  public static final int BLOCK_TOKENS = 16;

  /** What a block's bytes are rounded up to, so that its memory can be given back by itself. */
  private static final int ALIGNMENT = 4096;

  /** How keys and values are stored; attention always reads them as stored. */
  public enum Type {
    F32(4),
    BF16(2);

    private final int bytes;

    Type(int bytes) {
      this.bytes = bytes;
    }

    public int bytes() {
      return bytes;
    }
  }

  /** Bytes of one block over all layers, keys and values: a page of the memory budget. */
  public long blockBytes() {
    long bytes = 2L * layers * kvHeads * headDim * BLOCK_TOKENS * type.bytes();
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }

  /**
   * Checks that a layer of such heads is one of this cache's.
   *
   * @throws IllegalArgumentException if not
   */
  public void expect(Heads heads, int layer) {
    if (heads.keyValues() != kvHeads
        || heads.size() != headDim
        || heads.size() % 2 != 0
        || heads.keyValues() < 1
        || heads.queries() % heads.keyValues() != 0
        || layer < 0
        || layer >= layers) {
      throw new IllegalArgumentException(
          "layer %d, %s do not fit a cache of %s".formatted(layer, heads, this));
    }
  }

  public long bytes() {
    return blockBytes() * blocks;
  }
}
