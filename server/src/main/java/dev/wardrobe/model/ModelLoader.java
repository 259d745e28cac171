package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
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
 * A loading model: from a Hugging Face directory to weights resident in a backend's memory, tensor
 * by tensor, so that beyond the resident weights no more than one tensor is in memory at a time.
 */
public final class ModelLoader {
  private final StoredModel stored;
  private final Backend backend;
  private final Modules modules;
  private final @Nullable QuantOptions options;
  private final Model.Weights weights;
  private final Fingerprint fingerprint = new Fingerprint();
  private MemoryUse memory = MemoryUse.NONE;
  private @Nullable QuantOptions quantization;

  private ModelLoader(
      StoredModel stored, Backend backend, Modules modules, @Nullable QuantOptions options) {
    this.stored = stored;
    this.backend = backend;
    this.modules = modules;
    this.options = options;
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
    StoredModel stored = StoredModel.open(dir);
    Model model = null;
    try {
      GenerationDefaults defaults = GenerationDefaults.read(dir, stored.config());
      Modules modules = stored.modules();
      QuantOptions quantize = stored.quantized() ? null : options.quantize();
      if (quantize != null) {
        SkipRule skip = new SkipRule(options.skip());
        modules = new Modules(stored.config(), path -> !skip.skips(path));
        skip.check(modules);
      }
      model = new ModelLoader(stored, backend, modules, quantize).load(defaults);
      return model;
    } finally {
      if (model == null) {
        stored.close();
      }
    }
  }

  private Model load(GenerationDefaults defaults) throws ModelException, IOException {
    boolean complete = false;
    try {
      // In name order, which is the fingerprint's.
      List<Module> byName =
          modules.all().stream().sorted(Comparator.comparing(Module::weight)).toList();
      for (Module module : byName) {
        load(module);
      }
      complete = true;
    } finally {
      if (!complete) {
        weights.close();
      }
    }
    return new Model(
        stored.config(),
        stored.directory(),
        stored,
        defaults,
        modules,
        weights,
        fingerprint.hex(),
        quantization,
        memory);
  }

  private void load(Module module) throws ModelException, IOException {
    if (module.kind() == Module.Kind.NORM) {
      float[] values = stored.vector(stored.weight(module));
      Buffer norm = upload(values);
      weights.norms[module.id()] = norm;
      weights.hostNorms[module.id()] = values;
      memory = memory.plus(module, new Matrix.Footprint(0, 0, 0, norm.bytes()));
    } else if (!stored.shared(module)) {
      Matrix matrix = matrix(module);
      weights.matrices[module.id()] = matrix;
      memory = memory.plus(module, matrix.footprint());
    }
    TensorInfo bias = stored.bias(module);
    if (bias != null) {
      float[] values = stored.vector(bias);
      Buffer buffer = upload(values);
      weights.biases[module.id()] = buffer;
      weights.hostBiases[module.id()] = values;
      memory = memory.plusBias(values.length, buffer.bytes());
    }
  }

  private Matrix matrix(Module module) throws IOException {
    TensorInfo tensor = stored.weight(module);
    try {
      if (!module.quantized()) {
        return backend.matrix(
            new DenseMatrix(tensor.dtype(), module.out(), module.in(), stored.data(tensor)));
      }
      if (options == null) {
        return quantized(module, stored.quantizedWeight(module));
      }
      // Shared: the quantizer's threads write to it.
      try (Arena arena = Arena.ofShared()) {
        QuantizedMatrix quantized =
            Quantization.quantize(
                FloatSource.of(stored.checkpoint(), tensor),
                module.out(),
                module.in(),
                options,
                BitsAndBytes.sourceDtype(tensor.dtype()),
                arena);
        return quantized(module, quantized);
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

  private Buffer upload(float[] values) {
    Buffer buffer = backend.buffer(1, values.length);
    backend.write(buffer, 0, values);
    return buffer;
  }
}
