package dev.wardrobe.tenant;

import java.io.Serial;

/** A file of keys that cannot be used, and why, on one line; it never repeats a key. */
public final class KeyFileException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  KeyFileException(String message) {
    super(message);
  }

  KeyFileException(String message, Throwable cause) {
    super(message, cause);
  }
}
