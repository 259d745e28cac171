package dev.wardrobe.client.cli;

import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Help.Ansi;

/** Whether and how output is coloured. */
enum Style {
  AUTO,
  ALWAYS,
  NEVER;

  /** Whether this stream, a terminal or not, is coloured; https://no-color.org. */
  boolean on(boolean terminal) {
    return switch (this) {
      case ALWAYS -> true;
      case NEVER -> false;
      case AUTO -> terminal && !set("NO_COLOR") && !"dumb".equals(System.getenv("TERM"));
    };
  }

  private static boolean set(String variable) {
    @Nullable String value = System.getenv(variable);
    return value != null && !value.isEmpty();
  }

  /** For help texts. */
  Ansi ansi() {
    return on(Terminal.out()) ? Ansi.ON : Ansi.OFF;
  }

  String red(String text, boolean terminal) {
    return on(terminal) ? "\u001b[31m" + text + "\u001b[0m" : text;
  }

  String bold(String text, boolean terminal) {
    return on(terminal) ? "\u001b[1m" + text + "\u001b[0m" : text;
  }

  /**
   * What {@code --color} says in these words; the options' own reading comes too late for errors.
   */
  static Style of(String[] words) {
    for (int i = 0; i < words.length && !words[i].equals("--"); i++) {
      String value =
          words[i].startsWith("--color=")
              ? words[i].substring("--color=".length())
              : words[i].equals("--color") && i + 1 < words.length ? words[i + 1] : "";
      for (Style style : values()) {
        if (style.name().equalsIgnoreCase(value)) {
          return style;
        }
      }
    }
    return AUTO;
  }
}
