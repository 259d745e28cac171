package dev.wardrobe.compute.cpu;

import java.lang.foreign.MemorySegment;

/**
 * What turns inputs and weights into bfloat16 for {@link OneDnn}: {@link VectorTiles}, and {@link
 * ScalarTiles}, which says in plain Java what it writes; {@link TieredTiles} chooses between them
 * and generated code. All write the same bits.
 *
 * <p>Rounding is to nearest, ties away from zero: half a unit in the last place at most, as ties to
 * even, for a third of the operations. NaN stays NaN.
 */
interface Tiles {
  /** Those that go with the kernels in use. */
  static Tiles beside(Kernels kernels) {
    return switch (kernels) {
      case TieredKernels _ -> TieredTiles.shared();
      case VectorKernels _ -> new VectorTiles();
      default -> new ScalarTiles();
    };
  }

  /** Writes {@code x[from + i]} in bfloat16 from byte {@code at} on. */
  void round(float[] x, int from, int count, MemorySegment to, long at);

  /**
   * Writes inputs {@code k} to {@code k + count} of a panel, {@code float32(code·absmax)} in
   * bfloat16: for each two inputs 32 ints, one a row, the first input in the lower half; the ints
   * of the next two inputs begin {@link OneDnn#TILE_ROWS} ints further on. A last single input is
   * paired with 0.
   *
   * @param k a multiple of {@link Panels#UNIT}
   * @param at the byte where the first 32 ints begin
   */
  void pairs(Panels w, int panel, int k, int count, MemorySegment tile, long at, Scratch scratch);

  /**
   * Writes inputs {@code k} to {@code k + count} of a panel the other way round: for each input the
   * panel's rows side by side, zeros beyond the last; the next input's begin {@code stride} bytes
   * further on.
   *
   * @param k a multiple of {@link Panels#UNIT}
   * @param count at most {@link Panels#UNIT}
   * @param at the byte where the first input's begin
   */
  void columns(
      Panels w,
      int panel,
      int k,
      int count,
      MemorySegment tile,
      long at,
      long stride,
      Scratch scratch);
}
