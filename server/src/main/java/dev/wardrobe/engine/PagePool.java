package dev.wardrobe.engine;

import dev.wardrobe.compute.KvCache;
import java.util.Arrays;
import java.util.BitSet;

/**
 * The pages of the memory budget: the KV cache's blocks. Belongs to the engine's thread.
 *
 * <p>A block is in one of four states. It is <em>free</em>; or <em>in use</em>, by as many
 * sequences as its count says; or <em>cached</em>: nobody holds it, but the {@link PrefixIndex}
 * knows what it holds, and it stays until its place is wanted, the least recently used going first;
 * or <em>lent</em>: its memory was given back to the system, so that an adapter can take as much.
 *
 * <p>Whoever holds an indexed block also holds the blocks before it in its prefix, and gives them
 * back after it. So a cached block is never before its prefix in the order of use, and what goes
 * first has no successors.
 */
final class PagePool {
  /** No block is available. */
  static final int NONE = -1;

  private static final int LENT = -1;

  private final KvCache cache;
  private final PrefixIndex index;

  /** How many sequences hold a block, or {@link #LENT}. */
  private final int[] counts;

  /**
   * Free blocks, in a ring: at its end those that were used last, which sequences take first; at
   * its beginning those that have no memory, which are lent first. So little memory changes hands.
   */
  private final int[] ring;

  private final BitSet touched;
  private int touchedCount;
  private int first;
  private int free;

  private final int[] lentBlocks;
  private int lent;

  // Cached blocks, in order of use; NONE at the ends.
  private final int[] before;
  private final int[] after;
  private int oldest = NONE;
  private int newest = NONE;
  private int cached;
  private long evictions;

  PagePool(KvCache cache) {
    this(cache, new PrefixIndex(cache.shape().blocks()));
  }

  PagePool(KvCache cache, PrefixIndex index) {
    this.cache = cache;
    this.index = index;
    int blocks = cache.shape().blocks();
    counts = new int[blocks];
    touched = new BitSet(blocks);
    ring = new int[blocks];
    lentBlocks = new int[blocks];
    before = new int[blocks];
    after = new int[blocks];
    Arrays.setAll(ring, i -> blocks - 1 - i);
    free = blocks;
  }

  /** Blocks in all, whatever their state. */
  int blocks() {
    return counts.length;
  }

  /** Bytes of a block. */
  long blockBytes() {
    return cache.shape().blockBytes();
  }

  /** What the cached blocks hold, and those in use that are complete. */
  PrefixIndex index() {
    return index;
  }

  /** Blocks that can be taken or lent: free and cached ones. */
  int available() {
    return free + cached;
  }

  int cached() {
    return cached;
  }

  int lent() {
    return lent;
  }

  /** Cached blocks that gave their places to others so far. */
  long evictions() {
    return evictions;
  }

  /** A block with a count of 1, which may hold anything; {@link #NONE} if none is available. */
  int take() {
    if (available() == 0) {
      return NONE;
    }
    int block = free > 0 ? ring[(first + --free) % ring.length] : evict();
    counts[block] = 1;
    touch(block, true);
    return block;
  }

  /** Takes a block that is in use or cached once more. */
  void share(int block) {
    if (counts[block] == 0) {
      if (!index.contains(block)) {
        throw new IllegalStateException("block %d is free".formatted(block));
      }
      unlink(block);
    } else if (counts[block] == LENT) {
      throw new IllegalStateException("block %d is lent".formatted(block));
    }
    counts[block]++;
  }

  /**
   * Gives the first {@code count} of a sequence's blocks back, the last one first. Those that
   * others use stay, those that are indexed become cached.
   */
  void give(int[] blocks, int count) {
    for (int i = count - 1; i >= 0; i--) {
      give(blocks[i]);
    }
  }

  /** Gives one block back. */
  void give(int block) {
    if (counts[block] < 1) {
      throw new IllegalStateException("block %d was given back twice".formatted(block));
    }
    if (--counts[block] > 0) {
      return;
    }
    if (index.contains(block)) {
      link(block);
    } else {
      ring[(first + free++) % ring.length] = block;
    }
  }

  /**
   * Takes blocks out of circulation and gives their memory back to the system.
   *
   * @return false, and nothing has changed, if that many are not available
   */
  boolean lend(int count) {
    if (count > available()) {
      return false;
    }
    for (int i = 0; i < count; i++) {
      int block = free > 0 ? coldest() : evict();
      counts[block] = LENT;
      touch(block, false);
      cache.decommit(block);
      lentBlocks[lent++] = block;
    }
    return true;
  }

  /** Takes lent blocks back, whose memory was freed. */
  void reclaim(int count) {
    if (count > lent) {
      throw new IllegalStateException(
          "%d blocks were given back, but %d are lent".formatted(count, lent));
    }
    for (int i = 0; i < count; i++) {
      int block = lentBlocks[--lent];
      cache.commit(block);
      counts[block] = 0;
      first = (first + ring.length - 1) % ring.length;
      ring[first] = block;
      free++;
    }
  }

  private void touch(int block, boolean now) {
    if (touched.get(block) != now) {
      touched.flip(block);
      touchedCount += now ? 1 : -1;
    }
  }

  /** Blocks that the system has memory for: those that were ever taken, and not lent since. */
  int touched() {
    return touchedCount;
  }

  /** Takes the free block that was not used for longest. */
  private int coldest() {
    int block = ring[first];
    first = (first + 1) % ring.length;
    free--;
    return block;
  }

  /** Takes the least recently used of the cached blocks. */
  private int evict() {
    int block = oldest;
    unlink(block);
    index.remove(block);
    evictions++;
    return block;
  }

  private void link(int block) {
    before[block] = newest;
    after[block] = NONE;
    if (newest == NONE) {
      oldest = block;
    } else {
      after[newest] = block;
    }
    newest = block;
    cached++;
  }

  private void unlink(int block) {
    if (before[block] == NONE) {
      oldest = after[block];
    } else {
      after[before[block]] = after[block];
    }
    if (after[block] == NONE) {
      newest = before[block];
    } else {
      before[after[block]] = before[block];
    }
    cached--;
  }
}
