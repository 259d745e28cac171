package dev.wardrobe.model;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Heads;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Linear;
import dev.wardrobe.compute.Step;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/**
 * The forward pass of a decoder-only transformer: Llama (arXiv 2302.13971) and the families that
 * differ from it by a bias, a norm or a window.
 *
 * <p>Owns the activations of up to {@code maxTokens} rows; a model's weights are shared. Used by
 * one thread at a time.
 */
public final class Decoder implements AutoCloseable {
  /** Rows of the rotary tables that are computed at a time. */
  private static final int TABLE_ROWS = 4096;

  private final Model model;
  private final ModelConfig config;
  private final Modules modules;
  private final Backend backend;
  private final KvCache cache;
  private final int positions;
  private final int maxTokens;
  private final int maxLogitRows;

  private final List<Buffer> buffers = new ArrayList<>();
  private final Buffer cos; // (positions, headDim / 2)
  private final Buffer sin;
  private final Buffer residual; // (tokens, hidden)
  private final Buffer x; // (tokens, hidden): a norm's output
  private final Buffer q; // (tokens, heads · headDim)
  private final Buffer k; // (tokens, kvHeads · headDim)
  private final Buffer v;
  private final Buffer attended; // (tokens, heads · headDim)
  private final Buffer out; // (tokens, hidden): what a sublayer adds to the residual
  private final Buffer gate; // (tokens, ffn)
  private final Buffer up;
  private final Buffer logits; // (maxLogitRows, vocabulary)

  // What projections write to.
  private final List<Buffer> qkv;
  private final List<Buffer> gateUp;
  private final List<Buffer> outs;

  private final List<Layer> layers = new ArrayList<>();
  private final Linear head;

  /** One layer's projections, grouped as they are called. */
  private record Layer(
      Modules.Layer modules,
      Heads heads,
      List<Linear> qkv,
      List<Linear> o,
      List<Linear> gateUp,
      List<Linear> down) {}

  /**
   * Allocates activations and rotary tables.
   *
   * @param cache keys and values, of the model's shape
   * @param maxTokens most tokens of a step
   * @param maxLogitRows most rows of logits at a time
   * @throws IllegalArgumentException if the cache is not of the model's shape
   * @throws dev.wardrobe.compute.OutOfMemoryException with nothing left allocated
   */
  public Decoder(Model model, Backend backend, KvCache cache, int maxTokens, int maxLogitRows) {
    this.model = model;
    this.config = model.config();
    this.modules = model.modules();
    this.backend = backend;
    this.cache = cache;
    this.maxTokens = maxTokens;
    this.maxLogitRows = maxLogitRows;
    checkShape(cache.shape());
    // A sequence can grow no longer than the cache or the context, whichever ends first.
    long capacity = (long) cache.shape().blocks() * KvShape.BLOCK_TOKENS;
    this.positions = (int) Math.min(config.contextLength(), capacity);

    boolean complete = false;
    try {
      int half = config.headDim() / 2;
      int queries = config.heads() * config.headDim();
      int keys = config.kvHeads() * config.headDim();
      cos = buffer(positions, half);
      sin = buffer(positions, half);
      fillRotaryTables();
      residual = buffer(maxTokens, config.hidden());
      x = buffer(maxTokens, config.hidden());
      q = buffer(maxTokens, queries);
      k = buffer(maxTokens, keys);
      v = buffer(maxTokens, keys);
      attended = buffer(maxTokens, queries);
      out = buffer(maxTokens, config.hidden());
      gate = buffer(maxTokens, config.ffn());
      up = buffer(maxTokens, config.ffn());
      logits = buffer(maxLogitRows, config.vocabulary());
      qkv = List.of(q, k, v);
      gateUp = List.of(gate, up);
      outs = List.of(out);
      complete = true;
    } finally {
      if (!complete) {
        close();
      }
    }
    for (int i = 0; i < config.layers(); i++) {
      layers.add(layer(i));
    }
    head = linear(modules.head());
  }

  /**
   * Runs all layers and the final norm over a step's tokens, and appends their keys and values to
   * the cache.
   *
   * @throws IllegalArgumentException if the step has more tokens than the decoder was made for
   */
  public void forward(Step step) {
    if (step.batch().size() > maxTokens) {
      throw new IllegalArgumentException(
          "step of %d tokens; this decoder takes at most %d"
              .formatted(step.batch().size(), maxTokens));
    }
    float epsilon = config.epsilon();
    Module embedding = modules.embedding();
    backend.embed(step, embedding.id(), model.matrix(embedding.id()), residual);

    for (int i = 0; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      Modules.Layer m = layer.modules;

      // Attention: x = norm(h); h += o(attention(rope(q(x)), rope(k(x)), v(x)))
      int inputNorm = m.inputNorm().id();
      Buffer mlp = i == 0 ? null : out;
      backend.norm(step, inputNorm, residual, mlp, model.norm(inputNorm), epsilon, x);
      backend.linear(step, layer.qkv, x, qkv);
      if (m.qNorm() != null && m.kNorm() != null) {
        int qNorm = m.qNorm().id();
        int kNorm = m.kNorm().id();
        backend.normHeads(step, qNorm, q, config.headDim(), model.norm(qNorm), epsilon);
        backend.normHeads(step, kNorm, k, config.headDim(), model.norm(kNorm), epsilon);
      }
      backend.rope(step, layer.heads, cos, sin, q, k, v, cache, i);
      backend.attention(step, layer.heads, q, cache, i, attended);
      backend.linear(step, layer.o, attended, outs);

      // Feed-forward: x = norm(h); h += down(silu(gate(x)) · up(x))
      int postNorm = m.postAttentionNorm().id();
      backend.norm(step, postNorm, residual, out, model.norm(postNorm), epsilon, x);
      backend.linear(step, layer.gateUp, x, gateUp);
      backend.activate(step, gate, up, gate);
      backend.linear(step, layer.down, gate, outs);
    }

    int norm = modules.norm().id();
    backend.norm(step, norm, residual, out, model.norm(norm), epsilon, x);
  }

  /**
   * Logits of a forwarded step's outputs {@code from} to {@code to} (exclusive), in rows 0 on of
   * the returned buffer, {@code (maxLogitRows, vocabulary)}; the next call overwrites them.
   *
   * @throws IllegalArgumentException if there are more than {@code maxLogitRows}
   */
  public Buffer logits(Step step, int from, int to) {
    if (to - from > maxLogitRows) {
      throw new IllegalArgumentException(
          "logits of %d rows; this decoder takes at most %d".formatted(to - from, maxLogitRows));
    }
    backend.logits(step, head, x, from, to, logits);
    return logits;
  }

  /**
   * Hidden states of {@code rows} rows of the forwarded step from {@code row} on, after the final
   * norm, {@code (rows, hiddenSize)}.
   */
  public float[] hidden(int row, int rows) {
    return backend.read(x, row, rows);
  }

  /** The width of a hidden state. */
  public int hiddenSize() {
    return config.hidden();
  }

  /** How many positions a sequence may have: the model's context, or the cache's if smaller. */
  public int positions() {
    return positions;
  }

  public int maxTokens() {
    return maxTokens;
  }

  public int maxLogitRows() {
    return maxLogitRows;
  }

  /** Bytes of activations and rotary tables. */
  public long bytes() {
    return buffers.stream().mapToLong(Buffer::bytes).sum();
  }

  @Override
  public void close() {
    buffers.forEach(Buffer::close);
    buffers.clear();
  }

  private void checkShape(KvShape shape) {
    if (shape.layers() != config.layers()
        || shape.kvHeads() != config.kvHeads()
        || shape.headDim() != config.headDim()) {
      throw new IllegalArgumentException(
          "KV cache of %d layers, %d heads of %d; the model has %d layers, %d heads of %d"
              .formatted(
                  shape.layers(),
                  shape.kvHeads(),
                  shape.headDim(),
                  config.layers(),
                  config.kvHeads(),
                  config.headDim()));
    }
  }

  private Layer layer(int index) {
    Modules.Layer m = modules.layer(index);
    Heads heads =
        new Heads(
            config.heads(),
            config.kvHeads(),
            config.headDim(),
            (float) (1 / Math.sqrt(config.headDim())),
            config.windows().get(index));
    return new Layer(
        m,
        heads,
        List.of(linear(m.q()), linear(m.k()), linear(m.v())),
        List.of(linear(m.o())),
        List.of(linear(m.gate()), linear(m.up())),
        List.of(linear(m.down())));
  }

  private Linear linear(Module module) {
    return new Linear(module.id(), model.matrix(module.id()), model.bias(module.id()));
  }

  private Buffer buffer(int rows, int width) {
    Buffer buffer = backend.buffer(rows, width);
    buffers.add(buffer);
    return buffer;
  }

  private void fillRotaryTables() {
    int half = config.headDim() / 2;
    float[] inverse = config.rope().inverseFrequencies(config.headDim());
    for (int from = 0; from < positions; from += TABLE_ROWS) {
      int first = from;
      int rows = Math.min(TABLE_ROWS, positions - from);
      float[] cosines = new float[rows * half];
      float[] sines = new float[rows * half];
      IntStream.range(0, rows)
          .parallel()
          .forEach(row -> config.rope().rotation(inverse, first + row, cosines, sines, row * half));
      backend.write(cos, from, cosines);
      backend.write(sin, from, sines);
    }
  }
}
