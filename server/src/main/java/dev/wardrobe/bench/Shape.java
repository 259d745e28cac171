package dev.wardrobe.bench;

import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Rope;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** A model's shape to measure without a checkpoint. */
public enum Shape {
  /** No real model's: small enough for a look at whether everything runs. */
  TINY("tiny", 2, 128, 4, 2, 352, 512, 10000, 4096, false),
  /** TinyLlama-1.1B. */
  TINYLLAMA("tinyllama", 22, 2048, 32, 4, 5632, 32000, 10000, 2048, false),
  /** SmolLM2-135M. */
  SMOLLM2("smollm2", 30, 576, 9, 3, 1536, 49152, 100000, 8192, true),
  /** The first two layers of Llama-3-8B, its embedding and its head. */
  LLAMA3_8B_2LAYERS("llama3-8b-2layers", 2, 4096, 32, 8, 14336, 128256, 500000, 8192, false),
  /** Llama-3-8B. */
  LLAMA3_8B("llama3-8b", 32, 4096, 32, 8, 14336, 128256, 500000, 8192, false),
  /** LLaMA-65B, the largest model of the QLoRA paper (arXiv 2305.14314). */
  LLAMA_65B("llama-65b", 80, 8192, 64, 64, 22016, 32000, 10000, 2048, false);

  private final String id;

  // Nothing in it can be changed.
  @SuppressWarnings("ImmutableEnumChecker")
  private final ModelConfig config;

  Shape(
      String id,
      int layers,
      int hidden,
      int heads,
      int kvHeads,
      int ffn,
      int vocabulary,
      double theta,
      int context,
      boolean tied) {
    this.id = id;
    config =
        new ModelConfig(
            "llama",
            layers,
            hidden,
            heads,
            kvHeads,
            hidden / heads,
            ffn,
            vocabulary,
            1e-5f,
            Rope.unscaled(theta),
            Collections.nCopies(layers, 0),
            tied,
            false,
            false,
            false,
            false,
            context,
            null,
            List.of(),
            null,
            null);
  }

  /** As the command line names it. */
  public String id() {
    return id;
  }

  public ModelConfig config() {
    return config;
  }

  /** The shape of that name, or null. */
  public static @Nullable Shape find(String id) {
    return Arrays.stream(values()).filter(s -> s.id.equals(id)).findFirst().orElse(null);
  }

  /** All names, for a message. */
  public static String known() {
    return Arrays.stream(values()).map(Shape::id).collect(Collectors.joining(", "));
  }
}
