package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.plain;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.SeekableByteChannel;
import org.jspecify.annotations.Nullable;

/** Where an adapter's files are read from, each once, whole and into memory. */
interface AdapterFiles {

  /** Whether there is anything of that name, readable or not. */
  boolean has(String name);

  /**
   * Opens the regular file {@code name}.
   *
   * @throws AdapterException if it is missing, or may not be read
   */
  OpenFile open(String name) throws AdapterException;

  /**
   * A file in memory.
   *
   * @param digest of {@code bytes}
   */
  record Contents(MemorySegment bytes, String digest) {
    Manifest.Blob blob() {
      return new Manifest.Blob(digest, bytes.byteSize());
    }
  }

  /**
   * A regular file that is open for reading.
   *
   * @param expected the digest it must have, or null where any will do
   */
  record OpenFile(String name, SeekableByteChannel channel, long size, @Nullable String expected)
      implements AutoCloseable {
    private static final int LARGEST_READ = 64 << 20;

    /**
     * Reads all of it into {@code arena}; what is hashed is what is returned.
     *
     * @param limit most bytes it may have
     */
    Contents read(long limit, Arena arena) throws AdapterException {
      if (size > limit) {
        throw new AdapterException(
            Reason.TOO_LARGE, "%s: expected at most %d bytes, got %d".formatted(name, limit, size));
      }
      MemorySegment bytes = arena.allocate(Math.max(size, 1)).asSlice(0, size);
      try {
        for (long at = 0; at < size; ) {
          ByteBuffer part = bytes.asSlice(at, Math.min(LARGEST_READ, size - at)).asByteBuffer();
          int count = channel.read(part);
          if (count < 0) {
            throw changed();
          }
          at += count;
        }
        if (channel.read(ByteBuffer.allocate(1)) >= 0) {
          throw changed();
        }
      } catch (IOException e) {
        throw unreadable(name, e);
      }
      String digest = Manifest.digest(bytes);
      if (expected != null && !digest.equals(expected)) {
        throw new AdapterException(
            Reason.DAMAGED,
            "%s: expected the content %s, got %s; the store is damaged there: publish the adapter"
                    .formatted(name, expected, digest)
                + " again, which puts it right");
      }
      return new Contents(bytes, digest);
    }

    /** Where a file's bytes go. */
    @FunctionalInterface
    interface Sink {
      void add(ByteBuffer bytes) throws AdapterException;
    }

    /** Gives all of it to {@code sink}, through {@code buffer}. */
    void copy(ByteBuffer buffer, Sink sink) throws AdapterException {
      try {
        long copied = 0;
        for (int count = channel.read(buffer.clear());
            count >= 0;
            count = channel.read(buffer.clear())) {
          copied += count;
          if (copied > size) {
            throw changed();
          }
          sink.add(buffer.flip());
        }
        if (copied != size) {
          throw changed();
        }
      } catch (IOException e) {
        throw unreadable(name, e);
      }
    }

    private AdapterException changed() {
      return new AdapterException(
          Reason.IO,
          "%s: expected %d bytes, but it changed while it was read; load it again once it is written"
              .formatted(name, size));
    }

    @Override
    public void close() throws AdapterException {
      try {
        channel.close();
      } catch (IOException e) {
        throw unreadable(name, e);
      }
    }
  }

  /** A file that could not be read. */
  static AdapterException unreadable(String name, IOException e) {
    String cause = e.getMessage() == null ? "" : " (" + e.getClass().getSimpleName() + ")";
    return new AdapterException(
        Reason.IO, plain(name) + ": cannot be read" + cause + "; check its permissions", e);
  }
}
