package dev.wardrobe;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.serve.Conversation;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;
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

  @Option(
      names = "--quantize",
      paramLabel = "TYPE",
      defaultValue = "nf4",
      description =
          "What an unquantized model becomes: nf4, fp4 or none. Default: ${DEFAULT-VALUE}. A model"
              + " that is quantized already is used as it is.")
  private String quantize = "nf4";

  @Option(
      names = "--block-size",
      paramLabel = "N",
      defaultValue = "64",
      description = "Weights that share a scale: 64, 128 or 256. Default: ${DEFAULT-VALUE}.")
  private int blockSize = 64;

  @Option(names = "--no-double-quant", description = "Keep the scales in 32 bits.")
  private boolean noDoubleQuant;

  @Option(
      names = "--skip",
      paramLabel = "MODULE",
      description = "A module to leave unquantized. May be repeated.")
  private List<String> skip = new ArrayList<>();

  @Option(
      names = "--kv",
      paramLabel = "TYPE",
      defaultValue = "f32",
      description = "How keys and values are kept: f32 or bf16. Default: ${DEFAULT-VALUE}.")
  private String kv = "f32";

  @Option(
      names = "--kv-tokens",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Tokens that the KV cache holds, over all requests. Default: derived, up to 256 MiB, or"
              + " one whole context if that is more and at most 1 GiB.")
  private int kvTokens;

  @Option(
      names = "--max-batch",
      paramLabel = "N",
      defaultValue = "64",
      description = "Most sequences in a step. Default: ${DEFAULT-VALUE}.")
  private int maxBatch = 64;

  @Option(
      names = "--prefill-tokens",
      paramLabel = "N",
      defaultValue = "256",
      description = "Most prompt tokens in a step. Default: ${DEFAULT-VALUE}.")
  private int prefillTokens = 256;

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
    QuantType type =
        switch (quantize.toLowerCase(Locale.ROOT)) {
          case "nf4" -> QuantType.NF4;
          case "fp4" -> QuantType.FP4;
          case "none" -> null;
          default ->
              throw new StartException(
                  "--quantize: expected nf4, fp4 or none, got '%s'".formatted(quantize));
        };
    if (blockSize != 64 && blockSize != 128 && blockSize != 256) {
      throw new StartException("--block-size: expected 64, 128 or 256, got " + blockSize);
    }
    return new LoadOptions(
        type == null ? null : new QuantOptions(type, blockSize, !noDoubleQuant), skip);
  }

  EngineOptions engine() throws StartException {
    KvShape.Type kvType =
        switch (kv.toLowerCase(Locale.ROOT)) {
          case "f32" -> KvShape.Type.F32;
          case "bf16" -> KvShape.Type.BF16;
          default -> throw new StartException("--kv: expected f32 or bf16, got '%s'".formatted(kv));
        };
    try {
      return EngineOptions.DEFAULT
          .withKvType(kvType)
          .withKvTokens(kvTokens)
          .withMaxSequences(maxBatch)
          .withMaxWaiting(Math.max(EngineOptions.DEFAULT.maxWaiting(), 4 * maxBatch))
          .withPrefillTokens(prefillTokens);
    } catch (IllegalArgumentException e) {
      throw new StartException("--" + e.getMessage(), e);
    }
  }

  int maxLogprobs() throws StartException {
    if (maxLogprobs < Conversation.UNLIMITED) {
      throw new StartException("--max-logprobs: expected 0 or more, or -1, got " + maxLogprobs);
    }
    return maxLogprobs;
  }

  int threads() throws StartException {
    if (threads < 1 || threads > 1024) {
      throw new StartException("--threads: expected 1 to 1024, got " + threads);
    }
    return threads;
  }
}
