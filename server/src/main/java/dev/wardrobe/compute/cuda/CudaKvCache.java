package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.OutOfMemoryException;

/**
 * Keys and values in device memory, {@code [block][layer][head][K, V]}, where K and V are each
 * {@code (16 positions, size)}: so a block is one stretch of memory, and a tensor core takes keys
 * as they lie and values transposed.
 *
 * <p>Attention rounds what a cache of {@link KvShape.Type#F32} holds to bfloat16 as it reads it, as
 * it does with queries: such a cache costs twice the memory and is no more exact.
 */
final class CudaKvCache implements KvCache {
  private final KvShape shape;
  private final Gpu gpu;
  private final Gpu.Memory memory;

  /**
   * Takes the memory, zeroed.
   *
   * @throws OutOfMemoryException if the device has not that much
   * @throws IllegalArgumentException if attention does not take heads of that size
   */
  CudaKvCache(KvShape shape, Gpu gpu) {
    if (shape.headDim() > Attention.MOST_SIZE) {
      throw new IllegalArgumentException(
          "attention heads of %d elements: the CUDA backend takes up to %d; use --backend cpu"
              .formatted(shape.headDim(), Attention.MOST_SIZE));
    }
    this.shape = shape;
    this.gpu = gpu;
    String what = "KV cache of %d blocks".formatted(shape.blocks());
    if (Math.multiplyHigh(shape.blockBytes(), shape.blocks()) != 0 || shape.bytes() < 0) {
      throw new OutOfMemoryException(what + ": more bytes than can be counted");
    }
    memory = gpu.allocate(what, shape.bytes());
    gpu.clear(memory);
  }

  @Override
  public KvShape shape() {
    return shape;
  }

  /** Where block 0 begins; block b is {@code b · shape().blockBytes()} bytes on. */
  long address() {
    return memory.address();
  }

  /** Bytes from a block's beginning to the keys of a layer's first head. */
  long layerOffset(int layer) {
    return headBytes() * layer * shape.kvHeads();
  }

  /** Bytes of one head's keys and values in a block. */
  long headBytes() {
    return 2L * KvShape.BLOCK_TOKENS * shape.headDim() * shape.type().bytes();
  }

  /** A cache as our own, if a layer of such heads is one of its. */
  static CudaKvCache own(KvCache cache, Heads heads, int layer) {
    if (!(cache instanceof CudaKvCache own)) {
      throw new IllegalArgumentException("a cache of another backend: " + cache.getClass());
    }
    own.shape.expect(heads, layer);
    return own;
  }

  @Override
  public void decommit(int block) {
    gpu.clearInOrder(memory.address() + block * shape.blockBytes(), shape.blockBytes());
  }

  @Override
  public void commit(int block) {
    // It was zeroed when it was given back.
  }

  @Override
  public void close() {
    memory.close();
  }
}
