package dev.wardrobe.adapter;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import org.jspecify.annotations.Nullable;

/**
 * How an alias' requests are divided: shares of relative weights.
 *
 * <p>A key's hash is a point on a line on which each share has a stretch as long as its weight, in
 * order. So the same key goes to the same share while the weights stay, and when they change, only
 * as many keys move as the stretches' bounds do.
 */
final class Split {
  private final long[] ends;

  /**
   * A division.
   *
   * @param weights of the shares, each positive
   */
  Split(List<Integer> weights) {
    if (weights.isEmpty() || weights.stream().anyMatch(weight -> weight < 1)) {
      throw new IllegalArgumentException("weights: expected positive ones, got " + weights);
    }
    ends = new long[weights.size()];
    long total = 0;
    for (int i = 0; i < ends.length; i++) {
      total += weights.get(i);
      ends[i] = total;
    }
  }

  /**
   * The share that answers.
   *
   * @param salt makes the choices of one alias independent of another's
   * @param key whose request it is; null: drawn
   */
  int choose(String salt, @Nullable String key) {
    return ends.length == 1
        ? 0
        : at(key == null ? ThreadLocalRandom.current().nextLong() : hash(salt, key));
  }

  /** The share at a point of the line, which is all unsigned 64-bit numbers long. */
  int at(long point) {
    long place = Math.unsignedMultiplyHigh(point, ends[ends.length - 1]);
    int share = 0;
    while (place >= ends[share]) {
      share++;
    }
    return share;
  }

  /** FNV-1a over both texts, its bits then mixed as MurmurHash3 does; the same on each machine. */
  static long hash(String salt, String key) {
    long hash = 0xcbf29ce484222325L;
    for (byte value : (salt + "\n" + key).getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (value & 0xff)) * 0x100000001b3L;
    }
    hash = (hash ^ (hash >>> 33)) * 0xff51afd7ed558ccdL;
    hash = (hash ^ (hash >>> 33)) * 0xc4ceb9fe1a85ec53L;
    return hash ^ (hash >>> 33);
  }
}
