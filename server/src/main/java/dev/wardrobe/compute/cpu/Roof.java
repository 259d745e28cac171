package dev.wardrobe.compute.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

/**
 * What this machine can do at most: how fast it reads from memory, and how many float32
 * multiplications and additions it makes. Measured, the best of several short tries, so that what a
 * kernel reaches can be given as a share of it.
 *
 * @param threads of the figures for all
 * @param readOne bytes a second, one thread, from memory that no cache holds
 * @param readAll the same, all threads at once, each a part of its own
 * @param computeOne float32 operations a second, one thread; a fused multiply-add is two
 * @param computeAll the same, all threads at once
 */
public record Roof(
    int threads, double readOne, double readAll, double computeOne, double computeAll) {
  /** More than last-level caches hold. */
  private static final long BYTES = 512L << 20;

  private static final int TRIES = 12;
  private static final int ROUNDS = 1 << 21;
  private static final int CHAINS = 16;

  /** Measures; takes about two seconds and half a GiB. */
  public static Roof measure(int threads) {
    try (Arena arena = Arena.ofShared();
        WorkerPool one = new WorkerPool(1);
        WorkerPool all = new WorkerPool(threads)) {
      MemorySegment data = arena.allocate(BYTES, 64);
      data.fill((byte) 1);
      return new Roof(threads, read(one, data), read(all, data), compute(one), compute(all));
    }
  }

  private static double read(WorkerPool pool, MemorySegment data) {
    int[] sums = new int[pool.threads()];
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
      long start = System.nanoTime();
      pool.run(
          (worker, scratch) -> {
            long share = BYTES / sums.length / 4096 * 4096;
            sums[worker] += sum(data, share * worker, share * (worker + 1));
          });
      best = Math.max(best, BYTES / ((System.nanoTime() - start) / 1e9));
    }
    if (Arrays.stream(sums).anyMatch(sum -> sum == 0)) {
      throw new IllegalStateException("memory does not hold what was written to it");
    }
    return best;
  }

  /** Reads a range once; the sum of some of it. */
  static int sum(MemorySegment data, long from, long to) {
    int bytes = Vectors.INTS.vectorByteSize();
    IntVector s0 = IntVector.zero(Vectors.INTS);
    IntVector s1 = s0;
    IntVector s2 = s0;
    IntVector s3 = s0;
    for (long at = from; at <= to - 4L * bytes; at += 4L * bytes) {
      s0 = s0.add(IntVector.fromMemorySegment(Vectors.INTS, data, at, Vectors.ORDER));
      s1 = s1.add(IntVector.fromMemorySegment(Vectors.INTS, data, at + bytes, Vectors.ORDER));
      s2 = s2.add(IntVector.fromMemorySegment(Vectors.INTS, data, at + 2L * bytes, Vectors.ORDER));
      s3 = s3.add(IntVector.fromMemorySegment(Vectors.INTS, data, at + 3L * bytes, Vectors.ORDER));
    }
    return s0.add(s1).add(s2.add(s3)).lane(0);
  }

  private static double compute(WorkerPool pool) {
    float[] sums = new float[pool.threads()];
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
      long start = System.nanoTime();
      pool.run((worker, scratch) -> sums[worker] += multiplyAdd(ROUNDS, sums[worker]));
      double seconds = (System.nanoTime() - start) / 1e9;
      best = Math.max(best, operations(ROUNDS) * sums.length / seconds);
    }
    return best;
  }

  /** Operations of {@link #multiplyAdd}. */
  static double operations(int rounds) {
    return 2.0 * rounds * CHAINS * Vectors.LANES;
  }

  /** {@link #CHAINS} chains that do not wait for each other. */
  static float multiplyAdd(int rounds, float seed) {
    FloatVector a = FloatVector.broadcast(Vectors.FLOATS, 0.999f);
    FloatVector b = FloatVector.broadcast(Vectors.FLOATS, 0.001f + seed * 1e-9f);
    FloatVector c0 = b;
    FloatVector c1 = b;
    FloatVector c2 = b;
    FloatVector c3 = b;
    FloatVector c4 = b;
    FloatVector c5 = b;
    FloatVector c6 = b;
    FloatVector c7 = b;
    FloatVector c8 = b;
    FloatVector c9 = b;
    FloatVector c10 = b;
    FloatVector c11 = b;
    FloatVector c12 = b;
    FloatVector c13 = b;
    FloatVector c14 = b;
    FloatVector c15 = b;
    for (int i = 0; i < rounds; i++) {
      c0 = c0.fma(a, b);
      c1 = c1.fma(a, b);
      c2 = c2.fma(a, b);
      c3 = c3.fma(a, b);
      c4 = c4.fma(a, b);
      c5 = c5.fma(a, b);
      c6 = c6.fma(a, b);
      c7 = c7.fma(a, b);
      c8 = c8.fma(a, b);
      c9 = c9.fma(a, b);
      c10 = c10.fma(a, b);
      c11 = c11.fma(a, b);
      c12 = c12.fma(a, b);
      c13 = c13.fma(a, b);
      c14 = c14.fma(a, b);
      c15 = c15.fma(a, b);
    }
    return c0.add(c1).add(c2.add(c3)).add(c4.add(c5).add(c6.add(c7))).lane(0)
        + c8.add(c9).add(c10.add(c11)).add(c12.add(c13).add(c14.add(c15))).lane(0);
  }
}
