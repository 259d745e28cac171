package dev.wardrobe.compute.cpu;

import com.sun.management.OperatingSystemMXBean;
import dev.wardrobe.compute.OutOfMemoryException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.management.ManagementFactory;
import java.util.concurrent.atomic.AtomicLong;

/** The memory that one backend has handed out, counted. */
final class NativeMemory {
  /** Cache lines, and the widest vectors. */
  static final long ALIGNMENT = 64;

  /** Smaller requests are left to the allocator to refuse. */
  private static final long CHECKED_FROM = 64L << 20;

  private final AtomicLong live = new AtomicLong();

  /** Bytes handed out and not yet given back. */
  long live() {
    return live.get();
  }

  /** Off-heap memory that is freed together. */
  Region region() {
    return new Region();
  }

  /**
   * Heap floats, counted until {@link #release}.
   *
   * @param what what they are for, for the error
   */
  float[] floats(String what, long count) {
    checkRoom(what, multiply(what, count, 4));
    if (count > Integer.MAX_VALUE - 8) {
      throw new OutOfMemoryException(
          "%s: %d floats asked, at most %d in one buffer"
              .formatted(what, count, Integer.MAX_VALUE));
    }
    try {
      float[] floats = new float[(int) count];
      live.addAndGet(4 * count);
      return floats;
    } catch (OutOfMemoryError e) {
      throw exhausted(what, 4 * count, e);
    }
  }

  void release(long bytes) {
    live.addAndGet(-bytes);
  }

  /** {@code a · b} bytes, or the error that no memory holds them. */
  static long multiply(String what, long... factors) {
    long product = 1;
    try {
      for (long factor : factors) {
        product = Math.multiplyExact(product, factor);
      }
    } catch (ArithmeticException e) {
      StringBuilder asked = new StringBuilder();
      for (long factor : factors) {
        asked.append(asked.isEmpty() ? "" : " · ").append(factor);
      }
      OutOfMemoryException refused =
          new OutOfMemoryException(what + ": " + asked + " bytes asked, beyond 64 bits");
      refused.initCause(e);
      throw refused;
    }
    return product;
  }

  private void checkRoom(String what, long bytes) {
    if (bytes < CHECKED_FROM) {
      return;
    }
    long total = Physical.BYTES;
    long used = live.get();
    if (total > 0 && bytes > total - used) {
      throw new OutOfMemoryException(
          "%s: %,d bytes asked, but this machine has %,d and %,d of them are in use here"
              .formatted(what, bytes, total, used));
    }
  }

  private OutOfMemoryException exhausted(String what, long bytes, Throwable cause) {
    OutOfMemoryException refused =
        new OutOfMemoryException(
            "%s: %,d bytes asked and not available; %,d bytes are in use here"
                .formatted(what, bytes, live.get()));
    refused.initCause(cause);
    return refused;
  }

  /**
   * Gives freed memory back to the operating system. The C library's allocator keeps what is freed
   * in pieces of less than 32 MiB: after a model was quantized, most of its weights' size.
   */
  @SuppressWarnings("restricted") // A function of the C library's own, where it has one.
  static void trim() {
    Linker linker = Linker.nativeLinker();
    MemorySegment function = linker.defaultLookup().find("malloc_trim").orElse(null);
    if (function == null) {
      return;
    }
    try {
      MethodHandle trim =
          linker.downcallHandle(
              function, FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_LONG));
      int given = (int) trim.invokeExact(0L);
      assert given == 0 || given == 1;
    } catch (IllegalCallerException e) {
      // Java was started without native access: then the memory is kept.
    } catch (Throwable e) {
      throw new IllegalStateException("malloc_trim failed", e);
    }
  }

  /** The machine's memory, or the container's; asked for only when it matters. */
  private static final class Physical {
    static final long BYTES =
        ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
            ? system.getTotalMemorySize()
            : 0;
  }

  /**
   * What was reserved.
   *
   * @param lazy whether the system lends it piece by piece, and takes pieces back
   */
  record Reserved(MemorySegment segment, boolean lazy) {}

  /** Segments with one lifetime. */
  final class Region implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
    private long bytes;

    /** Zeroed memory. */
    MemorySegment allocate(String what, long size) {
      checkRoom(what, size);
      try {
        MemorySegment segment = arena.allocate(size, ALIGNMENT);
        bytes += size;
        live.addAndGet(size);
        return segment;
      } catch (OutOfMemoryError e) {
        throw exhausted(what, size, e);
      }
    }

    /**
     * Zeroed memory that the system lends as it is written to, where it can; else {@link
     * #allocate}d.
     */
    Reserved reserve(String what, long size) {
      checkRoom(what, size);
      MemorySegment segment = VirtualMemory.map(size, arena);
      if (segment == null) {
        return new Reserved(allocate(what, size), false);
      }
      count(size);
      return new Reserved(segment, true);
    }

    /** Counts memory of this region that was given back to the system, or fetched again. */
    void count(long more) {
      bytes += more;
      live.addAndGet(more);
    }

    /** Counts memory that lives elsewhere and longer, such as a file's mapping. */
    void adopt(MemorySegment segment) {
      bytes += segment.byteSize();
      live.addAndGet(segment.byteSize());
    }

    long bytes() {
      return bytes;
    }

    /** Frees; a second time does nothing. */
    @Override
    public void close() {
      synchronized (arena) {
        if (arena.scope().isAlive()) {
          arena.close();
          live.addAndGet(-bytes);
        }
      }
    }
  }
}
