package dev.wardrobe;

import java.io.Serial;

/** Why a command could not start; one line for the person who typed it. */
final class StartException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  StartException(String message) {
    super(message);
  }

  StartException(String message, Throwable cause) {
    super(message, cause);
  }

  /** The message, on one line whatever it quotes. */
  String line() {
    String message = getMessage();
    return message == null ? toString() : message.strip().replaceAll("\\s*\\R\\s*", " ");
  }
}
