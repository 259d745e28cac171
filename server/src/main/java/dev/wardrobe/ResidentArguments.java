package dev.wardrobe;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Option;

/** The options that decide what is in memory once a model is loaded. */
final class ResidentArguments {
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
      names = "--quantize-head",
      description =
          "Quantize the output head too, as the projections or else as nf4. Less to read for each"
              + " token, a little less exact. A head that is tied to the embedding gets a copy.")
  private boolean quantizeHead;

  @Option(
      names = "--kv",
      paramLabel = "TYPE",
      defaultValue = "bf16",
      description = "How keys and values are kept: bf16 or f32. Default: ${DEFAULT-VALUE}.")
  private String kv = "bf16";

  @Option(
      names = "--memory-mib",
      paramLabel = "N",
      description =
          "Memory for keys, values and adapters together, in MiB, taken as it is needed. Default:"
              + " what --kv-tokens and --adapter-cache-mib come to.")
  private long memoryMib;

  @Option(
      names = "--kv-tokens",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Tokens that the KV cache holds, over all requests; with --memory-mib, that it is sure of"
              + " (default then: a quarter). Default: derived, up to 256 MiB, or one whole context"
              + " if that is more and at most 1 GiB.")
  private int kvTokens;

  @Option(
      names = "--adapter-cache-mib",
      paramLabel = "N",
      description =
          "Resident adapters, in MiB; beyond it those that nobody uses make room. With"
              + " --memory-mib, what they are sure of (default then: a quarter). Default: 4096, or"
              + " a quarter of the machine's memory. Where neither this nor --kv-tokens is given,"
              + " three quarters of both are for whichever needs it.")
  private long adapterCacheMib;

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

  LoadOptions load() throws StartException {
    QuantType type =
        switch (quantize.toLowerCase(Locale.ROOT)) {
          case "nf4" -> QuantType.NF4;
          case "fp4" -> QuantType.FP4;
          case "none" -> null;
          default ->
              throw StartException.usage(
                  "--quantize: expected nf4, fp4 or none, got '%s'".formatted(quantize));
        };
    if (blockSize != 64 && blockSize != 128 && blockSize != 256) {
      throw StartException.usage("--block-size: expected 64, 128 or 256, got " + blockSize);
    }
    if (quantizeHead && skip.contains("lm_head")) {
      throw StartException.usage(
          "--quantize-head and --skip lm_head contradict each other; drop one");
    }
    return new LoadOptions(
            type == null ? null : new QuantOptions(type, blockSize, !noDoubleQuant), skip)
        .withQuantizeHead(quantizeHead);
  }

  EngineOptions engine() throws StartException {
    checkMib("--adapter-cache-mib", adapterCacheMib);
    checkMib("--memory-mib", memoryMib);
    try {
      return EngineOptions.DEFAULT
          .withKvType(kvType(kv))
          .withKvTokens(kvTokens)
          .withAdapterBytes(adapterCacheMib << 20)
          .withMemoryBytes(memoryMib << 20)
          .withMaxSequences(maxBatch)
          .withMaxWaiting(Math.max(EngineOptions.DEFAULT.maxWaiting(), 4 * maxBatch))
          .withPrefillTokens(prefillTokens);
    } catch (IllegalArgumentException e) {
      throw StartException.usage("--" + e.getMessage(), e);
    }
  }

  private static void checkMib(String option, long mib) throws StartException {
    if (mib < 0 || mib > Long.MAX_VALUE >> 20) {
      throw StartException.usage(
          "%s: expected a positive number, or 0 to derive it, got %d".formatted(option, mib));
    }
  }

  /** What {@code --kv} names. */
  static KvShape.Type kvType(String kv) throws StartException {
    return switch (kv.toLowerCase(Locale.ROOT)) {
      case "f32" -> KvShape.Type.F32;
      case "bf16" -> KvShape.Type.BF16;
      default -> throw StartException.usage("--kv: expected f32 or bf16, got '%s'".formatted(kv));
    };
  }
}
