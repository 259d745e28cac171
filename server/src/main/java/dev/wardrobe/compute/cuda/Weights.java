package dev.wardrobe.compute.cuda;

/**
 * A matrix as kernels see it: Weights in wardrobe.cuh, field by field.
 *
 * @param data device address of the elements or codes
 * @param absmax of the scales: codes where they are doubly quantized, else float32; 0 if dense
 * @param nested of the scales' scales, or 0
 * @param map of the 256 values of the scales' codes, or 0
 * @param codebook of the 16 values of the codes, or 0
 * @param form one of the constants
 * @param blockShift binary logarithm of the elements that share a scale
 * @param nestedSize scales that share a scale of their own
 * @param offset added to every decoded scale
 */
record Weights(
    long data,
    long absmax,
    long nested,
    long map,
    long codebook,
    int form,
    int rows,
    int cols,
    int blockShift,
    int nestedSize,
    float offset) {

  /** Dense, by rows; these three are also the types of an adapter's factors. */
  static final int F32 = 0;

  static final int BF16 = 1;
  static final int F16 = 2;

  /** 4-bit, by tiles of 16 rows and 64 columns as {@link FourBitTiles} lays them out. */
  static final int TILES = 3;

  /** 4-bit, in the order of the source: blocks that end anywhere. */
  static final int STORED = 4;

  /** Appends it to a kernel's arguments. */
  void addTo(LaunchArguments arguments) {
    arguments
        .address(data)
        .address(absmax)
        .address(nested)
        .address(map)
        .address(codebook)
        .number(form)
        .number(rows)
        .number(cols)
        .number(blockShift)
        .number(nestedSize)
        .number(offset);
  }
}
