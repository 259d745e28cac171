package dev.wardrobe.trainer.data;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.Arrays;

/**
 * Rows of tokens in a file of their own, 4 bytes each, read at random through a mapping. Beside it
 * 8 bytes a row are held in memory. The file has no name once it is there: it goes when this is
 * closed, or the process ends.
 */
final class TokenFile implements AutoCloseable {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Where every so many-th row begins is held; in between, lengths are summed. */
  private static final int STRIDE = 64;

  private final Path folder;
  private final FileChannel channel;
  private final MessageDigest digest;
  private final ByteBuffer buffer = ByteBuffer.allocate(1 << 18).order(ByteOrder.LITTLE_ENDIAN);
  private int[] lengths = new int[256];
  private int[] targets = new int[256];
  private long[] offsets = new long[4];
  private int size;
  private long tokens;
  private final Arena arena = Arena.ofShared();
  private MemorySegment mapped = MemorySegment.NULL;

  private TokenFile(Path folder, FileChannel channel, MessageDigest digest) {
    this.folder = folder;
    this.channel = channel;
    this.digest = digest;
  }

  static TokenFile create(Path folder, MessageDigest digest) throws DataException {
    Path file = null;
    try {
      file = Files.createTempFile(folder, "tokens", ".tmp");
      return new TokenFile(
          folder,
          FileChannel.open(
              file,
              StandardOpenOption.READ,
              StandardOpenOption.WRITE,
              StandardOpenOption.DELETE_ON_CLOSE),
          digest);
    } catch (IOException e) {
      throw unwritable(folder, e);
    }
  }

  /** Adds a row. */
  void append(int[] row) throws DataException {
    if (size == lengths.length) {
      if (size > Integer.MAX_VALUE - 8 - size) {
        throw new DataException("more than " + size + " rows; give fewer");
      }
      lengths = Arrays.copyOf(lengths, 2 * size);
      targets = Arrays.copyOf(targets, 2 * size);
    }
    if (size % STRIDE == 0) {
      int stride = size / STRIDE;
      offsets = stride == offsets.length ? Arrays.copyOf(offsets, 2 * stride) : offsets;
      offsets[stride] = tokens;
    }
    int learned = 0;
    for (int token : row) {
      learned += token < 0 ? 1 : 0;
      put(token);
    }
    lengths[size] = row.length;
    targets[size] = learned;
    size++;
    tokens += row.length;
  }

  private void put(int token) throws DataException {
    if (!buffer.hasRemaining()) {
      flush();
    }
    buffer.putInt(token);
  }

  private void flush() throws DataException {
    buffer.flip();
    digest.update(buffer.duplicate());
    try {
      while (buffer.hasRemaining()) {
        channel.write(buffer);
      }
    } catch (IOException e) {
      throw unwritable(folder, e);
    }
    buffer.clear();
  }

  /** Ends writing, after which rows can be read. */
  void finish() throws DataException {
    flush();
    for (int row = 0; row < size; row++) {
      buffer.putInt(lengths[row]);
      digest.update(buffer.flip());
      buffer.clear();
    }
    try {
      mapped = channel.map(MapMode.READ_ONLY, 0, 4 * tokens, arena);
    } catch (IOException e) {
      throw unwritable(folder, e);
    }
  }

  private static DataException unwritable(Path folder, IOException e) {
    return new DataException(
        folder
            + ": the file of tokens cannot be written, 4 bytes a token; name another folder: "
            + e,
        e);
  }

  int size() {
    return size;
  }

  long tokens() {
    return tokens;
  }

  int length(int row) {
    return lengths[row];
  }

  /** How many tokens of a row are learned. */
  int targets(int row) {
    return targets[row];
  }

  /** Copies a row: tokens, with {@link Encoded#LEARNED} set in those that are. */
  void read(int row, int[] into, int at) {
    int stride = row / STRIDE;
    long offset = offsets[stride];
    for (int before = stride * STRIDE; before < row; before++) {
      offset += lengths[before];
    }
    MemorySegment.copy(mapped, INT, 4 * offset, into, at, lengths[row]);
  }

  @Override
  public void close() {
    arena.close();
    try {
      channel.close();
    } catch (IOException e) {
      // The file has no name any more; there is nothing to lose.
    }
  }
}
