package dev.wardrobe.safetensors;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The element type of a stored tensor. The constants carry the format's own names and stand in the
 * order of the safetensors library, which sorts tensors by it when it writes. Its types of less
 * than a byte (F4, F6_E2M3, F6_E3M2) are not among them: files that use them are refused.
 */
public enum DType {
  BOOL(1),
  U8(1),
  I8(1),
  F8_E5M2(1),
  F8_E4M3(1),
  F8_E8M0(1),
  F8_E4M3FNUZ(1),
  F8_E5M2FNUZ(1),
  I16(2),
  U16(2),
  F16(2),
  BF16(2),
  I32(4),
  U32(4),
  F32(4),
  C64(8),
  F64(8),
  I64(8),
  U64(8);

  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final Map<String, DType> BY_NAME = byName();

  private final int bytes;

  DType(int bytes) {
    this.bytes = bytes;
  }

  /** Size of one element in bytes. */
  public int bytes() {
    return bytes;
  }

  /** Whether every value of this type is exactly a float32: F32, F16 and BF16. */
  public boolean widens() {
    return this == F32 || this == F16 || this == BF16;
  }

  /** The type of that name, as written in a header, or null. */
  static @Nullable DType named(String name) {
    return BY_NAME.get(name);
  }

  /**
   * Reads {@code count} little-endian elements, from element {@code from} of {@code source} on,
   * into {@code out} at {@code at}. The widening to float32 is exact.
   *
   * @throws IllegalArgumentException if this type does not {@linkplain #widens() widen}
   */
  public void widen(MemorySegment source, long from, float[] out, int at, int count) {
    switch (this) {
      case F32 -> MemorySegment.copy(source, FLOAT, from * 4, out, at, count);
      case F16 -> {
        for (int i = 0; i < count; i++) {
          out[at + i] = Float.float16ToFloat(source.get(SHORT, (from + i) * 2));
        }
      }
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          out[at + i] = bfloat16ToFloat(source.get(SHORT, (from + i) * 2));
        }
      }
      default -> throw new IllegalArgumentException(this + " does not widen to float32");
    }
  }

  /**
   * Writes {@code count} elements of {@code in}, from {@code at} on, as little-endian elements of
   * this type, from element {@code to} of {@code target} on; rounds to nearest, ties to even.
   *
   * @throws IllegalArgumentException if this type does not {@linkplain #widens() widen}
   */
  public void narrow(float[] in, int at, int count, MemorySegment target, long to) {
    switch (this) {
      case F32 -> MemorySegment.copy(in, at, target, FLOAT, to * 4, count);
      case F16 -> {
        for (int i = 0; i < count; i++) {
          target.set(SHORT, (to + i) * 2, Float.floatToFloat16(in[at + i]));
        }
      }
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          target.set(SHORT, (to + i) * 2, floatToBfloat16(in[at + i]));
        }
      }
      default -> throw new IllegalArgumentException(this + " cannot be narrowed to from float32");
    }
  }

  /** The float32 value of a bfloat16, exactly. */
  public static float bfloat16ToFloat(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  /** The bfloat16 nearest to {@code value}, ties to even; a NaN becomes a quiet NaN. */
  public static short floatToBfloat16(float value) {
    int bits = Float.floatToRawIntBits(value);
    if (Float.isNaN(value)) {
      return (short) ((bits >>> 16) | 0x40);
    }
    int roundedUpAtHalf = 0x7fff + ((bits >>> 16) & 1);
    return (short) ((bits + roundedUpAtHalf) >>> 16);
  }

  private static Map<String, DType> byName() {
    Map<String, DType> types = new HashMap<>();
    for (DType type : values()) {
      types.put(type.name(), type);
    }
    return types;
  }
}
