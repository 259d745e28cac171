package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.Quantization;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A loading model: from a Hugging Face directory to weights resident in a backend's memory. What an
 * earlier load left in the {@link WeightCache} is used as it lies there; else tensor by tensor, so
 * that beyond the resident weights no more than one tensor is in memory at a time.
 */
public final class ModelLoader {
  private final StoredModel stored;
  private final Backend backend;
  private final Modules modules;
  private final @Nullable QuantOptions options;
  private final QuantOptions headOptions;
  private final Model.Weights weights;
  private final Fingerprint fingerprint = new Fingerprint();
  private @Nullable QuantOptions quantization;

  private ModelLoader(
      StoredModel stored,
      Backend backend,
      Modules modules,
      @Nullable QuantOptions options,
      QuantOptions headOptions) {
    this.stored = stored;
    this.backend = backend;
    this.modules = modules;
    this.options = options;
    this.headOptions = headOptions;
    this.weights = new Model.Weights(modules.all().size());
  }

  /**
   * Loads a model.
   *
   * @throws ModelException if it is not supported, its tensors are not its configuration's, or
   *     {@code options.skip} names none of its modules
   * @throws IOException if a file cannot be read, or its bytes are not what they should be
   */
  public static Model load(Path dir, LoadOptions options, Backend backend)
      throws ModelException, IOException {
    return load(dir, options, backend, Progress.NONE);
  }

  /**
   * As {@link #load(Path, LoadOptions, Backend)}.
   *
   * @param progress told of each module, unless the weights of an earlier load are used
   */
  public static Model load(Path dir, LoadOptions options, Backend backend, Progress progress)
      throws ModelException, IOException {
    StoredModel stored = StoredModel.open(dir);
    Model model = null;
    try {
      GenerationDefaults defaults = GenerationDefaults.read(dir, stored.config());
      QuantOptions quantize = stored.quantized() ? null : options.quantize();
      Modules modules = modules(stored, options);
      WeightCache cache = WeightCache.of(stored, modules, quantize, options, backend);
      Model.Weights weights = cache == null ? null : cache.read();
      if (weights == null) {
        stored.checkTiedHead();
        weights =
            new ModelLoader(stored, backend, modules, quantize, options.head()).load(progress);
        if (cache != null) {
          int all = modules.all().size();
          progress.at(all, all, "keeping them for the next start");
          weights = cache.keep(weights);
        }
        backend.trim();
      }
      model = new Model(stored.config(), dir, stored, defaults, modules, weights);
      return model;
    } finally {
      if (model == null) {
        stored.close();
      }
    }
  }

  /** A stored model's modules, with those marked as quantized that will be when it is loaded. */
  static Modules modules(StoredModel stored, LoadOptions options) throws ModelException {
    QuantOptions quantize = stored.quantized() ? null : options.quantize();
    if (quantize == null) {
      return options.quantizeHead()
          ? new Modules(stored.config(), stored::quantizes, true)
          : stored.modules();
    }
    SkipRule skip = new SkipRule(options.skip());
    Modules modules =
        new Modules(stored.config(), path -> !skip.skips(path), options.quantizeHead());
    skip.check(modules);
    return modules;
  }

  private Model.Weights load(Progress progress) throws ModelException, IOException {
    boolean complete = false;
    try {
      // In name order, which is the fingerprint's.
      List<Module> byName =
          modules.all().stream().sorted(Comparator.comparing(Module::weight)).toList();
      int done = 0;
      for (Module module : byName) {
        load(module);
        progress.at(++done, byName.size(), module.path());
      }
      weights.source(null, fingerprint.hex(), quantization);
      complete = true;
      return weights;
    } finally {
      if (!complete) {
        weights.close();
      }
    }
  }

  private void load(Module module) throws ModelException, IOException {
    if (module.kind() == Module.Kind.NORM) {
      weights.norm(module, stored.vector(stored.weight(module)), backend);
    } else if (!stored.shared(module) || module.quantized()) {
      weights.matrices[module.id()] = matrix(module);
    }
    TensorInfo bias = stored.bias(module);
    if (bias != null) {
      weights.bias(module, stored.vector(bias), backend);
    }
  }

  private Matrix matrix(Module module) throws IOException {
    TensorInfo tensor = stored.weight(module);
    try {
      if (!module.quantized()) {
        return backend.matrix(
            new DenseMatrix(tensor.dtype(), module.out(), module.in(), stored.data(tensor)));
      }
      if (stored.modules().get(module.id()).quantized()) {
        return quantized(module, stored.quantizedWeight(module));
      }
      boolean head = module.kind() == Module.Kind.HEAD;
      QuantOptions how = head || options == null ? headOptions : options;
      // Shared: the quantizer's threads write to it.
      try (Arena arena = Arena.ofShared()) {
        QuantizedMatrix quantized =
            Quantization.quantize(
                FloatSource.of(stored.checkpoint(), tensor),
                module.out(),
                module.in(),
                how,
                BitsAndBytes.sourceDtype(tensor.dtype()),
                arena);
        // Like the type of keys and values, how the head is held is the server's choice: what
        // adapters were trained on is the same base.
        return head ? backend.matrix(quantized) : quantized(module, quantized);
      }
    } finally {
      stored.release(tensor);
    }
  }

  private Matrix quantized(Module module, QuantizedMatrix matrix) {
    fingerprint.add(module.weight(), matrix);
    if (quantization == null) {
      quantization = new QuantOptions(matrix.type(), matrix.blockSize(), matrix.doubleQuant());
    }
    return backend.matrix(matrix);
  }
}
