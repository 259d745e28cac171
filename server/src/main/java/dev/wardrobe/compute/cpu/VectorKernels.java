package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Heads;
import org.jspecify.annotations.Nullable;

/**
 * The kernels on the Vector API, at the machine's preferred width or at {@code
 * -Dwardrobe.vector.bits=128|256|512}.
 */
final class VectorKernels implements Kernels {
  /*
   * Width never shows in a result because 16 is a multiple of every width's lanes: a panel is 16 rows
   * in one, two or four vectors ("strips"), and sums along a row keep 16 lanes in as many. What a
   * vector cannot take at the end of a row is done by the same scalar operations as in the twin.
   *
   * For the compiler: the species are constants of the class, vectors live in local variables only,
   * and each loop is a small static method, so that no vector is ever an object. In the larger loops
   * even a one-line helper would not be inlined any more (DesiredMethodLimit, which spares the Vector
   * API's own methods alone), so they are written out.
   */

  @Override
  public String describe() {
    return Vectors.FLOATS.vectorBitSize() + "-bit vectors";
  }

  @Override
  public void linear(
      Panels w,
      int panelFrom,
      int panelTo,
      float[] x,
      int from,
      int to,
      float[] y,
      Scratch scratch) {
    VectorProjections.linear(w, panelFrom, panelTo, x, from, to, y, scratch);
  }

  @Override
  public void linearInput(
      Panels w, int unitFrom, int unitTo, float[] dy, int tokens, float[] dx, Scratch scratch) {
    VectorProjections.linearInput(w, unitFrom, unitTo, dy, tokens, dx, scratch);
  }

  @Override
  public void shrink(
      Factor a,
      int jFrom,
      int jTo,
      float[] x,
      int from,
      int to,
      float[] t,
      int at,
      Scratch scratch) {
    VectorAdapters.shrink(a, jFrom, jTo, x, from, to, t, at, scratch);
  }

  @Override
  public void expand(
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
      Scratch scratch) {
    VectorAdapters.expand(b, scale, bias, t, at, outFrom, outTo, y, from, to, scratch);
  }

  @Override
  public void multiply(float[] factors, int from, float[] y, int at, int count) {
    VectorRows.multiply(factors, from, y, at, count);
  }

  @Override
  public void add(float[] terms, int from, float[] y, int at, int count) {
    VectorRows.add(terms, from, y, at, count);
  }

  @Override
  public void norm(
      float[] x,
      int at,
      int width,
      float[] weight,
      float epsilon,
      float[] out,
      int outAt,
      Scratch scratch) {
    VectorRows.norm(x, at, width, weight, epsilon, out, outAt, scratch);
  }

  @Override
  public void attend(
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
      Scratch scratch) {
    VectorAttention.attend(
        pages, layer, head, blocks, heads, position, rows, chunk, q, at, states, statesAt, scratch);
  }

  @Override
  public void merge(float[] states, int from, int into, int count, int size) {
    VectorAttention.merge(states, from, into, count, size);
  }

  @Override
  public void finish(float[] states, int from, Heads heads, int rows, float[] out, int at) {
    VectorAttention.finish(states, from, heads, rows, out, at);
  }

  @Override
  public void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    VectorRows.rotate(x, at, half, cos, sin, angle);
  }

  @Override
  public void narrow(float[] x, int at, int count, short[] out) {
    VectorRows.narrow(x, at, count, out);
  }

  @Override
  public void activate(float[] gate, float[] up, float[] out, int from, int to) {
    VectorRows.activate(gate, up, out, from, to);
  }

  @Override
  public void exponentials(float[] a, int at, int count, float max, float divisor, float[] out) {
    VectorRows.exponentials(a, at, count, max, divisor, out);
  }

  @Override
  public double sumOfExponentials(float[] a, int at, int count, float max, Scratch scratch) {
    return VectorRows.sumOfExponentials(a, at, count, max, scratch);
  }

  @Override
  public float largest(float[] a, int at, int count) {
    return VectorRows.largest(a, at, count);
  }

  @Override
  public int above(float[] a, int at, int from, int count, float bound) {
    return VectorRows.above(a, at, from, count, bound);
  }

  @Override
  public int allAbove(float[] a, int at, int count, float bound, int[] indices) {
    return VectorRows.allAbove(a, at, count, bound, indices);
  }

  @Override
  public float sum(float[] a, int at, int count, Scratch scratch) {
    return VectorRows.sum(a, at, count, scratch);
  }
}
