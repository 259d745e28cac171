package dev.wardrobe.compute;

/**
 * The heads of an attention layer.
 *
 * @param queries query heads
 * @param keyValues KV heads; divides {@code queries} (grouped-query attention)
 * @param size elements of a head
 * @param scale factor on query·key, usually 1/√size
 * @param window tokens that a query sees, its own included (sliding window), or 0 for all
 */
public record Heads(int queries, int keyValues, int size, float scale, int window) {}
