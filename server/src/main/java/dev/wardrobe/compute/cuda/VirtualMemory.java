package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;

/**
 * The driver's calls for addresses and for pages behind them. They are bound directly: JCuda 12.6
 * hands on a {@code CUmemAllocationProp} with whatever the stack held in its field {@code usage}.
 *
 * <p>Each returns the driver's {@code CUresult}; what else it gives is in {@link #given}. One
 * thread at a time.
 */
// Native code is the point.
@SuppressWarnings("restricted")
final class VirtualMemory {
  /** CU_MEM_ALLOCATION_TYPE_PINNED and CU_MEM_LOCATION_TYPE_DEVICE. */
  private static final int PINNED = 1;

  private static final int ON_DEVICE = 1;

  /** CU_MEM_ACCESS_FLAGS_PROT_READWRITE. */
  private static final int READ_AND_WRITE = 3;

  /** CU_MEM_ALLOC_GRANULARITY_MINIMUM. */
  private static final int MINIMUM = 0;

  private final MethodHandle granularity;
  private final MethodHandle reserve;
  private final MethodHandle free;
  private final MethodHandle create;
  private final MethodHandle release;
  private final MethodHandle map;
  private final MethodHandle unmap;
  private final MethodHandle allow;

  private final MemorySegment properties = Arena.ofAuto().allocate(32, 8);
  private final MemorySegment access = Arena.ofAuto().allocate(12, 4);
  private final MemorySegment given = Arena.ofAuto().allocate(8, 8);

  /** Binds to the driver, which is loaded. For memory of the first device. */
  VirtualMemory() {
    granularity = bind("cuMemGetAllocationGranularity", ADDRESS, ADDRESS, JAVA_INT);
    reserve = bind("cuMemAddressReserve", ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    free = bind("cuMemAddressFree", JAVA_LONG, JAVA_LONG);
    create = bind("cuMemCreate", ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG);
    release = bind("cuMemRelease", JAVA_LONG);
    map = bind("cuMemMap", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    unmap = bind("cuMemUnmap", JAVA_LONG, JAVA_LONG);
    allow = bind("cuMemSetAccess", JAVA_LONG, JAVA_LONG, ADDRESS, JAVA_LONG);
    // CUmemAllocationProp: type, handle types, location (type, device), Windows' pointer, flags.
    properties.setAtIndex(JAVA_INT, 0, PINNED);
    properties.setAtIndex(JAVA_INT, 2, ON_DEVICE);
    // CUmemAccessDesc: location, flags.
    access.setAtIndex(JAVA_INT, 0, ON_DEVICE);
    access.setAtIndex(JAVA_INT, 2, READ_AND_WRITE);
  }

  private static MethodHandle bind(String name, MemoryLayout... parameters) {
    MemorySegment function =
        SymbolLookup.libraryLookup("libcuda.so.1", Arena.global())
            .find(name)
            .orElseThrow(() -> new IllegalStateException("the CUDA driver has no " + name));
    return Linker.nativeLinker()
        .downcallHandle(function, FunctionDescriptor.of(JAVA_INT, parameters));
  }

  /** The number that the last call gave: a granularity, an address, or a page. */
  long given() {
    return given.get(JAVA_LONG, 0);
  }

  /** Gives the size of pages. */
  int granularity() {
    return call(granularity, given, properties, MINIMUM);
  }

  /** Gives an address from which on so many bytes can be mapped. */
  int reserve(long bytes) {
    return call(reserve, given, bytes, 0L, 0L, 0L);
  }

  int free(long address, long bytes) {
    return call(free, address, bytes);
  }

  /** Gives a page of so many bytes. */
  int create(long bytes) {
    return call(create, given, bytes, properties, 0L);
  }

  int release(long page) {
    return call(release, page);
  }

  int map(long address, long bytes, long page) {
    return call(map, address, bytes, 0L, page, 0L);
  }

  int unmap(long address, long bytes) {
    return call(unmap, address, bytes);
  }

  /** Lets kernels and copies use what is mapped. */
  int allow(long address, long bytes) {
    return call(allow, address, bytes, access, 1L);
  }

  private static int call(MethodHandle function, Object... arguments) {
    try {
      return (int) function.invokeWithArguments(arguments);
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }
}
