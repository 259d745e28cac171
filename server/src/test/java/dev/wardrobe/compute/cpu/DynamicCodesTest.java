package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.quant.DynamicMap;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class DynamicCodesTest {

  /** A code for each float of a dense sample, and for all beside the middles of neighbours. */
  @Test
  void encode_isTheMapsNearest() {
    check(DynamicMap.SIGNED, DynamicCodes.SIGNED, true);
    check(DynamicMap.UNSIGNED, DynamicCodes.UNSIGNED, false);
  }

  private static void check(DynamicMap map, DynamicCodes codes, boolean signed) {
    float[] values = map.values();
    for (int i = 0; i + 1 < values.length; i++) {
      float middle = (float) (((double) values[i] + values[i + 1]) / 2);
      float at = Math.nextDown(Math.nextDown(middle));
      for (int j = 0; j < 5; j++) {
        check(map, codes, at);
        at = Math.nextUp(at);
      }
      check(map, codes, values[i]);
    }
    int one = Float.floatToRawIntBits(1);
    for (int bits = 0; bits <= one; bits += 1021) {
      check(map, codes, Float.intBitsToFloat(bits));
      if (signed) {
        check(map, codes, -Float.intBitsToFloat(bits));
      }
    }
    for (float edge : new float[] {0, 1, Float.MIN_VALUE, Float.MIN_NORMAL, 0x1p-24f}) {
      check(map, codes, edge);
      check(map, codes, Math.min(1, Math.nextUp(edge)));
      if (signed) {
        check(map, codes, -edge);
      }
    }
    Random random = new Random(3);
    for (int i = 0; i < 200_000; i++) {
      float number = random.nextFloat() * (float) Math.pow(10, -8 * random.nextDouble());
      check(map, codes, signed && random.nextBoolean() ? -number : number);
    }
  }

  private static void check(DynamicMap map, DynamicCodes codes, float number) {
    byte[] code = new byte[1];
    codes.encode(new float[] {number}, 1, code);
    if ((code[0] & 0xff) != map.nearest(number)) {
      assertThat(code[0] & 0xff).as("%s", number).isEqualTo(map.nearest(number));
    }
  }

  @Test
  void encode_ofWhatIsNoNumberInRange_ends() {
    float[] odd = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY, 7, -7};
    byte[] codes = new byte[odd.length];
    DynamicCodes.SIGNED.encode(odd, odd.length, codes);
    float[] values = new float[odd.length];
    DynamicCodes.SIGNED.decode(codes, odd.length, 2, values);
    assertThat(values).doesNotContain(Float.NaN);
    assertThat(values[3]).isEqualTo(2);
  }
}
