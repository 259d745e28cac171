package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.client.CallError;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.time.Duration;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * Why a command did not do what it was asked: one line for people, one object for scripts.
 *
 * @param exit an {@link ExitCode}
 * @param code a word for scripts: gRPC's codes in small letters, or {@code usage}, {@code failed}
 * @param message one line: what was expected, what was got, what to do
 * @param retryAfter when the server wants to be asked again, or null
 */
record Failure(int exit, String code, String message, @Nullable Duration retryAfter) {
  private static final String START =
      "; start one with 'wardrobe serve', or name another with --server HOST:PORT";

  Failure {
    message = message.strip().replaceAll("\\s*\\R\\s*", " ");
  }

  static Failure usage(String message) {
    return new Failure(ExitCode.USAGE, "usage", message, null);
  }

  static Failure of(Throwable failure) {
    if (failure instanceof UnknownAdapterException unknown) {
      return unknown.failure();
    }
    CallError error = CallError.of(failure);
    if (error != null) {
      return of(error);
    }
    return switch (failure) {
      case UncheckedIOException e when e.getCause() != null -> of(e.getCause());
      case NoSuchFileException e
          when e.getReason() == null && !String.valueOf(e.getMessage()).contains(": ") ->
          failed(e.getFile() + ": expected a file or directory, got none; check the path");
      case AccessDeniedException e ->
          failed(e.getFile() + ": permission denied; check who may read it");
      case FileSystemException e -> failed(String.valueOf(e.getMessage()));
      case IOException e -> failed(text(e));
      default -> failed(text(failure));
    };
  }

  private static String text(Throwable failure) {
    String message = failure.getMessage();
    return message == null ? failure.toString() : message;
  }

  private static Failure failed(String message) {
    return new Failure(ExitCode.FAILED, "failed", message, null);
  }

  private static Failure of(CallError error) {
    int exit =
        switch (error.code()) {
          case UNAVAILABLE -> ExitCode.UNREACHABLE;
          case NOT_FOUND -> ExitCode.NOT_FOUND;
          case UNAUTHENTICATED, PERMISSION_DENIED -> ExitCode.REFUSED;
          case RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED -> ExitCode.BUSY;
          case CANCELLED -> ExitCode.INTERRUPTED;
          default -> ExitCode.FAILED;
        };
    String message =
        switch (error.code()) {
          case UNAVAILABLE ->
              error.answered()
                  ? error.message()
                  : "no server answers ("
                      + error.message().lines().findFirst().orElse("")
                      + ")"
                      + START;
          case UNIMPLEMENTED -> "the server does not know this call; is it of the same version?";
          default -> error.message();
        };
    return new Failure(
        exit, error.code().name().toLowerCase(Locale.ROOT), message, error.retryAfter());
  }

  /** The same, and a name that may have been meant. */
  Failure meant(String name) {
    return new Failure(exit, code, message + "; did you mean '" + name + "'?", retryAfter);
  }

  /** {@code {"error":{...}}}, on one line. */
  String json() {
    ObjectNode root = new ObjectMapper().createObjectNode();
    ObjectNode error = root.putObject("error");
    error.put("code", code).put("message", message).put("exit", exit);
    if (retryAfter != null) {
      error.put("retry_after_s", retryAfter.toNanos() / 1e9);
    }
    return root.toString();
  }
}
