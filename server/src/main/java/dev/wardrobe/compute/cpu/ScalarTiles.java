package dev.wardrobe.compute.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** Tiles in plain Java. */
final class ScalarTiles implements Tiles {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  @Override
  public void round(float[] x, int from, int count, MemorySegment to, long at) {
    for (int i = 0; i < count; i++) {
      to.set(SHORT, at + 2L * i, (short) bfloat16(x[from + i]));
    }
  }

  @Override
  public void pairs(
      Panels w, int panel, int k, int count, MemorySegment tile, long at, Scratch scratch) {
    int live = Math.min(Panels.HEIGHT, w.rows() - panel * Panels.HEIGHT);
    float[] weights = scratch.row(w.cols());
    for (int row = 0; row < Panels.HEIGHT; row++) {
      if (row < live) {
        w.row(panel * Panels.HEIGHT + row, weights, 0);
      }
      for (int i = 0; i < count; i += 2) {
        int pair = 0;
        if (row < live) {
          pair = bfloat16(weights[k + i]);
          if (i + 1 < count) {
            pair |= bfloat16(weights[k + i + 1]) << 16;
          }
        }
        tile.set(INT, at + 4L * (i / 2 * OneDnn.TILE_ROWS + row), pair);
      }
    }
  }

  @Override
  public void columns(
      Panels w,
      int panel,
      int k,
      int count,
      MemorySegment tile,
      long at,
      long stride,
      Scratch scratch) {
    int live = Math.min(Panels.HEIGHT, w.rows() - panel * Panels.HEIGHT);
    float[] weights = scratch.row(w.cols());
    for (int row = 0; row < Panels.HEIGHT; row++) {
      if (row < live) {
        w.row(panel * Panels.HEIGHT + row, weights, 0);
      }
      for (int i = 0; i < count; i++) {
        int weight = row < live ? bfloat16(weights[k + i]) : 0;
        tile.set(SHORT, at + i * stride + 2L * row, (short) weight);
      }
    }
  }

  /** The nearest bfloat16, in the lower half. */
  static int bfloat16(float value) {
    // floatToIntBits knows one NaN alone, and it does not overflow.
    return (Float.floatToIntBits(value) + 0x8000) >>> 16;
  }
}
