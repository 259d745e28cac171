package dev.wardrobe.engine;

import java.io.Serial;

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

  EngineException(Reason reason, String message) {
    super(message);
    this.reason = reason;
  }

  EngineException(Reason reason, String message, Throwable cause) {
    super(message, cause);
    this.reason = reason;
  }

  public Reason reason() {
    return reason;
  }
}
