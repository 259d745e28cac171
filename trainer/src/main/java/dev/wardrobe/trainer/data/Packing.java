package dev.wardrobe.trainer.data;

import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;

/**
 * Puts rows together so that little of a pack stays empty: best fit decreasing, within windows, so
 * that no row goes far from its place and the time is that of sorting. Rows of a pack do not see
 * each other: attention and positions begin anew with each.
 */
final class Packing {
  /** Rows that are packed together. */
  private static final int WINDOW = 4096;

  private Packing() {}

  /**
   * Packs rows.
   *
   * @param order the rows, as they are to follow each other
   * @param capacity tokens of a pack; a row that has more is a pack of its own
   * @return the rows of each pack
   */
  static int[][] pack(Rows rows, int[] order, int capacity) {
    int[][] packs = new int[order.length][];
    int count = 0;
    for (int from = 0; from < order.length; from += WINDOW) {
      int[] window = Arrays.copyOfRange(order, from, Math.min(order.length, from + WINDOW));
      count = window(rows, window, capacity, packs, count);
    }
    return Arrays.copyOf(packs, count);
  }

  private static int window(Rows rows, int[] window, int capacity, int[][] packs, int first) {
    long[] longestFirst = new long[window.length];
    for (int i = 0; i < window.length; i++) {
      longestFirst[i] = (long) -rows.length(window[i]) << 32 | i;
    }
    Arrays.sort(longestFirst);
    // By the room that is left: the packs that have it, and how many rows each pack has.
    TreeMap<Integer, Stack> open = new TreeMap<>();
    int[] sizes = new int[window.length];
    int count = first;
    for (long key : longestFirst) {
      int row = window[(int) key];
      int length = rows.length(row);
      Map.Entry<Integer, Stack> fitting = open.ceilingEntry(length);
      int pack;
      int room;
      if (fitting == null) {
        pack = count++;
        packs[pack] = new int[1];
        room = capacity;
      } else {
        pack = fitting.getValue().pop();
        room = fitting.getKey();
        if (fitting.getValue().isEmpty()) {
          open.remove(room);
        }
      }
      int at = sizes[pack - first]++;
      packs[pack] = at < packs[pack].length ? packs[pack] : Arrays.copyOf(packs[pack], 2 * at);
      packs[pack][at] = row;
      if (room > length) {
        open.computeIfAbsent(room - length, left -> new Stack()).push(pack);
      }
    }
    for (int pack = first; pack < count; pack++) {
      packs[pack] = Arrays.copyOf(packs[pack], sizes[pack - first]);
    }
    return count;
  }

  /** Packs with the same room. */
  private static final class Stack {
    private int[] packs = new int[2];
    private int size;

    void push(int pack) {
      packs = size < packs.length ? packs : Arrays.copyOf(packs, 2 * size);
      packs[size++] = pack;
    }

    int pop() {
      return packs[--size];
    }

    boolean isEmpty() {
      return size == 0;
    }
  }
}
