package dev.wardrobe.compute.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.NoSuchElementException;

/**
 * oneDNN's product of bfloat16 matrices with sums in float32, as the work of one thread.
 *
 * <p>Of the library's C interface only what this takes is bound, by hand. The library's own threads
 * stay out of it: each thread that calls says first ({@link #enter}) that there is but one.
 */
final class OneDnn implements AutoCloseable {
  /** Why there is no oneDNN here; the message is for people. */
  static final class UnavailableException extends Exception {
    private static final long serialVersionUID = 1;

    UnavailableException(String message) {
      super(message);
    }

    UnavailableException(String message, Throwable cause) {
      super(message, cause);
    }
  }

  /** Outputs of a tile of weights. */
  static final int TILE_ROWS = 64;

  /**
   * What the inputs of a tile are a multiple of. A tile holds for each two inputs 64 ints, one an
   * output, the first input's weight in the lower half.
   */
  static final int TILE_INPUTS = 32;

  private static final String PREFIX = "dnnl_";

  // From the headers of version 3.
  private static final int SUCCESS = 0;
  private static final int KIND_CPU = 1;
  private static final int TYPE_OF_TARGET = 0;
  private static final int TYPE_BF16 = 2;
  private static final int TYPE_F32 = 3;
  private static final int LAYOUT_ROWS = 3;
  private static final int LAYOUT_COLUMNS = 14;
  private static final int LAYOUT_TILE = 384;
  private static final int SCRATCHPAD_OF_USER = 1;
  private static final int STREAM_IN_ORDER = 1;
  private static final int QUERY_SCRATCHPAD = 136;
  private static final int MOST_DIMENSIONS = 12;
  private static final int ARGUMENT_INPUT = 1;
  private static final int ARGUMENT_OUTPUT = 17;
  private static final int ARGUMENT_WEIGHTS = 33;
  private static final int ARGUMENT_SCRATCHPAD = 80;
  private static final int ISA_AVX2_VNNI_2 = 0x1f;
  private static final int ISA_AVX512_BF16 = 0xe7;
  private static final int ISA_AMX = 0xfef;

  private static final FunctionDescriptor ONE = status(ADDRESS);
  private static final FunctionDescriptor TWO = status(ADDRESS, ADDRESS);

  private final Functions functions;
  private final MemorySegment engine;
  private final String description;
  private final boolean avx512;

  private OneDnn(Functions functions, MemorySegment engine, String description, boolean avx512) {
    this.functions = functions;
    this.engine = engine;
    this.description = description;
    this.avx512 = avx512;
  }

  /**
   * Loads the library and tries it.
   *
   * @throws UnavailableException if there is none for this platform, it does not load, or the
   *     processor has no bfloat16
   */
  static OneDnn load() throws UnavailableException {
    Functions functions;
    try {
      functions = new Functions(NativeBundle.ONE_DNN.lookup());
    } catch (NoSuchElementException e) {
      throw new UnavailableException("the library is not oneDNN 3: " + e.getMessage(), e);
    }
    int isa = functions.isa();
    if (!has(isa, ISA_AVX512_BF16) && !has(isa, ISA_AVX2_VNNI_2)) {
      throw new UnavailableException(
          "the processor has no arithmetic for bfloat16 (AVX512-BF16, AMX or AVX-NE-CONVERT)");
    }
    boolean avx512 = has(isa, ISA_AVX512_BF16);
    String kind = has(isa, ISA_AMX) ? "AMX" : avx512 ? "AVX512-BF16" : "AVX2";
    OneDnn library = null;
    try {
      functions.useOneThread();
      boolean best = avx512 && !has(isa, ISA_AMX);
      library = new OneDnn(functions, functions.engine(), "oneDNN on " + kind, best);
      library.product(Shape.forward(8, TILE_INPUTS, false), MemorySegment.NULL).close();
      return library;
    } catch (IllegalStateException e) {
      if (library != null) {
        library.close();
      }
      throw new UnavailableException(String.valueOf(e.getMessage()), e);
    }
  }

  private static boolean has(int isa, int bits) {
    return (isa & bits) == bits;
  }

  /** For people: which instructions it uses. */
  String describe() {
    return description;
  }

  /** Whether AVX512-BF16 is the best that the processor has for bfloat16. */
  boolean avx512() {
    return avx512;
  }

  /** Keeps the library's threads out of what the calling thread is about to ask. */
  void enter() {
    functions.useOneThread();
  }

  @Override
  public void close() {
    functions.call(functions.engineDestroy, engine);
  }

  /**
   * The shape of a product {@code (rows, inputs) · weights = (rows, columns)}.
   *
   * @param weightLayout how the weights lie
   * @param adds whether the product is added to what the output holds
   */
  record Shape(int rows, int inputs, int columns, int weightLayout, boolean adds) {
    /** {@code y = x · tile}: weights as {@link OneDnn#TILE_INPUTS} says. */
    static Shape forward(int rows, int inputs, boolean adds) {
      return new Shape(rows, inputs, TILE_ROWS, LAYOUT_TILE, adds);
    }

    /** {@code dx = dy · W}: for each of 64 columns its weights side by side. */
    static Shape backward(int rows, int inputs, boolean adds) {
      return new Shape(rows, inputs, TILE_ROWS, LAYOUT_COLUMNS, adds);
    }
  }

  /**
   * Prepares a product; expensive the first time.
   *
   * @param weights where the weights will be
   */
  Product product(Shape shape, MemorySegment weights) {
    return new Product(shape, weights);
  }

  /** A product of one shape; for one thread at a time. */
  final class Product implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
    private final Deque<Runnable> made = new ArrayDeque<>();
    private final MemorySegment primitive;
    private final MemorySegment stream;
    private final MemorySegment input;
    private final MemorySegment output;
    private final MemorySegment arguments;
    private final int count;
    private final Shape shape;

    private Product(Shape shape, MemorySegment weights) {
      this.shape = shape;
      boolean complete = false;
      try {
        MemorySegment x = matrix(shape.rows(), shape.inputs(), TYPE_BF16, LAYOUT_ROWS);
        MemorySegment w = matrix(shape.inputs(), shape.columns(), TYPE_BF16, shape.weightLayout());
        MemorySegment y = matrix(shape.rows(), shape.columns(), TYPE_F32, LAYOUT_ROWS);
        MemorySegment attributes = attributes(shape.adds());
        MemorySegment prepared =
            keep(
                functions.matmulCreate(arena, engine, x, w, y, attributes),
                functions.preparedDestroy);
        primitive =
            keep(
                functions.create(arena, functions.primitiveCreate, prepared),
                functions.primitiveDestroy);
        stream = keep(functions.stream(arena, engine, STREAM_IN_ORDER), functions.streamDestroy);
        input = memory(x, MemorySegment.NULL);
        output = memory(y, MemorySegment.NULL);
        MemorySegment scratchpad = functions.query(prepared, QUERY_SCRATCHPAD);
        long bytes = Math.max(1, functions.size(scratchpad));
        List<Argument> list =
            List.of(
                new Argument(ARGUMENT_INPUT, input),
                new Argument(ARGUMENT_WEIGHTS, memory(w, weights)),
                new Argument(ARGUMENT_OUTPUT, output),
                new Argument(
                    ARGUMENT_SCRATCHPAD,
                    memory(scratchpad, arena.allocate(bytes, NativeMemory.ALIGNMENT))));
        count = list.size();
        arguments = arena.allocate(16L * count, 8);
        for (int i = 0; i < count; i++) {
          arguments.set(JAVA_INT, 16L * i, list.get(i).number());
          arguments.set(ADDRESS, 16L * i + 8, list.get(i).memory());
        }
        complete = true;
      } finally {
        if (!complete) {
          close();
        }
      }
    }

    private record Argument(int number, MemorySegment memory) {}

    private MemorySegment matrix(int rows, int columns, int type, int layout) {
      return keep(
          functions.matrix(arena, rows, columns, type, layout), functions.descriptorDestroy);
    }

    private MemorySegment memory(MemorySegment descriptor, MemorySegment at) {
      return keep(functions.memory(arena, descriptor, engine, at), functions.memoryDestroy);
    }

    private MemorySegment attributes(boolean adds) {
      MemorySegment attributes =
          keep(functions.create(arena, functions.attributesCreate), functions.attributesDestroy);
      functions.call(functions.attributesScratchpad, attributes, SCRATCHPAD_OF_USER);
      if (adds) {
        MemorySegment after =
            keep(functions.create(arena, functions.postOpsCreate), functions.postOpsDestroy);
        functions.sum(after);
        functions.call(functions.attributesPostOps, attributes, after);
      }
      return attributes;
    }

    private MemorySegment keep(MemorySegment made, Function destroy) {
      this.made.push(() -> functions.call(destroy, made));
      return made;
    }

    boolean is(int rows, int inputs, boolean adds, boolean back) {
      return shape.rows() == rows
          && shape.inputs() == inputs
          && shape.adds() == adds
          && (shape.weightLayout() == LAYOUT_COLUMNS) == back;
    }

    /**
     * Multiplies.
     *
     * @param x address of {@code (rows, inputs)} in bfloat16
     * @param y address of {@code (rows, columns)} in float32
     */
    void run(long x, long y) {
      functions.call(functions.memorySet, input, x);
      functions.call(functions.memorySet, output, y);
      functions.execute(primitive, stream, count, arguments);
    }

    @Override
    public void close() {
      while (!made.isEmpty()) {
        made.pop().run();
      }
      arena.close();
    }
  }

  private static FunctionDescriptor status(MemoryLayout... arguments) {
    return FunctionDescriptor.of(JAVA_INT, arguments);
  }

  /** A function of the library, and its name for the error. */
  private record Function(String name, MethodHandle handle) {}

  /** The library's functions. */
  private static final class Functions {
    private final SymbolLookup lookup;
    private final Linker linker = Linker.nativeLinker();

    final Function engineCreate;
    final Function engineDestroy;
    final Function streamCreate;
    final Function streamDestroy;
    final Function descriptorCreate;
    final Function descriptorDestroy;
    final Function descriptorSize;
    final Function attributesCreate;
    final Function attributesDestroy;
    final Function attributesScratchpad;
    final Function attributesPostOps;
    final Function postOpsCreate;
    final Function postOpsSum;
    final Function postOpsDestroy;
    final Function matmulCreate;
    final Function preparedQuery;
    final Function preparedDestroy;
    final Function primitiveCreate;
    final Function primitiveExecute;
    final Function primitiveDestroy;
    final Function memoryCreate;
    final Function memorySet;
    final Function memoryDestroy;
    final Function effectiveIsa;
    final Function setThreads;

    Functions(SymbolLookup lookup) {
      this.lookup = lookup;
      engineCreate = bind("engine_create", status(ADDRESS, JAVA_INT, JAVA_LONG));
      engineDestroy = bind("engine_destroy", ONE);
      streamCreate = bind("stream_create", status(ADDRESS, ADDRESS, JAVA_INT));
      streamDestroy = bind("stream_destroy", ONE);
      descriptorCreate =
          bind(
              "memory_desc_create_with_tag",
              status(ADDRESS, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT));
      descriptorDestroy = bind("memory_desc_destroy", ONE);
      descriptorSize = bind("memory_desc_get_size", FunctionDescriptor.of(JAVA_LONG, ADDRESS));
      attributesCreate = bind("primitive_attr_create", ONE);
      attributesDestroy = bind("primitive_attr_destroy", ONE);
      attributesScratchpad = bind("primitive_attr_set_scratchpad_mode", status(ADDRESS, JAVA_INT));
      attributesPostOps = bind("primitive_attr_set_post_ops", TWO);
      postOpsCreate = bind("post_ops_create", ONE);
      postOpsSum = bind("post_ops_append_sum", status(ADDRESS, JAVA_FLOAT, JAVA_INT, JAVA_INT));
      postOpsDestroy = bind("post_ops_destroy", ONE);
      matmulCreate =
          bind(
              "matmul_primitive_desc_create",
              status(ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS));
      preparedQuery =
          bind(
              "primitive_desc_query_md",
              FunctionDescriptor.of(ADDRESS, ADDRESS, JAVA_INT, JAVA_INT));
      preparedDestroy = bind("primitive_desc_destroy", ONE);
      primitiveCreate = bind("primitive_create", TWO);
      primitiveExecute = bind("primitive_execute", status(ADDRESS, ADDRESS, JAVA_INT, ADDRESS));
      primitiveDestroy = bind("primitive_destroy", ONE);
      memoryCreate = bind("memory_create", status(ADDRESS, ADDRESS, ADDRESS, ADDRESS));
      // By number: a segment for each product would be an object.
      memorySet = bind("memory_set_data_handle", status(ADDRESS, JAVA_LONG));
      memoryDestroy = bind("memory_destroy", ONE);
      effectiveIsa = bind("get_effective_cpu_isa", FunctionDescriptor.of(JAVA_INT));
      setThreads = function("omp_set_num_threads", FunctionDescriptor.ofVoid(JAVA_INT));
    }

    private Function bind(String name, FunctionDescriptor descriptor) {
      return function(PREFIX + name, descriptor);
    }

    // Native code is the point.
    @SuppressWarnings("restricted")
    private Function function(String name, FunctionDescriptor descriptor) {
      return new Function(name, linker.downcallHandle(lookup.findOrThrow(name), descriptor));
    }

    int isa() {
      try {
        return (int) effectiveIsa.handle().invokeExact();
      } catch (Throwable e) {
        throw failed(effectiveIsa, e);
      }
    }

    void useOneThread() {
      try {
        setThreads.handle().invokeExact(1);
      } catch (Throwable e) {
        throw failed(setThreads, e);
      }
    }

    MemorySegment engine() {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment created = arena.allocate(ADDRESS);
        check(engineCreate, (int) engineCreate.handle().invokeExact(created, KIND_CPU, 0L));
        return created.get(ADDRESS, 0);
      } catch (Throwable e) {
        throw failed(engineCreate, e);
      }
    }

    MemorySegment stream(Arena arena, MemorySegment engine, int flags) {
      MemorySegment created = arena.allocate(ADDRESS);
      try {
        check(streamCreate, (int) streamCreate.handle().invokeExact(created, engine, flags));
      } catch (Throwable e) {
        throw failed(streamCreate, e);
      }
      return created.get(ADDRESS, 0);
    }

    MemorySegment matrix(Arena arena, long rows, long columns, int type, int layout) {
      MemorySegment created = arena.allocate(ADDRESS);
      MemorySegment dimensions = arena.allocate(JAVA_LONG, MOST_DIMENSIONS);
      dimensions.setAtIndex(JAVA_LONG, 0, rows);
      dimensions.setAtIndex(JAVA_LONG, 1, columns);
      try {
        check(
            descriptorCreate,
            (int) descriptorCreate.handle().invokeExact(created, 2, dimensions, type, layout));
      } catch (Throwable e) {
        throw failed(descriptorCreate, e);
      }
      return created.get(ADDRESS, 0);
    }

    long size(MemorySegment descriptor) {
      try {
        return (long) descriptorSize.handle().invokeExact(descriptor);
      } catch (Throwable e) {
        throw failed(descriptorSize, e);
      }
    }

    MemorySegment query(MemorySegment prepared, int what) {
      try {
        return (MemorySegment) preparedQuery.handle().invokeExact(prepared, what, 0);
      } catch (Throwable e) {
        throw failed(preparedQuery, e);
      }
    }

    void sum(MemorySegment postOps) {
      try {
        check(postOpsSum, (int) postOpsSum.handle().invokeExact(postOps, 1f, 0, TYPE_OF_TARGET));
      } catch (Throwable e) {
        throw failed(postOpsSum, e);
      }
    }

    MemorySegment matmulCreate(
        Arena arena,
        MemorySegment engine,
        MemorySegment x,
        MemorySegment w,
        MemorySegment y,
        MemorySegment attributes) {
      MemorySegment created = arena.allocate(ADDRESS);
      try {
        check(
            matmulCreate,
            (int)
                matmulCreate
                    .handle()
                    .invokeExact(created, engine, x, w, MemorySegment.NULL, y, attributes));
      } catch (Throwable e) {
        throw failed(matmulCreate, e);
      }
      return created.get(ADDRESS, 0);
    }

    MemorySegment memory(
        Arena arena, MemorySegment descriptor, MemorySegment engine, MemorySegment at) {
      MemorySegment created = arena.allocate(ADDRESS);
      try {
        check(
            memoryCreate, (int) memoryCreate.handle().invokeExact(created, descriptor, engine, at));
      } catch (Throwable e) {
        throw failed(memoryCreate, e);
      }
      return created.get(ADDRESS, 0);
    }

    void execute(
        MemorySegment primitive, MemorySegment stream, int count, MemorySegment arguments) {
      try {
        check(
            primitiveExecute,
            (int) primitiveExecute.handle().invokeExact(primitive, stream, count, arguments));
      } catch (Throwable e) {
        throw failed(primitiveExecute, e);
      }
    }

    MemorySegment create(Arena arena, Function function) {
      MemorySegment created = arena.allocate(ADDRESS);
      call(function, created);
      return created.get(ADDRESS, 0);
    }

    MemorySegment create(Arena arena, Function function, MemorySegment of) {
      MemorySegment created = arena.allocate(ADDRESS);
      call(function, created, of);
      return created.get(ADDRESS, 0);
    }

    void call(Function function, MemorySegment a) {
      try {
        check(function, (int) function.handle().invokeExact(a));
      } catch (Throwable e) {
        throw failed(function, e);
      }
    }

    void call(Function function, MemorySegment a, MemorySegment b) {
      try {
        check(function, (int) function.handle().invokeExact(a, b));
      } catch (Throwable e) {
        throw failed(function, e);
      }
    }

    void call(Function function, MemorySegment a, long b) {
      try {
        check(function, (int) function.handle().invokeExact(a, b));
      } catch (Throwable e) {
        throw failed(function, e);
      }
    }

    void call(Function function, MemorySegment a, int b) {
      try {
        check(function, (int) function.handle().invokeExact(a, b));
      } catch (Throwable e) {
        throw failed(function, e);
      }
    }

    private static void check(Function function, int status) {
      if (status != SUCCESS) {
        throw new IllegalStateException(
            "oneDNN: %s failed with status %d".formatted(function.name(), status));
      }
    }

    private static RuntimeException failed(Function function, Throwable e) {
      if (e instanceof Error error) {
        throw error;
      }
      return e instanceof RuntimeException known
          ? known
          : new IllegalStateException("oneDNN: %s failed".formatted(function.name()), e);
    }
  }
}
