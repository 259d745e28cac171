package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.ORDER;
import static dev.wardrobe.compute.cpu.Vectors.bfloat16;
import static dev.wardrobe.compute.cpu.Vectors.tile;
import static dev.wardrobe.compute.cpu.Vectors.widen;
import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.NE;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

/** Products with the base's weights, forward and backward. */
final class VectorProjections {
  private static final int ROWS = Panels.ROWS;
  private static final int GROUP = NibblePanels.GROUP;
  private static final float[] NO_SCALES = new float[0];

  private VectorProjections() {}

  static void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int from,
      int to,
      float[] y,
      Scratch scratch) {
    for (int first = from; first < to; first += Scratch.TOKENS) {
      int last = Math.min(to, first + Scratch.TOKENS);
      for (int panel = panelFrom; panel < panelTo; panel++) {
        if (last - first == 1
            && LANES == ROWS
            && w instanceof NibblePanels nibbles
            && nibbles.aligned()) {
          nibblesOfOne(nibbles, panel, x, first * w.cols(), scratch);
        } else if (last - first == 1
            && w instanceof DensePanels dense
            && dense.dtype() == DType.BF16) {
          bfloat16OfOne(dense, panel, x, first * w.cols(), scratch.sums);
        } else {
          panel(w, panel, x, first, last, scratch);
        }
        int live = Math.min(ROWS, w.rows() - panel * ROWS);
        for (int token = first; token < last; token++) {
          System.arraycopy(
              scratch.sums, (token - first) * ROWS, y, token * w.rows() + panel * ROWS, live);
        }
      }
    }
  }

  /** One token: weights go from memory into the sum without a stop. Vectors of 16 lanes only. */
  private static void nibblesOfOne(NibblePanels w, int panel, float[] x, int at, Scratch scratch) {
    float[] scales = scratch.scales(w.scaleCount());
    w.scales(panel, scratch, scales);
    nibbles(
        w.packed(),
        4 * w.word(panel, 0),
        w.codebook(),
        scales,
        w.blockSize() / w.unit(),
        w.units(),
        w.unit() / GROUP,
        x,
        at,
        scratch.sums);
  }

  private static void nibbles(
      MemorySegment packed,
      long bytes,
      float[] codebook,
      float[] scales,
      int unitsPerBlock,
      int units,
      int groups,
      float[] x,
      int at,
      float[] sums) {
    IntVector table = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    FloatVector sum = FloatVector.zero(FLOATS);
    long next = bytes;
    int k = at;
    for (int unit = 0; unit < units; unit++) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = FloatVector.zero(FLOATS);
      FloatVector a2 = FloatVector.zero(FLOATS);
      FloatVector a3 = FloatVector.zero(FLOATS);
      for (int group = 0; group < groups; group++) {
        // Of an index selectFrom takes the lowest four bits alone.
        IntVector eight = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
        a0 =
            eight
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k]), a0);
        a1 =
            eight
                .lanewise(LSHR, 4)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 1]), a1);
        a2 =
            eight
                .lanewise(LSHR, 8)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 2]), a2);
        a3 =
            eight
                .lanewise(LSHR, 12)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 3]), a3);
        a0 =
            eight
                .lanewise(LSHR, 16)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 4]), a0);
        a1 =
            eight
                .lanewise(LSHR, 20)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 5]), a1);
        a2 =
            eight
                .lanewise(LSHR, 24)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 6]), a2);
        a3 =
            eight
                .lanewise(LSHR, 28)
                .selectFrom(table)
                .reinterpretAsFloats()
                .fma(FloatVector.broadcast(FLOATS, x[k + 7]), a3);
        next += 4 * ROWS;
        k += GROUP;
      }
      FloatVector scale = FloatVector.fromArray(FLOATS, scales, unit / unitsPerBlock * ROWS);
      sum = scale.fma(a0.add(a1).add(a2.add(a3)), sum);
    }
    sum.intoArray(sums, 0);
  }

  /** One token and bfloat16 weights: the usual head. */
  private static void bfloat16OfOne(DensePanels w, int panel, float[] x, int at, float[] sums) {
    long first = w.element(panel * ROWS, 0);
    for (int strip = 0; strip < ROWS; strip += LANES) {
      bfloat16Strip(w.data(), first + strip, w.cols(), x, at, sums, strip);
    }
  }

  private static void bfloat16Strip(
      MemorySegment data, long first, int cols, float[] x, int at, float[] sums, int strip) {
    FloatVector sum = FloatVector.zero(FLOATS);
    long next = first;
    for (int k = 0; k < cols; k += Panels.UNIT) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = FloatVector.zero(FLOATS);
      FloatVector a2 = FloatVector.zero(FLOATS);
      FloatVector a3 = FloatVector.zero(FLOATS);
      int i = at + k;
      int end = at + Math.min(cols, k + Panels.UNIT);
      for (; i + 3 < end; i += 4) {
        a0 = bfloat16(data, next).fma(FloatVector.broadcast(FLOATS, x[i]), a0);
        a1 = bfloat16(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, x[i + 1]), a1);
        a2 = bfloat16(data, next + 2 * ROWS).fma(FloatVector.broadcast(FLOATS, x[i + 2]), a2);
        a3 = bfloat16(data, next + 3 * ROWS).fma(FloatVector.broadcast(FLOATS, x[i + 3]), a3);
        next += 4 * ROWS;
      }
      if (i < end) {
        a0 = bfloat16(data, next).fma(FloatVector.broadcast(FLOATS, x[i]), a0);
      }
      if (i + 1 < end) {
        a1 = bfloat16(data, next + ROWS).fma(FloatVector.broadcast(FLOATS, x[i + 1]), a1);
      }
      if (i + 2 < end) {
        a2 = bfloat16(data, next + 2 * ROWS).fma(FloatVector.broadcast(FLOATS, x[i + 2]), a2);
      }
      sum = sum.add(a0.add(a1).add(a2.add(a3)));
    }
    sum.intoArray(sums, strip);
  }

  /** Several tokens: each unit's weights are decoded once, into a tile that stays in the cache. */
  private static void panel(Panels w, int panel, float[] x, int from, int to, Scratch scratch) {
    int cols = w.cols();
    int tokens = to - from;
    Arrays.fill(scratch.sums, 0, tokens * ROWS, 0);
    float[] scales = NO_SCALES;
    int unitsPerBlock = 1;
    if (w instanceof NibblePanels nibbles && nibbles.aligned()) {
      scales = scratch.scales(nibbles.scaleCount());
      nibbles.scales(panel, scratch, scales);
      unitsPerBlock = nibbles.blockSize() / nibbles.unit();
    } else {
      scales = scratch.scales(ROWS);
      Arrays.fill(scales, 0, ROWS, 1);
    }
    boolean scaled = w instanceof NibblePanels nibbles && nibbles.aligned();
    for (int unit = 0; unit < w.units(); unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      codes(w, panel, k, count, scratch.tile);
      int scale = scaled ? unit / unitsPerBlock * ROWS : 0;
      for (int strip = 0; strip < ROWS; strip += LANES) {
        int token = 0;
        for (; token + 3 < tokens && count % 4 == 0; token += 4) {
          fourTokens(
              scratch.tile,
              strip,
              count,
              x,
              (from + token) * cols + k,
              cols,
              scales,
              scale + strip,
              scratch.sums,
              token * ROWS + strip);
        }
        for (; token < tokens; token++) {
          oneToken(
              scratch.tile,
              strip,
              count,
              x,
              (from + token) * cols + k,
              scales,
              scale + strip,
              scratch.sums,
              token * ROWS + strip);
        }
      }
    }
  }

  private static void oneToken(
      float[] tile,
      int strip,
      int count,
      float[] x,
      int at,
      float[] scales,
      int scaleAt,
      float[] sums,
      int sumAt) {
    FloatVector a0 = FloatVector.zero(FLOATS);
    FloatVector a1 = FloatVector.zero(FLOATS);
    FloatVector a2 = FloatVector.zero(FLOATS);
    FloatVector a3 = FloatVector.zero(FLOATS);
    int i = 0;
    int row = strip;
    for (; i + 3 < count; i += 4) {
      a0 =
          FloatVector.fromArray(FLOATS, tile, row)
              .fma(FloatVector.broadcast(FLOATS, x[at + i]), a0);
      a1 =
          FloatVector.fromArray(FLOATS, tile, row + ROWS)
              .fma(FloatVector.broadcast(FLOATS, x[at + i + 1]), a1);
      a2 =
          FloatVector.fromArray(FLOATS, tile, row + 2 * ROWS)
              .fma(FloatVector.broadcast(FLOATS, x[at + i + 2]), a2);
      a3 =
          FloatVector.fromArray(FLOATS, tile, row + 3 * ROWS)
              .fma(FloatVector.broadcast(FLOATS, x[at + i + 3]), a3);
      row += 4 * ROWS;
    }
    if (i < count) {
      a0 =
          FloatVector.fromArray(FLOATS, tile, row)
              .fma(FloatVector.broadcast(FLOATS, x[at + i]), a0);
    }
    if (i + 1 < count) {
      a1 =
          FloatVector.fromArray(FLOATS, tile, row + ROWS)
              .fma(FloatVector.broadcast(FLOATS, x[at + i + 1]), a1);
    }
    if (i + 2 < count) {
      a2 =
          FloatVector.fromArray(FLOATS, tile, row + 2 * ROWS)
              .fma(FloatVector.broadcast(FLOATS, x[at + i + 2]), a2);
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale
        .fma(a0.add(a1).add(a2.add(a3)), FloatVector.fromArray(FLOATS, sums, sumAt))
        .intoArray(sums, sumAt);
  }

  /**
   * Four tokens share each load of the tile: 16 sums in as many registers. The count is a multiple
   * of 4.
   */
  private static void fourTokens(
      float[] tile,
      int strip,
      int count,
      float[] x,
      int at,
      int stride,
      float[] scales,
      int scaleAt,
      float[] sums,
      int sumAt) {
    int p1 = at + stride;
    int p2 = p1 + stride;
    int p3 = p2 + stride;
    FloatVector a0 = FloatVector.zero(FLOATS);
    FloatVector a1 = a0;
    FloatVector a2 = a0;
    FloatVector a3 = a0;
    FloatVector b0 = a0;
    FloatVector b1 = a0;
    FloatVector b2 = a0;
    FloatVector b3 = a0;
    FloatVector c0 = a0;
    FloatVector c1 = a0;
    FloatVector c2 = a0;
    FloatVector c3 = a0;
    FloatVector d0 = a0;
    FloatVector d1 = a0;
    FloatVector d2 = a0;
    FloatVector d3 = a0;
    int row = strip;
    for (int i = 0; i < count; i += 4) {
      FloatVector w = FloatVector.fromArray(FLOATS, tile, row);
      a0 = w.fma(FloatVector.broadcast(FLOATS, x[at + i]), a0);
      b0 = w.fma(FloatVector.broadcast(FLOATS, x[p1 + i]), b0);
      c0 = w.fma(FloatVector.broadcast(FLOATS, x[p2 + i]), c0);
      d0 = w.fma(FloatVector.broadcast(FLOATS, x[p3 + i]), d0);
      w = FloatVector.fromArray(FLOATS, tile, row + ROWS);
      a1 = w.fma(FloatVector.broadcast(FLOATS, x[at + i + 1]), a1);
      b1 = w.fma(FloatVector.broadcast(FLOATS, x[p1 + i + 1]), b1);
      c1 = w.fma(FloatVector.broadcast(FLOATS, x[p2 + i + 1]), c1);
      d1 = w.fma(FloatVector.broadcast(FLOATS, x[p3 + i + 1]), d1);
      w = FloatVector.fromArray(FLOATS, tile, row + 2 * ROWS);
      a2 = w.fma(FloatVector.broadcast(FLOATS, x[at + i + 2]), a2);
      b2 = w.fma(FloatVector.broadcast(FLOATS, x[p1 + i + 2]), b2);
      c2 = w.fma(FloatVector.broadcast(FLOATS, x[p2 + i + 2]), c2);
      d2 = w.fma(FloatVector.broadcast(FLOATS, x[p3 + i + 2]), d2);
      w = FloatVector.fromArray(FLOATS, tile, row + 3 * ROWS);
      a3 = w.fma(FloatVector.broadcast(FLOATS, x[at + i + 3]), a3);
      b3 = w.fma(FloatVector.broadcast(FLOATS, x[p1 + i + 3]), b3);
      c3 = w.fma(FloatVector.broadcast(FLOATS, x[p2 + i + 3]), c3);
      d3 = w.fma(FloatVector.broadcast(FLOATS, x[p3 + i + 3]), d3);
      row += 4 * ROWS;
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale
        .fma(a0.add(a1).add(a2.add(a3)), FloatVector.fromArray(FLOATS, sums, sumAt))
        .intoArray(sums, sumAt);
    scale
        .fma(b0.add(b1).add(b2.add(b3)), FloatVector.fromArray(FLOATS, sums, sumAt + ROWS))
        .intoArray(sums, sumAt + ROWS);
    scale
        .fma(c0.add(c1).add(c2.add(c3)), FloatVector.fromArray(FLOATS, sums, sumAt + 2 * ROWS))
        .intoArray(sums, sumAt + 2 * ROWS);
    scale
        .fma(d0.add(d1).add(d2.add(d3)), FloatVector.fromArray(FLOATS, sums, sumAt + 3 * ROWS))
        .intoArray(sums, sumAt + 3 * ROWS);
  }

  /**
   * The weights {@code (count inputs, 16 rows)} of a panel, without their scale if they have one.
   */
  private static void codes(Panels w, int panel, int k, int count, float[] tile) {
    switch (w) {
      case DensePanels dense ->
          widen(dense.dtype(), dense.data(), dense.element(panel * ROWS, k), tile, 0, count * ROWS);
      case NibblePanels nibbles when nibbles.aligned() -> {
        long bytes = 4 * nibbles.word(panel, k / GROUP);
        for (int strip = 0; strip < ROWS; strip += LANES) {
          tileOfCodes(nibbles.packed(), bytes + 4L * strip, nibbles.codebook(), count, tile, strip);
        }
      }
      case NibblePanels nibbles -> nibbles.weights(panel, k, count, tile);
    }
  }

  /** Narrower vectors hold the table in two or four parts. */
  private static void tileOfCodes(
      MemorySegment packed, long bytes, float[] codebook, int count, float[] tile, int strip) {
    IntVector t0 = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    IntVector t1 = FloatVector.fromArray(FLOATS, codebook, LANES % ROWS).reinterpretAsInts();
    IntVector t2 = FloatVector.fromArray(FLOATS, codebook, 2 * LANES % ROWS).reinterpretAsInts();
    IntVector t3 = FloatVector.fromArray(FLOATS, codebook, 3 * LANES % ROWS).reinterpretAsInts();
    long next = bytes;
    int row = strip;
    for (int i = 0; i < count; i += GROUP) {
      IntVector eight = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
      for (int j = 0; j < GROUP; j++) {
        // Of an index selectFrom takes as many of the lowest bits as there are lanes for.
        IntVector value = eight.selectFrom(t0);
        if (LANES == 8) {
          value = value.blend(eight.selectFrom(t1), eight.and(8).compare(NE, 0));
        } else if (LANES == 4) {
          IntVector part = eight.and(12);
          value =
              value
                  .blend(eight.selectFrom(t1), part.compare(EQ, 4))
                  .blend(eight.selectFrom(t2), part.compare(EQ, 8))
                  .blend(eight.selectFrom(t3), part.compare(EQ, 12));
        }
        value.reinterpretAsFloats().intoArray(tile, row);
        eight = eight.lanewise(LSHR, 4);
        row += ROWS;
      }
      next += 4 * ROWS;
    }
  }

  static void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch) {
    int rows = w.rows();
    int cols = w.cols();
    for (int unit = unitFrom; unit < unitTo; unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      float[] sums = scratch.row(tokens * Panels.UNIT);
      Arrays.fill(sums, 0, tokens * Panels.UNIT, 0);
      for (int panel = 0; panel < w.panels(); panel++) {
        int live = Math.min(ROWS, rows - panel * ROWS);
        weights(w, panel, k, count, scratch);
        turn(scratch.tile, count, scratch.turned);
        for (int token = 0; token < tokens; token++) {
          for (int i = 0; i < Panels.UNIT; i += 4 * LANES) {
            sixteenGradients(
                scratch.turned,
                i,
                live,
                dy,
                token * rows + panel * ROWS,
                sums,
                token * Panels.UNIT + i);
          }
        }
      }
      for (int token = 0; token < tokens; token++) {
        for (int i = 0; i < count; i++) {
          dx[token * cols + k + i] += sums[token * Panels.UNIT + i];
        }
      }
    }
  }

  /** The weights of a panel with their scale, {@code (count inputs, 16 rows)}. */
  private static void weights(Panels w, int panel, int k, int count, Scratch scratch) {
    codes(w, panel, k, count, scratch.tile);
    if (w instanceof NibblePanels nibbles && nibbles.aligned()) {
      float[] scales = scratch.scales(nibbles.scaleCount());
      nibbles.scales(panel, scratch, scales);
      int at = k / nibbles.blockSize() * ROWS;
      for (int i = 0; i < count * ROWS; i += ROWS) {
        for (int row = 0; row < ROWS; row++) {
          scratch.tile[i + row] *= scales[at + row];
        }
      }
    }
  }

  /** A tile the other way round; inputs beyond {@code count} are zeros. */
  private static void turn(float[] tile, int count, float[] turned) {
    for (int row = 0; row < ROWS; row++) {
      for (int i = 0; i < count; i++) {
        turned[row * Panels.UNIT + i] = tile[i * ROWS + row];
      }
      Arrays.fill(turned, row * Panels.UNIT + count, (row + 1) * Panels.UNIT, 0);
    }
  }

  /** Adds up to 16 outputs' gradients to four vectors of inputs. */
  private static void sixteenGradients(
      float[] turned, int from, int live, float[] dy, int dyAt, float[] sums, int at) {
    FloatVector s0 = tile(sums, at);
    FloatVector s1 = tile(sums, at + LANES);
    FloatVector s2 = tile(sums, at + 2 * LANES);
    FloatVector s3 = tile(sums, at + 3 * LANES);
    int i = from;
    for (int row = 0; row < live; row++) {
      FloatVector gradient = FloatVector.broadcast(FLOATS, dy[dyAt + row]);
      s0 = tile(turned, i).fma(gradient, s0);
      s1 = tile(turned, i + LANES).fma(gradient, s1);
      s2 = tile(turned, i + 2 * LANES).fma(gradient, s2);
      s3 = tile(turned, i + 3 * LANES).fma(gradient, s3);
      i += Panels.UNIT;
    }
    s0.intoArray(sums, at);
    s1.intoArray(sums, at + LANES);
    s2.intoArray(sums, at + 2 * LANES);
    s3.intoArray(sums, at + 3 * LANES);
  }
}
