package dev.wardrobe.model;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.safetensors.DType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * A decoder's shape and constants, as {@code config.json} gives them, checked.
 *
 * @param family {@code model_type}: llama, mistral, qwen2 or qwen3
 * @param layers decoder layers
 * @param hidden width of the residual stream
 * @param heads query heads
 * @param kvHeads key and value heads; divides {@code heads}
 * @param headDim elements of a head, even
 * @param ffn width of the gated feed-forward layer
 * @param vocabulary rows of the embedding and of the head
 * @param epsilon added under every norm's root
 * @param windows per layer the tokens that a query sees, its own included; 0 for all
 * @param tied the head is the embedding
 * @param qkvBias q, k and v have a bias
 * @param oBias o has a bias
 * @param mlpBias gate, up and down have a bias
 * @param qkNorm query and key heads are normalized
 * @param contextLength positions the model was made for, scaling included
 * @param bos first token of a sequence, if any
 * @param eos tokens that end a sequence
 * @param dtype the floating-point type the model was saved in, if it says so
 * @param quantization how the checkpoint is quantized, or null
 */
public record ModelConfig(
    String family,
    int layers,
    int hidden,
    int heads,
    int kvHeads,
    int headDim,
    int ffn,
    int vocabulary,
    float epsilon,
    Rope rope,
    List<Integer> windows,
    boolean tied,
    boolean qkvBias,
    boolean oBias,
    boolean mlpBias,
    boolean qkNorm,
    int contextLength,
    @Nullable Integer bos,
    List<Integer> eos,
    @Nullable DType dtype,
    @Nullable QuantizationConfig quantization) {

  static final String FILE = "config.json";

  private static final int MAX_LAYERS = 4096;
  private static final int MAX_HEADS = 1 << 16;
  private static final int MAX_WIDTH = 1 << 22;
  private static final int MAX_VOCABULARY = 1 << 26;
  private static final int MAX_CONTEXT = 1 << 30;

  public ModelConfig {
    windows = List.copyOf(windows);
    eos = List.copyOf(eos);
  }

  /**
   * Reads {@code config.json}, in transformers 4's or 5's form.
   *
   * @throws ModelException if the model is not supported, or the file is not what it should be
   */
  public static ModelConfig read(Path dir) throws ModelException, IOException {
    return of(file(dir));
  }

  /** The fields of {@code config.json}. */
  static Fields file(Path dir) throws ModelException, IOException {
    Path file = dir.resolve(FILE);
    if (!Files.isDirectory(dir)) {
      throw new ModelException(
          "%s: expected a model directory with %s, got %s"
              .formatted(dir, FILE, Files.exists(dir) ? "a file" : "nothing"));
    }
    if (!Files.isRegularFile(file)) {
      throw new ModelException("%s: no %s; expected a Hugging Face model".formatted(dir, FILE));
    }
    return Fields.read(file);
  }

  static ModelConfig of(Fields config) throws ModelException {
    Family family = family(config);
    refuseUnsupported(config);

    int layers = config.integer("num_hidden_layers", 1, MAX_LAYERS);
    int hidden = config.integer("hidden_size", 1, MAX_WIDTH);
    int heads = config.integer("num_attention_heads", 1, MAX_HEADS);
    int kvHeads =
        config.integer(
            "num_key_value_heads", 1, MAX_HEADS, family.kvHeads() == 0 ? heads : family.kvHeads());
    if (heads % kvHeads != 0) {
      throw new ModelException(
          "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d"
              .formatted(config.where(), heads, kvHeads));
    }
    int headDim = headDim(config, family, hidden, heads);
    if ((long) heads * headDim > MAX_WIDTH) {
      throw new ModelException(
          "%s: num_attention_heads %d times head_dim %d exceeds %d"
              .formatted(config.where(), heads, headDim, MAX_WIDTH));
    }
    int context = config.integer("max_position_embeddings", 1, MAX_CONTEXT, family.context());
    boolean attentionBias = family.biasKeys() && config.flag("attention_bias", false);

    return new ModelConfig(
        family.id(),
        layers,
        hidden,
        heads,
        kvHeads,
        headDim,
        config.integer("intermediate_size", 1, MAX_WIDTH),
        config.integer("vocab_size", 1, MAX_VOCABULARY),
        (float) config.number("rms_norm_eps", 0, 1, 1e-6),
        Rope.read(config, context),
        windows(config, family, layers),
        config.flag("tie_word_embeddings", false),
        family.qkvBias() || attentionBias,
        attentionBias,
        family.mlpBiasKey() && config.flag("mlp_bias", false),
        family.qkNorm(),
        context,
        bos(config, family),
        eos(config, family),
        dtype(config),
        QuantizationConfig.read(config));
  }

  private static Family family(Fields config) throws ModelException {
    String type = config.text("model_type");
    if (type == null) {
      throw new ModelException(
          "%s: model_type is missing; supported are %s"
              .formatted(config.where(), Family.supported()));
    }
    Family family = Family.find(type);
    if (family == null) {
      throw new ModelException(
          "%s: model_type '%s' is not supported; supported are %s"
              .formatted(config.where(), type, Family.supported()));
    }
    List<String> architectures = config.texts("architectures");
    if (architectures != null && !architectures.equals(List.of(family.architecture()))) {
      throw new ModelException(
          "%s: architectures %s is not supported; supported are %s"
              .formatted(config.where(), architectures, Family.supported()));
    }
    return family;
  }

  private static int headDim(Fields config, Family family, int hidden, int heads)
      throws ModelException {
    int headDim = config.integer("head_dim", 1, MAX_WIDTH, family.headDim());
    if (headDim == 0) {
      if (hidden % heads != 0) {
        throw new ModelException(
            "%s: hidden_size %d is not a multiple of num_attention_heads %d, and no head_dim is"
                    .formatted(config.where(), hidden, heads)
                + " given");
      }
      headDim = hidden / heads;
    }
    if (headDim % 2 != 0) {
      throw new ModelException(
          "%s: a head of %d elements cannot be rotated; expected an even head_dim"
              .formatted(config.where(), headDim));
    }
    return headDim;
  }

  private static List<Integer> windows(Fields config, Family family, int layers)
      throws ModelException {
    List<String> types = config.texts("layer_types");
    if (types != null) {
      checkLayerTypes(config, types, layers);
    }
    boolean asked =
        family.sliding() != Family.Sliding.CHOSEN_LAYERS
            || config.flag("use_sliding_window", false);
    int absent = config.json().has("sliding_window") ? 0 : family.window();
    int window = asked ? config.integer("sliding_window", 1, MAX_CONTEXT, absent) : 0;
    List<Integer> windows =
        switch (family.sliding()) {
          case NONE -> {
            if (window != 0) {
              throw new ModelException(
                  "%s: sliding_window %d is not supported for model_type '%s'; expected null"
                      .formatted(config.where(), window, family.id()));
            }
            yield Collections.nCopies(layers, 0);
          }
          case EVERY_LAYER -> Collections.nCopies(layers, window);
          case CHOSEN_LAYERS -> chosen(config, types, layers, window);
        };
    if (types != null) {
      for (int i = 0; i < layers; i++) {
        boolean sliding = types.get(i).equals("sliding_attention");
        if (sliding != windows.get(i) > 0) {
          throw new ModelException(
              "%s: layer_types[%d] is '%s', but sliding_window gives that layer %s"
                  .formatted(
                      config.where(),
                      i,
                      types.get(i),
                      windows.get(i) > 0 ? "a window of " + windows.get(i) : "no window"));
        }
      }
    }
    return windows;
  }

  private static List<Integer> chosen(
      Fields config, @Nullable List<String> types, int layers, int window) throws ModelException {
    int full = config.integer("max_window_layers", 0, Integer.MAX_VALUE, 28);
    List<Integer> windows = new ArrayList<>();
    for (int i = 0; i < layers; i++) {
      boolean sliding = types == null ? i >= full : types.get(i).equals("sliding_attention");
      windows.add(sliding ? window : 0);
    }
    return windows;
  }

  private static void checkLayerTypes(Fields config, List<String> types, int layers)
      throws ModelException {
    if (types.size() != layers) {
      throw new ModelException(
          "%s: layer_types has %d entries, but num_hidden_layers is %d"
              .formatted(config.where(), types.size(), layers));
    }
    for (String type : types) {
      if (!type.equals("full_attention") && !type.equals("sliding_attention")) {
        throw new ModelException(
            "%s: layer_types: '%s' is not supported; supported are full_attention,"
                    .formatted(config.where(), type)
                + " sliding_attention");
      }
    }
  }

  private static @Nullable Integer bos(Fields config, Family family) throws ModelException {
    if (!config.json().has("bos_token_id")) {
      return family.bos();
    }
    List<Integer> ids = config.tokens("bos_token_id");
    return ids == null || ids.isEmpty() ? null : ids.getFirst();
  }

  private static List<Integer> eos(Fields config, Family family) throws ModelException {
    if (!config.json().has("eos_token_id")) {
      return family.eos() == null ? List.of() : List.of(family.eos());
    }
    List<Integer> ids = config.tokens("eos_token_id");
    return ids == null ? List.of() : ids;
  }

  private static @Nullable DType dtype(Fields config) throws ModelException {
    String name = config.text("dtype");
    if (name == null) {
      name = config.text("torch_dtype");
    }
    if (name == null) {
      return null;
    }
    return switch (name.startsWith("torch.") ? name.substring("torch.".length()) : name) {
      case "float32" -> DType.F32;
      case "float16" -> DType.F16;
      case "bfloat16" -> DType.BF16;
      default ->
          throw new ModelException(
              "%s: dtype '%s' is not supported; supported are float32, float16, bfloat16"
                  .formatted(config.where(), name));
    };
  }

  /**
   * Keys of related architectures that would change the computation. Present with any other value
   * than these, they are refused; the rest of a configuration's unknown keys are read by no model
   * of the supported families.
   */
  private static final Map<String, Set<String>> ONLY =
      Map.ofEntries(
          Map.entry("hidden_act", Set.of("\"silu\"", "\"swish\"")),
          Map.entry("hidden_activation", Set.of("\"silu\"", "\"swish\"")),
          Map.entry("pretraining_tp", Set.of("0", "1")),
          Map.entry("partial_rotary_factor", Set.of("1", "1.0")),
          Map.entry("rotary_pct", Set.of("1", "1.0")),
          Map.entry("rope_interleaved", Set.of("false")),
          Map.entry("is_encoder_decoder", Set.of("false")),
          Map.entry("add_cross_attention", Set.of("false")),
          Map.entry("is_causal", Set.of("true")),
          Map.entry("use_bidirectional_attention", Set.of("false")),
          Map.entry("pruned_heads", Set.of("{}")),
          Map.entry("num_experts", Set.of("0", "1")),
          Map.entry("num_local_experts", Set.of("0", "1")),
          Map.entry("n_routed_experts", Set.of("0")),
          Map.entry("n_shared_experts", Set.of("0")),
          Map.entry("moe_intermediate_size", Set.of("0")),
          Map.entry("use_mrope", Set.of("false")),
          Map.entry("use_qk_norm", Set.of("false")),
          Map.entry("qk_layernorm", Set.of("false")),
          Map.entry("qk_norm", Set.of("false")),
          Map.entry("clip_qkv", Set.of()),
          Map.entry("attn_logit_softcapping", Set.of()),
          Map.entry("final_logit_softcapping", Set.of()),
          Map.entry("logit_scale", Set.of("1", "1.0")),
          Map.entry("logits_scaling", Set.of("1", "1.0")),
          Map.entry("embedding_multiplier", Set.of("1", "1.0")),
          Map.entry("residual_multiplier", Set.of("1", "1.0")),
          Map.entry("attention_multiplier", Set.of()),
          Map.entry("query_pre_attn_scalar", Set.of()),
          Map.entry("scale_emb", Set.of("1", "1.0")),
          Map.entry("scale_depth", Set.of()),
          Map.entry("no_rope_layers", Set.of("[]")),
          Map.entry("no_rope_layer_interval", Set.of("0")),
          Map.entry("attention_chunk_size", Set.of()),
          Map.entry("attn_temperature_tuning", Set.of("false", "0")),
          Map.entry("llama_4_scaling_beta", Set.of()),
          Map.entry("kv_lora_rank", Set.of()),
          Map.entry("q_lora_rank", Set.of()),
          Map.entry("vision_config", Set.of("{}")),
          Map.entry("text_config", Set.of("{}")));

  private static void refuseUnsupported(Fields config) throws ModelException {
    for (var only : new TreeMap<>(ONLY).entrySet()) {
      JsonNode value = config.get(only.getKey());
      if (value != null && !only.getValue().contains(value.toString())) {
        throw new ModelException(
            "%s: %s %s is not supported; expected %s"
                .formatted(
                    config.where(),
                    only.getKey(),
                    Fields.describe(value),
                    only.getValue().isEmpty()
                        ? "null"
                        : only.getValue().stream().sorted().collect(Collectors.joining(" or "))));
      }
    }
    Fields code = config.object("auto_map");
    if (code != null && code.has("AutoModelForCausalLM")) {
      throw new ModelException(
          "%s: auto_map asks for the model's own code (%s), which is never run; supported are %s"
              .formatted(
                  config.where(),
                  Fields.describe(code.json().get("AutoModelForCausalLM")),
                  Family.supported()));
    }
  }
}
