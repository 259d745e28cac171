package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Machine code in memory of its own, which is never written again once it may be executed, and
 * stays for as long as the process.
 *
 * <p>A function takes the address of its arguments and returns nothing. It must be short (a
 * fraction of a millisecond), since the garbage collector waits for it.
 */
@SuppressWarnings("restricted") // Native access is what this is for.
final class NativeCode {
  private static final long PAGE = 4096;
  private static final int PROTECTION_READ = 1;
  private static final int PROTECTION_WRITE = 2;
  private static final int PROTECTION_EXECUTE = 4;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS_LINUX = 0x20;
  private static final int MAP_ANONYMOUS_MAC = 0x1000;

  /** Made when there is something to call: Java may have been started without native access. */
  private static final class Calls {
    private static final MethodHandle NUMBER =
        Linker.nativeLinker()
            .downcallHandle(FunctionDescriptor.ofVoid(JAVA_LONG), Linker.Option.critical(false));

    private static final MethodHandle ARRAY =
        Linker.nativeLinker()
            .downcallHandle(
                FunctionDescriptor.ofVoid(JAVA_LONG, ADDRESS), Linker.Option.critical(true));

    private static final MethodHandle ARRAYS =
        Linker.nativeLinker()
            .downcallHandle(
                FunctionDescriptor.ofVoid(JAVA_LONG, ADDRESS, ADDRESS),
                Linker.Option.critical(true));

    private static final MethodHandle THREE =
        Linker.nativeLinker()
            .downcallHandle(
                FunctionDescriptor.ofVoid(JAVA_LONG, ADDRESS, ADDRESS, ADDRESS),
                Linker.Option.critical(true));

    private static final MethodHandle FIVE =
        Linker.nativeLinker()
            .downcallHandle(
                FunctionDescriptor.ofVoid(JAVA_LONG, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS),
                Linker.Option.critical(true));

    private Calls() {}
  }

  private NativeCode() {}

  /** Whether functions are called here as the System V convention for x86-64 has it. */
  static boolean supported() {
    return List.of("amd64", "x86_64").contains(System.getProperty("os.arch"))
        && !System.getProperty("os.name").startsWith("Windows");
  }

  /** Makes functions executable; null where the system or Java's options do not allow it. */
  static @Nullable List<MemorySegment> load(List<byte[]> functions) {
    long size = 0;
    for (byte[] code : functions) {
      size += aligned(code.length);
    }
    long pages = (size + PAGE - 1) / PAGE * PAGE;
    try {
      MemorySegment memory = map(pages);
      if (memory == null) {
        return null;
      }
      List<MemorySegment> loaded = new ArrayList<>();
      long at = 0;
      for (byte[] code : functions) {
        MemorySegment.copy(code, 0, memory, JAVA_BYTE, at, code.length);
        loaded.add(memory.asSlice(at, code.length));
        at += aligned(code.length);
      }
      return protect(memory) ? List.copyOf(loaded) : null;
    } catch (IllegalCallerException e) {
      return null;
    } catch (Throwable e) {
      throw new IllegalStateException("mmap", e);
    }
  }

  private static long aligned(int length) {
    return (length + 63) / 64 * 64L;
  }

  private static @Nullable MemorySegment map(long size) throws Throwable {
    MethodHandle mmap =
        function(
            "mmap",
            FunctionDescriptor.of(
                ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG));
    boolean mac = System.getProperty("os.name").startsWith("Mac");
    MemorySegment memory =
        (MemorySegment)
            mmap.invokeExact(
                MemorySegment.NULL,
                size,
                PROTECTION_READ | PROTECTION_WRITE,
                MAP_PRIVATE | (mac ? MAP_ANONYMOUS_MAC : MAP_ANONYMOUS_LINUX),
                -1,
                0L);
    return memory.address() == -1 ? null : memory.reinterpret(size);
  }

  private static boolean protect(MemorySegment memory) throws Throwable {
    MethodHandle mprotect =
        function("mprotect", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT));
    return (int)
            mprotect.invokeExact(memory, memory.byteSize(), PROTECTION_READ | PROTECTION_EXECUTE)
        == 0;
  }

  private static MethodHandle function(String name, FunctionDescriptor type) {
    Linker linker = Linker.nativeLinker();
    SymbolLookup lookup = linker.defaultLookup();
    return linker.downcallHandle(lookup.findOrThrow(name), type);
  }

  /**
   * Where memory begins that a function is to read, which must not be closed: a function would read
   * on, whatever is there by then.
   */
  static long address(MemorySegment data) {
    if (!data.scope().isAlive()) {
      throw new IllegalStateException("weights or factors that are closed");
    }
    return data.address();
  }

  /** Calls a function. */
  static void call(MemorySegment function, long arguments) {
    try {
      Calls.NUMBER.invokeExact(function, arguments);
    } catch (Throwable e) {
      throw new IllegalStateException("generated code does not throw", e);
    }
  }

  /** Calls a function that takes the address of an array, too. */
  static void call(MemorySegment function, long arguments, float[] array) {
    try {
      Calls.ARRAY.invokeExact(function, arguments, MemorySegment.ofArray(array));
    } catch (Throwable e) {
      throw new IllegalStateException("generated code does not throw", e);
    }
  }

  /** Calls a function that takes the addresses of two arrays, too. */
  static void call(
      MemorySegment function, long arguments, MemorySegment first, MemorySegment second) {
    try {
      Calls.ARRAYS.invokeExact(function, arguments, first, second);
    } catch (Throwable e) {
      throw new IllegalStateException("generated code does not throw", e);
    }
  }

  /** Calls a function that takes the addresses of three arrays, too. */
  static void call(
      MemorySegment function, long arguments, float[] first, float[] second, float[] third) {
    try {
      Calls.THREE.invokeExact(
          function,
          arguments,
          MemorySegment.ofArray(first),
          MemorySegment.ofArray(second),
          MemorySegment.ofArray(third));
    } catch (Throwable e) {
      throw new IllegalStateException("generated code does not throw", e);
    }
  }

  /** Calls a function that takes the addresses of five arrays, too. */
  static void call(
      MemorySegment function,
      long arguments,
      float[] first,
      float[] second,
      float[] third,
      float[] fourth,
      float[] fifth) {
    try {
      Calls.FIVE.invokeExact(
          function,
          arguments,
          MemorySegment.ofArray(first),
          MemorySegment.ofArray(second),
          MemorySegment.ofArray(third),
          MemorySegment.ofArray(fourth),
          MemorySegment.ofArray(fifth));
    } catch (Throwable e) {
      throw new IllegalStateException("generated code does not throw", e);
    }
  }
}
