package dev.wardrobe.engine;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.sampling.SamplingParams;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Tasks for tests. */
final class Tasks {
  private Tasks() {}

  static GenerationTask greedy(int[] prompt, int maxTokens) {
    return task(prompt, maxTokens, SamplingParams.GREEDY, null, GenerationTask.NO_DEADLINE);
  }

  static GenerationTask sampled(int[] prompt, int maxTokens, long seed) {
    return task(
        prompt,
        maxTokens,
        new SamplingParams(1.3f, 0, 0.95f, 0, 1.1f, 0.2f, 0.1f, seed),
        null,
        GenerationTask.NO_DEADLINE);
  }

  static GenerationTask task(
      int[] prompt, int maxTokens, SamplingParams sampling, @Nullable Lease lease, long deadline) {
    return new GenerationTask(
        "test",
        "",
        prompt,
        parts(lease),
        sampling,
        maxTokens,
        Set.of(),
        Set.of(),
        0,
        false,
        deadline);
  }

  private static List<AdapterPart> parts(@Nullable Lease lease) {
    return lease == null ? List.of() : List.of(new AdapterPart(lease));
  }

  static GenerationTask scored(int[] prompt, int maxTokens, int top) {
    return new GenerationTask(
        "test",
        "",
        prompt,
        List.of(),
        SamplingParams.GREEDY,
        maxTokens,
        Set.of(),
        Set.of(),
        top,
        true,
        GenerationTask.NO_DEADLINE);
  }

  static GenerationTask of(
      int[] prompt,
      List<AdapterPart> adapters,
      SamplingParams sampling,
      int maxTokens,
      int top,
      boolean echo) {
    return new GenerationTask(
        "test",
        "",
        prompt,
        adapters,
        sampling,
        maxTokens,
        Set.of(),
        Set.of(),
        top,
        echo,
        GenerationTask.NO_DEADLINE);
  }
}
