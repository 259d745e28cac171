package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.wardrobe.compute.UnavailableException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * NVIDIA's library of matrix products, where it is installed; bound directly, since JCuda's binding
 * wants that of CUDA 12 alone. Numbers are those of {@code cublasLt.h}, version 13.1; those used
 * have been the same since version 11.
 *
 * <p>Its sums are in an order of its own, which may depend on how many rows there are.
 */
// Native code is the point.
@SuppressWarnings("restricted")
final class CublasLt implements AutoCloseable {
  /** Names by which the loader may find it, newest first. */
  private static final List<String> NAMES = List.of("libcublasLt.so.13", "libcublasLt.so.12");

  private static final long WORKSPACE = 32L << 20;

  private static final int COMPUTE_32F = 68;
  private static final int REAL_32F = 0;
  private static final int REAL_16BF = 14;
  private static final int DESCRIPTION_TRANSA = 3;
  private static final int PREFERENCE_MAX_WORKSPACE_BYTES = 1;
  private static final int TRANSPOSED = 1;

  /** cublasLtMatmulHeuristicResult_t, which begins with a cublasLtMatmulAlgo_t of 64 bytes. */
  private static final int HEURISTIC_BYTES = 96;

  private static final int HEURISTIC_STATE = 72;

  private final Gpu gpu;
  private final Arena arena = Arena.ofShared();
  private final MethodHandle matmul;
  private final MethodHandle layoutCreate;
  private final MethodHandle heuristic;
  private final MethodHandle destroy;
  private final MemorySegment handle;
  private final MemorySegment description;
  private final MemorySegment preference;
  private final MemorySegment one;
  private final MemorySegment zero;
  private final Gpu.Memory workspace;
  private final Map<Product, Plan> plans = new HashMap<>();

  /** Sizes of {@code y (tokens, out) = x (tokens, in) · wᵀ (in, out)}. */
  private record Product(int tokens, int in, int out, int stride) {}

  /** How a product is computed. */
  private record Plan(MemorySegment w, MemorySegment x, MemorySegment y, MemorySegment algorithm) {}

  private CublasLt(SymbolLookup library, Gpu gpu) throws Throwable {
    this.gpu = gpu;
    matmul =
        bind(
            library,
            "cublasLtMatmul",
            ADDRESS,
            ADDRESS,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            ADDRESS,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG);
    layoutCreate =
        bind(
            library,
            "cublasLtMatrixLayoutCreate",
            ADDRESS,
            JAVA_INT,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG);
    heuristic =
        bind(
            library,
            "cublasLtMatmulAlgoGetHeuristic",
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            JAVA_INT,
            ADDRESS,
            ADDRESS);
    destroy = bind(library, "cublasLtDestroy", ADDRESS);
    gpu.enter();
    handle = made("cublasLtCreate", bind(library, "cublasLtCreate", ADDRESS));
    description =
        made(
            "cublasLtMatmulDescCreate",
            bind(library, "cublasLtMatmulDescCreate", ADDRESS, JAVA_INT, JAVA_INT),
            COMPUTE_32F,
            REAL_32F);
    check(
        "cublasLtMatmulDescSetAttribute",
        bind(library, "cublasLtMatmulDescSetAttribute", ADDRESS, JAVA_INT, ADDRESS, JAVA_LONG)
            .invoke(description, DESCRIPTION_TRANSA, arena.allocateFrom(JAVA_INT, TRANSPOSED), 4L));
    preference =
        made(
            "cublasLtMatmulPreferenceCreate",
            bind(library, "cublasLtMatmulPreferenceCreate", ADDRESS));
    check(
        "cublasLtMatmulPreferenceSetAttribute",
        bind(library, "cublasLtMatmulPreferenceSetAttribute", ADDRESS, JAVA_INT, ADDRESS, JAVA_LONG)
            .invoke(
                preference,
                PREFERENCE_MAX_WORKSPACE_BYTES,
                arena.allocateFrom(JAVA_LONG, WORKSPACE),
                8L));
    one = arena.allocateFrom(JAVA_FLOAT, 1);
    zero = arena.allocateFrom(JAVA_FLOAT, 0);
    workspace = gpu.workspace("cuBLASLt's workspace", WORKSPACE);
  }

  /**
   * Loads it: from {@code $CUDA_HOME}, from where CUDA is installed by default, or by the loader's
   * own search.
   *
   * @throws UnavailableException if it is in none of these places
   */
  static CublasLt load(Gpu gpu) throws UnavailableException {
    List<String> tried = new ArrayList<>();
    for (String folder : new String[] {System.getenv("CUDA_HOME"), "/usr/local/cuda"}) {
      if (folder != null && !folder.isEmpty()) {
        for (String name : NAMES) {
          tried.add(Path.of(folder, "lib64", name).toString());
          tried.add(Path.of(folder, "lib", name).toString());
        }
      }
    }
    tried.addAll(NAMES);
    for (String candidate : tried) {
      SymbolLookup library;
      try {
        library = SymbolLookup.libraryLookup(candidate, Arena.global());
      } catch (IllegalArgumentException e) {
        continue;
      }
      return load(library, gpu);
    }
    throw new UnavailableException(
        "cuBLASLt (libcublasLt.so.13 or .12) is not found; set CUDA_HOME");
  }

  static CublasLt load(SymbolLookup library, Gpu gpu) throws UnavailableException {
    try {
      return new CublasLt(library, gpu);
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new UnavailableException("cuBLASLt does not start: " + e.getMessage(), e);
    }
  }

  /**
   * Queues {@code y = x·wᵀ} on the computing stream.
   *
   * @param w {@code (out, in)} in bf16, by rows
   * @param x {@code (tokens, in)} in bf16, by rows
   * @param y {@code (tokens, out)} in float32, a row {@code stride} floats after the other
   */
  void multiply(long w, int out, int in, long x, int tokens, long y, int stride) {
    Plan plan = plans.computeIfAbsent(new Product(tokens, in, out, stride), this::plan);
    try {
      check(
          "cublasLtMatmul",
          matmul.invoke(
              handle,
              description,
              one,
              w,
              plan.w,
              x,
              plan.x,
              zero,
              y,
              plan.y,
              y,
              plan.y,
              plan.algorithm,
              workspace.address(),
              WORKSPACE,
              gpu.computeHandle()));
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /** The library counts by columns: what we have by rows is transposed there. */
  private Plan plan(Product product) {
    try {
      MemorySegment w = layout(REAL_16BF, product.in, product.out, product.in);
      MemorySegment x = layout(REAL_16BF, product.in, product.tokens, product.in);
      MemorySegment y = layout(REAL_32F, product.out, product.tokens, product.stride);
      MemorySegment found = arena.allocate(HEURISTIC_BYTES, 8);
      MemorySegment count = arena.allocate(JAVA_INT);
      check(
          "cublasLtMatmulAlgoGetHeuristic",
          heuristic.invoke(handle, description, w, x, y, y, preference, 1, found, count));
      if (count.get(JAVA_INT, 0) < 1 || found.get(JAVA_INT, HEURISTIC_STATE) != 0) {
        throw new IllegalStateException("cuBLASLt has no algorithm for " + product);
      }
      return new Plan(w, x, y, found);
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private MemorySegment layout(int type, long rows, long cols, long stride) throws Throwable {
    return made("cublasLtMatrixLayoutCreate", layoutCreate, type, rows, cols, stride);
  }

  /** What a function creates, whose first argument is where to put it. */
  private MemorySegment made(String function, MethodHandle create, Object... arguments)
      throws Throwable {
    MemorySegment at = arena.allocate(ADDRESS);
    List<Object> all = new ArrayList<>();
    all.add(at);
    all.addAll(List.of(arguments));
    check(function, create.invokeWithArguments(all));
    return at.get(ADDRESS, 0);
  }

  private static MethodHandle bind(
      SymbolLookup library, String function, MemoryLayout... arguments) {
    MemorySegment address =
        library
            .find(function)
            .orElseThrow(() -> new IllegalStateException("cuBLASLt has no " + function));
    return Linker.nativeLinker()
        .downcallHandle(address, FunctionDescriptor.of(JAVA_INT, arguments));
  }

  private static void check(String function, @Nullable Object status) {
    if (!Integer.valueOf(0).equals(status)) {
      throw new IllegalStateException(
          "%s failed: cuBLAS status %s; --math exact does without it".formatted(function, status));
    }
  }

  @Override
  public void close() {
    // Descriptors are plain memory of the library's, and go with the process: there are few.
    try {
      if (gpu.usable()) {
        destroy.invoke(handle);
      }
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
    workspace.close();
    arena.close();
  }
}
