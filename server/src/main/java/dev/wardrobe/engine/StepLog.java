package dev.wardrobe.engine;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The latest steps, in a ring. */
final class StepLog {
  static final int KEPT = 1024;

  private final @Nullable StepRecord[] ring = new @Nullable StepRecord[KEPT];
  private long latest;

  synchronized void add(StepRecord step) {
    ring[(int) (step.number() % KEPT)] = step;
    latest = step.number();
  }

  /** The kept steps with a number over {@code after}, in order. */
  synchronized List<StepRecord> after(long after) {
    List<StepRecord> steps = new ArrayList<>();
    for (long n = Math.max(Math.max(after, 0) + 1, latest - KEPT + 1); n <= latest; n++) {
      StepRecord step = ring[(int) (n % KEPT)];
      if (step != null) {
        steps.add(step);
      }
    }
    return steps;
  }
}
