package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantException;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/**
 * A backend with what one test makes on it: random weights from a seed that every failure shows,
 * everything closed at the end, and then no live bytes.
 */
public final class Lab implements AutoCloseable {
  public final Backend backend;
  public final long seed;

  /** What products and their sum may be off, as a part of the sum of absolute products. */
  private final double products;

  private final Random random;
  private final ToLongFunction<Backend> liveBytes;
  private final Deque<AutoCloseable> open = new ArrayDeque<>();

  /** Float32's. */
  private static final double ROUNDING = 1e-6;

  public Lab(Backend backend, ToLongFunction<Backend> liveBytes, long seed) {
    this(backend, liveBytes, seed, ROUNDING);
  }

  /**
   * @param products what a backend that rounds what it multiplies is allowed in projections and
   *     attention: see {@link #assertProducts}
   */
  public Lab(Backend backend, ToLongFunction<Backend> liveBytes, long seed, double products) {
    this.products = products;
    this.backend = backend;
    this.liveBytes = liveBytes;
    this.seed = seed;
    random = new Random(seed);
  }

  /** Roughly normal numbers, scaled. */
  public float[] floats(int count, double scale) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) (random.nextGaussian() * scale);
    }
    return values;
  }

  public float[] floats(int count) {
    return floats(count, 1);
  }

  public int below(int bound) {
    return random.nextInt(bound);
  }

  /** A quantized matrix with some blocks that are large, small and zero. */
  public QuantizedMatrix quantized(int rows, int cols, QuantType type, int block, boolean nested) {
    float[] values = floats(rows * cols, 0.05);
    for (int i = 0; i < values.length; i++) {
      int kind = i / block % 7;
      values[i] *= kind == 3 ? 30 : kind == 5 ? 0.01f : 1;
      if (i / block % 31 == 29) {
        values[i] = 0;
      }
    }
    try {
      return QuantizedMatrix.quantize(
          FloatSource.of("random", values),
          rows,
          cols,
          new QuantOptions(type, block, nested),
          "float32");
    } catch (QuantException e) {
      throw new AssertionError(e);
    }
  }

  public DenseMatrix dense(DType dtype, int rows, int cols) {
    return dense(dtype, rows, cols, floats(rows * cols, 0.3));
  }

  public static DenseMatrix dense(DType dtype, int rows, int cols, float... values) {
    MemorySegment data = MemorySegment.ofArray(new byte[rows * cols * dtype.bytes()]);
    dtype.narrow(values, 0, values.length, data, 0);
    return new DenseMatrix(dtype, rows, cols, data);
  }

  public static float[] values(DenseMatrix matrix) {
    float[] values = new float[matrix.rows() * matrix.cols()];
    matrix.dtype().widen(matrix.data(), 0, values, 0, values.length);
    return values;
  }

  public static float[] values(QuantizedMatrix matrix) {
    float[] values = new float[matrix.rows() * matrix.cols()];
    matrix.dequantize(0, values, 0, values.length);
    return values;
  }

  public Matrix matrix(QuantizedMatrix weights) {
    return keep(backend.matrix(weights));
  }

  public Matrix matrix(DenseMatrix weights) {
    return keep(backend.matrix(weights));
  }

  public Buffer buffer(int rows, int width) {
    return keep(backend.buffer(rows, width));
  }

  /** A buffer of whole rows. */
  public Buffer buffer(float[] values, int width) {
    Buffer buffer = buffer(values.length / width, width);
    backend.write(buffer, 0, values);
    return buffer;
  }

  public float[] read(Buffer buffer) {
    return backend.read(buffer, 0, buffer.rows());
  }

  public Lora lora(Map<Integer, Delta> deltas, Map<Integer, Matrix> base) {
    Lora lora =
        keep(
            backend.lora(
                deltas,
                module -> {
                  Matrix matrix = base.get(module);
                  if (matrix == null) {
                    throw new AssertionError("asked for the base of module " + module);
                  }
                  return matrix;
                }));
    assertThat(backend.loraBytes(deltas)).isEqualTo(lora.bytes());
    return lora;
  }

  public KvCache cache(KvShape shape) {
    return keep(backend.kvCache(shape));
  }

  public <T extends AutoCloseable> T keep(T resource) {
    open.push(resource);
    return resource;
  }

  /** A step of single tokens without adapters. */
  public Step step(int tokens) {
    return step(tokens, new Batch.Segment(0, tokens, null));
  }

  /** A step of single-token sequences under the given segments; every row's logits are wanted. */
  public Step step(int tokens, Batch.Segment... segments) {
    return step(new int[tokens], segments);
  }

  public Step step(int[] tokens, Batch.Segment... segments) {
    Batch.Run[] runs = new Batch.Run[tokens.length];
    int[] outputs = new int[tokens.length];
    for (int i = 0; i < tokens.length; i++) {
      runs[i] = new Batch.Run(i, i + 1, 0, new int[] {i});
      outputs[i] = i;
    }
    return keep(backend.step(new Batch(tokens, List.of(runs), List.of(segments), outputs)));
  }

  public static Delta lowRank(DenseMatrix a, DenseMatrix b, float scale) {
    return new Delta(new Delta.LowRank(a, b), scale, null, null, null, null);
  }

  public static Delta bias(float[] bias) {
    return new Delta(null, 0, null, null, bias, null);
  }

  public static Delta weight(DenseMatrix weight) {
    return new Delta(null, 0, null, null, null, weight);
  }

  /** {@code y = x·Wᵀ} and the sums of absolute products, in double. */
  public static double[][] product(float[] w, int rows, int cols, float[] x, int tokens) {
    double[] y = new double[tokens * rows];
    double[] size = new double[tokens * rows];
    for (int t = 0; t < tokens; t++) {
      for (int o = 0; o < rows; o++) {
        for (int k = 0; k < cols; k++) {
          double term = (double) w[o * cols + k] * x[t * cols + k];
          y[t * rows + o] += term;
          size[t * rows + o] += Math.abs(term);
        }
      }
    }
    return new double[][] {y, size};
  }

  /** Asserts {@code |actual - expected| <= 1e-6 · size + tiny} everywhere. */
  public void assertClose(String what, float[] actual, double[] expected, double[] size) {
    assertClose(what, actual, expected, size, ROUNDING);
  }

  /** As {@link #assertClose}, for projections and attention, where a backend may be less exact. */
  public void assertProducts(String what, float[] actual, double[] expected, double[] size) {
    assertClose(what, actual, expected, size, products);
  }

  private void assertClose(
      String what, float[] actual, double[] expected, double[] size, double part) {
    assertThat(actual).as("%s, seed %d", what, seed).hasSameSizeAs(expected);
    for (int i = 0; i < expected.length; i++) {
      double allowed = part * size[i] + 1e-30;
      if (!(Math.abs(actual[i] - expected[i]) <= allowed)) {
        assertThat((double) actual[i])
            .as("%s[%d], seed %d, allowed %g", what, i, seed, allowed)
            .isEqualTo(expected[i]);
      }
    }
  }

  /** Asserts equal bits. */
  public void assertSame(String what, float[] actual, float[] expected) {
    assertThat(bits(actual)).as("%s, seed %d", what, seed).isEqualTo(bits(expected));
  }

  public static int[] bits(float[] values) {
    int[] bits = new int[values.length];
    for (int i = 0; i < bits.length; i++) {
      bits[i] = Float.floatToIntBits(values[i]);
    }
    return bits;
  }

  public static float[] rows(float[] values, int width, int from, int to) {
    return Arrays.copyOfRange(values, from * width, to * width);
  }

  public static double[] fill(int count, double value) {
    double[] values = new double[count];
    Arrays.fill(values, value);
    return values;
  }

  /** Closes, newest first, then checks that nothing is left. */
  @Override
  public void close() {
    @Nullable AutoCloseable next;
    while ((next = open.poll()) != null) {
      try {
        next.close();
      } catch (Exception e) {
        throw new AssertionError(e);
      }
    }
    assertThat(liveBytes.applyAsLong(backend)).as("live bytes").isZero();
    backend.close();
  }
}
