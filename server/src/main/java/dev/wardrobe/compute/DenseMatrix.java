package dev.wardrobe.compute;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;

/**
 * An unquantized matrix on the host, as stored: row-major, little-endian, {@link DType#F32}, {@link
 * DType#F16} or {@link DType#BF16}.
 *
 * @param rows outputs (or vocabulary, for an embedding)
 * @param cols inputs (or hidden size, for an embedding)
 * @param data exactly {@code rows · cols · dtype.bytes()} bytes; must outlive the upload
 */
public record DenseMatrix(DType dtype, int rows, int cols, MemorySegment data) {
  public DenseMatrix {
    if (dtype != DType.F32 && dtype != DType.F16 && dtype != DType.BF16) {
      throw new IllegalArgumentException("dense matrix: expected F32, F16 or BF16, got " + dtype);
    }
    long expected = Math.multiplyExact(Math.multiplyExact((long) rows, (long) cols), dtype.bytes());
    if (data.byteSize() != expected) {
      throw new IllegalArgumentException(
          "dense matrix (%d, %d) of %s: expected %d bytes, got %d"
              .formatted(rows, cols, dtype, expected, data.byteSize()));
    }
  }
}
