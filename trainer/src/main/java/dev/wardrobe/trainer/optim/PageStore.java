package dev.wardrobe.trainer.optim;

import java.io.IOException;
import java.lang.foreign.MemorySegment;

/**
 * Where pages lie that are not in fast memory. Different pages may be read and written at the same
 * time; a page only by one thread.
 */
interface PageStore extends AutoCloseable {

  /** Reads a page that was written before. */
  void read(int page, MemorySegment to) throws IOException;

  void write(int page, MemorySegment from) throws IOException;

  /** Gives back what a page takes, if it is not going to be read before it is written again. */
  void release(int page);

  /** Bytes in host memory. */
  long hostBytes();

  /** Bytes in the file. */
  long fileBytes();

  /** Frees everything; a second time does nothing. */
  @Override
  void close() throws IOException;
}
