package dev.wardrobe.compute;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The tokens of one step: those of many sequences and many adapters, side by side.
 *
 * @param tokens input token ids, {@code (tokens)}
 * @param runs the sequences' shares, in order, covering {@code tokens} without gaps
 * @param segments runs of neighbouring tokens with one adapter, in order, covering {@code tokens}
 *     without gaps; a segment's borders are run borders
 * @param outputs rows of {@code tokens} whose logits are wanted, ascending
 */
public record Batch(int[] tokens, List<Run> runs, List<Segment> segments, int[] outputs) {

  /**
   * Consecutive tokens of one sequence.
   *
   * @param from first row in the batch
   * @param to one past the last row
   * @param position the first token's position in its sequence
   * @param blocks the sequence's block table: block {@code blocks[p / 16]} holds position p; covers
   *     all positions up to the run's last
   */
  public record Run(int from, int to, int position, int[] blocks) {}

  /** Rows {@code from} to {@code to} (exclusive) that use {@code lora}; null is the base alone. */
  public record Segment(int from, int to, @Nullable Lora lora) {}

  public int size() {
    return tokens.length;
  }
}
