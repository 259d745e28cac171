package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.RandomMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * A model of a given shape with random weights, and random adapters for any model: made in memory,
 * to measure with. What it says means nothing; what it costs is what a trained one costs.
 */
public final class RandomModel {
  private RandomModel() {}

  /**
   * A model whose projections are NF4 in blocks of 64, doubly quantized; embedding and head are
   * bf16, norms 1. The same seed gives the same weights.
   *
   * @param name what the model is called
   * @param quantizedHead whether the head is NF4 too; a tied one is then apart from the embedding
   */
  public static Model of(
      String name, ModelConfig config, boolean quantizedHead, long seed, Backend backend) {
    Modules modules = new Modules(config, path -> !path.equals("lm_head"), quantizedHead);
    Model.Weights weights = new Model.Weights(modules.all().size());
    boolean complete = false;
    try {
      for (Module module : modules.all()) {
        if (module.kind() == Module.Kind.HEAD && config.tied() && !module.quantized()) {
          continue;
        }
        if (module.kind() == Module.Kind.NORM) {
          float[] values = new float[module.out()];
          Arrays.fill(values, 1);
          weights.norm(module, values, backend);
        } else {
          weights.matrices[module.id()] = matrix(module, seed(seed, module.id()), backend);
        }
        if (module.bias()) {
          weights.bias(module, new float[module.out()], backend);
        }
      }
      weights.source(null, "", QuantOptions.DEFAULT);
      complete = true;
    } finally {
      if (!complete) {
        weights.close();
      }
    }
    GenerationDefaults defaults =
        new GenerationDefaults(null, null, null, null, null, null, config.eos(), List.of());
    return new Model(config, Path.of(name), null, defaults, modules, weights);
  }

  /**
   * An adapter on all linear modules of a model's layers, its factors random, in bf16.
   *
   * @return resident in {@code backend}; the caller closes it
   */
  public static Lora adapter(Model model, int rank, long seed, Backend backend) {
    try (Arena arena = Arena.ofConfined()) {
      return backend.lora(deltas(model, rank, seed, arena), model::matrix);
    }
  }

  /** What such an adapter consists of, by module. */
  public static Map<Integer, Delta> deltas(Model model, int rank, long seed, Arena arena) {
    Map<Integer, Delta> deltas = new HashMap<>();
    for (Module module : model.modules().all()) {
      if (module.kind() == Module.Kind.LINEAR) {
        SplittableRandom random = new SplittableRandom(seed(seed, module.id()));
        // B·A·x is about a tenth of x.
        float a = (float) (1 / Math.sqrt(module.in()));
        float b = (float) (0.1 / Math.sqrt(rank));
        deltas.put(
            module.id(),
            new Delta(
                new Delta.LowRank(
                    dense(rank, module.in(), a, random, arena),
                    dense(module.out(), rank, b, random, arena)),
                1,
                null,
                null,
                null,
                null));
      }
    }
    return deltas;
  }

  private static Matrix matrix(Module module, long seed, Backend backend) {
    try (Arena arena = Arena.ofConfined()) {
      if (module.quantized()) {
        return backend.matrix(RandomMatrix.of(module.out(), module.in(), seed, arena));
      }
      float deviation =
          module.kind() == Module.Kind.EMBEDDING ? 1 : (float) (1 / Math.sqrt(module.in()));
      SplittableRandom random = new SplittableRandom(seed);
      return backend.matrix(dense(module.out(), module.in(), deviation, random, arena));
    }
  }

  /** Bf16, evenly distributed around 0. */
  private static DenseMatrix dense(
      int rows, int cols, float deviation, SplittableRandom random, Arena arena) {
    long elements = Math.multiplyExact((long) rows, (long) cols);
    MemorySegment data = arena.allocate(2 * elements, 64);
    float scale = (float) (deviation * Math.sqrt(3) / -Short.MIN_VALUE);
    long bits = 0;
    for (long i = 0; i < elements; i++) {
      bits = i % 4 == 0 ? random.nextLong() : bits >>> 16;
      int value = Float.floatToRawIntBits((short) bits * scale);
      data.set(ValueLayout.JAVA_SHORT, 2 * i, (short) (value >>> 16));
    }
    return new DenseMatrix(DType.BF16, rows, cols, data);
  }

  /** A seed for each module. */
  private static long seed(long seed, int module) {
    return new SplittableRandom(seed + 0x9e3779b97f4a7c15L * module).nextLong();
  }
}
