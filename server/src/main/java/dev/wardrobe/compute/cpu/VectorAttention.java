package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.tile;
import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.MAX;
import static jdk.incubator.vector.VectorOperators.XOR;

import dev.wardrobe.compute.Heads;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

/** A tile of queries over the pages of keys and values. */
final class VectorAttention {
  /*
   * A chunk's keys and values are widened once into float32 and used by all queries of the tile. In
   * the scores, lanes are positions and the chains run over a head's elements; in the weighted sum of
   * values, lanes are elements and the chains run over positions. Both are c += a · b on tiles of
   * four queries by two vectors, or one query by four: eight, or four, independent chains.
   *
   * Vectors beyond a query's range or a head's size are computed from what the scratch happens to
   * hold, and never read: lanes do not meet before those outside are set to -∞.
   */
  private static final int ROWS = KvPages.TOKENS;
  private static final int CHUNK = Kernels.CHUNK;

  /** A cache line's bytes. */
  private static final int LINE = 64;

  private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;

  private VectorAttention() {}

  static void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      Heads heads,
      int position,
      int rows,
      int chunk,
      float[] q,
      int at,
      float[] states,
      int statesAt,
      Scratch scratch) {
    int size = heads.size();
    int group = heads.queries() / heads.keyValues();
    int stride = heads.queries() * size;
    int count = rows * group;
    int width = Kernels.stateWidth(size);
    int from = Kernels.begin(heads, position, chunk);
    int to = Kernels.end(position + rows - 1, chunk);
    float[] queries = scratch.queries(count * size);
    float[] scores = scratch.scores(count * CHUNK);
    for (int row = 0; row < rows; row++) {
      scale(q, at + row * stride, heads.scale(), queries, row * group * size, group * size);
    }
    Arrays.fill(scores, 0, count * CHUNK, 0);
    float[] tile = scratch.chunk(CHUNK * width);
    int first = chunk * (CHUNK / ROWS);
    scratch.touched +=
        touch(pages, layer, head, blocks, first + from / ROWS, first + (to + ROWS - 1) / ROWS);
    for (int block = from / ROWS; block * ROWS < to; block++) {
      long stored = pages.keys(layer, blocks[first + block], head);
      Vectors.widen(pages.dtype(), pages.data(), stored, tile, block * ROWS * size, ROWS * size);
    }
    score(heads, position, count, chunk, queries, tile, scores);
    Arrays.fill(states, statesAt, statesAt + count * width, 0);
    int maxima = statesAt + count * width;
    for (int i = 0; i < count; i++) {
      int begin = Kernels.begin(heads, position + i / group, chunk);
      int end = Kernels.end(position + i / group, chunk);
      weigh(scores, i * CHUNK, begin, end, states, maxima + i, maxima + count + i, scratch.lanes);
    }
    for (int block = from / ROWS; block * ROWS < to; block++) {
      long stored = pages.values(layer, blocks[first + block], head);
      int live = Math.min(ROWS, to - block * ROWS);
      if (width == size) {
        Vectors.widen(pages.dtype(), pages.data(), stored, tile, block * ROWS * size, live * size);
      } else {
        for (int slot = 0; slot < live; slot++) {
          int row = (block * ROWS + slot) * width;
          Vectors.widen(pages.dtype(), pages.data(), stored, tile, row, size);
          stored += size;
        }
      }
    }
    mix(heads, position, count, chunk, scores, tile, width, states, statesAt);
  }

  /**
   * Reads a number of each cache line of a head's blocks. These loads wait for memory side by side;
   * those among other work, a few at a time: half as fast.
   */
  private static long touch(KvPages pages, int layer, int head, int[] blocks, int from, int to) {
    MemorySegment data = pages.data();
    int bytes = pages.dtype().bytes();
    long length = 2L * bytes * ROWS * pages.shape().headDim();
    long sum = 0;
    for (int block = from; block < to; block++) {
      long at = bytes * pages.keys(layer, blocks[block], head);
      for (long line = 0; line < length; line += LINE) {
        sum += data.get(LONG, at + line);
      }
    }
    return sum;
  }

  private static void score(
      Heads heads,
      int position,
      int count,
      int chunk,
      float[] queries,
      float[] keys,
      float[] scores) {
    int size = heads.size();
    int group = heads.queries() / heads.keyValues();
    int i = 0;
    for (; i + 4 <= count; i += 4) {
      int begin = Kernels.begin(heads, position + i / group, chunk);
      int end = Kernels.end(position + (i + 3) / group, chunk);
      for (int p = begin & -2 * ROWS; p < end; p += 2 * LANES) {
        four(
            queries,
            i * size,
            size,
            keys,
            lane(p, size),
            ROWS,
            lane(p + LANES, size) - lane(p, size),
            size,
            scores,
            i * CHUNK + p,
            CHUNK);
      }
    }
    for (; i < count; i++) {
      int begin = Kernels.begin(heads, position + i / group, chunk);
      int end = Kernels.end(position + i / group, chunk);
      for (int p = begin & -4 * ROWS; p < end; p += 4 * LANES) {
        one(
            queries,
            i * size,
            keys,
            lane(p, size),
            ROWS,
            lane(p + LANES, size) - lane(p, size),
            lane(p + 2 * LANES, size) - lane(p, size),
            lane(p + 3 * LANES, size) - lane(p, size),
            size,
            scores,
            i * CHUNK + p);
      }
    }
  }

  /** Where the keys of position {@code p} of a chunk begin. */
  private static int lane(int p, int size) {
    return p / ROWS * ROWS * size + p % ROWS;
  }

  private static void scale(float[] q, int at, float scale, float[] out, int outAt, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      tile(q, at + i).mul(scale).intoArray(out, outAt + i);
    }
    for (; i < count; i++) {
      out[outAt + i] = q[at + i] * scale;
    }
  }

  /**
   * Turns scores into weights relative to the largest one's. {@link Vectors#exp} is written out,
   * all but its upper bound, which no difference to the largest meets: within {@link #attend} the
   * compiler would inline this method too, but no longer that one, and each vector would become an
   * object.
   */
  private static void weigh(
      float[] scores, int at, int begin, int end, float[] states, int max, int sum, float[] lanes) {
    if (begin >= end) {
      states[max] = Float.NEGATIVE_INFINITY;
      states[sum] = 0;
      return;
    }
    int from = at + (begin & -ROWS);
    int to = at + (end + ROWS - 1 & -ROWS);
    Arrays.fill(scores, from, at + begin, Float.NEGATIVE_INFINITY);
    Arrays.fill(scores, at + end, to, Float.NEGATIVE_INFINITY);
    // Floats compare as the integers that they are if the negative ones are turned round.
    IntVector largest = IntVector.broadcast(INTS, Integer.MIN_VALUE);
    for (int p = from; p < to; p += LANES) {
      IntVector bits = tile(scores, p).reinterpretAsInts();
      IntVector turn = bits.lanewise(ASHR, 31).lanewise(LSHR, 1);
      largest = largest.max(bits.lanewise(XOR, turn));
    }
    int key = largest.reduceLanes(MAX);
    float m = Float.intBitsToFloat(key ^ (key >> 31) >>> 1);
    states[max] = m;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector total = FloatVector.zero(FLOATS);
      for (int p = from + strip; p < to; p += ROWS) {
        FloatVector x = FloatVector.fromArray(FLOATS, scores, p).sub(m);
        FloatVector c = x.blend(Elementary.LOWEST, x.compare(LT, Elementary.LOWEST));
        FloatVector shifted =
            c.fma(
                FloatVector.broadcast(FLOATS, Elementary.LOG2_E),
                FloatVector.broadcast(FLOATS, Elementary.ROUND));
        FloatVector n = shifted.sub(Elementary.ROUND);
        FloatVector r = n.fma(FloatVector.broadcast(FLOATS, -Elementary.LN2_HIGH), c);
        r = n.fma(FloatVector.broadcast(FLOATS, -Elementary.LN2_LOW), r);
        FloatVector e =
            r.fma(
                FloatVector.broadcast(FLOATS, Elementary.P4),
                FloatVector.broadcast(FLOATS, Elementary.P3));
        e = e.fma(r, FloatVector.broadcast(FLOATS, Elementary.P2));
        e = e.fma(r, FloatVector.broadcast(FLOATS, Elementary.P1));
        e = e.fma(r, FloatVector.broadcast(FLOATS, Elementary.P0));
        e = e.fma(r.mul(r), r).add(1);
        IntVector power = shifted.reinterpretAsInts().sub(Elementary.ROUND_BITS);
        IntVector half = power.lanewise(ASHR, 1);
        e = e.mul(half.add(127).lanewise(LSHL, 23).reinterpretAsFloats());
        e = e.mul(power.sub(half).add(127).lanewise(LSHL, 23).reinterpretAsFloats());
        e.intoArray(scores, p);
        total = total.add(e);
      }
      total.intoArray(lanes, strip);
    }
    states[sum] = Elementary.tree(lanes, 0);
  }

  private static void mix(
      Heads heads,
      int position,
      int count,
      int chunk,
      float[] weights,
      float[] values,
      int width,
      float[] states,
      int statesAt) {
    int group = heads.queries() / heads.keyValues();
    int i = 0;
    for (; i + 4 <= count; i += 4) {
      // What all four see; of what only some see, each takes its own part before or after.
      int first = position + i / group;
      int last = position + (i + 3) / group;
      int begin = Kernels.begin(heads, last, chunk);
      int end = Math.max(begin, Kernels.end(first, chunk));
      if (first != last) {
        for (int j = i; j < i + 4; j++) {
          int own = Kernels.begin(heads, position + j / group, chunk);
          int stop = Math.min(begin, Kernels.end(position + j / group, chunk));
          mixOne(weights, j * CHUNK, own, stop, values, width, states, statesAt + j * width);
        }
      }
      for (int d = 0; d < width && begin < end; d += 2 * LANES) {
        four(
            weights,
            i * CHUNK + begin,
            CHUNK,
            values,
            begin * width + d,
            width,
            LANES,
            end - begin,
            states,
            statesAt + i * width + d,
            width);
      }
      if (first != last) {
        for (int j = i; j < i + 4; j++) {
          int stop = Kernels.end(position + j / group, chunk);
          mixOne(weights, j * CHUNK, end, stop, values, width, states, statesAt + j * width);
        }
      }
    }
    for (; i < count; i++) {
      int begin = Kernels.begin(heads, position + i / group, chunk);
      int end = Kernels.end(position + i / group, chunk);
      mixOne(weights, i * CHUNK, begin, end, values, width, states, statesAt + i * width);
    }
  }

  private static void mixOne(
      float[] weights,
      int at,
      int begin,
      int end,
      float[] values,
      int width,
      float[] out,
      int outAt) {
    if (begin >= end) {
      return;
    }
    int count = end - begin;
    int d = 0;
    for (; d + 4 * LANES <= width; d += 4 * LANES) {
      one(
          weights,
          at + begin,
          values,
          begin * width + d,
          width,
          LANES,
          2 * LANES,
          3 * LANES,
          count,
          out,
          outAt + d);
    }
    for (; d < width; d += 2 * LANES) {
      half(weights, at + begin, values, begin * width + d, width, count, out, outAt + d);
    }
  }

  /** {@code c[j, 0..2 vectors] += Σ_k a[j, k] · b[k, 0..2 vectors]} for four j. */
  private static void four(
      float[] a,
      int aAt,
      int aStride,
      float[] b,
      int bAt,
      int bStep,
      int bSecond,
      int count,
      float[] c,
      int cAt,
      int cStride) {
    int a1 = aAt + aStride;
    int a2 = a1 + aStride;
    int a3 = a2 + aStride;
    int c1 = cAt + cStride;
    int c2 = c1 + cStride;
    int c3 = c2 + cStride;
    FloatVector s00 = tile(c, cAt);
    FloatVector s01 = tile(c, cAt + LANES);
    FloatVector s10 = tile(c, c1);
    FloatVector s11 = tile(c, c1 + LANES);
    FloatVector s20 = tile(c, c2);
    FloatVector s21 = tile(c, c2 + LANES);
    FloatVector s30 = tile(c, c3);
    FloatVector s31 = tile(c, c3 + LANES);
    int next = bAt;
    for (int k = 0; k < count; k++) {
      FloatVector b0 = tile(b, next);
      FloatVector b1 = tile(b, next + bSecond);
      FloatVector x0 = FloatVector.broadcast(FLOATS, a[aAt + k]);
      s00 = x0.fma(b0, s00);
      s01 = x0.fma(b1, s01);
      FloatVector x1 = FloatVector.broadcast(FLOATS, a[a1 + k]);
      s10 = x1.fma(b0, s10);
      s11 = x1.fma(b1, s11);
      FloatVector x2 = FloatVector.broadcast(FLOATS, a[a2 + k]);
      s20 = x2.fma(b0, s20);
      s21 = x2.fma(b1, s21);
      FloatVector x3 = FloatVector.broadcast(FLOATS, a[a3 + k]);
      s30 = x3.fma(b0, s30);
      s31 = x3.fma(b1, s31);
      next += bStep;
    }
    s00.intoArray(c, cAt);
    s01.intoArray(c, cAt + LANES);
    s10.intoArray(c, c1);
    s11.intoArray(c, c1 + LANES);
    s20.intoArray(c, c2);
    s21.intoArray(c, c2 + LANES);
    s30.intoArray(c, c3);
    s31.intoArray(c, c3 + LANES);
  }

  /** {@code c[0..4 vectors] += Σ_k a[k] · b[k, 0..4 vectors]}. */
  private static void one(
      float[] a,
      int aAt,
      float[] b,
      int bAt,
      int bStep,
      int bSecond,
      int bThird,
      int bFourth,
      int count,
      float[] c,
      int cAt) {
    FloatVector s0 = tile(c, cAt);
    FloatVector s1 = tile(c, cAt + LANES);
    FloatVector s2 = tile(c, cAt + 2 * LANES);
    FloatVector s3 = tile(c, cAt + 3 * LANES);
    int next = bAt;
    for (int k = 0; k < count; k++) {
      FloatVector x = FloatVector.broadcast(FLOATS, a[aAt + k]);
      s0 = x.fma(tile(b, next), s0);
      s1 = x.fma(tile(b, next + bSecond), s1);
      s2 = x.fma(tile(b, next + bThird), s2);
      s3 = x.fma(tile(b, next + bFourth), s3);
      next += bStep;
    }
    s0.intoArray(c, cAt);
    s1.intoArray(c, cAt + LANES);
    s2.intoArray(c, cAt + 2 * LANES);
    s3.intoArray(c, cAt + 3 * LANES);
  }

  /** {@code c[0..2 vectors] += Σ_k a[k] · b[k, 0..2 vectors]}. */
  private static void half(
      float[] a, int aAt, float[] b, int bAt, int bStep, int count, float[] c, int cAt) {
    FloatVector s0 = tile(c, cAt);
    FloatVector s1 = tile(c, cAt + LANES);
    int next = bAt;
    for (int k = 0; k < count; k++) {
      FloatVector x = FloatVector.broadcast(FLOATS, a[aAt + k]);
      s0 = x.fma(tile(b, next), s0);
      s1 = x.fma(tile(b, next + LANES), s1);
      next += bStep;
    }
    s0.intoArray(c, cAt);
    s1.intoArray(c, cAt + LANES);
  }

  static void merge(float[] states, int from, int into, int count, int size) {
    int width = Kernels.stateWidth(size);
    for (int i = 0; i < count; i++) {
      int max = into + count * width + i;
      int sum = max + count;
      float m = states[from + count * width + i];
      float z = states[from + count * width + count + i];
      if (z == 0) {
        continue;
      }
      if (states[sum] == 0) {
        System.arraycopy(states, from + i * width, states, into + i * width, size);
        states[max] = m;
        states[sum] = z;
        continue;
      }
      boolean lower = m <= states[max];
      float a = lower ? 1 : Elementary.exp(states[max] - m);
      float b = lower ? Elementary.exp(m - states[max]) : 1;
      states[max] = lower ? states[max] : m;
      states[sum] = Math.fma(z, b, states[sum] * a);
      fold(states, from + i * width, b, into + i * width, a, width);
    }
  }

  private static void fold(float[] states, int from, float b, int into, float a, int width) {
    FloatVector fresh = FloatVector.broadcast(FLOATS, b);
    for (int d = 0; d < width; d += LANES) {
      tile(states, from + d).fma(fresh, tile(states, into + d).mul(a)).intoArray(states, into + d);
    }
  }

  static void finish(float[] states, int from, Heads heads, int rows, float[] out, int at) {
    int size = heads.size();
    int group = heads.queries() / heads.keyValues();
    int count = rows * group;
    int width = Kernels.stateWidth(size);
    for (int i = 0; i < count; i++) {
      float inverse = 1 / states[from + count * width + count + i];
      int outAt = at + (i / group * heads.queries() + i % group) * size;
      scale(states, from + i * width, inverse, out, outAt, size);
    }
  }
}
