package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * A factor of an adapter in its stored type, at its exact rank, in the order in which it is read.
 *
 * <pre>
 * A line is 64 bytes, 16 lanes of 32 bits. A lane holds one float32; or two 16-bit floats, the
 * first in its low half, so that both widen by a shift or a mask and no line is read in parts.
 *
 * A by rows. The inputs of a row in lines: input k is in lane k mod 16, and of 32 inputs the first
 *   16 are the low halves. Four rows go together, line by line, and the last ones if fewer; what
 *   fills no line follows, row by row. So a group is one run of memory, with four sums under way.
 * B by panels of 16 outputs, a lane each: (outputs / 16, rank, 16), in lines of two ranks if of 16
 *   bits. An odd rank's last 16 follow as they are, as does the last panel if it has fewer outputs.
 *   So all that an output needs is one run of memory, and so is a worker's share of the outputs.
 * </pre>
 *
 * @param length inputs of A (an embedding's: its vocabulary), outputs of B
 * @param panels whether it is in panels
 */
record Factor(DType dtype, int rank, int length, boolean panels, MemorySegment data) {
  /** Lanes of a line. */
  static final int LANES = Elementary.LANES;

  /** Rows that go together, line by line. */
  static final int GROUP = 4;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** A from {@code (rank, inputs)}. */
  static Factor rows(DenseMatrix source, NativeMemory.Region region) {
    MemorySegment data = region.allocate("adapter", source.data().byteSize());
    Factor a = new Factor(source.dtype(), source.rows(), source.cols(), false, data);
    for (int j = 0; j < a.rank; j++) {
      if (a.dtype == DType.F32) {
        a.layInts(source.data(), j);
      } else {
        a.layShorts(source.data(), j);
      }
    }
    return a;
  }

  private void layShorts(MemorySegment source, int j) {
    long from = 2L * j * length;
    short[] pair = new short[2 * LANES];
    int[] line = new int[LANES];
    for (int k = 0; k < inLines(); k += 2 * LANES) {
      MemorySegment.copy(source, SHORT, from + 2L * k, pair, 0, 2 * LANES);
      for (int lane = 0; lane < LANES; lane++) {
        line[lane] = (pair[lane] & 0xffff) | (pair[LANES + lane] << 16);
      }
      MemorySegment.copy(line, 0, data, INT, 2 * line(j, k), LANES);
    }
    for (int k = inLines(); k < length; k++) {
      data.set(SHORT, 2 * element(j, k), source.get(SHORT, from + 2L * k));
    }
  }

  private void layInts(MemorySegment source, int j) {
    long from = 4L * j * length;
    for (int k = 0; k < inLines(); k += LANES) {
      MemorySegment.copy(source, from + 4L * k, data, 4 * line(j, k), 4 * LANES);
    }
    for (int k = inLines(); k < length; k++) {
      data.set(INT, 4 * element(j, k), source.get(INT, from + 4L * k));
    }
  }

  /** B from {@code (outputs, rank)}. */
  static Factor panels(DenseMatrix source, NativeMemory.Region region) {
    MemorySegment data = region.allocate("adapter", source.data().byteSize());
    Factor b = new Factor(source.dtype(), source.cols(), source.rows(), true, data);
    if (b.dtype == DType.F32) {
      b.turnInts(source.data());
    } else {
      b.turnShorts(source.data());
    }
    return b;
  }

  // A panel at a time and by way of arrays: the source may be a file that is read once, in order.

  private void turnShorts(MemorySegment source) {
    int size = Math.multiplyExact(Math.min(LANES, length), rank);
    short[] rows = new short[size];
    short[] panel = new short[size];
    for (int out = 0; out < length; out += LANES) {
      int width = Math.min(LANES, length - out);
      int paired = width < LANES ? 0 : rank & -2;
      long at = 2L * out * rank;
      MemorySegment.copy(source, SHORT, at, rows, 0, width * rank);
      for (int lane = 0; lane < width; lane++) {
        for (int j = 0; j < paired; j += 2) {
          panel[j * LANES + 2 * lane] = rows[lane * rank + j];
          panel[j * LANES + 2 * lane + 1] = rows[lane * rank + j + 1];
        }
        for (int j = paired; j < rank; j++) {
          panel[j * width + lane] = rows[lane * rank + j];
        }
      }
      MemorySegment.copy(panel, 0, data, SHORT, at, width * rank);
    }
  }

  private void turnInts(MemorySegment source) {
    int size = Math.multiplyExact(Math.min(LANES, length), rank);
    int[] rows = new int[size];
    int[] panel = new int[size];
    for (int out = 0; out < length; out += LANES) {
      int width = Math.min(LANES, length - out);
      long at = 4L * out * rank;
      MemorySegment.copy(source, INT, at, rows, 0, width * rank);
      for (int lane = 0; lane < width; lane++) {
        for (int j = 0; j < rank; j++) {
          panel[j * width + lane] = rows[lane * rank + j];
        }
      }
      MemorySegment.copy(panel, 0, data, INT, at, width * rank);
    }
  }

  /** Elements of a line. */
  int perLine() {
    return dtype == DType.F32 ? LANES : 2 * LANES;
  }

  /** Inputs of A that are in lines; the rest, fewer than a line holds, follow. */
  int inLines() {
    return length - length % perLine();
  }

  /** Where in {@link #data}, in elements, A's line begins that holds row {@code j}'s input k. */
  long line(int j, int k) {
    int first = j - j % GROUP;
    int group = Math.min(GROUP, rank - first);
    return (long) first * length + ((long) (k / perLine()) * group + j - first) * perLine();
  }

  /** Index in {@link #data} of the element of rank {@code j} for input or output {@code i}. */
  long element(int j, int i) {
    return panels ? elementOfPanel(j, i) : elementOfRow(j, i);
  }

  private long elementOfRow(int j, int k) {
    if (k < inLines()) {
      int within = k % perLine();
      return line(j, k) + (dtype == DType.F32 ? within : within % LANES * 2 + within / LANES);
    }
    int first = j - j % GROUP;
    int group = Math.min(GROUP, rank - first);
    long rest = (long) first * length + (long) group * inLines();
    return rest + (long) (j - first) * (length - inLines()) + k - inLines();
  }

  private long elementOfPanel(int j, int out) {
    int first = out - out % LANES;
    int width = Math.min(LANES, length - first);
    boolean paired = dtype != DType.F32 && width == LANES && j < (rank & -2);
    long panel = (long) first * rank;
    return paired
        ? panel + (long) (j & -2) * LANES + 2L * (out - first) + (j & 1)
        : panel + (long) j * width + out - first;
  }

  float get(int j, int i) {
    long index = element(j, i);
    return switch (dtype) {
      case BF16 -> DType.bfloat16ToFloat(data.get(SHORT, 2 * index));
      case F16 -> Float.float16ToFloat(data.get(SHORT, 2 * index));
      default -> Float.intBitsToFloat(data.get(INT, 4 * index));
    };
  }
}
