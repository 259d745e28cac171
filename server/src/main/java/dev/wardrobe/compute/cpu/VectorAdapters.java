package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.dot;
import static dev.wardrobe.compute.cpu.Vectors.tile;
import static dev.wardrobe.compute.cpu.Vectors.widen;

import jdk.incubator.vector.FloatVector;
import org.jspecify.annotations.Nullable;

/** Low-rank products. */
final class VectorAdapters {
  private static final int ROWS = Elementary.LANES;

  private VectorAdapters() {}

  static void shrink(
      Factor a, int j, float[] x, int from, int to, float[] t, int at, Scratch scratch) {
    int cols = a.cols();
    float[] row = scratch.row(cols);
    widen(a.dtype(), a.data(), (long) j * cols, row, 0, cols);
    int token = from;
    for (; token + 3 < to; token += 4) {
      fourDots(row, x, token * cols, cols, scratch.lanes);
      for (int i = 0; i < 4; i++) {
        t[at + (token + i - from) * a.rows() + j] = Elementary.tree(scratch.lanes, i * ROWS);
      }
    }
    for (; token < to; token++) {
      t[at + (token - from) * a.rows() + j] = dot(row, 0, x, token * cols, cols, scratch.lanes);
    }
  }

  /** One row with four others; leaves the lanes of all four. */
  private static void fourDots(float[] a, float[] b, int at, int count, float[] lanes) {
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector s0 = FloatVector.zero(FLOATS);
      FloatVector s1 = s0;
      FloatVector s2 = s0;
      FloatVector s3 = s0;
      for (int k = strip; k < whole; k += ROWS) {
        FloatVector factor = tile(a, k);
        s0 = factor.fma(tile(b, at + k), s0);
        s1 = factor.fma(tile(b, at + count + k), s1);
        s2 = factor.fma(tile(b, at + 2 * count + k), s2);
        s3 = factor.fma(tile(b, at + 3 * count + k), s3);
      }
      s0.intoArray(lanes, strip);
      s1.intoArray(lanes, ROWS + strip);
      s2.intoArray(lanes, 2 * ROWS + strip);
      s3.intoArray(lanes, 3 * ROWS + strip);
    }
    for (int i = 0; i < 4; i++) {
      for (int k = whole; k < count; k++) {
        int lane = i * ROWS + k - whole;
        lanes[lane] = Math.fma(a[k], b[at + i * count + k], lanes[lane]);
      }
    }
  }

  static void expand(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int outFrom,
      int outTo,
      float[] y,
      int from,
      int to,
      Scratch scratch) {
    int rank = b.rows();
    int cols = b.cols();
    float[] rows = scratch.row(rank * Panels.UNIT);
    for (int out = outFrom; out < outTo; out += Panels.UNIT) {
      int count = Math.min(Panels.UNIT, outTo - out);
      for (int j = 0; j < rank; j++) {
        widen(b.dtype(), b.data(), (long) j * cols + out, rows, j * Panels.UNIT, count);
      }
      int whole = count - count % LANES;
      for (int token = from; token < to; token++) {
        int tAt = at + (token - from) * rank;
        int yAt = token * cols + out;
        int i = 0;
        for (; i + 4 * LANES <= whole; i += 4 * LANES) {
          expandFour(rows, i, rank, t, tAt, scale, bias, out + i, y, yAt + i);
        }
        for (; i < whole; i += LANES) {
          expandOne(rows, i, rank, t, tAt, scale, bias, out + i, y, yAt + i);
        }
        for (; i < count; i++) {
          float sum = 0;
          for (int j = 0; j < rank; j++) {
            sum = Math.fma(t[tAt + j], rows[j * Panels.UNIT + i], sum);
          }
          if (bias != null) {
            sum += bias[out + i];
          }
          y[yAt + i] = Math.fma(scale, sum, y[yAt + i]);
        }
      }
    }
  }

  private static void expandFour(
      float[] rows,
      int from,
      int rank,
      float[] t,
      int tAt,
      float scale,
      float @Nullable [] bias,
      int biasAt,
      float[] y,
      int yAt) {
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    int i = from;
    for (int j = 0; j < rank; j++) {
      FloatVector factor = FloatVector.broadcast(FLOATS, t[tAt + j]);
      s0 = tile(rows, i).fma(factor, s0);
      s1 = tile(rows, i + LANES).fma(factor, s1);
      s2 = tile(rows, i + 2 * LANES).fma(factor, s2);
      s3 = tile(rows, i + 3 * LANES).fma(factor, s3);
      i += Panels.UNIT;
    }
    addScaled(s0, scale, bias, biasAt, y, yAt);
    addScaled(s1, scale, bias, biasAt + LANES, y, yAt + LANES);
    addScaled(s2, scale, bias, biasAt + 2 * LANES, y, yAt + 2 * LANES);
    addScaled(s3, scale, bias, biasAt + 3 * LANES, y, yAt + 3 * LANES);
  }

  private static void expandOne(
      float[] rows,
      int from,
      int rank,
      float[] t,
      int tAt,
      float scale,
      float @Nullable [] bias,
      int biasAt,
      float[] y,
      int yAt) {
    FloatVector sum = FloatVector.zero(FLOATS);
    int i = from;
    for (int j = 0; j < rank; j++) {
      sum = tile(rows, i).fma(FloatVector.broadcast(FLOATS, t[tAt + j]), sum);
      i += Panels.UNIT;
    }
    addScaled(sum, scale, bias, biasAt, y, yAt);
  }

  private static void addScaled(
      FloatVector sum, float scale, float @Nullable [] bias, int biasAt, float[] y, int yAt) {
    FloatVector term = bias == null ? sum : sum.add(tile(bias, biasAt));
    term.fma(FloatVector.broadcast(FLOATS, scale), tile(y, yAt)).intoArray(y, yAt);
  }
}
