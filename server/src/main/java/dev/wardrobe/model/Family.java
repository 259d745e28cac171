package dev.wardrobe.model;

import java.util.List;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * A family of models: the names it goes by, and the difference it makes to the common decoder.
 *
 * <p>Defaults are those that transformers' configuration class gives a key that {@code config.json}
 * leaves out.
 *
 * @param id {@code model_type}
 * @param architecture the one supported class name in the configuration
 * @param qkvBias q, k and v always have a bias (Qwen2)
 * @param biasKeys {@code attention_bias} gives q, k, v and o a bias
 * @param mlpBiasKey {@code mlp_bias} gives gate, up and down a bias
 * @param qkNorm each query and key head is normalized before it is rotated (Qwen3)
 * @param sliding which layers see a window only
 * @param kvHeads default of {@code num_key_value_heads}; 0 is as many as query heads
 * @param headDim default of {@code head_dim}; 0 is hidden size / heads
 * @param context default of {@code max_position_embeddings}
 * @param window default of {@code sliding_window}; 0 is none
 * @param bos default of {@code bos_token_id}
 * @param eos default of {@code eos_token_id}
 */
record Family(
    String id,
    String architecture,
    boolean qkvBias,
    boolean biasKeys,
    boolean mlpBiasKey,
    boolean qkNorm,
    Sliding sliding,
    int kvHeads,
    int headDim,
    int context,
    int window,
    @Nullable Integer bos,
    @Nullable Integer eos) {

  enum Sliding {
    /** No layer; a configuration that asks for a window is refused. */
    NONE,
    /** Every layer, whenever {@code sliding_window} is set (Mistral). */
    EVERY_LAYER,
    /**
     * Those that {@code use_sliding_window}, {@code max_window_layers}, {@code layer_types} say.
     */
    CHOSEN_LAYERS
  }

  static final List<Family> ALL =
      List.of(
          new Family(
              "llama",
              "LlamaForCausalLM",
              false,
              true,
              true,
              false,
              Sliding.NONE,
              0,
              0,
              2048,
              0,
              1,
              2),
          new Family(
              "mistral",
              "MistralForCausalLM",
              false,
              false,
              false,
              false,
              Sliding.EVERY_LAYER,
              8,
              0,
              131072,
              4096,
              1,
              2),
          new Family(
              "qwen2",
              "Qwen2ForCausalLM",
              true,
              false,
              false,
              false,
              Sliding.CHOSEN_LAYERS,
              32,
              0,
              32768,
              4096,
              null,
              null),
          new Family(
              "qwen3",
              "Qwen3ForCausalLM",
              false,
              true,
              false,
              true,
              Sliding.CHOSEN_LAYERS,
              32,
              128,
              32768,
              4096,
              null,
              null));

  static @Nullable Family find(String id) {
    return ALL.stream().filter(f -> f.id.equals(id)).findFirst().orElse(null);
  }

  /** What is supported, for error messages: {@code llama (LlamaForCausalLM), …}. */
  static String supported() {
    return ALL.stream()
        .map(f -> f.id + " (" + f.architecture + ")")
        .collect(Collectors.joining(", "));
  }
}
