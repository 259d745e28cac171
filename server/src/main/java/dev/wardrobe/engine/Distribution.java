package dev.wardrobe.engine;

import java.util.Arrays;

/**
 * How often values lay between fixed bounds, and what they sum up to. Adding allocates nothing and
 * takes some ten nanoseconds. Safe for use by all threads.
 */
public final class Distribution {
  private final double[] bounds;
  private final long[] counts;
  private double sum;

  /**
   * @param bounds ascending; a value belongs to the first that is not below it, or to none
   */
  public Distribution(double... bounds) {
    this.bounds = bounds.clone();
    counts = new long[bounds.length + 1];
  }

  /**
   * What was added so far.
   *
   * @param bounds ascending, the last is infinite
   * @param counts of values above the bound before and not above this one, one for each bound
   */
  public record Snapshot(double[] bounds, long[] counts, double sum) {
    public long count() {
      return Arrays.stream(counts).sum();
    }
  }

  public synchronized void add(double value) {
    int at = 0;
    while (at < bounds.length && value > bounds[at]) {
      at++;
    }
    counts[at]++;
    sum += value;
  }

  /** Adds a time, in seconds. */
  public void addNanos(long nanos) {
    add(nanos / 1e9);
  }

  /** Forgets what was added. */
  synchronized void clear() {
    Arrays.fill(counts, 0);
    sum = 0;
  }

  public Snapshot snapshot() {
    double[] all = Arrays.copyOf(bounds, bounds.length + 1);
    all[bounds.length] = Double.POSITIVE_INFINITY;
    synchronized (this) {
      return new Snapshot(all, counts.clone(), sum);
    }
  }
}
