package dev.wardrobe.compute.cpu;

import org.jspecify.annotations.Nullable;

/**
 * The inner loops: {@link VectorKernels}, and {@link ScalarKernels}, which says in plain Java what
 * they compute. Both give the same bits.
 *
 * <p>Arguments are checked by the caller. Ranges are half open. Arrays of activations are
 * row-major, and row t of a width w begins at {@code t · w}.
 */
interface Kernels {
  /** Exponentials that are added up in float32. */
  int RUN = 1024;

  /** For people: kind and width. */
  String describe();

  /**
   * {@code y[t, o] = w[o]·x[t]} for tokens {@code from} to {@code to} and the outputs of panels
   * {@code panelFrom} to {@code panelTo}, in the order of {@link Panels}.
   *
   * @param x {@code (tokens, w.cols())}
   * @param y {@code (tokens, w.rows())}
   */
  void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int from,
      int to,
      float[] y,
      Scratch scratch);

  /**
   * {@code dx[t, k] += Σ_o dy[t, o]·w[o, k]} for the inputs of units {@code unitFrom} to {@code
   * unitTo}: one chain of fma over o ascending from 0, with {@code w = float32(code·absmax)}, then
   * added to dx.
   *
   * @param dy {@code (tokens, w.rows())}
   * @param dx {@code (tokens, w.cols())}
   */
  void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch);

  /**
   * {@code t[(token - from)·rank + j] = a[j]·x[token]} for rows {@code jFrom} to {@code jTo} of A
   * and tokens {@code from} to {@code to}: 16 lanes, lane l over k ≡ l mod 16, then {@link
   * Elementary#tree}.
   *
   * @param a by rows; {@code jFrom} and, unless it is the rank, {@code jTo} are multiples of {@link
   *     Factor#GROUP}
   * @param x {@code (tokens, a.length())}
   * @param at where {@code t} of the first token begins
   */
  void shrink(
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch);

  /**
   * For outputs {@code outFrom} to {@code outTo}: {@code y = fma(scale, Σ_j t_j·b[j] (+ bias), y)},
   * the sum one chain of fma over j ascending.
   *
   * @param b by panels; {@code outFrom} and, unless it is the last, {@code outTo} are multiples of
   *     16
   * @param t as {@link #shrink} left it
   * @param y {@code (tokens, b.length())}
   */
  void expand(
      Factor b,
      float scale,
      float @Nullable [] bias,
      float[] t,
      int at,
      int outFrom,
      int outTo,
      float[] y,
      int from,
      int to,
      Scratch scratch);

  /** {@code y[at + i] *= factors[from + i]}. */
  void multiply(float[] factors, int from, float[] y, int at, int count);

  /** {@code y[at + i] += terms[from + i]}. */
  void add(float[] terms, int from, float[] y, int at, int count);

  /**
   * {@code out = x / √(mean(x²) + epsilon) · weight}; the sum of squares has 16 lanes as in {@link
   * #shrink}. {@code out} may be {@code x}.
   */
  void norm(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] out,
      int outAt,
      Scratch scratch);

  /**
   * One query head over the keys and values of positions {@code first} to {@code last} (inclusive).
   *
   * <pre>
   * s[p] = ((c0 + c1) + (c2 + c3)) · scale, chain ci over d ≡ i mod 4, fma, d ascending
   * m = max s;  e[p] = exp(s[p] - m);  z = Σ e: 16 lanes, lane l over p ≡ l mod 16, then the tree
   * out[d] = (Σ_p e[p]·v[p, d]: one chain of fma, p ascending) · (1 / z)
   * </pre>
   */
  void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      int first,
      int last,
      float scale,
      float[] q,
      int qAt,
      float[] out,
      int outAt,
      Scratch scratch);

  /** {@code out = gate / (1 + exp(-gate)) · up}. */
  void activate(float[] gate, float[] up, float[] out, int from, int to);

  /** {@code out[i] = exp((a[at + i] - max) / divisor)}. */
  void exponentials(float[] a, int at, int count, float max, float divisor, float[] out);

  /**
   * {@code Σ exp(a[at + i] - max)}: in float32 over runs of 1,024 (16 lanes and tree), these added
   * up in double.
   */
  double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch);
}
