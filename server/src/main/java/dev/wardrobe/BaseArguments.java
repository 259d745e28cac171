package dev.wardrobe;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.UnavailableException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.compute.cuda.CudaBackend;
import dev.wardrobe.model.CacheOptions;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import picocli.CommandLine.Option;

/** Which base, and how is computed with it: the options of every command that reads a model. */
public final class BaseArguments {
  private static final Logger log = LoggerFactory.getLogger(BaseArguments.class);

  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "A Hugging Face model directory. Default: the embedded demo model.")
  private @Nullable Path model;

  @Option(
      names = "--cache-dir",
      paramLabel = "DIR",
      description =
          "Where the weights are kept in the form in which they are resident, for the next start to"
              + " map. Default, for models of 64 MiB and more: .wardrobe in the model's directory,"
              + " or else wardrobe in the user's cache folder.")
  private @Nullable Path cacheDir;

  @Option(
      names = "--no-cache",
      description = "Read, quantize and pack the weights at each start, into memory of its own.")
  private boolean noCache;

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads that compute. Default: as many as there are processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--backend",
      paramLabel = "NAME",
      defaultValue = "${sys:wardrobe.backend:-auto}",
      description =
          "What computes: cuda, cpu, or auto, which is cuda where there is a CUDA device of compute"
              + " capability 8.0 or newer, else cpu. Default: ${DEFAULT-VALUE}.")
  private String backend = "auto";

  @Option(
      names = "--math",
      paramLabel = "MODE",
      defaultValue = "exact",
      description =
          "exact, or fast: prompts and batches of 16 rows and more in bfloat16 by oneDNN, where an"
              + " answer's bits may depend on what else is in the batch. Default:"
              + " ${DEFAULT-VALUE}.")
  private String math = "exact";

  /**
   * The model's directory.
   *
   * @throws StartException if none is given, and the embedded one is not there
   */
  public Path model() throws StartException {
    return model(model);
  }

  /**
   * The adapters that belong to the embedded model; null if another one is served.
   *
   * @throws StartException if no model is given, and the embedded one is not there
   */
  @Nullable Path embeddedAdapters() throws StartException {
    return model == null ? model().resolveSibling("adapters") : null;
  }

  /** The directory that was given, or else the embedded model's. */
  static Path model(@Nullable Path model) throws StartException {
    if (model != null) {
      return model;
    }
    String home = System.getProperty("wardrobe.home");
    if (home == null) {
      throw StartException.usage(
          "--model is missing; only the launcher (deploy/wardrobe) knows where the embedded model"
              + " is");
    }
    return Path.of(home, "models", "demo", "base");
  }

  /** Where resident weights are kept. */
  public CacheOptions cache() throws StartException {
    if (noCache) {
      if (cacheDir != null) {
        throw StartException.usage("--cache-dir and --no-cache contradict each other; drop one");
      }
      return CacheOptions.NONE;
    }
    if (cacheDir != null) {
      return new CacheOptions(List.of(cacheDir), 0);
    }
    List<Path> folders = new ArrayList<>();
    folders.add(model().resolve(".wardrobe"));
    String xdg = System.getenv("XDG_CACHE_HOME");
    if (xdg != null && Path.of(xdg).isAbsolute()) {
      folders.add(Path.of(xdg, "wardrobe"));
    } else if (System.getProperty("user.home") != null) {
      folders.add(Path.of(System.getProperty("user.home"), ".cache", "wardrobe"));
    }
    return new CacheOptions(folders, CacheOptions.WORTHWHILE);
  }

  public MathMode math() throws StartException {
    return math(math);
  }

  /** See {@link #backend(String, MathMode, int)}. */
  Backend backend() throws StartException {
    return backend(backend, math(), threads());
  }

  /**
   * The device that was asked for, or the best there is.
   *
   * @throws StartException if CUDA was asked for and cannot be had
   */
  static Backend backend(String name, MathMode math, int threads) throws StartException {
    String asked = name.toLowerCase(Locale.ROOT);
    if (!List.of("auto", "cpu", "cuda").contains(asked)) {
      throw StartException.usage("--backend: expected auto, cpu or cuda, got '%s'".formatted(name));
    }
    if (asked.equals("cpu")) {
      return new CpuBackend(threads, math);
    }
    try {
      return CudaBackend.open(math);
    } catch (UnavailableException e) {
      if (asked.equals("cuda")) {
        throw new StartException(
            "--backend cuda: %s; --backend cpu needs no device".formatted(e.getMessage()), e);
      }
      log.info("cuda: not used: {}", e.getMessage());
      return new CpuBackend(threads, math);
    }
  }

  /**
   * Refuses what only serving can do.
   *
   * @throws StartException if anything but the CPU was asked for
   */
  public void requireCpu(String command) throws StartException {
    String asked = backend.toLowerCase(Locale.ROOT);
    if (!asked.equals("auto") && !asked.equals("cpu")) {
      throw StartException.usage(
          "--backend: %s computes on the CPU only, got '%s'".formatted(command, backend));
    }
  }

  static MathMode math(String name) throws StartException {
    for (MathMode mode : MathMode.values()) {
      if (mode.id().equals(name.toLowerCase(Locale.ROOT))) {
        return mode;
      }
    }
    throw StartException.usage("--math: expected exact or fast, got '%s'".formatted(name));
  }

  public int threads() throws StartException {
    if (threads < 1 || threads > 1024) {
      throw StartException.usage("--threads: expected 1 to 1024, got " + threads);
    }
    return threads;
  }
}
