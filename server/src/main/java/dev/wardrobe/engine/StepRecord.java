package dev.wardrobe.engine;

/**
 * What one step held.
 *
 * @param number from 1
 * @param adapters distinct adapters; the base counts as one
 * @param prefillTokens prompt tokens, and tokens computed again after a preemption
 * @param decodeTokens sequences that went on by one token
 * @param gapNanos pause since the last step's end; 0 after an idle time
 */
public record StepRecord(
    long number,
    int sequences,
    int adapters,
    int prefillTokens,
    int decodeTokens,
    long durationNanos,
    long gapNanos) {}
