package dev.wardrobe.trainer.loop;

import java.io.IOException;
import java.io.Serial;

/** Why a run ended before its last step; for a person. */
public final class TrainingException extends IOException {
  @Serial private static final long serialVersionUID = 1L;

  public TrainingException(String message) {
    super(message);
  }
}
