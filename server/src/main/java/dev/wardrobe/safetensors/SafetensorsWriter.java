package dev.wardrobe.safetensors;

import static dev.wardrobe.safetensors.SafetensorsException.quote;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A safetensors file being written: declared first, then filled, tensor by tensor in any order,
 * each in as many parts as its producer likes. Bytes go to a hidden file beside the target, which
 * takes the target's name in {@link #commit}; a writer closed before that leaves nothing.
 *
 * <p>Header and layout are the safetensors library's: compact JSON, tensors by type (widest first)
 * and then by name, data from a multiple of 8 on. Metadata is sorted by key, so that the same
 * tensors always make the same bytes. Not for use by several threads at once.
 */
public final class SafetensorsWriter implements AutoCloseable {
  // A single write of a heap buffer is copied whole into direct memory by the channel.
  private static final int LARGEST_WRITE = 1 << 20;

  private final Path file;
  private final Path partial;
  private final FileChannel channel;
  private final Map<String, Part> parts = new HashMap<>();
  private boolean committed;

  private SafetensorsWriter(Path file, Path partial, FileChannel channel) {
    this.file = file;
    this.partial = partial;
    this.channel = channel;
  }

  /**
   * Starts a file.
   *
   * @param tensors the tensors it will hold, in any order
   * @param metadata the header's {@code __metadata__}; none is written if empty
   * @throws SafetensorsException if two tensors share a name, the header would exceed 100 MB, or
   *     the folder cannot be written to
   */
  public static SafetensorsWriter create(
      Path file, Collection<TensorSpec> tensors, Map<String, String> metadata)
      throws SafetensorsException {
    List<TensorSpec> inOrder = new ArrayList<>(tensors);
    inOrder.sort(
        Comparator.comparing(TensorSpec::dtype)
            .reversed()
            .thenComparing(
                t -> t.name().getBytes(StandardCharsets.UTF_8), Arrays::compareUnsigned));
    byte[] header = header(file, inOrder, metadata);

    Path absolute = file.toAbsolutePath();
    String suffix = Long.toHexString(ThreadLocalRandom.current().nextLong());
    Path partial = absolute.resolveSibling("." + absolute.getFileName() + "." + suffix);
    SafetensorsWriter writer;
    try {
      FileChannel channel =
          FileChannel.open(partial, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
      writer = new SafetensorsWriter(absolute, partial, channel);
    } catch (IOException e) {
      throw new SafetensorsException(file + ": cannot be written: " + e, e);
    }
    try {
      ByteBuffer length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
      writer.put(length.putLong(header.length).flip(), 0);
      writer.put(ByteBuffer.wrap(header), 8);
    } catch (SafetensorsException e) {
      writer.close();
      throw e;
    }
    long position = 8L + header.length;
    for (TensorSpec tensor : inOrder) {
      writer.parts.put(tensor.name(), new Part(tensor, position));
      position += tensor.byteSize();
    }
    return writer;
  }

  private static byte[] header(Path file, List<TensorSpec> tensors, Map<String, String> metadata)
      throws SafetensorsException {
    StringBuilder json = new StringBuilder("{");
    String separator = "";
    if (!metadata.isEmpty()) {
      json.append("\"__metadata__\":{");
      for (Map.Entry<String, String> entry : new TreeMap<>(metadata).entrySet()) {
        json.append(separator);
        appendString(json, entry.getKey());
        json.append(':');
        appendString(json, entry.getValue());
        separator = ",";
      }
      json.append('}');
    }
    long offset = 0;
    Set<String> names = new HashSet<>(Set.of("__metadata__"));
    for (TensorSpec tensor : tensors) {
      if (!names.add(tensor.name())) {
        throw new SafetensorsException(
            file + ": two tensors (or one and the metadata) are named " + quote(tensor.name()));
      }
      json.append(separator);
      appendString(json, tensor.name());
      json.append(":{\"dtype\":\"").append(tensor.dtype()).append("\",\"shape\":");
      json.append(tensor.shape().toString().replace(" ", ""));
      json.append(",\"data_offsets\":[").append(offset).append(',');
      offset = Math.addExact(offset, tensor.byteSize());
      json.append(offset).append("]}");
      separator = ",";
    }
    byte[] text = json.append('}').toString().getBytes(StandardCharsets.UTF_8);
    byte[] padded = Arrays.copyOf(text, (text.length + 7) / 8 * 8);
    Arrays.fill(padded, text.length, padded.length, (byte) ' ');
    if (padded.length > BoundedJson.LONGEST_DOCUMENT) {
      throw new SafetensorsException(
          file
              + ": the header would take "
              + padded.length
              + " bytes, at most "
              + BoundedJson.LONGEST_DOCUMENT
              + " are allowed; use fewer tensors or shorter metadata");
    }
    return padded;
  }

  private static void appendString(StringBuilder json, String text) {
    json.append('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      switch (c) {
        case '"' -> json.append("\\\"");
        case '\\' -> json.append("\\\\");
        case '\b' -> json.append("\\b");
        case '\t' -> json.append("\\t");
        case '\n' -> json.append("\\n");
        case '\f' -> json.append("\\f");
        case '\r' -> json.append("\\r");
        default -> {
          if (c < ' ') {
            json.append(String.format("\\u%04x", (int) c));
          } else {
            json.append(c);
          }
        }
      }
    }
    json.append('"');
  }

  /**
   * Appends {@code bytes} to what tensor {@code name} has so far.
   *
   * @throws SafetensorsException if no such tensor was declared, it would grow beyond its size, or
   *     the disk is full
   */
  public void write(String name, MemorySegment bytes) throws SafetensorsException {
    Part part = parts.get(name);
    if (part == null) {
      throw new SafetensorsException(file + ": no tensor was declared as " + quote(name));
    }
    if (bytes.byteSize() > part.missing()) {
      throw new SafetensorsException(
          String.format(
              "%s: tensor %s: expected at most %d more bytes, got %d",
              file, quote(name), part.missing(), bytes.byteSize()));
    }
    for (long from = 0; from < bytes.byteSize(); from += LARGEST_WRITE) {
      long count = Math.min(LARGEST_WRITE, bytes.byteSize() - from);
      put(bytes.asSlice(from, count).asByteBuffer(), part.position + part.written);
      part.written += count;
    }
  }

  /**
   * Completes the file: flushes it to the disk and gives it its name, replacing a file that has
   * that name already.
   *
   * @throws SafetensorsException if a tensor lacks bytes or the disk refuses
   */
  public void commit() throws SafetensorsException {
    commit(true);
  }

  /**
   * As {@link #commit()}.
   *
   * @param flush whether to wait until the bytes are on the disk, where they survive a loss of
   *     power
   */
  public void commit(boolean flush) throws SafetensorsException {
    for (Part part : parts.values()) {
      if (part.missing() > 0) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s: %d of its %d bytes were not written",
                file, quote(part.tensor.name()), part.missing(), part.tensor.byteSize()));
      }
    }
    try {
      if (flush) {
        channel.force(true);
      }
      channel.close();
      Files.move(
          partial, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      committed = true;
    } catch (IOException e) {
      throw new SafetensorsException(file + ": cannot be written: " + e, e);
    }
  }

  private void put(ByteBuffer bytes, long position) throws SafetensorsException {
    try {
      while (bytes.hasRemaining()) {
        position += channel.write(bytes, position);
      }
    } catch (IOException e) {
      throw new SafetensorsException(file + ": cannot be written: " + e, e);
    }
  }

  /** Removes what was written, unless {@link #commit} has completed it. */
  @Override
  public void close() throws SafetensorsException {
    if (committed) {
      return;
    }
    try {
      channel.close();
      Files.deleteIfExists(partial);
    } catch (IOException e) {
      throw new SafetensorsException(partial + ": cannot be removed: " + e, e);
    }
  }

  /** How far one tensor has come. */
  private static final class Part {
    final TensorSpec tensor;
    final long position;
    long written;

    Part(TensorSpec tensor, long position) {
      this.tensor = tensor;
      this.position = position;
    }

    long missing() {
      return tensor.byteSize() - written;
    }
  }
}
