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
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/**
 * What a model directory holds, told from its headers: no weights are brought into memory.
 *
 * @param stored bytes of the checkpoint's tensors by what they hold
 * @param quantized for an unquantized checkpoint, what it takes once it is quantized as {@link
 *     QuantOptions#DEFAULT}; else null
 * @param resident what its weights take once it is loaded as asked
 * @param headQuantized whether the head is then held at 4 bits
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
    MemoryUse resident,
    boolean headQuantized,
    List<String> types,
    List<Integer> blockSizes,
    List<Path> files,
    long fileBytes,
    @Nullable String fingerprint) {

  /**
   * Inspects a model directory.
   *
   * @param options how it would be loaded
   * @param fingerprint whether to read all quantized weights for their fingerprint
   * @throws ModelException if the model is not supported, its tensors are not its configuration's,
   *     or {@code options.skip} names none of its modules
   * @throws IOException if a file cannot be read, or is no safetensors file
   */
  public static Inspection of(Path directory, LoadOptions options, boolean fingerprint)
      throws ModelException, IOException {
    try (StoredModel stored = StoredModel.open(directory)) {
      stored.checkTiedHead();
      Modules resident = ModelLoader.modules(stored, options);
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
          stored.quantized()
              ? null
              : estimate(
                  stored,
                  ModelLoader.modules(stored, LoadOptions.DEFAULT),
                  QuantOptions.DEFAULT,
                  TensorInfo::byteSize),
          estimate(stored, resident, options.head(), vector -> Float.BYTES * vector.elements()),
          resident.head().quantized(),
          types.stream().distinct().sorted().toList(),
          blockSizes.stream().distinct().sorted().toList(),
          List.copyOf(files),
          fileBytes,
          fingerprint ? digest.hex() : null);
    }
  }

  /**
   * What a checkpoint's weights take when they are loaded.
   *
   * @param modules of the loaded model
   * @param options how weights are quantized that are not yet
   * @param vectorBytes what a norm or a bias takes
   */
  private static MemoryUse estimate(
      StoredModel stored,
      Modules modules,
      QuantOptions options,
      ToLongFunction<TensorInfo> vectorBytes)
      throws IOException {
    MemoryUse use = MemoryUse.NONE;
    for (Module module : modules.all()) {
      if (stored.shared(module) && !module.quantized()) {
        continue;
      }
      use = use.plus(module, footprint(stored, module, options, vectorBytes));
      TensorInfo bias = stored.bias(module);
      if (bias != null) {
        use = use.plusBias(module.out(), vectorBytes.applyAsLong(bias));
      }
    }
    return modules.headCopied() ? use.withoutParameters(modules.head()) : use;
  }

  private static Matrix.Footprint footprint(
      StoredModel stored,
      Module module,
      QuantOptions options,
      ToLongFunction<TensorInfo> vectorBytes)
      throws IOException {
    if (!module.quantized()) {
      TensorInfo tensor = stored.weight(module);
      boolean norm = module.kind() == Module.Kind.NORM;
      return new Matrix.Footprint(
          0, 0, 0, norm ? vectorBytes.applyAsLong(tensor) : tensor.byteSize());
    }
    if (stored.modules().get(module.id()).quantized()) {
      return CheckpointQuantizer.footprint(stored.quantizedWeight(module));
    }
    return MemoryUse.footprint(
        (long) module.out() * module.in(), options.blockSize(), options.doubleQuant());
  }
}
