package dev.wardrobe.compute;

/** Keys and values of every layer, in blocks that sequences reach through their block tables. */
public interface KvCache extends AutoCloseable {
  KvShape shape();

  /**
   * Gives a block's memory back to the system, as far as that is possible; nothing may use the
   * block until {@link #commit}. Between steps only, as {@code commit}.
   */
  void decommit(int block);

  /** Lets a block be used again; its memory is zero. */
  void commit(int block);

  @Override
  void close();
}
