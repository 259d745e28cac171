package dev.wardrobe.adapter;

import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * A key of rank_pattern or alpha_pattern: PEFT takes it for the modules whose path matches {@code
 * (.*\.)?(KEY)$}. Most keys are plain paths, one for each module of a large model; those are
 * compared, not searched.
 */
final class PatternKey {
  private static final char ANY = '\0';

  /** The characters of a plain key, {@link #ANY} for an unescaped dot; null: it is not plain. */
  private final char @Nullable [] plain;

  private final PythonRegex regex;

  /**
   * Reads a key.
   *
   * @throws PatternSyntaxException if Python would refuse it, or it uses what is not supported
   */
  PatternKey(String key) {
    regex = PythonRegex.compile("(.*\\.)?(" + key + ")$");
    plain = plain(key);
  }

  private static char @Nullable [] plain(String key) {
    StringBuilder plain = new StringBuilder();
    for (int i = 0; i < key.length(); i++) {
      char c = key.charAt(i);
      boolean word =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      if (key.startsWith("\\.", i)) {
        plain.append('.');
        i++;
      } else if (word || c == '.') {
        plain.append(c == '.' ? ANY : c);
      } else {
        return null;
      }
    }
    return plain.toString().toCharArray();
  }

  /**
   * Whether it means the module at {@code path}.
   *
   * @throws PatternSyntaxException if telling that exceeds {@code steps}
   */
  boolean matches(String path, PythonRegex.Steps steps) {
    if (plain == null) {
      return regex.matchesStart(path, steps);
    }
    steps.take(1, "");
    int start = path.length() - plain.length;
    if (start < 0 || (start > 0 && path.charAt(start - 1) != '.')) {
      return false;
    }
    for (int i = 0; i < plain.length; i++) {
      if (plain[i] != ANY && plain[i] != path.charAt(start + i)) {
        return false;
      }
    }
    return true;
  }
}
