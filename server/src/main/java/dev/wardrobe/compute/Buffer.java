package dev.wardrobe.compute;

/**
 * Rows of float32 in a backend's memory: activations, norm weights, rotary tables.
 *
 * <p>Shape {@code (rows, width)}, row-major. Made by {@link Backend#buffer} and usable only with
 * the backend that made it.
 */
public interface Buffer extends AutoCloseable {
  int rows();

  int width();

  default long bytes() {
    return 4L * rows() * width();
  }

  /**
   * Checks that it has at least so many rows, of exactly this width.
   *
   * @param what names it in the error
   * @throws IllegalArgumentException if not
   */
  default void expect(String what, int rows, int width) {
    if (rows() < rows || width() != width) {
      throw new IllegalArgumentException(
          "%s: expected at least %d rows of %d, got (%d, %d)"
              .formatted(what, rows, width, rows(), width()));
    }
  }

  @Override
  void close();
}
