package dev.wardrobe.safetensors;

import java.util.List;

/** Arithmetic on shapes that came out of a file. */
final class Shapes {
  private Shapes() {}

  /** Size in bytes, or -1 where a dimension is negative or the product overflows a long. */
  static long byteSize(List<Long> shape, DType dtype) {
    long size = 1;
    for (long dimension : shape) {
      if (dimension < 0 || Math.multiplyHigh(size, dimension) != 0 || size * dimension < 0) {
        return -1;
      }
      size *= dimension;
    }
    return size > Long.MAX_VALUE / dtype.bytes() ? -1 : size * dtype.bytes();
  }
}
