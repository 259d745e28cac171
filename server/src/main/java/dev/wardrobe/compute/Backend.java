package dev.wardrobe.compute;

import dev.wardrobe.quant.QuantizedMatrix;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * A device: its memory, and the coarse operations that a forward pass is made of.
 *
 * <p>Operations are ordered on one stream and may run asynchronously; only {@link #sample} and
 * {@link #read} wait. They are called by one thread (the engine's); {@link #matrix}, {@link #lora}
 * and {@link #buffer} may be called by any thread, beside a running step. Each operation works on
 * the rows of a {@link Step}: {@code tokens} rows, buffers may have more.
 *
 * <p>Exactness: in {@link MathMode#EXACT} a row's result depends on nothing but the weights, its
 * adapter and its sequence: not on the other rows, on how the sequence was cut into runs, on
 * threads or vector width.
 *
 * <p>Errors: shapes that do not fit are {@link IllegalArgumentException}; memory that cannot be had
 * is {@link OutOfMemoryException}, with nothing allocated; a device that can be used no longer is
 * {@link DeviceLostException}.
 */
public interface Backend extends AutoCloseable {

  /** One line for people: device, width, threads, and how it computes. */
  String describe();

  /** How projections are computed: what is in effect, whatever was asked for. */
  MathMode math();

  /** Why the mode that was asked for is not the one in effect; null if it is. */
  @Nullable String refusal();

  /**
   * Waits until operations are as fast as they will be; before, they have the same bits, slower.
   *
   * @return false if they are not so fast after that time
   */
  boolean awaitWarm(Duration atMost) throws InterruptedException;

  /** Bytes that operations work in, beside the buffers that were asked for. */
  long workspaceBytes();

  /**
   * Bytes of a device's own memory that are free for keys, values and adapters, or -1 where memory
   * is the machine's, which others use too.
   */
  long spareBytes();

  // Memory.

  /** A zeroed buffer {@code (rows, width)}. */
  Buffer buffer(int rows, int width);

  /** Copies {@code values} over whole rows from {@code row} on. */
  void write(Buffer to, int row, float[] values);

  /** Reads {@code rows} rows from {@code row} on, after everything queued before it. */
  float[] read(Buffer from, int row, int rows);

  /** Makes a 4-bit matrix resident; its statistics stay as stored. */
  Matrix matrix(QuantizedMatrix weights);

  /** Makes a dense matrix resident in its stored type. */
  Matrix matrix(DenseMatrix weights);

  /** Names the form of {@link Matrix#stored}: another name, other bytes. */
  String layout();

  /**
   * Makes a matrix resident that a backend of the same {@link #layout} packed. Its parts may be
   * used where they are: they must outlive the matrix, and never change.
   *
   * @throws IllegalArgumentException if the parts are not those that the form describes
   */
  Matrix matrix(PackedMatrix weights);

  /** Gives memory that was freed back to the system rather than keep it for later. */
  void trim();

  KvCache kvCache(KvShape shape);

  /**
   * Makes an adapter resident.
   *
   * @param deltas by module number
   * @param base the base's matrix of a module (DoRA's norm needs it)
   */
  Lora lora(Map<Integer, Delta> deltas, IntFunction<Matrix> base);

  /** What {@link Lora#bytes} of an adapter will be once {@link #lora} has made it resident. */
  long loraBytes(Map<Integer, Delta> deltas);

  /**
   * Begins a step: checks the batch and makes its tables resident. The batch stays as it is until
   * the step is closed, and a closed step may come back as another one.
   */
  Step step(Batch batch);

  // Operations.

  /** {@code out[t] = table[token t]}, with the rows' adapters of {@code module}. */
  void embed(Step step, int module, Matrix table, Buffer out);

  /**
   * RMSNorm with residual: {@code residual += x} unless {@code x} is null, then {@code out =
   * residual / √(mean(residual²) + epsilon) · weight}. An adapter may replace the weight of {@code
   * module}.
   *
   * @param weight {@code (1, width)}
   */
  void norm(
      Step step,
      int module,
      Buffer residual,
      @Nullable Buffer x,
      Buffer weight,
      float epsilon,
      Buffer out);

  /**
   * RMSNorm of each head by itself, in place (Qwen3's q and k norm).
   *
   * @param x {@code (tokens, heads · size)}
   * @param weight {@code (1, size)}
   */
  void normHeads(Step step, int module, Buffer x, int size, Buffer weight, float epsilon);

  /**
   * Projections that read the same input, each with its rows of LoRA: {@code outs[i] =
   * linears[i](x)}. One call per group, whatever adapters the batch holds.
   *
   * @param x {@code (tokens, in)}
   * @param outs {@code (tokens, out_i)}
   */
  void linear(Step step, List<Linear> linears, Buffer x, List<Buffer> outs);

  /**
   * Rotates queries and keys to their positions (pairs {@code i, i + size/2}, as Hugging Face's
   * Llama), and writes keys and values to the cache's pages.
   *
   * @param cos {@code (positions, size/2)}
   * @param sin {@code (positions, size/2)}
   * @param q {@code (tokens, heads.queries · size)}, rotated in place
   * @param k {@code (tokens, heads.keyValues · size)}
   * @param v {@code (tokens, heads.keyValues · size)}
   */
  void rope(
      Step step,
      Heads heads,
      Buffer cos,
      Buffer sin,
      Buffer q,
      Buffer k,
      Buffer v,
      KvCache cache,
      int layer);

  /**
   * Causal attention over the block tables; reads K and V as stored, the step's own included.
   *
   * @param q {@code (tokens, heads.queries · size)}
   * @param out {@code (tokens, heads.queries · size)}
   */
  void attention(Step step, Heads heads, Buffer q, KvCache cache, int layer, Buffer out);

  /** {@code out = silu(gate) · up}, element by element; {@code out} may be {@code gate}. */
  void activate(Step step, Buffer gate, Buffer up, Buffer out);

  /**
   * Logits of chosen rows: {@code logits[i] = head(x[outputs[from + i]])} for {@code from + i <
   * to}.
   *
   * @param x {@code (tokens, hidden)}, after the final norm
   * @param from first index into the batch's outputs
   * @param to one past the last
   * @param logits {@code (at least to - from, vocabulary)}
   */
  void logits(Step step, Linear head, Buffer x, int from, int to, Buffer logits);

  /**
   * Draws or scores tokens from rows of logits, waits for them, and writes each draw's outcome.
   *
   * @throws NotFiniteException if rows hold NaN or infinity, naming them; no outcome counts then
   */
  void sample(Step step, Buffer logits, List<Draw> draws);

  /** The operations that training adds. */
  Gradients gradients();

  @Override
  void close();
}
