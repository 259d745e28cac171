package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.BitSet;

/**
 * Keys and values, {@code [block][layer][head][K, V]}, so that a block is one stretch of memory,
 * which can be given back to the system by itself. The memory is reserved, and taken as blocks are
 * first written to. A head's keys are {@code (size, 16 positions)}, so that scores of 16 positions
 * are 16 lanes; its values {@code (16 positions, size)}.
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
  private final boolean lazy;
  private final long headElements;
  private final long blockElements;

  /** Blocks whose memory the system has. */
  private final BitSet absent = new BitSet();

  KvPages(KvShape shape, NativeMemory.Region region) {
    this.shape = shape;
    this.region = region;
    headElements = (long) shape.headDim() * TOKENS;
    String what = "KV cache of %d blocks".formatted(shape.blocks());
    NativeMemory.multiply(
        what,
        2,
        shape.layers(),
        shape.blocks(),
        shape.kvHeads(),
        shape.headDim(),
        (long) TOKENS * shape.type().bytes());
    long blockBytes = shape.blockBytes();
    blockElements = blockBytes / shape.type().bytes();
    NativeMemory.Reserved reserved =
        region.reserve(what, NativeMemory.multiply(what, shape.blocks(), blockBytes));
    data = reserved.segment();
    lazy = reserved.lazy();
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
    return block * blockElements + ((long) layer * shape.kvHeads() + head) * 2 * headElements;
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
  public void decommit(int block) {
    MemorySegment memory = data.asSlice(block * shape.blockBytes(), shape.blockBytes());
    if (lazy && VirtualMemory.discard(memory)) {
      absent.set(block);
      region.count(-shape.blockBytes());
    } else {
      memory.fill((byte) 0);
    }
  }

  @Override
  public void commit(int block) {
    if (absent.get(block)) {
      absent.clear(block);
      region.count(shape.blockBytes());
    }
  }

  @Override
  public void close() {
    region.close();
  }
}
