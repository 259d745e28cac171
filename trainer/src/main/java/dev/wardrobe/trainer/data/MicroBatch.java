package dev.wardrobe.trainer.data;

/**
 * Sequences that go through the model together, one after another and without padding. Each sees
 * itself alone: attention and positions begin anew with it.
 *
 * @param tokens {@code (rows)}
 * @param targets {@code (rows)}: the token that follows, where it counts; {@link #NONE} where it
 *     does not, and in each sequence's last row
 * @param starts first row of each sequence, ascending from 0, then the number of rows
 */
public record MicroBatch(int[] tokens, int[] targets, int[] starts) {
  /** The target of a row that has none, as in PyTorch. */
  public static final int NONE = -100;

  /**
   * @throws IllegalArgumentException if the arrays do not fit each other
   */
  public MicroBatch {
    int rows = tokens.length;
    boolean fits = targets.length == rows && starts.length >= 2;
    fits = fits && starts[0] == 0 && starts[starts.length - 1] == rows;
    for (int i = 1; fits && i < starts.length; i++) {
      fits = starts[i] > starts[i - 1] && targets[starts[i] - 1] == NONE;
    }
    if (!fits) {
      throw new IllegalArgumentException(
          "micro-batch: sequences must cover all rows in order, none empty, the last row of each"
              + " without a target");
    }
  }

  public int rows() {
    return tokens.length;
  }

  public int sequences() {
    return starts.length - 1;
  }

  /** How many rows have a target. */
  public int targetCount() {
    int count = 0;
    for (int target : targets) {
      count += target == NONE ? 0 : 1;
    }
    return count;
  }

  /** Each row's place in its sequence. */
  public int[] positions() {
    int[] positions = new int[tokens.length];
    for (int s = 0; s + 1 < starts.length; s++) {
      for (int row = starts[s]; row < starts[s + 1]; row++) {
        positions[row] = row - starts[s];
      }
    }
    return positions;
  }
}
