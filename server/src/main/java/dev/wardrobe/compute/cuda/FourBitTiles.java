package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * How 4-bit weights lie in device memory for the tensor cores: by tiles of 16 rows and 64 columns,
 * 512 bytes each, those of 16 rows one after the other.
 *
 * <p>Of a tile lane {@code 4g + t} of a warp has 16 bytes: for each half h of the columns and each
 * step s = 0, 1 a word, in it the pairs of neighbours that the lane's A fragment holds: row g and
 * row g + 8 at column {@code 32h + 8t + 4s}, then both at 2 more. A pair is its byte as stored.
 *
 * <p>Scales lie by tiles too: for each block of the columns those of 16 rows.
 */
final class FourBitTiles {
  static final int ROWS = 16;
  static final int COLS = 64;
  static final int BYTES = ROWS * COLS / 2;

  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private FourBitTiles() {}

  /**
   * Whether a matrix can lie so: its blocks end with the tiles, and the scales that share a scale
   * are a power of two.
   */
  static boolean fit(int cols, int blockSize, int nestedSize) {
    return cols % COLS == 0
        && blockSize % COLS == 0
        && cols % blockSize == 0
        && Integer.bitCount(nestedSize) == 1;
  }

  static int tiles(int rows) {
    return (int) (((long) rows + ROWS - 1) / ROWS);
  }

  static long codeBytes(int rows, int cols) {
    return (long) tiles(rows) * (cols / COLS) * BYTES;
  }

  static long scales(int rows, int cols, int blockSize) {
    return (long) tiles(rows) * ROWS * (cols / blockSize);
  }

  /** Writes the codes; rows that only fill a tile up get pairs of 0. */
  static void codes(QuantizedMatrix source, MemorySegment to) {
    MemorySegment from = source.packed();
    int blocks = source.cols() / COLS;
    long rowBytes = source.cols() / 2;
    long at = 0;
    for (int tile = 0; tile < tiles(source.rows()); tile++) {
      for (int block = 0; block < blocks; block++) {
        for (int lane = 0; lane < 32; lane++) {
          int upper = tile * ROWS + lane / 4;
          int lower = upper + ROWS / 2;
          for (int half = 0; half < 2; half++) {
            long column = 32L * block + 16L * half + 4L * (lane % 4);
            int first = upper < source.rows() ? from.get(INT, upper * rowBytes + column) : 0;
            int second = lower < source.rows() ? from.get(INT, lower * rowBytes + column) : 0;
            to.set(INT, at, word(first, second));
            to.set(INT, at + 4, word(first >>> 16, second >>> 16));
            at += 8;
          }
        }
      }
    }
  }

  /** Two pairs of each of two rows, in turn. */
  private static int word(int first, int second) {
    return spread(first) | (spread(second) << 8);
  }

  /** The lower two bytes, a byte apart. */
  private static int spread(int pairs) {
    return (pairs & 0xff) | ((pairs & 0xff00) << 8);
  }

  /** Writes the scales as they are stored, codes or float32. */
  static void scales(QuantizedMatrix source, MemorySegment to) {
    boolean doubleQuant = source.doubleQuant();
    MemorySegment from = doubleQuant ? source.absmaxCodes() : source.absmaxPlain();
    int blocks = source.cols() / source.blockSize();
    for (int row = 0; row < source.rows(); row++) {
      for (int block = 0; block < blocks; block++) {
        long stored = (long) row * blocks + block;
        long at = ((long) row / ROWS * blocks + block) * ROWS + row % ROWS;
        if (doubleQuant) {
          to.set(JAVA_BYTE, at, from.get(JAVA_BYTE, stored));
        } else {
          to.set(INT, 4 * at, from.get(INT, 4 * stored));
        }
      }
    }
  }
}
