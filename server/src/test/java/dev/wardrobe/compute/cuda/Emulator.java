package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;

/**
 * A CUDA device that needs no GPU: the fake driver and the runtime of {@code src/test/cuda}, and
 * the product's kernels compiled for them, built by g++ when their sources have changed.
 *
 * <p>The driver is loaded by its path before JCuda is; JCuda's own library then asks the loader for
 * a {@code libcuda.so.1}, and one of that name is there. A real driver is never looked for.
 */
@SuppressWarnings("restricted") // native code is what this class is about
public final class Emulator {
  private static final Path MODULE = module();
  private static final Path SOURCES = MODULE.resolve("src/test/cuda");
  private static final Path KERNELS = MODULE.resolve("src/main/cuda");
  private static final Path BUILD = MODULE.resolve("target/cuda-emulator");
  private static final String DRIVER = "libcuda.so.1";

  private static final List<String> COMMON = List.of("-std=c++20", "-O2", "-fPIC", "-Wall", "-g1");

  /** The driver and the runtime. Their loops are vectorized. */
  private static final List<String> RUNTIME =
      List.of("-O3", "-ffp-contract=fast", "-ftls-model=initial-exec");

  /**
   * Kernels: every load and store calls the runtime first, and is as wide as in the source. No
   * product and sum become one operation but where the source says so.
   */
  private static final List<String> DEVICE =
      List.of(
          "-x",
          "c++",
          "-DWARDROBE_EMULATED",
          "-ffp-contract=off",
          "-fno-exceptions",
          "-fno-strict-aliasing",
          "-fno-tree-vectorize",
          "-fno-store-merging",
          "-fno-tree-loop-distribute-patterns",
          "-fno-gnu-unique",
          "-fsanitize=kernel-address",
          "--param",
          "asan-instrumentation-with-call-threshold=0",
          "--param",
          "asan-stack=0",
          "--param",
          "asan-globals=1",
          "-Wno-unknown-pragmas",
          // A thread has a stack of 32 KiB.
          "-Werror=frame-larger-than=16384",
          "-I",
          KERNELS.toString(),
          "-I",
          SOURCES.toString());

  private static Emulator loaded;

  private final Path driver;
  private final MethodHandle seed;
  private final MethodHandle seedNow;
  private final MethodHandle budget;
  private final MethodHandle fail;
  private final MethodHandle report;
  private final MethodHandle liveBytes;
  private final MethodHandle count;
  private final MethodHandle reset;

  private Emulator(Path driver) {
    this.driver = driver;
    System.load(driver.toString());
    SymbolLookup symbols = SymbolLookup.libraryLookup(driver, Arena.global());
    seed = function(symbols, "emulator_seed", null, JAVA_LONG);
    seedNow = function(symbols, "emulator_seed_now", JAVA_LONG);
    budget = function(symbols, "emulator_budget", null, JAVA_LONG);
    fail = function(symbols, "emulator_fail", null, ADDRESS, JAVA_INT, JAVA_INT);
    report = function(symbols, "emulator_report", JAVA_LONG, ADDRESS, JAVA_LONG);
    liveBytes = function(symbols, "emulator_live_bytes", JAVA_LONG);
    count = function(symbols, "emulator_count", JAVA_LONG, ADDRESS);
    reset = function(symbols, "emulator_reset", JAVA_LONG);
  }

  /**
   * Builds the driver where it must be built, and makes it this process's {@code libcuda.so.1}. A
   * test that calls this is skipped where there is no g++, or not for x86-64 on Linux; with {@code
   * CI=true} in the environment it fails.
   */
  public static synchronized Emulator load() {
    if (Boolean.getBoolean(Labs.DEVICE)) {
      Assumptions.abort("a test of the emulator, where a real device is tested");
    }
    if (loaded == null) {
      requireCompiler();
      loaded = new Emulator(driver());
    }
    return loaded;
  }

  /** The product's kernels, as {@code cuModuleLoadData} takes them. */
  public byte[] image() {
    return image(list(KERNELS, ".cu").toArray(Path[]::new));
  }

  /** Kernels of any sources. */
  public byte[] image(Path... sources) {
    List<Path> objects =
        Arrays.stream(sources).parallel().map(source -> compile(source, DEVICE)).toList();
    Path image = link("kernels-", ".so", objects, List.of(driver.toString()));
    try {
      return Files.readAllBytes(image);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A cuBLASLt that computes on the emulated device, as a library to load. */
  Path cublasLt() {
    Path object = compile(SOURCES.resolve("cublaslt.cpp"), RUNTIME);
    return link(
        "cublaslt-",
        ".so",
        List.of(object),
        List.of("-Wl,-soname,libcublasLt.so.13", driver.toString()));
  }

  /** Where the emulator's own sources are, and those of the kernels that test it. */
  static Path sources() {
    return SOURCES;
  }

  /** From now on the order of streams, blocks and warps is this seed's. */
  public void seed(long value) {
    call(seed, value);
  }

  /** The seed last given. */
  public long seed() {
    return (long) call(seedNow);
  }

  /** Bytes of device memory, until the next {@link #reset}. */
  public void budget(long bytes) {
    call(budget, bytes);
  }

  /** Makes a call fail, the {@code nth} from now of this name, as {@code cuMemAlloc}. */
  public void fail(String name, int nth, int code) {
    try (Arena arena = Arena.ofConfined()) {
      call(fail, arena.allocateFrom(name), nth, code);
    }
  }

  /** What went wrong last, in words; empty if nothing did. */
  public String report() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment text = arena.allocate(4096);
      call(report, text, text.byteSize());
      return text.getString(0);
    }
  }

  /** Bytes of device memory taken and not freed. */
  public long liveBytes() {
    return (long) call(liveBytes);
  }

  /**
   * How often something happened since the last {@link #reset}: {@code kernels}, {@code kernel
   * NAME}, {@code graphs}, {@code copies}, or a call by its name.
   */
  public long count(String what) {
    try (Arena arena = Arena.ofConfined()) {
      return (long) call(count, arena.allocateFrom(what));
    }
  }

  /**
   * Makes the device as it was at first, whatever happened to it.
   *
   * @return bytes of device memory that were live, or had been when their context ended; {@link
   *     #report} says which
   */
  public long reset() {
    return (long) call(reset);
  }

  // Building

  private static Path module() {
    for (String candidate : List.of(".", "server", "../server")) {
      Path module = Path.of(candidate).toAbsolutePath().normalize();
      if (Files.isDirectory(module.resolve("src/test/cuda"))) {
        return module;
      }
    }
    // Where a device is tested there may be no sources; whoever needs them finds that out.
    return Path.of("").toAbsolutePath();
  }

  private static void requireCompiler() {
    String missing = null;
    if (!"amd64".equals(System.getProperty("os.arch"))
        || !"linux".equals(System.getProperty("os.name", "").toLowerCase(Locale.ROOT))) {
      missing = "the CUDA emulator needs Linux on x86-64";
    } else if (Stream.of(System.getenv().getOrDefault("PATH", "").split(":"))
        .noneMatch(folder -> Files.isExecutable(Path.of(folder, "g++")))) {
      missing = "the CUDA emulator needs g++, which is not on the PATH";
    }
    if (missing != null) {
      if ("true".equals(System.getenv("CI"))) {
        throw new IllegalStateException(missing + "; CI does not go without it");
      }
      Assumptions.abort(missing);
    }
  }

  private static Path driver() {
    List<Path> objects =
        Stream.of("emulator.cpp", "driver.cpp")
            .parallel()
            .map(name -> compile(SOURCES.resolve(name), RUNTIME))
            .toList();
    return link("driver-", "/" + DRIVER, objects, List.of("-Wl,-soname," + DRIVER, "-pthread"));
  }

  private static Path compile(Path source, List<String> options) {
    List<String> command = new ArrayList<>(List.of("g++"));
    command.addAll(COMMON);
    command.add("-march=" + architecture());
    command.addAll(options);
    List<Path> inputs = new ArrayList<>(List.of(source));
    inputs.addAll(list(SOURCES, ".h"));
    inputs.addAll(list(KERNELS, ".cuh"));
    String name = source.getFileName().toString();
    return build(
        name + "-",
        ".o",
        command,
        inputs,
        output -> List.of("-c", source.toString(), "-o", output.toString()));
  }

  private static Path link(String prefix, String suffix, List<Path> objects, List<String> options) {
    return build(
        prefix,
        suffix,
        List.of("g++", "-shared"),
        objects,
        output -> {
          List<String> rest = new ArrayList<>(List.of("-o", output.toString()));
          objects.forEach(object -> rest.add(object.toString()));
          rest.addAll(options);
          return rest;
        });
  }

  private interface Arguments {
    List<String> of(Path output);
  }

  /** Makes a file that is named by a digest of what it is made from, unless it is there. */
  private static Path build(
      String prefix, String suffix, List<String> command, List<Path> inputs, Arguments arguments) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      digest.update(String.join(" ", command).getBytes(StandardCharsets.UTF_8));
      for (Path input : inputs) {
        digest.update(input.getFileName().toString().getBytes(StandardCharsets.UTF_8));
        digest.update(Files.readAllBytes(input));
      }
      String key = HexFormat.of().formatHex(digest.digest(), 0, 8);
      Path output = BUILD.resolve(prefix + key + suffix);
      if (!Files.exists(output)) {
        Files.createDirectories(output.getParent());
        // Another process may be building the same.
        Path partial = Files.createTempFile(output.getParent(), "partial", "");
        try {
          List<String> whole = new ArrayList<>(command);
          whole.addAll(arguments.of(partial));
          execute(whole);
          Files.move(partial, output, StandardCopyOption.ATOMIC_MOVE);
        } finally {
          Files.deleteIfExists(partial);
        }
      }
      return output;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void execute(List<String> command) throws IOException {
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    process.getOutputStream().close();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    try {
      if (!process.waitFor(5, TimeUnit.MINUTES)) {
        process.destroyForcibly();
        throw new IllegalStateException("g++ does not end: " + String.join(" ", command));
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while g++ ran", e);
    }
    if (process.exitValue() != 0) {
      throw new IllegalStateException(
          "g++ failed: " + String.join(" ", command) + System.lineSeparator() + output);
    }
  }

  /** What g++ calls the machine: with AVX2 where it has it, since mma is slow without. */
  private static String architecture() {
    try {
      Optional<String> flags =
          Files.readAllLines(Path.of("/proc/cpuinfo")).stream()
              .filter(line -> line.startsWith("flags"))
              .findFirst();
      List<String> all = List.of(flags.orElse("").split("\\s+"));
      return all.containsAll(List.of("avx2", "fma", "bmi2", "movbe")) ? "x86-64-v3" : "x86-64";
    } catch (IOException e) {
      return "x86-64";
    }
  }

  private static List<Path> list(Path folder, String suffix) {
    try (Stream<Path> files = Files.list(folder)) {
      return files.filter(file -> file.toString().endsWith(suffix)).sorted().toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static MethodHandle function(
      SymbolLookup symbols, String name, MemoryLayout returns, MemoryLayout... parameters) {
    FunctionDescriptor type =
        returns == null
            ? FunctionDescriptor.ofVoid(parameters)
            : FunctionDescriptor.of(returns, parameters);
    return Linker.nativeLinker().downcallHandle(symbols.find(name).orElseThrow(), type);
  }

  private static Object call(MethodHandle function, Object... arguments) {
    try {
      return function.invokeWithArguments(arguments);
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }
}
