package dev.wardrobe.grammar;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Open rules: for each position in the innermost one, with its loop's counter, the frames to return
 * to. As a machine's state it has positions that read bytes only. Equal ones are one object, as
 * long as its {@link Machine} knows them.
 */
final class Frames {
  private static final int[] NONE = {};

  /** Behind the outermost rule; as a state: the text is whole. */
  static final Frames BOTTOM = new Frames(true, 0);

  /** Nothing is possible. */
  static final Frames DEAD = new Frames(false, 1);

  /** Whether what was read may be all. */
  final boolean bottom;

  final int[] positions;
  final long[] counters;
  final Frames[] parents;

  /** Most rules that are open. */
  final int depth;

  final int generation;
  final int id;
  private final int hash;

  // Threads may race to fill these in, with the same.

  /** By class of byte, as far as known. */
  volatile @Nullable Frames @Nullable [] next;

  volatile @Nullable Frames clamped;

  /**
   * The state after any one character that needs no escape in a JSON string; DEAD if they differ.
   */
  volatile @Nullable Frames plain;

  /** The tokens that may come next. */
  volatile long @Nullable [] mask;

  /** Why there is no mask. */
  volatile @Nullable String failure;

  private Frames(boolean bottom, int id) {
    this(bottom, NONE, new long[0], new Frames[0], 0, id);
  }

  Frames(
      boolean bottom, int[] positions, long[] counters, Frames[] parents, int generation, int id) {
    this.bottom = bottom;
    this.positions = positions;
    this.counters = counters;
    this.parents = parents;
    this.generation = generation;
    this.id = id;
    int deepest = 0;
    int hash = Boolean.hashCode(bottom);
    for (int i = 0; i < positions.length; i++) {
      deepest = Math.max(deepest, parents[i].depth + 1);
      hash = 31 * (31 * (31 * hash + positions[i]) + Long.hashCode(counters[i])) + parents[i].id;
    }
    this.depth = deepest;
    this.hash = hash;
  }

  /** Whether nothing may follow what was read. */
  boolean isLast() {
    return positions.length == 0;
  }

  /** What tells frames apart: those with equal content are one object. */
  static final class Content {
    private final Frames frames;

    Content(Frames frames) {
      this.frames = frames;
    }

    @Override
    public boolean equals(Object other) {
      return other instanceof Content content && frames.isLike(content.frames);
    }

    @Override
    public int hashCode() {
      return frames.hash;
    }
  }

  private boolean isLike(Frames other) {
    if (hash != other.hash
        || bottom != other.bottom
        || !Arrays.equals(positions, other.positions)
        || !Arrays.equals(counters, other.counters)) {
      return false;
    }
    for (int i = 0; i < parents.length; i++) {
      if (parents[i] != other.parents[i]) {
        return false;
      }
    }
    return true;
  }
}
