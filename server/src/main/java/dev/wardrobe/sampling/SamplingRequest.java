package dev.wardrobe.sampling;

import dev.wardrobe.model.GenerationDefaults;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import org.jspecify.annotations.Nullable;

/** What a request says about choosing tokens; null is unset. */
public record SamplingRequest(
    @Nullable Float temperature,
    @Nullable Integer topK,
    @Nullable Float topP,
    @Nullable Float minP,
    @Nullable Float repetition,
    @Nullable Float presence,
    @Nullable Float frequency,
    @Nullable Long seed,
    Map<Integer, Float> logitBias,
    @Nullable Integer minTokens) {

  /** A drawn seed's range: numbers that every JSON reader keeps. */
  private static final long SEEDS = 1L << 53;

  /**
   * Settles what is unset: by the model's {@code generation_config.json}, else temperature 1 and
   * everything off. A model whose {@code do_sample} is false is greedy unless the request gives a
   * temperature. An unset seed is drawn.
   *
   * @throws SamplingException if a value, the request's or the model's, is out of its range
   */
  public SamplingParams resolve(GenerationDefaults defaults) {
    boolean greedy = temperature == null && Boolean.FALSE.equals(defaults.doSample());
    try {
      return new SamplingParams(
          greedy ? 0 : first(temperature, defaults.temperature(), 1f),
          first(topK, defaults.topK(), 0),
          first(topP, defaults.topP(), 1f),
          first(minP, defaults.minP(), 0f),
          first(repetition, defaults.repetitionPenalty(), 1f),
          first(presence, null, 0f),
          first(frequency, null, 0f),
          seed != null ? seed : ThreadLocalRandom.current().nextLong(SEEDS),
          logitBias,
          first(minTokens, null, 0));
    } catch (SamplingException e) {
      if (given(e.parameter())) {
        throw e;
      }
      throw new SamplingException(
          e.parameter(),
          e.getMessage()
              + " in the model's generation_config.json; give %s in the request, or correct the file"
                  .formatted(e.parameter()));
    }
  }

  private boolean given(String parameter) {
    return switch (parameter) {
      case "temperature" -> temperature != null;
      case "top_k" -> topK != null;
      case "top_p" -> topP != null;
      case "min_p" -> minP != null;
      case "repetition_penalty" -> repetition != null;
      default -> true;
    };
  }

  private static <T> T first(@Nullable T asked, @Nullable T usual, T otherwise) {
    return asked != null ? asked : usual != null ? usual : otherwise;
  }
}
