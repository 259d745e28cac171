package dev.wardrobe.trainer.checkpoint;

import java.io.IOException;
import java.io.Serial;

/** Why a checkpoint cannot be gone on from, or an output folder not be used; for a person. */
public final class CheckpointException extends IOException {
  @Serial private static final long serialVersionUID = 1L;

  public CheckpointException(String message) {
    super(message);
  }

  public CheckpointException(String message, Throwable cause) {
    super(message, cause);
  }
}
