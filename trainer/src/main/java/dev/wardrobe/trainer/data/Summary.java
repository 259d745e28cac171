package dev.wardrobe.trainer.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * What became of the files: for a person to read before anything is learned.
 *
 * @param formats of each file, in order
 * @param digest SHA-256 of the files' bytes, one after another, as sha256sum would tell it
 * @param read rows in the files
 * @param rows rows to learn from
 * @param tokens theirs
 * @param targets those of them that are learned
 * @param longest tokens of the longest row
 * @param truncated rows that were cut off
 * @param cut tokens that were cut off
 * @param dropped rows left out, by reason
 * @param bad rows that could not be used, by reason
 * @param firstBad the first few of them, with their places
 * @param notes what was done with rows that one may not expect, and with how many
 * @param example a row, with what is learned of it
 */
public record Summary(
    Map<Path, Format> formats,
    String digest,
    long read,
    int rows,
    long tokens,
    long targets,
    int longest,
    long truncated,
    long cut,
    Map<String, Long> dropped,
    Map<String, Long> bad,
    List<String> firstBad,
    Map<String, Long> notes,
    List<Piece> example) {

  private static final String BEGIN = "\u27e6";
  private static final String END = "\u27e7";

  /** A part of a row's text that is learned, or is not. */
  public record Piece(String text, boolean learned) {}

  /** The example as one text, with what is learned in {@code ⟦ ⟧}. */
  public String exampleText() {
    StringBuilder text = new StringBuilder();
    for (Piece piece : example) {
      text.append(piece.learned() ? BEGIN + piece.text() + END : piece.text());
    }
    return text.toString();
  }

  /** All of it as lines of text. */
  public String text() {
    List<String> lines = new ArrayList<>();
    formats.forEach((file, format) -> lines.add(file + ": " + format.option()));
    lines.add("sha256 " + digest);
    lines.add(
        "%,d rows of %,d read; %,d tokens, of which %,d are learned; longest row %,d tokens"
            .formatted(rows, read, tokens, targets, longest));
    if (truncated > 0) {
      lines.add("%,d rows cut off, %,d tokens lost".formatted(truncated, cut));
    }
    dropped.forEach((why, count) -> lines.add("%,d rows left out: %s".formatted(count, why)));
    bad.forEach((why, count) -> lines.add("%,d bad rows: %s".formatted(count, why)));
    firstBad.forEach(row -> lines.add("  " + row));
    notes.forEach((note, count) -> lines.add("%,d %s".formatted(count, note)));
    lines.add("An example, what is learned in %s %s:".formatted(BEGIN, END));
    lines.add(exampleText());
    return String.join("\n", lines) + "\n";
  }
}
