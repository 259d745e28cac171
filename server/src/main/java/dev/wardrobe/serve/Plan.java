package dev.wardrobe.serve;

import dev.wardrobe.sampling.SamplingParams;
import java.util.List;
import java.util.Set;

/**
 * A request, checked, with everything that it left open settled.
 *
 * @param adapter name or digest; empty for the base
 * @param maxTokens prompt and these are within the context
 * @param logprobs whether the generated tokens' log-probabilities are reported
 * @param top as {@link dev.wardrobe.engine.GenerationTask#top}
 */
record Plan(
    String id,
    String adapter,
    int[] prompt,
    SamplingParams sampling,
    int maxTokens,
    Set<Integer> eos,
    Set<Integer> stopTokens,
    List<String> stops,
    boolean logprobs,
    int top,
    boolean echo) {}
