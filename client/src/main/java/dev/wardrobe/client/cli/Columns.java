package dev.wardrobe.client.cli;

import java.util.ArrayList;
import java.util.List;

/** Texts side by side, each wrapped to its column. */
final class Columns {
  private static final String GAP = "  ";

  private final int width;

  /**
   * @param count columns
   * @param total characters of a line
   */
  Columns(int count, int total) {
    this.width = Math.max(12, (total - GAP.length() * (count - 1)) / count);
  }

  /** The lines of one block; as many as the longest text needs, and at least {@code height}. */
  List<String> lines(List<String> texts, int height) {
    List<List<String>> wrapped = new ArrayList<>();
    int rows = height;
    for (String text : texts) {
      List<String> column = wrap(text);
      wrapped.add(column);
      rows = Math.max(rows, column.size());
    }
    List<String> lines = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      StringBuilder line = new StringBuilder();
      for (List<String> column : wrapped) {
        String cell = row < column.size() ? column.get(row) : "";
        line.append(cell).repeat(" ", Math.max(0, width - cell.length())).append(GAP);
      }
      lines.add(line.toString().stripTrailing());
    }
    return lines;
  }

  private List<String> wrap(String text) {
    List<String> lines = new ArrayList<>();
    for (String paragraph : text.split("\n", -1)) {
      StringBuilder line = new StringBuilder();
      for (String word : paragraph.split(" ", -1)) {
        String rest = word;
        if (!line.isEmpty() && line.length() + 1 + rest.length() > width) {
          lines.add(line.toString());
          line.setLength(0);
        }
        while (rest.length() > width) {
          lines.add(rest.substring(0, width));
          rest = rest.substring(width);
        }
        if (!line.isEmpty()) {
          line.append(' ');
        }
        line.append(rest);
      }
      lines.add(line.toString());
    }
    return lines;
  }
}
