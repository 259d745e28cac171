package dev.wardrobe.compute;

/**
 * A frozen weight matrix {@code (rows = outputs, cols = inputs)} resident in a backend's memory, in
 * the form it is stored in: 4-bit with its statistics, or 16/32-bit floats.
 */
public interface Matrix extends AutoCloseable {
  int rows();

  int cols();

  /** Where the resident bytes are. */
  Footprint footprint();

  /**
   * The resident bytes themselves, as long as the matrix is open; {@link
   * Backend#matrix(PackedMatrix)} makes them a matrix again.
   */
  PackedMatrix stored();

  @Override
  void close();

  /**
   * Resident bytes of a matrix by what they hold. For a double-quantized NF4 matrix of n weights:
   * {@code packed = n/2}, {@code absmax = n/64}, {@code nestedAbsmax = 4·n/16384}; for a dense
   * matrix everything is {@code dense}.
   */
  record Footprint(long packed, long absmax, long nestedAbsmax, long dense) {
    public static final Footprint NONE = new Footprint(0, 0, 0, 0);

    public long total() {
      return packed + absmax + nestedAbsmax + dense;
    }

    public Footprint plus(Footprint other) {
      return new Footprint(
          packed + other.packed,
          absmax + other.absmax,
          nestedAbsmax + other.nestedAbsmax,
          dense + other.dense);
    }
  }
}
