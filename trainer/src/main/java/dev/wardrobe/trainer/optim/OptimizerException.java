package dev.wardrobe.trainer.optim;

import java.io.IOException;

/**
 * An optimizer's state could not be kept, written or read; the message says where and what to do.
 */
public final class OptimizerException extends IOException {
  private static final long serialVersionUID = 1;

  OptimizerException(String message) {
    super(message);
  }

  OptimizerException(String message, Throwable cause) {
    super(message, cause);
  }
}
