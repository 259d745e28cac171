package dev.wardrobe;

import java.io.Serial;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;

/** Why a command could not start; one line for the person who typed it. */
public final class StartException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  public StartException(String message) {
    super(message);
  }

  public StartException(String message, Throwable cause) {
    super(message, cause);
  }

  /** What is wrong with a file, in words; the exception's own message is often its name alone. */
  public static String explain(FileSystemException e) {
    return switch (e) {
      case NoSuchFileException _ -> e.getFile() + ": expected a file, got none; check the path";
      case AccessDeniedException _ -> e.getFile() + ": permission denied";
      default -> String.valueOf(e.getMessage());
    };
  }

  /** The message, on one line whatever it quotes. */
  public String line() {
    String message = getMessage();
    return message == null ? toString() : message.strip().replaceAll("\\s*\\R\\s*", " ");
  }
}
