package dev.wardrobe.grammar;

import java.io.Serial;
import java.time.Duration;
import org.jspecify.annotations.Nullable;

/** A constraint that cannot be compiled: says where in it, what is wrong, and what to do. */
public final class GrammarException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  private @Nullable Duration retryAfter;

  GrammarException(String message) {
    super(message);
  }

  GrammarException(String message, Throwable cause) {
    super(message, cause);
  }

  /** For one that may be compiled later. */
  GrammarException(String message, Duration retryAfter) {
    super(message);
    this.retryAfter = retryAfter;
  }

  /** When it may be tried again; null if the constraint itself is to blame. */
  public @Nullable Duration retryAfter() {
    return retryAfter;
  }
}
