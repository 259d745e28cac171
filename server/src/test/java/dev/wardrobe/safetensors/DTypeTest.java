package dev.wardrobe.safetensors;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.foreign.MemorySegment;
import java.math.BigDecimal;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class DTypeTest {
  @Test
  void bfloat16_everyValue_roundTrips() {
    for (int bits = 0; bits < 0x10000; bits++) {
      float value = DType.bfloat16ToFloat((short) bits);
      short back = DType.floatToBfloat16(value);
      if (Float.isNaN(value)) {
        assertThat(DType.bfloat16ToFloat(back)).isNaN();
      } else {
        assertThat(back).isEqualTo((short) bits);
      }
    }
  }

  @Test
  void floatToBfloat16_roundsToNearestEven() {
    assertThat(DType.floatToBfloat16(Float.intBitsToFloat(0x3f808000))).isEqualTo((short) 0x3f80);
    assertThat(DType.floatToBfloat16(Float.intBitsToFloat(0x3f818000))).isEqualTo((short) 0x3f82);
    assertThat(DType.floatToBfloat16(Float.intBitsToFloat(0x3f808001))).isEqualTo((short) 0x3f81);
    assertThat(DType.floatToBfloat16(Float.MAX_VALUE)).isEqualTo((short) 0x7f80);
    assertThat(DType.floatToBfloat16(-0f)).isEqualTo((short) 0x8000);
    assertThat(DType.bfloat16ToFloat(DType.floatToBfloat16(Float.intBitsToFloat(0x7f800001))))
        .isNaN();
  }

  @Test
  void floatToBfloat16_isNearest() {
    long seed = 3;
    Random random = new Random(seed);
    for (int i = 0; i < 20_000; i++) {
      float value = Float.intBitsToFloat(random.nextInt());
      if (!(Math.abs(value) < 3e38f)) {
        continue;
      }
      int bits = DType.floatToBfloat16(value) & 0xffff;
      BigDecimal distance = distance(value, bits);
      assertThat(distance).as("seed %d", seed).isLessThanOrEqualTo(distance(value, bits + 1));
      if ((bits & 0x7fff) != 0) {
        assertThat(distance).as("seed %d", seed).isLessThanOrEqualTo(distance(value, bits - 1));
      }
    }
  }

  private static BigDecimal distance(float value, int bits) {
    return new BigDecimal(value).subtract(new BigDecimal(Float.intBitsToFloat(bits << 16))).abs();
  }

  @Test
  void narrow_thenWiden_isTheRoundedValue() {
    float[] values = {1f, -2.5f, 65504f, 1e-7f, 0.333f, 3f};
    for (DType dtype : new DType[] {DType.F32, DType.F16, DType.BF16}) {
      MemorySegment bytes = MemorySegment.ofArray(new byte[1 + 8 * dtype.bytes()]).asSlice(1);
      dtype.narrow(values, 1, 4, bytes, 2);
      float[] back = new float[6];
      dtype.widen(bytes, 3, back, 2, 3);
      for (int i = 0; i < 3; i++) {
        float value = values[2 + i];
        float expected =
            switch (dtype) {
              case F16 -> Float.float16ToFloat(Float.floatToFloat16(value));
              case BF16 -> DType.bfloat16ToFloat(DType.floatToBfloat16(value));
              default -> value;
            };
        assertThat(back[2 + i]).isEqualTo(expected);
      }
      assertThat(back[5]).isZero();
    }
    assertThatThrownBy(() -> DType.I32.widen(MemorySegment.NULL, 0, values, 0, 1))
        .isInstanceOf(IllegalArgumentException.class);
  }
}
