package dev.wardrobe;

import java.io.Console;
import org.jspecify.annotations.Nullable;

/** Whether a person is watching, and how wide a window they have. */
final class Terminal {
  /** Of 0, 1 and 2 those that are terminals, as the launcher saw; Java itself cannot tell apart. */
  private static final @Nullable String SEEN = System.getProperty("wardrobe.tty");

  private static final int USUAL_WIDTH = 80;

  private Terminal() {}

  /** Standard output is read by a person. */
  static boolean out() {
    return SEEN == null ? console() : SEEN.contains("1");
  }

  /** Standard error is read by a person. */
  static boolean err() {
    return SEEN == null ? console() : SEEN.contains("2");
  }

  /** Columns. */
  static int width() {
    String width = System.getProperty("wardrobe.columns", "");
    return width.matches("[1-9][0-9]{0,3}") ? Integer.parseInt(width) : USUAL_WIDTH;
  }

  // Since JDK 22 a console exists without a terminal too, by default; but not under every provider.
  @SuppressWarnings("SystemConsoleNull")
  private static boolean console() {
    @Nullable Console console = System.console();
    return console != null && console.isTerminal();
  }
}
