package dev.wardrobe.bench;

import dev.wardrobe.compute.KvShape;
import java.util.List;
import java.util.Set;

/**
 * What to measure.
 *
 * @param kinds cases to run
 * @param prompt tokens of a prefill
 * @param depth context of the case that decodes behind one
 * @param batches numbers of streams
 * @param steps timed steps of a run that decodes, or 0 for each case's own
 * @param adapters different adapters of the case with adapters, as many as streams
 * @param rank of each
 * @param repetitions undisturbed runs wanted of each case
 * @param retries most runs in place of disturbed ones, for each case
 * @param warmUp seconds that a case runs before it is timed
 * @param prefillTokens most prompt tokens in a step
 * @param kv how keys and values are stored
 * @param profile whether each operation is timed too
 * @param seed of prompts and adapters
 */
public record BenchOptions(
    Set<Measurement.Kind> kinds,
    int prompt,
    int depth,
    List<Integer> batches,
    int steps,
    int adapters,
    int rank,
    int repetitions,
    int retries,
    double warmUp,
    int prefillTokens,
    KvShape.Type kv,
    boolean profile,
    long seed) {
  public BenchOptions {
    kinds = Set.copyOf(kinds);
    batches = List.copyOf(batches);
  }
}
