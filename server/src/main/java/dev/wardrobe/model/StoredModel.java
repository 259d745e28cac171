package dev.wardrobe.model;

import dev.wardrobe.quant.BitsAndBytes;
import dev.wardrobe.quant.QuantException;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * A model directory as stored: its configuration, and a checkpoint that has every tensor the
 * configuration asks for, in its shape, and no other.
 */
final class StoredModel implements AutoCloseable {
  private final Path directory;
  private final Fields file;
  private final ModelConfig config;
  private final Checkpoint checkpoint;
  private final Modules modules;

  private StoredModel(Path directory, Fields file, ModelConfig config, Checkpoint checkpoint) {
    this.directory = directory;
    this.file = file;
    this.config = config;
    this.checkpoint = checkpoint;
    this.modules = new Modules(config, this::quantizes);
  }

  /**
   * Opens a model and checks names, types and shapes of its tensors, not their contents.
   *
   * @throws ModelException if the model is not supported, or its tensors are not its
   *     configuration's
   * @throws IOException if a file cannot be read, or is no safetensors file
   */
  static StoredModel open(Path directory) throws ModelException, IOException {
    Fields file = ModelConfig.file(directory);
    ModelConfig config = ModelConfig.of(file);
    Checkpoint checkpoint = Checkpoint.open(directory);
    boolean complete = false;
    try {
      StoredModel stored = new StoredModel(directory, file, config, checkpoint);
      stored.check();
      complete = true;
      return stored;
    } finally {
      if (!complete) {
        checkpoint.close();
      }
    }
  }

  Path directory() {
    return directory;
  }

  /** The fields of {@code config.json}. */
  Fields file() {
    return file;
  }

  ModelConfig config() {
    return config;
  }

  /** The modules, with those marked as quantized that are stored so. */
  Modules modules() {
    return modules;
  }

  /** Whether the checkpoint says that it is quantized, or holds a quantized weight. */
  boolean quantized() {
    return config.quantization() != null || modules.all().stream().anyMatch(Module::quantized);
  }

  /** Whether a module's weight is stored quantized. */
  boolean quantizes(String path) {
    return BitsAndBytes.isQuantized(checkpoint, path + ".weight");
  }

  /** Whether a tied head shares the embedding's weight, and has none of its own. */
  boolean shared(Module module) {
    return module.kind() == Module.Kind.HEAD && config.tied();
  }

  /** A module's weight, packed if it is stored quantized; a tied head's is the embedding's. */
  TensorInfo weight(Module module) {
    return require((shared(module) ? modules.embedding() : module).weight());
  }

  /** A module's bias, or null if it has none. */
  @Nullable TensorInfo bias(Module module) {
    return module.bias() ? require(module.biasName()) : null;
  }

  QuantizedMatrix quantizedWeight(Module module) throws QuantException {
    return BitsAndBytes.read(checkpoint, module.weight(), module.out(), module.in());
  }

  Checkpoint checkpoint() {
    return checkpoint;
  }

  MemorySegment data(TensorInfo tensor) {
    return checkpoint.data(tensor);
  }

  /** The values of a norm or a bias, all of them finite. */
  float[] vector(TensorInfo tensor) throws ModelException, IOException {
    float[] values = checkpoint.floats(tensor);
    for (int i = 0; i < values.length; i++) {
      if (!Float.isFinite(values[i])) {
        throw new ModelException(
            "%s: tensor %s: element %d is %s; expected a finite number"
                .formatted(directory, tensor.name(), i, values[i]));
      }
    }
    return values;
  }

  /** Gives a tensor's pages back to the operating system; they are read again when needed. */
  void release(TensorInfo tensor) {
    release(checkpoint.data(tensor));
  }

  static void release(MemorySegment data) {
    if (data.isMapped() && data.byteSize() > 0) {
      data.unload();
    }
  }

  @Override
  public void close() {
    checkpoint.close();
  }

  private TensorInfo require(String name) {
    TensorInfo tensor = checkpoint.find(name);
    if (tensor == null) {
      throw new IllegalStateException(name + " was not checked");
    }
    return tensor;
  }

  private void check() throws ModelException {
    Set<String> known = new TreeSet<>();
    for (Module module : modules.all()) {
      if (shared(module)) {
        if (checkpoint.find(module.weight()) != null) {
          checkTensor(module.weight(), List.of((long) module.out(), (long) module.in()));
        }
        known.add(module.weight());
        continue;
      }
      if (module.quantized()) {
        known.addAll(BitsAndBytes.tensorNames(checkpoint, module.weight()));
        if (checkpoint.find(module.weight()) == null) {
          throw missing(module.weight());
        }
      } else {
        known.add(module.weight());
        boolean vector = module.kind() == Module.Kind.NORM;
        checkTensor(
            module.weight(),
            vector
                ? List.of((long) module.out())
                : List.of((long) module.out(), (long) module.in()));
      }
      if (module.bias()) {
        known.add(module.biasName());
        checkTensor(module.biasName(), List.of((long) module.out()));
      }
    }
    List<String> extra = new ArrayList<>();
    for (String name : checkpoint.tensors().keySet()) {
      if (!known.contains(name) && !inert(name)) {
        extra.add(name);
      }
    }
    if (!extra.isEmpty()) {
      throw new ModelException(
          "%s: %d tensors that a '%s' of this configuration does not have: %s%s"
              .formatted(
                  directory,
                  extra.size(),
                  config.family(),
                  String.join(", ", extra.subList(0, Math.min(3, extra.size()))),
                  extra.size() > 3 ? ", …" : ""));
    }
  }

  /** Tables that old checkpoints carry and everyone computes anew. */
  private static boolean inert(String name) {
    return name.endsWith("rotary_emb.inv_freq");
  }

  private void checkTensor(String name, List<Long> shape) throws ModelException {
    TensorInfo tensor = checkpoint.find(name);
    if (tensor == null) {
      throw missing(name);
    }
    if (!tensor.dtype().widens()) {
      throw new ModelException(
          "%s: tensor %s: expected F32, F16 or BF16, got %s"
              .formatted(directory, name, tensor.dtype()));
    }
    if (!tensor.shape().equals(shape)) {
      throw new ModelException(
          "%s: tensor %s: expected shape %s by %s, got %s"
              .formatted(directory, name, shape, ModelConfig.FILE, tensor.shape()));
    }
  }

  private ModelException missing(String name) {
    return new ModelException(
        "%s: tensor %s is missing; complete the download, or correct %s"
            .formatted(directory, name, ModelConfig.FILE));
  }

  /**
   * Checks that a tied head which is stored beside the embedding is the same. Reads both.
   *
   * @throws ModelException if they differ
   */
  void checkTiedHead() throws ModelException {
    Module head = modules.head();
    TensorInfo stored = checkpoint.find(head.weight());
    if (stored == null || !shared(head)) {
      return;
    }
    TensorInfo embedding = require(modules.embedding().weight());
    if (!Floats.equal(embedding.dtype(), data(embedding), stored.dtype(), data(stored))) {
      throw new ModelException(
          "%s: tie_word_embeddings is true, but tensor %s differs from %s; set it to false to use"
                  .formatted(directory, head.weight(), modules.embedding().weight())
              + " both");
    }
    release(embedding);
    release(stored);
  }
}
