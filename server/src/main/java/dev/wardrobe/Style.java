package dev.wardrobe;

import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Help.Ansi;

/** Whether and how output is coloured. */
enum Style {
  AUTO,
  ALWAYS,
  NEVER;

  /** Whether this stream, a terminal or not, is coloured; https://no-color.org. */
  private boolean on(boolean terminal) {
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

  /** For help texts, on standard output. */
  Ansi ansi() {
    return on(Terminal.out()) ? Ansi.ON : Ansi.OFF;
  }

  /** For standard error. */
  String red(String text) {
    return on(Terminal.err()) ? "\u001b[31m" + text + "\u001b[0m" : text;
  }

  /**
   * What {@code --color} says in these words; the options' own reading comes too late for errors.
   */
  static Style of(List<String> words) {
    for (int i = 0; i < words.size() && !words.get(i).equals("--"); i++) {
      String word = words.get(i);
      String value =
          word.startsWith("--color=")
              ? word.substring("--color=".length())
              : word.equals("--color") && i + 1 < words.size() ? words.get(i + 1) : "";
      for (Style style : values()) {
        if (style.name().equalsIgnoreCase(value)) {
          return style;
        }
      }
    }
    return AUTO;
  }
}
