package dev.wardrobe;

import java.io.PrintWriter;
import java.util.Locale;

/** How far a command is, on the last line of a terminal at standard error; nowhere else. */
final class ProgressLine implements AutoCloseable {
  private static final int BAR = 24;
  private static final long EVERY_NANOS = 50_000_000;

  private final PrintWriter err;
  private final boolean shown;
  private long last;
  private boolean drawn;

  private ProgressLine(PrintWriter err, boolean shown) {
    this.err = err;
    this.shown = shown;
  }

  /**
   * On standard error if that is a terminal.
   *
   * @param json whether a program reads what the command says; then there is none
   */
  static ProgressLine on(PrintWriter err, boolean json) {
    return of(err, Terminal.err() && !json);
  }

  /** As if standard error were a terminal, or not. */
  static ProgressLine of(PrintWriter err, boolean shown) {
    return new ProgressLine(err, shown);
  }

  /** So many of so many are done, and this is the next; drawn twenty times a second at most. */
  synchronized void at(long done, long of, String what) {
    long now = System.nanoTime();
    if (shown && (!drawn || done >= of || now - last >= EVERY_NANOS)) {
      last = now;
      draw(line(done, of, what, Terminal.width()));
    }
  }

  /** What is done now, of which nobody knows how long it takes. */
  synchronized void at(String what) {
    if (shown) {
      draw(cut(what + " ...", Terminal.width()));
    }
  }

  private void draw(String line) {
    drawn = true;
    err.print("\r\u001b[K" + line);
    err.flush();
  }

  /** Shorter than the width, so that no terminal breaks it. */
  static String line(long done, long of, String what, int width) {
    int full = of <= 0 ? BAR : (int) Math.clamp(Math.floor((double) BAR * done / of), 0, BAR);
    return cut(
        String.format(
            Locale.ROOT,
            "[%s%s] %d/%d %s",
            "#".repeat(full),
            ".".repeat(BAR - full),
            done,
            of,
            what),
        width);
  }

  private static String cut(String line, int width) {
    return line.length() < width ? line : line.substring(0, Math.max(0, width - 1));
  }

  /** Takes it away, before anything else is written. */
  synchronized void clear() {
    if (drawn) {
      drawn = false;
      err.print("\r\u001b[K");
      err.flush();
    }
  }

  @Override
  public void close() {
    clear();
  }
}
