package dev.wardrobe.safetensors;

import static dev.wardrobe.safetensors.SafetensorsException.quote;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.SortedMap;
import org.jspecify.annotations.Nullable;

/**
 * A safetensors file, open for reading: its tensors' names, types and shapes, and their bytes.
 * Everything the header says is checked before a file counts as open, so that no later access can
 * leave it. Safe for use by several threads; segments taken from it end with {@link #close}.
 */
public final class SafetensorsFile implements AutoCloseable {
  private final String source;
  private final Header header;
  private final MemorySegment data;
  private final @Nullable Arena arena;

  private SafetensorsFile(String source, Header header, MemorySegment file, @Nullable Arena arena) {
    this.source = source;
    this.header = header;
    this.data = file.asSlice(header.dataStart()).asReadOnly();
    this.arena = arena;
  }

  /**
   * Maps {@code file} into memory. For files that do not change while they are open: what happens
   * to a mapping whose file is cut short is the operating system's choice.
   *
   * @throws SafetensorsException if there is no such regular file, or its header breaks a rule
   */
  @SuppressWarnings("MustBeClosedChecker") // The result owns the arena, and closes it.
  public static SafetensorsFile open(Path file) throws SafetensorsException {
    Arena arena = Arena.ofShared();
    boolean opened = false;
    try {
      MemorySegment bytes = map(file, arena);
      Header header = Header.parse(bytes, file.toString());
      SafetensorsFile result = new SafetensorsFile(file.toString(), header, bytes, arena);
      opened = true;
      return result;
    } finally {
      if (!opened) {
        arena.close();
      }
    }
  }

  /**
   * Reads a file that is in memory already. The caller keeps {@code bytes} alive and unchanged.
   *
   * @param source what to call it in messages
   * @throws SafetensorsException if its header breaks a rule
   */
  public static SafetensorsFile of(MemorySegment bytes, String source) throws SafetensorsException {
    return new SafetensorsFile(source, Header.parse(bytes, source), bytes, null);
  }

  private static MemorySegment map(Path file, Arena arena) throws SafetensorsException {
    try {
      // Opening a pipe would wait for its writer.
      if (Files.exists(file) && !Files.isRegularFile(file)) {
        throw new SafetensorsException(file + ": expected a regular file");
      }
      try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
        return channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      }
    } catch (NoSuchFileException e) {
      throw new SafetensorsException(file + ": no such file", e);
    } catch (SafetensorsException e) {
      throw e;
    } catch (IOException e) {
      throw new SafetensorsException(file + ": cannot be read: " + e, e);
    }
  }

  /** The name under which messages speak of this file. */
  public String source() {
    return source;
  }

  /** The header's {@code __metadata__}, empty if there is none. */
  public Map<String, String> metadata() {
    return header.metadata();
  }

  /** All tensors by name. */
  public SortedMap<String, TensorInfo> tensors() {
    return header.tensors();
  }

  /** The tensor of that name, or null. */
  public @Nullable TensorInfo find(String name) {
    return header.tensors().get(name);
  }

  /**
   * The tensor of that name.
   *
   * @throws SafetensorsException if there is none
   */
  public TensorInfo require(String name) throws SafetensorsException {
    TensorInfo tensor = find(name);
    if (tensor == null) {
      throw new SafetensorsException(
          source + ": expected a tensor " + quote(name) + ", found none");
    }
    return tensor;
  }

  /**
   * The bytes of {@code tensor}, read-only and exactly as many as it has. They may start at any
   * address: read them with unaligned, little-endian layouts.
   *
   * @throws IllegalArgumentException if the tensor is not one of this file's
   */
  public MemorySegment data(TensorInfo tensor) {
    if (!tensor.equals(find(tensor.name()))) {
      throw new IllegalArgumentException(source + ": has no tensor " + tensor);
    }
    return data.asSlice(tensor.offset(), tensor.byteSize());
  }

  /**
   * All values of a tensor of F32, F16 or BF16, exactly, in row-major order.
   *
   * @throws SafetensorsException if it is of another type, or has more elements than an array
   */
  public float[] floats(TensorInfo tensor) throws SafetensorsException {
    if (!tensor.dtype().widens()) {
      throw new SafetensorsException(
          source
              + ": tensor "
              + quote(tensor.name())
              + ": expected F32, F16 or BF16, got "
              + tensor.dtype());
    }
    if (tensor.elements() > Integer.MAX_VALUE - 8) {
      throw new SafetensorsException(
          source
              + ": tensor "
              + quote(tensor.name())
              + ": "
              + tensor.elements()
              + " elements do not fit one array; read it in parts");
    }
    float[] values = new float[(int) tensor.elements()];
    tensor.dtype().widen(data(tensor), 0, values, 0, values.length);
    return values;
  }

  /** Unmaps the file; segments taken from it can no longer be read. */
  @Override
  public void close() {
    if (arena != null && arena.scope().isAlive()) {
      arena.close();
    }
  }
}
