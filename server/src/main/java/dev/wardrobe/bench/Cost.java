package dev.wardrobe.bench;

import java.util.ArrayList;
import java.util.List;

/**
 * What one kind of operation has cost, over a run or several.
 *
 * @param operation its name
 * @param calls of the backend
 * @param seconds in them
 * @param weights weights of matrices and adapters that were multiplied by, once a call however many
 *     rows
 * @param bytes that had to be read from memory: weights, keys and values; and, where there are
 *     none, the rows read and written
 * @param operations multiplications and additions of float32
 */
public record Cost(
    String operation, long calls, double seconds, long weights, long bytes, double operations) {

  /** The sum of two lists of the same operations, of which the first may be empty. */
  static List<Cost> sum(List<Cost> some, List<Cost> others) {
    List<Cost> sums = new ArrayList<>();
    for (int i = 0; i < others.size(); i++) {
      sums.add(some.isEmpty() ? others.get(i) : some.get(i).plus(others.get(i)));
    }
    return sums;
  }

  private Cost plus(Cost other) {
    return new Cost(
        operation,
        calls + other.calls,
        seconds + other.seconds,
        weights + other.weights,
        bytes + other.bytes,
        operations + other.operations);
  }

  /**
   * How much of the time the machine would have needed at the least. Over 1 where a cache held what
   * is counted as read from memory.
   */
  public double shareOfRoof(double bytesPerSecond, double operationsPerSecond) {
    double least = Math.max(bytes / bytesPerSecond, operations / operationsPerSecond);
    return seconds == 0 ? 0 : least / seconds;
  }
}
