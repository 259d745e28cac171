package dev.wardrobe.engine;

import java.util.List;

/**
 * The sequences of one task, which begin with the same prompt. The first of them that is left
 * computes it; the others wait until its blocks are indexed, then take them. Belongs to the
 * engine's thread.
 */
final class Siblings {
  private List<Sequence> sequences = List.of();
  private boolean shared;

  /** Says once who they are, in the order of arrival. */
  void are(List<Sequence> all) {
    sequences = List.copyOf(all);
  }

  /** The complete blocks of their prompt are indexed. */
  void share() {
    shared = true;
  }

  /** Whether it had better not compute the prompt, since another one does. */
  boolean waits(Sequence sequence) {
    for (int i = 0; !shared && i < sequences.size() && sequences.get(i) != sequence; i++) {
      if (!sequences.get(i).ended) {
        return true;
      }
    }
    return false;
  }

  /** Whether all have ended. */
  boolean ended() {
    for (int i = 0; i < sequences.size(); i++) {
      if (!sequences.get(i).ended) {
        return false;
      }
    }
    return true;
  }
}
