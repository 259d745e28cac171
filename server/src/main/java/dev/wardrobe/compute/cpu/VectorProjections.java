package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Vectors.FLOATS;
import static dev.wardrobe.compute.cpu.Vectors.INTS;
import static dev.wardrobe.compute.cpu.Vectors.LANES;
import static dev.wardrobe.compute.cpu.Vectors.ORDER;
import static dev.wardrobe.compute.cpu.Vectors.bfloat16;
import static dev.wardrobe.compute.cpu.Vectors.float32;
import static dev.wardrobe.compute.cpu.Vectors.widen;
import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_B2S;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_S2I;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorSpecies;

/** Products with the base's weights, forward and backward. */
final class VectorProjections {
  /*
   * A panel is worked on in pairs of vectors ("left", "right"), because two rows of lanes with two
   * chains each are the four sums that hide the latency of fma, and share each input. From memory a
   * panel is read strictly in order: hardware prefetches one stream well, and several badly.
   */
  private static final int HEIGHT = Panels.HEIGHT;
  private static final int PAIR = 2 * LANES;
  private static final int GROUP = NibblePanels.GROUP;
  private static final int CODES = 16;

  /** Scales that are decoded at once. */
  private static final int SCALES = 8192;

  private static final VectorSpecies<Short> WORDS = ShortVector.SPECIES_512;
  private static final VectorSpecies<Byte> BYTES = ByteVector.SPECIES_256;

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
      if (last - first == 1
          && w instanceof NibblePanels nibbles
          && nibbles.aligned()
          && LANES >= 8) {
        nibblesOfOne(nibbles, panelFrom, panelTo, x, first, y, scratch);
        continue;
      }
      for (int panel = panelFrom; panel < panelTo; panel++) {
        if (last - first > 1 || !one(w, panel, x, first * w.cols(), scratch)) {
          several(w, panel, x, first, last, scratch);
        }
        int live = Math.min(HEIGHT, w.rows() - panel * HEIGHT);
        for (int token = first; token < last; token++) {
          System.arraycopy(
              scratch.sums, (token - first) * HEIGHT, y, token * w.rows() + panel * HEIGHT, live);
        }
      }
    }
  }

  /** One token, if weights of this kind can go from memory into the sum without a stop. */
  private static boolean one(Panels w, int panel, float[] x, int at, Scratch scratch) {
    switch (w) {
      case DensePanels dense when dense.dtype() == DType.BF16 -> {
        long first = dense.element(panel * HEIGHT, 0);
        for (int strip = 0; strip < HEIGHT; strip += PAIR) {
          bfloat16OfOne(dense.data(), first + strip, w.cols(), x, at, scratch.sums, strip);
        }
      }
      case DensePanels dense when dense.dtype() == DType.F32 -> {
        long first = dense.element(panel * HEIGHT, 0);
        for (int strip = 0; strip < HEIGHT; strip += PAIR) {
          float32OfOne(dense.data(), first + strip, w.cols(), x, at, scratch.sums, strip);
        }
      }
      default -> {
        return false;
      }
    }
    return true;
  }

  /**
   * One token. The scales of several panels are decoded at once: what prefetches their codes takes
   * its time to start, as it does for the weights when it was elsewhere.
   */
  private static void nibblesOfOne(
      NibblePanels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int token,
      float[] y,
      Scratch scratch) {
    int count = w.scaleCount();
    int most = Math.max(1, SCALES / count);
    float[] scales = scratch.scales(Math.min(most, panelTo - panelFrom) * count);
    for (int first = panelFrom; first < panelTo; first += most) {
      int last = Math.min(panelTo, first + most);
      for (int panel = first; panel < last; panel++) {
        scales(w, panel, scratch, scales, (panel - first) * count);
      }
      for (int panel = first; panel < last; panel++) {
        nibblesOfOne(w, panel, scales, (panel - first) * count, x, token * w.cols(), scratch.sums);
        int live = Math.min(HEIGHT, w.rows() - panel * HEIGHT);
        System.arraycopy(scratch.sums, 0, y, token * w.rows() + panel * HEIGHT, live);
      }
    }
  }

  private static void nibblesOfOne(
      NibblePanels w, int panel, float[] scales, int scaleAt, float[] x, int at, float[] sums) {
    long bytes = 4 * w.word(panel, 0);
    int unitsPerBlock = w.blockSize() / w.unit();
    int groups = w.unit() / GROUP;
    if (LANES == CODES) {
      nibblesOfSixteen(
          w.packed(),
          bytes,
          w.codebook(),
          scales,
          scaleAt,
          unitsPerBlock,
          w.units(),
          groups,
          x,
          at,
          sums);
    } else {
      for (int strip = 0; strip < HEIGHT; strip += PAIR) {
        nibblesOfEight(
            w.packed(),
            bytes + 4L * strip,
            w.codebook(),
            scales,
            scaleAt + strip,
            unitsPerBlock,
            w.units(),
            groups,
            x,
            at,
            sums,
            strip);
      }
    }
  }

  /** One token; vectors of 16 lanes. */
  private static void nibblesOfSixteen(
      MemorySegment packed,
      long bytes,
      float[] codebook,
      float[] scales,
      int scaleAt,
      int unitsPerBlock,
      int units,
      int groups,
      float[] x,
      int at,
      float[] sums) {
    IntVector table = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    FloatVector leftSum = FloatVector.zero(FLOATS);
    FloatVector rightSum = leftSum;
    long next = bytes;
    int k = at;
    for (int unit = 0; unit < units; unit++) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      for (int group = 0; group < groups; group++) {
        // Of an index selectFrom takes the lowest four bits alone.
        IntVector left = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
        IntVector right = IntVector.fromMemorySegment(INTS, packed, next + 4L * LANES, ORDER);
        FloatVector input = FloatVector.broadcast(FLOATS, x[k]);
        a0 = left.selectFrom(table).reinterpretAsFloats().fma(input, a0);
        b0 = right.selectFrom(table).reinterpretAsFloats().fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 1]);
        a1 = left.lanewise(LSHR, 4).selectFrom(table).reinterpretAsFloats().fma(input, a1);
        b1 = right.lanewise(LSHR, 4).selectFrom(table).reinterpretAsFloats().fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 2]);
        a0 = left.lanewise(LSHR, 8).selectFrom(table).reinterpretAsFloats().fma(input, a0);
        b0 = right.lanewise(LSHR, 8).selectFrom(table).reinterpretAsFloats().fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 3]);
        a1 = left.lanewise(LSHR, 12).selectFrom(table).reinterpretAsFloats().fma(input, a1);
        b1 = right.lanewise(LSHR, 12).selectFrom(table).reinterpretAsFloats().fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 4]);
        a0 = left.lanewise(LSHR, 16).selectFrom(table).reinterpretAsFloats().fma(input, a0);
        b0 = right.lanewise(LSHR, 16).selectFrom(table).reinterpretAsFloats().fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 5]);
        a1 = left.lanewise(LSHR, 20).selectFrom(table).reinterpretAsFloats().fma(input, a1);
        b1 = right.lanewise(LSHR, 20).selectFrom(table).reinterpretAsFloats().fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 6]);
        a0 = left.lanewise(LSHR, 24).selectFrom(table).reinterpretAsFloats().fma(input, a0);
        b0 = right.lanewise(LSHR, 24).selectFrom(table).reinterpretAsFloats().fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 7]);
        a1 = left.lanewise(LSHR, 28).selectFrom(table).reinterpretAsFloats().fma(input, a1);
        b1 = right.lanewise(LSHR, 28).selectFrom(table).reinterpretAsFloats().fma(input, b1);
        next += 4 * HEIGHT;
        k += GROUP;
      }
      int scale = scaleAt + unit / unitsPerBlock * HEIGHT;
      leftSum = FloatVector.fromArray(FLOATS, scales, scale).fma(a0.add(a1), leftSum);
      rightSum = FloatVector.fromArray(FLOATS, scales, scale + LANES).fma(b0.add(b1), rightSum);
    }
    leftSum.intoArray(sums, 0);
    rightSum.intoArray(sums, LANES);
  }

  /** One token and 16 rows; vectors of 8 lanes, which hold the table in two halves. */
  private static void nibblesOfEight(
      MemorySegment packed,
      long bytes,
      float[] codebook,
      float[] scales,
      int scaleAt,
      int unitsPerBlock,
      int units,
      int groups,
      float[] x,
      int at,
      float[] sums,
      int sumAt) {
    IntVector low = FloatVector.fromArray(FLOATS, codebook, 0).reinterpretAsInts();
    IntVector high = FloatVector.fromArray(FLOATS, codebook, LANES % CODES).reinterpretAsInts();
    FloatVector leftSum = FloatVector.zero(FLOATS);
    FloatVector rightSum = leftSum;
    long next = bytes;
    int k = at;
    for (int unit = 0; unit < units; unit++) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      for (int group = 0; group < groups; group++) {
        IntVector left = IntVector.fromMemorySegment(INTS, packed, next, ORDER);
        IntVector right = IntVector.fromMemorySegment(INTS, packed, next + 4L * LANES, ORDER);
        FloatVector input = FloatVector.broadcast(FLOATS, x[k]);
        a0 =
            left.selectFrom(low)
                .blend(left.selectFrom(high), left.lanewise(LSHL, 28).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a0);
        b0 =
            right
                .selectFrom(low)
                .blend(right.selectFrom(high), right.lanewise(LSHL, 28).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 1]);
        a1 =
            left.lanewise(LSHR, 4)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 4).selectFrom(high), left.lanewise(LSHL, 24).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a1);
        b1 =
            right
                .lanewise(LSHR, 4)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 4).selectFrom(high),
                    right.lanewise(LSHL, 24).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 2]);
        a0 =
            left.lanewise(LSHR, 8)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 8).selectFrom(high), left.lanewise(LSHL, 20).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a0);
        b0 =
            right
                .lanewise(LSHR, 8)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 8).selectFrom(high),
                    right.lanewise(LSHL, 20).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 3]);
        a1 =
            left.lanewise(LSHR, 12)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 12).selectFrom(high),
                    left.lanewise(LSHL, 16).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a1);
        b1 =
            right
                .lanewise(LSHR, 12)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 12).selectFrom(high),
                    right.lanewise(LSHL, 16).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 4]);
        a0 =
            left.lanewise(LSHR, 16)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 16).selectFrom(high),
                    left.lanewise(LSHL, 12).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a0);
        b0 =
            right
                .lanewise(LSHR, 16)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 16).selectFrom(high),
                    right.lanewise(LSHL, 12).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 5]);
        a1 =
            left.lanewise(LSHR, 20)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 20).selectFrom(high), left.lanewise(LSHL, 8).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a1);
        b1 =
            right
                .lanewise(LSHR, 20)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 20).selectFrom(high),
                    right.lanewise(LSHL, 8).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b1);
        input = FloatVector.broadcast(FLOATS, x[k + 6]);
        a0 =
            left.lanewise(LSHR, 24)
                .selectFrom(low)
                .blend(
                    left.lanewise(LSHR, 24).selectFrom(high), left.lanewise(LSHL, 4).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a0);
        b0 =
            right
                .lanewise(LSHR, 24)
                .selectFrom(low)
                .blend(
                    right.lanewise(LSHR, 24).selectFrom(high),
                    right.lanewise(LSHL, 4).compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[k + 7]);
        a1 =
            left.lanewise(LSHR, 28)
                .selectFrom(low)
                .blend(left.lanewise(LSHR, 28).selectFrom(high), left.compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, a1);
        b1 =
            right
                .lanewise(LSHR, 28)
                .selectFrom(low)
                .blend(right.lanewise(LSHR, 28).selectFrom(high), right.compare(LT, 0))
                .reinterpretAsFloats()
                .fma(input, b1);
        next += 4 * HEIGHT;
        k += GROUP;
      }
      int scale = scaleAt + unit / unitsPerBlock * HEIGHT;
      leftSum = FloatVector.fromArray(FLOATS, scales, scale).fma(a0.add(a1), leftSum);
      rightSum = FloatVector.fromArray(FLOATS, scales, scale + LANES).fma(b0.add(b1), rightSum);
    }
    leftSum.intoArray(sums, sumAt);
    rightSum.intoArray(sums, sumAt + LANES);
  }

  /** One token and bfloat16 weights: the usual head. */
  private static void bfloat16OfOne(
      MemorySegment data, long first, int cols, float[] x, int at, float[] sums, int sumAt) {
    FloatVector leftSum = FloatVector.zero(FLOATS);
    FloatVector rightSum = leftSum;
    long next = first;
    for (int k = 0; k < cols; k += Panels.UNIT) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      int i = at + k;
      int end = at + Math.min(cols, k + Panels.UNIT);
      for (; i + 1 < end; i += 2) {
        FloatVector input = FloatVector.broadcast(FLOATS, x[i]);
        a0 = bfloat16(data, next).fma(input, a0);
        b0 = bfloat16(data, next + LANES).fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[i + 1]);
        a1 = bfloat16(data, next + HEIGHT).fma(input, a1);
        b1 = bfloat16(data, next + HEIGHT + LANES).fma(input, b1);
        next += 2 * HEIGHT;
      }
      if (i < end) {
        FloatVector input = FloatVector.broadcast(FLOATS, x[i]);
        a0 = bfloat16(data, next).fma(input, a0);
        b0 = bfloat16(data, next + LANES).fma(input, b0);
      }
      leftSum = leftSum.add(a0.add(a1));
      rightSum = rightSum.add(b0.add(b1));
    }
    leftSum.intoArray(sums, sumAt);
    rightSum.intoArray(sums, sumAt + LANES);
  }

  /** One token and float32 weights. */
  private static void float32OfOne(
      MemorySegment data, long first, int cols, float[] x, int at, float[] sums, int sumAt) {
    FloatVector leftSum = FloatVector.zero(FLOATS);
    FloatVector rightSum = leftSum;
    long next = first;
    for (int k = 0; k < cols; k += Panels.UNIT) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      int i = at + k;
      int end = at + Math.min(cols, k + Panels.UNIT);
      for (; i + 1 < end; i += 2) {
        FloatVector input = FloatVector.broadcast(FLOATS, x[i]);
        a0 = float32(data, next).fma(input, a0);
        b0 = float32(data, next + LANES).fma(input, b0);
        input = FloatVector.broadcast(FLOATS, x[i + 1]);
        a1 = float32(data, next + HEIGHT).fma(input, a1);
        b1 = float32(data, next + HEIGHT + LANES).fma(input, b1);
        next += 2 * HEIGHT;
      }
      if (i < end) {
        FloatVector input = FloatVector.broadcast(FLOATS, x[i]);
        a0 = float32(data, next).fma(input, a0);
        b0 = float32(data, next + LANES).fma(input, b0);
      }
      leftSum = leftSum.add(a0.add(a1));
      rightSum = rightSum.add(b0.add(b1));
    }
    leftSum.intoArray(sums, sumAt);
    rightSum.intoArray(sums, sumAt + LANES);
  }

  /** What {@link NibblePanels#scales} does, in vectors where they can look up a 256-entry table. */
  static void scales(NibblePanels w, int panel, Scratch scratch, float[] out, int at) {
    if (LANES != CODES || !w.doubleQuant()) {
      w.scales(panel, scratch, out, at);
      return;
    }
    int blocks = w.blocksPerRow();
    long codes = (long) panel * blocks * HEIGHT;
    int[] turns = scratch.turns(w.maxTurns());
    int turnCount = w.turns(panel, scratch.outer, turns);
    int block = 0;
    for (int turn = 0; turn <= turnCount; turn++) {
      int end = turn == turnCount ? blocks : turns[turn] / HEIGHT;
      decodeScales(
          w.absmax(),
          codes + (long) block * HEIGHT,
          end - block,
          w.halves(),
          scratch.outer,
          w.offset(),
          out,
          at + block * HEIGHT);
      block = end;
      if (turn < turnCount) {
        w.turn(panel, turns[turn], scratch.outer);
      }
    }
  }

  /*
   * A table of 256 floats is too large to be looked up at once: its upper and lower 16 bits are, each
   * in four parts of 64, of which the code's two highest bits choose one.
   */
  private static void decodeScales(
      MemorySegment codes,
      long first,
      int blocks,
      short[] halves,
      float[] outer,
      float offset,
      float[] out,
      int at) {

    ShortVector t0 = ShortVector.fromArray(WORDS, halves, 0 * WORDS.length());
    ShortVector t1 = ShortVector.fromArray(WORDS, halves, 1 * WORDS.length());
    ShortVector t2 = ShortVector.fromArray(WORDS, halves, 2 * WORDS.length());
    ShortVector t3 = ShortVector.fromArray(WORDS, halves, 3 * WORDS.length());
    ShortVector t4 = ShortVector.fromArray(WORDS, halves, 4 * WORDS.length());
    ShortVector t5 = ShortVector.fromArray(WORDS, halves, 5 * WORDS.length());
    ShortVector t6 = ShortVector.fromArray(WORDS, halves, 6 * WORDS.length());
    ShortVector t7 = ShortVector.fromArray(WORDS, halves, 7 * WORDS.length());
    ShortVector t8 = ShortVector.fromArray(WORDS, halves, 8 * WORDS.length());
    ShortVector t9 = ShortVector.fromArray(WORDS, halves, 9 * WORDS.length());
    ShortVector t10 = ShortVector.fromArray(WORDS, halves, 10 * WORDS.length());
    ShortVector t11 = ShortVector.fromArray(WORDS, halves, 11 * WORDS.length());
    ShortVector t12 = ShortVector.fromArray(WORDS, halves, 12 * WORDS.length());
    ShortVector t13 = ShortVector.fromArray(WORDS, halves, 13 * WORDS.length());
    ShortVector t14 = ShortVector.fromArray(WORDS, halves, 14 * WORDS.length());
    ShortVector t15 = ShortVector.fromArray(WORDS, halves, 15 * WORDS.length());

    FloatVector leftOuter = FloatVector.fromArray(FLOATS, outer, 0);
    FloatVector rightOuter = FloatVector.fromArray(FLOATS, outer, LANES % HEIGHT);
    FloatVector offsets = FloatVector.broadcast(FLOATS, offset);
    long next = first;
    int row = at;
    for (int block = 0; block < blocks; block++) {
      ShortVector code =
          (ShortVector)
              ByteVector.fromMemorySegment(BYTES, codes, next, ORDER)
                  .convertShape(ZERO_EXTEND_B2S, WORDS, 0);
      VectorMask<Short> odd = code.and((short) 64).compare(NE, (short) 0);
      VectorMask<Short> upper = code.and((short) 128).compare(NE, (short) 0);
      ShortVector high =
          code.selectFrom(t0, t1)
              .blend(code.selectFrom(t2, t3), odd)
              .blend(code.selectFrom(t4, t5).blend(code.selectFrom(t6, t7), odd), upper);
      ShortVector low =
          code.selectFrom(t8, t9)
              .blend(code.selectFrom(t10, t11), odd)
              .blend(code.selectFrom(t12, t13).blend(code.selectFrom(t14, t15), odd), upper);
      IntVector left =
          ((IntVector) high.convertShape(ZERO_EXTEND_S2I, INTS, 0))
              .lanewise(LSHL, 16)
              .or(low.convertShape(ZERO_EXTEND_S2I, INTS, 0));
      IntVector right =
          ((IntVector) high.convertShape(ZERO_EXTEND_S2I, INTS, 1))
              .lanewise(LSHL, 16)
              .or(low.convertShape(ZERO_EXTEND_S2I, INTS, 1));
      // Two roundings, never fused.
      left.reinterpretAsFloats().mul(leftOuter).add(offsets).intoArray(out, row);
      right.reinterpretAsFloats().mul(rightOuter).add(offsets).intoArray(out, row + LANES);
      next += HEIGHT;
      row += HEIGHT;
    }
  }

  /** Several tokens: each unit's weights are decoded once, into a tile that stays in the cache. */
  private static void several(Panels w, int panel, float[] x, int from, int to, Scratch scratch) {
    int cols = w.cols();
    int tokens = to - from;
    Arrays.fill(scratch.sums, 0, tokens * HEIGHT, 0);
    boolean scaled = w instanceof NibblePanels nibbles && nibbles.aligned();
    float[] scales;
    int unitsPerBlock = 1;
    if (w instanceof NibblePanels nibbles && scaled) {
      scales = scratch.scales(nibbles.scaleCount());
      scales(nibbles, panel, scratch, scales, 0);
      unitsPerBlock = nibbles.blockSize() / nibbles.unit();
    } else {
      scales = scratch.scales(HEIGHT);
      Arrays.fill(scales, 0, HEIGHT, 1);
    }
    for (int unit = 0; unit < w.units(); unit++) {
      int k = unit * w.unit();
      int count = Math.min(w.unit(), cols - k);
      codes(w, panel, k, count, scratch.tile);
      int scale = scaled ? unit / unitsPerBlock * HEIGHT : 0;
      for (int strip = 0; strip < HEIGHT; strip += PAIR) {
        tokens(
            scratch.tile,
            strip,
            count,
            x,
            from * cols + k,
            cols,
            tokens,
            scales,
            scale + strip,
            scratch.sums);
      }
    }
  }

  /**
   * All tokens with one tile. Six at a time have 24 sums, for which there are registers where
   * vectors have 16 lanes; else two have.
   */
  private static void tokens(
      float[] tile,
      int strip,
      int count,
      float[] x,
      int at,
      int stride,
      int tokens,
      float[] scales,
      int scaleAt,
      float[] sums) {
    int token = 0;
    if (count % 2 == 0) {
      if (LANES == CODES) {
        for (; token + 5 < tokens; token += 6) {
          sixTokens(
              tile,
              strip,
              count,
              x,
              at + token * stride,
              stride,
              scales,
              scaleAt,
              sums,
              token * HEIGHT + strip);
        }
        if (token + 3 < tokens) {
          fourTokens(
              tile,
              strip,
              count,
              x,
              at + token * stride,
              stride,
              scales,
              scaleAt,
              sums,
              token * HEIGHT + strip);
          token += 4;
        }
      }
      for (; token + 1 < tokens; token += 2) {
        twoTokens(
            tile,
            strip,
            count,
            x,
            at + token * stride,
            stride,
            scales,
            scaleAt,
            sums,
            token * HEIGHT + strip);
      }
    }
    for (; token < tokens; token++) {
      oneToken(
          tile,
          strip,
          count,
          x,
          at + token * stride,
          scales,
          scaleAt,
          sums,
          token * HEIGHT + strip);
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
    FloatVector a1 = a0;
    FloatVector a2 = a0;
    FloatVector a3 = a0;
    int i = 0;
    int row = strip;
    for (; i + 1 < count; i += 2) {
      FloatVector input = FloatVector.broadcast(FLOATS, x[at + i]);
      a0 = FloatVector.fromArray(FLOATS, tile, row).fma(input, a0);
      a2 = FloatVector.fromArray(FLOATS, tile, row + LANES).fma(input, a2);
      input = FloatVector.broadcast(FLOATS, x[at + i + 1]);
      a1 = FloatVector.fromArray(FLOATS, tile, row + HEIGHT).fma(input, a1);
      a3 = FloatVector.fromArray(FLOATS, tile, row + HEIGHT + LANES).fma(input, a3);
      row += 2 * HEIGHT;
    }
    if (i < count) {
      FloatVector input = FloatVector.broadcast(FLOATS, x[at + i]);
      a0 = FloatVector.fromArray(FLOATS, tile, row).fma(input, a0);
      a2 = FloatVector.fromArray(FLOATS, tile, row + LANES).fma(input, a2);
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale.fma(a0.add(a1), FloatVector.fromArray(FLOATS, sums, sumAt)).intoArray(sums, sumAt);
    scale = FloatVector.fromArray(FLOATS, scales, scaleAt + LANES);
    scale
        .fma(a2.add(a3), FloatVector.fromArray(FLOATS, sums, sumAt + LANES))
        .intoArray(sums, sumAt + LANES);
  }

  /*
   * Below, the count is even. Sums are named by token, and numbered: left even, left odd, right
   * even, right odd inputs.
   */

  private static void twoTokens(
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
    FloatVector a0 = FloatVector.zero(FLOATS);
    FloatVector a1 = a0;
    FloatVector a2 = a0;
    FloatVector a3 = a0;
    FloatVector b0 = a0;
    FloatVector b1 = a0;
    FloatVector b2 = a0;
    FloatVector b3 = a0;
    int row = strip;
    for (int i = 0; i < count; i += 2) {
      FloatVector left = FloatVector.fromArray(FLOATS, tile, row);
      FloatVector right = FloatVector.fromArray(FLOATS, tile, row + LANES);
      FloatVector input = FloatVector.broadcast(FLOATS, x[at + i]);
      a0 = left.fma(input, a0);
      a2 = right.fma(input, a2);
      input = FloatVector.broadcast(FLOATS, x[p1 + i]);
      b0 = left.fma(input, b0);
      b2 = right.fma(input, b2);
      left = FloatVector.fromArray(FLOATS, tile, row + HEIGHT);
      right = FloatVector.fromArray(FLOATS, tile, row + HEIGHT + LANES);
      input = FloatVector.broadcast(FLOATS, x[at + i + 1]);
      a1 = left.fma(input, a1);
      a3 = right.fma(input, a3);
      input = FloatVector.broadcast(FLOATS, x[p1 + i + 1]);
      b1 = left.fma(input, b1);
      b3 = right.fma(input, b3);
      row += 2 * HEIGHT;
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale.fma(a0.add(a1), FloatVector.fromArray(FLOATS, sums, sumAt)).intoArray(sums, sumAt);
    scale
        .fma(b0.add(b1), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT))
        .intoArray(sums, sumAt + HEIGHT);
    scale = FloatVector.fromArray(FLOATS, scales, scaleAt + LANES);
    scale
        .fma(a2.add(a3), FloatVector.fromArray(FLOATS, sums, sumAt + LANES))
        .intoArray(sums, sumAt + LANES);
    scale
        .fma(b2.add(b3), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT + LANES))
        .intoArray(sums, sumAt + HEIGHT + LANES);
  }

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
    for (int i = 0; i < count; i += 2) {
      FloatVector left = FloatVector.fromArray(FLOATS, tile, row);
      FloatVector right = FloatVector.fromArray(FLOATS, tile, row + LANES);
      FloatVector input = FloatVector.broadcast(FLOATS, x[at + i]);
      a0 = left.fma(input, a0);
      a2 = right.fma(input, a2);
      input = FloatVector.broadcast(FLOATS, x[p1 + i]);
      b0 = left.fma(input, b0);
      b2 = right.fma(input, b2);
      input = FloatVector.broadcast(FLOATS, x[p2 + i]);
      c0 = left.fma(input, c0);
      c2 = right.fma(input, c2);
      input = FloatVector.broadcast(FLOATS, x[p3 + i]);
      d0 = left.fma(input, d0);
      d2 = right.fma(input, d2);
      left = FloatVector.fromArray(FLOATS, tile, row + HEIGHT);
      right = FloatVector.fromArray(FLOATS, tile, row + HEIGHT + LANES);
      input = FloatVector.broadcast(FLOATS, x[at + i + 1]);
      a1 = left.fma(input, a1);
      a3 = right.fma(input, a3);
      input = FloatVector.broadcast(FLOATS, x[p1 + i + 1]);
      b1 = left.fma(input, b1);
      b3 = right.fma(input, b3);
      input = FloatVector.broadcast(FLOATS, x[p2 + i + 1]);
      c1 = left.fma(input, c1);
      c3 = right.fma(input, c3);
      input = FloatVector.broadcast(FLOATS, x[p3 + i + 1]);
      d1 = left.fma(input, d1);
      d3 = right.fma(input, d3);
      row += 2 * HEIGHT;
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale.fma(a0.add(a1), FloatVector.fromArray(FLOATS, sums, sumAt)).intoArray(sums, sumAt);
    scale
        .fma(b0.add(b1), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT))
        .intoArray(sums, sumAt + HEIGHT);
    scale
        .fma(c0.add(c1), FloatVector.fromArray(FLOATS, sums, sumAt + 2 * HEIGHT))
        .intoArray(sums, sumAt + 2 * HEIGHT);
    scale
        .fma(d0.add(d1), FloatVector.fromArray(FLOATS, sums, sumAt + 3 * HEIGHT))
        .intoArray(sums, sumAt + 3 * HEIGHT);
    scale = FloatVector.fromArray(FLOATS, scales, scaleAt + LANES);
    scale
        .fma(a2.add(a3), FloatVector.fromArray(FLOATS, sums, sumAt + LANES))
        .intoArray(sums, sumAt + LANES);
    scale
        .fma(b2.add(b3), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT + LANES))
        .intoArray(sums, sumAt + HEIGHT + LANES);
    scale
        .fma(c2.add(c3), FloatVector.fromArray(FLOATS, sums, sumAt + 2 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 2 * HEIGHT + LANES);
    scale
        .fma(d2.add(d3), FloatVector.fromArray(FLOATS, sums, sumAt + 3 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 3 * HEIGHT + LANES);
  }

  /** Six tokens share each load of the tile, and the tile's two vectors each input. */
  private static void sixTokens(
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
    int p4 = p3 + stride;
    int p5 = p4 + stride;
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
    FloatVector e0 = a0;
    FloatVector e1 = a0;
    FloatVector e2 = a0;
    FloatVector e3 = a0;
    FloatVector f0 = a0;
    FloatVector f1 = a0;
    FloatVector f2 = a0;
    FloatVector f3 = a0;
    int row = strip;
    for (int i = 0; i < count; i += 2) {
      FloatVector left = FloatVector.fromArray(FLOATS, tile, row);
      FloatVector right = FloatVector.fromArray(FLOATS, tile, row + LANES);
      FloatVector input = FloatVector.broadcast(FLOATS, x[at + i]);
      a0 = left.fma(input, a0);
      a2 = right.fma(input, a2);
      input = FloatVector.broadcast(FLOATS, x[p1 + i]);
      b0 = left.fma(input, b0);
      b2 = right.fma(input, b2);
      input = FloatVector.broadcast(FLOATS, x[p2 + i]);
      c0 = left.fma(input, c0);
      c2 = right.fma(input, c2);
      input = FloatVector.broadcast(FLOATS, x[p3 + i]);
      d0 = left.fma(input, d0);
      d2 = right.fma(input, d2);
      input = FloatVector.broadcast(FLOATS, x[p4 + i]);
      e0 = left.fma(input, e0);
      e2 = right.fma(input, e2);
      input = FloatVector.broadcast(FLOATS, x[p5 + i]);
      f0 = left.fma(input, f0);
      f2 = right.fma(input, f2);
      left = FloatVector.fromArray(FLOATS, tile, row + HEIGHT);
      right = FloatVector.fromArray(FLOATS, tile, row + HEIGHT + LANES);
      input = FloatVector.broadcast(FLOATS, x[at + i + 1]);
      a1 = left.fma(input, a1);
      a3 = right.fma(input, a3);
      input = FloatVector.broadcast(FLOATS, x[p1 + i + 1]);
      b1 = left.fma(input, b1);
      b3 = right.fma(input, b3);
      input = FloatVector.broadcast(FLOATS, x[p2 + i + 1]);
      c1 = left.fma(input, c1);
      c3 = right.fma(input, c3);
      input = FloatVector.broadcast(FLOATS, x[p3 + i + 1]);
      d1 = left.fma(input, d1);
      d3 = right.fma(input, d3);
      input = FloatVector.broadcast(FLOATS, x[p4 + i + 1]);
      e1 = left.fma(input, e1);
      e3 = right.fma(input, e3);
      input = FloatVector.broadcast(FLOATS, x[p5 + i + 1]);
      f1 = left.fma(input, f1);
      f3 = right.fma(input, f3);
      row += 2 * HEIGHT;
    }
    FloatVector scale = FloatVector.fromArray(FLOATS, scales, scaleAt);
    scale.fma(a0.add(a1), FloatVector.fromArray(FLOATS, sums, sumAt)).intoArray(sums, sumAt);
    scale
        .fma(b0.add(b1), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT))
        .intoArray(sums, sumAt + HEIGHT);
    scale
        .fma(c0.add(c1), FloatVector.fromArray(FLOATS, sums, sumAt + 2 * HEIGHT))
        .intoArray(sums, sumAt + 2 * HEIGHT);
    scale
        .fma(d0.add(d1), FloatVector.fromArray(FLOATS, sums, sumAt + 3 * HEIGHT))
        .intoArray(sums, sumAt + 3 * HEIGHT);
    scale
        .fma(e0.add(e1), FloatVector.fromArray(FLOATS, sums, sumAt + 4 * HEIGHT))
        .intoArray(sums, sumAt + 4 * HEIGHT);
    scale
        .fma(f0.add(f1), FloatVector.fromArray(FLOATS, sums, sumAt + 5 * HEIGHT))
        .intoArray(sums, sumAt + 5 * HEIGHT);
    scale = FloatVector.fromArray(FLOATS, scales, scaleAt + LANES);
    scale
        .fma(a2.add(a3), FloatVector.fromArray(FLOATS, sums, sumAt + LANES))
        .intoArray(sums, sumAt + LANES);
    scale
        .fma(b2.add(b3), FloatVector.fromArray(FLOATS, sums, sumAt + HEIGHT + LANES))
        .intoArray(sums, sumAt + HEIGHT + LANES);
    scale
        .fma(c2.add(c3), FloatVector.fromArray(FLOATS, sums, sumAt + 2 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 2 * HEIGHT + LANES);
    scale
        .fma(d2.add(d3), FloatVector.fromArray(FLOATS, sums, sumAt + 3 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 3 * HEIGHT + LANES);
    scale
        .fma(e2.add(e3), FloatVector.fromArray(FLOATS, sums, sumAt + 4 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 4 * HEIGHT + LANES);
    scale
        .fma(f2.add(f3), FloatVector.fromArray(FLOATS, sums, sumAt + 5 * HEIGHT + LANES))
        .intoArray(sums, sumAt + 5 * HEIGHT + LANES);
  }

  /**
   * The weights {@code (count inputs, 32 rows)} of a panel, without their scale if they have one.
   */
  static void codes(Panels w, int panel, int k, int count, float[] tile) {
    switch (w) {
      case DensePanels dense ->
          widen(
              dense.dtype(),
              dense.data(),
              dense.element(panel * HEIGHT, k),
              tile,
              0,
              count * HEIGHT);
      case NibblePanels nibbles when nibbles.aligned() -> {
        long bytes = 4 * nibbles.word(panel, k / GROUP);
        for (int strip = 0; strip < HEIGHT; strip += LANES) {
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
    IntVector t1 = FloatVector.fromArray(FLOATS, codebook, LANES % CODES).reinterpretAsInts();
    IntVector t2 = FloatVector.fromArray(FLOATS, codebook, 2 * LANES % CODES).reinterpretAsInts();
    IntVector t3 = FloatVector.fromArray(FLOATS, codebook, 3 * LANES % CODES).reinterpretAsInts();
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
        row += HEIGHT;
      }
      next += 4 * HEIGHT;
    }
  }

  /*
   * Backward, lanes are tokens: a tile of weights is used as it lies, each weight broadcast, and the
   * gradients are turned round instead, once for all of the matrix.
   */
  static void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch) {
    for (int first = 0; first < tokens; first += Scratch.TOKENS) {
      int count = Math.min(Scratch.TOKENS, tokens - first);
      float[] turned = scratch.row(w.rows() * Scratch.TOKENS);
      turn(dy, first * w.rows(), w.rows(), count, turned);
      for (int unit = unitFrom; unit < unitTo; unit++) {
        gradients(w, unit, turned, first, count, dx, scratch);
      }
    }
  }

  /** {@code (tokens, rows)} as {@code (rows, 64 tokens)}; zeros up to a pair of vectors. */
  private static void turn(float[] dy, int at, int rows, int tokens, float[] turned) {
    int padded = (tokens + PAIR - 1) / PAIR * PAIR;
    // A few rows at a time, so that what is written stays in the cache.
    for (int from = 0; from < rows; from += CODES) {
      int to = Math.min(rows, from + CODES);
      for (int token = 0; token < tokens; token++) {
        int source = at + token * rows;
        for (int row = from; row < to; row++) {
          turned[row * Scratch.TOKENS + token] = dy[source + row];
        }
      }
      for (int row = from; row < to; row++) {
        Arrays.fill(turned, row * Scratch.TOKENS + tokens, row * Scratch.TOKENS + padded, 0);
      }
    }
  }

  private static void gradients(
      Panels w, int unit, float[] turned, int first, int tokens, float[] dx, Scratch scratch) {
    int cols = w.cols();
    int k = unit * w.unit();
    int count = Math.min(w.unit(), cols - k);
    float[] sums = scratch.gradients;
    Arrays.fill(sums, 0);
    for (int panel = 0; panel < w.panels(); panel++) {
      int live = Math.min(HEIGHT, w.rows() - panel * HEIGHT);
      weights(w, panel, k, count, scratch);
      int at = panel * HEIGHT * Scratch.TOKENS;
      for (int strip = 0; strip < tokens; strip += PAIR) {
        int i = 0;
        // Inputs beyond the count are of no consequence.
        if (LANES == CODES) {
          for (; i < count; i += 8) {
            eightInputs(
                scratch.tile,
                i * HEIGHT,
                live,
                turned,
                at + strip,
                sums,
                i * Scratch.TOKENS + strip);
          }
        }
        for (; i < count; i += 4) {
          fourInputs(
              scratch.tile, i * HEIGHT, live, turned, at + strip, sums, i * Scratch.TOKENS + strip);
        }
      }
    }
    for (int token = 0; token < tokens; token++) {
      int to = (first + token) * cols + k;
      for (int i = 0; i < count; i++) {
        dx[to + i] += sums[i * Scratch.TOKENS + token];
      }
    }
  }

  /** The weights of a panel with their scale, {@code (count inputs, 32 rows)}. */
  static void weights(Panels w, int panel, int k, int count, Scratch scratch) {
    codes(w, panel, k, count, scratch.tile);
    if (w instanceof NibblePanels nibbles && nibbles.aligned()) {
      float[] scales = scratch.scales(HEIGHT);
      nibbles.scales(panel, k / nibbles.blockSize(), scales);
      multiply(scratch.tile, count, scales);
    }
  }

  private static void multiply(float[] tile, int count, float[] scales) {
    for (int strip = 0; strip < HEIGHT; strip += LANES) {
      FloatVector scale = FloatVector.fromArray(FLOATS, scales, strip);
      for (int row = strip; row < count * HEIGHT; row += HEIGHT) {
        FloatVector.fromArray(FLOATS, tile, row).mul(scale).intoArray(tile, row);
      }
    }
  }

  /** Adds up to 32 outputs' gradients to eight inputs of two vectors of tokens. */
  private static void eightInputs(
      float[] tile, int from, int live, float[] turned, int at, float[] sums, int sumAt) {
    FloatVector a0 = FloatVector.fromArray(FLOATS, sums, sumAt);
    FloatVector a1 = FloatVector.fromArray(FLOATS, sums, sumAt + LANES);
    FloatVector b0 = FloatVector.fromArray(FLOATS, sums, sumAt + Scratch.TOKENS);
    FloatVector b1 = FloatVector.fromArray(FLOATS, sums, sumAt + Scratch.TOKENS + LANES);
    FloatVector c0 = FloatVector.fromArray(FLOATS, sums, sumAt + 2 * Scratch.TOKENS);
    FloatVector c1 = FloatVector.fromArray(FLOATS, sums, sumAt + 2 * Scratch.TOKENS + LANES);
    FloatVector d0 = FloatVector.fromArray(FLOATS, sums, sumAt + 3 * Scratch.TOKENS);
    FloatVector d1 = FloatVector.fromArray(FLOATS, sums, sumAt + 3 * Scratch.TOKENS + LANES);
    FloatVector e0 = FloatVector.fromArray(FLOATS, sums, sumAt + 4 * Scratch.TOKENS);
    FloatVector e1 = FloatVector.fromArray(FLOATS, sums, sumAt + 4 * Scratch.TOKENS + LANES);
    FloatVector f0 = FloatVector.fromArray(FLOATS, sums, sumAt + 5 * Scratch.TOKENS);
    FloatVector f1 = FloatVector.fromArray(FLOATS, sums, sumAt + 5 * Scratch.TOKENS + LANES);
    FloatVector g0 = FloatVector.fromArray(FLOATS, sums, sumAt + 6 * Scratch.TOKENS);
    FloatVector g1 = FloatVector.fromArray(FLOATS, sums, sumAt + 6 * Scratch.TOKENS + LANES);
    FloatVector h0 = FloatVector.fromArray(FLOATS, sums, sumAt + 7 * Scratch.TOKENS);
    FloatVector h1 = FloatVector.fromArray(FLOATS, sums, sumAt + 7 * Scratch.TOKENS + LANES);
    int next = at;
    for (int row = from; row < from + live; row++) {
      FloatVector left = FloatVector.fromArray(FLOATS, turned, next);
      FloatVector right = FloatVector.fromArray(FLOATS, turned, next + LANES);
      FloatVector weight = FloatVector.broadcast(FLOATS, tile[row]);
      a0 = left.fma(weight, a0);
      a1 = right.fma(weight, a1);
      weight = FloatVector.broadcast(FLOATS, tile[row + HEIGHT]);
      b0 = left.fma(weight, b0);
      b1 = right.fma(weight, b1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 2 * HEIGHT]);
      c0 = left.fma(weight, c0);
      c1 = right.fma(weight, c1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 3 * HEIGHT]);
      d0 = left.fma(weight, d0);
      d1 = right.fma(weight, d1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 4 * HEIGHT]);
      e0 = left.fma(weight, e0);
      e1 = right.fma(weight, e1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 5 * HEIGHT]);
      f0 = left.fma(weight, f0);
      f1 = right.fma(weight, f1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 6 * HEIGHT]);
      g0 = left.fma(weight, g0);
      g1 = right.fma(weight, g1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 7 * HEIGHT]);
      h0 = left.fma(weight, h0);
      h1 = right.fma(weight, h1);
      next += Scratch.TOKENS;
    }
    a0.intoArray(sums, sumAt);
    a1.intoArray(sums, sumAt + LANES);
    b0.intoArray(sums, sumAt + Scratch.TOKENS);
    b1.intoArray(sums, sumAt + Scratch.TOKENS + LANES);
    c0.intoArray(sums, sumAt + 2 * Scratch.TOKENS);
    c1.intoArray(sums, sumAt + 2 * Scratch.TOKENS + LANES);
    d0.intoArray(sums, sumAt + 3 * Scratch.TOKENS);
    d1.intoArray(sums, sumAt + 3 * Scratch.TOKENS + LANES);
    e0.intoArray(sums, sumAt + 4 * Scratch.TOKENS);
    e1.intoArray(sums, sumAt + 4 * Scratch.TOKENS + LANES);
    f0.intoArray(sums, sumAt + 5 * Scratch.TOKENS);
    f1.intoArray(sums, sumAt + 5 * Scratch.TOKENS + LANES);
    g0.intoArray(sums, sumAt + 6 * Scratch.TOKENS);
    g1.intoArray(sums, sumAt + 6 * Scratch.TOKENS + LANES);
    h0.intoArray(sums, sumAt + 7 * Scratch.TOKENS);
    h1.intoArray(sums, sumAt + 7 * Scratch.TOKENS + LANES);
  }

  /** The same for four inputs, where there are fewer registers. */
  private static void fourInputs(
      float[] tile, int from, int live, float[] turned, int at, float[] sums, int sumAt) {
    FloatVector a0 = FloatVector.fromArray(FLOATS, sums, sumAt);
    FloatVector a1 = FloatVector.fromArray(FLOATS, sums, sumAt + LANES);
    FloatVector b0 = FloatVector.fromArray(FLOATS, sums, sumAt + Scratch.TOKENS);
    FloatVector b1 = FloatVector.fromArray(FLOATS, sums, sumAt + Scratch.TOKENS + LANES);
    FloatVector c0 = FloatVector.fromArray(FLOATS, sums, sumAt + 2 * Scratch.TOKENS);
    FloatVector c1 = FloatVector.fromArray(FLOATS, sums, sumAt + 2 * Scratch.TOKENS + LANES);
    FloatVector d0 = FloatVector.fromArray(FLOATS, sums, sumAt + 3 * Scratch.TOKENS);
    FloatVector d1 = FloatVector.fromArray(FLOATS, sums, sumAt + 3 * Scratch.TOKENS + LANES);
    int next = at;
    for (int row = from; row < from + live; row++) {
      FloatVector left = FloatVector.fromArray(FLOATS, turned, next);
      FloatVector right = FloatVector.fromArray(FLOATS, turned, next + LANES);
      FloatVector weight = FloatVector.broadcast(FLOATS, tile[row]);
      a0 = left.fma(weight, a0);
      a1 = right.fma(weight, a1);
      weight = FloatVector.broadcast(FLOATS, tile[row + HEIGHT]);
      b0 = left.fma(weight, b0);
      b1 = right.fma(weight, b1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 2 * HEIGHT]);
      c0 = left.fma(weight, c0);
      c1 = right.fma(weight, c1);
      weight = FloatVector.broadcast(FLOATS, tile[row + 3 * HEIGHT]);
      d0 = left.fma(weight, d0);
      d1 = right.fma(weight, d1);
      next += Scratch.TOKENS;
    }
    a0.intoArray(sums, sumAt);
    a1.intoArray(sums, sumAt + LANES);
    b0.intoArray(sums, sumAt + Scratch.TOKENS);
    b1.intoArray(sums, sumAt + Scratch.TOKENS + LANES);
    c0.intoArray(sums, sumAt + 2 * Scratch.TOKENS);
    c1.intoArray(sums, sumAt + 2 * Scratch.TOKENS + LANES);
    d0.intoArray(sums, sumAt + 3 * Scratch.TOKENS);
    d1.intoArray(sums, sumAt + 3 * Scratch.TOKENS + LANES);
  }
}
