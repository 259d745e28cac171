package dev.wardrobe.trainer.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** What a row of a file has become: as a rule one row of tokens, with what happened to it. */
final class Encoded {
  /** Set in a token that is learned. */
  static final int LEARNED = 1 << 31;

  static final String NOTHING = "no answer and no text to learn";
  static final String CUT = "what is to be learned lies behind the cut";

  private final List<int[]> rows = new ArrayList<>();
  private final List<String> dropped = new ArrayList<>();
  private final Set<Note> notes = EnumSet.noneOf(Note.class);
  private int truncated;
  private long cut;

  /**
   * Adds a row: without what follows its last learned token, from which nothing is learned, and cut
   * off behind {@code length} tokens.
   */
  void add(int[] ids, boolean[] learned, int length) {
    int end = ids.length;
    while (end > 1 && !learned[end - 1]) {
      end--;
    }
    if (end <= 1) {
      drop(NOTHING);
      return;
    }
    if (end > length) {
      truncated++;
      cut += end - length;
      end = length;
      while (end > 1 && !learned[end - 1]) {
        end--;
      }
      if (end <= 1) {
        drop(CUT);
        return;
      }
    }
    int[] row = Arrays.copyOf(ids, end);
    for (int i = 1; i < end; i++) {
      row[i] |= learned[i] ? LEARNED : 0;
    }
    rows.add(row);
  }

  /** Counts a row that is left out. */
  void drop(String reason) {
    dropped.add(reason);
  }

  void note(Note note) {
    notes.add(note);
  }

  /** Tokens, with {@link #LEARNED} set in those that are. */
  List<int[]> rows() {
    return rows;
  }

  /** Why rows were left out, one reason for each. */
  List<String> dropped() {
    return dropped;
  }

  Set<Note> notes() {
    return notes;
  }

  /** Rows that were cut off. */
  int truncated() {
    return truncated;
  }

  /** Tokens that were cut off. */
  long cut() {
    return cut;
  }
}
