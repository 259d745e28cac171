package dev.wardrobe.engine;

import java.util.concurrent.TimeUnit;

/**
 * How often a sequence ends, over the last seconds in which there were any: some ends come
 * together, in one step, and say nothing alone. Guarded by whoever has it.
 */
final class Departures {
  /** After so long what was seen counts a third. */
  private static final double MEMORY = TimeUnit.SECONDS.toNanos(10);

  private double ends;
  private double nanos;
  private long last;

  /** The first sequence after an idle time has come. */
  void begin(long now) {
    last = now;
  }

  /** A sequence has ended. */
  void end(long now) {
    double kept = Math.exp((last - now) / MEMORY);
    ends = ends * kept + 1;
    nanos = nanos * kept + (now - last);
    last = now;
  }

  /**
   * How long it takes until so many have ended, in nanoseconds; 0 if none ever did. A last one that
   * is long ago says that it takes longer by now.
   */
  double of(int sequences, long now) {
    return ends == 0 ? 0 : sequences * (nanos + (now - last)) / ends;
  }
}
