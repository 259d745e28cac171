package dev.wardrobe.quant;

/**
 * How to quantize a matrix.
 *
 * @param type the code book
 * @param blockSize consecutive elements that share a scale: a power of two from 32 to 4096
 * @param doubleQuant whether the scales are in turn quantized to 8 bits
 */
public record QuantOptions(QuantType type, int blockSize, boolean doubleQuant) {
  /** What QLoRA uses: NF4 in blocks of 64, doubly quantized. */
  public static final QuantOptions DEFAULT = new QuantOptions(QuantType.NF4, 64, true);

  static final int SMALLEST_BLOCK = 32;
  static final int LARGEST_BLOCK = 4096;

  /**
   * Checks the block size.
   *
   * @throws IllegalArgumentException if it is not a power of two from 32 to 4096
   */
  public QuantOptions {
    if (!isBlockSize(blockSize)) {
      throw new IllegalArgumentException(
          "block size: expected a power of two from "
              + SMALLEST_BLOCK
              + " to "
              + LARGEST_BLOCK
              + ", got "
              + blockSize);
    }
  }

  static boolean isBlockSize(long size) {
    return size >= SMALLEST_BLOCK && size <= LARGEST_BLOCK && Long.bitCount(size) == 1;
  }
}
