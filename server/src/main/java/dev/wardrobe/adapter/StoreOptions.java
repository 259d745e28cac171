package dev.wardrobe.adapter;

/**
 * Limits of a store.
 *
 * @param maxWeightBytes largest {@code adapter_model.safetensors}
 * @param maxUploads uploads at once
 * @param maxUploadBytes bytes that all uploads at once may declare together
 */
public record StoreOptions(long maxWeightBytes, int maxUploads, long maxUploadBytes) {

  /** Files of up to 8 GiB, 64 uploads at once of 32 GiB together. */
  public static final StoreOptions DEFAULT = new StoreOptions(8L << 30, 64, 32L << 30);

  public StoreOptions {
    if (maxWeightBytes < 1 || maxUploads < 1 || maxUploadBytes < 1) {
      throw new IllegalArgumentException(
          "store limits: expected positive numbers, got maxWeightBytes %d, maxUploads %d,"
                  .formatted(maxWeightBytes, maxUploads)
              + " maxUploadBytes %d".formatted(maxUploadBytes));
    }
  }
}
