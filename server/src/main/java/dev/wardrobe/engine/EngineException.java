package dev.wardrobe.engine;

import java.io.Serial;
import java.time.Duration;
import org.jspecify.annotations.Nullable;

/** A sequence that the engine cannot take, or could not finish. */
public final class EngineException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  /** What went wrong, as far as a caller can act on it. */
  public enum Reason {
    /** The sequence is longer than the context, or than all KV pages together. */
    TOO_LONG,
    /** Its adapters do not fit into memory, beside what else must stay there. */
    TOO_LARGE,
    /** The waiting queue is full; later there may be room. */
    FULL,
    /** Its deadline cannot be met. */
    LATE,
    /** The engine is draining or closed. */
    CLOSED,
    /** One of its adapters cannot be brought into memory; the cause says why. */
    ADAPTER,
    /** Computing a step failed. */
    STEP,
    /** The sequence's own listener failed. */
    LISTENER,
    /** Which tokens the constraint lets come next cannot be told. */
    CONSTRAINT
  }

  private final Reason reason;
  private @Nullable Duration retryAfter;

  EngineException(Reason reason, String message) {
    super(message);
    this.reason = reason;
  }

  EngineException(Reason reason, String message, Throwable cause) {
    super(message, cause);
    this.reason = reason;
  }

  /** As {@link #EngineException(Reason, String)}, for one that may be tried again. */
  EngineException(Reason reason, String message, Duration retryAfter) {
    this(reason, message);
    this.retryAfter = retryAfter;
  }

  /** When there may be room, if it can be told. */
  public @Nullable Duration retryAfter() {
    return retryAfter;
  }

  public Reason reason() {
    return reason;
  }
}
