package dev.wardrobe.engine;

import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.sampling.SamplingParams;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What one sequence is to be: its prompt, its adapter, and when it ends.
 *
 * @param id for log lines
 * @param tenant who shares the machine fairly with other tenants; empty for those without a name
 * @param prompt at least one token id, each inside the vocabulary
 * @param adapters what is added to the base, in order; none for the base alone. The engine closes
 *     their leases when the sequence ends
 * @param maxTokens most tokens to generate; 0 only computes (and with {@code echo} scores) the
 *     prompt
 * @param eos tokens that end the sequence as {@link Finish.Reason#EOS}; empty to go on past them
 * @param stopTokens tokens that end it as {@link Finish.Reason#STOP}
 * @param top most probable tokens to report beside each token, {@link
 *     dev.wardrobe.compute.Draw#ALL} for the whole vocabulary
 * @param echo whether the prompt's tokens are scored too
 * @param deadline as {@link System#nanoTime}, or {@link #NO_DEADLINE}
 * @param grammar what the text must be, or null; where it is whole and nothing may follow, the
 *     sequence ends as {@link Finish.Reason#STOP}
 */
public record GenerationTask(
    String id,
    String tenant,
    int[] prompt,
    List<AdapterPart> adapters,
    SamplingParams sampling,
    int maxTokens,
    Set<Integer> eos,
    Set<Integer> stopTokens,
    int top,
    boolean echo,
    long deadline,
    @Nullable Grammar grammar) {

  public static final long NO_DEADLINE = Long.MAX_VALUE;

  /** Whose text may be any. */
  public GenerationTask(
      String id,
      String tenant,
      int[] prompt,
      List<AdapterPart> adapters,
      SamplingParams sampling,
      int maxTokens,
      Set<Integer> eos,
      Set<Integer> stopTokens,
      int top,
      boolean echo,
      long deadline) {
    this(
        id,
        tenant,
        prompt,
        adapters,
        sampling,
        maxTokens,
        eos,
        stopTokens,
        top,
        echo,
        deadline,
        null);
  }

  public GenerationTask {
    adapters = List.copyOf(adapters);
    eos = Set.copyOf(eos);
    stopTokens = Set.copyOf(stopTokens);
  }
}
