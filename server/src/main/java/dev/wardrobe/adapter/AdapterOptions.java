package dev.wardrobe.adapter;

/**
 * Limits and choices for reading adapters and keeping them.
 *
 * @param hostBytes copies on the host, above which the least useful are dropped; from there an
 *     adapter gets into the backend's memory without being read and checked again
 * @param deviceBytes most that one adapter may take in the backend's memory
 * @param maxFileBytes largest {@code adapter_model.safetensors}
 * @param maxRank highest rank of any module
 * @param refuseZeroDelta refuse, rather than warn about, an adapter that changes nothing
 */
public record AdapterOptions(
    long hostBytes, long deviceBytes, long maxFileBytes, int maxRank, boolean refuseZeroDelta) {

  /** 1 GiB on the host, files of up to 8 GiB, ranks up to 4096, zero deltas only warned about. */
  public static final AdapterOptions DEFAULT =
      new AdapterOptions(1L << 30, Long.MAX_VALUE, 8L << 30, 4096, false);

  public AdapterOptions {
    if (hostBytes < 0 || deviceBytes < 1 || maxFileBytes < 1 || maxRank < 1) {
      throw new IllegalArgumentException(
          "adapter limits: expected positive numbers, got hostBytes %d, deviceBytes %d, maxFileBytes"
                  .formatted(hostBytes, deviceBytes)
              + " %d, maxRank %d".formatted(maxFileBytes, maxRank));
    }
  }

  public AdapterOptions withHostBytes(long bytes) {
    return new AdapterOptions(bytes, deviceBytes, maxFileBytes, maxRank, refuseZeroDelta);
  }

  public AdapterOptions withDeviceBytes(long bytes) {
    return new AdapterOptions(hostBytes, bytes, maxFileBytes, maxRank, refuseZeroDelta);
  }

  public AdapterOptions withMaxFileBytes(long bytes) {
    return new AdapterOptions(hostBytes, deviceBytes, bytes, maxRank, refuseZeroDelta);
  }

  public AdapterOptions withMaxRank(int rank) {
    return new AdapterOptions(hostBytes, deviceBytes, maxFileBytes, rank, refuseZeroDelta);
  }

  public AdapterOptions withRefuseZeroDelta(boolean refuse) {
    return new AdapterOptions(hostBytes, deviceBytes, maxFileBytes, maxRank, refuse);
  }
}
