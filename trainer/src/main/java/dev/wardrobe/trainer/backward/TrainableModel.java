package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.Modules;
import dev.wardrobe.trainer.data.MicroBatch;
import dev.wardrobe.trainer.data.SplitMix64;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A frozen base with the adapter that is trained on it: losses of micro-batches, and the gradients
 * of the adapter's parameters.
 *
 * <p>Of the forward pass, each layer's input and its middle (behind attention) are kept; all else
 * is computed again on the way back, one layer at a time, except in the layers that keep theirs.
 * The last layer's is there still. With the middle kept, o's and down's products need not be
 * repeated.
 *
 * <p>Used by the thread that owns the backend. Memory grows with the largest micro-batch seen.
 */
public final class TrainableModel implements AutoCloseable {
  /** Most bytes of logits at a time. */
  private static final long LOGIT_BYTES = 32L << 20;

  /** Rows of logits at a time, at least. */
  private static final int LEAST_LOGIT_ROWS = 16;

  private final Model model;
  private final ModelConfig config;
  private final Backend backend;
  private final Gradients gradients;
  private final TrainableAdapter adapter;
  private final int keep;
  private final List<DecoderLayer> layers = new ArrayList<>();
  private final int lowest;
  private final Matrix head;
  private final Buffer norm;
  private final int logitRows;
  private @Nullable Room room;

  /** Everything that is as large as a micro-batch. */
  private static final class Room {
    final Workspace workspace;
    final Buffer cos;
    final Buffer sin;

    /** Each layer's input, then the last one's output. */
    final List<Buffer> inputs = new ArrayList<>();

    final List<Buffer> middles = new ArrayList<>();
    final List<Activations> activations = new ArrayList<>();
    final Buffer back; // (rows, hidden)
    final Buffer logits; // (logitRows, vocabulary)
    final Buffer chosen; // (logitRows, hidden): the rows that have targets
    final Buffer normed;
    final Buffer dNormed;

    /** Whose activations are in the room that layers share, or -1. */
    int held = -1;

    Room(TrainableModel of, int rows) {
      ModelConfig config = of.config;
      int hidden = config.hidden();
      workspace = new Workspace(of.backend, rows);
      cos = workspace.buffer(config.headDim() / 2);
      sin = workspace.buffer(config.headDim() / 2);
      fillRotaryTables(config, rows, of.backend);
      for (int i = 0; i < of.layers.size(); i++) {
        inputs.add(workspace.buffer(hidden));
        middles.add(workspace.buffer(hidden));
        activations.add(new Activations(of.layers.get(i), hidden, workspace, of.keeps(i)));
      }
      inputs.add(workspace.buffer(hidden));
      back = workspace.buffer(hidden);
      int logitRows = Math.min(of.logitRows, rows);
      logits = workspace.buffer(logitRows, config.vocabulary());
      chosen = workspace.buffer(logitRows, hidden);
      normed = workspace.buffer(logitRows, hidden);
      dNormed = workspace.buffer(logitRows, hidden);
    }

    private void fillRotaryTables(ModelConfig config, int rows, Backend backend) {
      int half = config.headDim() / 2;
      float[] inverse = config.rope().inverseFrequencies(config.headDim());
      float[] cosines = new float[rows * half];
      float[] sines = new float[rows * half];
      for (int row = 0; row < rows; row++) {
        config.rope().rotation(inverse, row, cosines, sines, row * half);
      }
      backend.write(cos, 0, cosines);
      backend.write(sin, 0, sines);
    }
  }

  /**
   * Joins a base and an adapter; both stay their owners'.
   *
   * @param keep how many of the last layers keep their activations instead of computing them again
   */
  public TrainableModel(Model model, Backend backend, TrainableAdapter adapter, int keep) {
    this.model = model;
    this.config = model.config();
    this.backend = backend;
    this.gradients = backend.gradients();
    this.adapter = adapter;
    this.keep = keep;
    Modules modules = model.modules();
    int first = -1;
    for (int i = 0; i < config.layers(); i++) {
      DecoderLayer layer = layer(modules.layer(i), i);
      layers.add(layer);
      if (first < 0 && layer.trained()) {
        first = i;
      }
    }
    lowest = first;
    head = model.matrix(modules.head().id());
    norm = model.norm(modules.norm().id());
    long fitting = LOGIT_BYTES / (4L * config.vocabulary());
    logitRows = Math.clamp(fitting, LEAST_LOGIT_ROWS, 1 << 16);
  }

  private boolean keeps(int layer) {
    return layer >= layers.size() - keep;
  }

  private DecoderLayer layer(Modules.Layer m, int index) {
    Module qNorm = m.qNorm();
    Module kNorm = m.kNorm();
    return new DecoderLayer(
        new Heads(
            config.heads(),
            config.kvHeads(),
            config.headDim(),
            (float) (1 / Math.sqrt(config.headDim())),
            config.windows().get(index)),
        config.epsilon(),
        model.norm(m.inputNorm().id()),
        linear(m.q()),
        linear(m.k()),
        linear(m.v()),
        qNorm == null ? null : model.norm(qNorm.id()),
        kNorm == null ? null : model.norm(kNorm.id()),
        linear(m.o()),
        model.norm(m.postAttentionNorm().id()),
        linear(m.gate()),
        linear(m.up()),
        linear(m.down()));
  }

  private AdaptedLinear linear(Module module) {
    return new AdaptedLinear(
        model.matrix(module.id()),
        model.bias(module.id()),
        adapter.factors(module.id()),
        module.id());
  }

  /**
   * Adds to the parameters' gradients {@code scale} times that of the micro-batch's summed
   * cross-entropy.
   *
   * @param scale 1 / the targets of all micro-batches of the step, for their mean
   * @param dropoutKey what masks are drawn from; another for each micro-batch
   * @return the sum over targets of -ln p(target); not finite if a logit is not, and then the
   *     gradients are of no use
   * @throws IllegalArgumentException for a token that the vocabulary does not have, or a sequence
   *     longer than the model's context
   */
  public double accumulate(MicroBatch batch, float scale, long dropoutKey) {
    double p = adapter.dropout();
    AdaptedLinear.Dropout dropout =
        p == 0
            ? AdaptedLinear.Dropout.NONE
            : new AdaptedLinear.Dropout((float) p, SplitMix64.mix(dropoutKey));
    Room own = room(batch.rows());
    DecoderLayer.Pass pass = pass(batch, dropout, own);
    forward(pass, batch, own);
    gradients.clear(batch.rows(), own.back);
    double loss = loss(batch, scale, own, own.back);
    if (!Double.isFinite(loss) || batch.targetCount() == 0) {
      return loss;
    }
    for (int i = layers.size() - 1; i >= lowest; i--) {
      DecoderLayer layer = layers.get(i);
      Activations activations = own.activations.get(i);
      Buffer input = own.inputs.get(i);
      Buffer middle = own.middles.get(i);
      if (!keeps(i) && own.held != i) {
        layer.recompute(pass, input, middle, activations);
        own.held = i;
      }
      layer.backward(pass, input, middle, own.back, i > lowest, activations);
    }
    return loss;
  }

  /**
   * The micro-batch's summed cross-entropy, without dropout; gradients stay as they are.
   *
   * @return as {@link #accumulate}
   */
  public double loss(MicroBatch batch) {
    Room own = room(batch.rows());
    forward(pass(batch, AdaptedLinear.Dropout.NONE, own), batch, own);
    return loss(batch, 1, own, null);
  }

  /** Logits of each row, {@code (rows, vocabulary)}, without dropout. */
  public float[][] logits(MicroBatch batch) {
    Room own = room(batch.rows());
    forward(pass(batch, AdaptedLinear.Dropout.NONE, own), batch, own);
    int[] rows = new int[batch.rows()];
    for (int i = 0; i < rows.length; i++) {
      rows[i] = i;
    }
    float[][] logits = new float[rows.length][];
    for (int from = 0; from < rows.length; from += own.logits.rows()) {
      int count = Math.min(own.logits.rows(), rows.length - from);
      logits(rows, from, count, own);
      for (int i = 0; i < count; i++) {
        logits[from + i] = backend.read(own.logits, i, 1);
      }
    }
    return logits;
  }

  /** Sets all gradients to 0. */
  public void clearGradients() {
    for (Parameter parameter : adapter.parameters()) {
      gradients.clear(parameter.gradient().rows(), parameter.gradient());
    }
  }

  /** Bytes of activations at the largest micro-batch so far. */
  public long activationBytes() {
    return room == null ? 0 : room.workspace.bytes();
  }

  /** Makes sure that there is room for micro-batches of so many rows, and for no more. */
  public void reserve(int rows) {
    if (room == null || room.workspace.rows() < rows) {
      close();
      room = new Room(this, rows);
    }
  }

  private Room room(int rows) {
    reserve(rows);
    Room own = room;
    if (own == null) {
      throw new IllegalStateException("no room");
    }
    return own;
  }

  private DecoderLayer.Pass pass(MicroBatch batch, AdaptedLinear.Dropout dropout, Room own) {
    return new DecoderLayer.Pass(
        gradients, batch.starts(), batch.positions(), own.cos, own.sin, dropout, own.workspace);
  }

  private void forward(DecoderLayer.Pass pass, MicroBatch batch, Room own) {
    Matrix table = model.matrix(model.modules().embedding().id());
    gradients.embed(table, batch.tokens(), own.inputs.getFirst());
    for (int i = 0; i < layers.size(); i++) {
      layers
          .get(i)
          .forward(
              pass,
              own.inputs.get(i),
              own.middles.get(i),
              own.inputs.get(i + 1),
              own.activations.get(i));
      if (!keeps(i)) {
        own.held = i;
      }
    }
  }

  /** The final norm's output for some rows, and their logits. */
  private void logits(int[] rows, int from, int count, Room own) {
    gradients.gather(own.inputs.getLast(), rows, from, count, own.chosen);
    gradients.norm(own.chosen, norm, config.epsilon(), count, own.normed);
    gradients.linear(head, null, count, own.normed, own.logits);
  }

  /**
   * The loss, some rows of logits at a time.
   *
   * @param back takes the gradients of the last layer's output, where a row has a target; or null
   */
  private double loss(MicroBatch batch, float scale, Room own, @Nullable Buffer back) {
    int[] rows = new int[batch.targetCount()];
    int[] targets = new int[rows.length];
    int count = 0;
    for (int row = 0; row < batch.rows(); row++) {
      if (batch.targets()[row] != MicroBatch.NONE) {
        targets[count] = batch.targets()[row];
        rows[count++] = row;
      }
    }
    double loss = 0;
    for (int from = 0; from < rows.length; from += own.logits.rows()) {
      int some = Math.min(own.logits.rows(), rows.length - from);
      logits(rows, from, some, own);
      loss += gradients.crossEntropy(some, own.logits, targets, from, scale);
      if (back != null && Double.isFinite(loss)) {
        gradients.clear(some, own.dNormed);
        gradients.linearInput(head, some, own.logits, own.dNormed);
        // The norm's output is not needed any more; its buffer takes the input's gradient.
        gradients.clear(some, own.normed);
        gradients.normInput(own.chosen, norm, config.epsilon(), some, own.dNormed, own.normed);
        gradients.scatter(own.normed, rows, from, some, back);
      }
    }
    return loss;
  }

  /** Frees the activations; base and adapter stay. */
  @Override
  public void close() {
    if (room != null) {
      room.workspace.close();
      room = null;
    }
  }
}
