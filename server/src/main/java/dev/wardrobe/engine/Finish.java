package dev.wardrobe.engine;

import org.jspecify.annotations.Nullable;

/**
 * How a sequence ended, and what it took.
 *
 * @param failure with {@link Reason#FAILED}
 * @param cachedTokens prompt tokens whose keys and values another sequence had computed
 * @param queueNanos from submission, or from when its adapters were in memory, to its first place
 *     in the batch
 * @param swapInNanos from submission to when its adapters were in memory; 0 if they were
 * @param firstTokenNanos from submission to the first generated token; 0 when there was none
 * @param totalNanos from submission to the end
 * @param steps steps that the sequence took part in
 * @param maxStepSequences most sequences in one of those steps
 * @param maxStepAdapters most distinct adapters in one of those steps; the base counts as one
 * @param preemptions how often its pages were taken away, and computed again
 */
public record Finish(
    Reason reason,
    @Nullable EngineException failure,
    int promptTokens,
    int cachedTokens,
    int generatedTokens,
    long queueNanos,
    long swapInNanos,
    long firstTokenNanos,
    long totalNanos,
    int steps,
    int maxStepSequences,
    int maxStepAdapters,
    int preemptions) {

  /** Why a sequence ended. */
  public enum Reason {
    /** A stop token, the constraint's end, or the listener had enough. */
    STOP,
    /** As many tokens as asked for. */
    LENGTH,
    /** An end-of-sequence token. */
    EOS,
    CANCELLED,
    DEADLINE,
    FAILED
  }
}
