package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Buffers of so many rows, freed together. */
final class Workspace implements AutoCloseable {
  private final Backend backend;
  private final int rows;
  private final List<Buffer> buffers = new ArrayList<>();
  private final Map<List<Integer>, Buffer> scratch = new HashMap<>();

  Workspace(Backend backend, int rows) {
    this.backend = backend;
    this.rows = rows;
  }

  int rows() {
    return rows;
  }

  /** A new buffer {@code (rows, width)}. */
  Buffer buffer(int width) {
    return buffer(rows, width);
  }

  /** A new buffer of its own number of rows. */
  Buffer buffer(int rows, int width) {
    Buffer buffer = backend.buffer(rows, width);
    buffers.add(buffer);
    return buffer;
  }

  /**
   * The buffer {@code (rows, width)} that all who need one for a moment share.
   *
   * @param number tells apart those that one needs at a time
   */
  Buffer scratch(int width, int number) {
    return scratch.computeIfAbsent(List.of(width, number), _ -> buffer(width));
  }

  /** The same of one row. */
  Buffer scratchRow(int width, int number) {
    return scratch.computeIfAbsent(List.of(width, -number), _ -> buffer(1, width));
  }

  long bytes() {
    return buffers.stream().mapToLong(Buffer::bytes).sum();
  }

  @Override
  public void close() {
    buffers.forEach(Buffer::close);
    buffers.clear();
    scratch.clear();
  }
}
