package dev.wardrobe.model;

import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;

/**
 * A file of resident weights, mapped: parts that it knows nothing of, and a table that says where
 * they are and what their checksums are.
 *
 * <pre>
 * All numbers little-endian.
 *   0  8 bytes  WRDCACHE
 *   8  int      format
 *  12  int      bytes of the table
 *  16  long     where the table begins; the file ends with it
 *  24  32 bytes SHA-256 of the table
 *  64           parts, each at a multiple of 64
 *      table:   key, fingerprint, quantization (type or "", block size, doubly), entries
 *      entry:   name, form, parts
 *      part:    offset, bytes, the CRC-32C of each 8 MiB
 * </pre>
 *
 * <p>Nothing of a file is used before all of it has been checked: one pass over the mapped parts by
 * all processors, which brings them into memory on the way.
 */
final class CacheFile implements AutoCloseable {
  static final int FORMAT = 1;

  private static final byte[] MAGIC = "WRDCACHE".getBytes(StandardCharsets.US_ASCII);
  private static final int HEAD = 64;
  private static final int PIECE = 8 << 20;
  private static final int LONGEST_TABLE = 1 << 28;

  private final Arena arena;
  private final String fingerprint;
  private final @Nullable QuantOptions quantization;
  private final Map<String, PackedMatrix> entries;

  /** A file that is not what it should be; the message says how. */
  static final class DamagedException extends IOException {
    private static final long serialVersionUID = 1L;

    DamagedException(String message) {
      super(message);
    }
  }

  /** A piece of a part, and its checksum. */
  private record Piece(MemorySegment data, int checksum) {}

  private CacheFile(
      Arena arena,
      String fingerprint,
      @Nullable QuantOptions quantization,
      Map<String, PackedMatrix> entries) {
    this.arena = arena;
    this.fingerprint = fingerprint;
    this.quantization = quantization;
    this.entries = entries;
  }

  String fingerprint() {
    return fingerprint;
  }

  @Nullable QuantOptions quantization() {
    return quantization;
  }

  /** The entries by name; their parts are mapped as long as the file is open. */
  Map<String, PackedMatrix> entries() {
    return entries;
  }

  /**
   * Maps and checks a file.
   *
   * @param key what the file must have been written for
   * @throws DamagedException if it is no such file, or not as it was written
   */
  @SuppressWarnings("MustBeClosedChecker") // The result owns the arena, and closes it.
  static CacheFile open(Path path, String key) throws IOException {
    Arena arena = Arena.ofShared();
    boolean opened = false;
    try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
      CacheFile file = read(channel, key, arena);
      opened = true;
      return file;
    } catch (BufferUnderflowException | IllegalArgumentException e) {
      throw new DamagedException("its table is malformed: " + e);
    } finally {
      if (!opened) {
        arena.close();
      }
    }
  }

  private static CacheFile read(FileChannel channel, String key, Arena arena) throws IOException {
    long size = channel.size();
    ByteBuffer head = ByteBuffer.allocate(HEAD).order(ByteOrder.LITTLE_ENDIAN);
    readFully(channel, head, 0);
    byte[] magic = new byte[MAGIC.length];
    head.get(magic);
    check(Arrays.equals(magic, MAGIC), "it is another kind of file");
    int format = head.getInt();
    check(format == FORMAT, "it has format %d, this program's is %d".formatted(format, FORMAT));
    int tableBytes = head.getInt();
    long tableAt = head.getLong();
    check(
        tableBytes > 0
            && tableBytes <= LONGEST_TABLE
            && tableAt >= HEAD
            && tableAt == size - tableBytes,
        "it has %d bytes, its head speaks of %d".formatted(size, tableAt + tableBytes));
    ByteBuffer table = ByteBuffer.allocate(tableBytes).order(ByteOrder.LITTLE_ENDIAN);
    readFully(channel, table, tableAt);
    byte[] digest = new byte[32];
    head.get(digest);
    byte[] actual = SourceDigest.sha().digest(table.array());
    check(Arrays.equals(digest, actual), "its table is not as it was written");

    check(string(table).equals(key), "it was written for something else");
    String fingerprint = string(table);
    String type = string(table);
    int blockSize = table.getInt();
    boolean doubleQuant = table.getInt() == 1;
    MemorySegment mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, tableAt, arena);
    List<Piece> pieces = new ArrayList<>();
    Map<String, PackedMatrix> entries = new HashMap<>();
    int count = table.getInt();
    for (int i = 0; i < count; i++) {
      String name = string(table);
      byte[] form = bytes(table);
      List<MemorySegment> parts = new ArrayList<>();
      int partCount = table.getInt();
      for (int part = 0; part < partCount; part++) {
        long offset = table.getLong();
        long bytes = table.getLong();
        check(
            offset >= HEAD
                && offset % PackedMatrix.ALIGNMENT == 0
                && bytes >= 0
                && bytes <= tableAt - offset,
            name + " lies outside of it");
        parts.add(mapped.asSlice(offset, bytes));
        for (long at = 0; at < bytes; at += PIECE) {
          MemorySegment piece = mapped.asSlice(offset + at, Math.min(PIECE, bytes - at));
          pieces.add(new Piece(piece, table.getInt()));
        }
      }
      entries.put(name, new PackedMatrix(MemorySegment.ofArray(form), parts));
    }
    check(!table.hasRemaining(), "its table is longer than its entries");
    verify(pieces);
    return new CacheFile(
        arena,
        fingerprint,
        type.isEmpty() ? null : new QuantOptions(QuantType.valueOf(type), blockSize, doubleQuant),
        entries);
  }

  private static void verify(List<Piece> pieces) throws IOException {
    AtomicInteger next = new AtomicInteger();
    Workers.run(
        pieces.size(),
        () -> {
          for (int i = next.getAndIncrement(); i < pieces.size(); i = next.getAndIncrement()) {
            Piece piece = pieces.get(i);
            check(checksum(piece.data) == piece.checksum, "its weights are not as written");
          }
        });
  }

  private static int checksum(MemorySegment piece) {
    CRC32C crc = new CRC32C();
    crc.update(piece.asByteBuffer());
    return (int) crc.getValue();
  }

  private static void check(boolean met, String otherwise) throws DamagedException {
    if (!met) {
      throw new DamagedException(otherwise);
    }
  }

  private static String string(ByteBuffer table) {
    return new String(bytes(table), StandardCharsets.UTF_8);
  }

  private static byte[] bytes(ByteBuffer table) {
    int length = table.getInt();
    if (length < 0 || length > table.remaining()) {
      throw new BufferUnderflowException();
    }
    byte[] bytes = new byte[length];
    table.get(bytes);
    return bytes;
  }

  private static void readFully(FileChannel channel, ByteBuffer to, long at) throws IOException {
    while (to.hasRemaining()) {
      if (channel.read(to, at + to.position()) < 0) {
        throw new DamagedException("it is too short");
      }
    }
    to.flip();
  }

  /** Unmaps the file. */
  @Override
  public void close() {
    arena.close();
  }

  /** A file that is being written. */
  static final class Writer implements AutoCloseable {
    private final FileChannel channel;
    private final Table table = new Table();
    private long position = HEAD;
    private int entries;
    private final int countAt;

    /** Begins a new file. */
    Writer(Path path, String key, String fingerprint, @Nullable QuantOptions quantization)
        throws IOException {
      channel = FileChannel.open(path, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
      table.string(key);
      table.string(fingerprint);
      table.string(quantization == null ? "" : quantization.type().name());
      table.number(quantization == null ? 0 : quantization.blockSize());
      table.number(quantization != null && quantization.doubleQuant() ? 1 : 0);
      countAt = table.position();
      table.number(0);
    }

    void add(String name, PackedMatrix entry) throws IOException {
      entries++;
      table.string(name);
      ByteBuffer form = entry.form().asByteBuffer();
      table.number(form.remaining());
      table.put(form);
      table.number(entry.parts().size());
      for (MemorySegment part : entry.parts()) {
        position = Math.ceilDiv(position, (long) PackedMatrix.ALIGNMENT) * PackedMatrix.ALIGNMENT;
        table.number(position);
        table.number(part.byteSize());
        for (long at = 0; at < part.byteSize(); at += PIECE) {
          MemorySegment piece = part.asSlice(at, Math.min(PIECE, part.byteSize() - at));
          table.number(checksum(piece));
          write(piece.asByteBuffer());
        }
      }
    }

    /** Completes the file, and waits until the disk has it. */
    void finish() throws IOException {
      long tableAt = position;
      table.set(countAt, entries);
      byte[] bytes = table.bytes();
      write(ByteBuffer.wrap(bytes));
      ByteBuffer head = ByteBuffer.allocate(HEAD).order(ByteOrder.LITTLE_ENDIAN);
      head.put(MAGIC).putInt(FORMAT).putInt(bytes.length).putLong(tableAt);
      head.put(SourceDigest.sha().digest(bytes)).position(HEAD).flip();
      position = 0;
      write(head);
      channel.force(true);
    }

    private void write(ByteBuffer bytes) throws IOException {
      while (bytes.hasRemaining()) {
        position += channel.write(bytes, position);
      }
    }

    @Override
    public void close() throws IOException {
      channel.close();
    }
  }

  /** A table that grows. */
  private static final class Table {
    private ByteBuffer buffer = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);

    int position() {
      return buffer.position();
    }

    void number(int value) {
      room(4).putInt(value);
    }

    void number(long value) {
      room(8).putLong(value);
    }

    void string(String value) {
      byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
      number(bytes.length);
      put(ByteBuffer.wrap(bytes));
    }

    void put(ByteBuffer bytes) {
      room(bytes.remaining()).put(bytes);
    }

    void set(int at, int value) {
      buffer.putInt(at, value);
    }

    byte[] bytes() {
      return Arrays.copyOf(buffer.array(), buffer.position());
    }

    private ByteBuffer room(int bytes) {
      if (buffer.remaining() < bytes) {
        ByteBuffer larger =
            ByteBuffer.allocate(Math.addExact(2 * buffer.capacity(), bytes))
                .order(ByteOrder.LITTLE_ENDIAN);
        buffer = larger.put(buffer.flip());
      }
      return buffer;
    }
  }
}
