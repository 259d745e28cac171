package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A loaded model with a cache of its own, and what a forward pass over it gives. */
final class Forward implements AutoCloseable {
  private static final int MAX_TOKENS = 160;

  private final CpuBackend cpu;
  private final Backend backend;
  private final Map<Integer, List<float[]>> hidden = new HashMap<>();
  private final Model model;
  private final KvCache cache;
  private final Decoder decoder;

  Forward(Path directory, LoadOptions options) throws Exception {
    this(directory, options, MathMode.EXACT, KvShape.Type.F32);
  }

  Forward(Path directory, LoadOptions options, MathMode math) throws Exception {
    this(directory, options, math, KvShape.Type.F32);
  }

  Forward(Path directory, LoadOptions options, KvShape.Type type) throws Exception {
    this(directory, options, MathMode.EXACT, type);
  }

  private Forward(Path directory, LoadOptions options, MathMode math, KvShape.Type type)
      throws Exception {
    cpu = new CpuBackend(2, math);
    backend = recording(cpu);
    Model loaded = null;
    try {
      loaded = ModelLoader.load(directory, options, backend);
    } finally {
      if (loaded == null) {
        cpu.close();
      }
    }
    model = loaded;
    ModelConfig config = model.config();
    cache =
        backend.kvCache(new KvShape(config.layers(), config.kvHeads(), config.headDim(), 16, type));
    decoder = new Decoder(model, backend, cache, MAX_TOKENS, MAX_TOKENS);
  }

  Model model() {
    return model;
  }

  Decoder decoder() {
    return decoder;
  }

  Backend backend() {
    return backend;
  }

  CpuBackend cpu() {
    return cpu;
  }

  /** Logits of every position of {@code tokens}, prefilled in pieces of the given lengths. */
  float[][] logits(int[] tokens, int... pieces) {
    hidden.clear();
    List<float[]> logits = new ArrayList<>();
    int position = 0;
    for (int length : pieces) {
      logits.addAll(run(Arrays.copyOfRange(tokens, position, position + length), position, 0));
      position += length;
    }
    return logits.toArray(new float[0][]);
  }

  /** Logits after the last token of {@code tokens}. */
  float[] last(int[] tokens) {
    return run(tokens, 0, tokens.length - 1).getFirst();
  }

  /** Logits of a piece's rows {@code from} on. */
  private List<float[]> run(int[] piece, int position, int from) {
    // Blocks in an order of their own, so that the table matters.
    int[] blocks = new int[16];
    Arrays.setAll(blocks, i -> (i * 7 + 3) % 16);
    int[] outputs = new int[piece.length - from];
    Arrays.setAll(outputs, i -> from + i);
    Batch batch =
        new Batch(
            piece,
            List.of(new Batch.Run(0, piece.length, position, blocks)),
            List.of(new Batch.Segment(0, piece.length, null)),
            outputs);
    List<float[]> logits = new ArrayList<>();
    try (Step step = backend.step(batch)) {
      decoder.forward(step);
      Buffer rows = decoder.logits(step, 0, outputs.length);
      split(backend.read(rows, 0, outputs.length), outputs.length, logits);
    }
    return logits;
  }

  /** The most probable continuation, up to {@code count} tokens or the first that ends it. */
  List<Integer> greedy(int[] prompt, int count) {
    List<Integer> generated = new ArrayList<>();
    float[] last = last(prompt);
    while (generated.size() < count) {
      int best = best(last);
      generated.add(best);
      if (model.defaults().eos().contains(best)) {
        break;
      }
      last = run(new int[] {best}, prompt.length + generated.size() - 1, 0).getFirst();
    }
    return generated;
  }

  private static int best(float[] logits) {
    int best = 0;
    for (int i = 1; i < logits.length; i++) {
      best = logits[i] > logits[best] ? i : best;
    }
    return best;
  }

  /** The last call's hidden state after the embedding (0) and each layer, the last one normed. */
  float[][] hidden(int layer) {
    return hidden.getOrDefault(layer, List.of()).toArray(new float[0][]);
  }

  private static void split(float[] values, int rows, List<float[]> into) {
    int width = values.length / rows;
    for (int row = 0; row < rows; row++) {
      into.add(Arrays.copyOfRange(values, row * width, (row + 1) * width));
    }
  }

  /** Watches the norms: a layer's first one has the hidden state as its residual. */
  private Backend recording(Backend target) {
    return (Backend)
        Proxy.newProxyInstance(
            Forward.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, args) -> {
              Object result;
              try {
                result = method.invoke(target, args);
              } catch (InvocationTargetException e) {
                throw e.getCause();
              }
              if (method.getName().equals("norm")) {
                Step step = (Step) args[0];
                String path = model.modules().get((Integer) args[1]).path();
                if (path.equals("model.norm")) {
                  record(model.config().layers(), step, (Buffer) args[6]);
                } else if (path.endsWith("input_layernorm")) {
                  record(Integer.parseInt(path.split("\\.", 4)[2]), step, (Buffer) args[2]);
                }
              }
              return result;
            });
  }

  private void record(int layer, Step step, Buffer buffer) {
    int rows = step.batch().size();
    split(cpu.read(buffer, 0, rows), rows, hidden.computeIfAbsent(layer, l -> new ArrayList<>()));
  }

  @Override
  public void close() {
    decoder.close();
    cache.close();
    model.close();
    cpu.close();
  }
}
