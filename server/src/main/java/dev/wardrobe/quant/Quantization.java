package dev.wardrobe.quant;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

/** The quantizer: from float32 elements to a {@link QuantizedMatrix}, with bitsandbytes' bits. */
public final class Quantization {
  /*
   * The rules, each with one float32 rounding per operation:
   *  - full block: absmax = max|x|, v = x * (1 / max(absmax, 1e-38)), the reciprocal first;
   *  - short last block: absmax = max(max|x|, 1e-38), v = x / absmax;
   *  - v to the nearest code, ties down (QuantType.code). bitsandbytes clamps v to [-1, 1] before,
   *    which changes no code;
   *  - an odd count is padded with v = 0.
   * Blocks are independent of each other, so the result does not depend on the threads.
   */

  private static final float SMALLEST = 1e-38f;
  // A multiple of every block size; what a thread takes at a time.
  private static final int CHUNK = 4 * QuantOptions.LARGEST_BLOCK;

  private final FloatSource source;
  private final int rows;
  private final int cols;
  private final QuantOptions options;
  private final long elements;
  private final MemorySegment packed;
  private final float[] absmax;
  private final AtomicLong nextChunk = new AtomicLong();
  private final AtomicLong firstNonFinite = new AtomicLong(Long.MAX_VALUE);

  private Quantization(
      FloatSource source, int rows, int cols, QuantOptions options, MemorySegment packed) {
    this.source = source;
    this.rows = rows;
    this.cols = cols;
    this.options = options;
    this.elements = (long) rows * cols;
    this.packed = packed;
    this.absmax = new float[(int) blocks(elements, options.blockSize())];
  }

  /**
   * Quantizes a matrix on all processors. Besides the result it needs a few hundred KiB per thread
   * and, for a while, four bytes per block.
   *
   * @param source rows * cols elements
   * @param sourceDtype what PyTorch calls the type of the weights: float32, float16 or bfloat16
   * @param memory where codes and scales go; the caller keeps it alive as long as the matrix
   * @throws QuantException if an element is NaN or infinite, or the scales' mean overflows
   */
  public static QuantizedMatrix quantize(
      FloatSource source,
      int rows,
      int cols,
      QuantOptions options,
      String sourceDtype,
      SegmentAllocator memory)
      throws QuantException {
    if (rows < 1 || cols < 1) {
      throw new QuantException(
          source.name() + ": expected a matrix, got shape [" + rows + ", " + cols + "]");
    }
    long elements = (long) rows * cols;
    if (blocks(elements, options.blockSize()) > Integer.MAX_VALUE - 8) {
      throw new QuantException(
          source.name() + ": [" + rows + ", " + cols + "] has too many blocks; enlarge them");
    }
    MemorySegment packed = memory.allocate((elements + 1) / 2, 64);
    Quantization quantization = new Quantization(source, rows, cols, options, packed);
    quantization.run();
    return quantization.result(sourceDtype, memory);
  }

  private static long blocks(long elements, int blockSize) {
    return (elements + blockSize - 1) / blockSize;
  }

  private void run() throws QuantException {
    long chunks = blocks(elements, CHUNK);
    int threads = (int) Math.min(Runtime.getRuntime().availableProcessors(), chunks);
    IntStream.range(0, threads)
        .parallel()
        .forEach(
            thread -> {
              float[] values = new float[CHUNK];
              byte[] pairs = new byte[CHUNK / 2];
              for (long chunk = nextChunk.getAndIncrement();
                  chunk < chunks;
                  chunk = nextChunk.getAndIncrement()) {
                quantizeChunk(chunk * CHUNK, values, pairs);
              }
            });
    long index = firstNonFinite.get();
    if (index != Long.MAX_VALUE) {
      float[] element = new float[1];
      source.read(index, element, 0, 1);
      throw new QuantException(
          String.format(
              "%s: element [%d, %d] is %s; only finite weights can be quantized",
              source.name(), index / cols, index % cols, element[0]));
    }
  }

  private void quantizeChunk(long from, float[] values, byte[] pairs) {
    int count = (int) Math.min(CHUNK, elements - from);
    source.read(from, values, 0, count);
    int blockSize = options.blockSize();
    int block = (int) (from / blockSize);
    for (int at = 0; at < count; at += blockSize) {
      int end = Math.min(at + blockSize, count);
      float largest = 0;
      for (int i = at; i < end; i++) {
        // Unlike a comparison, max keeps a NaN.
        largest = Math.max(largest, Math.abs(values[i]));
      }
      if (!(largest <= Float.MAX_VALUE)) {
        reportNonFinite(from, values, at);
        return;
      }
      if (end - at == blockSize) {
        absmax[block++] = largest;
        scale(values, at, end, 1 / Math.max(largest, SMALLEST));
      } else {
        largest = Math.max(largest, SMALLEST);
        absmax[block++] = largest;
        for (int i = at; i < end; i++) {
          values[i] /= largest;
        }
      }
    }
    pack(values, count, pairs);
    MemorySegment.copy(pairs, 0, packed, ValueLayout.JAVA_BYTE, from / 2, (count + 1) / 2);
  }

  private static void scale(float[] values, int from, int to, float factor) {
    for (int i = from; i < to; i++) {
      values[i] *= factor;
    }
  }

  private void pack(float[] values, int count, byte[] pairs) {
    QuantType type = options.type();
    if (count % 2 == 1) {
      values[count] = 0;
    }
    for (int i = 0; i < count; i += 2) {
      pairs[i / 2] = (byte) ((type.code(values[i]) << 4) | type.code(values[i + 1]));
    }
  }

  private void reportNonFinite(long chunk, float[] values, int at) {
    int i = at;
    while (Math.abs(values[i]) <= Float.MAX_VALUE) {
      i++;
    }
    firstNonFinite.accumulateAndGet(chunk + i, Math::min);
  }

  private QuantizedMatrix result(String sourceDtype, SegmentAllocator memory)
      throws QuantException {
    MemorySegment scales;
    QuantizedMatrix.Nesting nesting = null;
    if (options.doubleQuant()) {
      float offset = NestedAbsmax.mean(absmax);
      if (!(Math.abs(offset) <= Float.MAX_VALUE)) {
        throw new QuantException(
            source.name()
                + ": the mean of the blocks' largest magnitudes overflows float32; quantize it"
                + " without double quantization");
      }
      NestedAbsmax nested = NestedAbsmax.encode(absmax, offset);
      scales = memory.allocate(absmax.length, 64);
      MemorySegment.copy(nested.codes(), 0, scales, ValueLayout.JAVA_BYTE, 0, absmax.length);
      nesting =
          new QuantizedMatrix.Nesting(
              nested.absmax(), DynamicMap.SIGNED.shared(), NestedAbsmax.BLOCK, offset);
    } else {
      scales = memory.allocate(absmax.length * 4L, 64);
      MemorySegment.copy(absmax, 0, scales, QuantizedMatrix.FLOAT, 0, absmax.length);
    }
    return new QuantizedMatrix(
        options.type(),
        rows,
        cols,
        options.blockSize(),
        sourceDtype,
        packed,
        scales,
        options.type().shared(),
        nesting);
  }
}
