package dev.wardrobe.serve;

import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.sampling.SamplingParams;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * A request, checked, with everything that it left open settled.
 *
 * @param adapters what is added to the base, in order; none for the base alone
 * @param tenant as {@link dev.wardrobe.engine.GenerationTask#tenant}
 * @param requestKey whose request it is, or null
 * @param maxTokens prompt and these are within the context
 * @param logprobs whether the generated tokens' log-probabilities are reported
 * @param top as {@link dev.wardrobe.engine.GenerationTask#top}
 * @param choices how many answers are generated
 * @param grammar what the answer's text must be, or null
 */
record Plan(
    String id,
    List<Part> adapters,
    String tenant,
    @Nullable String requestKey,
    int[] prompt,
    SamplingParams sampling,
    int maxTokens,
    Set<Integer> eos,
    Set<Integer> stopTokens,
    List<String> stops,
    boolean logprobs,
    int top,
    boolean echo,
    int choices,
    @Nullable Grammar grammar) {

  Plan with(@Nullable Grammar other) {
    return new Plan(
        id,
        adapters,
        tenant,
        requestKey,
        prompt,
        sampling,
        maxTokens,
        eos,
        stopTokens,
        stops,
        logprobs,
        top,
        echo,
        choices,
        other);
  }

  /**
   * An adapter as it is asked for.
   *
   * @param adapter name or digest
   * @param scale not 0
   */
  record Part(String adapter, float scale) {}
}
