package dev.wardrobe.adapter;

import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;

/**
 * A request that is to be asked of a candidate too, and whose answer there nobody sees. What comes
 * of it is told once; what is told after that has no effect.
 */
public final class ShadowCopy {
  private final String candidate;
  private final ShadowTraffic traffic;
  private final BooleanSupplier wanted;
  private final AtomicBoolean told = new AtomicBoolean();

  /**
   * An answer, as far as two are compared.
   *
   * @param firstTokenNanos from the request's arrival to the first token
   * @param totalNanos to the last
   */
  public record Answer(int[] tokens, long firstTokenNanos, long totalNanos) {}

  ShadowCopy(String candidate, ShadowTraffic traffic, BooleanSupplier wanted) {
    this.candidate = candidate;
    this.traffic = traffic;
    this.wanted = wanted;
    traffic.chosen();
  }

  /** What to ask: a reference. */
  public String candidate() {
    return candidate;
  }

  /** Whether the alias still has this shadow. */
  public boolean wanted() {
    return wanted.getAsBoolean();
  }

  public void completed(Answer real, Answer candidateAnswer) {
    if (told.compareAndSet(false, true)) {
      traffic.completed(real, candidateAnswer);
    }
  }

  /** There was no room for it, or nobody wants it any more. */
  public void dropped() {
    if (told.compareAndSet(false, true)) {
      traffic.dropped();
    }
  }

  public void failed() {
    if (told.compareAndSet(false, true)) {
      traffic.failed();
    }
  }
}
