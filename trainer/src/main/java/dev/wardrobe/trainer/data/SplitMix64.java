package dev.wardrobe.trainer.data;

/**
 * Random numbers of a fixed sequence (G. L. Steele et al., Fast Splittable Pseudorandom Number
 * Generators, OOPSLA 2014), which must never change: seeds stand for them.
 */
public final class SplitMix64 {
  static final long GAMMA = 0x9E3779B97F4A7C15L;

  private long state;

  public SplitMix64(long seed) {
    state = seed;
  }

  /** A bijection whose values look random. */
  public static long mix(long value) {
    long z = value + GAMMA;
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  /** All 64 bits. */
  public long next() {
    long value = mix(state);
    state += GAMMA;
    return value;
  }

  /** In [0, 1), a multiple of 2^-53. */
  public double uniform() {
    return (next() >>> 11) * 0x1p-53;
  }

  /** Of the standard normal distribution (Box and Muller). */
  public double gaussian() {
    double radius = StrictMath.sqrt(-2 * StrictMath.log(1 - uniform()));
    return radius * StrictMath.cos(2 * Math.PI * uniform());
  }
}
