package dev.wardrobe.adapter;

/** What came of the copies of requests that an alias' shadow was asked. Safe for all threads. */
public final class ShadowTraffic {
  private long requests;
  private long dropped;
  private long failed;
  private long completed;
  private long tokens;
  private long agreed;
  private long identical;
  private long firstTokenNanos;
  private long totalNanos;
  private long realFirstTokenNanos;
  private long realTotalNanos;

  ShadowTraffic() {}

  /**
   * Counts.
   *
   * @param requests chosen to be copied
   * @param dropped for want of room, or since the alias was changed
   * @param tokens of the real answers to those that completed
   * @param agreed of those, how many the candidate's answers begin with
   * @param identical answers that were the same to the last token
   */
  public record Counts(
      long requests,
      long completed,
      long dropped,
      long failed,
      long tokens,
      long agreed,
      long identical,
      Latency candidate,
      Latency real) {}

  /** Means over the completed, in milliseconds; 0 while there are none. */
  public record Latency(double firstTokenMillis, double totalMillis) {}

  /** Counts at one moment. */
  public synchronized Counts counts() {
    return new Counts(
        requests,
        completed,
        dropped,
        failed,
        tokens,
        agreed,
        identical,
        new Latency(mean(firstTokenNanos), mean(totalNanos)),
        new Latency(mean(realFirstTokenNanos), mean(realTotalNanos)));
  }

  private double mean(long nanos) {
    return completed == 0 ? 0 : nanos / 1e6 / completed;
  }

  synchronized void chosen() {
    requests++;
  }

  synchronized void dropped() {
    dropped++;
  }

  synchronized void failed() {
    failed++;
  }

  synchronized void completed(ShadowCopy.Answer real, ShadowCopy.Answer candidate) {
    completed++;
    int[] expected = real.tokens();
    int[] got = candidate.tokens();
    int same = 0;
    while (same < expected.length && same < got.length && expected[same] == got[same]) {
      same++;
    }
    tokens += expected.length;
    agreed += same;
    identical += same == expected.length && same == got.length ? 1 : 0;
    firstTokenNanos += candidate.firstTokenNanos();
    totalNanos += candidate.totalNanos();
    realFirstTokenNanos += real.firstTokenNanos();
    realTotalNanos += real.totalNanos();
  }
}
