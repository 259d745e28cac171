package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.Matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * An adapter's deltas by module, in device memory: a table of parts (Part in wardrobe.cuh), then
 * what they point to, each aligned to 16 bytes. The table and what aligns is memory that {@link
 * #bytes} does not count.
 */
final class CudaLora implements Lora {
  private static final int PART_BYTES = 72;
  private static final int WEIGHTS_BYTES = 64;
  private static final int ALIGNMENT = 16;

  private final Gpu.Memory memory;
  private final long partsAddress;
  private final @Nullable Module[] byModule;
  private final long bytes;
  private final int largestRank;
  private final boolean additive;
  private final boolean replacesWeights;
  private volatile boolean closed;

  /**
   * What the host has to know of a module's delta.
   *
   * @param in of A, 0 without factors
   * @param out of B or of the bias, 0 without either
   * @param weight replaces the base's
   */
  private record Module(int in, int rank, int out, @Nullable Weights weight) {}

  private CudaLora(
      Gpu.Memory memory, Map<Integer, Delta> deltas, @Nullable Module[] modules, long bytes) {
    this.memory = memory;
    partsAddress = memory.address();
    this.bytes = bytes;
    byModule = modules;
    int rank = 0;
    boolean adds = true;
    boolean replaces = false;
    for (Delta delta : deltas.values()) {
      DenseMatrix weight = delta.weight();
      rank = Math.max(rank, delta.lowRank() == null ? 0 : delta.lowRank().rank());
      adds &= delta.magnitude() == null && delta.bias() == null && weight == null;
      replaces |= weight != null && weight.rows() != 1;
    }
    largestRank = rank;
    additive = adds;
    replacesWeights = replaces;
  }

  /** What {@link #bytes()} of an adapter with these deltas will be. */
  static long bytes(Map<Integer, Delta> deltas) {
    long bytes = 0;
    for (Delta delta : deltas.values()) {
      Delta.LowRank lowRank = delta.lowRank();
      if (lowRank != null) {
        bytes += lowRank.a().data().byteSize() + lowRank.b().data().byteSize();
        bytes += floats(delta.magnitude()) + floats(delta.loraBias());
      }
      bytes += floats(delta.bias());
      DenseMatrix weight = delta.weight();
      if (weight != null) {
        bytes += weight.data().byteSize() + (weight.rows() == 1 ? 4L * weight.cols() : 0);
      }
    }
    return bytes;
  }

  private static long floats(float @Nullable [] values) {
    return values == null ? 0 : 4L * values.length;
  }

  /** Takes what it needs of a region in turn; without a region only counts. */
  private static final class Place {
    private long next;

    long take(long bytes) {
      long at = next;
      next += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
      return at;
    }
  }

  /** Where the pieces of a delta lie, from the region's begin; -1 for what it has not. */
  private record Pieces(
      long a, long b, long gain, long loraBias, long bias, long vector, long weight, long view) {
    static Pieces of(Delta delta, Place place) {
      Delta.LowRank lowRank = delta.lowRank();
      DenseMatrix weight = delta.weight();
      return new Pieces(
          lowRank == null ? -1 : place.take(lowRank.a().data().byteSize()),
          lowRank == null ? -1 : place.take(lowRank.b().data().byteSize()),
          delta.magnitude() == null ? -1 : place.take(floats(delta.magnitude())),
          delta.loraBias() == null ? -1 : place.take(floats(delta.loraBias())),
          delta.bias() == null ? -1 : place.take(floats(delta.bias())),
          weight == null || weight.rows() != 1 ? -1 : place.take(4L * weight.cols()),
          weight == null ? -1 : place.take(weight.data().byteSize()),
          weight == null ? -1 : place.take(WEIGHTS_BYTES));
    }
  }

  /**
   * Makes an adapter resident.
   *
   * @param base the base's matrix of a module
   * @throws IllegalArgumentException if a delta does not hold together or does not fit its module
   */
  static CudaLora of(Gpu gpu, Map<Integer, Delta> deltas, IntFunction<Matrix> base) {
    int count = 0;
    for (Map.Entry<Integer, Delta> entry : deltas.entrySet()) {
      int module = entry.getKey();
      require(module >= 0, "module %d: expected a number from 0", module);
      entry.getValue().check(module, base);
      count = Math.max(count, module + 1);
    }
    Place place = new Place();
    place.take((long) PART_BYTES * count);
    Map<Integer, Pieces> pieces = new TreeMap<>();
    for (Map.Entry<Integer, Delta> entry : deltas.entrySet()) {
      pieces.put(entry.getKey(), Pieces.of(entry.getValue(), place));
    }
    long bytes = bytes(deltas);
    Gpu.Memory memory = gpu.pages().region("adapter of %d bytes".formatted(bytes), place.next);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment table = arena.allocate(Math.max(1, (long) PART_BYTES * count), 16);
      @Nullable Module[] modules = new Module[count];
      for (Map.Entry<Integer, Pieces> entry : pieces.entrySet()) {
        int module = entry.getKey();
        Delta delta = deltas.get(module);
        if (delta != null) {
          Uploading part = new Uploading(gpu, memory.address(), module, delta, entry.getValue());
          modules[module] = part.upload(base);
          part.describe(table.asSlice((long) PART_BYTES * module, PART_BYTES));
        }
      }
      gpu.upload(table, memory.address());
      return new CudaLora(memory, deltas, modules, bytes);
    } catch (RuntimeException | Error e) {
      memory.close();
      throw e;
    }
  }

  /** One module's delta on its way to the device. */
  private record Uploading(Gpu gpu, long region, int module, Delta delta, Pieces at) {
    Module upload(IntFunction<Matrix> base) {
      Delta.LowRank lowRank = delta.lowRank();
      if (lowRank != null) {
        gpu.upload(lowRank.a().data(), region + at.a);
        gpu.upload(lowRank.b().data(), region + at.b);
      }
      upload(delta.loraBias(), at.loraBias);
      upload(delta.bias(), at.bias);
      DenseMatrix replaced = delta.weight();
      Weights weight = null;
      if (replaced != null) {
        weight = weight(replaced);
        gpu.upload(replaced.data(), region + at.weight);
        if (at.vector >= 0) {
          float[] vector = new float[replaced.cols()];
          replaced.dtype().widen(replaced.data(), 0, vector, 0, vector.length);
          upload(vector, at.vector);
        }
        try (Arena arena = Arena.ofConfined()) {
          MemorySegment view = arena.allocate(WEIGHTS_BYTES, 8);
          view.set(JAVA_LONG, 0, weight.data());
          view.set(JAVA_INT, 40, weight.form());
          view.set(JAVA_INT, 44, weight.rows());
          view.set(JAVA_INT, 48, weight.cols());
          gpu.upload(view, region + at.view);
        }
      }
      float[] magnitude = delta.magnitude();
      if (magnitude != null && lowRank != null) {
        Weights target = weight != null ? weight : CudaBackend.own(base.apply(module)).weights();
        upload(gain(magnitude, squares(lowRank, target)), at.gain);
      }
      float[] bias = delta.bias();
      return new Module(
          lowRank == null ? 0 : lowRank.a().cols(),
          lowRank == null ? 0 : lowRank.rank(),
          lowRank == null ? bias == null ? 0 : bias.length : lowRank.b().rows(),
          weight);
    }

    private Weights weight(DenseMatrix replaced) {
      return new Weights(
          region + at.weight,
          0,
          0,
          0,
          0,
          CudaMatrix.form(replaced.dtype()),
          replaced.rows(),
          replaced.cols(),
          0,
          0,
          0);
    }

    private void upload(float @Nullable [] values, long to) {
      if (values != null) {
        gpu.upload(MemorySegment.ofArray(values), region + to);
      }
    }

    /** The squares of the norms that DoRA divides by, by output; see dora_squares. */
    private double[] squares(Delta.LowRank lowRank, Weights target) {
      DenseMatrix a = lowRank.a();
      DenseMatrix b = lowRank.b();
      boolean linear = a.cols() == target.cols() && b.rows() == target.rows();
      double[] squares = new double[b.rows()];
      try (Gpu.Memory results = gpu.workspace("norms of DoRA", 8L * squares.length)) {
        LaunchArguments arguments = new LaunchArguments();
        target.addTo(arguments);
        arguments
            .address(region + at.a)
            .address(region + at.b)
            .address(results.address())
            .number(lowRank.rank())
            .number(CudaMatrix.form(a.dtype()))
            .number(CudaMatrix.form(b.dtype()))
            .number(delta.scale())
            .number(linear ? 0 : 1);
        gpu.launchBeside("dora_squares", squares.length, 256, arguments);
        MemorySegment there = MemorySegment.ofArray(squares);
        gpu.downloadBeside(results.address(), there);
      }
      return squares;
    }

    private float[] gain(float[] magnitude, double[] squares) {
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

    /** Writes the part: Part in wardrobe.cuh. */
    void describe(MemorySegment part) {
      long[] addresses = {at.a, at.b, at.gain, at.loraBias, at.bias, at.vector, at.view};
      for (int i = 0; i < addresses.length; i++) {
        part.set(JAVA_LONG, 8L * i, addresses[i] < 0 ? 0 : region + addresses[i]);
      }
      Delta.LowRank lowRank = delta.lowRank();
      long numbers = 8L * addresses.length;
      if (lowRank != null) {
        part.set(JAVA_INT, numbers, lowRank.rank());
        part.set(JAVA_FLOAT, numbers + 4, delta.scale());
        part.set(JAVA_INT, numbers + 8, CudaMatrix.form(lowRank.a().dtype()));
        part.set(JAVA_INT, numbers + 12, CudaMatrix.form(lowRank.b().dtype()));
      }
    }
  }

  @FormatMethod
  private static void require(boolean holds, String message, Object... arguments) {
    if (!holds) {
      throw new IllegalArgumentException(message.formatted(arguments));
    }
  }

  /**
   * Checks that a module's delta fits a base projection.
   *
   * @return what replaces the base's weight, or null
   * @throws IllegalStateException if the adapter is closed
   */
  @Nullable Weights checked(int module, Weights base) {
    checkOpen();
    Module own = module(module);
    if (own == null) {
      return null;
    }
    checkWeight(module, own, base);
    if (own.rank > 0 && (own.in != base.cols() || own.out != base.rows())) {
      throw factorsThatDoNotFit(module, own, base.cols(), base.rows());
    }
    if (own.rank == 0 && own.out != 0 && own.out != base.rows()) {
      throw new IllegalArgumentException(
          "module %d: expected a bias of %d from the adapter, got %d"
              .formatted(module, base.rows(), own.out));
    }
    return own.weight;
  }

  /**
   * Checks that a module's delta fits a base embedding.
   *
   * @throws IllegalStateException if the adapter is closed
   */
  void checkEmbedding(int module, Weights table) {
    checkOpen();
    Module own = module(module);
    if (own == null) {
      return;
    }
    checkWeight(module, own, table);
    if (own.rank > 0 && (own.in != table.rows() || own.out != table.cols())) {
      throw factorsThatDoNotFit(module, own, table.rows(), table.cols());
    }
  }

  /**
   * Checks that what it has for a norm, if anything, is a weight.
   *
   * @throws IllegalStateException if the adapter is closed
   */
  void checkNorm(int module, int width) {
    checkOpen();
    Module own = module(module);
    if (own != null
        && (own.rank > 0
            || own.weight == null
            || own.weight.rows() != 1
            || own.weight.cols() != width)) {
      throw new IllegalArgumentException(
          "module %d: a norm of %d takes nothing but a weight (1, %d) from an adapter"
              .formatted(module, width, width));
    }
  }

  private @Nullable Module module(int module) {
    return module >= 0 && module < byModule.length ? byModule[module] : null;
  }

  private static void checkWeight(int module, Module own, Weights base) {
    Weights weight = own.weight;
    if (weight != null && (weight.rows() != base.rows() || weight.cols() != base.cols())) {
      throw new IllegalArgumentException(
          "module %d: expected a weight of (%d, %d) from the adapter, got (%d, %d)"
              .formatted(module, base.rows(), base.cols(), weight.rows(), weight.cols()));
    }
  }

  private static IllegalArgumentException factorsThatDoNotFit(
      int module, Module own, int in, int out) {
    return new IllegalArgumentException(
        "module %d: expected A (%d, %d) and B (%d, %d), got A (%d, %d) and B (%d, %d)"
            .formatted(module, own.rank, in, out, own.rank, own.rank, own.in, own.out, own.rank));
  }

  /**
   * Checks that it can be used.
   *
   * @throws IllegalStateException if it is closed
   */
  void checkOpen() {
    if (closed) {
      throw new IllegalStateException("an adapter of %d bytes is closed".formatted(bytes));
    }
  }

  /** Where its table of parts is (Part in wardrobe.cuh), by module number. */
  long partsAddress() {
    return partsAddress;
  }

  /** Length of the table. */
  int modules() {
    return byModule.length;
  }

  /** The largest rank of its factors; 0 if it has none. */
  int largestRank() {
    return largestRank;
  }

  /** Whether a module's weight is another one than the base's, norms apart. */
  boolean replacesWeights() {
    return replacesWeights;
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
    if (!closed) {
      closed = true;
      memory.close();
    }
  }
}
