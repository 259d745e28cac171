package dev.wardrobe.client.load;

import java.util.Arrays;

/** Durations in nanoseconds, each kept as it was, so that quantiles are exact. */
public final class Samples {
  private long[] values = new long[1024];
  private int size;
  private boolean sorted = true;

  void add(long value) {
    if (size == values.length) {
      values = Arrays.copyOf(values, 2 * size);
    }
    values[size++] = value;
    sorted = false;
  }

  void addAll(Samples other) {
    for (int i = 0; i < other.size; i++) {
      add(other.values[i]);
    }
  }

  public int size() {
    return size;
  }

  /**
   * The least value that is not exceeded by a share of {@code q} of all, in milliseconds; NaN if
   * there are none.
   */
  public double millis(double q) {
    if (size == 0) {
      return Double.NaN;
    }
    sort();
    int rank = (int) Math.ceil(q * size);
    return values[Math.clamp(rank, 1, size) - 1] / 1e6;
  }

  public double maxMillis() {
    return millis(1);
  }

  /** The i-th least, in milliseconds. */
  double sortedMillis(int i) {
    sort();
    return values[i] / 1e6;
  }

  private void sort() {
    if (!sorted) {
      Arrays.sort(values, 0, size);
      sorted = true;
    }
  }
}
