package dev.wardrobe;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Progress;
import dev.wardrobe.serve.Conversation;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** The options of every command that runs a model. */
final class ModelArguments {
  @Mixin private final BaseArguments base = new BaseArguments();

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
      names = "--max-logprobs",
      paramLabel = "N",
      description =
          "Most log-probabilities that a request may ask for beside each token; -1 allows the whole"
              + " vocabulary. Default: 20 to serve, -1 in a batch.")
  private int maxLogprobs;

  private Progress progress = Progress.NONE;

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
    return base.model();
  }

  /** See {@link BaseArguments#embeddedAdapters}. */
  @Nullable Path embeddedAdapters() throws StartException {
    return base.embeddedAdapters();
  }

  /** The adapters to load at start, by name, in the order given. */
  Map<String, Path> adapters() throws StartException {
    Map<String, Path> named = new LinkedHashMap<>();
    for (String adapter : adapters) {
      int equals = adapter.indexOf('=');
      if (equals < 1 || equals == adapter.length() - 1) {
        throw StartException.usage("--adapter: expected NAME=DIR, got '%s'".formatted(adapter));
      }
      String name = adapter.substring(0, equals);
      if (named.put(name, Path.of(adapter.substring(equals + 1))) != null) {
        throw StartException.usage(
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
    return resident.load().withCache(base.cache());
  }

  EngineOptions engine() throws StartException {
    return resident.engine();
  }

  int maxLogprobs() throws StartException {
    if (maxLogprobs < Conversation.UNLIMITED) {
      throw StartException.usage("--max-logprobs: expected 0 or more, or -1, got " + maxLogprobs);
    }
    return maxLogprobs;
  }

  /** Has loading the model told of. */
  void tell(Progress told) {
    progress = told;
  }

  /** Told of how far the model is loaded. */
  Progress progress() {
    return progress;
  }

  /** See {@link BaseArguments#backend}. */
  Backend backend() throws StartException {
    return base.backend();
  }

  int threads() throws StartException {
    return base.threads();
  }
}
