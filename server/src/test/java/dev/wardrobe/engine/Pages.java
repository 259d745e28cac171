package dev.wardrobe.engine;

import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import java.util.BitSet;

/** A KV cache without memory, which knows which blocks have been given back to the system. */
final class Pages implements KvCache {
  final BitSet absent = new BitSet();
  private final KvShape shape;

  Pages(int blocks) {
    shape = new KvShape(1, 1, 2, blocks, KvShape.Type.F32);
  }

  @Override
  public KvShape shape() {
    return shape;
  }

  @Override
  public void decommit(int block) {
    if (absent.get(block)) {
      throw new IllegalStateException("block " + block + " is absent");
    }
    absent.set(block);
  }

  @Override
  public void commit(int block) {
    if (!absent.get(block)) {
      throw new IllegalStateException("block " + block + " is there");
    }
    absent.clear(block);
  }

  @Override
  public void close() {}
}
