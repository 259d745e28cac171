package dev.wardrobe.serve;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.engine.EngineException;
import dev.wardrobe.grammar.GrammarException;
import java.io.Serial;
import java.time.Duration;
import java.util.concurrent.CompletionException;
import java.util.concurrent.RejectedExecutionException;
import org.jspecify.annotations.Nullable;

/** A request that cannot be answered, and why: what, expected, got, what to do. */
public final class RequestException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  /** Whose fault it is, and whether to try again; the names are gRPC's. */
  public enum Code {
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    FAILED_PRECONDITION,
    RESOURCE_EXHAUSTED,
    DEADLINE_EXCEEDED,
    CANCELLED,
    UNAVAILABLE,
    DATA_LOSS,
    INTERNAL
  }

  private final Code code;

  public RequestException(Code code, String message) {
    super(message);
    this.code = code;
  }

  RequestException(Code code, String message, Throwable cause) {
    super(message, cause);
    this.code = code;
  }

  /** When a request that was turned away may be tried again, if that can be told. */
  public @Nullable Duration retryAfter() {
    return switch (getCause()) {
      case EngineException cause -> cause.retryAfter();
      case GrammarException cause -> cause.retryAfter();
      case null, default -> null;
    };
  }

  public Code code() {
    return code;
  }

  public static RequestException invalid(String message) {
    return new RequestException(Code.INVALID_ARGUMENT, message);
  }

  /** What {@code failure} means to the request that met it. */
  static RequestException of(Throwable failure) {
    return switch (failure) {
      case RequestException e -> e;
      case CompletionException e when e.getCause() != null -> of(e.getCause());
      case AdapterException e -> new RequestException(code(e.reason()), text(e), e);
      case EngineException e
          when e.reason() == EngineException.Reason.ADAPTER && e.getCause() != null ->
          of(e.getCause());
      case EngineException e -> new RequestException(code(e.reason()), text(e), e);
      case OutOfMemoryException e -> new RequestException(Code.RESOURCE_EXHAUSTED, text(e), e);
      // Threads take nothing any more.
      case RejectedExecutionException e ->
          new RequestException(Code.UNAVAILABLE, "the server is shutting down; try another one", e);
      default ->
          new RequestException(
              Code.INTERNAL, "the server failed on this request: " + failure, failure);
    };
  }

  private static Code code(AdapterException.Reason reason) {
    return switch (reason) {
      case NOT_FOUND -> Code.NOT_FOUND;
      case INVALID, REFUSED_PATH -> Code.INVALID_ARGUMENT;
      case MISMATCH, EXISTS, IN_USE, OUTDATED, CUT_OFF, NOT_SET_UP -> Code.FAILED_PRECONDITION;
      case TOO_LARGE -> Code.RESOURCE_EXHAUSTED;
      case DAMAGED -> Code.DATA_LOSS;
      case IO -> Code.UNAVAILABLE;
    };
  }

  private static Code code(EngineException.Reason reason) {
    return switch (reason) {
      case TOO_LONG, CONSTRAINT -> Code.INVALID_ARGUMENT;
      case FULL, TOO_LARGE -> Code.RESOURCE_EXHAUSTED;
      case LATE -> Code.DEADLINE_EXCEEDED;
      case CLOSED -> Code.UNAVAILABLE;
      case ADAPTER, STEP, LISTENER -> Code.INTERNAL;
    };
  }

  private static String text(Throwable failure) {
    String message = failure.getMessage();
    return message == null ? failure.toString() : message;
  }
}
