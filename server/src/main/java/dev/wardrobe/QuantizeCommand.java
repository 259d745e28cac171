package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.model.CheckpointQuantizer;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code wardrobe quantize}: writes a bitsandbytes 4-bit checkpoint. */
@Command(
    name = "quantize",
    description =
        "Quantize a Hugging Face model to 4 bits, in the form that bitsandbytes and transformers"
            + " load.",
    mixinStandardHelpOptions = true)
final class QuantizeCommand implements Callable<Integer> {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--model",
      required = true,
      paramLabel = "DIR",
      description = "The unquantized model's directory.")
  private Path model = Path.of("");

  @Option(
      names = "--out",
      required = true,
      paramLabel = "DIR",
      description = "Where the result goes: a new or empty directory.")
  private Path out = Path.of("");

  @Option(
      names = "--type",
      defaultValue = "nf4",
      paramLabel = "TYPE",
      description = "nf4 or fp4 (default: ${DEFAULT-VALUE}).")
  private String type = "nf4";

  @Option(
      names = "--block-size",
      defaultValue = "64",
      paramLabel = "N",
      description = "Weights that share a scale: 64, 128 or 256 (default: ${DEFAULT-VALUE}).")
  private int blockSize;

  @Option(
      names = "--no-double-quant",
      description = "Keep the scales as float32 instead of quantizing them to 8 bits.")
  private boolean plainScales;

  @Option(
      names = "--skip",
      paramLabel = "MODULE",
      description =
          "Leave a module unquantized: a path, a regular expression from its start, or a suffix."
              + " May be repeated; the output head is always left.")
  private List<String> skip = new ArrayList<>();

  @Option(
      names = "--shard-bytes",
      defaultValue = "" + CheckpointQuantizer.DEFAULT_SHARD_BYTES,
      paramLabel = "N",
      description = "Most bytes of weights in a file (default: ${DEFAULT-VALUE}).")
  private long shardBytes;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws ModelException, IOException {
    var options = new CheckpointQuantizer.Options(quantization(), skip, shards());
    CheckpointQuantizer.Result result;
    try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json)) {
      result = CheckpointQuantizer.quantize(model, out, options, progress::at);
    }
    if (json) {
      spec.commandLine()
          .getOut()
          .println(
              new ObjectMapper()
                  .createObjectNode()
                  .put("out", out.toString())
                  .put("parameters", result.memory().parameters())
                  .put("bytes", result.memory().total())
                  .put("bits_per_weight", result.memory().bitsPerWeight())
                  .put("fingerprint", result.fingerprint()));
      return 0;
    }
    spec.commandLine()
        .getOut()
        .printf(
            Locale.ROOT,
            "%s: %d parameters in %d bytes; %.3f bits per quantized weight; fingerprint %s%n",
            out,
            result.memory().parameters(),
            result.memory().total(),
            result.memory().bitsPerWeight(),
            result.fingerprint());
    return 0;
  }

  private QuantOptions quantization() {
    QuantType codes = null;
    for (QuantType each : QuantType.values()) {
      if (each.id().equals(type)) {
        codes = each;
      }
    }
    if (codes == null) {
      throw new ParameterException(
          spec.commandLine(), "--type: expected nf4 or fp4, got '%s'".formatted(type));
    }
    if (blockSize != 64 && blockSize != 128 && blockSize != 256) {
      throw new ParameterException(
          spec.commandLine(), "--block-size: expected 64, 128 or 256, got " + blockSize);
    }
    return new QuantOptions(codes, blockSize, !plainScales);
  }

  private long shards() {
    if (shardBytes < 1) {
      throw new ParameterException(
          spec.commandLine(), "--shard-bytes: expected at least 1, got " + shardBytes);
    }
    return shardBytes;
  }
}
