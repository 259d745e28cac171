package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A matrix in device memory, in one allocation: dense by rows as stored, or 4-bit with its
 * statistics as stored, by {@linkplain FourBitTiles tiles} where it fits them.
 */
final class CudaMatrix implements Matrix {
  /** Another name, other bytes of {@link #stored}. */
  static final String LAYOUT = "cuda-1";

  private static final int CODES = 16;
  private static final int SCALE_CODES = 256;

  private final Gpu gpu;
  private final Shape shape;
  private final Gpu.Memory memory;
  private final SharedTables.@Nullable Table codebook;
  private final SharedTables.@Nullable Table map;
  private final Weights weights;
  private boolean closed;

  /** What a matrix consists of: all that its {@link #stored} form says. */
  private record Shape(int form, int rows, int cols, @Nullable Decoding decoding) {
    /** The parts' sizes in bytes, in the order in which they lie in memory. */
    long[] sizes() {
      if (decoding == null) {
        return new long[] {multiply(multiply(rows, cols), form == Weights.F32 ? 4 : 2)};
      }
      long codes;
      long scales;
      long blocks = (multiply(rows, cols) + decoding.blockSize - 1) / decoding.blockSize;
      if (form == Weights.TILES) {
        codes = FourBitTiles.codeBytes(rows, cols);
        scales = FourBitTiles.scales(rows, cols, decoding.blockSize);
      } else {
        codes = (multiply(rows, cols) + 1) / 2;
        scales = blocks;
      }
      Nesting nesting = decoding.nesting;
      if (nesting == null) {
        return form == Weights.TILES
            ? new long[] {codes, 4 * scales}
            : new long[] {4 * scales, codes};
      }
      // Rows that only fill a tile up have scales to decode, too.
      long decoded = form == Weights.TILES ? scales : blocks;
      long nested = 4 * ((decoded + nesting.size - 1) / nesting.size);
      // What has 4-byte elements comes before what has not a multiple of 4 bytes.
      return form == Weights.TILES
          ? new long[] {codes, scales, nested}
          : new long[] {nested, scales, codes};
    }

    Footprint footprint() {
      long[] sizes = sizes();
      if (decoding == null) {
        return new Footprint(0, 0, 0, sizes[0]);
      }
      int last = sizes.length - 1;
      boolean tiles = form == Weights.TILES;
      long nested = decoding.nesting == null ? 0 : sizes[tiles ? last : 0];
      long scales = decoding.nesting == null ? sizes[tiles ? 1 : 0] : sizes[1];
      return new Footprint(sizes[tiles ? 0 : last], scales, nested, 0);
    }

    private static long multiply(long a, long b) {
      try {
        return Math.multiplyExact(a, b);
      } catch (ArithmeticException e) {
        throw new IllegalArgumentException("packed matrix: more bytes than can be counted", e);
      }
    }
  }

  // What decodes 4-bit weights. The arrays are not changed.
  @SuppressWarnings("ArrayRecordComponent")
  private record Decoding(int blockSize, float[] codebook, @Nullable Nesting nesting) {}

  @SuppressWarnings("ArrayRecordComponent")
  private record Nesting(int size, float offset, float[] map) {}

  private CudaMatrix(Gpu gpu, SharedTables tables, Shape shape, String what, Content content) {
    this.gpu = gpu;
    this.shape = shape;
    long[] sizes = shape.sizes();
    long[] at = new long[sizes.length];
    long bytes = 0;
    for (int i = 0; i < sizes.length; i++) {
      at[i] = bytes;
      bytes += sizes[i];
    }
    Decoding decoding = shape.decoding;
    SharedTables.Table codes = null;
    SharedTables.Table scaleCodes = null;
    memory = gpu.allocate(what, bytes);
    try {
      for (int i = 0; i < sizes.length; i++) {
        content.upload(i, sizes[i], memory.address() + at[i]);
      }
      if (decoding != null) {
        codes = tables.take(decoding.codebook);
        if (decoding.nesting != null) {
          scaleCodes = tables.take(decoding.nesting.map);
        }
      }
    } catch (RuntimeException | Error e) {
      if (codes != null) {
        codes.release();
      }
      memory.close();
      throw e;
    }
    codebook = codes;
    map = scaleCodes;
    weights = weights(shape, memory.address(), at, codes, scaleCodes);
  }

  private static Weights weights(
      Shape shape,
      long address,
      long[] at,
      SharedTables.@Nullable Table codebook,
      SharedTables.@Nullable Table map) {
    Decoding decoding = shape.decoding;
    if (decoding == null || codebook == null) {
      return new Weights(address, 0, 0, 0, 0, shape.form, shape.rows, shape.cols, 0, 0, 0);
    }
    boolean tiles = shape.form == Weights.TILES;
    Nesting nesting = decoding.nesting;
    int last = at.length - 1;
    long codes = address + at[tiles ? 0 : last];
    int blockShift = Integer.numberOfTrailingZeros(decoding.blockSize);
    if (nesting == null || map == null) {
      return new Weights(
          codes,
          address + at[tiles ? 1 : 0],
          0,
          0,
          codebook.address(),
          shape.form,
          shape.rows,
          shape.cols,
          blockShift,
          0,
          0);
    }
    return new Weights(
        codes,
        address + at[1],
        address + at[tiles ? last : 0],
        map.address(),
        codebook.address(),
        shape.form,
        shape.rows,
        shape.cols,
        blockShift,
        nesting.size,
        nesting.offset);
  }

  /** Puts a part of so many bytes, by its number, where it is to lie. */
  private interface Content {
    void upload(int part, long bytes, long address);
  }

  /** Makes a 4-bit matrix resident. */
  static CudaMatrix of(Gpu gpu, SharedTables tables, QuantizedMatrix source) {
    Nesting nesting =
        source.doubleQuant()
            ? new Nesting(source.nestedBlockSize(), source.nestedOffset(), source.nestedMap())
            : null;
    boolean tiles =
        FourBitTiles.fit(source.cols(), source.blockSize(), nesting == null ? 1 : nesting.size);
    Shape shape =
        new Shape(
            tiles ? Weights.TILES : Weights.STORED,
            source.rows(),
            source.cols(),
            new Decoding(source.blockSize(), source.codebook(), nesting));
    String what = "%s matrix (%d, %d)".formatted(source.type(), source.rows(), source.cols());
    int nestedPart = nesting == null ? -1 : tiles ? 2 : 0;
    int codePart = tiles ? 0 : nesting == null ? 1 : 2;
    return new CudaMatrix(
        gpu,
        tables,
        shape,
        what,
        (part, bytes, address) -> {
          if (part == nestedPart) {
            int count = (int) (bytes / 4);
            float[] padded = Arrays.copyOf(source.nestedAbsmax(), count);
            gpu.upload(MemorySegment.ofArray(padded), address);
          } else if (tiles) {
            try (Arena arena = Arena.ofConfined()) {
              MemorySegment packed = arena.allocate(bytes, 64);
              if (part == codePart) {
                FourBitTiles.codes(source, packed);
              } else {
                FourBitTiles.scales(source, packed);
              }
              gpu.upload(packed, address);
            }
          } else if (part == codePart) {
            gpu.upload(source.packed(), address);
          } else {
            gpu.upload(nesting == null ? source.absmaxPlain() : source.absmaxCodes(), address);
          }
        });
  }

  /** Makes a dense matrix resident. */
  static CudaMatrix of(Gpu gpu, SharedTables tables, DenseMatrix source) {
    Shape shape = new Shape(form(source.dtype()), source.rows(), source.cols(), null);
    String what = "%s matrix (%d, %d)".formatted(source.dtype(), source.rows(), source.cols());
    return new CudaMatrix(
        gpu, tables, shape, what, (part, bytes, address) -> gpu.upload(source.data(), address));
  }

  /** How dense elements of a type are named in {@link Weights} and in an adapter's parts. */
  static int form(DType dtype) {
    return switch (dtype) {
      case F32 -> Weights.F32;
      case BF16 -> Weights.BF16;
      case F16 -> Weights.F16;
      default -> throw new IllegalArgumentException("expected F32, F16 or BF16, got " + dtype);
    };
  }

  /**
   * Makes a matrix resident that {@link #stored} gave.
   *
   * @throws IllegalArgumentException if its parts are not those that its form describes
   */
  static CudaMatrix of(Gpu gpu, SharedTables tables, PackedMatrix packed) {
    Shape shape;
    try {
      shape = shape(packed.form().asByteBuffer().order(ByteOrder.LITTLE_ENDIAN));
    } catch (BufferUnderflowException e) {
      throw new IllegalArgumentException("packed matrix: its form ends too early", e);
    }
    List<MemorySegment> parts = packed.parts();
    long[] sizes = shape.sizes();
    check(parts.size() == sizes.length);
    for (int i = 0; i < sizes.length; i++) {
      if (parts.get(i).byteSize() != sizes[i]) {
        throw new IllegalArgumentException(
            "packed matrix: expected a part of %d bytes, got %d"
                .formatted(sizes[i], parts.get(i).byteSize()));
      }
    }
    return new CudaMatrix(
        gpu,
        tables,
        shape,
        "packed matrix (%d, %d)".formatted(shape.rows, shape.cols),
        (part, bytes, address) -> gpu.upload(parts.get(part), address));
  }

  private static Shape shape(ByteBuffer form) {
    int kind = form.getInt();
    int rows = form.getInt();
    int cols = form.getInt();
    check(rows > 0 && cols > 0);
    Decoding decoding = null;
    if (kind == Weights.TILES || kind == Weights.STORED) {
      int blockSize = form.getInt();
      check(blockSize >= 2 && Integer.bitCount(blockSize) == 1);
      float[] codebook = floats(form, CODES);
      int nestedSize = form.getInt();
      check(nestedSize >= 0);
      Nesting nesting =
          nestedSize == 0
              ? null
              : new Nesting(nestedSize, form.getFloat(), floats(form, SCALE_CODES));
      check(kind != Weights.TILES || FourBitTiles.fit(cols, blockSize, Math.max(1, nestedSize)));
      decoding = new Decoding(blockSize, codebook, nesting);
    } else {
      check(kind == Weights.F32 || kind == Weights.BF16 || kind == Weights.F16);
    }
    check(!form.hasRemaining());
    return new Shape(kind, rows, cols, decoding);
  }

  private static float[] floats(ByteBuffer form, int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = form.getFloat();
    }
    return values;
  }

  private static void check(boolean met) {
    if (!met) {
      throw new IllegalArgumentException("packed matrix: form and parts do not fit each other");
    }
  }

  /**
   * What kernels get.
   *
   * @throws IllegalStateException if the matrix is closed
   */
  Weights weights() {
    if (closed) {
      throw new IllegalStateException(
          "matrix (%d, %d) is closed".formatted(shape.rows, shape.cols));
    }
    return weights;
  }

  @Override
  public int rows() {
    return shape.rows;
  }

  @Override
  public int cols() {
    return shape.cols;
  }

  @Override
  public Footprint footprint() {
    return shape.footprint();
  }

  @Override
  public PackedMatrix stored() {
    long address = memory.address();
    List<MemorySegment> parts = new ArrayList<>();
    for (long size : shape.sizes()) {
      MemorySegment part = Arena.ofAuto().allocate(size, PackedMatrix.ALIGNMENT);
      gpu.download(address, part);
      parts.add(part);
      address += size;
    }
    ByteBuffer form = ByteBuffer.allocate(2048).order(ByteOrder.LITTLE_ENDIAN);
    form.putInt(shape.form).putInt(shape.rows).putInt(shape.cols);
    Decoding decoding = shape.decoding;
    if (decoding != null) {
      form.putInt(decoding.blockSize);
      put(form, decoding.codebook);
      Nesting nesting = decoding.nesting;
      form.putInt(nesting == null ? 0 : nesting.size);
      if (nesting != null) {
        form.putFloat(nesting.offset);
        put(form, nesting.map);
      }
    }
    return new PackedMatrix(MemorySegment.ofBuffer(form.flip()), parts);
  }

  private static void put(ByteBuffer form, float[] values) {
    for (float value : values) {
      form.putFloat(value);
    }
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      memory.close();
      if (codebook != null) {
        codebook.release();
      }
      if (map != null) {
        map.release();
      }
    }
  }
}
