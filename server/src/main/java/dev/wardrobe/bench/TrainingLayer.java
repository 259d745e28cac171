package dev.wardrobe.bench;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.Modules;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * What training one layer and the head takes: each operation as often as a step of a micro-batch
 * has it, with adapters on all projections. Forward and, of what is not kept, once more; then back.
 *
 * <p>Operations only: buffers hold random numbers, and no gradient comes of it.
 */
final class TrainingLayer implements AutoCloseable {
  /** Rows of logits at a time. */
  private static final int LOGIT_ROWS = 128;

  private final Model model;
  private final Backend backend;
  private final Gradients gradients;
  private final int rows;
  private final int rank;
  private final Random random;
  private final Map<String, Buffer> buffers = new HashMap<>();
  private final List<Part> parts = new ArrayList<>();

  /** An operation, how often it is done, and what it multiplies and adds each time. */
  private record Part(String name, int times, long weights, double operations, Runnable work) {}

  TrainingLayer(Model model, Backend backend, int rows, int rank, long seed) {
    this.model = model;
    this.backend = backend;
    this.rows = rows;
    this.rank = rank;
    gradients = backend.gradients();
    random = new Random(seed);
    Modules.Layer layer = model.modules().layer(0);
    ModelConfig config = model.config();
    for (Module module : List.of(layer.q(), layer.k(), layer.v(), layer.gate(), layer.up())) {
      linear(module, 2);
    }
    for (Module module : List.of(layer.o(), layer.down())) {
      linear(module, 1);
    }
    attention(config);
    rest(config, model.norm(layer.inputNorm().id()));
    head(config);
  }

  /** A buffer of random numbers, the same for the same name and shape. */
  private Buffer buffer(String name, int rows, int width) {
    return buffers.computeIfAbsent(
        "%s %d %d".formatted(name, rows, width),
        _ -> {
          Buffer buffer = backend.buffer(rows, width);
          float[] values = new float[width];
          for (int row = 0; row < rows; row++) {
            for (int i = 0; i < width; i++) {
              values[i] = random.nextFloat() - 0.5f;
            }
            backend.write(buffer, row, values);
          }
          return buffer;
        });
  }

  private void add(String name, int times, long weights, double operations, Runnable work) {
    parts.add(new Part(name, times, weights, operations, work));
  }

  private void linear(Module module, int forward) {
    Matrix weight = model.matrix(module.id());
    int in = weight.cols();
    int out = weight.rows();
    Buffer x = buffer("x", rows, in);
    Buffer y = buffer("y", rows, out);
    Buffer dx = buffer("dx", rows, in);
    Buffer t = buffer("t", rows, rank);
    Buffer a = buffer("a", rank, in);
    Buffer b = buffer("b", out, rank);
    Buffer da = buffer("da", rank, in);
    Buffer db = buffer("db", out, rank);
    long weights = (long) in * out;
    double base = 2.0 * rows * weights;
    add("linear", forward, weights, base, () -> gradients.linear(weight, null, rows, x, y));
    add("linear, back", 1, weights, base, () -> gradients.linearInput(weight, rows, y, dx));
    double narrow = 2.0 * rows * rank * in;
    double wide = 2.0 * rows * rank * out;
    String shrink = "A, forward";
    String expand = "B, forward";
    long factor = (long) rank * in;
    add(shrink, 2, factor, narrow, () -> product(x, false, a, true, rows, rank, in, t));
    factor = (long) rank * out;
    add(expand, forward, factor, wide, () -> product(t, false, b, true, rows, out, rank, y));
    add("B, back", 1, factor, wide, () -> product(y, false, b, false, rows, rank, out, t));
    add("B's gradient", 1, 0, wide, () -> product(y, true, t, false, out, rank, rows, db));
    add("A's gradient", 1, 0, narrow, () -> product(t, true, x, false, rank, in, rows, da));
    factor = (long) rank * in;
    add("A, back", 1, factor, narrow, () -> product(t, false, a, false, rows, in, rank, dx));
  }

  private void product(
      Buffer a, boolean turnA, Buffer b, boolean turnB, int m, int n, int k, Buffer c) {
    gradients.product(1e-6f, a, turnA, b, turnB, m, n, k, c);
  }

  private void attention(ModelConfig config) {
    Heads heads =
        new Heads(
            config.heads(),
            config.kvHeads(),
            config.headDim(),
            (float) (1 / Math.sqrt(config.headDim())),
            config.windows().getFirst());
    int wide = config.heads() * config.headDim();
    int narrow = config.kvHeads() * config.headDim();
    Buffer q = buffer("x", rows, wide);
    Buffer k = buffer("k", rows, narrow);
    Buffer v = buffer("v", rows, narrow);
    Buffer out = buffer("out", rows, wide);
    Buffer sums = buffer("sums", rows, config.heads());
    Buffer dq = buffer("dx", rows, wide);
    Buffer dk = buffer("dk", rows, narrow);
    Buffer dv = buffer("dv", rows, narrow);
    int[] starts = {0, rows};
    long seen = 0;
    for (int row = 0; row < rows; row++) {
      seen += heads.window() == 0 ? row + 1 : Math.min(row + 1, heads.window());
    }
    double product = 2.0 * seen * wide;
    add(
        "attention",
        2,
        0,
        2 * product,
        () -> gradients.attention(starts, heads, q, k, v, out, sums));
    add(
        "attention, back",
        1,
        0,
        5 * product,
        () -> gradients.attentionInput(starts, heads, q, k, v, out, sums, q, dq, dk, dv));
    Buffer cos = buffer("cos", rows, config.headDim() / 2);
    Buffer sin = buffer("sin", rows, config.headDim() / 2);
    int[] positions = new int[rows];
    for (int row = 0; row < rows; row++) {
      positions[row] = row;
    }
    double turned = 3.0 * rows * (wide + narrow);
    add(
        "rotate, both ways",
        2,
        0,
        2 * turned,
        () -> {
          for (boolean back : new boolean[] {false, true}) {
            gradients.rotate(dq, config.headDim(), cos, sin, positions, back);
            gradients.rotate(dk, config.headDim(), cos, sin, positions, back);
          }
        });
  }

  private void rest(ModelConfig config, Buffer norm) {
    int hidden = config.hidden();
    int wide = model.modules().layer(0).gate().out();
    Buffer x = buffer("x", rows, hidden);
    Buffer y = buffer("out", rows, hidden);
    Buffer dx = buffer("dx", rows, hidden);
    double each = 4.0 * rows * hidden;
    float epsilon = config.epsilon();
    add("norm", 4, 0, each, () -> gradients.norm(x, norm, epsilon, rows, y));
    add("norm, back", 2, 0, 2 * each, () -> gradients.normInput(x, norm, epsilon, rows, y, dx));
    Buffer gate = buffer("x", rows, wide);
    Buffer up = buffer("up", rows, wide);
    Buffer out = buffer("y", rows, wide);
    Buffer dGate = buffer("dGate", rows, wide);
    Buffer dUp = buffer("dx", rows, wide);
    double activated = 20.0 * rows * wide;
    add("activate", 2, 0, activated, () -> gradients.activate(rows, gate, up, out));
    add(
        "activate, back",
        1,
        0,
        activated,
        () -> gradients.activateInput(rows, gate, up, out, dGate, dUp));
    add("add", 4, 0, 2.0 * rows * hidden, () -> gradients.add(rows, 1e-6f, x, y));
  }

  private void head(ModelConfig config) {
    Matrix head = model.matrix(model.modules().head().id());
    int some = Math.min(rows, LOGIT_ROWS);
    int times = (rows + some - 1) / some;
    Buffer x = buffer("x", some, config.hidden());
    Buffer dx = buffer("dx", some, config.hidden());
    Buffer logits = buffer("logits", some, config.vocabulary());
    int[] targets = new int[some];
    long weights = (long) head.rows() * head.cols();
    double base = 2.0 * some * weights;
    add("head", times, weights, base, () -> gradients.linear(head, null, some, x, logits));
    add(
        "cross-entropy",
        times,
        0,
        40.0 * some * head.rows(),
        () -> gradients.crossEntropy(some, logits, targets, 0, 1));
    add("head, back", times, weights, base, () -> gradients.linearInput(head, some, logits, dx));
  }

  /** Does it all once. */
  List<Cost> run() {
    List<Cost> costs = new ArrayList<>();
    for (Part part : parts) {
      long start = System.nanoTime();
      for (int i = 0; i < part.times; i++) {
        part.work.run();
      }
      double seconds = (System.nanoTime() - start) / 1e9;
      Cost cost =
          new Cost(
              part.name,
              part.times,
              seconds,
              part.times * part.weights,
              0,
              part.times * part.operations);
      add(costs, cost);
    }
    return costs;
  }

  /** Adds to the cost of the same name, if there is one. */
  private static void add(List<Cost> costs, Cost cost) {
    for (int i = 0; i < costs.size(); i++) {
      if (costs.get(i).operation().equals(cost.operation())) {
        costs.set(i, Cost.sum(List.of(costs.get(i)), List.of(cost)).getFirst());
        return;
      }
    }
    costs.add(cost);
  }

  @Override
  public void close() {
    buffers.values().forEach(Buffer::close);
  }
}
