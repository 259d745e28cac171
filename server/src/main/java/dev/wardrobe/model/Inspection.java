package dev.wardrobe.model;

import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a model directory holds, told from its headers: no weights are brought into memory.
 *
 * @param stored bytes of the checkpoint's tensors by what they hold
 * @param quantized for an unquantized checkpoint, what it takes once it is quantized as {@link
 *     QuantOptions#DEFAULT}; else null
 * @param types the element types of unquantized weights, and the code books of quantized ones
 * @param blockSizes of the quantized weights
 * @param fileBytes size of the weight files
 * @param fingerprint of a quantized base, or null if it was not asked for
 */
public record Inspection(
    Path directory,
    ModelConfig config,
    MemoryUse stored,
    @Nullable MemoryUse quantized,
    List<String> types,
    List<Integer> blockSizes,
    List<Path> files,
    long fileBytes,
    @Nullable String fingerprint) {

  /**
   * Inspects a model directory.
   *
   * @param fingerprint whether to read all quantized weights for their fingerprint
   * @throws ModelException if the model is not supported, or its tensors are not its
   *     configuration's
   * @throws IOException if a file cannot be read, or is no safetensors file
   */
  public static Inspection of(Path directory, boolean fingerprint)
      throws ModelException, IOException {
    try (StoredModel stored = StoredModel.open(directory)) {
      stored.checkTiedHead();
      MemoryUse use = MemoryUse.NONE;
      List<String> types = new ArrayList<>();
      List<Integer> blockSizes = new ArrayList<>();
      Fingerprint digest = new Fingerprint();
      List<Module> byName =
          stored.modules().all().stream()
              .filter(m -> !stored.shared(m))
              .sorted(Comparator.comparing(Module::weight))
              .toList();
      for (Module module : byName) {
        if (module.quantized()) {
          QuantizedMatrix matrix = stored.quantizedWeight(module);
          use = use.plus(module, CheckpointQuantizer.footprint(matrix));
          types.add(matrix.type().id());
          blockSizes.add(matrix.blockSize());
          if (fingerprint) {
            digest.add(module.weight(), matrix);
            stored.release(stored.weight(module));
          }
        } else {
          TensorInfo tensor = stored.weight(module);
          use = use.plus(module, new Matrix.Footprint(0, 0, 0, tensor.byteSize()));
          types.add(BitsAndBytes.sourceDtype(tensor.dtype()));
        }
        TensorInfo bias = stored.bias(module);
        if (bias != null) {
          use = use.plusBias(module.out(), bias.byteSize());
        }
      }
      List<Path> files = stored.checkpoint().files();
      long fileBytes = 0;
      for (Path file : files) {
        fileBytes += Files.size(file);
      }
      return new Inspection(
          directory,
          stored.config(),
          use,
          stored.quantized() ? null : estimate(stored, byName),
          types.stream().distinct().sorted().toList(),
          blockSizes.stream().distinct().sorted().toList(),
          List.copyOf(files),
          fileBytes,
          fingerprint ? digest.hex() : null);
    }
  }

  /** What the default quantization makes of an unquantized checkpoint. */
  private static MemoryUse estimate(StoredModel stored, List<Module> modules) {
    QuantOptions options = QuantOptions.DEFAULT;
    MemoryUse use = MemoryUse.NONE;
    for (Module module : modules) {
      if (module.kind() == Module.Kind.LINEAR) {
        long elements = (long) module.out() * module.in();
        long blocks = Math.ceilDiv(elements, (long) options.blockSize());
        use =
            use.plus(
                new Module(
                    module.id(),
                    module.path(),
                    module.kind(),
                    module.out(),
                    module.in(),
                    true,
                    module.bias()),
                new Matrix.Footprint(
                    Math.ceilDiv(elements, 2L), blocks, 4 * Math.ceilDiv(blocks, 256L), 0));
      } else {
        long bytes = stored.weight(module).byteSize();
        use = use.plus(module, new Matrix.Footprint(0, 0, 0, bytes));
      }
      TensorInfo bias = stored.bias(module);
      if (bias != null) {
        use = use.plusBias(module.out(), bias.byteSize());
      }
    }
    return use;
  }
}
