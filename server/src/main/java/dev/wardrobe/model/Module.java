package dev.wardrobe.model;

/**
 * A part of a model that has weights, and that adapters may change.
 *
 * <p>An embedding has {@code out = vocabulary} and {@code in = hidden}; a norm {@code out = in =
 * width}, which for q_norm and k_norm is a head's size.
 *
 * @param id its number, dense from 0 and the same for every model of one configuration
 * @param path as Hugging Face names it: {@code model.layers.3.self_attn.q_proj}, {@code lm_head}
 * @param out rows of the weight
 * @param in columns of the weight
 * @param quantized whether its weight is held at 4 bits
 * @param bias whether it has a bias, {@code (out)}
 */
public record Module(
    int id, String path, Kind kind, int out, int in, boolean quantized, boolean bias) {

  /** What a module computes. */
  public enum Kind {
    EMBEDDING,
    LINEAR,
    NORM,
    HEAD
  }

  /** The tensor that holds its weight in a checkpoint. */
  String weight() {
    return path + ".weight";
  }

  /** The tensor that holds its bias in a checkpoint. */
  String biasName() {
    return path + ".bias";
  }

  long parameters() {
    return kind == Kind.NORM ? out : (long) out * in + (bias ? out : 0);
  }
}
