package dev.wardrobe.trainer.optim;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.jspecify.annotations.Nullable;

/**
 * Pages in a file, made when the first is written. It is read and written, not mapped: what the
 * system keeps of it in memory is the system's to drop. Where files can be deleted while they are
 * open it has no name, so that a killed process leaves nothing.
 */
final class PageFile implements PageStore {
  static final String NAME = ".optimizer.pages";

  private final Path file;
  private final int pageBytes;
  private @Nullable FileChannel channel;
  private long length;

  /**
   * @param pages how many will be written
   * @throws OptimizerException if the disk has no room for them
   */
  PageFile(Path directory, int pages, int pageBytes) throws OptimizerException {
    file = directory.resolve(NAME);
    this.pageBytes = pageBytes;
    long needed = (long) pages * pageBytes;
    long room;
    try {
      Files.createDirectories(directory);
      room = Files.getFileStore(directory).getUsableSpace();
    } catch (IOException e) {
      throw new OptimizerException(
          "optimizer state: cannot be paged to %s: %s; choose another folder"
              .formatted(directory, e),
          e);
    }
    if (room < needed) {
      throw new OptimizerException(
          ("optimizer state: %,d bytes are to be paged to %s, which has room for %,d; free space,"
                  + " choose another folder, raise the paging budget or use an 8-bit optimizer")
              .formatted(needed, directory, room));
    }
  }

  @Override
  public void read(int page, MemorySegment to) throws IOException {
    ByteBuffer bytes = to.asByteBuffer();
    long at = (long) page * pageBytes;
    FileChannel from = channel();
    while (bytes.hasRemaining()) {
      int count = from.read(bytes, at + bytes.position());
      if (count < 0) {
        throw new IOException("the file ends at %,d".formatted(from.size()));
      }
    }
  }

  @Override
  public void write(int page, MemorySegment from) throws IOException {
    ByteBuffer bytes = from.asByteBuffer();
    long at = (long) page * pageBytes;
    FileChannel to = channel();
    while (bytes.hasRemaining()) {
      to.write(bytes, at + bytes.position());
    }
    synchronized (this) {
      length = Math.max(length, at + pageBytes);
    }
  }

  private synchronized FileChannel channel() throws IOException {
    FileChannel open = channel;
    if (open == null) {
      open =
          FileChannel.open(
              file,
              StandardOpenOption.CREATE,
              StandardOpenOption.TRUNCATE_EXISTING,
              StandardOpenOption.READ,
              StandardOpenOption.WRITE,
              StandardOpenOption.DELETE_ON_CLOSE);
      channel = open;
    }
    return open;
  }

  @Override
  public void release(int page) {}

  @Override
  public long hostBytes() {
    return 0;
  }

  @Override
  public synchronized long fileBytes() {
    return length;
  }

  @Override
  public synchronized void close() throws IOException {
    length = 0;
    if (channel != null) {
      channel.close();
    }
  }
}
