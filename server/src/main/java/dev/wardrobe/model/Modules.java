package dev.wardrobe.model;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/** The modules of a model, in the order of its computation; their numbers are places in it. */
public final class Modules {

  /** The modules of one decoder layer; q_norm and k_norm are null where the family has none. */
  public record Layer(
      Module inputNorm,
      Module q,
      Module k,
      Module v,
      @Nullable Module qNorm,
      @Nullable Module kNorm,
      Module o,
      Module postAttentionNorm,
      Module gate,
      Module up,
      Module down) {}

  private final List<Module> all = new ArrayList<>();
  private final Map<String, Module> byPath = new HashMap<>();
  private final List<Layer> layers = new ArrayList<>();
  private final Module embedding;
  private final Module norm;
  private final Module head;
  private final boolean headCopied;

  /** The modules that {@code config} describes, for their names and shapes: none is at 4 bits. */
  public static Modules of(ModelConfig config) {
    return new Modules(config, _ -> false);
  }

  /**
   * The modules that {@code config} describes.
   *
   * @param quantized by path, whether a linear module or an untied head is held at 4 bits
   */
  Modules(ModelConfig config, Predicate<String> quantized) {
    this(config, quantized, false);
  }

  /**
   * The modules that {@code config} describes.
   *
   * @param quantized by path, whether a linear module or an untied head is held at 4 bits
   * @param quantizeHead whether the head is in any case, tied or not
   */
  Modules(ModelConfig config, Predicate<String> quantized, boolean quantizeHead) {
    int hidden = config.hidden();
    int queries = config.heads() * config.headDim();
    int keys = config.kvHeads() * config.headDim();
    embedding =
        add("model.embed_tokens", Module.Kind.EMBEDDING, config.vocabulary(), hidden, false, false);
    for (int i = 0; i < config.layers(); i++) {
      String layer = "model.layers." + i + ".";
      String attention = layer + "self_attn.";
      String mlp = layer + "mlp.";
      boolean qkv = config.qkvBias();
      boolean qk = config.qkNorm();
      layers.add(
          new Layer(
              norm(layer + "input_layernorm", hidden),
              linear(attention + "q_proj", queries, hidden, qkv, quantized),
              linear(attention + "k_proj", keys, hidden, qkv, quantized),
              linear(attention + "v_proj", keys, hidden, qkv, quantized),
              qk ? norm(attention + "q_norm", config.headDim()) : null,
              qk ? norm(attention + "k_norm", config.headDim()) : null,
              linear(attention + "o_proj", hidden, queries, config.oBias(), quantized),
              norm(layer + "post_attention_layernorm", hidden),
              linear(mlp + "gate_proj", config.ffn(), hidden, config.mlpBias(), quantized),
              linear(mlp + "up_proj", config.ffn(), hidden, config.mlpBias(), quantized),
              linear(mlp + "down_proj", hidden, config.ffn(), config.mlpBias(), quantized)));
    }
    norm = norm("model.norm", hidden);
    boolean headQuantized = quantizeHead || (!config.tied() && quantized.test("lm_head"));
    headCopied = config.tied() && headQuantized;
    head = add("lm_head", Module.Kind.HEAD, config.vocabulary(), hidden, headQuantized, false);
  }

  private Module norm(String path, int width) {
    return add(path, Module.Kind.NORM, width, width, false, false);
  }

  private Module linear(String path, int out, int in, boolean bias, Predicate<String> quantized) {
    return add(path, Module.Kind.LINEAR, out, in, quantized.test(path), bias);
  }

  private Module add(
      String path, Module.Kind kind, int out, int in, boolean quantized, boolean bias) {
    Module module = new Module(all.size(), path, kind, out, in, quantized, bias);
    all.add(module);
    byPath.put(path, module);
    return module;
  }

  /** All modules; a module's place is its number. */
  public List<Module> all() {
    return Collections.unmodifiableList(all);
  }

  /** The module at a path such as {@code model.layers.0.mlp.up_proj}, or null. */
  public @Nullable Module find(String path) {
    return byPath.get(path);
  }

  public Module get(int id) {
    return all.get(id);
  }

  public Module embedding() {
    return embedding;
  }

  /** The norm before the head. */
  public Module norm() {
    return norm;
  }

  public Module head() {
    return head;
  }

  /** Whether a tied head has a 4-bit copy of the embedding as its own. */
  boolean headCopied() {
    return headCopied;
  }

  /** The modules of a layer. */
  public Layer layer(int layer) {
    return layers.get(layer);
  }
}
