package dev.wardrobe.safetensors;

import java.util.List;

/**
 * A tensor to be written: its name, element type and shape, without its bytes.
 *
 * @param shape the dimensions, outermost first; empty for a scalar
 */
public record TensorSpec(String name, DType dtype, List<Long> shape) {
  /**
   * Checks the shape.
   *
   * @throws IllegalArgumentException if a dimension is negative or the size overflows 63 bits
   */
  public TensorSpec {
    shape = List.copyOf(shape);
    if (Shapes.byteSize(shape, dtype) < 0) {
      throw new IllegalArgumentException(
          "tensor '" + name + "': no size in bytes for " + dtype + shape);
    }
  }

  /** Size of the tensor in bytes. */
  public long byteSize() {
    return Shapes.byteSize(shape, dtype);
  }
}
