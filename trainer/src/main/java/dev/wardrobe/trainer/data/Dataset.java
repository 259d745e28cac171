package dev.wardrobe.trainer.data;

import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What is learned from, or evaluated on: the rows of files as tokens, in a file without a name that
 * goes when this is closed.
 */
public final class Dataset implements AutoCloseable {
  private final TokenFile file;
  private final Summary summary;
  private final String fingerprint;
  private final Rows rows;

  Dataset(TokenFile file, Summary summary, String fingerprint) {
    this.file = file;
    this.summary = summary;
    this.fingerprint = fingerprint;
    this.rows = new Rows(file, null);
  }

  /**
   * Reads files, each once and as a stream, and makes tokens of their rows.
   *
   * @param files in the order in which their rows follow each other
   * @throws DataException naming file and line, if a file cannot be read, a row cannot be used and
   *     bad rows are not skipped, or nothing is left to learn from
   */
  public static Dataset read(List<Path> files, ModelText model, DataOptions options)
      throws DataException {
    return new Intake(model, options).read(files);
  }

  public Rows rows() {
    return rows;
  }

  public Summary summary() {
    return summary;
  }

  /**
   * SHA-256 of the rows' tokens and masks. A run can be resumed over the same rows alone, and these
   * depend on more than the files: the tokenizer, the template, the options, even the date, where a
   * template writes it.
   */
  public String fingerprint() {
    return fingerprint;
  }

  /**
   * Rows to learn from, and rows set apart to evaluate on.
   *
   * @param training in the files' order
   * @param validation null if there are none
   */
  public record Split(Rows training, @Nullable Rows validation) {}

  /**
   * Sets rows apart, chosen by the seed alone.
   *
   * @param count how many
   * @throws DataException if none were left to learn from
   */
  public Split split(long seed, int count) throws DataException {
    if (count <= 0) {
      return new Split(rows, null);
    }
    if (count >= rows.size()) {
      throw new DataException(
          "%d rows are to be set apart for evaluation, and there are %d; set fewer apart, or give a"
                  .formatted(count, rows.size())
              + " file of their own");
    }
    int[] order = Shuffle.of(rows.size(), seed, Shuffle.SPLIT, 0);
    boolean[] apart = new boolean[order.length];
    for (int i = 0; i < count; i++) {
      apart[order[i]] = true;
    }
    int[] training = new int[order.length - count];
    int[] validation = new int[count];
    int t = 0;
    int v = 0;
    for (int row = 0; row < order.length; row++) {
      if (apart[row]) {
        validation[v++] = row;
      } else {
        training[t++] = row;
      }
    }
    return new Split(rows.choose(training), rows.choose(validation));
  }

  /**
   * Sets a share of the rows apart, at least one if it is not 0.
   *
   * @param share from 0 to 1
   * @throws DataException if none were left to learn from
   */
  public Split split(long seed, double share) throws DataException {
    if (!(share >= 0 && share < 1)) {
      throw new DataException(
          "share of rows set apart for evaluation: expected 0 to 1, got " + share);
    }
    return split(seed, (int) Math.ceil(share * rows.size()));
  }

  @Override
  public void close() {
    file.close();
  }
}
