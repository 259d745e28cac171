package dev.wardrobe.compute;

/** Keys and values of every layer, in blocks that sequences reach through their block tables. */
public interface KvCache extends AutoCloseable {
  KvShape shape();

  @Override
  void close();
}
