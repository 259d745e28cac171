package dev.wardrobe.quant;

import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.TensorInfo;
import java.lang.foreign.MemorySegment;

/**
 * The float32 elements of a matrix in row-major order, handed out range by range, so that a matrix
 * need not be in memory as float32. Implementations are read by several threads at once.
 */
@FunctionalInterface
public interface FloatSource {
  /** Puts elements {@code from} to {@code from + count} into {@code out} at {@code at}. */
  void read(long from, float[] out, int at, int count);

  /** What messages call the matrix. */
  default String name() {
    return "matrix";
  }

  /** The elements of an array. */
  static FloatSource of(String name, float[] values) {
    return new FloatSource() {
      @Override
      public void read(long from, float[] out, int at, int count) {
        System.arraycopy(values, Math.toIntExact(from), out, at, count);
      }

      @Override
      public String name() {
        return name;
      }
    };
  }

  /**
   * A 16- or 32-bit tensor of an open checkpoint.
   *
   * @throws QuantException if its type is not F32, F16 or BF16
   */
  static FloatSource of(Checkpoint checkpoint, TensorInfo tensor) throws QuantException {
    DType dtype = tensor.dtype();
    if (!dtype.widens()) {
      throw new QuantException(
          "tensor " + tensor + ": expected F32, F16 or BF16 to quantize, got " + dtype);
    }
    MemorySegment data = checkpoint.data(tensor);
    return new FloatSource() {
      @Override
      public void read(long from, float[] out, int at, int count) {
        dtype.widen(data, from, out, at, count);
      }

      @Override
      public String name() {
        return tensor.name();
      }
    };
  }
}
