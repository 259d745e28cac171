package dev.wardrobe.model;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/** Comparison of stored floating-point tensors by value bits. */
final class Floats {
  private static final int CHUNK = 1 << 14;

  private Floats() {}

  /** Whether two tensors have the same elements, bit for bit once widened to float32. */
  static boolean equal(DType typeA, MemorySegment a, DType typeB, MemorySegment b) {
    if (typeA == typeB) {
      return a.mismatch(b) == -1;
    }
    long count = a.byteSize() / typeA.bytes();
    if (count != b.byteSize() / typeB.bytes()) {
      return false;
    }
    float[] left = new float[CHUNK];
    float[] right = new float[CHUNK];
    for (long from = 0; from < count; from += CHUNK) {
      int length = (int) Math.min(CHUNK, count - from);
      typeA.widen(a, from, left, 0, length);
      typeB.widen(b, from, right, 0, length);
      if (!Arrays.equals(left, 0, length, right, 0, length)) {
        return false;
      }
    }
    return true;
  }
}
