package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.safetensors.DType;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Operations on rows whose edge cases do not come up in a forward pass. */
final class VectorRowsTest {
  private final Kernels vector = new VectorKernels();
  private final Kernels plain = new ScalarKernels();

  @Test
  void narrow_everyUpperHalf() {
    int[] lower = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    float[] x = new float[lower.length * 0x10000 + 3];
    for (int i = 0; i < x.length; i++) {
      x[i] = Float.intBitsToFloat(i / lower.length << 16 | lower[i % lower.length]);
    }
    short[] actual = new short[x.length];
    vector.narrow(x, 0, x.length, actual);
    for (int i = 0; i < x.length; i++) {
      if (actual[i] != DType.floatToBfloat16(x[i])) {
        assertThat(actual[i])
            .as("%x", Float.floatToRawIntBits(x[i]))
            .isEqualTo(DType.floatToBfloat16(x[i]));
      }
    }
  }

  @Test
  void largest_withNaNAnywhere() {
    Random random = new Random(1);
    float[] nans = {Float.NaN, Float.intBitsToFloat(0xffc00000), Float.intBitsToFloat(0x7f800001)};
    for (int count : new int[] {1, 7, 16, 17, 64, 83}) {
      float[] a = new float[count + 2];
      for (int i = 0; i < a.length; i++) {
        a[i] = (float) random.nextGaussian() - 3;
      }
      float expected = plain.largest(a, 1, count);
      assertThat(vector.largest(a, 1, count)).isEqualTo(expected).isNotNaN();
      Arrays.fill(a, 1, count + 1, Float.NEGATIVE_INFINITY);
      assertThat(vector.largest(a, 1, count)).isEqualTo(Float.NEGATIVE_INFINITY);
      for (int i = 0; i < count; i++) {
        a[1 + i] = Float.POSITIVE_INFINITY;
        assertThat(vector.largest(a, 1, count)).isEqualTo(Float.POSITIVE_INFINITY);
        for (float nan : nans) {
          a[1 + i] = nan;
          assertThat(vector.largest(a, 1, count)).as("%d of %d", i, count).isNaN();
          assertThat(plain.largest(a, 1, count)).isNaN();
        }
        a[1 + i] = Float.NEGATIVE_INFINITY;
      }
    }
  }

  @Test
  void above_firstAndAll() {
    Random random = new Random(2);
    for (int count : new int[] {1, 15, 16, 63, 64, 65, 200}) {
      float[] a = new float[count + 1];
      for (int i = 0; i < a.length; i++) {
        a[i] = random.nextInt(40);
      }
      for (float bound : new float[] {-1, 3, 38, 39}) {
        for (int from = 0; from <= count; from++) {
          assertThat(vector.above(a, 1, from, count, bound))
              .isEqualTo(plain.above(a, 1, from, count, bound));
        }
        int[] actual = new int[count];
        int[] expected = new int[count];
        assertThat(vector.allAbove(a, 1, count, bound, actual))
            .isEqualTo(plain.allAbove(a, 1, count, bound, expected));
        assertThat(actual).isEqualTo(expected);
      }
    }
  }
}
