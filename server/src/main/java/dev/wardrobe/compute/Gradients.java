package dev.wardrobe.compute;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * What training adds to {@link Backend}: the same layers over whole sequences, their backward
 * operations, and products of trainable factors; the trainer composes them.
 *
 * <p>Ordered on the backend's stream, and called by the thread that owns it. A row is a token of a
 * micro-batch: sequences lie one after another without padding, sequence s in rows {@code
 * starts[s]} to {@code starts[s + 1]}. Buffers may have more rows than an operation uses; what it
 * writes lies in those rows alone. An operation whose name ends in {@code Input} adds to its result
 * unless it says otherwise.
 *
 * <p>Base weights are frozen: they have input gradients only, and a 4-bit weight is dequantized
 * again on the way back, never saved. In {@link MathMode#EXACT} all is float32, and a result's bits
 * depend on the operands alone, not on threads or vector width; in {@link MathMode#FAST} products
 * with base weights have bfloat16 inputs.
 *
 * <p>Errors: shapes that do not fit are {@link IllegalArgumentException}.
 */
public interface Gradients {

  /** {@code out[t] = table[tokens[t]]}. */
  void embed(Matrix table, int[] tokens, Buffer out);

  /**
   * A frozen projection: {@code y = x · Wᵀ + bias}, {@code W = float32(code·absmax)}.
   *
   * @param x {@code (rows, in)}
   * @param bias {@code (1, out)}, or null
   * @param y {@code (rows, out)}
   */
  void linear(Matrix weight, @Nullable Buffer bias, int rows, Buffer x, Buffer y);

  /**
   * Input gradient of a frozen projection: {@code dx += dy · W}, {@code W = float32(code·absmax)}.
   *
   * @param rows rows of {@code dy} and {@code dx} to use
   * @param dy {@code (rows, out)}
   * @param dx {@code (rows, in)}
   */
  void linearInput(Matrix weight, int rows, Buffer dy, Buffer dx);

  /**
   * A product of float32 factors: {@code c += scale · op(a) · op(b)}, where {@code op(a)} is {@code
   * (m, k)} and {@code op(b)} {@code (k, n)}.
   *
   * @param transposeA whether {@code a} is stored as {@code (k, m)}
   * @param transposeB whether {@code b} is stored as {@code (n, k)}
   * @param c {@code (m, n)}
   */
  void product(
      float scale,
      Buffer a,
      boolean transposeA,
      Buffer b,
      boolean transposeB,
      int m,
      int n,
      int k,
      Buffer c);

  /**
   * RMSNorm: {@code out = x / √(mean(x²) + epsilon) · weight}. {@code x}'s rows may hold several
   * vectors each (heads): a vector is as wide as {@code weight}, and {@code rows} counts rows of
   * {@code x}.
   *
   * @param weight {@code (1, width)}
   */
  void norm(Buffer x, Buffer weight, float epsilon, int rows, Buffer out);

  /**
   * Input gradient of {@link #norm}: {@code dx += rstd · (w⊙dy - x · rstd² · mean(w⊙dy⊙x))} with
   * {@code rstd = 1 / √(mean(x²) + epsilon)}, computed again.
   */
  void normInput(Buffer x, Buffer weight, float epsilon, int rows, Buffer dy, Buffer dx);

  /**
   * Rotates heads in place to their positions (pairs {@code i, i + size/2}).
   *
   * @param x {@code (rows, heads · size)}
   * @param size of a head
   * @param cos {@code (positions, size/2)}
   * @param positions by row
   * @param back whether to rotate the other way, which is the operation's own backward
   */
  void rotate(Buffer x, int size, Buffer cos, Buffer sin, int[] positions, boolean back);

  /**
   * Causal attention within each sequence: query heads share KV heads, a window hides what lies
   * further back. No matrix of scores is kept.
   *
   * @param starts first row of each sequence, then the number of rows
   * @param q {@code (rows, heads.queries · size)}
   * @param k {@code (rows, heads.keyValues · size)}
   * @param v as {@code k}
   * @param out as {@code q}
   * @param logSums {@code (rows, heads.queries)}: ln Σ exp(score), for the way back
   */
  void attention(
      int[] starts, Heads heads, Buffer q, Buffer k, Buffer v, Buffer out, Buffer logSums);

  /**
   * Input gradients of {@link #attention}; {@code dq}, {@code dk} and {@code dv} are overwritten.
   */
  void attentionInput(
      int[] starts,
      Heads heads,
      Buffer q,
      Buffer k,
      Buffer v,
      Buffer out,
      Buffer logSums,
      Buffer dOut,
      Buffer dq,
      Buffer dk,
      Buffer dv);

  /** {@code out = silu(gate) ⊙ up}. */
  void activate(int rows, Buffer gate, Buffer up, Buffer out);

  /**
   * Input gradients of {@link #activate}, overwritten; {@code dGate} may be {@code gate}, {@code
   * dUp} may be {@code up} or {@code dOut}.
   */
  void activateInput(int rows, Buffer gate, Buffer up, Buffer dOut, Buffer dGate, Buffer dUp);

  /**
   * Cross-entropy of rows of logits, which become their gradients: {@code logits[i] = scale ·
   * (softmax(logits[i]) - onehot(targets[from + i]))}.
   *
   * @param rows rows of {@code logits}, {@code (at least rows, vocabulary)}
   * @param targets a token for each row, from {@code from} on
   * @return {@code Σ -ln softmax(logits[i])[target]}, in double precision over rows in order; not
   *     finite if a logit is not
   */
  double crossEntropy(int rows, Buffer logits, int[] targets, int from, float scale);

  /**
   * Inverted dropout: {@code out = x / (1 - p)} or 0, element by element, {@code out ≠ x}. Which
   * are 0 is a function of {@code key}, row and column alone.
   *
   * @param p probability of 0, in [0, 1)
   */
  void dropout(int rows, Buffer x, float p, long key, Buffer out);

  /** Input gradient of {@link #dropout}: {@code dx += dy / (1 - p)} where it kept. */
  void dropoutInput(int rows, Buffer dy, float p, long key, Buffer dx);

  /**
   * Norms of an adapted weight's rows, as DoRA divides by them (arXiv 2402.09353): {@code norms[o]
   * = ‖W[o] + scale · (b · a)[o]‖}, squares summed in double precision.
   *
   * @param a {@code (rank, in)}
   * @param b {@code (out, rank)}
   * @param norms {@code (1, out)}
   */
  void rowNorms(Matrix weight, float scale, Buffer a, Buffer b, Buffer norms);

  /** {@code out = a / b}, element by element, everything. */
  void divide(Buffer a, Buffer b, Buffer out);

  /** {@code y += scale · x}, for the first {@code rows} rows. */
  void add(int rows, float scale, Buffer x, Buffer y);

  /** {@code y[t] += row}, for the first {@code rows} rows. */
  void addRow(int rows, Buffer row, Buffer y);

  /** {@code out[t] = x[t] ⊙ gain}; {@code out} may be {@code x}. */
  void scaleColumns(int rows, Buffer x, Buffer gain, Buffer out);

  /** {@code sums[j] += Σ_t a[t, j] · b[t, j]}, rows in order. */
  void columnDots(int rows, Buffer a, Buffer b, Buffer sums);

  /** {@code out[i] = x[rows[from + i]]} for {@code count} rows. */
  void gather(Buffer x, int[] rows, int from, int count, Buffer out);

  /** {@code x[rows[from + i]] = y[i]} for {@code count} rows. */
  void scatter(Buffer y, int[] rows, int from, int count, Buffer x);

  /** {@code x = 0}, for the first {@code rows} rows. */
  void clear(int rows, Buffer x);

  /** {@code Σ x²} over everything, in double precision, in an order of its own. */
  double sumOfSquares(Buffer x);

  /** {@code x *= factor}, everything. */
  void scale(Buffer x, float factor);

  /**
   * Applies an optimizer's rule to elements of a parameter and their state, in place.
   *
   * @param from first element, row-major; a multiple of {@link UpdateRule#BLOCK}
   * @param count elements
   * @param state at least {@link UpdateRule#stateBytes} of {@code count}, as the rule lays it out;
   *     open to all threads
   */
  void update(
      UpdateRule rule, Buffer parameter, Buffer gradient, int from, int count, MemorySegment state);
}
