package dev.wardrobe.client.load;

import java.io.Serial;

/** Why a churn could not begin. */
public final class ChurnException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  ChurnException(String message) {
    super(message);
  }

  ChurnException(String message, Throwable cause) {
    super(message, cause);
  }
}
