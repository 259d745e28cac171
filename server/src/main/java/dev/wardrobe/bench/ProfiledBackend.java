package dev.wardrobe.bench;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.Modules;
import dev.wardrobe.quant.QuantizedMatrix;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/** A backend that notes how long each operation of another takes, and how much it has to do. */
final class ProfiledBackend implements Backend {
  /** Kinds of operations, as a forward pass has them. */
  private enum Operation {
    STEP("step's tables"),
    EMBED("embed"),
    NORM("norm"),
    QKV("linear q, k, v"),
    ROPE("rope, kv write"),
    ATTENTION("attention"),
    O("linear o"),
    GATE_UP("linear gate, up"),
    ACTIVATE("activate"),
    DOWN("linear down"),
    LOGITS("logits"),
    SAMPLE("sample"),
    SHRINK("adapters, shrink");

    private final String title;

    Operation(String title) {
      this.title = title;
    }
  }

  private static final int FLOAT_BYTES = 4;

  private final Backend backend;
  private final Modules modules;
  private final Map<Operation, Tally> tallies = new EnumMap<>(Operation.class);

  /** Counts of one kind of operation. */
  private static final class Tally {
    private long calls;
    private long nanos;
    private long weights;
    private long bytes;
    private double operations;
  }

  ProfiledBackend(Backend backend, Modules modules) {
    this.backend = backend;
    this.modules = modules;
    take();
  }

  /** All costs since the last time, in the order of a forward pass. */
  List<Cost> take() {
    List<Cost> costs = new ArrayList<>();
    for (Operation operation : Operation.values()) {
      Tally tally = tallies.put(operation, new Tally());
      if (tally != null) {
        costs.add(
            new Cost(
                operation.title,
                tally.calls,
                tally.nanos / 1e9,
                tally.weights,
                tally.bytes,
                tally.operations));
      }
    }
    return costs;
  }

  /** Whether a cost is that of projections, and of the adapters' second factors. */
  static boolean linear(Cost cost) {
    return cost.operation().startsWith("linear");
  }

  /** Whether a cost is that of the adapters' first factors. */
  static boolean shrink(Cost cost) {
    return cost.operation().equals(Operation.SHRINK.title);
  }

  private void note(Operation operation, long start, long read, double computed) {
    long end = System.nanoTime();
    Tally tally = tally(operation);
    tally.nanos += end - start;
    tally.calls++;
    tally.bytes += read;
    tally.operations += computed;
  }

  private Tally tally(Operation operation) {
    return tallies.computeIfAbsent(operation, _ -> new Tally());
  }

  @Override
  public Step step(Batch batch) {
    long start = System.nanoTime();
    Step step = backend.step(batch);
    note(Operation.STEP, start, 0, 0);
    return step;
  }

  @Override
  public void embed(Step step, int module, Matrix table, Buffer out) {
    long start = System.nanoTime();
    backend.embed(step, module, table, out);
    long row = table.footprint().total() / table.rows() + (long) FLOAT_BYTES * table.cols();
    note(Operation.EMBED, start, step.batch().size() * row, 0);
  }

  @Override
  public void norm(
      Step step,
      int module,
      Buffer residual,
      @Nullable Buffer x,
      Buffer weight,
      float epsilon,
      Buffer out) {
    long start = System.nanoTime();
    backend.norm(step, module, residual, x, weight, epsilon, out);
    long elements = (long) step.batch().size() * residual.width();
    // Reads both terms, writes the sum and the result.
    note(Operation.NORM, start, FLOAT_BYTES * elements * (x == null ? 2 : 4), 5.0 * elements);
  }

  @Override
  public void normHeads(Step step, int module, Buffer x, int size, Buffer weight, float epsilon) {
    long start = System.nanoTime();
    backend.normHeads(step, module, x, size, weight, epsilon);
    long elements = (long) step.batch().size() * x.width();
    note(Operation.NORM, start, 2 * FLOAT_BYTES * elements, 4.0 * elements);
  }

  @Override
  public void linear(Step step, List<Linear> linears, Buffer x, List<Buffer> outs) {
    long start = System.nanoTime();
    long shrunkBefore = shrinkNanos();
    backend.linear(step, linears, x, outs);
    long shrink = shrinkNanos() - shrunkBefore;
    Operation operation = operation(linears.getFirst());
    note(operation, start + shrink, 0, 0);
    if (shrink > 0) {
      Tally tally = tally(Operation.SHRINK);
      tally.calls++;
      tally.nanos += shrink;
    }
    for (int i = 0; i < linears.size(); i++) {
      weigh(operation, linears.get(i).weight(), step.batch().size());
    }
  }

  @Override
  public void logits(Step step, Linear head, Buffer x, int from, int to, Buffer logits) {
    long start = System.nanoTime();
    backend.logits(step, head, x, from, to, logits);
    note(Operation.LOGITS, start, 0, 0);
    weigh(Operation.LOGITS, head.weight(), to - from);
  }

  private long shrinkNanos() {
    return backend instanceof CpuBackend cpu ? cpu.shrinkNanos() : 0;
  }

  private void weigh(Operation operation, Matrix weight, int rows) {
    Tally tally = tally(operation);
    long elements = (long) weight.rows() * weight.cols();
    tally.weights += elements;
    tally.bytes += weight.footprint().total();
    tally.operations += 2.0 * rows * elements;
  }

  private Operation operation(Linear first) {
    String path = modules.get(first.module()).path();
    return switch (path.substring(path.lastIndexOf('.') + 1)) {
      case "q_proj" -> Operation.QKV;
      case "o_proj" -> Operation.O;
      case "gate_proj" -> Operation.GATE_UP;
      case "down_proj" -> Operation.DOWN;
      default -> throw new IllegalArgumentException(path + " is no first of its projections");
    };
  }

  @Override
  public void rope(
      Step step,
      Heads heads,
      Buffer cos,
      Buffer sin,
      Buffer q,
      Buffer k,
      Buffer v,
      KvCache cache,
      int layer) {
    long start = System.nanoTime();
    backend.rope(step, heads, cos, sin, q, k, v, cache, layer);
    long tokens = step.batch().size();
    long queries = tokens * heads.queries() * heads.size();
    long keys = tokens * heads.keyValues() * heads.size();
    note(
        Operation.ROPE,
        start,
        FLOAT_BYTES * (2 * queries + 2 * keys) + 2 * keys * cache.shape().type().bytes(),
        3.0 * (queries + keys));
  }

  @Override
  public void attention(Step step, Heads heads, Buffer q, KvCache cache, int layer, Buffer out) {
    long start = System.nanoTime();
    backend.attention(step, heads, q, cache, layer, out);
    long read = 0;
    long seen = 0;
    List<Batch.Run> runs = step.batch().runs();
    for (int i = 0; i < runs.size(); i++) {
      Batch.Run run = runs.get(i);
      int window = heads.window() == 0 ? Integer.MAX_VALUE : heads.window();
      int end = run.position() + run.to() - run.from();
      read += Math.min(end, (long) window + run.to() - run.from() - 1);
      for (int position = run.position(); position < end; position++) {
        seen += Math.min(position + 1, window);
      }
    }
    note(
        Operation.ATTENTION,
        start,
        2 * read * heads.keyValues() * heads.size() * cache.shape().type().bytes(),
        4.0 * seen * heads.queries() * heads.size());
  }

  @Override
  public void activate(Step step, Buffer gate, Buffer up, Buffer out) {
    long start = System.nanoTime();
    backend.activate(step, gate, up, out);
    long elements = (long) step.batch().size() * out.width();
    // An exponential is some twenty operations.
    note(Operation.ACTIVATE, start, 3 * FLOAT_BYTES * elements, 20.0 * elements);
  }

  @Override
  public void sample(Step step, Buffer logits, List<Draw> draws) {
    long start = System.nanoTime();
    backend.sample(step, logits, draws);
    long elements = (long) draws.size() * logits.width();
    note(Operation.SAMPLE, start, FLOAT_BYTES * elements, 20.0 * elements);
  }

  @Override
  public String describe() {
    return backend.describe();
  }

  @Override
  public @Nullable String refusal() {
    return backend.refusal();
  }

  @Override
  public boolean awaitWarm(Duration atMost) throws InterruptedException {
    return backend.awaitWarm(atMost);
  }

  @Override
  public long workspaceBytes() {
    return backend.workspaceBytes();
  }

  @Override
  public long spareBytes() {
    return backend.spareBytes();
  }

  @Override
  public MathMode math() {
    return backend.math();
  }

  @Override
  public Buffer buffer(int rows, int width) {
    return backend.buffer(rows, width);
  }

  @Override
  public void write(Buffer to, int row, float[] values) {
    backend.write(to, row, values);
  }

  @Override
  public float[] read(Buffer from, int row, int rows) {
    return backend.read(from, row, rows);
  }

  @Override
  public Matrix matrix(QuantizedMatrix weights) {
    return backend.matrix(weights);
  }

  @Override
  public Matrix matrix(DenseMatrix weights) {
    return backend.matrix(weights);
  }

  @Override
  public String layout() {
    return backend.layout();
  }

  @Override
  public Matrix matrix(PackedMatrix weights) {
    return backend.matrix(weights);
  }

  @Override
  public void trim() {
    backend.trim();
  }

  @Override
  public KvCache kvCache(KvShape shape) {
    return backend.kvCache(shape);
  }

  @Override
  public Lora lora(Map<Integer, Delta> deltas, IntFunction<Matrix> base) {
    return backend.lora(deltas, base);
  }

  @Override
  public long loraBytes(Map<Integer, Delta> deltas) {
    return backend.loraBytes(deltas);
  }

  @Override
  public Gradients gradients() {
    return backend.gradients();
  }

  /** Nothing: what it decorates is another's to close. */
  @Override
  public void close() {}
}
