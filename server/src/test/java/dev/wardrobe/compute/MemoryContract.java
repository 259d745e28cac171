package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.quant.QuantType;
import dev.wardrobe.safetensors.DType;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Memory: what is resident, what is refused, what is left. */
public abstract class MemoryContract extends BackendContract {

  @Test
  void buffer_writesAndReadsRows() {
    try (Lab lab = lab(1)) {
      Buffer buffer = lab.buffer(4, 3);
      assertThat(lab.read(buffer)).hasSize(12).containsOnly(0);
      lab.backend.write(buffer, 1, new float[] {1, 2, 3, 4, 5, 6});
      assertThat(lab.backend.read(buffer, 1, 2)).containsExactly(1, 2, 3, 4, 5, 6);
      assertThat(lab.backend.read(buffer, 3, 1)).containsExactly(0, 0, 0);
      assertThat(lab.backend.read(buffer, 4, 0)).isEmpty();
      assertThatThrownBy(() -> lab.backend.write(buffer, 3, new float[6]))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.backend.write(buffer, 0, new float[4]))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.backend.read(buffer, 0, 5))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.backend.read(buffer, Integer.MAX_VALUE, 2))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> lab.buffer(0, 3)).isInstanceOf(IllegalArgumentException.class);
    }
  }

  @Test
  void footprint_doubleQuantized() {
    try (Lab lab = lab(2)) {
      Matrix w = lab.matrix(lab.quantized(256, 128, QuantType.NF4, 64, true));
      int n = 256 * 128;
      assertThat(w.footprint()).isEqualTo(new Matrix.Footprint(n / 2, n / 64, 4 * n / 16384, 0));
      Matrix plain = lab.matrix(lab.quantized(256, 128, QuantType.NF4, 64, false));
      assertThat(plain.footprint()).isEqualTo(new Matrix.Footprint(n / 2, n / 16, 0, 0));
      Matrix dense = lab.matrix(lab.dense(DType.BF16, 32, 10));
      assertThat(dense.footprint()).isEqualTo(new Matrix.Footprint(0, 0, 0, 640));
    }
  }

  @Test
  void lora_bytesAtExactRank() {
    try (Lab lab = lab(3)) {
      Matrix w = lab.matrix(lab.dense(DType.F32, 20, 30));
      Delta delta =
          new Delta(
              new Delta.LowRank(lab.dense(DType.BF16, 3, 30), lab.dense(DType.BF16, 20, 3)),
              1,
              null,
              null,
              lab.floats(20),
              null);
      assertThat(lab.lora(Map.of(5, delta), Map.of(5, w)).bytes())
          .isEqualTo(2 * (3 * 30 + 20 * 3) + 4 * 20);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "2147483647, 2147483647, 2147483646, 2147483647, F32",
    "100, 100, 128, 2000000000, BF16",
    "32, 8, 128, 100000000, F32",
  })
  void kvCache_beyondTheMachine(
      int layers, int kvHeads, int headDim, int blocks, KvShape.Type type) {
    try (Lab lab = lab(4)) {
      KvShape shape = new KvShape(layers, kvHeads, headDim, blocks, type);
      assertThatThrownBy(() -> lab.cache(shape))
          .isInstanceOf(OutOfMemoryException.class)
          .hasMessageContaining("KV cache of " + blocks + " blocks")
          .hasMessageContaining("bytes asked");
    }
  }

  @Test
  void buffer_beyondTheMachine() {
    try (Lab lab = lab(5)) {
      assertThatThrownBy(() -> lab.buffer(Integer.MAX_VALUE, Integer.MAX_VALUE))
          .isInstanceOf(OutOfMemoryException.class);
      assertThatThrownBy(() -> lab.buffer(3, 1 << 30)).isInstanceOf(OutOfMemoryException.class);
    }
  }

  @Test
  void linear_byWeightsThatAreClosed() {
    try (Lab lab = lab(7)) {
      Matrix fourBit = lab.matrix(lab.quantized(40, 128, QuantType.NF4, 64, true));
      Matrix dense = lab.matrix(lab.dense(DType.BF16, 40, 128));
      for (Matrix w : List.of(fourBit, dense)) {
        w.close();
        assertRefused(lab, w, null);
      }
    }
  }

  @Test
  void linear_byAnAdapterThatIsClosed() {
    try (Lab lab = lab(8)) {
      Matrix w = lab.matrix(lab.dense(DType.BF16, 40, 128));
      Delta delta = Lab.lowRank(lab.dense(DType.BF16, 8, 128), lab.dense(DType.BF16, 40, 8), 1);
      Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
      lora.close();
      assertRefused(lab, w, lora);
    }
  }

  /** One token, and so many that nothing about them is special. */
  private static void assertRefused(Lab lab, Matrix w, @Nullable Lora lora) {
    for (int tokens : new int[] {1, 40}) {
      Step step = lab.step(tokens, new Batch.Segment(0, tokens, lora));
      Buffer x = lab.buffer(tokens, w.cols());
      Buffer y = lab.buffer(tokens, w.rows());
      assertThatThrownBy(
              () -> lab.backend.linear(step, List.of(new Linear(0, w, null)), x, List.of(y)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      step.close();
    }
  }

  @Test
  void close_twice() throws Exception {
    try (Lab lab = lab(6)) {
      for (AutoCloseable resource :
          new AutoCloseable[] {
            lab.buffer(1, 1),
            lab.matrix(lab.dense(DType.F32, 1, 1)),
            lab.cache(new KvShape(1, 1, 2, 1, KvShape.Type.F32)),
            lab.lora(Map.of(), Map.of())
          }) {
        resource.close();
        resource.close();
      }
    }
  }
}
