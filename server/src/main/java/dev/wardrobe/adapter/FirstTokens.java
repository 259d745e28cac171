package dev.wardrobe.adapter;

import java.util.concurrent.atomic.AtomicLong;

/**
 * How long an adapter's latest answers took to their first token: a mean in which each counts an
 * eighth less than the one after it. Safe for use by all threads.
 */
final class FirstTokens {
  private static final double NEWEST = 0.125;

  /** A double's bits; below zero before the first. */
  private final AtomicLong mean = new AtomicLong(Double.doubleToLongBits(-1));

  void add(double millis) {
    mean.updateAndGet(
        bits -> {
          double before = Double.longBitsToDouble(bits);
          return Double.doubleToLongBits(before < 0 ? millis : before + NEWEST * (millis - before));
        });
  }

  /** 0 before the first. */
  double millis() {
    return Math.max(0, Double.longBitsToDouble(mean.get()));
  }
}
