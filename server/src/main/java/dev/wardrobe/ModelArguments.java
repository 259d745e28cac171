package dev.wardrobe;

import dev.wardrobe.compute.MathMode;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.CacheOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.serve.Conversation;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** The options of every command that runs a model. */
final class ModelArguments {
  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "A Hugging Face model directory. Default: the embedded demo model.")
  private @Nullable Path model;

  @Option(
      names = "--adapter",
      paramLabel = "NAME=DIR",
      description = "A PEFT adapter directory, and the name requests use. May be repeated.")
  private List<String> adapters = new ArrayList<>();

  @Option(
      names = "--refuse-zero-delta",
      description = "Refuse adapters that change nothing, rather than warn of them.")
  private boolean refuseZeroDelta;

  @Mixin private final ResidentArguments resident = new ResidentArguments();

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
      names = "--max-logprobs",
      paramLabel = "N",
      description =
          "Most log-probabilities that a request may ask for beside each token; -1 allows the whole"
              + " vocabulary. Default: 20 to serve, -1 in a batch.")
  private int maxLogprobs;

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads that compute. Default: as many as there are processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

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
   * @param maxLogprobs the default of {@code --max-logprobs}
   */
  ModelArguments(int maxLogprobs) {
    this.maxLogprobs = maxLogprobs;
  }

  /**
   * The model's directory.
   *
   * @throws StartException if none is given, and the embedded one is not there
   */
  Path model() throws StartException {
    return model(model);
  }

  /** The directory that was given, or else the embedded model's. */
  static Path model(@Nullable Path model) throws StartException {
    if (model != null) {
      return model;
    }
    String home = System.getProperty("wardrobe.home");
    if (home == null) {
      throw new StartException(
          "--model is missing; only the launcher (deploy/wardrobe) knows where the embedded model"
              + " is");
    }
    return Path.of(home, "models", "demo", "base");
  }

  /** The adapters to load at start, by name, in the order given. */
  Map<String, Path> adapters() throws StartException {
    Map<String, Path> named = new LinkedHashMap<>();
    for (String adapter : adapters) {
      int equals = adapter.indexOf('=');
      if (equals < 1 || equals == adapter.length() - 1) {
        throw new StartException("--adapter: expected NAME=DIR, got '%s'".formatted(adapter));
      }
      String name = adapter.substring(0, equals);
      if (named.put(name, Path.of(adapter.substring(equals + 1))) != null) {
        throw new StartException(
            "--adapter: '%s' is given twice; choose two names".formatted(name));
      }
    }
    return named;
  }

  /** Whether an adapter that changes nothing is refused. */
  boolean refusesZeroDelta() {
    return refuseZeroDelta;
  }

  LoadOptions load() throws StartException {
    return resident.load().withCache(cache());
  }

  private CacheOptions cache() throws StartException {
    if (noCache) {
      if (cacheDir != null) {
        throw new StartException("--cache-dir and --no-cache contradict each other; drop one");
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

  EngineOptions engine() throws StartException {
    return resident.engine();
  }

  int maxLogprobs() throws StartException {
    if (maxLogprobs < Conversation.UNLIMITED) {
      throw new StartException("--max-logprobs: expected 0 or more, or -1, got " + maxLogprobs);
    }
    return maxLogprobs;
  }

  MathMode math() throws StartException {
    return math(math);
  }

  static MathMode math(String name) throws StartException {
    for (MathMode mode : MathMode.values()) {
      if (mode.id().equals(name.toLowerCase(Locale.ROOT))) {
        return mode;
      }
    }
    throw new StartException("--math: expected exact or fast, got '%s'".formatted(name));
  }

  int threads() throws StartException {
    if (threads < 1 || threads > 1024) {
      throw new StartException("--threads: expected 1 to 1024, got " + threads);
    }
    return threads;
  }
}
