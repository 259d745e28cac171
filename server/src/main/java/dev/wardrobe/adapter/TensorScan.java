package dev.wardrobe.adapter;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * What one pass over a tensor's values finds.
 *
 * @param notFinite index of the first NaN or infinity, or -1
 * @param zero whether every value is zero
 */
record TensorScan(long notFinite, boolean zero) {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Looks at all of {@code data}, which is of F32, F16 or BF16. */
  static TensorScan of(DType dtype, MemorySegment data) {
    // The exponent's bits; all set is NaN or infinity.
    int exponent =
        switch (dtype) {
          case F32 -> 0x7f800000;
          case F16 -> 0x7c00;
          case BF16 -> 0x7f80;
          default -> throw new IllegalArgumentException(dtype + " is not a float to scan");
        };
    boolean wide = dtype == DType.F32;
    int magnitude = wide ? 0x7fffffff : 0x7fff;
    int any = 0;
    long count = data.byteSize() / dtype.bytes();
    for (long i = 0; i < count; i++) {
      int bits = wide ? data.get(INT, i * 4) : data.get(SHORT, i * 2);
      if ((bits & exponent) == exponent) {
        return new TensorScan(i, false);
      }
      any |= bits & magnitude;
    }
    return new TensorScan(-1, any == 0);
  }
}
