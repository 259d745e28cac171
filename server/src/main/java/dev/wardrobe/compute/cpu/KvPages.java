package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * Keys and values, {@code [layer][head][block][K, V]}, so that what one head reads of neighbouring
 * blocks is one stretch of memory. A block's keys are {@code (size, 16 positions)}, so that scores
 * of 16 positions are 16 lanes; its values {@code (16 positions, size)}.
 */
final class KvPages implements KvCache {
  /** Positions of a block. */
  static final int TOKENS = KvShape.BLOCK_TOKENS;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final KvShape shape;
  private final MemorySegment data;
  private final NativeMemory.Region region;
  private final long headElements;

  KvPages(KvShape shape, NativeMemory.Region region) {
    this.shape = shape;
    this.region = region;
    headElements = (long) shape.headDim() * TOKENS;
    String what = "KV cache of %d blocks".formatted(shape.blocks());
    data =
        region.allocate(
            what,
            NativeMemory.multiply(
                what,
                2,
                shape.layers(),
                shape.blocks(),
                shape.kvHeads(),
                shape.headDim(),
                (long) TOKENS * shape.type().bytes()));
  }

  @Override
  public KvShape shape() {
    return shape;
  }

  MemorySegment data() {
    return data;
  }

  /** How elements are stored. */
  DType dtype() {
    return shape.type() == KvShape.Type.BF16 ? DType.BF16 : DType.F32;
  }

  /** Index of the first element of a head's keys in a block. */
  long keys(int layer, int block, int head) {
    return (((long) layer * shape.kvHeads() + head) * shape.blocks() + block) * 2 * headElements;
  }

  /** Index of the first element of a head's values in a block. */
  long values(int layer, int block, int head) {
    return keys(layer, block, head) + headElements;
  }

  /** Stores the key and value of a head at one position of a block, rounded to nearest even. */
  void write(
      int layer,
      int block,
      int head,
      int slot,
      float[] keys,
      float[] values,
      int at,
      Kernels kernels,
      Scratch scratch) {
    int size = shape.headDim();
    long key = keys(layer, block, head) + slot;
    long value = values(layer, block, head) + (long) slot * size;
    if (shape.type() == KvShape.Type.BF16) {
      short[] halves = scratch.shorts(size);
      kernels.narrow(keys, at, size, halves);
      for (int d = 0; d < size; d++) {
        data.set(SHORT, 2 * (key + (long) d * TOKENS), halves[d]);
      }
      kernels.narrow(values, at, size, halves);
      MemorySegment.copy(halves, 0, data, SHORT, 2 * value, size);
    } else {
      for (int d = 0; d < size; d++) {
        data.set(FLOAT, 4 * (key + (long) d * TOKENS), keys[at + d]);
      }
      MemorySegment.copy(values, at, data, FLOAT, 4 * value, size);
    }
  }

  @Override
  public void close() {
    region.close();
  }
}
