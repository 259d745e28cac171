package dev.wardrobe.trainer.optim;

import java.util.Locale;

/**
 * A learning rate over a run's steps, as transformers computes it: from 0 up to the peak in a
 * straight line over the warm-up, so that step 0 has rate 0 if there is one; then by its kind.
 *
 * @param warmup steps until the peak
 * @param total steps of the whole run, warm-up included
 * @param cycles of {@link Kind#COSINE_WITH_RESTARTS}
 */
public record Schedule(Kind kind, double peak, int warmup, int total, int cycles) {

  /** What happens after the warm-up. */
  public enum Kind {
    CONSTANT,
    /** A straight line to 0 at the run's end. */
    LINEAR,
    /** Half a cosine to 0 at the run's end. */
    COSINE,
    /** Several such halves, each from the peak. */
    COSINE_WITH_RESTARTS;

    /**
     * As users write it: constant, constant_with_warmup, linear, cosine, cosine_with_restarts.
     *
     * @throws IllegalArgumentException if there is no such kind
     */
    public static Kind named(String name) {
      return switch (name.toLowerCase(Locale.ROOT).replace('-', '_')) {
        case "constant", "constant_with_warmup" -> CONSTANT;
        case "linear" -> LINEAR;
        case "cosine" -> COSINE;
        case "cosine_with_restarts" -> COSINE_WITH_RESTARTS;
        default ->
            throw new IllegalArgumentException(
                "schedule: expected constant, linear, cosine or cosine_with_restarts, got '%s'"
                    .formatted(name));
      };
    }
  }

  /**
   * @throws IllegalArgumentException if a number is out of range
   */
  public Schedule {
    if (!(peak >= 0) || Double.isInfinite(peak)) {
      throw new IllegalArgumentException("learning rate: expected at least 0, got " + peak);
    }
    if (warmup < 0 || total < 1 || cycles < 1) {
      throw new IllegalArgumentException(
          "schedule: expected warm-up steps of at least 0, a step and a cycle, got %d, %d, %d"
              .formatted(warmup, total, cycles));
    }
  }

  /** The rate of step {@code step}, counted from 0. */
  public double rate(long step) {
    return peak * factor(step);
  }

  private double factor(long step) {
    if (step < warmup) {
      return (double) step / warmup;
    }
    int after = Math.max(1, total - warmup);
    double progress = (double) (step - warmup) / after;
    return switch (kind) {
      case CONSTANT -> 1;
      case LINEAR -> Math.max(0, (double) (total - step) / after);
      // As Python writes it, half a cycle.
      case COSINE -> Math.max(0, 0.5 * (1 + StrictMath.cos(Math.PI * 0.5 * 2 * progress)));
      case COSINE_WITH_RESTARTS ->
          progress >= 1
              ? 0
              : Math.max(0, 0.5 * (1 + StrictMath.cos(Math.PI * (cycles * progress % 1))));
    };
  }
}
