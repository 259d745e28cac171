package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.bfloat16;
import static dev.wardrobe.compute.cpu.Vectors.exp;
import static dev.wardrobe.compute.cpu.Vectors.float32;
import static dev.wardrobe.compute.cpu.Vectors.tile;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;

/** One head over the pages of keys and values. */
final class VectorAttention {
  private static final int ROWS = Elementary.LANES;

  private VectorAttention() {}

  static void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int first,
      int last,
      float scale,
      float[] q,
      int qAt,
      float[] out,
      int outAt,
      Scratch scratch) {
    int size = pages.shape().headDim();
    int firstBlock = first / ROWS;
    int lastBlock = last / ROWS;
    // Scores of whole blocks; those outside first to last are never read as numbers.
    float[] scores = scratch.scores((lastBlock + 1 - firstBlock) * ROWS);
    boolean bf16 = pages.dtype() == DType.BF16;
    for (int block = firstBlock; block <= lastBlock; block++) {
      long keys = pages.keys(layer, blocks[block], head);
      int at = (block - firstBlock) * ROWS;
      for (int strip = 0; strip < ROWS; strip += LANES) {
        if (bf16) {
          scoresBfloat16(pages.data(), keys + strip, size, q, qAt, scale, scores, at + strip);
        } else {
          scores(pages.data(), keys + strip, size, q, qAt, scale, scores, at + strip);
        }
      }
    }
    int begin = first - firstBlock * ROWS;
    int end = last + 1 - firstBlock * ROWS;
    float inverse = weigh(scores, begin, end, scratch.lanes);
    int d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES) {
      if (bf16) {
        mixFourBfloat16(
            pages, layer, head, blocks, firstBlock, begin, end, d, scores, inverse, out, outAt + d);
      } else {
        mixFour(
            pages, layer, head, blocks, firstBlock, begin, end, d, scores, inverse, out, outAt + d);
      }
    }
    for (; d + LANES <= size; d += LANES) {
      mixOne(
          pages, layer, head, blocks, firstBlock, begin, end, d, scores, inverse, out, outAt + d);
    }
    if (d < size) {
      mixRest(
          pages, layer, head, blocks, firstBlock, begin, end, d, scores, inverse, out, outAt + d);
    }
  }

  private static void scores(
      MemorySegment data,
      long keys,
      int size,
      float[] q,
      int qAt,
      float scale,
      float[] scores,
      int at) {
    FloatVector c0 = FloatVector.zero(FLOATS);
    FloatVector c1 = c0;
    FloatVector c2 = c0;
    FloatVector c3 = c0;
    int d = 0;
    long next = keys;
    for (; d + 3 < size; d += 4) {
      c0 = float32(data, next).fma(FloatVector.broadcast(FLOATS, q[qAt + d]), c0);
      c1 = float32(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 1]), c1);
      c2 = float32(data, next + 2 * ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 2]), c2);
      c3 = float32(data, next + 3 * ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 3]), c3);
      next += 4 * ROWS;
    }
    // A head's size is even.
    if (d < size) {
      c0 = float32(data, next).fma(FloatVector.broadcast(FLOATS, q[qAt + d]), c0);
      c1 = float32(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 1]), c1);
    }
    c0.add(c1).add(c2.add(c3)).mul(scale).intoArray(scores, at);
  }

  private static void scoresBfloat16(
      MemorySegment data,
      long keys,
      int size,
      float[] q,
      int qAt,
      float scale,
      float[] scores,
      int at) {
    FloatVector c0 = FloatVector.zero(FLOATS);
    FloatVector c1 = c0;
    FloatVector c2 = c0;
    FloatVector c3 = c0;
    int d = 0;
    long next = keys;
    for (; d + 3 < size; d += 4) {
      c0 = bfloat16(data, next).fma(FloatVector.broadcast(FLOATS, q[qAt + d]), c0);
      c1 = bfloat16(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 1]), c1);
      c2 = bfloat16(data, next + 2 * ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 2]), c2);
      c3 = bfloat16(data, next + 3 * ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 3]), c3);
      next += 4 * ROWS;
    }
    // A head's size is even.
    if (d < size) {
      c0 = bfloat16(data, next).fma(FloatVector.broadcast(FLOATS, q[qAt + d]), c0);
      c1 = bfloat16(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, q[qAt + d + 1]), c1);
    }
    c0.add(c1).add(c2.add(c3)).mul(scale).intoArray(scores, at);
  }

  /** Turns scores into weights relative to the largest one's, and gives 1 / their sum. */
  private static float weigh(float[] scores, int begin, int end, float[] lanes) {
    float max = Float.NEGATIVE_INFINITY;
    for (int p = begin; p < end; p++) {
      max = Math.max(max, scores[p]);
    }
    int padded = (end + ROWS - 1) / ROWS * ROWS;
    Arrays.fill(scores, 0, begin, Float.NEGATIVE_INFINITY);
    Arrays.fill(scores, end, padded, Float.NEGATIVE_INFINITY);
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int p = strip; p < padded; p += ROWS) {
        FloatVector e = exp(tile(scores, p).sub(max));
        e.intoArray(scores, p);
        sum = sum.add(e);
      }
      sum.intoArray(lanes, strip);
    }
    return 1 / Elementary.tree(lanes, 0);
  }

  private static void mixFour(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int firstBlock,
      int begin,
      int end,
      int d,
      float[] weights,
      float inverse,
      float[] out,
      int outAt) {
    MemorySegment data = pages.data();
    int size = pages.shape().headDim();
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    int p = begin;
    while (p < end) {
      int stop = Math.min(end, (p / ROWS + 1) * ROWS);
      long next =
          pages.values(layer, blocks[firstBlock + p / ROWS], head) + (long) p % ROWS * size + d;
      for (; p < stop; p++) {
        FloatVector weight = FloatVector.broadcast(FLOATS, weights[p]);
        s0 = float32(data, next).fma(weight, s0);
        s1 = float32(data, next + LANES).fma(weight, s1);
        s2 = float32(data, next + 2L * LANES).fma(weight, s2);
        s3 = float32(data, next + 3L * LANES).fma(weight, s3);
        next += size;
      }
    }
    s0.mul(inverse).intoArray(out, outAt);
    s1.mul(inverse).intoArray(out, outAt + LANES);
    s2.mul(inverse).intoArray(out, outAt + 2 * LANES);
    s3.mul(inverse).intoArray(out, outAt + 3 * LANES);
  }

  private static void mixFourBfloat16(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int firstBlock,
      int begin,
      int end,
      int d,
      float[] weights,
      float inverse,
      float[] out,
      int outAt) {
    MemorySegment data = pages.data();
    int size = pages.shape().headDim();
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    int p = begin;
    while (p < end) {
      int stop = Math.min(end, (p / ROWS + 1) * ROWS);
      long next =
          pages.values(layer, blocks[firstBlock + p / ROWS], head) + (long) p % ROWS * size + d;
      for (; p < stop; p++) {
        FloatVector weight = FloatVector.broadcast(FLOATS, weights[p]);
        s0 = bfloat16(data, next).fma(weight, s0);
        s1 = bfloat16(data, next + LANES).fma(weight, s1);
        s2 = bfloat16(data, next + 2L * LANES).fma(weight, s2);
        s3 = bfloat16(data, next + 3L * LANES).fma(weight, s3);
        next += size;
      }
    }
    s0.mul(inverse).intoArray(out, outAt);
    s1.mul(inverse).intoArray(out, outAt + LANES);
    s2.mul(inverse).intoArray(out, outAt + 2 * LANES);
    s3.mul(inverse).intoArray(out, outAt + 3 * LANES);
  }

  private static void mixOne(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int firstBlock,
      int begin,
      int end,
      int d,
      float[] weights,
      float inverse,
      float[] out,
      int outAt) {
    MemorySegment data = pages.data();
    int size = pages.shape().headDim();
    boolean bf16 = pages.dtype() == DType.BF16;
    FloatVector sum = FloatVector.zero(FLOATS);
    int p = begin;
    while (p < end) {
      int stop = Math.min(end, (p / ROWS + 1) * ROWS);
      long next =
          pages.values(layer, blocks[firstBlock + p / ROWS], head) + (long) p % ROWS * size + d;
      if (bf16) {
        for (; p < stop; p++) {
          sum = bfloat16(data, next).fma(FloatVector.broadcast(FLOATS, weights[p]), sum);
          next += size;
        }
      } else {
        for (; p < stop; p++) {
          sum = float32(data, next).fma(FloatVector.broadcast(FLOATS, weights[p]), sum);
          next += size;
        }
      }
    }
    sum.mul(inverse).intoArray(out, outAt);
  }

  /** The last elements of a head, fewer than a vector holds. */
  private static void mixRest(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int firstBlock,
      int begin,
      int end,
      int d,
      float[] weights,
      float inverse,
      float[] out,
      int outAt) {
    int size = pages.shape().headDim();
    int count = size - d;
    float[] values = new float[LANES];
    Arrays.fill(out, outAt, outAt + count, 0);
    for (int p = begin; p < end; p++) {
      long at =
          pages.values(layer, blocks[firstBlock + p / ROWS], head) + (long) p % ROWS * size + d;
      pages.dtype().widen(pages.data(), at, values, 0, count);
      for (int i = 0; i < count; i++) {
        out[outAt + i] = Math.fma(weights[p], values[i], out[outAt + i]);
      }
    }
    for (int i = 0; i < count; i++) {
      out[outAt + i] *= inverse;
    }
  }
}
