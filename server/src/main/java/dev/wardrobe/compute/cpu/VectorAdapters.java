package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.ORDER;
import static dev.wardrobe.compute.cpu.Vectors.dot;
import static dev.wardrobe.compute.cpu.Vectors.float32;
import static dev.wardrobe.compute.cpu.Vectors.highBfloat16;
import static dev.wardrobe.compute.cpu.Vectors.highFloat16;
import static dev.wardrobe.compute.cpu.Vectors.lowBfloat16;
import static dev.wardrobe.compute.cpu.Vectors.lowFloat16;
import static dev.wardrobe.compute.cpu.Vectors.tile;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import org.jspecify.annotations.Nullable;

/**
 * Low-rank products. For one token the weights go from memory into the sums without a stop, because
 * reading them is all the time there is; for several tokens they are widened once, as many as fit
 * the cache.
 */
final class VectorAdapters {
  /*
   * The loops over weights of one token are flat: one loop whose every turn reads the same number of
   * lines, with a branch where a group of rows or a panel ends. Nested loops read no more, but the
   * compiler peels and unrolls the inner one, so that no load's addresses advance evenly any more;
   * the processor's prefetcher then gives up, at a third of the bandwidth. Addresses are written as
   * a base and a multiple of the loop's counter, which takes their bounds checks out of the loop.
   */

  private static final int ROWS = Factor.LANES;
  private static final int GROUP = Factor.GROUP;

  /** Ranks of a turn of the loops over panels. */
  private static final int EIGHT = 8;

  /** Floats of A that are widened at a time: a share of a second-level cache. */
  private static final int WIDENED = 1 << 16;

  private VectorAdapters() {}

  static void shrink(
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch) {
    int grouped = Math.min(jTo, a.rank() & -GROUP);
    int next = jFrom;
    if (to - from == 1 && jFrom < grouped && a.inLines() > 0 && a.dtype() != DType.F16) {
      shrinkGroups(a, jFrom, grouped, x, from * a.length(), t, at, scratch);
      next = grouped;
    }
    if (next < jTo) {
      shrinkWidened(a, next, jTo, x, from, to, t, at, scratch);
    }
  }

  /** Whole groups of rows, for one token. */
  private static void shrinkGroups(
      Factor a, int jFrom, int jTo, float[] x, int xAt, float[] t, int at, Scratch scratch) {
    float[] lanes = scratch.row((jTo - jFrom) * ROWS);
    int size = a.dtype().bytes();
    // Narrower vectors take a line in several goes: the second finds it in the nearest cache.
    int most = LANES == ROWS ? jTo - jFrom : GROUP;
    for (int first = jFrom; first < jTo; first += most) {
      for (int strip = 0; strip < ROWS; strip += LANES) {
        int lanesAt = (first - jFrom) * ROWS + strip;
        int groups = most / GROUP;
        long bytes = size * a.line(first, 0) + 4L * strip;
        long rest = (long) GROUP * (a.length() - a.inLines()) * size;
        int count = a.inLines();
        if (a.dtype() == DType.BF16) {
          groupsOfBfloat16(a.data(), bytes, rest, groups, x, xAt + strip, count, lanes, lanesAt);
        } else {
          groupsOfFloat32(a.data(), bytes, rest, groups, x, xAt + strip, count, lanes, lanesAt);
        }
      }
    }
    for (int j = jFrom; j < jTo; j++) {
      int lane = (j - jFrom) * ROWS;
      for (int k = a.inLines(); k < a.length(); k++) {
        int of = lane + k % ROWS;
        lanes[of] = Math.fma(a.get(j, k), x[xAt + k], lanes[of]);
      }
      t[at + j] = Elementary.tree(lanes, lane);
    }
  }

  private static void groupsOfBfloat16(
      MemorySegment data,
      long bytes,
      long rest,
      int groups,
      float[] x,
      int xFrom,
      int count,
      float[] lanes,
      int lanesFrom) {
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    int turns = groups * (count / (2 * ROWS));
    long first = bytes;
    int xAt = xFrom;
    int lane = lanesFrom;
    for (int turn = 0; turn < turns; turn++) {
      long next = first + 256L * turn;
      FloatVector low = tile(x, xAt);
      FloatVector high = tile(x, xAt + ROWS);
      IntVector line = IntVector.fromMemorySegment(INTS, data, next, ORDER);
      s0 = lowBfloat16(line).fma(low, s0);
      s0 = highBfloat16(line).fma(high, s0);
      line = IntVector.fromMemorySegment(INTS, data, next + 64, ORDER);
      s1 = lowBfloat16(line).fma(low, s1);
      s1 = highBfloat16(line).fma(high, s1);
      line = IntVector.fromMemorySegment(INTS, data, next + 128, ORDER);
      s2 = lowBfloat16(line).fma(low, s2);
      s2 = highBfloat16(line).fma(high, s2);
      line = IntVector.fromMemorySegment(INTS, data, next + 192, ORDER);
      s3 = lowBfloat16(line).fma(low, s3);
      s3 = highBfloat16(line).fma(high, s3);
      xAt += 2 * ROWS;
      if (xAt == xFrom + count) {
        s0.intoArray(lanes, lane);
        s1.intoArray(lanes, lane + ROWS);
        s2.intoArray(lanes, lane + 2 * ROWS);
        s3.intoArray(lanes, lane + 3 * ROWS);
        s0 = FloatVector.zero(FLOATS);
        s1 = s0;
        s2 = s0;
        s3 = s0;
        lane += 4 * ROWS;
        xAt = xFrom;
        first += rest;
      }
    }
  }

  private static void groupsOfFloat32(
      MemorySegment data,
      long bytes,
      long rest,
      int groups,
      float[] x,
      int xFrom,
      int count,
      float[] lanes,
      int lanesFrom) {
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    int turns = groups * (count / ROWS);
    long first = bytes;
    int xAt = xFrom;
    int lane = lanesFrom;
    for (int turn = 0; turn < turns; turn++) {
      long next = first + 256L * turn;
      FloatVector input = tile(x, xAt);
      s0 = FloatVector.fromMemorySegment(FLOATS, data, next, ORDER).fma(input, s0);
      s1 = FloatVector.fromMemorySegment(FLOATS, data, next + 64, ORDER).fma(input, s1);
      s2 = FloatVector.fromMemorySegment(FLOATS, data, next + 128, ORDER).fma(input, s2);
      s3 = FloatVector.fromMemorySegment(FLOATS, data, next + 192, ORDER).fma(input, s3);
      xAt += ROWS;
      if (xAt == xFrom + count) {
        s0.intoArray(lanes, lane);
        s1.intoArray(lanes, lane + ROWS);
        s2.intoArray(lanes, lane + 2 * ROWS);
        s3.intoArray(lanes, lane + 3 * ROWS);
        s0 = FloatVector.zero(FLOATS);
        s1 = s0;
        s2 = s0;
        s3 = s0;
        lane += 4 * ROWS;
        xAt = xFrom;
        first += rest;
      }
    }
  }

  /** Any rows, for any number of tokens. */
  private static void shrinkWidened(
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch) {
    int cols = a.length();
    int rank = a.rank();
    int most = Math.clamp(WIDENED / cols, 4, 16) & -4;
    for (int first = jFrom; first < jTo; first += most) {
      int count = Math.min(most, jTo - first);
      float[] rows = scratch.row(count * cols);
      for (int j = 0; j < count; j += GROUP) {
        widenRows(a, first + j, rows, j * cols);
      }
      int target = at + first;
      int token = from;
      for (; token + 3 < to; token += 4) {
        fourTokens(rows, count, x, token * cols, cols, t, target, rank, scratch.lanes);
        target += 4 * rank;
      }
      for (; token < to; token++) {
        oneToken(rows, count, x, token * cols, cols, t, target, scratch.lanes);
        target += rank;
      }
    }
  }

  /** Widens the group of rows that begins with row {@code j}. */
  private static void widenRows(Factor a, int j, float[] out, int at) {
    int cols = a.length();
    int rows = Math.min(GROUP, a.rank() - j);
    long bytes = a.dtype().bytes() * a.line(j, 0);
    int lines = rows * (a.inLines() / a.perLine());
    for (int strip = 0; strip < ROWS; strip += LANES) {
      widenLines(a, bytes + 4L * strip, lines, rows, cols, out, at + strip);
    }
    for (int row = 0; row < rows; row++) {
      for (int k = a.inLines(); k < cols; k++) {
        out[at + row * cols + k] = a.get(j + row, k);
      }
    }
  }

  /** Widens lines of which every {@code rows} go to as many rows of {@code cols}. */
  private static void widenLines(
      Factor factor, long bytes, int lines, int rows, int cols, float[] out, int at) {
    switch (factor.dtype()) {
      case BF16 -> linesOfBfloat16(factor.data(), bytes, lines, rows, cols, out, at);
      case F16 -> linesOfFloat16(factor.data(), bytes, lines, rows, cols, out, at);
      default -> linesOfFloat32(factor.data(), bytes, lines, rows, cols, out, at);
    }
  }

  private static void linesOfBfloat16(
      MemorySegment data, long bytes, int lines, int rows, int cols, float[] out, int at) {
    int row = 0;
    int target = at;
    for (int i = 0; i < lines; i++) {
      IntVector line = IntVector.fromMemorySegment(INTS, data, bytes + 64L * i, ORDER);
      lowBfloat16(line).intoArray(out, target);
      highBfloat16(line).intoArray(out, target + ROWS);
      target += cols;
      if (++row == rows) {
        row = 0;
        target += 2 * ROWS - rows * cols;
      }
    }
  }

  private static void linesOfFloat16(
      MemorySegment data, long bytes, int lines, int rows, int cols, float[] out, int at) {
    int row = 0;
    int target = at;
    for (int i = 0; i < lines; i++) {
      IntVector line = IntVector.fromMemorySegment(INTS, data, bytes + 64L * i, ORDER);
      lowFloat16(line).intoArray(out, target);
      highFloat16(line).intoArray(out, target + ROWS);
      target += cols;
      if (++row == rows) {
        row = 0;
        target += 2 * ROWS - rows * cols;
      }
    }
  }

  private static void linesOfFloat32(
      MemorySegment data, long bytes, int lines, int rows, int cols, float[] out, int at) {
    int row = 0;
    int target = at;
    for (int i = 0; i < lines; i++) {
      float32(data, bytes / 4 + 16L * i).intoArray(out, target);
      target += cols;
      if (++row == rows) {
        row = 0;
        target += ROWS - rows * cols;
      }
    }
  }

  private static void oneToken(
      float[] rows, int count, float[] x, int xAt, int cols, float[] t, int at, float[] lanes) {
    int j = 0;
    for (; j + 3 < count; j += 4) {
      fourDots(x, xAt, rows, j * cols, cols, lanes);
      for (int i = 0; i < 4; i++) {
        t[at + j + i] = Elementary.tree(lanes, i * ROWS);
      }
    }
    for (; j < count; j++) {
      t[at + j] = dot(x, xAt, rows, j * cols, cols, lanes);
    }
  }

  private static void fourTokens(
      float[] rows,
      int count,
      float[] x,
      int xAt,
      int cols,
      float[] t,
      int at,
      int rank,
      float[] lanes) {
    int j = 0;
    for (; j + 1 < count; j += 2) {
      eightDots(rows, j * cols, x, xAt, cols, lanes);
      for (int i = 0; i < 4; i++) {
        t[at + i * rank + j] = Elementary.tree(lanes, i * ROWS);
        t[at + i * rank + j + 1] = Elementary.tree(lanes, (4 + i) * ROWS);
      }
    }
    if (j < count) {
      fourDots(rows, j * cols, x, xAt, cols, lanes);
      for (int i = 0; i < 4; i++) {
        t[at + i * rank + j] = Elementary.tree(lanes, i * ROWS);
      }
    }
  }

  /** One row with four neighbouring others; leaves the lanes of all four. */
  private static void fourDots(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector s0 = FloatVector.zero(FLOATS);
      FloatVector s1 = s0;
      FloatVector s2 = s0;
      FloatVector s3 = s0;
      for (int k = strip; k < whole; k += ROWS) {
        FloatVector factor = tile(a, aAt + k);
        s0 = factor.fma(tile(b, bAt + k), s0);
        s1 = factor.fma(tile(b, bAt + count + k), s1);
        s2 = factor.fma(tile(b, bAt + 2 * count + k), s2);
        s3 = factor.fma(tile(b, bAt + 3 * count + k), s3);
      }
      s0.intoArray(lanes, strip);
      s1.intoArray(lanes, ROWS + strip);
      s2.intoArray(lanes, 2 * ROWS + strip);
      s3.intoArray(lanes, 3 * ROWS + strip);
    }
    dotsOfRest(a, aAt, b, bAt, whole, count, lanes, 0);
  }

  /** Two neighbouring rows with four others; leaves the lanes of the first, then of the second. */
  private static void eightDots(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    int whole = count - count % ROWS;
    int b1 = bAt + count;
    int b2 = b1 + count;
    int b3 = b2 + count;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector s0 = FloatVector.zero(FLOATS);
      FloatVector s1 = s0;
      FloatVector s2 = s0;
      FloatVector s3 = s0;
      FloatVector r0 = s0;
      FloatVector r1 = s0;
      FloatVector r2 = s0;
      FloatVector r3 = s0;
      for (int k = strip; k < whole; k += ROWS) {
        FloatVector s = tile(a, aAt + k);
        FloatVector r = tile(a, aAt + count + k);
        FloatVector input = tile(b, bAt + k);
        s0 = s.fma(input, s0);
        r0 = r.fma(input, r0);
        input = tile(b, b1 + k);
        s1 = s.fma(input, s1);
        r1 = r.fma(input, r1);
        input = tile(b, b2 + k);
        s2 = s.fma(input, s2);
        r2 = r.fma(input, r2);
        input = tile(b, b3 + k);
        s3 = s.fma(input, s3);
        r3 = r.fma(input, r3);
      }
      s0.intoArray(lanes, strip);
      s1.intoArray(lanes, ROWS + strip);
      s2.intoArray(lanes, 2 * ROWS + strip);
      s3.intoArray(lanes, 3 * ROWS + strip);
      r0.intoArray(lanes, 4 * ROWS + strip);
      r1.intoArray(lanes, 5 * ROWS + strip);
      r2.intoArray(lanes, 6 * ROWS + strip);
      r3.intoArray(lanes, 7 * ROWS + strip);
    }
    dotsOfRest(a, aAt, b, bAt, whole, count, lanes, 0);
    dotsOfRest(a, aAt + count, b, bAt, whole, count, lanes, 4 * ROWS);
  }

  private static void dotsOfRest(
      float[] a, int aAt, float[] b, int bAt, int whole, int count, float[] lanes, int at) {
    for (int i = 0; i < 4; i++) {
      for (int k = whole; k < count; k++) {
        int lane = at + i * ROWS + k - whole;
        lanes[lane] = Math.fma(a[aAt + k], b[bAt + i * count + k], lanes[lane]);
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
    int panelFrom = outFrom / ROWS;
    int panelTo = outTo / ROWS;
    if (to - from == 1 && b.rank() % EIGHT == 0 && b.dtype() != DType.F16) {
      expandDirect(b, scale, bias, t, at, panelFrom, panelTo, y, from * b.length());
    } else {
      expandWidened(b, scale, bias, t, at, panelFrom, panelTo, y, from, to, scratch);
    }
    if (panelTo * ROWS < outTo) {
      lastPanel(b, scale, bias, t, at, panelTo * ROWS, y, from, to);
    }
  }

  /** Whole panels for one token, at a rank that is a multiple of eight. */
  private static void expandDirect(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int panelFrom,
      int panelTo,
      float[] y,
      int row) {
    int most = LANES == ROWS ? panelTo - panelFrom : EIGHT;
    for (int first = panelFrom; first < panelTo; first += most) {
      int panels = Math.min(most, panelTo - first);
      for (int strip = 0; strip < ROWS; strip += LANES) {
        long bytes = b.dtype().bytes() * b.element(0, first * ROWS) + 4L * strip;
        int out = first * ROWS + strip;
        if (b.dtype() == DType.BF16) {
          panelsOfBfloat16(
              b.data(), bytes, panels, b.rank(), t, at, scale, bias, out, y, row + out);
        } else {
          panelsOfFloat32(b.data(), bytes, panels, b.rank(), t, at, scale, bias, out, y, row + out);
        }
      }
    }
  }

  private static void panelsOfBfloat16(
      MemorySegment data,
      long bytes,
      int panels,
      int rank,
      float[] t,
      int tFrom,
      float scale,
      float @Nullable [] bias,
      int biasFrom,
      float[] y,
      int yFrom) {
    int turns = panels * (rank / EIGHT);
    int out = 0;
    int j = tFrom;
    FloatVector sum = FloatVector.zero(FLOATS);
    for (int turn = 0; turn < turns; turn++) {
      long next = bytes + 256L * turn;
      IntVector line = IntVector.fromMemorySegment(INTS, data, next, ORDER);
      sum = lowBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j]), sum);
      sum = highBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 1]), sum);
      line = IntVector.fromMemorySegment(INTS, data, next + 64, ORDER);
      sum = lowBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 2]), sum);
      sum = highBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 3]), sum);
      line = IntVector.fromMemorySegment(INTS, data, next + 128, ORDER);
      sum = lowBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 4]), sum);
      sum = highBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 5]), sum);
      line = IntVector.fromMemorySegment(INTS, data, next + 192, ORDER);
      sum = lowBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 6]), sum);
      sum = highBfloat16(line).fma(FloatVector.broadcast(FLOATS, t[j + 7]), sum);
      j += EIGHT;
      if (j == tFrom + rank) {
        if (bias != null) {
          sum = sum.add(tile(bias, biasFrom + out));
        }
        sum.fma(FloatVector.broadcast(FLOATS, scale), tile(y, yFrom + out))
            .intoArray(y, yFrom + out);
        sum = FloatVector.zero(FLOATS);
        out += ROWS;
        j = tFrom;
      }
    }
  }

  private static void panelsOfFloat32(
      MemorySegment data,
      long bytes,
      int panels,
      int rank,
      float[] t,
      int tFrom,
      float scale,
      float @Nullable [] bias,
      int biasFrom,
      float[] y,
      int yFrom) {
    int turns = panels * (rank / EIGHT);
    int out = 0;
    int j = tFrom;
    FloatVector sum = FloatVector.zero(FLOATS);
    for (int turn = 0; turn < turns; turn++) {
      long next = bytes + 512L * turn;
      for (int i = 0; i < EIGHT; i++) {
        sum =
            FloatVector.fromMemorySegment(FLOATS, data, next + 64L * i, ORDER)
                .fma(FloatVector.broadcast(FLOATS, t[j + i]), sum);
      }
      j += EIGHT;
      if (j == tFrom + rank) {
        if (bias != null) {
          sum = sum.add(tile(bias, biasFrom + out));
        }
        sum.fma(FloatVector.broadcast(FLOATS, scale), tile(y, yFrom + out))
            .intoArray(y, yFrom + out);
        sum = FloatVector.zero(FLOATS);
        out += ROWS;
        j = tFrom;
      }
    }
  }

  /** Whole panels for any number of tokens, at any rank. */
  private static void expandWidened(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int panelFrom,
      int panelTo,
      float[] y,
      int from,
      int to,
      Scratch scratch) {
    int rank = b.rank();
    int width = b.length();
    int panel = panelFrom;
    while (panel < panelTo) {
      int panels = panel + 3 < panelTo ? 4 : 1;
      float[] rows = scratch.row(panels * rank * ROWS);
      for (int i = 0; i < panels; i++) {
        widenPanel(b, panel + i, rows, i * rank * ROWS);
      }
      for (int strip = 0; strip < ROWS; strip += LANES) {
        int out = panel * ROWS + strip;
        int tAt = at;
        int yAt = from * width + out;
        int token = from;
        for (; panels == 4 && token + 1 < to; token += 2) {
          twoTokens(rows, strip, rank, t, tAt, scale, bias, out, y, yAt, width);
          tAt += 2 * rank;
          yAt += 2 * width;
        }
        for (; token < to; token++) {
          if (panels == 4) {
            fourPanels(rows, strip, rank, t, tAt, scale, bias, out, y, yAt);
          } else {
            onePanel(rows, strip, rank, t, tAt, scale, bias, out, y, yAt);
          }
          tAt += rank;
          yAt += width;
        }
      }
      panel += panels;
    }
  }

  private static void widenPanel(Factor b, int panel, float[] out, int at) {
    int rank = b.rank();
    int paired = b.dtype() == DType.F32 ? rank : rank & -2;
    long bytes = b.dtype().bytes() * b.element(0, panel * ROWS);
    for (int strip = 0; strip < ROWS; strip += LANES) {
      widenLines(b, bytes + 4L * strip, paired * ROWS / b.perLine(), 1, 0, out, at + strip);
    }
    if (paired < rank) {
      long last = b.element(rank - 1, panel * ROWS);
      Vectors.widen(b.dtype(), b.data(), last, out, at + paired * ROWS, ROWS);
    }
  }

  private static void fourPanels(
      float[] rows,
      int at,
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
    int second = at + rank * ROWS;
    int third = second + rank * ROWS;
    int fourth = third + rank * ROWS;
    for (int j = 0; j < rank; j++) {
      FloatVector factor = FloatVector.broadcast(FLOATS, t[tAt + j]);
      int i = j * ROWS;
      s0 = tile(rows, at + i).fma(factor, s0);
      s1 = tile(rows, second + i).fma(factor, s1);
      s2 = tile(rows, third + i).fma(factor, s2);
      s3 = tile(rows, fourth + i).fma(factor, s3);
    }
    if (bias != null) {
      s0 = s0.add(tile(bias, biasAt));
      s1 = s1.add(tile(bias, biasAt + ROWS));
      s2 = s2.add(tile(bias, biasAt + 2 * ROWS));
      s3 = s3.add(tile(bias, biasAt + 3 * ROWS));
    }
    FloatVector scales = FloatVector.broadcast(FLOATS, scale);
    s0.fma(scales, tile(y, yAt)).intoArray(y, yAt);
    s1.fma(scales, tile(y, yAt + ROWS)).intoArray(y, yAt + ROWS);
    s2.fma(scales, tile(y, yAt + 2 * ROWS)).intoArray(y, yAt + 2 * ROWS);
    s3.fma(scales, tile(y, yAt + 3 * ROWS)).intoArray(y, yAt + 3 * ROWS);
  }

  /** Two tokens share each load of four panels. */
  private static void twoTokens(
      float[] rows,
      int at,
      int rank,
      float[] t,
      int tAt,
      float scale,
      float @Nullable [] bias,
      int biasAt,
      float[] y,
      int yAt,
      int width) {
    FloatVector s0 = FloatVector.zero(FLOATS);
    FloatVector s1 = s0;
    FloatVector s2 = s0;
    FloatVector s3 = s0;
    FloatVector r0 = s0;
    FloatVector r1 = s0;
    FloatVector r2 = s0;
    FloatVector r3 = s0;
    int second = at + rank * ROWS;
    int third = second + rank * ROWS;
    int fourth = third + rank * ROWS;
    for (int j = 0; j < rank; j++) {
      FloatVector s = FloatVector.broadcast(FLOATS, t[tAt + j]);
      FloatVector r = FloatVector.broadcast(FLOATS, t[tAt + rank + j]);
      int i = j * ROWS;
      FloatVector weight = tile(rows, at + i);
      s0 = weight.fma(s, s0);
      r0 = weight.fma(r, r0);
      weight = tile(rows, second + i);
      s1 = weight.fma(s, s1);
      r1 = weight.fma(r, r1);
      weight = tile(rows, third + i);
      s2 = weight.fma(s, s2);
      r2 = weight.fma(r, r2);
      weight = tile(rows, fourth + i);
      s3 = weight.fma(s, s3);
      r3 = weight.fma(r, r3);
    }
    if (bias != null) {
      FloatVector terms = tile(bias, biasAt);
      s0 = s0.add(terms);
      r0 = r0.add(terms);
      terms = tile(bias, biasAt + ROWS);
      s1 = s1.add(terms);
      r1 = r1.add(terms);
      terms = tile(bias, biasAt + 2 * ROWS);
      s2 = s2.add(terms);
      r2 = r2.add(terms);
      terms = tile(bias, biasAt + 3 * ROWS);
      s3 = s3.add(terms);
      r3 = r3.add(terms);
    }
    FloatVector scales = FloatVector.broadcast(FLOATS, scale);
    s0.fma(scales, tile(y, yAt)).intoArray(y, yAt);
    s1.fma(scales, tile(y, yAt + ROWS)).intoArray(y, yAt + ROWS);
    s2.fma(scales, tile(y, yAt + 2 * ROWS)).intoArray(y, yAt + 2 * ROWS);
    s3.fma(scales, tile(y, yAt + 3 * ROWS)).intoArray(y, yAt + 3 * ROWS);
    int next = yAt + width;
    r0.fma(scales, tile(y, next)).intoArray(y, next);
    r1.fma(scales, tile(y, next + ROWS)).intoArray(y, next + ROWS);
    r2.fma(scales, tile(y, next + 2 * ROWS)).intoArray(y, next + 2 * ROWS);
    r3.fma(scales, tile(y, next + 3 * ROWS)).intoArray(y, next + 3 * ROWS);
  }

  private static void onePanel(
      float[] rows,
      int at,
      int rank,
      float[] t,
      int tAt,
      float scale,
      float @Nullable [] bias,
      int biasAt,
      float[] y,
      int yAt) {
    FloatVector sum = FloatVector.zero(FLOATS);
    for (int j = 0; j < rank; j++) {
      FloatVector factor = FloatVector.broadcast(FLOATS, t[tAt + j]);
      sum = tile(rows, at + j * ROWS).fma(factor, sum);
    }
    if (bias != null) {
      sum = sum.add(tile(bias, biasAt));
    }
    sum.fma(FloatVector.broadcast(FLOATS, scale), tile(y, yAt)).intoArray(y, yAt);
  }

  /** The last outputs, if fewer than 16. */
  private static void lastPanel(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int out,
      float[] y,
      int from,
      int to) {
    int rank = b.rank();
    int width = b.length();
    for (int i = out; i < width; i++) {
      for (int token = from; token < to; token++) {
        float sum = 0;
        for (int j = 0; j < rank; j++) {
          sum = Math.fma(t[at + (token - from) * rank + j], b.get(j, i), sum);
        }
        if (bias != null) {
          sum += bias[i];
        }
        y[token * width + i] = Math.fma(scale, sum, y[token * width + i]);
      }
    }
  }
}
