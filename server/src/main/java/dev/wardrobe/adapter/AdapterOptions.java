package dev.wardrobe.adapter;

/**
 * Limits and choices for reading adapters and keeping them.
 *
 * @param cacheBytes resident bytes of adapters from the roots, above which the least useful that no
 *     request uses are dropped; they load again when asked for
 * @param maxFileBytes largest {@code adapter_model.safetensors}
 * @param maxRank highest rank of any module
 * @param refuseZeroDelta refuse, rather than warn about, an adapter that changes nothing
 */
public record AdapterOptions(
    long cacheBytes, long maxFileBytes, int maxRank, boolean refuseZeroDelta) {

  /** 4 GiB of cache, files of up to 8 GiB, ranks up to 4096, zero deltas only warned about. */
  public static final AdapterOptions DEFAULT = new AdapterOptions(4L << 30, 8L << 30, 4096, false);

  public AdapterOptions {
    if (cacheBytes < 1 || maxFileBytes < 1 || maxRank < 1) {
      throw new IllegalArgumentException(
          "adapter limits: expected positive numbers, got cacheBytes %d, maxFileBytes %d, maxRank %d"
              .formatted(cacheBytes, maxFileBytes, maxRank));
    }
  }

  public AdapterOptions withCacheBytes(long bytes) {
    return new AdapterOptions(bytes, maxFileBytes, maxRank, refuseZeroDelta);
  }

  public AdapterOptions withMaxFileBytes(long bytes) {
    return new AdapterOptions(cacheBytes, bytes, maxRank, refuseZeroDelta);
  }

  public AdapterOptions withMaxRank(int rank) {
    return new AdapterOptions(cacheBytes, maxFileBytes, rank, refuseZeroDelta);
  }

  public AdapterOptions withRefuseZeroDelta(boolean refuse) {
    return new AdapterOptions(cacheBytes, maxFileBytes, maxRank, refuse);
  }
}
