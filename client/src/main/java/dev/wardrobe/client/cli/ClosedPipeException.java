package dev.wardrobe.client.cli;

import java.io.IOException;
import java.io.PrintWriter;

/** Nobody reads our output any more, as when it is piped into head: nothing to complain of. */
final class ClosedPipeException extends IOException {
  private static final long serialVersionUID = 1L;

  private ClosedPipeException() {
    super("standard output is closed");
  }

  /** Flushes. */
  static void check(PrintWriter out) throws ClosedPipeException {
    if (out.checkError()) {
      throw new ClosedPipeException();
    }
  }
}
