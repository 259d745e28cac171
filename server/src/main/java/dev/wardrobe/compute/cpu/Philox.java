package dev.wardrobe.compute.cpu;

/**
 * Random numbers that are a function of a key and a counter: Philox4x32-10 (J. K. Salmon et al.,
 * Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).
 */
final class Philox {
  static final int ROUNDS = 10;
  static final long MULTIPLIER_0 = 0xD2511F53L;
  static final long MULTIPLIER_1 = 0xCD9E8D57L;
  static final int WEYL_0 = 0x9E3779B9;
  static final int WEYL_1 = 0xBB67AE85;

  private Philox() {}

  /** The four words that {@code key} and {@code counter} give, in place of {@code counter}. */
  static void mix(int key0, int key1, int[] counter) {
    int k0 = key0;
    int k1 = key1;
    for (int round = 0; round < ROUNDS; round++) {
      long a = MULTIPLIER_0 * (counter[0] & 0xffffffffL);
      long b = MULTIPLIER_1 * (counter[2] & 0xffffffffL);
      int c1 = counter[1];
      int c3 = counter[3];
      counter[0] = (int) (b >>> 32) ^ c1 ^ k0;
      counter[1] = (int) b;
      counter[2] = (int) (a >>> 32) ^ c3 ^ k1;
      counter[3] = (int) a;
      k0 += WEYL_0;
      k1 += WEYL_1;
    }
  }

  /**
   * A number in [0, 1), a multiple of 2^-53, from a request's seed and a token's position.
   *
   * @param words four to work in
   */
  static double uniform(long seed, int position, int[] words) {
    words[0] = position;
    words[1] = 0;
    words[2] = 0;
    words[3] = 0;
    mix((int) seed, (int) (seed >>> 32), words);
    long bits = ((long) words[0] << 32) | (words[1] & 0xffffffffL);
    return (bits >>> 11) * 0x1p-53;
  }
}
