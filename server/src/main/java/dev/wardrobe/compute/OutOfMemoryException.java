package dev.wardrobe.compute;

/** A device could not give the memory asked for; says how much was asked and how much is left. */
public final class OutOfMemoryException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public OutOfMemoryException(String message) {
    super(message);
  }
}
