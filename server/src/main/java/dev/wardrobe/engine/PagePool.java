package dev.wardrobe.engine;

import java.util.BitSet;

/** The KV cache's blocks: which are free. */
final class PagePool {
  /** None is free. */
  static final int NONE = -1;

  private final int[] free;
  private final BitSet taken;
  private int available;

  PagePool(int blocks) {
    free = new int[blocks];
    for (int i = 0; i < blocks; i++) {
      free[i] = blocks - 1 - i;
    }
    taken = new BitSet(blocks);
    available = blocks;
  }

  int blocks() {
    return free.length;
  }

  int available() {
    return available;
  }

  /** A free block, or {@link #NONE}. */
  int take() {
    if (available == 0) {
      return NONE;
    }
    int block = free[--available];
    taken.set(block);
    return block;
  }

  /** Gives back the first {@code count} of {@code blocks}. */
  void give(int[] blocks, int count) {
    for (int i = 0; i < count; i++) {
      if (!taken.get(blocks[i])) {
        throw new IllegalStateException("block %d was given back twice".formatted(blocks[i]));
      }
      taken.clear(blocks[i]);
      free[available++] = blocks[i];
    }
  }
}
