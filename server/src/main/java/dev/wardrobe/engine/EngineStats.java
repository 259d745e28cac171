package dev.wardrobe.engine;

/**
 * The engine's counters at the end of its latest step.
 *
 * @param steps steps so far
 * @param running sequences that hold a place in the batch
 * @param paused sequences whose reader is not ready
 * @param waiting sequences in the queue
 * @param blocks KV blocks in all
 * @param touchedBlocks KV blocks that have memory: all but those never used, and those whose memory
 *     adapters have
 * @param lentBlocks KV blocks whose memory adapters have
 * @param freeBlocks KV blocks that no sequence holds, those that the prefix cache keeps among them
 * @param cachedBlocks those that the prefix cache keeps
 * @param submitted sequences ever taken
 * @param finished sequences ever ended
 * @param preemptions pages taken away so far, counted by sequence
 * @param prefixLookups tokens looked up in the prefix cache so far
 * @param prefixHits those of them that were found there, and not computed
 * @param prefixEvictions blocks that the prefix cache gave up so far, for want of room
 * @param adapterLoads adapters that were brought into the backend's memory so far
 * @param adapterEvictions adapters that were taken from there so far, to make room for others
 */
public record EngineStats(
    long steps,
    int running,
    int paused,
    int waiting,
    int blocks,
    int touchedBlocks,
    int lentBlocks,
    int freeBlocks,
    int cachedBlocks,
    long submitted,
    long finished,
    long preemptions,
    long prefixLookups,
    long prefixHits,
    long prefixEvictions,
    long adapterLoads,
    long adapterEvictions) {}
