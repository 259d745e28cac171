package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.OutOfMemoryException;
import java.util.BitSet;
import org.jspecify.annotations.Nullable;

/**
 * Keys and values in device memory, {@code [block][layer][head][K, V]}, where K and V are each
 * {@code (16 positions, size)}: so a block is one stretch of memory, and a tensor core takes keys
 * as they lie and values transposed.
 *
 * <p>Attention rounds what a cache of {@link KvShape.Type#F32} holds to bfloat16 as it reads it, as
 * it does with queries: such a cache costs twice the memory and is no more exact.
 *
 * <p>A page of the device's goes to the adapters ({@link Pages}) when all blocks that lie in it, or
 * partly do, are decommitted, and comes back with the first of them.
 */
final class CudaKvCache implements KvCache {
  /** More than what {@link KvShape} adds to a block. */
  private static final long PADDING = 1 << 16;

  private static final long BLOCK_TOKENS = KvShape.BLOCK_TOKENS;

  private final KvShape shape;
  private final Gpu gpu;
  private final long address;
  private final long pageBytes;

  /** What the blocks lie in; null where the device maps no memory. */
  private final Pages.@Nullable Range range;

  private final Gpu.@Nullable Memory plain;

  /** By page: committed blocks of which a part lies in it. */
  private final int[] blocksOf;

  private final BitSet absent = new BitSet();
  private boolean closed;

  /**
   * Takes the memory, zeroed.
   *
   * @throws OutOfMemoryException if the device has not that much
   * @throws IllegalArgumentException if attention does not take heads of that size
   */
  CudaKvCache(KvShape shape, Gpu gpu, Pages pages) {
    this.shape = shape;
    this.gpu = gpu;
    String what = "KV cache of %d blocks".formatted(shape.blocks());
    long bytes = bytes(what, shape);
    pageBytes = pages.pageBytes();
    if (bytes > gpu.totalBytes()) {
      throw gpu.outOfMemory(what, bytes);
    }
    if (shape.headDim() > Attention.MOST_SIZE) {
      throw new IllegalArgumentException(
          "attention heads of %d elements: the CUDA backend takes up to %d; use --backend cpu"
              .formatted(shape.headDim(), Attention.MOST_SIZE));
    }
    if (pageBytes == 0) {
      plain = gpu.allocate(what, bytes);
      range = null;
      blocksOf = new int[0];
      address = plain.address();
    } else {
      plain = null;
      range = pages.range(what, bytes);
      blocksOf = new int[range.pages()];
      address = range.address();
      gpu.count(bytes);
      for (int block = 0; block < shape.blocks(); block++) {
        for (int page = firstPage(block); page <= lastPage(block); page++) {
          blocksOf[page]++;
        }
      }
    }
    gpu.clearInOrder(address, bytes);
  }

  private static long bytes(String what, KvShape shape) {
    try {
      // Neither a block's bytes nor all blocks' may pass what a number holds.
      long head = Math.multiplyExact(2L * shape.headDim() * shape.type().bytes(), BLOCK_TOKENS);
      long layers = Math.multiplyExact((long) shape.layers(), shape.kvHeads());
      Math.multiplyExact(Math.multiplyExact(head, layers) + PADDING, (long) shape.blocks());
      return shape.bytes();
    } catch (ArithmeticException e) {
      OutOfMemoryException refused =
          new OutOfMemoryException(what + " of " + shape + ": bytes asked, beyond 64 bits");
      refused.initCause(e);
      throw refused;
    }
  }

  @Override
  public KvShape shape() {
    return shape;
  }

  /** Where block 0 begins; block b is {@code b · shape().blockBytes()} bytes on. */
  long address() {
    if (closed) {
      throw new IllegalStateException("a KV cache that is closed");
    }
    return address;
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

  private int firstPage(int block) {
    return (int) (block * shape.blockBytes() / pageBytes);
  }

  private int lastPage(int block) {
    return (int) (((block + 1) * shape.blockBytes() - 1) / pageBytes);
  }

  @Override
  public void decommit(int block) {
    if (range == null || absent.get(block)) {
      return;
    }
    absent.set(block);
    gpu.count(-shape.blockBytes());
    boolean waited = false;
    for (int page = firstPage(block); page <= lastPage(block); page++) {
      if (--blocksOf[page] == 0) {
        if (!waited) {
          // A step that nobody waited for may still write to what was somebody's until now.
          gpu.await();
          waited = true;
        }
        range.unmap(page, page + 1);
      }
    }
  }

  /**
   * @throws OutOfMemoryException if the block's memory cannot be had again; it stays decommitted
   */
  @Override
  public void commit(int block) {
    if (range != null && absent.get(block)) {
      int from = firstPage(block);
      int to = lastPage(block) + 1;
      for (int page = from; page < to; page++) {
        if (blocksOf[page] == 0) {
          mapOrUndo(range, from, page);
        }
        blocksOf[page]++;
      }
      absent.clear(block);
      gpu.count(shape.blockBytes());
    }
    gpu.clearInOrder(address + block * shape.blockBytes(), shape.blockBytes());
  }

  /** Maps a page; if that cannot be, it is as if those from {@code first} on had not been asked. */
  private void mapOrUndo(Pages.Range pages, int first, int page) {
    boolean mapped = false;
    try {
      pages.map(page, page + 1);
      mapped = true;
    } finally {
      if (!mapped) {
        for (int before = first; before < page; before++) {
          if (--blocksOf[before] == 0) {
            pages.unmap(before, before + 1);
          }
        }
      }
    }
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      if (plain != null) {
        plain.close();
      }
      if (range != null) {
        gpu.count(-(shape.blocks() - absent.cardinality()) * shape.blockBytes());
        range.close();
      }
    }
  }
}
