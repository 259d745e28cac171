package dev.wardrobe.grammar;

import java.util.Arrays;
import java.util.List;

/**
 * Tokens by their bytes: the nodes of a tree of prefixes, each before those below it, so that a
 * walk over all of it goes from one index to the next, and over a dead branch in one jump.
 */
final class Trie {
  /** The byte that leads to a node. */
  final byte[] label;

  /** Bytes in front of that one. */
  final short[] depth;

  /** The first node that is not below. */
  final int[] end;

  /** A node's tokens: those from its entry here up to the next one's. */
  final int[] from;

  final int[] tokens;
  final int deepest;

  /**
   * Makes the tree.
   *
   * @param tokens ids
   * @param bytes theirs, by id; none are empty
   */
  Trie(List<Integer> tokens, byte[][] bytes) {
    int[] sorted =
        tokens.stream()
            .sorted((a, b) -> Arrays.compareUnsigned(bytes[a], bytes[b]))
            .mapToInt(Integer::intValue)
            .toArray();
    int most = 0;
    for (int token : sorted) {
      most += bytes[token].length;
    }
    byte[] labels = new byte[most];
    short[] depths = new short[most];
    int[] ends = new int[most];
    int[] firsts = new int[most + 1];
    int[] path = new int[TokenTable.LONGEST];
    int nodes = 0;
    byte[] before = {};
    int depth = 0;
    int longest = 0;
    for (int i = 0; i < sorted.length; i++) {
      byte[] word = bytes[sorted[i]];
      int common = Arrays.mismatch(before, word);
      common = common < 0 ? word.length : common;
      while (depth > common) {
        ends[path[--depth]] = nodes;
      }
      while (depth < word.length) {
        labels[nodes] = word[depth];
        depths[nodes] = (short) depth;
        // A token that ends at a node comes before those that go on from there.
        firsts[nodes] = i;
        path[depth++] = nodes++;
      }
      longest = Math.max(longest, depth);
      before = word;
    }
    while (depth > 0) {
      ends[path[--depth]] = nodes;
    }
    label = Arrays.copyOf(labels, nodes);
    this.depth = Arrays.copyOf(depths, nodes);
    end = Arrays.copyOf(ends, nodes);
    from = Arrays.copyOf(firsts, nodes + 1);
    from[nodes] = sorted.length;
    this.tokens = sorted;
    deepest = longest;
  }

  int size() {
    return label.length;
  }
}
