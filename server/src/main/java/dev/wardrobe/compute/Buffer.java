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

  @Override
  void close();
}
