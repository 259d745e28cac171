package dev.wardrobe.model;

import java.util.Locale;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * Rotary position embedding (arXiv 2104.09864) and its scalings: linear interpolation (arXiv
 * 2306.15595), Llama 3.1's, and YaRN (arXiv 2309.00071).
 *
 * <p>Frequencies and tables are float32, and are rounded where transformers' {@code
 * modeling_rope_utils} rounds them, so that long contexts turn by the same angles.
 *
 * @param theta the base of the frequencies
 * @param factor how much longer the context is made; 1 for {@link Kind#DEFAULT}
 * @param originalContext positions seen in pretraining; llama3 and yarn
 * @param lowFrequency llama3: wavelengths above {@code originalContext / lowFrequency} are scaled
 * @param highFrequency llama3: wavelengths below {@code originalContext / highFrequency} are kept
 * @param attentionFactor factor on cos and sin; other than 1 for yarn only
 * @param betaFast yarn: rotations over the original context above which a frequency is kept
 * @param betaSlow yarn: rotations below which it is scaled
 * @param truncate yarn: whether the bounds are rounded to whole dimensions
 */
public record Rope(
    Kind kind,
    double theta,
    double factor,
    int originalContext,
    double lowFrequency,
    double highFrequency,
    double attentionFactor,
    double betaFast,
    double betaSlow,
    boolean truncate) {

  /** How positions beyond the pretraining context are reached. */
  public enum Kind {
    DEFAULT,
    LINEAR,
    LLAMA3,
    YARN;

    /** As {@code rope_type} names it. */
    public String id() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private static final double MAX_THETA = 1e15;
  private static final double MAX_FACTOR = 1e6;

  /** Plain rotary embedding. */
  public static Rope unscaled(double theta) {
    return new Rope(Kind.DEFAULT, theta, 1, 0, 0, 0, 1, 0, 0, true);
  }

  /**
   * Reads {@code rope_parameters} (transformers 5) or {@code rope_theta} and {@code rope_scaling}
   * (transformers 4). Where both are given, {@code rope_scaling} holds, as it does to transformers.
   */
  static Rope read(Fields config, int context) throws ModelException {
    double theta = config.number("rope_theta", 1, MAX_THETA, 10000);
    Fields scaling = config.object("rope_scaling");
    Fields parameters = config.object("rope_parameters");
    Fields rope = scaling != null && !scaling.keys().isEmpty() ? scaling : parameters;
    if (rope == null || rope.keys().isEmpty()) {
      return unscaled(theta);
    }
    for (String key : rope.keys()) {
      if (rope.json().get(key).isObject()) {
        throw new ModelException(
            "%s: %s: rotary parameters per layer type are not supported; expected one set of them"
                .formatted(rope.where(), key));
      }
    }
    theta = rope.number("rope_theta", 1, MAX_THETA, theta);
    String type = rope.text("rope_type");
    if (type == null) {
      type = rope.text("type");
    }
    Kind kind = kind(rope, type);
    checkKeys(rope, kind);
    if (kind == Kind.DEFAULT) {
      return unscaled(theta);
    }
    int original = rope.integer("original_max_position_embeddings", 1, 1 << 30, context);
    original = config.integer("original_max_position_embeddings", 1, 1 << 30, original);
    if (kind == Kind.LINEAR) {
      double factor = rope.number("factor", 1e-6, MAX_FACTOR);
      return new Rope(kind, theta, factor, 0, 0, 0, 1, 0, 0, true);
    }
    if (kind == Kind.LLAMA3) {
      double factor = rope.number("factor", 1e-6, MAX_FACTOR);
      double low = rope.number("low_freq_factor", 1e-6, MAX_FACTOR);
      double high = rope.number("high_freq_factor", 1e-6, MAX_FACTOR);
      if (high <= low) {
        throw new ModelException(
            "%s: high_freq_factor %s must be greater than low_freq_factor %s"
                .formatted(rope.where(), high, low));
      }
      return new Rope(kind, theta, factor, original, low, high, 1, 0, 0, true);
    }
    return yarn(rope, theta, original, context);
  }

  private static Rope yarn(Fields rope, double theta, int original, int context)
      throws ModelException {
    if (theta <= 1) {
      throw new ModelException("%s: rope_theta must be above 1 for yarn".formatted(rope.where()));
    }
    double factor = rope.number("factor", 1e-6, MAX_FACTOR, (double) context / original);
    double mscale = rope.number("mscale", 0, MAX_FACTOR, 0);
    double mscaleAllDim = rope.number("mscale_all_dim", 0, MAX_FACTOR, 0);
    double inferred =
        mscale != 0 && mscaleAllDim != 0
            ? mscale(factor, mscale) / mscale(factor, mscaleAllDim)
            : mscale(factor, 1);
    double attentionFactor = rope.number("attention_factor", 0, MAX_FACTOR, inferred);
    double betaFast = rope.number("beta_fast", 0, MAX_FACTOR, 32);
    double betaSlow = rope.number("beta_slow", 0, MAX_FACTOR, 1);
    return new Rope(
        Kind.YARN,
        theta,
        factor,
        original,
        0,
        0,
        attentionFactor,
        betaFast == 0 ? 32 : betaFast,
        betaSlow == 0 ? 1 : betaSlow,
        rope.flag("truncate", true));
  }

  private static double mscale(double scale, double mscale) {
    return scale <= 1 ? 1.0 : 0.1 * mscale * StrictMath.log(scale) + 1.0;
  }

  private static Kind kind(Fields rope, @Nullable String type) throws ModelException {
    if (type == null) {
      return Kind.DEFAULT;
    }
    for (Kind kind : Kind.values()) {
      if (kind.id().equals(type)) {
        return kind;
      }
    }
    throw new ModelException(
        "%s: rope_type '%s' is not supported; supported are default, linear, llama3, yarn"
            .formatted(rope.where(), type));
  }

  /** Refuses keys that this kind would not use: what they ask for would not be done. */
  private static void checkKeys(Fields rope, Kind kind) throws ModelException {
    Set<String> known =
        new TreeSet<>(
            Set.of("rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned"));
    switch (kind) {
      case DEFAULT -> {}
      case LINEAR -> known.add("factor");
      case LLAMA3 ->
          known.addAll(
              Set.of(
                  "factor",
                  "low_freq_factor",
                  "high_freq_factor",
                  "original_max_position_embeddings"));
      case YARN ->
          known.addAll(
              Set.of(
                  "factor",
                  "original_max_position_embeddings",
                  "attention_factor",
                  "beta_fast",
                  "beta_slow",
                  "mscale",
                  "mscale_all_dim",
                  "truncate"));
    }
    for (String key : rope.keys()) {
      if (!known.contains(key) && rope.has(key)) {
        throw new ModelException(
            "%s: %s is not used by rope_type '%s'; remove it, or use one of %s"
                .formatted(rope.where(), key, kind.id(), known));
      }
    }
    if (rope.number("partial_rotary_factor", 0, 1, 1) != 1) {
      throw new ModelException(
          "%s: partial_rotary_factor %s is not supported; expected 1"
              .formatted(rope.where(), Fields.describe(rope.json().get("partial_rotary_factor"))));
    }
  }

  /**
   * Angle per position of each pair of dimensions, {@code (headDim / 2)}.
   *
   * @param headDim elements of a head, even
   */
  public float[] inverseFrequencies(int headDim) {
    float base = (float) theta;
    float[] power = new float[headDim / 2];
    float[] inverse = new float[headDim / 2];
    for (int i = 0; i < inverse.length; i++) {
      float exponent = (float) (2 * i) / headDim;
      power[i] = (float) StrictMath.pow(base, exponent);
      inverse[i] = 1f / power[i];
    }
    switch (kind) {
      case DEFAULT -> {}
      case LINEAR -> {
        for (int i = 0; i < inverse.length; i++) {
          inverse[i] /= (float) factor;
        }
      }
      case LLAMA3 -> {
        for (int i = 0; i < inverse.length; i++) {
          inverse[i] = llama3(inverse[i]);
        }
      }
      case YARN -> yarn(power, inverse, headDim);
    }
    return inverse;
  }

  private float llama3(float frequency) {
    // torch computes number / tensor as number · reciprocal: two roundings.
    float wavelength = 1f / frequency * (float) (2 * Math.PI);
    float longest = (float) (originalContext / lowFrequency);
    float shortest = (float) (originalContext / highFrequency);
    float scaled = wavelength > longest ? frequency / (float) factor : frequency;
    if (wavelength < shortest || wavelength > longest) {
      return scaled;
    }
    float smooth =
        (1f / wavelength * originalContext - (float) lowFrequency)
            / (float) (highFrequency - lowFrequency);
    return (1f - smooth) * scaled / (float) factor + smooth * scaled;
  }

  private void yarn(float[] power, float[] inverse, int headDim) {
    double low = correctionDimension(betaFast, headDim);
    double high = correctionDimension(betaSlow, headDim);
    if (truncate) {
      low = Math.floor(low);
      high = Math.ceil(high);
    }
    low = Math.max(low, 0);
    high = Math.min(high, headDim - 1);
    if (low == high) {
      high += 0.001;
    }
    for (int i = 0; i < inverse.length; i++) {
      float ramp = ((float) i - (float) low) / (float) (high - low);
      float keep = 1f - Math.clamp(ramp, 0f, 1f);
      float interpolated = 1f / ((float) factor * power[i]);
      inverse[i] = interpolated * (1f - keep) + inverse[i] * keep;
    }
  }

  /** The dimension that turns {@code rotations} times over the original context. */
  private double correctionDimension(double rotations, int headDim) {
    return headDim
        * StrictMath.log(originalContext / (rotations * 2 * Math.PI))
        / (2 * StrictMath.log(theta));
  }

  /**
   * Writes cosines and sines of one position, {@code (headDim / 2)} each.
   *
   * @param inverse from {@link #inverseFrequencies}
   * @param at first index to write
   */
  public void rotation(float[] inverse, int position, float[] cos, float[] sin, int at) {
    float scale = (float) attentionFactor;
    for (int i = 0; i < inverse.length; i++) {
      float angle = (float) position * inverse[i];
      cos[at + i] = (float) StrictMath.cos(angle) * scale;
      sin[at + i] = (float) StrictMath.sin(angle) * scale;
    }
  }
}
