package dev.wardrobe.compute;

/**
 * The device went wrong so that nothing more can be computed on it in this process: every later
 * call would fail. Whoever serves stops, and says so.
 */
public final class DeviceLostException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public DeviceLostException(Throwable cause) {
    super(cause.getMessage(), cause);
  }
}
