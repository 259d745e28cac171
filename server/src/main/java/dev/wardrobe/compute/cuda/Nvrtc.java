package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.compute.UnavailableException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * NVIDIA's run-time compiler, for a build that had no nvcc: found where CUDA is installed, and
 * bound directly, since JCuda's binding wants that of CUDA 12 alone.
 */
// Native code is the point.
@SuppressWarnings("restricted")
final class Nvrtc {
  /** Names by which the loader may find it, newest first. */
  private static final List<String> NAMES =
      List.of("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so");

  private final SymbolLookup library;

  private Nvrtc(SymbolLookup library) {
    this.library = library;
  }

  /**
   * Loads it: from {@code $CUDA_HOME}, from where CUDA is installed by default, or by the loader's
   * own search.
   *
   * @throws UnavailableException if it is in none of these places
   */
  static Nvrtc load() throws UnavailableException {
    List<String> tried = new ArrayList<>();
    String home = System.getenv("CUDA_HOME");
    for (String folder : new String[] {home, "/usr/local/cuda"}) {
      if (folder != null && !folder.isEmpty()) {
        for (String name : NAMES) {
          tried.add(Path.of(folder, "lib64", name).toString());
          tried.add(Path.of(folder, "lib", name).toString());
        }
      }
    }
    tried.addAll(NAMES);
    for (String candidate : tried) {
      try {
        loadBuiltins(Path.of(candidate).getParent());
        return new Nvrtc(SymbolLookup.libraryLookup(candidate, Arena.global()));
      } catch (IllegalArgumentException e) {
        // The next one.
      }
    }
    throw new UnavailableException(
        "this build has no compiled kernels, and NVRTC (libnvrtc.so.13 or .12), which could compile"
            + " them now, is not found; install it, set CUDA_HOME, or build with nvcc");
  }

  /** NVRTC looks for this one where the loader looks, not beside itself. */
  private static void loadBuiltins(@Nullable Path folder) {
    if (folder == null || !Files.isDirectory(folder)) {
      return;
    }
    try (DirectoryStream<Path> found = Files.newDirectoryStream(folder, "libnvrtc-builtins.so.*")) {
      for (Path library : found) {
        SymbolLookup.libraryLookup(library, Arena.global());
      }
    } catch (IOException | IllegalArgumentException e) {
      // NVRTC says so itself when it needs it.
    }
  }

  /**
   * Compiles a source.
   *
   * @param name of the source, for messages
   * @param header what it includes as {@code wardrobe.cuh}
   * @param architecture as in {@code sm_90a}
   * @return a cubin
   * @throws IllegalStateException if it does not compile, with the compiler's messages
   */
  byte[] compile(String name, String source, String header, String architecture) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment handle = arena.allocate(ADDRESS);
      MemorySegment headers = arena.allocate(ADDRESS);
      headers.set(ADDRESS, 0, arena.allocateFrom(header));
      MemorySegment names = arena.allocate(ADDRESS);
      names.set(ADDRESS, 0, arena.allocateFrom("wardrobe.cuh"));
      call(
          "nvrtcCreateProgram",
          bind("nvrtcCreateProgram", ADDRESS, ADDRESS, ADDRESS, JAVA_INT, ADDRESS, ADDRESS)
              .invoke(
                  handle, arena.allocateFrom(source), arena.allocateFrom(name), 1, headers, names));
      MemorySegment program = handle.get(ADDRESS, 0);
      try {
        List<String> options =
            List.of(
                "--gpu-architecture=" + architecture,
                "--std=c++17",
                "--fmad=false",
                "--device-as-default-execution-space");
        MemorySegment array = arena.allocate(ADDRESS, options.size());
        for (int i = 0; i < options.size(); i++) {
          array.setAtIndex(ADDRESS, i, arena.allocateFrom(options.get(i)));
        }
        Object code =
            bind("nvrtcCompileProgram", ADDRESS, JAVA_INT, ADDRESS)
                .invoke(program, options.size(), array);
        if (!code.equals(0)) {
          throw new IllegalStateException(
              "%s does not compile for %s (NVRTC error %s): %s"
                  .formatted(name, architecture, code, log(program, arena)));
        }
        MemorySegment cubin = result("nvrtcGetCUBIN", program, arena);
        return cubin.toArray(JAVA_BYTE);
      } finally {
        call("nvrtcDestroyProgram", bind("nvrtcDestroyProgram", ADDRESS).invoke(handle));
      }
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private String log(MemorySegment program, Arena arena) throws Throwable {
    return result("nvrtcGetProgramLog", program, arena).getString(0).strip();
  }

  /** What a getter gives: its size from the getter of that name and "Size", then itself. */
  private MemorySegment result(String getter, MemorySegment program, Arena arena) throws Throwable {
    MemorySegment size = arena.allocate(JAVA_LONG);
    call(getter + "Size", bind(getter + "Size", ADDRESS, ADDRESS).invoke(program, size));
    MemorySegment bytes = arena.allocate(Math.max(1, size.get(JAVA_LONG, 0)));
    call(getter, bind(getter, ADDRESS, ADDRESS).invoke(program, bytes));
    return bytes;
  }

  private MethodHandle bind(String function, MemoryLayout... arguments) {
    MemorySegment address =
        library
            .find(function)
            .orElseThrow(() -> new IllegalStateException("NVRTC has no " + function));
    return Linker.nativeLinker()
        .downcallHandle(address, FunctionDescriptor.of(JAVA_INT, arguments));
  }

  private static void call(String function, Object code) {
    if (!code.equals(0)) {
      throw new IllegalStateException("%s failed: NVRTC error %s".formatted(function, code));
    }
  }
}
