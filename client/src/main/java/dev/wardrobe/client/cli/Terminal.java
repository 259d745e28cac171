package dev.wardrobe.client.cli;

import java.io.Console;
import org.jspecify.annotations.Nullable;

/** Whether a person is watching. */
final class Terminal {
  private Terminal() {}

  // Since JDK 22 a console exists without a terminal too, by default; but not under every provider.
  @SuppressWarnings("SystemConsoleNull")
  static boolean attached() {
    @Nullable Console console = System.console();
    return console != null && console.isTerminal();
  }
}
