package dev.wardrobe.engine;

/**
 * What a unit of something takes, as measured; nothing until it was. Follows what gets faster at
 * once, and what gets slower by and by: an estimate from it is to be hopeful.
 */
final class Rate {
  private static final double FASTER = 0.5;
  private static final double SLOWER = 0.1;
  private static final double DOUBT = 15 / 16.0;

  private double nanos;

  void measure(long units, long taken) {
    if (units > 0 && taken > 0) {
      double now = (double) taken / units;
      nanos = nanos == 0 ? now : nanos + (now < nanos ? FASTER : SLOWER) * (now - nanos);
    }
  }

  /**
   * Takes note that something was left undone because of the estimate, which is thus not measured
   * anew: were it wrong, as one from a cold start, it would stay so for ever.
   */
  void doubt() {
    nanos *= DOUBT;
  }

  /** What so many units will take; 0 if nothing was measured. */
  double of(long units) {
    return nanos * units;
  }
}
