package dev.wardrobe.client.load;

import java.util.List;
import java.util.Map;

/**
 * What came of a churn.
 *
 * @param right answers that were, to the last token, what the digest that they name answers alone
 * @param refused requests for a name that stood for nothing at that time, and were told so
 * @param cancelled by the client, in the middle of an answer that was right so far
 * @param retried refusals for want of room, each of which was asked again
 * @param wrong answers, the first few in words
 * @param lost requests that ended in another way, the first few in words
 * @param failedChanges likewise
 * @param changes that were made, by kind
 * @param swapIns answers that waited for their adapter
 * @param residentBytes of the server's process, over the time; empty where nobody says
 * @param leftovers what the server still held when all was over, in words
 */
public record ChurnReport(
    long right,
    long refused,
    long cancelled,
    long retried,
    Findings wrong,
    Findings lost,
    Findings failedChanges,
    Map<String, Long> changes,
    long swapIns,
    double seconds,
    List<Long> residentBytes,
    List<String> leftovers) {
  /** Fewer looks say nothing about a trend. */
  private static final int LEAST_LOOKS = 40;

  private static final double MOST_GROWTH = 0.05;

  private static final long SLACK_BYTES = 24L << 20;

  /**
   * How many there were, and the first few of them.
   *
   * @param count of all
   */
  public record Findings(long count, List<String> first) {}

  /** Whether memory could be watched for long enough to say anything. */
  public boolean memoryWatched() {
    return residentBytes.size() >= LEAST_LOOKS;
  }

  /** Median of the looks between two shares of the time, in bytes. */
  long resident(double from, double to) {
    int size = residentBytes.size();
    List<Long> some = residentBytes.subList((int) (from * size), (int) (to * size));
    return some.stream().sorted().skip(some.size() / 2).findFirst().orElse(0L);
  }

  /** After the first third, in which caches fill. */
  public long residentEarly() {
    return resident(0.3, 0.45);
  }

  public long residentLate() {
    return resident(0.85, 1);
  }

  /** Whether memory stayed what it was. */
  public boolean memoryFlat() {
    return !memoryWatched()
        || residentLate()
            <= residentEarly() + Math.max((long) (MOST_GROWTH * residentEarly()), SLACK_BYTES);
  }

  /** Whether all is as it should be. */
  public boolean passed() {
    return wrong.count() == 0
        && lost.count() == 0
        && failedChanges.count() == 0
        && leftovers.isEmpty()
        && memoryFlat();
  }
}
