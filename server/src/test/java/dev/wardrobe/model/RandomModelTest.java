package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import java.util.Collections;
import java.util.List;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** A model of random weights behaves like one of trained ones. */
final class RandomModelTest {
  private static final ModelConfig CONFIG =
      new ModelConfig(
          "llama",
          6,
          96,
          4,
          2,
          24,
          200,
          320,
          1e-5f,
          Rope.unscaled(10000),
          Collections.nCopies(6, 0),
          false,
          false,
          false,
          false,
          false,
          64,
          null,
          List.of(),
          null,
          null);

  @Test
  void logits_areSaneAndAPropertyOfTheSeed() {
    float[] once = logits(false, 1, 0);
    assertThat(once).isEqualTo(logits(false, 1, 0)).isNotEqualTo(logits(false, 2, 0));
    double squares = 0;
    for (float logit : once) {
      assertThat(logit).isFinite();
      squares += (double) logit * logit / once.length;
    }
    // A normalized row times a head that keeps the variance.
    assertThat(Math.sqrt(squares)).isBetween(0.5, 2.0);
  }

  @Test
  void head_isQuantizedIfAsked() {
    try (CpuBackend backend = new CpuBackend(1);
        Model dense = RandomModel.of("dense", CONFIG, false, 1, backend);
        Model quantized = RandomModel.of("quantized", CONFIG, true, 1, backend)) {
      assertThat(dense.modules().head().quantized()).isFalse();
      assertThat(quantized.modules().head().quantized()).isTrue();
      assertThat(dense.memory().embeddings()).isEqualTo(2 * 2 * 320 * 96);
      assertThat(quantized.memory().embeddings()).isEqualTo(2 * 320 * 96);
      assertThat(quantized.memory().parameters()).isEqualTo(dense.memory().parameters());
      assertThat(quantized.name()).isEqualTo("quantized");
    }
  }

  @Test
  void adapter_changesEveryLayerALittle() {
    float[] base = logits(false, 1, 0);
    float[] adapted = logits(false, 1, 3);
    double difference = 0;
    for (int i = 0; i < base.length; i++) {
      difference += Math.pow(adapted[i] - base[i], 2) / base.length;
    }
    assertThat(Math.sqrt(difference)).isBetween(1e-3, 1.0);
  }

  @Test
  void close_freesEverything() {
    CpuBackend backend = new CpuBackend(1);
    Model model = RandomModel.of("model", CONFIG, true, 1, backend);
    Lora lora = RandomModel.adapter(model, 2, 1, backend);
    assertThat(backend.liveBytes()).isEqualTo(model.memory().total() + lora.bytes());
    lora.close();
    model.close();
    assertThat(backend.liveBytes()).isZero();
    backend.close();
  }

  /**
   * @param rank of the adapter, or 0 for the base
   */
  private static float[] logits(boolean quantizedHead, long seed, int rank) {
    int tokens = 20;
    KvShape shape =
        new KvShape(CONFIG.layers(), CONFIG.kvHeads(), CONFIG.headDim(), 2, KvShape.Type.F32);
    try (CpuBackend backend = new CpuBackend(1);
        Model model = RandomModel.of("random", CONFIG, quantizedHead, seed, backend);
        KvCache cache = backend.kvCache(shape);
        Decoder decoder = new Decoder(model, backend, cache, tokens, 1)) {
      @Nullable Lora lora = rank == 0 ? null : RandomModel.adapter(model, rank, seed, backend);
      Batch batch =
          new Batch(
              IntStream.range(0, tokens).map(i -> 7 * i).toArray(),
              List.of(new Batch.Run(0, tokens, 0, new int[] {0, 1})),
              List.of(new Batch.Segment(0, tokens, lora)),
              new int[] {tokens - 1});
      try (Step step = backend.step(batch)) {
        decoder.forward(step);
        return backend.read(decoder.logits(step, 0, 1), 0, 1);
      } finally {
        if (lora != null) {
          lora.close();
        }
      }
    }
  }
}
