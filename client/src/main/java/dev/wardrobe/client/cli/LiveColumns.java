package dev.wardrobe.client.cli;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;

/**
 * Answers side by side: redrawn with every token on a terminal, and drawn once, when they are
 * finished, anywhere else.
 */
final class LiveColumns {
  private final PrintWriter out;
  private final boolean terminal;
  private final int width;
  private List<RunningAnswer> answers = List.of();
  private int drawn;

  LiveColumns(PrintWriter out, boolean terminal, int width) {
    this.out = out;
    this.terminal = terminal;
    this.width = width;
  }

  synchronized void show(List<RunningAnswer> running) {
    answers = running;
    changed();
  }

  synchronized void changed() {
    if (terminal && !answers.isEmpty()) {
      draw();
    }
  }

  synchronized void finish(List<RunningAnswer> running) {
    answers = running;
    draw();
    answers = List.of();
  }

  private void draw() {
    if (terminal && drawn > 0) {
      // Back to the block's first line, and clear from there on.
      out.print("\u001b[" + drawn + "A\u001b[J");
    }
    Columns columns = new Columns(answers.size(), width);
    List<String> lines = new ArrayList<>();
    List<String> names = new ArrayList<>();
    List<String> digests = new ArrayList<>();
    List<String> texts = new ArrayList<>();
    for (RunningAnswer answer : answers) {
      names.add(answer.name());
      String digest = answer.digest();
      digests.add(digest.isEmpty() ? "(no adapter)" : digest.substring(0, 19));
      texts.add(answer.text());
    }
    lines.addAll(columns.lines(names, 1));
    lines.addAll(columns.lines(digests, 1));
    lines.add("-".repeat(width));
    lines.addAll(columns.lines(texts, 1));
    lines.forEach(out::println);
    out.flush();
    drawn = lines.size();
  }
}
