package dev.wardrobe.trainer.data;

/**
 * Permutations that are the same for ever: a run that is resumed with a later version goes on with
 * the same rows. They are Fisher and Yates' shuffle, from the last place down, with numbers of
 * {@link SplitMix64}, drawn again where a remainder would favour small ones.
 */
final class Shuffle {
  /** What a permutation is for, so that one seed serves all. */
  static final int SPLIT = 1;

  static final int EPOCH = 2;
  static final int PACKING = 3;
  static final int GROUPS = 4;

  private final SplitMix64 random;

  private Shuffle(long seed, int purpose, long number) {
    long of = SplitMix64.mix(seed);
    of = SplitMix64.mix(of + (purpose - 1) * SplitMix64.GAMMA);
    random = new SplitMix64(SplitMix64.mix(of + (number - 1) * SplitMix64.GAMMA));
  }

  /** The numbers below {@code size}, in an order that depends on the arguments alone. */
  static int[] of(int size, long seed, int purpose, long number) {
    int[] order = new int[size];
    for (int i = 0; i < size; i++) {
      order[i] = i;
    }
    Shuffle draws = new Shuffle(seed, purpose, number);
    for (int i = size - 1; i > 0; i--) {
      int j = draws.below(i + 1);
      int other = order[j];
      order[j] = order[i];
      order[i] = other;
    }
    return order;
  }

  private int below(int bound) {
    // 63 bits, so that the remainder is that of a number that is not negative.
    long limit = Long.MAX_VALUE - Long.MAX_VALUE % bound;
    long drawn;
    do {
      drawn = random.next() >>> 1;
    } while (drawn >= limit);
    return (int) (drawn % bound);
  }
}
