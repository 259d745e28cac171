package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * A factor of an adapter in its stored type, row-major: A as {@code (r, in)}, B transposed to
 * {@code (r, out)}, so that both are read along rows.
 */
record Factor(DType dtype, int rows, int cols, MemorySegment data) {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  static Factor of(DenseMatrix source, NativeMemory.Region region) {
    MemorySegment data = region.allocate("adapter", source.data().byteSize());
    data.copyFrom(source.data());
    return new Factor(source.dtype(), source.rows(), source.cols(), data);
  }

  static Factor transposed(DenseMatrix source, NativeMemory.Region region) {
    int rows = source.cols();
    int cols = source.rows();
    MemorySegment from = source.data();
    MemorySegment data = region.allocate("adapter", from.byteSize());
    int size = source.dtype().bytes();
    for (int row = 0; row < rows; row++) {
      for (int col = 0; col < cols; col++) {
        long in = ((long) col * rows + row) * size;
        long out = ((long) row * cols + col) * size;
        if (size == 2) {
          data.set(SHORT, out, from.get(SHORT, in));
        } else {
          data.set(INT, out, from.get(INT, in));
        }
      }
    }
    return new Factor(source.dtype(), rows, cols, data);
  }

  /** Widens {@code count} elements of a row, exactly. */
  void read(int row, int col, float[] out, int at, int count) {
    dtype.widen(data, (long) row * cols + col, out, at, count);
  }

  float get(int row, int col) {
    long index = (long) row * cols + col;
    return switch (dtype) {
      case BF16 -> DType.bfloat16ToFloat(data.get(SHORT, 2 * index));
      case F16 -> Float.float16ToFloat(data.get(SHORT, 2 * index));
      default -> Float.intBitsToFloat(data.get(INT, 4 * index));
    };
  }
}
