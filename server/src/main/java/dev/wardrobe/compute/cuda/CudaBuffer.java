package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Buffer;
import org.jspecify.annotations.Nullable;

/** Rows of float32 in device memory. */
final class CudaBuffer implements Buffer {
  private final int rows;
  private final int width;
  private Gpu.@Nullable Memory memory;

  CudaBuffer(int rows, int width, Gpu.Memory memory) {
    this.rows = rows;
    this.width = width;
    this.memory = memory;
  }

  /** Where the first row begins; row t is {@code 4 · t · width} bytes on. */
  long address() {
    if (memory == null) {
      throw new IllegalStateException("buffer (%d, %d) is closed".formatted(rows, width));
    }
    return memory.address();
  }

  /**
   * Checks that it can be used.
   *
   * @throws IllegalStateException if it is closed
   */
  void checkOpen() {
    if (memory == null) {
      throw new IllegalStateException("buffer (%d, %d) is closed".formatted(rows, width));
    }
  }

  @Override
  public int rows() {
    return rows;
  }

  @Override
  public int width() {
    return width;
  }

  @Override
  public void close() {
    if (memory != null) {
      memory.close();
      memory = null;
    }
  }
}
