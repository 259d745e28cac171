package dev.wardrobe.trainer.backward;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.node.TextNode;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.LoraMix;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.Decoder;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.model.Module;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.trainer.Golden;
import dev.wardrobe.trainer.data.MicroBatch;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What training computes of an adapter is what serving computes of it. */
final class ServedLogitsTest {
  private static final int TOKENS = 100;

  @ParameterizedTest
  @CsvSource({
    "llama3, false, false", "llama3, false, true", "llama3, true, false", "llama3, true, true",
    "qwen3, true, true", "qwen2, false, false", "mistral, true, false", "smollm2, false, true"
  })
  void logits_areThoseOfTheServer(String base, boolean dora, boolean rsLora) throws Exception {
    LoraOptions options =
        new LoraOptions(
            6,
            9,
            0.5,
            rsLora,
            dora,
            new LinkedHashMap<>(Map.of("q_proj", 3)),
            new LinkedHashMap<>(Map.of("up_proj", 4.0)),
            TextNode.valueOf(LoraOptions.ALL_LINEAR),
            Map.of(),
            LoraOptions.Init.RANDOM);
    try (CpuBackend backend = new CpuBackend(2, MathMode.EXACT);
        Model model =
            ModelLoader.load(
                Golden.path("models/%s-nf4-dq".formatted(base)), LoadOptions.AS_STORED, backend);
        TrainableAdapter adapter = TrainableAdapter.create(options, 3, model, backend);
        TrainableModel trainable = new TrainableModel(model, backend, adapter, 0);
        Arena arena = Arena.ofConfined()) {
      stretch(adapter, backend);
      int[] tokens = new Random(4).ints(TOKENS, 0, model.config().vocabulary()).toArray();
      int[] targets = new int[TOKENS];
      Arrays.fill(targets, MicroBatch.NONE);
      float[][] trained = trainable.logits(new MicroBatch(tokens, targets, new int[] {0, TOKENS}));
      try (Lora lora = backend.lora(deltas(model, adapter, backend, arena), model::matrix)) {
        float[] served = served(model, backend, lora, tokens);
        int width = served.length / TOKENS;
        for (int row = 0; row < TOKENS; row++) {
          for (int i = 0; i < width; i++) {
            float ours = trained[row][i];
            assertThat(ours)
                .isCloseTo(served[row * width + i], within(1e-4f + 1e-4f * Math.abs(ours)));
          }
        }
      }
    }
  }

  /** Moves magnitudes away from the norms, at which they begin and change nothing. */
  private static void stretch(TrainableAdapter adapter, CpuBackend backend) {
    Random random = new Random(5);
    for (Parameter parameter : adapter.parameters()) {
      if (parameter.role() == Parameter.Role.MAGNITUDE) {
        float[] values = backend.read(parameter.value(), 0, 1);
        for (int i = 0; i < values.length; i++) {
          values[i] *= 0.7f + 0.6f * random.nextFloat();
        }
        backend.write(parameter.value(), 0, values);
      }
    }
  }

  /** The adapter as its file would hold it. */
  private static Map<Integer, Delta> deltas(
      Model model, TrainableAdapter adapter, CpuBackend backend, Arena arena) {
    Map<Integer, Delta> deltas = new HashMap<>();
    for (Module module : model.modules().all()) {
      AdaptedLinear.Factors factors = adapter.factors(module.id());
      if (factors != null) {
        Parameter magnitude = factors.magnitude();
        deltas.put(
            module.id(),
            new Delta(
                new Delta.LowRank(
                    dense(factors.a(), backend, arena), dense(factors.b(), backend, arena)),
                factors.scale(),
                magnitude == null ? null : backend.read(magnitude.value(), 0, 1),
                null,
                null,
                null));
      }
    }
    return deltas;
  }

  private static DenseMatrix dense(Parameter parameter, CpuBackend backend, Arena arena) {
    int rows = parameter.value().rows();
    MemorySegment data =
        arena.allocateFrom(ValueLayout.JAVA_FLOAT, backend.read(parameter.value(), 0, rows));
    return new DenseMatrix(DType.F32, rows, parameter.value().width(), data);
  }

  private static float[] served(Model model, CpuBackend backend, Lora lora, int[] tokens) {
    ModelConfig config = model.config();
    int blocks = TOKENS / KvShape.BLOCK_TOKENS + 1;
    KvShape shape =
        new KvShape(config.layers(), config.kvHeads(), config.headDim(), blocks, KvShape.Type.F32);
    try (KvCache cache = backend.kvCache(shape);
        Decoder decoder = new Decoder(model, backend, cache, TOKENS, TOKENS)) {
      Batch batch = new Batch();
      batch.add(tokens, 0, TOKENS, IntStream.range(0, blocks).toArray(), LoraMix.of(lora));
      for (int row = 0; row < TOKENS; row++) {
        batch.want(row);
      }
      try (Step step = backend.step(batch)) {
        decoder.forward(step);
        return backend.read(decoder.logits(step, 0, TOKENS), 0, TOKENS);
      }
    }
  }
}
