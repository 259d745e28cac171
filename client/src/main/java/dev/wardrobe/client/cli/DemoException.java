package dev.wardrobe.client.cli;

import org.jspecify.annotations.Nullable;

/** The demo did not show what it is for; says what is missing. */
final class DemoException extends Exception {
  private static final long serialVersionUID = 1L;

  DemoException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }

  DemoException(String message) {
    this(message, null);
  }
}
