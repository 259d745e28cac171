package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Buffer;

/** Rows of floats on the heap. */
final class CpuBuffer implements Buffer {
  private static final float[] NONE = new float[0];

  private final int rows;
  private final int width;
  private final NativeMemory memory;
  private float[] data;

  CpuBuffer(int rows, int width, NativeMemory memory) {
    if (rows < 1 || width < 1) {
      throw new IllegalArgumentException(
          "buffer: expected at least one row and column, got (%d, %d)".formatted(rows, width));
    }
    this.rows = rows;
    this.width = width;
    this.memory = memory;
    data = memory.floats("buffer (%d, %d)".formatted(rows, width), (long) rows * width);
  }

  /** The floats; row t begins at {@code t · width}. */
  float[] data() {
    if (data == NONE) {
      throw new IllegalStateException("buffer (%d, %d) is closed".formatted(rows, width));
    }
    return data;
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
    if (data != NONE) {
      data = NONE;
      memory.release(bytes());
    }
  }
}
