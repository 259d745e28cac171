package dev.wardrobe.safetensors;

import java.util.List;

/**
 * One tensor of an opened file: where its bytes are and how to read them. An opened file vouches
 * that the shape's product times the element size is {@code byteSize}, and that the bytes exist.
 *
 * @param name the tensor's name in the file
 * @param dtype the element type
 * @param shape the dimensions, outermost first; empty for a scalar
 * @param offset where the tensor starts, in bytes from the start of its file's tensor data
 * @param byteSize its size in bytes
 */
public record TensorInfo(String name, DType dtype, List<Long> shape, long offset, long byteSize) {
  public TensorInfo {
    shape = List.copyOf(shape);
  }

  /** Number of elements: the shape's product, 1 for a scalar. */
  public long elements() {
    return byteSize / dtype.bytes();
  }

  @Override
  public String toString() {
    return SafetensorsException.quote(name) + " " + dtype + shape;
  }
}
