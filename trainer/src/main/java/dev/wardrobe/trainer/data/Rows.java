package dev.wardrobe.trainer.data;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Rows of tokens with their masks, all or some of a {@link Dataset}'s, which must stay open. May be
 * used from several threads.
 */
public final class Rows {
  private final TokenFile file;

  /** Their numbers in the file; null for all. */
  private final int @Nullable [] chosen;

  Rows(TokenFile file, int @Nullable [] chosen) {
    this.file = file;
    this.chosen = chosen;
  }

  public int size() {
    return chosen == null ? file.size() : chosen.length;
  }

  /** How many tokens a row has. */
  public int length(int row) {
    return file.length(number(row));
  }

  /** How many tokens of a row are learned. */
  public int targets(int row) {
    return file.targets(number(row));
  }

  /** The tokens of all rows. */
  public long tokens() {
    long tokens = 0;
    for (int row = 0; row < size(); row++) {
      tokens += length(row);
    }
    return tokens;
  }

  /** The learned tokens of all rows. */
  public long targets() {
    long targets = 0;
    for (int row = 0; row < size(); row++) {
      targets += targets(row);
    }
    return targets;
  }

  /** A row's tokens. */
  public int[] ids(int row) {
    int[] ids = flagged(row);
    for (int i = 0; i < ids.length; i++) {
      ids[i] &= ~Encoded.LEARNED;
    }
    return ids;
  }

  /** Of each token of a row, whether it is learned. */
  public boolean[] learned(int row) {
    int[] flagged = flagged(row);
    boolean[] learned = new boolean[flagged.length];
    for (int i = 0; i < learned.length; i++) {
      learned[i] = flagged[i] < 0;
    }
    return learned;
  }

  /** Rows one after another, as the model takes them. */
  public MicroBatch batch(int... rows) {
    int[] starts = new int[rows.length + 1];
    for (int i = 0; i < rows.length; i++) {
      starts[i + 1] = Math.addExact(starts[i], length(rows[i]));
    }
    int[] tokens = new int[starts[rows.length]];
    int[] targets = new int[tokens.length];
    Arrays.fill(targets, MicroBatch.NONE);
    for (int i = 0; i < rows.length; i++) {
      file.read(number(rows[i]), tokens, starts[i]);
    }
    for (int t = 0; t < tokens.length; t++) {
      if (tokens[t] < 0) {
        tokens[t] &= ~Encoded.LEARNED;
        // No row's first token is learned, so that the one before is of the same row.
        targets[t - 1] = tokens[t];
      }
    }
    return new MicroBatch(tokens, targets, starts);
  }

  Rows choose(int[] rows) {
    int[] numbers = new int[rows.length];
    for (int i = 0; i < rows.length; i++) {
      numbers[i] = number(rows[i]);
    }
    return new Rows(file, numbers);
  }

  private int[] flagged(int row) {
    int[] ids = new int[length(row)];
    file.read(number(row), ids, 0);
    return ids;
  }

  private int number(int row) {
    return chosen == null ? row : chosen[row];
  }
}
