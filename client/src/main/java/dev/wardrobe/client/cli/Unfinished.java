package dev.wardrobe.client.cli;

import java.io.PrintWriter;

/** A line on a terminal that is being written: what ends the process leaves the prompt its own. */
final class Unfinished {
  private final Thread ending;
  private final boolean terminal;

  Unfinished(boolean terminal, PrintWriter out) {
    this.terminal = terminal;
    this.ending =
        new Thread(
            () -> {
              out.println();
              out.flush();
            },
            "wardrobe-end-line");
    if (terminal) {
      Runtime.getRuntime().addShutdownHook(ending);
    }
  }

  /** It will be finished now. */
  void finish() {
    if (terminal) {
      try {
        boolean _ = Runtime.getRuntime().removeShutdownHook(ending);
      } catch (IllegalStateException e) {
        // The process is ending already.
      }
    }
  }
}
