package dev.wardrobe;

import java.io.Serial;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import org.jspecify.annotations.Nullable;

/** Why a command could not start; one line for the person who typed it. */
public final class StartException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  private final int exit;

  public StartException(String message) {
    this(ExitCode.FAILED, message, null);
  }

  public StartException(String message, Throwable cause) {
    this(ExitCode.FAILED, message, cause);
  }

  private StartException(int exit, String message, @Nullable Throwable cause) {
    super(message, cause);
    this.exit = exit;
  }

  /** For an option whose value cannot be, whatever the machine and its files are like. */
  public static StartException usage(String message) {
    return new StartException(ExitCode.USAGE, message, null);
  }

  /** As {@link #usage(String)}. */
  public static StartException usage(String message, Throwable cause) {
    return new StartException(ExitCode.USAGE, message, cause);
  }

  /** For something of which there is none of that name. */
  static StartException notFound(String message) {
    return new StartException(ExitCode.NOT_FOUND, message, null);
  }

  /** What is wrong with a file, in words; the exception's own message is often its name alone. */
  public static String explain(FileSystemException e) {
    return switch (e) {
      case NoSuchFileException _ -> e.getFile() + ": expected a file, got none; check the path";
      case AccessDeniedException _ -> e.getFile() + ": permission denied";
      default -> String.valueOf(e.getMessage());
    };
  }

  /** An {@link ExitCode}. */
  public int exit() {
    return exit;
  }

  /** The message, on one line whatever it quotes. */
  public String line() {
    String message = getMessage();
    return message == null ? toString() : message.strip().replaceAll("\\s*\\R\\s*", " ");
  }
}
