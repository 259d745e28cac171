package dev.wardrobe.compute.cpu;

import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_S2I;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;
import org.jspecify.annotations.Nullable;

/**
 * The kernels on the Vector API, at the machine's preferred width or at {@code
 * -Dwardrobe.vector.bits=128|256|512}.
 */
final class VectorKernels implements Kernels {
  /*
   * Width never shows in a result because 16 is a multiple of every width's lanes: a panel is 16 rows
   * in one, two or four vectors ("strips"), and sums along a row keep 16 lanes in as many. What a
   * vector cannot take at the end of a row is done by the same scalar operations as in the twin.
   *
   * For the compiler: the species are constants of the class, vectors live in local variables only,
   * and each loop is a small static method, so that no vector is ever an object. In the larger loops
   * even a one-line helper would not be inlined any more (DesiredMethodLimit, which spares the Vector
   * API's own methods alone), so they are written out.
   */
  static final String BITS_PROPERTY = "wardrobe.vector.bits";

  private static final VectorSpecies<Float> FLOATS = floats(Integer.getInteger(BITS_PROPERTY, 0));
  private static final VectorSpecies<Integer> INTS = FLOATS.vectorShape().withLanes(int.class);
  private static final VectorSpecies<Short> SHORTS =
      VectorShape.forBitSize(FLOATS.vectorBitSize() / 2).withLanes(short.class);
  private static final int LANES = FLOATS.length();
  private static final int ROWS = Panels.ROWS;
  private static final int GROUP = NibblePanels.GROUP;
  private static final ByteOrder ORDER = ByteOrder.LITTLE_ENDIAN;
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ORDER);
  private static final float[] NO_SCALES = new float[0];

  /** Whether the width was chosen by property. */
  static boolean forced() {
    return Integer.getInteger(BITS_PROPERTY, 0) != 0;
  }

  private static VectorSpecies<Float> floats(int bits) {
    int chosen = bits != 0 ? bits : Math.min(512, FloatVector.SPECIES_PREFERRED.vectorBitSize());
    return switch (chosen) {
      case 128 -> FloatVector.SPECIES_128;
      case 256 -> FloatVector.SPECIES_256;
      case 512 -> FloatVector.SPECIES_512;
      default ->
          throw new IllegalArgumentException(
              BITS_PROPERTY + ": expected 128, 256 or 512, got " + chosen);
    };
  }

  @Override
  public String describe() {
    return FLOATS.vectorBitSize() + "-bit vectors";
  }

  // Widening.

  /** Widens {@code count} elements from element {@code from} on, exactly. */
  private static void widen(
      DType dtype, MemorySegment data, long from, float[] out, int at, int count) {
    switch (dtype) {
      case BF16 -> widenBfloat16(data, from, out, at, count);
      case F16 -> widenFloat16(data, from, out, at, count);
      default -> MemorySegment.copy(data, FLOAT, 4 * from, out, at, count);
    }
  }

  private static void widenBfloat16(MemorySegment data, long from, float[] out, int at, int count) {
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES) {
      bfloat16(data, from + i).intoArray(out, at + i);
    }
    DType.BF16.widen(data, from + whole, out, at + whole, count - whole);
  }

  private static FloatVector bfloat16(MemorySegment data, long element) {
    return shorts(data, element).lanewise(LSHL, 16).reinterpretAsFloats();
  }

  private static IntVector shorts(MemorySegment data, long element) {
    return (IntVector)
        ShortVector.fromMemorySegment(SHORTS, data, 2 * element, ORDER)
            .convertShape(ZERO_EXTEND_S2I, INTS, 0);
  }

  /*
   * A float16's exponent and fraction, moved to a float32's place, are its value times 2^-112, for
   * subnormals too; infinities and NaN get the largest exponent by hand.
   */
  private static void widenFloat16(MemorySegment data, long from, float[] out, int at, int count) {
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES) {
      IntVector half = shorts(data, from + i);
      IntVector magnitude = half.and(0x7fff).lanewise(LSHL, 13);
      IntVector finite = magnitude.reinterpretAsFloats().mul(0x1p112f).reinterpretAsInts();
      IntVector special = magnitude.or(0x7f800000);
      IntVector value = finite.blend(special, magnitude.compare(GE, 0x7c00 << 13));
      IntVector sign = half.and(0x8000).lanewise(LSHL, 16);
      value.or(sign).reinterpretAsFloats().intoArray(out, at + i);
    }
    DType.F16.widen(data, from + whole, out, at + whole, count - whole);
  }

  // Projections.

  @Override
  public void linear(
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

  @Override
  public void linearInput(
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

  // Adapters.

  @Override
  public void shrink(
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

  private static FloatVector tile(float[] tile, int at) {
    return FloatVector.fromArray(FLOATS, tile, at);
  }

  /** Inner product in 16 lanes. */
  private static float dot(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int k = strip; k < whole; k += ROWS) {
        sum = tile(a, aAt + k).fma(tile(b, bAt + k), sum);
      }
      sum.intoArray(lanes, strip);
    }
    for (int k = whole; k < count; k++) {
      lanes[k - whole] = Math.fma(a[aAt + k], b[bAt + k], lanes[k - whole]);
    }
    return Elementary.tree(lanes, 0);
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

  @Override
  public void expand(
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

  // Rows.

  @Override
  public void multiply(float[] factors, int from, float[] y, int at, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      tile(y, at + i).mul(tile(factors, from + i)).intoArray(y, at + i);
    }
    for (; i < count; i++) {
      y[at + i] *= factors[from + i];
    }
  }

  @Override
  public void add(float[] terms, int from, float[] y, int at, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      tile(y, at + i).add(tile(terms, from + i)).intoArray(y, at + i);
    }
    for (; i < count; i++) {
      y[at + i] += terms[from + i];
    }
  }

  @Override
  public void norm(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] out,
      int outAt,
      Scratch scratch) {
    float mean = dot(x, at, x, at, width, scratch.lanes) / width;
    float inverse = (float) (1 / Math.sqrt((double) (mean + epsilon)));
    int i = 0;
    for (; i + LANES <= width; i += LANES) {
      tile(weight, i).mul(tile(x, at + i).mul(inverse)).intoArray(out, outAt + i);
    }
    for (; i < width; i++) {
      out[outAt + i] = weight[i] * (x[at + i] * inverse);
    }
  }

  @Override
  public void activate(float[] gate, float[] up, float[] out, int from, int to) {
    int i = from;
    for (; i + LANES <= to; i += LANES) {
      FloatVector g = tile(gate, i);
      g.div(exp(g.neg()).add(1)).mul(tile(up, i)).intoArray(out, i);
    }
    for (; i < to; i++) {
      out[i] = gate[i] / (1 + Elementary.exp(-gate[i])) * up[i];
    }
  }

  /** {@link Elementary#exp}, lane by lane. */
  private static FloatVector exp(FloatVector x) {
    FloatVector c = x.max(Elementary.LOWEST).min(Elementary.HIGHEST);
    FloatVector shifted =
        c.fma(
            FloatVector.broadcast(FLOATS, Elementary.LOG2_E),
            FloatVector.broadcast(FLOATS, Elementary.ROUND));
    FloatVector n = shifted.sub(Elementary.ROUND);
    FloatVector r = n.fma(FloatVector.broadcast(FLOATS, -Elementary.LN2_HIGH), c);
    r = n.fma(FloatVector.broadcast(FLOATS, -Elementary.LN2_LOW), r);
    FloatVector p =
        r.fma(
            FloatVector.broadcast(FLOATS, Elementary.P4),
            FloatVector.broadcast(FLOATS, Elementary.P3));
    p = p.fma(r, FloatVector.broadcast(FLOATS, Elementary.P2));
    p = p.fma(r, FloatVector.broadcast(FLOATS, Elementary.P1));
    p = p.fma(r, FloatVector.broadcast(FLOATS, Elementary.P0));
    p = p.fma(r.mul(r), r).add(1);
    IntVector power = shifted.reinterpretAsInts().sub(Elementary.ROUND_BITS);
    IntVector half = power.lanewise(ASHR, 1);
    return p.mul(powerOfTwo(half)).mul(powerOfTwo(power.sub(half)));
  }

  private static FloatVector powerOfTwo(IntVector power) {
    return power.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
  }

  @Override
  public void exponentials(float[] a, int at, int count, float max, float divisor, float[] out) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      exp(tile(a, at + i).sub(max).div(divisor)).intoArray(out, i);
    }
    for (; i < count; i++) {
      out[i] = Elementary.exp((a[at + i] - max) / divisor);
    }
  }

  @Override
  public double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch) {
    double sum = 0;
    float[] lanes = scratch.lanes;
    for (int from = 0; from < count; from += RUN) {
      sumOfRun(a, at + from, Math.min(RUN, count - from), max, lanes);
      sum += Elementary.tree(lanes, 0);
    }
    return sum;
  }

  private static void sumOfRun(float[] a, int at, int count, float max, float[] lanes) {
    int whole = count - count % ROWS;
    for (int strip = 0; strip < ROWS; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int i = strip; i < whole; i += ROWS) {
        sum = sum.add(exp(tile(a, at + i).sub(max)));
      }
      sum.intoArray(lanes, strip);
    }
    for (int i = whole; i < count; i++) {
      lanes[i - whole] += Elementary.exp(a[at + i] - max);
    }
  }

  // Attention.

  @Override
  public void attend(
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

  private static FloatVector float32(MemorySegment data, long element) {
    return FloatVector.fromMemorySegment(FLOATS, data, 4 * element, ORDER);
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
