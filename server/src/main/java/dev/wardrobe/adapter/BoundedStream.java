package dev.wardrobe.adapter;

import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;

/** Unpacked bytes, of which there may be only so many more than packed ones. */
final class BoundedStream extends FilterInputStream {
  private final long most;
  private long count;

  /** More than this is not read before {@link #free}; else how much may still be. */
  private long header = Long.MAX_VALUE;

  /**
   * @param packed bytes that it is unpacked from
   */
  BoundedStream(InputStream in, long packed) {
    super(in);
    this.most = Math.max(Archive.FREE_BYTES, packed * Archive.MOST_RATIO);
  }

  /** Until {@link #free}, reads at most so many bytes: what reads them keeps them in memory. */
  void atMost(long bytes) {
    header = bytes;
  }

  void free() {
    header = Long.MAX_VALUE;
  }

  private void count(long bytes) throws IOException {
    count += bytes;
    header -= header == Long.MAX_VALUE ? 0 : bytes;
    if (count > most) {
      throw new IOException(
          "expected at most %d bytes in it, got more; it is packed too well to be an adapter"
              .formatted(most));
    }
    if (header < 0) {
      throw new IOException("expected names and attributes of a file, got too much of them");
    }
  }

  @Override
  public int read() throws IOException {
    int next = super.read();
    count(next < 0 ? 0 : 1);
    return next;
  }

  @Override
  public int read(byte[] bytes, int offset, int length) throws IOException {
    int read = super.read(bytes, offset, length);
    count(Math.max(read, 0));
    return read;
  }

  @Override
  public long skip(long bytes) throws IOException {
    long skipped = super.skip(bytes);
    count(skipped);
    return skipped;
  }
}
