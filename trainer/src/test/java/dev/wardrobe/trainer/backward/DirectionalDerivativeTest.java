package dev.wardrobe.trainer.backward;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.model.RandomModel;
import dev.wardrobe.model.Rope;
import dev.wardrobe.trainer.Golden;
import dev.wardrobe.trainer.data.MicroBatch;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Gradients of whole models against differences of losses along random directions: for all kinds of
 * adapters, with dropout, and for every family.
 */
final class DirectionalDerivativeTest {
  private static final long KEY = 77;

  private final Random random = new Random(11);

  @ParameterizedTest
  @CsvSource({
    "llama3, 0, false, false",
    "llama3, 0.3, false, false",
    "llama3, 0, true, false",
    "llama3, 0.3, true, false",
    "llama3, 0.1, true, true",
    "llama_linear_rope, 0, false, true",
    "mistral, 0.2, false, false",
    "qwen2, 0.2, true, false",
    "qwen2_yarn, 0, false, false",
    "qwen3, 0.2, true, false",
    "smollm2, 0, false, true",
    "llama_mha, 0.5, true, false"
  })
  void gradients_areTheSlopesOfTheLoss(String base, double dropout, boolean dora, boolean rsLora)
      throws Exception {
    LoraOptions options =
        new LoraOptions(
            6,
            9,
            dropout,
            rsLora,
            dora,
            new LinkedHashMap<>(Map.of("layers\\.1\\.self_attn\\.q_proj", 3)),
            new LinkedHashMap<>(Map.of("down_proj", 5.0)),
            TextNode.valueOf(LoraOptions.ALL_LINEAR),
            Map.of(),
            LoraOptions.Init.RANDOM);
    check(base, options);
  }

  @ParameterizedTest
  @CsvSource({"'[\"down_proj\"]'", "'[\"o_proj\", \"v_proj\"]'", "'[\"gate_proj\"]'"})
  void oneLayerAlone_isReachedFromAboveAndNothingBelowIsTouched(String targets) throws Exception {
    JsonMapper json = new JsonMapper();
    Map<String, JsonNode> further = Map.of("layers_to_transform", json.readTree("[1]"));
    LoraOptions options =
        new LoraOptions(
            4,
            8,
            0,
            false,
            false,
            new LinkedHashMap<>(),
            new LinkedHashMap<>(),
            json.readTree(targets),
            further,
            LoraOptions.Init.RANDOM);
    check("llama3", options);
  }

  @ParameterizedTest
  @CsvSource({"0, false", "0.3, true"})
  void partsOfOneWidth_doNotShareRoom(double dropout, boolean dora) throws Exception {
    LoraOptions options =
        new LoraOptions(
            64,
            64,
            dropout,
            false,
            dora,
            new LinkedHashMap<>(),
            new LinkedHashMap<>(),
            TextNode.valueOf(LoraOptions.ALL_LINEAR),
            Map.of(),
            LoraOptions.Init.RANDOM);
    ModelConfig config =
        new ModelConfig(
            "llama",
            2,
            64,
            2,
            2,
            32,
            64,
            200,
            1e-5f,
            Rope.unscaled(10000),
            List.of(0, 0),
            false,
            false,
            false,
            false,
            false,
            128,
            null,
            List.of(2),
            null,
            null);
    try (CpuBackend backend = new CpuBackend(2, MathMode.EXACT);
        Model model = RandomModel.of("square", config, false, 9, backend)) {
      check("square", options, model, backend);
    }
  }

  private void check(String base, LoraOptions options) throws Exception {
    Path directory = Golden.path("models/%s-nf4-dq".formatted(base));
    try (CpuBackend backend = new CpuBackend(2, MathMode.EXACT);
        Model model = ModelLoader.load(directory, LoadOptions.AS_STORED, backend)) {
      check(base, options, model, backend);
    }
  }

  private void check(String base, LoraOptions options, Model model, CpuBackend backend)
      throws Exception {
    try (TrainableAdapter adapter = TrainableAdapter.create(options, 5, model, backend);
        TrainableModel trainable = new TrainableModel(model, backend, adapter, 0)) {
      MicroBatch batch = batch(model.config().vocabulary(), 9, 1, 40, 5);
      trainable.clearGradients();
      float scale = 1f / batch.targetCount();
      trainable.accumulate(batch, scale, KEY);
      for (Parameter.Role role : Parameter.Role.values()) {
        List<Parameter> own = adapter.parameters().stream().filter(p -> p.role() == role).toList();
        if (own.isEmpty()) {
          continue;
        }
        List<float[]> values = own.stream().map(p -> read(backend, p)).toList();
        List<float[]> direction = new ArrayList<>();
        double slope = 0;
        for (int i = 0; i < own.size(); i++) {
          float[] gradient = backend.read(own.get(i).gradient(), 0, own.get(i).gradient().rows());
          float[] each = new float[gradient.length];
          for (int j = 0; j < each.length; j++) {
            // Towards the gradient, so that the slope stands out of the rounding.
            each[j] = Math.signum(gradient[j]) * random.nextFloat();
            slope += (double) gradient[j] * each[j];
          }
          direction.add(each);
        }
        double step = 0.004 / Math.max(slope, 1e-3);
        double above = lossAt(trainable, backend, own, values, direction, step, batch);
        double below = lossAt(trainable, backend, own, values, direction, -step, batch);
        lossAt(trainable, backend, own, values, direction, 0, batch);
        double measured = (above - below) * scale / (2 * step);
        if (role == Parameter.Role.MAGNITUDE || !options.dora()) {
          assertThat(measured).as(base + " " + role).isCloseTo(slope, within(0.02 * slope));
        } else {
          // DoRA takes the norm for a constant, which it is not: the slopes agree in sign alone.
          assertThat(measured * slope).as(base + " " + role).isPositive();
        }
      }
    }
  }

  private static float[] read(CpuBackend backend, Parameter parameter) {
    return backend.read(parameter.value(), 0, parameter.value().rows());
  }

  private static double lossAt(
      TrainableModel trainable,
      CpuBackend backend,
      List<Parameter> parameters,
      List<float[]> values,
      List<float[]> direction,
      double step,
      MicroBatch batch) {
    for (int i = 0; i < parameters.size(); i++) {
      float[] moved = values.get(i).clone();
      for (int j = 0; j < moved.length; j++) {
        moved[j] += (float) (step * direction.get(i)[j]);
      }
      backend.write(parameters.get(i).value(), 0, moved);
    }
    return trainable.accumulate(batch, 0, KEY);
  }

  private MicroBatch batch(int vocabulary, int... lengths) {
    int rows = 0;
    int[] starts = new int[lengths.length + 1];
    for (int i = 0; i < lengths.length; i++) {
      rows += lengths[i];
      starts[i + 1] = rows;
    }
    int[] tokens = random.ints(rows, 0, vocabulary).toArray();
    int[] targets = new int[rows];
    for (int i = 0; i < lengths.length; i++) {
      for (int row = starts[i]; row < starts[i + 1]; row++) {
        boolean last = row + 1 == starts[i + 1];
        targets[row] = last || random.nextInt(3) == 0 ? MicroBatch.NONE : tokens[row + 1];
      }
    }
    return new MicroBatch(tokens, targets, starts);
  }

  @Test
  void packedSequences_doNotSeeEachOther() throws Exception {
    Path directory = Golden.path("models/llama3-nf4-dq");
    try (CpuBackend backend = new CpuBackend(2, MathMode.EXACT);
        Model model = ModelLoader.load(directory, LoadOptions.AS_STORED, backend);
        TrainableAdapter adapter =
            TrainableAdapter.create(LoraOptions.of(4, 8), 5, model, backend);
        TrainableModel trainable = new TrainableModel(model, backend, adapter, 0)) {
      MicroBatch packed = batch(model.config().vocabulary(), 12, 1, 30, 7);
      double together = trainable.loss(packed);
      float[][] logits = trainable.logits(packed);
      double apart = 0;
      for (int s = 0; s < packed.sequences(); s++) {
        int from = packed.starts()[s];
        int to = packed.starts()[s + 1];
        MicroBatch alone =
            new MicroBatch(
                Arrays.copyOfRange(packed.tokens(), from, to),
                Arrays.copyOfRange(packed.targets(), from, to),
                new int[] {0, to - from});
        apart += trainable.loss(alone);
        assertThat(trainable.logits(alone)).isDeepEqualTo(Arrays.copyOfRange(logits, from, to));
      }
      assertThat(together).isCloseTo(apart, within(1e-9 * apart));
    }
  }
}
