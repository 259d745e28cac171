package dev.wardrobe.adapter;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.GZIPInputStream;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveInputStream;
import org.jspecify.annotations.Nullable;

/** A tar, perhaps gzipped. Read from its beginning for its list and for each file. */
final class TarFiles implements Archive {
  /** Most bytes that the headers of one entry take: long names and attributes come as files. */
  private static final int LARGEST_HEADER = 1 << 20;

  private static final int BUFFER = 1 << 16;

  private final Path path;
  private final boolean packed;
  private @Nullable Walk open;

  TarFiles(Path path, boolean packed) {
    this.path = path;
    this.packed = packed;
  }

  /** A way through the archive. */
  private static final class Walk implements AutoCloseable {
    final BoundedStream bytes;
    final TarArchiveInputStream tar;
    private final byte[] ignored = new byte[BUFFER];
    private int index = -1;

    Walk(InputStream in, long packedBytes) {
      bytes = new BoundedStream(in, packedBytes);
      tar = new TarArchiveInputStream(bytes);
    }

    int index() {
      return index;
    }

    @Nullable TarArchiveEntry next() throws IOException, AdapterException {
      if (index >= 0) {
        // Before the headers' limit is set, which is not for the file that is passed over.
        while (tar.read(ignored) >= 0) {}
      }
      bytes.atMost(LARGEST_HEADER);
      TarArchiveEntry entry = tar.getNextEntry();
      bytes.free();
      Archive.checkCount(++index);
      return entry;
    }

    @Override
    public void close() throws IOException {
      tar.close();
    }
  }

  private Walk walk() throws IOException {
    InputStream file = Files.newInputStream(path);
    boolean begun = false;
    try {
      InputStream in =
          packed ? new GZIPInputStream(file, BUFFER) : new BufferedInputStream(file, BUFFER);
      Walk walk = new Walk(in, Files.size(path));
      begun = true;
      return walk;
    } finally {
      if (!begun) {
        file.close();
      }
    }
  }

  @Override
  public List<Item> items() throws AdapterException {
    List<Item> items = new ArrayList<>();
    try (Walk walk = walk()) {
      for (TarArchiveEntry entry = walk.next(); entry != null; entry = walk.next()) {
        String name = Archive.checked(entry.getName());
        if (entry.isFile() && !entry.isSparse() && !entry.isLink() && !entry.isSymbolicLink()) {
          items.add(new Item(walk.index(), name, entry.getSize()));
        }
      }
      return items;
    } catch (IOException | IllegalArgumentException e) {
      throw Archive.unreadable(e);
    }
  }

  @Override
  public InputStream open(Item item) throws AdapterException, IOException {
    close();
    Walk walk = walk();
    open = walk;
    while (walk.next() != null) {
      if (walk.index() == item.index()) {
        return walk.tar;
      }
    }
    throw new AdapterException(Reason.INVALID, "the archive changed while it was read");
  }

  @Override
  public void close() throws IOException {
    Walk walk = open;
    open = null;
    if (walk != null) {
      walk.close();
    }
  }
}
