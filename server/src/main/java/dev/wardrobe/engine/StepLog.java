package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.List;

/** The latest steps, in a ring of numbers: noting a step allocates nothing. */
final class StepLog {
  static final int KEPT = 1024;

  private static final int NUMBERS = 6;

  private final long[] ring = new long[KEPT * NUMBERS];
  private long latest;

  /** Notes the next step, see {@link StepRecord}. */
  synchronized void add(
      int sequences,
      int adapters,
      int prefillTokens,
      int decodeTokens,
      long durationNanos,
      long gapNanos) {
    latest++;
    int at = at(latest);
    ring[at] = sequences;
    ring[at + 1] = adapters;
    ring[at + 2] = prefillTokens;
    ring[at + 3] = decodeTokens;
    ring[at + 4] = durationNanos;
    ring[at + 5] = gapNanos;
  }

  private static int at(long number) {
    return (int) (number % KEPT) * NUMBERS;
  }

  /** How many steps there were. */
  synchronized long steps() {
    return latest;
  }

  /** The kept steps with a number over {@code after}, in order. */
  synchronized List<StepRecord> after(long after) {
    List<StepRecord> steps = new ArrayList<>();
    for (long n = Math.max(Math.max(after, 0) + 1, latest - KEPT + 1); n <= latest; n++) {
      int at = at(n);
      steps.add(
          new StepRecord(
              n,
              (int) ring[at],
              (int) ring[at + 1],
              (int) ring[at + 2],
              (int) ring[at + 3],
              ring[at + 4],
              ring[at + 5]));
    }
    return steps;
  }
}
