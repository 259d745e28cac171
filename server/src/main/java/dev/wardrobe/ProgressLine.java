package dev.wardrobe;

import java.io.Console;
import java.io.PrintWriter;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** How far a command is, on the last line of a terminal at standard error; nowhere else. */
final class ProgressLine {
  private static final int USUAL_WIDTH = 80;
  private static final int BAR = 24;

  private final PrintWriter err;
  private final boolean shown = terminal();
  private boolean drawn;

  ProgressLine(PrintWriter err) {
    this.err = err;
  }

  /** As the launcher saw, since Java cannot tell the three streams apart. */
  // Since JDK 22 a console exists without a terminal too, by default; but not under every provider.
  @SuppressWarnings("SystemConsoleNull")
  private static boolean terminal() {
    String seen = System.getProperty("wardrobe.tty");
    if (seen != null) {
      return seen.contains("2");
    }
    @Nullable Console console = System.console();
    return console != null && console.isTerminal();
  }

  /** So many of so many are done, and this is the next. */
  void at(long done, long of, String what) {
    if (shown) {
      drawn = true;
      err.print("\r\u001b[K" + line(done, of, what, width()));
      err.flush();
    }
  }

  private static int width() {
    String width = System.getProperty("wardrobe.columns", "");
    return width.matches("[1-9][0-9]{0,3}") ? Integer.parseInt(width) : USUAL_WIDTH;
  }

  /** Shorter than the width, so that no terminal breaks it. */
  static String line(long done, long of, String what, int width) {
    int full = of <= 0 ? BAR : Math.clamp(BAR * done / of, 0, BAR);
    String line =
        String.format(
            Locale.ROOT,
            "[%s%s] %d/%d %s",
            "#".repeat(full),
            ".".repeat(BAR - full),
            done,
            of,
            what);
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
}
