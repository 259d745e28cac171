package dev.wardrobe.client.cli;

import java.io.PrintWriter;
import java.util.Locale;

/** How far something is, on a terminal's last line; nowhere else. */
final class ProgressBar implements AutoCloseable {
  private static final int BAR = 30;
  private static final long EVERY_NANOS = 100_000_000;

  private final PrintWriter err;
  private final boolean shown;
  private final String what;
  private final long began = System.nanoTime();
  private long last;
  private boolean drawn;

  /**
   * @param shown whether standard error is a terminal
   */
  ProgressBar(PrintWriter err, boolean shown, String what) {
    this.err = err;
    this.shown = shown;
    this.what = what;
  }

  /** So many bytes of so many; drawn ten times a second at most. */
  void at(long done, long of) {
    long now = System.nanoTime();
    if (!shown || (drawn && done < of && now - last < EVERY_NANOS)) {
      return;
    }
    last = now;
    drawn = true;
    err.print("\r\u001b[K" + line(what, done, of, (now - began) / 1e9, Terminal.width()));
    err.flush();
  }

  /** So many steps of so many are done, and this is the next. */
  void step(int done, int of, String next) {
    if (shown) {
      drawn = true;
      err.print("\r\u001b[K" + stepLine(what, done, of, next, Terminal.width()));
      err.flush();
    }
  }

  /** As drawn, at most {@code width} - 1 wide. */
  static String stepLine(String what, int done, int of, String next, int width) {
    int full = of <= 0 ? BAR : Math.clamp((long) BAR * done / of, 0, BAR);
    String bar = "[" + "#".repeat(full) + ".".repeat(BAR - full) + "]";
    String line = "%s %s %d/%d %s".formatted(what, bar, done, of, next);
    return line.length() < width ? line : line.substring(0, Math.max(0, width - 1));
  }

  /** As drawn, at most {@code width} - 1 wide, so that no terminal breaks it. */
  static String line(String what, long done, long of, double seconds, int width) {
    double part = of <= 0 ? 1 : Math.min(1, (double) done / of);
    String numbers =
        String.format(
            Locale.ROOT,
            " %3.0f %%  %.1f of %.1f MiB  %.1f MiB/s",
            100 * part,
            done / 1048576.0,
            of / 1048576.0,
            seconds <= 0 ? 0 : done / 1048576.0 / seconds);
    int room = Math.min(BAR, width - 1 - numbers.length() - what.length() - 3);
    String bar = "";
    if (room >= 5) {
      int full = (int) Math.round(part * room);
      bar = " [" + "#".repeat(full) + ".".repeat(room - full) + "]";
    }
    String line = what + bar + numbers;
    return line.length() < width ? line : line.substring(0, Math.max(0, width - 1));
  }

  /** Takes it away, before anything else is written. */
  void clear() {
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
