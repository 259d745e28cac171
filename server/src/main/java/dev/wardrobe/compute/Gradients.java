package dev.wardrobe.compute;

/**
 * The backward operations beside {@link Backend}'s forward ones; the trainer composes them.
 *
 * <p>Ordered on the same stream. Base weights are frozen: they have input gradients only, and a
 * 4-bit weight is dequantized again on the way back, never saved.
 */
public interface Gradients {

  /**
   * Input gradient of a frozen projection: {@code dx += dy · W}, {@code W = float32(code·absmax)}.
   *
   * @param rows rows of {@code dy} and {@code dx} to use
   * @param dy {@code (rows, out)}
   * @param dx {@code (rows, in)}
   */
  void linearInput(Matrix weight, int rows, Buffer dy, Buffer dx);
}
