package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Buffer;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** Rows of floats on the heap. */
final class CpuBuffer implements Buffer {
  private final int rows;
  private final int width;
  private final NativeMemory memory;
  private MemorySegment segment;
  private float @Nullable [] data;

  CpuBuffer(int rows, int width, NativeMemory memory) {
    if (rows < 1 || width < 1) {
      throw new IllegalArgumentException(
          "buffer: expected at least one row and column, got (%d, %d)".formatted(rows, width));
    }
    this.rows = rows;
    this.width = width;
    this.memory = memory;
    float[] floats = memory.floats("buffer (%d, %d)".formatted(rows, width), (long) rows * width);
    data = floats;
    segment = MemorySegment.ofArray(floats);
  }

  /** {@link #data} as a segment, made once because a step allocates nothing. */
  MemorySegment segment() {
    data();
    return segment;
  }

  /** The floats; row t begins at {@code t · width}. */
  float[] data() {
    float[] floats = data;
    if (floats == null) {
      throw new IllegalStateException("buffer (%d, %d) is closed".formatted(rows, width));
    }
    return floats;
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
    if (data != null) {
      data = null;
      segment = MemorySegment.NULL;
      memory.release(bytes());
    }
  }
}
