package dev.wardrobe.safetensors;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/**
 * A safetensors file or checkpoint directory that cannot be read or written as asked. The message
 * names the file, the tensor where there is one, what was expected and what was found.
 */
public final class SafetensorsException extends IOException {
  private static final long serialVersionUID = 1L;

  private static final int LONGEST_NAME = 200;

  public SafetensorsException(String message) {
    super(message);
  }

  public SafetensorsException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }

  /** A name out of a file, made fit for a message: quoted, cut, control characters escaped. */
  static String quote(String name) {
    StringBuilder quoted = new StringBuilder("'");
    int length = Math.min(name.length(), LONGEST_NAME);
    for (int i = 0; i < length; i++) {
      char c = name.charAt(i);
      if (Character.isISOControl(c)) {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append(length < name.length() ? "…'" : "'").toString();
  }
}
