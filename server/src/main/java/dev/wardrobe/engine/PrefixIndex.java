package dev.wardrobe.engine;

import dev.wardrobe.compute.KvShape;
import java.security.SecureRandom;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * What complete KV blocks hold, by {@link Identity} and tokens: a forest, in which a block's parent
 * holds the 16 tokens before its own. Belongs to the engine's thread.
 *
 * <p>A hash, chained from the parent's, finds candidates; only equality of the parent (of the
 * identity, where there is none) and of all tokens makes one a hit. Since a parent stays for as
 * long as it has children, that is equality of the whole prefix, so no collision can hand out keys
 * and values of other tokens or of another adapter. The hash begins with a secret, lest somebody
 * choose prompts that collide to make looking up slow.
 */
final class PrefixIndex {
  /** No block. */
  static final int NONE = PagePool.NONE;

  private static final int TOKENS = KvShape.BLOCK_TOKENS;

  private final long secret = new SecureRandom().nextLong();
  private final long hashMask;

  /** The first block of each hash bucket. */
  private final int[] buckets;

  // By block.
  private final int[] next;
  private final long[] hashes;
  private final int[] parents;
  private final int[] children;
  private final boolean[] present;
  private final int[] tokens;

  /** Of blocks without a parent. */
  private final @Nullable Identity[] identities;

  private int size;

  PrefixIndex(int blocks) {
    this(blocks, -1);
  }

  /**
   * @param hashMask the bits of the hash that count; a test leaves none
   */
  PrefixIndex(int blocks, long hashMask) {
    this.hashMask = hashMask;
    buckets = new int[Integer.highestOneBit(Math.max(1, blocks)) * 2];
    next = new int[blocks];
    hashes = new long[blocks];
    parents = new int[blocks];
    children = new int[blocks];
    present = new boolean[blocks];
    tokens = new int[Math.multiplyExact(blocks, TOKENS)];
    identities = new Identity[blocks];
    Arrays.fill(buckets, NONE);
  }

  /** Blocks that it knows. */
  int size() {
    return size;
  }

  boolean contains(int block) {
    return present[block];
  }

  /**
   * The block that holds {@code tokens[at]} to {@code tokens[at + 15]} after what {@code parent}
   * and its ancestors hold, or {@link #NONE}.
   *
   * @param parent {@link #NONE} for a sequence's first tokens
   */
  int find(Identity identity, int parent, int[] tokens, int at) {
    long hash = hash(identity, parent, tokens, at);
    for (int block = buckets[bucket(hash)]; block != NONE; block = next[block]) {
      if (hashes[block] == hash
          && parents[block] == parent
          && (parent != NONE || identity.equals(identities[block]))
          && Arrays.equals(
              this.tokens, block * TOKENS, (block + 1) * TOKENS, tokens, at, at + TOKENS)) {
        return block;
      }
    }
    return NONE;
  }

  /**
   * Notes what a block holds, which {@link #find} does not find yet. Its parent is known, and stays
   * for as long as the block.
   */
  void add(Identity identity, int parent, int[] tokens, int at, int block) {
    if (present[block] || (parent != NONE && !present[parent])) {
      throw new IllegalStateException(
          "block %d is known already, or its parent %d is not".formatted(block, parent));
    }
    long hash = hash(identity, parent, tokens, at);
    int bucket = bucket(hash);
    next[block] = buckets[bucket];
    buckets[bucket] = block;
    hashes[block] = hash;
    parents[block] = parent;
    children[block] = 0;
    present[block] = true;
    System.arraycopy(tokens, at, this.tokens, block * TOKENS, TOKENS);
    if (parent == NONE) {
      identities[block] = identity;
    } else {
      children[parent]++;
    }
    size++;
  }

  /** Forgets a block, which has no children. */
  void remove(int block) {
    if (!present[block] || children[block] > 0) {
      throw new IllegalStateException(
          "block %d is unknown, or has %d children".formatted(block, children[block]));
    }
    int bucket = bucket(hashes[block]);
    if (buckets[bucket] == block) {
      buckets[bucket] = next[block];
    } else {
      int earlier = buckets[bucket];
      while (next[earlier] != block) {
        earlier = next[earlier];
      }
      next[earlier] = next[block];
    }
    if (parents[block] == NONE) {
      identities[block] = null;
    } else {
      children[parents[block]]--;
    }
    present[block] = false;
    size--;
  }

  private int bucket(long hash) {
    return (int) hash & buckets.length - 1;
  }

  private long hash(Identity identity, int parent, int[] tokens, int at) {
    long hash = parent == NONE ? secret ^ identity.hashCode() : hashes[parent] + 1;
    for (int i = at; i < at + TOKENS; i++) {
      hash = (Long.rotateLeft(hash, 23) ^ tokens[i]) * (secret | 1);
    }
    // What decides the bucket, the lowest bits, is to depend on all of them.
    hash = (hash ^ hash >>> 32) * 0x9E3779B97F4A7C15L;
    return (hash ^ hash >>> 29) & hashMask;
  }
}
