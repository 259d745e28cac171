package dev.wardrobe.quant;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/**
 * A matrix that nobody trained: random codes, and random 8-bit codes for their scales. Multiplying
 * by it costs what multiplying by any other of its shape does, so that speed can be measured
 * without a checkpoint.
 */
public final class RandomMatrix {
  private RandomMatrix() {}

  /**
   * An NF4 matrix in blocks of 64, doubly quantized, whose rows keep the variance of what they
   * multiply: an output of it is about as large as an input.
   *
   * @param memory what it lies in, and lives as long as
   */
  public static QuantizedMatrix of(int rows, int cols, long seed, Arena memory) {
    int blockSize = QuantOptions.DEFAULT.blockSize();
    long elements = Math.multiplyExact((long) rows, (long) cols);
    long blocks = Math.ceilDiv(elements, blockSize);
    SplittableRandom random = new SplittableRandom(seed);
    MemorySegment packed = fill(memory, (elements + 1) / 2, random);
    MemorySegment codes = fill(memory, blocks, random);

    double squares = 0;
    float[] codebook = QuantType.NF4.shared();
    for (float code : codebook) {
      squares += code * code / codebook.length;
    }
    // The codes are equally frequent, so a weight deviates by √squares times its scale.
    float scale = (float) (1 / Math.sqrt(squares * cols));
    // Scales lie around the offset, up to half of it away.
    float[] nested = new float[Math.toIntExact(Math.ceilDiv(blocks, NestedAbsmax.BLOCK))];
    for (int i = 0; i < nested.length; i++) {
      nested[i] = scale * (0.25f + 0.25f * random.nextFloat());
    }
    return new QuantizedMatrix(
        QuantType.NF4,
        rows,
        cols,
        blockSize,
        "bfloat16",
        packed,
        codes,
        codebook,
        new QuantizedMatrix.Nesting(nested, DynamicMap.SIGNED.shared(), NestedAbsmax.BLOCK, scale));
  }

  private static MemorySegment fill(Arena memory, long bytes, SplittableRandom random) {
    // Whole longs; what is too much is cut off.
    MemorySegment all = memory.allocate(Math.ceilDiv(bytes, 8) * 8, 64);
    for (long at = 0; at < all.byteSize(); at += 8) {
      all.set(ValueLayout.JAVA_LONG, at, random.nextLong());
    }
    return all.asSlice(0, bytes);
  }
}
