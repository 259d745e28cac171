package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * A matrix of 16 or 32 bit floats as stored: panel by panel, within a panel input by input, for
 * each the weights of 16 rows. An embedding and a head that is tied to it share one.
 */
final class DensePanels implements Panels {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final int rows;
  private final int cols;
  private final DType dtype;
  private final MemorySegment data;
  private final NativeMemory.Region region;

  /** Copies {@code source}; the region is then this matrix's own or its adapter's. */
  DensePanels(DenseMatrix source, NativeMemory.Region region) {
    rows = source.rows();
    cols = source.cols();
    dtype = source.dtype();
    this.region = region;
    String what = "matrix (%d, %d) of %s".formatted(rows, cols, dtype);
    data = region.allocate(what, NativeMemory.multiply(what, panels(), ROWS, cols, dtype.bytes()));
    int size = dtype.bytes();
    MemorySegment from = source.data();
    for (int row = 0; row < rows; row++) {
      long in = (long) row * cols * size;
      long out = element(row, 0) * size;
      if (size == 2) {
        for (int k = 0; k < cols; k++) {
          data.set(SHORT, out + 32L * k, from.get(SHORT, in + 2L * k));
        }
      } else {
        for (int k = 0; k < cols; k++) {
          data.set(INT, out + 64L * k, from.get(INT, in + 4L * k));
        }
      }
    }
  }

  @Override
  public int rows() {
    return rows;
  }

  @Override
  public int cols() {
    return cols;
  }

  DType dtype() {
    return dtype;
  }

  /** Where the panels are. */
  MemorySegment data() {
    return data;
  }

  /** Index in {@link #data} of a weight; the panel's 15 others follow or precede it. */
  long element(int row, int k) {
    return ((long) (row / ROWS) * cols + k) * ROWS + row % ROWS;
  }

  @Override
  public int unit() {
    return UNIT;
  }

  @Override
  public void row(int row, float[] out, int at) {
    long first = element(row, 0);
    for (int k = 0; k < cols; k++) {
      out[at + k] = value(first + (long) ROWS * k);
    }
  }

  private float value(long index) {
    return switch (dtype) {
      case BF16 -> DType.bfloat16ToFloat(data.get(SHORT, 2 * index));
      case F16 -> Float.float16ToFloat(data.get(SHORT, 2 * index));
      default -> Float.intBitsToFloat(data.get(INT, 4 * index));
    };
  }

  @Override
  public Footprint footprint() {
    return new Footprint(0, 0, 0, data.byteSize());
  }

  @Override
  public void close() {
    region.close();
  }
}
