package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Matrices made from what other matrices gave as {@link Matrix#stored}. */
final class CpuPackedTest {
  private final CpuBackend backend = new CpuBackend(1);

  @AfterEach
  void nothingIsLeft() {
    assertThat(backend.liveBytes()).isZero();
    backend.close();
  }

  @ParameterizedTest
  @CsvSource({
    "NF4, 33, 128, 64, true",
    "NF4, 16, 64, 64, false",
    "FP4, 5, 256, 128, true",
    "NF4, 7, 100, 64, true",
    "FP4, 19, 37, 64, false",
    "NF4, 1, 1, 64, true",
    "NF4, 600, 64, 64, true"
  })
  void stored_nibbles(QuantType type, int rows, int cols, int block, boolean nested)
      throws Exception {
    QuantizedMatrix source =
        QuantizedMatrix.quantize(
            FloatSource.of("test", numbers(rows * cols)),
            rows,
            cols,
            new QuantOptions(type, block, nested),
            "float32");
    check(backend.matrix(source));
  }

  @ParameterizedTest
  @EnumSource(names = {"F32", "F16", "BF16"})
  void stored_dense(DType dtype) {
    check(backend.matrix(dense(dtype, 35, 27)));
  }

  /** Copies a matrix' bytes to another place, and reads the matrix that they make. */
  private void check(Matrix matrix) {
    try (Arena arena = Arena.ofConfined();
        matrix) {
      PackedMatrix copy = copy(matrix.stored(), arena);
      long before = backend.liveBytes();
      try (Matrix again = backend.matrix(copy)) {
        assertThat(again.footprint()).isEqualTo(matrix.footprint());
        assertThat(backend.liveBytes() - before).isEqualTo(matrix.footprint().total());
        assertThat(again.rows()).isEqualTo(matrix.rows());
        float[] expected = new float[matrix.cols()];
        float[] row = new float[matrix.cols()];
        for (int i = 0; i < matrix.rows(); i++) {
          ((Panels) matrix).row(i, expected, 0);
          ((Panels) again).row(i, row, 0);
          assertThat(row).isEqualTo(expected);
        }
        assertThat(again.stored().form().mismatch(copy.form())).isEqualTo(-1);
      }
      for (int i = 0; i < copy.parts().size(); i++) {
        List<MemorySegment> cut = new ArrayList<>(copy.parts());
        cut.set(i, cut.get(i).asSlice(0, cut.get(i).byteSize() - 1));
        refused(new PackedMatrix(copy.form(), cut));
        refused(
            new PackedMatrix(copy.form(), copy.parts().subList(0, copy.parts().size() - 1 - i)));
      }
      for (long length = 0; length < copy.form().byteSize(); length++) {
        refused(new PackedMatrix(copy.form().asSlice(0, length), copy.parts()));
      }
    }
  }

  @Test
  void matrix_formThatIsNone() {
    try (Matrix matrix = backend.matrix(dense(DType.F32, 16, 8));
        Arena arena = Arena.ofConfined()) {
      List<MemorySegment> parts = copy(matrix.stored(), arena).parts();
      int[][] forms = {
        {5, 16, 8, 2},
        {16, 16, 8, 3},
        {16, 16, 8, 1},
        {16, 0, 8, 2},
        {16, -16, -8, 2},
        {16, 1 << 30, 1 << 30, 2},
        {16, 16, 8, 2, 0},
        {4, 16, 8, 0, 0},
        {4, 16, 8, 7, 0}
      };
      for (int[] form : forms) {
        ByteBuffer bytes = PackedForm.of(form[0], 4 * (form.length - 1));
        for (int i = 1; i < form.length; i++) {
          bytes.putInt(form[i]);
        }
        refused(PackedForm.matrix(bytes, parts));
      }
      MemorySegment shifted = arena.allocate(4 * 16 * 8 + 64, 64).asSlice(4, 4 * 16 * 8);
      refused(new PackedMatrix(matrix.stored().form(), List.of(shifted)));
    }
  }

  private void refused(PackedMatrix packed) {
    long before = backend.liveBytes();
    assertThatThrownBy(() -> backend.matrix(packed))
        .isInstanceOfAny(
            IllegalArgumentException.class, dev.wardrobe.compute.OutOfMemoryException.class)
        .hasMessageContaining("packed matrix");
    assertThat(backend.liveBytes()).isEqualTo(before);
  }

  private static PackedMatrix copy(PackedMatrix packed, Arena arena) {
    List<MemorySegment> parts = new ArrayList<>();
    for (MemorySegment part : packed.parts()) {
      parts.add(arena.allocate(part.byteSize(), PackedMatrix.ALIGNMENT).copyFrom(part));
    }
    return new PackedMatrix(packed.form(), parts);
  }

  private static float[] numbers(int count) {
    Random random = new Random(5);
    float[] numbers = new float[count];
    for (int i = 0; i < count; i++) {
      numbers[i] = (float) random.nextGaussian();
    }
    return numbers;
  }

  private static DenseMatrix dense(DType dtype, int rows, int cols) {
    MemorySegment data = MemorySegment.ofArray(new byte[rows * cols * dtype.bytes()]);
    dtype.narrow(numbers(rows * cols), 0, rows * cols, data, 0);
    return new DenseMatrix(dtype, rows, cols, data);
  }
}
