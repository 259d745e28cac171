package dev.wardrobe.trainer.data;

/**
 * How rows are put together.
 *
 * @param batchSize rows of a micro-batch; with packing, packs
 * @param accumulation micro-batches of a step
 * @param order of the rows in an epoch
 * @param groupByLength whether rows of a like length share a step; in shuffled order alone
 * @param packing tokens of the packs into which rows are put; 0 for none
 */
public record BatchOptions(
    int batchSize, int accumulation, Order order, boolean groupByLength, int packing) {

  /** In which order an epoch takes the rows. */
  public enum Order {
    /** As the files have them. */
    SEQUENTIAL,
    /** Each epoch in an order of its own, drawn from the seed. */
    SHUFFLED
  }

  /**
   * @throws IllegalArgumentException saying which of them do not go together
   */
  public BatchOptions {
    if (batchSize < 1 || accumulation < 1) {
      throw new IllegalArgumentException(
          "batch size and gradient accumulation: expected at least 1, got %d and %d"
              .formatted(batchSize, accumulation));
    }
    if (packing < 0) {
      throw new IllegalArgumentException("packing: expected at least 0 tokens, got " + packing);
    }
    if (groupByLength && packing > 0) {
      throw new IllegalArgumentException(
          "packs are of a like length already; leave out either packing or grouping by length");
    }
    if (groupByLength && order == Order.SEQUENTIAL) {
      throw new IllegalArgumentException(
          "grouping by length changes the order of the rows; leave it out, or shuffle them");
    }
  }

  /** Shuffled rows, neither grouped nor packed. */
  public static BatchOptions of(int batchSize, int accumulation) {
    return new BatchOptions(batchSize, accumulation, Order.SHUFFLED, false, 0);
  }

  public BatchOptions order(Order order) {
    return new BatchOptions(batchSize, accumulation, order, groupByLength, packing);
  }

  public BatchOptions groupByLength(boolean groupByLength) {
    return new BatchOptions(batchSize, accumulation, order, groupByLength, packing);
  }

  public BatchOptions packing(int packing) {
    return new BatchOptions(batchSize, accumulation, order, groupByLength, packing);
  }
}
