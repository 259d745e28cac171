package dev.wardrobe.engine;

/**
 * The engine's counters at the end of its latest step.
 *
 * @param steps steps so far
 * @param running sequences that hold a place in the batch
 * @param paused sequences whose reader is not ready
 * @param waiting sequences in the queue
 * @param blocks KV blocks in all
 * @param freeBlocks KV blocks that no sequence holds
 * @param submitted sequences ever taken
 * @param finished sequences ever ended
 * @param preemptions pages taken away so far, counted by sequence
 */
public record EngineStats(
    long steps,
    int running,
    int paused,
    int waiting,
    int blocks,
    int freeBlocks,
    long submitted,
    long finished,
    long preemptions) {}
