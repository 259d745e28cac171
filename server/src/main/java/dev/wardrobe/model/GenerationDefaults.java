package dev.wardrobe.model;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * How a model's makers want it sampled: {@code generation_config.json}. Null is "not said".
 *
 * @param temperature 0 is greedy; it is 0 where {@code do_sample} is false
 * @param topK 0 is off
 * @param topP 1 is off
 * @param minP 0 is off
 * @param repetitionPenalty 1 is off
 * @param doSample as written
 * @param eos tokens that end a sequence; those of {@code config.json} where none are given
 * @param ignored settings that the file asks for and that are not applied, for a log line
 */
public record GenerationDefaults(
    @Nullable Float temperature,
    @Nullable Integer topK,
    @Nullable Float topP,
    @Nullable Float minP,
    @Nullable Float repetitionPenalty,
    @Nullable Boolean doSample,
    List<Integer> eos,
    List<String> ignored) {

  static final String FILE = "generation_config.json";

  /** Settings that change which tokens are drawn, with the values that leave them off. */
  private static final TreeMap<String, List<String>> UNSUPPORTED = new TreeMap<>();

  static {
    UNSUPPORTED.put("typical_p", List.of("1", "1.0"));
    UNSUPPORTED.put("epsilon_cutoff", List.of("0", "0.0"));
    UNSUPPORTED.put("eta_cutoff", List.of("0", "0.0"));
    UNSUPPORTED.put("top_h", List.of());
    UNSUPPORTED.put("num_beams", List.of("1"));
    UNSUPPORTED.put("penalty_alpha", List.of("0", "0.0"));
    UNSUPPORTED.put("no_repeat_ngram_size", List.of("0"));
    UNSUPPORTED.put("bad_words_ids", List.of("[]"));
    UNSUPPORTED.put("suppress_tokens", List.of("[]"));
    UNSUPPORTED.put("begin_suppress_tokens", List.of("[]"));
    UNSUPPORTED.put("forced_bos_token_id", List.of());
    UNSUPPORTED.put("forced_eos_token_id", List.of());
    UNSUPPORTED.put("sequence_bias", List.of());
    UNSUPPORTED.put("guidance_scale", List.of("1", "1.0"));
    UNSUPPORTED.put("exponential_decay_length_penalty", List.of());
    UNSUPPORTED.put("encoder_repetition_penalty", List.of("1", "1.0"));
    UNSUPPORTED.put("min_length", List.of("0"));
    UNSUPPORTED.put("min_new_tokens", List.of("0"));
    UNSUPPORTED.put("stop_strings", List.of("[]"));
    UNSUPPORTED.put("watermarking_config", List.of());
  }

  public GenerationDefaults {
    eos = List.copyOf(eos);
    ignored = List.copyOf(ignored);
  }

  /** Reads {@code generation_config.json}; a directory without one says nothing. */
  public static GenerationDefaults read(Path dir, ModelConfig config)
      throws ModelException, IOException {
    Path file = dir.resolve(FILE);
    if (!Files.exists(file)) {
      return new GenerationDefaults(null, null, null, null, null, null, config.eos(), List.of());
    }
    return of(Fields.read(file), config);
  }

  static GenerationDefaults of(Fields fields, ModelConfig config) throws ModelException {
    Boolean doSample = fields.has("do_sample") ? fields.flag("do_sample", false) : null;
    Float temperature = number(fields, "temperature", 0, 1e6);
    if (doSample != null && !doSample) {
      temperature = 0f;
    }
    List<Integer> eos = fields.tokens("eos_token_id");
    List<String> ignored = new ArrayList<>();
    UNSUPPORTED.forEach(
        (key, off) -> {
          var value = fields.get(key);
          if (value != null && !off.contains(value.toString())) {
            ignored.add(key + " " + Fields.describe(value));
          }
        });
    return new GenerationDefaults(
        temperature,
        fields.has("top_k") ? fields.integer("top_k", 0, Integer.MAX_VALUE) : null,
        number(fields, "top_p", 0, 1),
        number(fields, "min_p", 0, 1),
        number(fields, "repetition_penalty", 1e-6, 1e6),
        doSample,
        eos == null ? config.eos() : eos,
        ignored);
  }

  private static @Nullable Float number(Fields fields, String key, double min, double max)
      throws ModelException {
    return fields.has(key) ? (float) fields.number(key, min, max) : null;
  }
}
