package dev.wardrobe.compute.cpu;

import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_S2I;

import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/** What the vector kernels share: the width, loads that widen, and exp. */
final class Vectors {
  static final String BITS_PROPERTY = "wardrobe.vector.bits";

  static final VectorSpecies<Float> FLOATS = floats(Integer.getInteger(BITS_PROPERTY, 0));
  static final VectorSpecies<Integer> INTS = FLOATS.vectorShape().withLanes(int.class);
  static final VectorSpecies<Short> SHORTS =
      VectorShape.forBitSize(FLOATS.vectorBitSize() / 2).withLanes(short.class);
  static final int LANES = FLOATS.length();
  static final ByteOrder ORDER = ByteOrder.LITTLE_ENDIAN;
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ORDER);

  private Vectors() {}

  /** Whether the width was chosen by property. */
  static boolean forced() {
    return Integer.getInteger(BITS_PROPERTY, 0) != 0;
  }

  /**
   * Whether the processor itself has vectors of 512 bits, whatever width was chosen. The preferred
   * width is one that all types have, so this includes AVX-512's instructions on bytes and words.
   */
  static boolean avx512() {
    return NativeCode.supported() && FloatVector.SPECIES_PREFERRED.vectorBitSize() >= 512;
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

  /** Widens {@code count} elements from element {@code from} on, exactly. */
  static void widen(DType dtype, MemorySegment data, long from, float[] out, int at, int count) {
    switch (dtype) {
      case BF16 -> widenBfloat16(data, from, out, at, count);
      case F16 -> widenFloat16(data, from, out, at, count);
      default -> MemorySegment.copy(data, FLOAT, 4 * from, out, at, count);
    }
  }

  static void widenBfloat16(MemorySegment data, long from, float[] out, int at, int count) {
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES) {
      bfloat16(data, from + i).intoArray(out, at + i);
    }
    DType.BF16.widen(data, from + whole, out, at + whole, count - whole);
  }

  static FloatVector bfloat16(MemorySegment data, long element) {
    return shorts(data, element).lanewise(LSHL, 16).reinterpretAsFloats();
  }

  /** The low 16 bits of each lane as bfloat16. */
  static FloatVector lowBfloat16(IntVector lanes) {
    return lanes.lanewise(LSHL, 16).reinterpretAsFloats();
  }

  /** The high 16 bits of each lane as bfloat16. */
  static FloatVector highBfloat16(IntVector lanes) {
    return lanes.and(0xffff0000).reinterpretAsFloats();
  }

  static FloatVector lowFloat16(IntVector lanes) {
    return highFloat16(lanes.lanewise(LSHL, 16));
  }

  /*
   * As in widenFloat16, but with the sign in its place from the start; of a value beyond the finite
   * ones the bits are at hand before they are scaled.
   */
  static FloatVector highFloat16(IntVector lanes) {
    IntVector bits = lanes.lanewise(ASHR, 3).and(0x8fffe000);
    FloatVector finite = bits.reinterpretAsFloats().mul(0x1p112f);
    FloatVector special = bits.or(0x7f800000).reinterpretAsFloats();
    return finite.blend(special, finite.abs().compare(GE, 65536f));
  }

  static IntVector shorts(MemorySegment data, long element) {
    return (IntVector)
        ShortVector.fromMemorySegment(SHORTS, data, 2 * element, ORDER)
            .convertShape(ZERO_EXTEND_S2I, INTS, 0);
  }

  /*
   * A float16's exponent and fraction, moved to a float32's place, are its value times 2^-112, for
   * subnormals too; infinities and NaN get the largest exponent by hand.
   */
  static void widenFloat16(MemorySegment data, long from, float[] out, int at, int count) {
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

  static FloatVector tile(float[] tile, int at) {
    return FloatVector.fromArray(FLOATS, tile, at);
  }

  static FloatVector float32(MemorySegment data, long element) {
    return FloatVector.fromMemorySegment(FLOATS, data, 4 * element, ORDER);
  }

  /** {@link Elementary#exp}, lane by lane. */
  static FloatVector exp(FloatVector x) {
    // Two blends, because min and max take care of NaN in several instructions each.
    FloatVector c = x.blend(Elementary.LOWEST, x.compare(LT, Elementary.LOWEST));
    c = c.blend(Elementary.HIGHEST, c.compare(GT, Elementary.HIGHEST));
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
    // Two powers of two, written out: a helper called this late might not be inlined any more.
    FloatVector first = half.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
    FloatVector second = power.sub(half).add(127).lanewise(LSHL, 23).reinterpretAsFloats();
    return p.mul(first).mul(second);
  }

  /** Inner product in 16 lanes. */
  static float dot(float[] a, int aAt, float[] b, int bAt, int count, float[] lanes) {
    int whole = count - count % Elementary.LANES;
    for (int strip = 0; strip < Elementary.LANES; strip += LANES) {
      FloatVector sum = FloatVector.zero(FLOATS);
      for (int k = strip; k < whole; k += Elementary.LANES) {
        sum = tile(a, aAt + k).fma(tile(b, bAt + k), sum);
      }
      sum.intoArray(lanes, strip);
    }
    for (int k = whole; k < count; k++) {
      lanes[k - whole] = Math.fma(a[aAt + k], b[bAt + k], lanes[k - whole]);
    }
    return Elementary.tree(lanes, 0);
  }
}
