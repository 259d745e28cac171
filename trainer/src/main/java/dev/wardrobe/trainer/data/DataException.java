package dev.wardrobe.trainer.data;

/**
 * Data that cannot be learned from: what is wrong, where, and what to do about it. A row is named
 * by its file and its line, or its index in an array.
 */
public final class DataException extends Exception {

  private static final long serialVersionUID = 1L;

  public DataException(String message) {
    super(message);
  }

  public DataException(String message, Throwable cause) {
    super(message, cause);
  }
}
