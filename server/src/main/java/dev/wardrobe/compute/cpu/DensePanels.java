package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;

/**
 * A matrix of 16 or 32 bit floats as stored: panel by panel, within a panel input by input, for
 * each the weights of 32 rows. An embedding and a head that is tied to it share one.
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
    data =
        region.allocate(what, NativeMemory.multiply(what, panels(), HEIGHT, cols, dtype.bytes()));
    if (dtype == DType.F32) {
      copyInts(source.data());
    } else {
      copyShorts(source.data());
    }
  }

  /**
   * The matrix that {@link #stored()} gave, over its part as it lies there.
   *
   * @param form what follows the kind in the packed matrix's form
   * @throws IllegalArgumentException if the part is not of the size that the form asks for
   */
  DensePanels(ByteBuffer form, List<MemorySegment> parts, NativeMemory.Region region) {
    rows = form.getInt();
    cols = form.getInt();
    dtype =
        switch (form.getInt()) {
          case 0 -> DType.BF16;
          case 1 -> DType.F16;
          case 2 -> DType.F32;
          default -> throw PackedForm.malformed();
        };
    this.region = region;
    PackedForm.check(rows > 0 && cols > 0 && parts.size() == 1 && !form.hasRemaining());
    data = parts.getFirst();
    String what = "packed matrix (%d, %d)".formatted(rows, cols);
    PackedForm.size(data, NativeMemory.multiply(what, panels(), HEIGHT, cols, dtype.bytes()));
    region.adopt(data);
  }

  @Override
  public PackedMatrix stored() {
    int type =
        switch (dtype) {
          case BF16 -> 0;
          case F16 -> 1;
          default -> 2;
        };
    ByteBuffer form = PackedForm.of(PackedForm.DENSE, 12);
    form.putInt(rows).putInt(cols).putInt(type);
    return PackedForm.matrix(form, List.of(data));
  }

  /** Bytes that a copy of {@code source} takes. */
  static long bytes(DenseMatrix source) {
    long panels = Math.ceilDiv(source.rows(), HEIGHT);
    return panels * HEIGHT * source.cols() * source.dtype().bytes();
  }

  // A panel at a time and by way of arrays: the source may be a file that is read once, in order.

  private void copyShorts(MemorySegment source) {
    short[] row = new short[cols];
    short[] panel = new short[cols * HEIGHT];
    for (int first = 0; first < rows; first += HEIGHT) {
      int live = Math.min(HEIGHT, rows - first);
      for (int lane = 0; lane < HEIGHT; lane++) {
        if (lane < live) {
          MemorySegment.copy(source, SHORT, 2L * (first + lane) * cols, row, 0, cols);
        } else {
          Arrays.fill(row, (short) 0);
        }
        for (int k = 0; k < cols; k++) {
          panel[k * HEIGHT + lane] = row[k];
        }
      }
      MemorySegment.copy(panel, 0, data, SHORT, 2 * element(first, 0), panel.length);
    }
  }

  private void copyInts(MemorySegment source) {
    int[] row = new int[cols];
    int[] panel = new int[cols * HEIGHT];
    for (int first = 0; first < rows; first += HEIGHT) {
      int live = Math.min(HEIGHT, rows - first);
      for (int lane = 0; lane < HEIGHT; lane++) {
        if (lane < live) {
          MemorySegment.copy(source, INT, 4L * (first + lane) * cols, row, 0, cols);
        } else {
          Arrays.fill(row, 0);
        }
        for (int k = 0; k < cols; k++) {
          panel[k * HEIGHT + lane] = row[k];
        }
      }
      MemorySegment.copy(panel, 0, data, INT, 4 * element(first, 0), panel.length);
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

  /** Index in {@link #data} of a weight; the panel's 31 others follow or precede it. */
  long element(int row, int k) {
    return ((long) (row / HEIGHT) * cols + k) * HEIGHT + row % HEIGHT;
  }

  @Override
  public int unit() {
    return UNIT;
  }

  @Override
  public void row(int row, float[] out, int at) {
    long first = element(row, 0);
    for (int k = 0; k < cols; k++) {
      out[at + k] = value(first + (long) HEIGHT * k);
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
