package dev.wardrobe.trainer.backward;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SequencedMap;

/**
 * What an adapter is to be, in PEFT's terms.
 *
 * @param rank r of modules that no pattern names
 * @param alpha of modules that no pattern names; they are scaled by alpha / r, or alpha / √r
 * @param dropout on the adapter's branch while training, in [0, 1)
 * @param rsLora whether the scale is alpha / √r
 * @param dora whether magnitudes are trained beside the directions
 * @param rankPattern rank by pattern, as PEFT matches it; first match wins
 * @param alphaPattern alpha by pattern
 * @param targets {@code target_modules} as JSON: an array of names or endings of names, or a text,
 *     {@link #ALL_LINEAR} or an expression that matches full paths
 * @param further other fields of PEFT's configuration that choose modules, as JSON: {@code
 *     exclude_modules}, {@code layers_to_transform}, {@code layers_pattern}
 * @param init how A and B begin
 */
public record LoraOptions(
    int rank,
    double alpha,
    double dropout,
    boolean rsLora,
    boolean dora,
    SequencedMap<String, Integer> rankPattern,
    SequencedMap<String, Double> alphaPattern,
    JsonNode targets,
    Map<String, JsonNode> further,
    Init init) {

  /** Every projection of the layers. */
  public static final String ALL_LINEAR = "all-linear";

  /** How A and B begin; PEFT's {@code init_lora_weights}. */
  public enum Init {
    /** A uniform in ±1/√in, B zero. */
    DEFAULT,
    /** A normal with deviation 1/r, B zero. */
    GAUSSIAN,
    /** A and B both uniform, in ±1/√in and ±1/√r: the adapter changes the base at once. */
    RANDOM
  }

  /**
   * @throws IllegalArgumentException naming what is out of its range
   */
  public LoraOptions {
    if (rank < 1) {
      throw new IllegalArgumentException("rank: expected at least 1, got " + rank);
    }
    if (!(alpha > 0 && Double.isFinite(alpha))) {
      throw new IllegalArgumentException("alpha: expected a positive number, got " + alpha);
    }
    if (!(dropout >= 0 && dropout < 1)) {
      throw new IllegalArgumentException(
          "dropout: expected at least 0 and below 1, got " + dropout);
    }
    if (!targets.isTextual() && (!targets.isArray() || targets.isEmpty())) {
      throw new IllegalArgumentException(
          "target modules: expected at least one name, or %s, got %s"
              .formatted(ALL_LINEAR, targets));
    }
    further = Map.copyOf(further);
  }

  /** All projections, no dropout. */
  public static LoraOptions of(int rank, double alpha) {
    return new LoraOptions(
        rank,
        alpha,
        0,
        false,
        false,
        new LinkedHashMap<>(),
        new LinkedHashMap<>(),
        TextNode.valueOf(ALL_LINEAR),
        Map.of(),
        Init.DEFAULT);
  }

  /**
   * The {@code adapter_config.json} that asks for this, as far as it decides what the adapter does.
   */
  public ObjectNode config() {
    ObjectNode config = JsonNodeFactory.instance.objectNode();
    config.put("peft_type", "LORA");
    config.put("task_type", "CAUSAL_LM");
    config.put("bias", "none");
    config.put("r", rank);
    if (alpha == Math.rint(alpha) && alpha < Integer.MAX_VALUE) {
      config.put("lora_alpha", (int) alpha);
    } else {
      config.put("lora_alpha", alpha);
    }
    config.put("lora_dropout", dropout);
    config.put("use_rslora", rsLora);
    config.put("use_dora", dora);
    ObjectNode ranks = config.putObject("rank_pattern");
    rankPattern.forEach(ranks::put);
    ObjectNode alphas = config.putObject("alpha_pattern");
    alphaPattern.forEach(alphas::put);
    config.set("target_modules", targets);
    switch (init) {
      case DEFAULT -> config.put("init_lora_weights", true);
      case GAUSSIAN -> config.put("init_lora_weights", "gaussian");
      case RANDOM -> config.put("init_lora_weights", false);
    }
    config.setAll(further);
    return config;
  }
}
