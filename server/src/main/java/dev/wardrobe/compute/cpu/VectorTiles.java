package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.ORDER;
import static dev.wardrobe.compute.cpu.Vectors.SHORTS;
import static dev.wardrobe.compute.cpu.Vectors.shorts;
import static dev.wardrobe.compute.cpu.Vectors.widen;
import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.I2S;
import static jdk.incubator.vector.VectorOperators.IS_NAN;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.NE;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

/** Tiles on the Vector API. */
final class VectorTiles implements Tiles {
  private static final int HEIGHT = Panels.HEIGHT;
  private static final int GROUP = NibblePanels.GROUP;
  private static final int CODES = 16;

  /** Bytes of a tile from one pair of inputs to the next. */
  private static final int PAIR = 4 * OneDnn.TILE_ROWS;

  private static final Tiles REST = new ScalarTiles();

  @Override
  public void round(float[] x, int from, int count, MemorySegment to, long at) {
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES) {
      rounded(FloatVector.fromArray(FLOATS, x, from + i))
          .lanewise(LSHR, 16)
          .convertShape(I2S, SHORTS, 0)
          .reinterpretAsShorts()
          .intoMemorySegment(to, at + 2L * i, ORDER);
    }
    REST.round(x, from + whole, count - whole, to, at + 2L * whole);
  }

  /** The nearest bfloat16 in the upper halves. */
  private static IntVector rounded(FloatVector x) {
    return x.reinterpretAsInts().add(0x8000).blend(0x7fc00000, x.test(IS_NAN).cast(INTS));
  }

  @Override
  public void pairs(
      Panels w, int panel, int k, int count, MemorySegment tile, long at, Scratch scratch) {
    switch (w) {
      case NibblePanels nibbles when nibbles.aligned() -> {
        float[] scales = scratch.scales(nibbles.scaleCount());
        VectorProjections.scales(nibbles, panel, scratch, scales, 0);
        for (int strip = 0; strip < HEIGHT; strip += LANES) {
          nibbles(nibbles, panel, k, count, scales, strip, tile, at + 4L * strip);
        }
      }
      case DensePanels dense when dense.dtype() == DType.BF16 -> {
        for (int strip = 0; strip < HEIGHT; strip += LANES) {
          bfloat16(
              dense.data(), dense.element(panel * HEIGHT, k) + strip, count, tile, at + 4L * strip);
        }
      }
      default -> {
        for (int first = 0; first < count; first += Panels.UNIT) {
          int inputs = Math.min(Panels.UNIT, count - first);
          switch (w) {
            case DensePanels dense ->
                widen(
                    dense.dtype(),
                    dense.data(),
                    dense.element(panel * HEIGHT, k + first),
                    scratch.tile,
                    0,
                    inputs * HEIGHT);
            case NibblePanels nibbles -> nibbles.weights(panel, k + first, inputs, scratch.tile);
          }
          for (int strip = 0; strip < HEIGHT; strip += LANES) {
            floats(
                scratch.tile, strip, inputs, tile, at + 2L * first * OneDnn.TILE_ROWS + 4L * strip);
          }
        }
      }
    }
  }

  private static void nibbles(
      NibblePanels w,
      int panel,
      int k,
      int count,
      float[] scales,
      int strip,
      MemorySegment tile,
      long at) {
    long from = 4 * w.word(panel, k / GROUP) + 4L * strip;
    int unit = w.unit();
    int block = w.blockSize();
    for (int done = 0; done < count; done += unit) {
      long next = from + (long) done / GROUP * 4 * HEIGHT;
      int scale = (k + done) / block * HEIGHT + strip;
      int groups = Math.min(unit, count - done) / GROUP;
      long out = at + 2L * done * OneDnn.TILE_ROWS;
      if (LANES == CODES) {
        wide(w.packed(), next, w.codebook(), scales, scale, groups, tile, out);
      } else {
        narrow(w.packed(), next, w.codebook(), scales, scale, groups, tile, out);
      }
    }
  }

  /** A unit whose 16 codes' values fit one vector; unrolled, since the compiler does not. */
  private static void wide(
      MemorySegment packed,
      long from,
      float[] codebook,
      float[] scales,
      int scaleAt,
      int groups,
      MemorySegment tile,
      long at) {
    IntVector table = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    // Of the many NaN some would overflow when rounded.
    scale = scale.blend(Float.NaN, scale.test(IS_NAN));
    long next = from;
    long out = at;
    for (int group = 0; group < groups; group++) {
      // Of an index selectFrom takes the lowest four bits alone.
      IntVector eight = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
      IntVector even =
          eight
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .lanewise(LSHR, 16);
      IntVector odd =
          eight
              .lanewise(LSHR, 4)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .and(0xffff0000);
      even.or(odd).intoMemorySegment(tile, out, ORDER);
      even =
          eight
              .lanewise(LSHR, 8)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .lanewise(LSHR, 16);
      odd =
          eight
              .lanewise(LSHR, 12)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .and(0xffff0000);
      even.or(odd).intoMemorySegment(tile, out + PAIR, ORDER);
      even =
          eight
              .lanewise(LSHR, 16)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .lanewise(LSHR, 16);
      odd =
          eight
              .lanewise(LSHR, 20)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .and(0xffff0000);
      even.or(odd).intoMemorySegment(tile, out + 2 * PAIR, ORDER);
      even =
          eight
              .lanewise(LSHR, 24)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .lanewise(LSHR, 16);
      odd =
          eight
              .lanewise(LSHR, 28)
              .selectFrom(table)
              .reinterpretAsFloats()
              .mul(scale)
              .reinterpretAsInts()
              .add(0x8000)
              .and(0xffff0000);
      even.or(odd).intoMemorySegment(tile, out + 3 * PAIR, ORDER);
      next += 4 * HEIGHT;
      out += 4 * PAIR;
    }
  }

  private static void narrow(
      MemorySegment packed,
      long from,
      float[] codebook,
      float[] scales,
      int scaleAt,
      int groups,
      MemorySegment tile,
      long at) {
    IntVector t0 = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    IntVector t1 = FloatVector.fromArray(FLOATS, codebook, LANES % CODES).reinterpretAsInts();
    IntVector t2 = FloatVector.fromArray(FLOATS, codebook, 2 * LANES % CODES).reinterpretAsInts();
    IntVector t3 = FloatVector.fromArray(FLOATS, codebook, 3 * LANES % CODES).reinterpretAsInts();
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    // Of the many NaN some would overflow when rounded.
    scale = scale.blend(Float.NaN, scale.test(IS_NAN));
    long next = from;
    long out = at;
    for (int group = 0; group < groups; group++) {
      IntVector eight = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
      for (int j = 0; j < GROUP; j += 2) {
        // Of an index selectFrom takes as many of the lowest bits as there are lanes for.
        IntVector even = eight.selectFrom(t0);
        IntVector second = eight.lanewise(LSHR, 4);
        IntVector odd = second.selectFrom(t0);
        if (LANES == 8) {
          even = even.blend(eight.selectFrom(t1), eight.and(8).compare(NE, 0));
          odd = odd.blend(second.selectFrom(t1), second.and(8).compare(NE, 0));
        } else if (LANES == 4) {
          IntVector part = eight.and(12);
          even =
              even.blend(eight.selectFrom(t1), part.compare(EQ, 4))
                  .blend(eight.selectFrom(t2), part.compare(EQ, 8))
                  .blend(eight.selectFrom(t3), part.compare(EQ, 12));
          part = second.and(12);
          odd =
              odd.blend(second.selectFrom(t1), part.compare(EQ, 4))
                  .blend(second.selectFrom(t2), part.compare(EQ, 8))
                  .blend(second.selectFrom(t3), part.compare(EQ, 12));
        }
        IntVector low =
            even.reinterpretAsFloats()
                .mul(scale)
                .reinterpretAsInts()
                .add(0x8000)
                .lanewise(LSHR, 16);
        IntVector high =
            odd.reinterpretAsFloats().mul(scale).reinterpretAsInts().add(0x8000).and(0xffff0000);
        low.or(high).intoMemorySegment(tile, out, ORDER);
        out += PAIR;
        eight = eight.lanewise(LSHR, 8);
      }
      next += 4 * HEIGHT;
    }
  }

  private static void bfloat16(
      MemorySegment data, long first, int count, MemorySegment tile, long at) {
    long next = first;
    long out = at;
    for (int i = 0; i + 1 < count; i += 2) {
      shorts(data, next)
          .or(shorts(data, next + HEIGHT).lanewise(LSHL, 16))
          .intoMemorySegment(tile, out, ORDER);
      next += 2 * HEIGHT;
      out += PAIR;
    }
    if (count % 2 != 0) {
      shorts(data, next).intoMemorySegment(tile, out, ORDER);
    }
  }

  private static void floats(float[] weights, int strip, int count, MemorySegment tile, long at) {
    long out = at;
    for (int i = 0; i < count; i += 2) {
      IntVector pair =
          rounded(FloatVector.fromArray(FLOATS, weights, i * HEIGHT + strip)).lanewise(LSHR, 16);
      if (i + 1 < count) {
        pair =
            pair.or(
                rounded(FloatVector.fromArray(FLOATS, weights, (i + 1) * HEIGHT + strip))
                    .and(0xffff0000));
      }
      pair.intoMemorySegment(tile, out, ORDER);
      out += PAIR;
    }
  }

  @Override
  public void columns(
      Panels w,
      int panel,
      int k,
      int count,
      MemorySegment tile,
      long at,
      long stride,
      Scratch scratch) {
    int live = Math.min(HEIGHT, w.rows() - panel * HEIGHT);
    for (int from = 0; from < count; from += w.unit()) {
      int inputs = Math.min(w.unit(), count - from);
      VectorProjections.weights(w, panel, k + from, inputs, scratch);
      for (int i = 0; i < inputs; i++) {
        Arrays.fill(scratch.tile, i * HEIGHT + live, (i + 1) * HEIGHT, 0);
        round(scratch.tile, i * HEIGHT, HEIGHT, tile, at + (from + i) * stride);
      }
    }
  }
}
