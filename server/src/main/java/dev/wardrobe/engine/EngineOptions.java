package dev.wardrobe.engine;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.model.ModelConfig;

/**
 * The engine's bounds.
 *
 * @param maxSequences most sequences in a step
 * @param prefillTokens most prompt tokens in a step, beside the sequences that decode
 * @param maxLogitRows rows of logits computed at a time; bounds memory only
 * @param maxWaiting most sequences in the queue
 * @param kvTokens tokens that the KV cache holds, rounded up to blocks; {@link #AUTO} to derive it
 * @param adapterBytes memory for adapters
 * @param maxLoads most adapters that are brought into memory at a time
 * @param kvType how keys and values are stored
 */
public record EngineOptions(
    int maxSequences,
    int prefillTokens,
    int maxLogitRows,
    int maxWaiting,
    int kvTokens,
    long adapterBytes,
    int maxLoads,
    KvShape.Type kvType) {

  public static final int AUTO = 0;

  public static final EngineOptions DEFAULT =
      new EngineOptions(64, 256, 32, 1024, AUTO, 4L << 30, 2, KvShape.Type.BF16);

  /** What the automatic cache may take, and what it may take to hold one whole context. */
  private static final long AUTO_BYTES = 256L << 20;

  private static final long AUTO_CONTEXT_BYTES = 1L << 30;

  public EngineOptions {
    positive("max-batch", maxSequences, 1 << 12);
    positive("prefill-tokens", prefillTokens, 1 << 16);
    positive("max-logit-rows", maxLogitRows, 1 << 16);
    positive("max-waiting", maxWaiting, 1 << 20);
    positive("max-loads", maxLoads, 1 << 10);
    if (adapterBytes < 0) {
      throw new IllegalArgumentException(
          "adapter-cache-mib: expected 0 or more, got %d bytes".formatted(adapterBytes));
    }
    if (kvTokens < 0) {
      throw new IllegalArgumentException(
          "kv-tokens: expected a positive number, or 0 to derive it, got " + kvTokens);
    }
  }

  private static void positive(String name, int value, int most) {
    if (value < 1 || value > most) {
      throw new IllegalArgumentException(
          "%s: expected 1 to %d, got %d".formatted(name, most, value));
    }
  }

  public EngineOptions withKvType(KvShape.Type type) {
    return new EngineOptions(
        maxSequences,
        prefillTokens,
        maxLogitRows,
        maxWaiting,
        kvTokens,
        adapterBytes,
        maxLoads,
        type);
  }

  public EngineOptions withMaxSequences(int most) {
    return new EngineOptions(
        most, prefillTokens, maxLogitRows, maxWaiting, kvTokens, adapterBytes, maxLoads, kvType);
  }

  public EngineOptions withPrefillTokens(int most) {
    return new EngineOptions(
        maxSequences, most, maxLogitRows, maxWaiting, kvTokens, adapterBytes, maxLoads, kvType);
  }

  public EngineOptions withMaxLogitRows(int most) {
    return new EngineOptions(
        maxSequences, prefillTokens, most, maxWaiting, kvTokens, adapterBytes, maxLoads, kvType);
  }

  public EngineOptions withMaxWaiting(int most) {
    return new EngineOptions(
        maxSequences, prefillTokens, maxLogitRows, most, kvTokens, adapterBytes, maxLoads, kvType);
  }

  public EngineOptions withKvTokens(int tokens) {
    return new EngineOptions(
        maxSequences,
        prefillTokens,
        maxLogitRows,
        maxWaiting,
        tokens,
        adapterBytes,
        maxLoads,
        kvType);
  }

  public EngineOptions withAdapterBytes(long bytes) {
    return new EngineOptions(
        maxSequences, prefillTokens, maxLogitRows, maxWaiting, kvTokens, bytes, maxLoads, kvType);
  }

  public EngineOptions withMaxLoads(int most) {
    return new EngineOptions(
        maxSequences,
        prefillTokens,
        maxLogitRows,
        maxWaiting,
        kvTokens,
        adapterBytes,
        most,
        kvType);
  }

  /**
   * The KV cache's shape. Derived, it holds every sequence's whole context if 256 MiB are enough
   * for that, else what fits into 256 MiB, but one whole context if 1 GiB is enough for it.
   */
  public KvShape shape(ModelConfig model) {
    int block = KvShape.BLOCK_TOKENS;
    KvShape one = new KvShape(model.layers(), model.kvHeads(), model.headDim(), 1, kvType);
    long blocks;
    if (kvTokens != AUTO) {
      blocks = Math.ceilDiv((long) kvTokens, block);
    } else {
      long context = Math.ceilDiv((long) model.contextLength(), block);
      long wanted = context * maxSequences;
      long least = Math.min(context, AUTO_CONTEXT_BYTES / one.blockBytes());
      blocks = Math.min(wanted, Math.max(least, AUTO_BYTES / one.blockBytes()));
    }
    return new KvShape(
        model.layers(),
        model.kvHeads(),
        model.headDim(),
        Math.clamp(blocks, 1, Integer.MAX_VALUE / block),
        kvType);
  }
}
