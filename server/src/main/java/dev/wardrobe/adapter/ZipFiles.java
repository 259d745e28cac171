package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.NonWritableChannelException;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.zip.ZipEntry;
import org.apache.commons.compress.archivers.zip.ZipArchiveEntry;
import org.apache.commons.compress.archivers.zip.ZipFile;

/** A zip, read by its directory. */
final class ZipFiles implements Archive {
  /** Most bytes that are read of the directory, all of which is kept in memory. */
  private static final long LARGEST_DIRECTORY = 4 << 20;

  private final ZipFile zip;
  private final List<ZipArchiveEntry> entries;

  private ZipFiles(ZipFile zip) {
    this.zip = zip;
    this.entries = Collections.list(zip.getEntries());
  }

  static ZipFiles open(Path path) throws AdapterException {
    try {
      Bounded channel = new Bounded(FileChannel.open(path));
      boolean opened = false;
      try {
        ZipFile zip =
            ZipFile.builder().setSeekableByteChannel(channel).setIgnoreLocalFileHeader(true).get();
        channel.left = Long.MAX_VALUE;
        opened = true;
        return new ZipFiles(zip);
      } finally {
        if (!opened) {
          channel.close();
        }
      }
    } catch (IOException | IllegalArgumentException e) {
      throw Archive.unreadable(e);
    }
  }

  /** A file of which only so much is read before more is allowed. */
  private static final class Bounded implements SeekableByteChannel {
    private final FileChannel file;
    private long left = LARGEST_DIRECTORY;

    Bounded(FileChannel file) {
      this.file = file;
    }

    @Override
    public int read(ByteBuffer to) throws IOException {
      int read = file.read(to);
      left -= left == Long.MAX_VALUE ? 0 : Math.max(read, 0);
      if (left < 0) {
        throw new IOException(
            "expected a directory of at most %d bytes, got more".formatted(LARGEST_DIRECTORY));
      }
      return read;
    }

    @Override
    public int write(ByteBuffer from) {
      throw new NonWritableChannelException();
    }

    @Override
    public long position() throws IOException {
      return file.position();
    }

    @Override
    public SeekableByteChannel position(long position) throws IOException {
      file.position(position);
      return this;
    }

    @Override
    public long size() throws IOException {
      return file.size();
    }

    @Override
    public SeekableByteChannel truncate(long size) {
      throw new NonWritableChannelException();
    }

    @Override
    public boolean isOpen() {
      return file.isOpen();
    }

    @Override
    public void close() throws IOException {
      file.close();
    }
  }

  @Override
  public List<Item> items() throws AdapterException {
    Archive.checkCount(entries.size());
    List<Item> items = new ArrayList<>();
    for (int i = 0; i < entries.size(); i++) {
      ZipArchiveEntry entry = entries.get(i);
      String name = Archive.checked(entry.getName());
      if (!entry.isDirectory() && !entry.isUnixSymlink()) {
        items.add(new Item(i, name, entry.getSize()));
      }
    }
    return items;
  }

  @Override
  public InputStream open(Item item) throws AdapterException, IOException {
    ZipArchiveEntry entry = entries.get(item.index());
    int method = entry.getMethod();
    if (entry.getGeneralPurposeBit().usesEncryption()
        || (method != ZipEntry.STORED && method != ZipEntry.DEFLATED)) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected a file that is stored or deflated, got one that is encrypted or packed"
                  .formatted(quote(item.name()))
              + " otherwise; pack it again");
    }
    return new BoundedStream(zip.getInputStream(entry), entry.getCompressedSize());
  }

  @Override
  public void close() throws IOException {
    zip.close();
  }
}
