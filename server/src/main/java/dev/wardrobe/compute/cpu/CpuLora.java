package dev.wardrobe.compute.cpu;

import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Matrix;
import java.util.Arrays;
import java.util.Map;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/** An adapter's deltas by module, in one region. */
final class CpuLora implements Lora {
  private final Part[] parts;
  private final NativeMemory.Region region;
  private final long bytes;
  private final boolean additive;

  /**
   * One module's delta as the kernels want it.
   *
   * @param a by rows of the inputs; for an embedding, of the vocabulary
   * @param b by panels of the outputs
   * @param gain DoRA's g, by output
   * @param weight replaces the base's
   * @param vector {@code weight} once more, if it is a single row, as a norm wants it
   */
  record Part(
      @Nullable Factor a,
      @Nullable Factor b,
      float scale,
      float @Nullable [] gain,
      float @Nullable [] loraBias,
      float @Nullable [] bias,
      @Nullable Panels weight,
      float @Nullable [] vector) {

    private boolean additive() {
      return gain == null && bias == null && weight == null;
    }

    private long heapBytes() {
      return 4L * (length(gain) + length(loraBias) + length(bias) + length(vector));
    }

    private static int length(float @Nullable [] values) {
      return values == null ? 0 : values.length;
    }
  }

  CpuLora(Map<Integer, Delta> deltas, IntFunction<Matrix> base, NativeMemory.Region region) {
    this.region = region;
    int modules = 0;
    for (int module : deltas.keySet()) {
      require(module >= 0, "module %d: expected a number from 0", module);
      modules = Math.max(modules, module + 1);
    }
    parts = new Part[modules];
    long heap = 0;
    boolean adds = true;
    for (Map.Entry<Integer, Delta> entry : deltas.entrySet()) {
      Part part = part(entry.getKey(), entry.getValue(), base, region);
      parts[entry.getKey()] = part;
      heap += part.heapBytes();
      adds &= part.additive();
    }
    additive = adds;
    bytes = region.bytes() + heap;
  }

  /** What {@link #bytes()} of an adapter with these deltas will be. */
  static long bytes(Map<Integer, Delta> deltas) {
    long bytes = 0;
    for (Delta delta : deltas.values()) {
      Delta.LowRank lowRank = delta.lowRank();
      if (lowRank != null) {
        bytes += lowRank.a().data().byteSize() + lowRank.b().data().byteSize();
        bytes += 4L * (Part.length(delta.magnitude()) + Part.length(delta.loraBias()));
      }
      bytes += 4L * Part.length(delta.bias());
      DenseMatrix weight = delta.weight();
      if (weight != null) {
        bytes += DensePanels.bytes(weight);
        bytes += weight.rows() == 1 ? 4L * weight.cols() : 0;
      }
    }
    return bytes;
  }

  private static Part part(
      int module, Delta delta, IntFunction<Matrix> base, NativeMemory.Region region) {
    delta.check(module, base);
    DenseMatrix replaced = delta.weight();
    Panels weight = replaced == null ? null : new DensePanels(replaced, region);
    float[] vector = null;
    if (weight != null && weight.rows() == 1) {
      vector = new float[weight.cols()];
      weight.row(0, vector, 0);
    }
    float[] bias = copy(delta.bias());
    float[] loraBias = copy(delta.loraBias());
    float[] magnitude = delta.magnitude();
    Delta.LowRank lowRank = delta.lowRank();
    if (lowRank == null) {
      return new Part(null, null, 0, null, null, bias, weight, vector);
    }
    Matrix target = weight != null ? weight : base.apply(module);
    DenseMatrix a = lowRank.a();
    DenseMatrix b = lowRank.b();
    boolean linear = a.cols() == target.cols() && b.rows() == target.rows();
    Factor factorA = Factor.rows(a, region);
    Factor factorB = Factor.panels(b, region);
    float[] gain = null;
    if (magnitude != null) {
      if (!(target instanceof Panels panels)) {
        throw new IllegalArgumentException("module %d: of another backend".formatted(module));
      }
      double[] squares =
          linear
              ? squaresOfRows(panels, factorA, factorB, delta.scale())
              : squaresOfColumns(panels, factorA, factorB, delta.scale());
      gain = gain(module, magnitude, squares);
    }
    return new Part(factorA, factorB, delta.scale(), gain, loraBias, bias, weight, vector);
  }

  /** Sums of squares over each row of {@code W + scale·B·A}, each element in float32. */
  private static double[] squaresOfRows(Panels w, Factor a, Factor b, float scale) {
    float[][] wide = widened(a);
    double[] squares = new double[w.rows()];
    float[] row = new float[w.cols()];
    float[] delta = new float[w.cols()];
    for (int out = 0; out < squares.length; out++) {
      w.row(out, row, 0);
      combine(b, out, wide, delta);
      double sum = 0;
      for (int k = 0; k < row.length; k++) {
        double element = row[k] + scale * delta[k];
        sum += element * element;
      }
      squares[out] = sum;
    }
    return squares;
  }

  /** The same of an embedding, where outputs are columns: over all tokens of each. */
  private static double[] squaresOfColumns(Panels w, Factor a, Factor b, float scale) {
    float[][] wide = widened(b);
    double[] squares = new double[w.cols()];
    float[] row = new float[w.cols()];
    float[] delta = new float[w.cols()];
    for (int token = 0; token < w.rows(); token++) {
      w.row(token, row, 0);
      combine(a, token, wide, delta);
      for (int out = 0; out < row.length; out++) {
        double element = row[out] + scale * delta[out];
        squares[out] += element * element;
      }
    }
    return squares;
  }

  /** {@code delta = Σ_j by[j, column] · rows[j]}. */
  private static void combine(Factor by, int column, float[][] rows, float[] delta) {
    Arrays.fill(delta, 0);
    for (int j = 0; j < rows.length; j++) {
      float factor = by.get(j, column);
      float[] row = rows[j];
      for (int k = 0; k < delta.length; k++) {
        delta[k] += factor * row[k];
      }
    }
  }

  private static float[][] widened(Factor factor) {
    float[][] rows = new float[factor.rank()][factor.length()];
    for (int j = 0; j < rows.length; j++) {
      for (int i = 0; i < rows[j].length; i++) {
        rows[j][i] = factor.get(j, i);
      }
    }
    return rows;
  }

  private static float[] gain(int module, float[] magnitude, double[] squares) {
    float[] gain = new float[magnitude.length];
    for (int out = 0; out < gain.length; out++) {
      float norm = (float) Math.sqrt(squares[out]);
      gain[out] = magnitude[out] / norm;
      require(
          Float.isFinite(gain[out]),
          "module %d: DoRA magnitude %s over norm %s in row %d is not finite",
          module,
          magnitude[out],
          norm,
          out);
    }
    return gain;
  }

  private static float @Nullable [] copy(float @Nullable [] values) {
    return values == null ? null : values.clone();
  }

  @FormatMethod
  private static void require(boolean holds, String message, Object... arguments) {
    if (!holds) {
      throw new IllegalArgumentException(message.formatted(arguments));
    }
  }

  /** The delta of a module, or null. */
  @Nullable Part part(int module) {
    return module < parts.length ? parts[module] : null;
  }

  @Override
  public long bytes() {
    return bytes;
  }

  @Override
  public boolean additive() {
    return additive;
  }

  @Override
  public void close() {
    region.close();
  }
}
