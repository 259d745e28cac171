package dev.wardrobe.compute.cuda;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * Code books in device memory, each once for all matrices that decode by it: almost always there
 * are two. No matrix counts their bytes as its own.
 */
final class SharedTables {
  private final Gpu gpu;
  private final Map<Contents, Table> tables = new HashMap<>();

  SharedTables(Gpu gpu) {
    this.gpu = gpu;
  }

  /** Values that are equal by their bits. */
  @SuppressWarnings("ArrayRecordComponent") // Nobody changes them.
  private record Contents(float[] values) {
    @Override
    public boolean equals(Object other) {
      return other instanceof Contents contents && Arrays.equals(contents.values, values);
    }

    @Override
    public int hashCode() {
      return Arrays.hashCode(values);
    }
  }

  /** A code book until its last user has closed it. */
  final class Table {
    private final Contents contents;
    private final Gpu.Memory memory;
    private int users;

    private Table(Contents contents, Gpu.Memory memory) {
      this.contents = contents;
      this.memory = memory;
    }

    long address() {
      return memory.address();
    }

    /** Once for each {@link #take}. */
    void release() {
      synchronized (SharedTables.this) {
        if (--users == 0) {
          tables.remove(contents);
          memory.close();
        }
      }
    }
  }

  /** The table of these values, which nobody changes. */
  synchronized Table take(float[] values) {
    Contents contents = new Contents(values);
    Table table = tables.get(contents);
    if (table == null) {
      Gpu.Memory memory = gpu.workspace("a code book", 4L * values.length);
      try {
        gpu.upload(MemorySegment.ofArray(values), memory.address());
      } catch (RuntimeException | Error e) {
        memory.close();
        throw e;
      }
      table = new Table(contents, memory);
      tables.put(contents, table);
    }
    table.users++;
    return table;
  }
}
