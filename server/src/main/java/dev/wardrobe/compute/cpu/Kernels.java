package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Heads;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * The inner loops: {@link VectorKernels}, {@link ScalarKernels}, which says in plain Java what they
 * compute, and {@link TieredKernels}, which chooses between them and, for products on processors
 * with AVX-512, generated machine code. All give the same bits.
 *
 * <p>Arguments are checked by the caller. Ranges are half open. Arrays of activations are
 * row-major, and row t of a width w begins at {@code t · w}.
 */
interface Kernels {
  /** Exponentials that are added up in float32. */
  int RUN = 1024;

  /** Positions whose scores are weighed together in attention; a multiple of a block's. */
  int CHUNK = 128;

  /** Floats from one query's sums to the next's: a head's size in whole vectors of any width. */
  static int stateWidth(int size) {
    return (size + 31) / 32 * 32;
  }

  /** The first position, within a chunk, that a query at {@code position} sees. */
  static int begin(Heads heads, int position, int chunk) {
    int first = heads.window() == 0 ? 0 : position + 1 - heads.window();
    return Math.clamp(first - chunk * CHUNK, 0, CHUNK);
  }

  /** One past the last position, within a chunk, that a query at {@code position} sees. */
  static int end(int position, int chunk) {
    return Math.clamp(position + 1 - chunk * CHUNK, 0, CHUNK);
  }

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

  /** Whether there are {@link #shrinkAll} and {@link #expandAll}. */
  default boolean adaptsAll() {
    return false;
  }

  /**
   * {@link #shrink} for many adapters and tokens.
   *
   * @param x the array
   * @param t the array
   */
  default void shrinkAll(Shrinks shrinks, MemorySegment x, MemorySegment t, Scratch scratch) {
    throw new IllegalStateException("these kernels shrink by one adapter at a time");
  }

  /**
   * {@link #expand} for many adapters and tokens.
   *
   * @param t the array
   * @param y the array
   * @param outTo like {@code outFrom} a multiple of 16
   */
  default void expandAll(
      Expansions expansions,
      MemorySegment t,
      int outFrom,
      int outTo,
      MemorySegment y,
      Scratch scratch) {
    throw new IllegalStateException("these kernels expand one adapter at a time");
  }

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
   * What a tile of queries sees of one chunk of positions: for each query the sum of the values by
   * weight, the largest score and the sum of the weights. Queries are those of {@code rows}
   * neighbouring rows of one sequence, from {@code position} on, each with all heads that share the
   * KV head; a chunk is {@link #CHUNK} positions, aligned. In it, over the positions p that the
   * query sees, ascending:
   *
   * <pre>
   * s[p] = Σ_d (q[d] · scale)·k[p, d]: one chain of fma, d ascending
   * m = max s;  e[p] = exp(s[p] - m);  z = Σ e: 16 lanes, lane l over p ≡ l mod 16, then the tree
   * o[d] = Σ_p e[p]·v[p, d]: one chain of fma
   * </pre>
   *
   * z is 0 where a query sees nothing of the chunk. The states of n queries are {@code (n, }{@link
   * #stateWidth}{@code )} sums o, then n m, then n z.
   *
   * @param head KV head
   * @param q {@code (tokens, heads.queries() · size)}
   * @param at where the first row's first head of the group begins in {@code q}
   */
  void attend(
      KvPages pages,
      int layer,
      int head,
      int[] blocks,
      Heads heads,
      int position,
      int rows,
      int chunk,
      float[] q,
      int at,
      float[] states,
      int statesAt,
      Scratch scratch);

  /**
   * Joins the states of {@code count} queries over a chunk, at {@code from}, to those over the
   * chunks before it, at {@code into}; chunks that a query sees nothing of are left out.
   *
   * <pre>
   * M' = max(M, m);  a = exp(M - M');  b = exp(m - M')
   * Z' = fma(z, b, Z · a);  O'[d] = fma(o[d], b, O[d] · a)
   * </pre>
   */
  void merge(float[] states, int from, int into, int count, int size);

  /**
   * {@code out[d] = O[d] · (1 / Z)} for each query.
   *
   * @param at as for {@link #attend}
   */
  void finish(float[] states, int from, Heads heads, int rows, float[] out, int at);

  /**
   * Rotates in place the {@code 2 · half} elements from {@code at} on; element i is paired with i +
   * half: {@code a·cos - b·sin, b·cos + a·sin}.
   *
   * @param angle where the position's row begins in {@code cos} and {@code sin}
   */
  void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle);

  /**
   * The bfloat16 nearest to each of {@code count} floats, ties to even; NaN becomes a quiet one.
   */
  void narrow(float[] x, int at, int count, short[] out);

  /** {@code out = gate / (1 + exp(-gate)) · up}. */
  void activate(float[] gate, float[] up, float[] out, int from, int to);

  /** {@code out[i] = exp((a[at + i] - max) / divisor)}. */
  void exponentials(float[] a, int at, int count, float max, float divisor, float[] out);

  /**
   * {@code Σ exp(a[at + i] - max)}: in float32 over runs of 1,024 (16 lanes and tree), these added
   * up in double.
   */
  double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch);

  /** The largest; NaN if there is one. */
  float largest(float[] a, int at, int count);

  /**
   * The first index from {@code from} on, relative to {@code at}, of a number above a bound; {@code
   * count} if there is none.
   */
  int above(float[] a, int at, int from, int count, float bound);

  /**
   * Lists the indices of all numbers above a bound, ascending, and gives their count.
   *
   * @param indices room for {@code count}
   */
  int allAbove(float[] a, int at, int count, float bound, int[] indices);

  /** {@code Σ a[at + i]} of at most {@link #RUN}: 16 lanes and tree. */
  float sum(float[] a, int at, int count, Scratch scratch);
}
