package dev.wardrobe.model;

import java.io.Serial;

/**
 * A model directory that cannot be used; says which file, what was expected, and what was found.
 */
public final class ModelException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  public ModelException(String message) {
    super(message);
  }

  public ModelException(String message, Throwable cause) {
    super(message, cause);
  }
}
