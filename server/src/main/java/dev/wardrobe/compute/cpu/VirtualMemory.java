package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import org.jspecify.annotations.Nullable;

/**
 * Addresses whose memory the system lends as it is first written to, and takes back on request: a
 * private anonymous mapping, on Linux.
 */
@SuppressWarnings("restricted") // Functions of the C library's own.
final class VirtualMemory {
  private static final int PROTECTION_READ_WRITE = 1 | 2;
  private static final int MAP_PRIVATE_ANONYMOUS = 2 | 0x20;
  private static final int MADVISE_DONT_NEED = 4;

  private static final boolean LINUX = System.getProperty("os.name").equals("Linux");

  /** Made when first asked for: Java may have been started without native access. */
  private static final class Calls {
    private static final MethodHandle MAP =
        function("mmap", ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG);

    private static final MethodHandle UNMAP = function("munmap", JAVA_INT, ADDRESS, JAVA_LONG);

    private static final MethodHandle ADVISE =
        function("madvise", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);

    private Calls() {}

    private static MethodHandle function(
        String name, MemoryLayout result, MemoryLayout... parameters) {
      Linker linker = Linker.nativeLinker();
      return linker.downcallHandle(
          linker.defaultLookup().findOrThrow(name), FunctionDescriptor.of(result, parameters));
    }
  }

  private VirtualMemory() {}

  /**
   * Zeroes that take no memory until they are written to, unmapped with the arena; null where there
   * is no such thing, or no room for the addresses.
   */
  static @Nullable MemorySegment map(long size, Arena arena) {
    if (!LINUX) {
      return null;
    }
    try {
      MemorySegment memory =
          (MemorySegment)
              Calls.MAP.invokeExact(
                  MemorySegment.NULL, size, PROTECTION_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0L);
      return memory.address() == -1
          ? null
          : memory.reinterpret(size, arena, mapped -> unmap(mapped, size));
    } catch (IllegalCallerException | ExceptionInInitializerError | NoClassDefFoundError e) {
      return null;
    } catch (Throwable e) {
      throw new IllegalStateException("mmap failed", e);
    }
  }

  private static void unmap(MemorySegment memory, long size) {
    try {
      int failed = (int) Calls.UNMAP.invokeExact(memory, size);
      assert failed == 0;
    } catch (Throwable e) {
      throw new IllegalStateException("munmap failed", e);
    }
  }

  /**
   * Gives the memory under a part of what {@link #map} returned back to the system; it reads as
   * zeroes from then on.
   *
   * @return whether the system took it; else nothing has changed
   */
  static boolean discard(MemorySegment part) {
    try {
      return (int) Calls.ADVISE.invokeExact(part, part.byteSize(), MADVISE_DONT_NEED) == 0;
    } catch (Throwable e) {
      throw new IllegalStateException("madvise failed", e);
    }
  }
}
