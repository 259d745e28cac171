package dev.wardrobe.quant;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * A 4-bit matrix in the form in which checkpoints store it: codes packed two to a byte, one scale
 * ("absmax") per block of consecutive elements, in row-major order and across row ends. An element
 * is {@code float32(codebook[code] * absmax)}: one rounding, whatever type the weights came from.
 *
 * <p>Immutable, and as long-lived as the memory it was made over: a matrix read from a checkpoint
 * ends when the checkpoint is closed.
 */
public final class QuantizedMatrix {
  static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final QuantType type;
  private final int rows;
  private final int cols;
  private final int blockSize;
  private final int blockBits;
  private final String sourceDtype;
  private final MemorySegment packed;
  private final MemorySegment absmax;
  private final float[] codebook;
  private final @Nullable Nesting nesting;

  /** What decodes a doubly quantized matrix's scales. Its arrays are not to be changed. */
  static final class Nesting {
    private final float[] absmax;
    private final float[] map;
    private final int blockSize;
    private final float offset;

    /**
     * Scales of scales.
     *
     * @param absmax one per {@code blockSize} scales
     * @param map 256 values
     */
    Nesting(float[] absmax, float[] map, int blockSize, float offset) {
      this.absmax = absmax;
      this.map = map;
      this.blockSize = blockSize;
      this.offset = offset;
    }
  }

  /**
   * Where a matrix's bytes are.
   *
   * @param packed the 4-bit codes
   * @param absmax the scales: one byte each if doubly quantized, else four
   * @param nested the scales' scales; 0 if not doubly quantized
   * @param tables code books of its own; 0 where they are the standard ones, which all share
   */
  public record Footprint(long packed, long absmax, long nested, long tables) {
    /** All of it. */
    public long total() {
      return packed + absmax + nested + tables;
    }
  }

  /**
   * A matrix over parts that fit each other, as their readers have checked.
   *
   * @param absmax a byte per block with {@code nesting}, else a little-endian float32 per block
   */
  QuantizedMatrix(
      QuantType type,
      int rows,
      int cols,
      int blockSize,
      String sourceDtype,
      MemorySegment packed,
      MemorySegment absmax,
      float[] codebook,
      @Nullable Nesting nesting) {
    this.type = type;
    this.rows = rows;
    this.cols = cols;
    this.blockSize = blockSize;
    this.blockBits = Integer.numberOfTrailingZeros(blockSize);
    this.sourceDtype = sourceDtype;
    this.packed = packed.asReadOnly();
    this.absmax = absmax.asReadOnly();
    this.codebook = codebook;
    this.nesting = nesting;
    assert packed.byteSize() == (elements() + 1) / 2;
    assert absmax.byteSize() == blocks() * (nesting == null ? 4 : 1);
  }

  /**
   * Quantizes a matrix into memory of its own on the heap; see {@link Quantization#quantize}.
   *
   * @throws QuantException if an element is NaN or infinite, or the scales overflow
   */
  public static QuantizedMatrix quantize(
      FloatSource source, int rows, int cols, QuantOptions options, String sourceDtype)
      throws QuantException {
    return Quantization.quantize(
        source,
        rows,
        cols,
        options,
        sourceDtype,
        (bytes, alignment) -> MemorySegment.ofArray(new byte[Math.toIntExact(bytes)]));
  }

  public QuantType type() {
    return type;
  }

  /** Output features. */
  public int rows() {
    return rows;
  }

  /** Input features. */
  public int cols() {
    return cols;
  }

  /** Consecutive elements that share a scale, a power of two; the last block may be shorter. */
  public int blockSize() {
    return blockSize;
  }

  /** rows * cols. */
  public long elements() {
    return (long) rows * cols;
  }

  /** Number of scales. */
  public long blocks() {
    return (elements() + blockSize - 1) >>> blockBits;
  }

  /** The type that the weights had before, as PyTorch names it: {@code bfloat16} and so on. */
  public String sourceDtype() {
    return sourceDtype;
  }

  /** The codes, (elements + 1) / 2 bytes: of two neighbours the first is in the high four bits. */
  public MemorySegment packed() {
    return packed;
  }

  /** The 16 values of the codes as stored, a copy. */
  public float[] codebook() {
    return codebook.clone();
  }

  /** Whether the scales are themselves quantized. */
  public boolean doubleQuant() {
    return nesting != null;
  }

  /**
   * The scales' codes, one byte per block.
   *
   * @throws IllegalStateException if not doubly quantized
   */
  public MemorySegment absmaxCodes() {
    nesting();
    return absmax;
  }

  /**
   * The scales, one little-endian float32 per block at any alignment.
   *
   * @throws IllegalStateException if doubly quantized
   */
  public MemorySegment absmaxPlain() {
    if (nesting != null) {
      throw new IllegalStateException("the scales are doubly quantized");
    }
    return absmax;
  }

  /**
   * One scale per {@link #nestedBlockSize} scales, a copy.
   *
   * @throws IllegalStateException if not doubly quantized
   */
  public float[] nestedAbsmax() {
    return nesting().absmax.clone();
  }

  /**
   * The 256 values of the scales' codes as stored, a copy.
   *
   * @throws IllegalStateException if not doubly quantized
   */
  public float[] nestedMap() {
    return nesting().map.clone();
  }

  /**
   * How many consecutive scales share a nested scale.
   *
   * @throws IllegalStateException if not doubly quantized
   */
  public int nestedBlockSize() {
    return nesting().blockSize;
  }

  /**
   * What is added to every decoded scale.
   *
   * @throws IllegalStateException if not doubly quantized
   */
  public float nestedOffset() {
    return nesting().offset;
  }

  private Nesting nesting() {
    if (nesting == null) {
      throw new IllegalStateException("the scales are not doubly quantized");
    }
    return nesting;
  }

  /** The scale of a block: if doubly quantized {@code map[code] * nested + offset}, in float32. */
  public float absmax(long block) {
    if (nesting == null) {
      return absmax.get(FLOAT, block * 4);
    }
    int code = absmax.get(ValueLayout.JAVA_BYTE, block) & 0xff;
    // Two roundings: Java never fuses them.
    float centred = nesting.map[code] * nesting.absmax[(int) (block / nesting.blockSize)];
    return centred + nesting.offset;
  }

  /** Decodes the scales of blocks {@code from} to {@code from + count}. */
  public void absmax(long from, float[] out, int at, int count) {
    for (int i = 0; i < count; i++) {
      out[at + i] = absmax(from + i);
    }
  }

  /** The code, 0 to 15, of the element at {@code index} in row-major order. */
  public int code(long index) {
    int pair = packed.get(ValueLayout.JAVA_BYTE, index >>> 1);
    return (index & 1) == 0 ? (pair >>> 4) & 0xf : pair & 0xf;
  }

  /** The element at {@code index} in row-major order. */
  public float value(long index) {
    return codebook[code(index)] * absmax(index >>> blockBits);
  }

  /**
   * Decodes elements {@code from} to {@code from + count}, in row-major order.
   *
   * @throws IndexOutOfBoundsException if the matrix or {@code out} is shorter
   */
  public void dequantize(long from, float[] out, int at, int count) {
    Objects.checkFromIndexSize(from, count, elements());
    Objects.checkFromIndexSize(at, count, out.length);
    float[] scaled = new float[16];
    byte[] pairs = new byte[Math.min(blockSize, count) / 2 + 2];
    long index = from;
    long end = from + count;
    while (index < end) {
      long block = index >>> blockBits;
      int inBlock = (int) (Math.min(end, (block + 1) << blockBits) - index);
      float scale = absmax(block);
      for (int code = 0; code < 16; code++) {
        scaled[code] = codebook[code] * scale;
      }
      int odd = (int) (index & 1);
      int bytes = (odd + inBlock + 1) / 2;
      MemorySegment.copy(packed, ValueLayout.JAVA_BYTE, index >>> 1, pairs, 0, bytes);
      int to = at + (int) (index - from);
      int left = inBlock;
      int pair = 0;
      if (odd == 1) {
        out[to++] = scaled[pairs[pair++] & 0xf];
        left--;
      }
      for (; left > 1; left -= 2) {
        int codes = pairs[pair++];
        out[to++] = scaled[(codes >>> 4) & 0xf];
        out[to++] = scaled[codes & 0xf];
      }
      if (left == 1) {
        out[to] = scaled[(pairs[pair] >>> 4) & 0xf];
      }
      index += inBlock;
    }
  }

  /** Where its bytes are. */
  public Footprint footprint() {
    long tables = 0;
    if (!type.matches(codebook)) {
      tables += 4L * codebook.length;
    }
    if (nesting != null && !DynamicMap.SIGNED.matches(nesting.map)) {
      tables += 4L * nesting.map.length;
    }
    long nested = nesting == null ? 0 : 4L * nesting.absmax.length;
    return new Footprint(packed.byteSize(), absmax.byteSize(), nested, tables);
  }

  /** Its size in memory. */
  public long bytes() {
    return footprint().total();
  }

  @Override
  public String toString() {
    return type.id() + "[" + rows + ", " + cols + "], blocks of " + blockSize;
  }
}
