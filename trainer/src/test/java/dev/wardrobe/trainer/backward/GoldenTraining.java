package dev.wardrobe.trainer.backward;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.trainer.Golden;
import dev.wardrobe.trainer.data.MicroBatch;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** A training run of transformers, PEFT and bitsandbytes, and the same model here. */
final class GoldenTraining implements AutoCloseable {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  final Path folder;
  final JsonNode curve;
  final List<MicroBatch> batches;
  final CpuBackend backend;
  final Model model;
  final TrainableAdapter adapter;
  final TrainableModel trainable;

  GoldenTraining(String base, String variant, int threads, int keep) throws Exception {
    folder = Golden.path("training/%s_%s".formatted(base, variant));
    curve = new JsonMapper().readTree(Files.readAllBytes(folder.resolve("curve.json")));
    batches = batches(Golden.path("training/%s.batches.safetensors".formatted(base)));
    backend = new CpuBackend(threads, MathMode.EXACT);
    model =
        ModelLoader.load(
            Golden.path("models/%s-nf4-dq".formatted(base)), LoadOptions.AS_STORED, backend);
    adapter = TrainableAdapter.read(folder.resolve("init"), model, backend);
    trainable = new TrainableModel(model, backend, adapter, keep);
  }

  /** Right-padded rows, without their padding. */
  private static List<MicroBatch> batches(Path file) throws Exception {
    List<MicroBatch> batches = new ArrayList<>();
    try (SafetensorsFile tensors = SafetensorsFile.open(file)) {
      MemorySegment ids = tensors.data(tensors.require("input_ids"));
      MemorySegment labels = tensors.data(tensors.require("labels"));
      MemorySegment mask = tensors.data(tensors.require("attention_mask"));
      int length = 28;
      for (int batch = 0; batch < 20; batch++) {
        List<Integer> tokens = new ArrayList<>();
        List<Integer> targets = new ArrayList<>();
        int[] starts = new int[5];
        for (int row = 0; row < 4; row++) {
          int first = (batch * 4 + row) * length;
          for (int i = 0; i < length && mask.getAtIndex(INT, first + i) == 1; i++) {
            tokens.add(ids.getAtIndex(INT, first + i));
            boolean last = i + 1 == length || mask.getAtIndex(INT, first + i + 1) == 0;
            targets.add(last ? MicroBatch.NONE : labels.getAtIndex(INT, first + i + 1));
          }
          starts[row + 1] = tokens.size();
        }
        batches.add(
            new MicroBatch(
                tokens.stream().mapToInt(i -> i).toArray(),
                targets.stream().mapToInt(i -> i).toArray(),
                starts));
      }
    }
    return batches;
  }

  /** The micro-batches of a step. */
  List<MicroBatch> step(int step) {
    return List.of(batches.get(2 * step % 20), batches.get((2 * step + 1) % 20));
  }

  /** Gradients of a step, and its loss. */
  double accumulate(int step) {
    List<MicroBatch> micro = step(step);
    int targets = micro.stream().mapToInt(MicroBatch::targetCount).sum();
    double sum = 0;
    trainable.clearGradients();
    for (MicroBatch batch : micro) {
      sum += trainable.accumulate(batch, 1f / targets, 0);
    }
    return sum / targets;
  }

  float[] gradient(Parameter parameter) {
    return backend.read(parameter.gradient(), 0, parameter.gradient().rows());
  }

  float[] value(Parameter parameter) {
    return backend.read(parameter.value(), 0, parameter.value().rows());
  }

  @Override
  public void close() {
    trainable.close();
    adapter.close();
    model.close();
    backend.close();
  }
}
