package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Tiles of 4-bit weights on the Vector API and by generated code against plain Java. */
final class TilesTest {
  private static final int PAIR = 4 * OneDnn.TILE_ROWS;

  private final Tiles plain = new ScalarTiles();
  private final Scratch scratch = new Scratch();
  private final NativeMemory.Region region = new NativeMemory().region();

  @AfterEach
  void free() {
    region.close();
  }

  private static Avx512Tiles generated() {
    Avx512Tiles generated = Avx512Tiles.load();
    return generated != null ? generated : abort("generated code needs a processor with AVX-512");
  }

  private NibblePanels panels(
      QuantType type, int rows, int cols, int block, boolean nested, Random random)
      throws Exception {
    float[] numbers = new float[rows * cols];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = (float) random.nextGaussian() * (i / block % 5 == 3 ? 40 : 1);
    }
    return new NibblePanels(
        QuantizedMatrix.quantize(
            FloatSource.of("test", numbers),
            rows,
            cols,
            new QuantOptions(type, block, nested),
            "float32"),
        region);
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, 64, true",
    "NF4, 64, 64, 64, false",
    "FP4, 5, 512, 128, true",
    "NF4, 100, 1024, 1024, true",
    "NF4, 300, 704, 64, true",
    "NF4, 40, 2048, 512, false",
  })
  void pairs(QuantType type, int rows, int cols, int block, boolean nested) throws Exception {
    Avx512Tiles generated = generated();
    Random random = new Random(rows);
    NibblePanels w = panels(type, rows, cols, block, nested, random);
    MemorySegment expected = region.allocate("expected", 2L * OneDnn.TILE_ROWS * cols);
    MemorySegment actual = region.allocate("actual", expected.byteSize());
    for (int panel = 0; panel < w.panels(); panel++) {
      int live = Math.min(Panels.HEIGHT, rows - panel * Panels.HEIGHT);
      int k = random.nextInt(cols / Panels.UNIT) * Panels.UNIT;
      int count = (1 + random.nextInt((cols - k) / Panels.UNIT)) * Panels.UNIT;
      long at = panel % 2 * 128L;
      expected.fill((byte) 1);
      plain.pairs(w, panel, k, count, expected, at, scratch);
      // Before it is compiled, code on the Vector API takes seconds.
      boolean[] both = {true, false};
      for (boolean vector : panel < 2 ? both : new boolean[] {false}) {
        actual.fill((byte) 1);
        if (vector) {
          new VectorTiles().pairs(w, panel, k, count, actual, at, scratch);
        } else {
          assertThat(Avx512Tiles.takes(w, count)).isTrue();
          generated.pairs(w, panel, k, count, actual, at, scratch);
        }
        // What lies in a tile for rows that there are not is never used.
        for (int row = live; row < Panels.HEIGHT; row++) {
          for (long pair = at + 4L * row; pair < (long) count / 2 * PAIR; pair += PAIR) {
            actual.set(ValueLayout.JAVA_INT, pair, expected.get(ValueLayout.JAVA_INT, pair));
          }
        }
        assertThat(actual.mismatch(expected))
            .as("panel %d, %d inputs from %d, vector code: %b", panel, count, k, vector)
            .isEqualTo(-1);
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"NF4, 64, 128, 64, true", "FP4, 97, 512, 256, false", "NF4, 150, 192, 64, true"})
  void columns(QuantType type, int rows, int cols, int block, boolean nested) throws Exception {
    Avx512Tiles generated = generated();
    Random random = new Random(rows);
    NibblePanels w = panels(type, rows, cols, block, nested, random);
    MemorySegment expected = region.allocate("expected", 64 * 400L);
    MemorySegment actual = region.allocate("actual", expected.byteSize());
    for (int panel = 0; panel < rows / Panels.HEIGHT; panel++) {
      int k = random.nextInt(cols / Panels.UNIT) * Panels.UNIT;
      int stride = 2 * (Panels.HEIGHT + random.nextInt(150));
      for (int count = 8; count <= Panels.UNIT; count += 8) {
        expected.fill((byte) 1);
        actual.fill((byte) 1);
        plain.columns(w, panel, k, count, expected, 6, stride, scratch);
        assertThat(Avx512Tiles.takes(w, count)).isTrue();
        generated.columns(w, panel, k, count, actual, 6, stride, scratch);
        assertThat(actual.mismatch(expected))
            .as("panel %d, %d inputs from %d, %d bytes apart", panel, count, k, stride)
            .isEqualTo(-1);
      }
    }
  }

  @Test
  void pairs_scalesThatAreNotNumbers() throws Exception {
    Avx512Tiles generated = generated();
    NibblePanels w = panels(QuantType.NF4, 32, 128, 64, false, new Random(1));
    int[] scales = {0x7fffffff, 0xff800001, 0x7fc00000, 0xffffffff, 0x7f7fffff, 1};
    for (int i = 0; i < scales.length; i++) {
      w.absmax().setAtIndex(ValueLayout.JAVA_INT, 7L * i + 3, scales[i]);
    }
    MemorySegment expected = region.allocate("expected", 2L * OneDnn.TILE_ROWS * 128);
    MemorySegment actual = region.allocate("actual", expected.byteSize());
    plain.pairs(w, 0, 0, 128, expected, 0, scratch);
    generated.pairs(w, 0, 0, 128, actual, 0, scratch);
    assertThat(actual.mismatch(expected)).isEqualTo(-1);
  }

  @Test
  void takes_wholeUnitsOfNibbles() throws Exception {
    Random random = new Random(2);
    NibblePanels w = panels(QuantType.NF4, 32, 128, 64, true, random);
    assertThat(Avx512Tiles.takes(w, 128)).isTrue();
    assertThat(Avx512Tiles.takes(w, 24)).isTrue();
    assertThat(Avx512Tiles.takes(w, 72)).isFalse();
    assertThat(Avx512Tiles.takes(w, 20)).isFalse();
    assertThat(Avx512Tiles.takes(panels(QuantType.NF4, 32, 96, 32, true, random), 64)).isFalse();
  }
}
