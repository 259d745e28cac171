package dev.wardrobe.client.load;

import dev.wardrobe.v1.Usage;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;

/**
 * What was seen of a kind of requests within a window of time. Filled by the connections' threads;
 * read when they are done.
 */
public final class Observed {
  /** Most gaps whose times are kept. */
  private static final int MOST_TIMES = 1 << 22;

  private final long from;
  private final long to;
  private final boolean byArrival;

  private final Samples firstToken = new Samples();
  private final Samples gaps = new Samples();
  private final Samples whole = new Samples();
  private final Samples swapIn = new Samples();
  private final Samples queue = new Samples();
  private final Map<String, Integer> errors = new TreeMap<>();
  private String firstError = "";
  private long tokens;
  private int requests;
  private long cachedTokens;
  private long promptTokens;

  // Of each gap: when it ended, and how long it was, in microseconds from the window's beginning.
  private int[] gapEnds = new int[1024];
  private int[] gapMicros = new int[1024];
  private int gapCount;
  private int[] swapStarts = new int[16];
  private int[] swapMicros = new int[16];
  private int swapCount;

  /**
   * Of a window of {@link System#nanoTime}.
   *
   * @param byArrival whether requests that arrived in it count, whenever they ended; else what
   *     happened in it does, of any request
   */
  Observed(long from, long to, boolean byArrival) {
    this.from = from;
    this.to = to;
    this.byArrival = byArrival;
  }

  private boolean within(long time) {
    return time - from >= 0 && time - to < 0;
  }

  private boolean counts(long arrival, long now) {
    return within(byArrival ? arrival : now);
  }

  /** Tokens of an answer have come. */
  synchronized void tokens(int count, long arrival, long last, long now) {
    if (within(now)) {
      tokens += count;
    }
    if (!counts(arrival, now)) {
      return;
    }
    if (last == 0) {
      firstToken.add(now - arrival);
    } else {
      gaps.add(now - last);
      keep(now, now - last);
    }
    // Those that came with it.
    for (int i = 1; i < count; i++) {
      gaps.add(0);
    }
  }

  private void keep(long now, long gap) {
    if (gapCount == MOST_TIMES) {
      return;
    }
    if (gapCount == gapEnds.length) {
      gapEnds = Arrays.copyOf(gapEnds, 2 * gapCount);
      gapMicros = Arrays.copyOf(gapMicros, 2 * gapCount);
    }
    gapEnds[gapCount] = micros(now - from);
    gapMicros[gapCount++] = micros(gap);
  }

  private static int micros(long nanos) {
    return Math.clamp(nanos / 1000, 0, Integer.MAX_VALUE);
  }

  /** An answer is complete. */
  synchronized void finished(long arrival, long now, Usage usage) {
    if (!counts(arrival, now)) {
      return;
    }
    requests++;
    whole.add(now - arrival);
    queue.add((long) (usage.getQueueMs() * 1e6));
    cachedTokens += usage.getCachedTokens();
    promptTokens += usage.getPromptTokens();
    if (usage.getSwapInMs() > 0) {
      swapIn.add((long) (usage.getSwapInMs() * 1e6));
      if (swapCount == swapStarts.length) {
        swapStarts = Arrays.copyOf(swapStarts, 2 * swapCount);
        swapMicros = Arrays.copyOf(swapMicros, 2 * swapCount);
      }
      swapStarts[swapCount] = micros(arrival - from);
      swapMicros[swapCount++] = micros((long) (usage.getSwapInMs() * 1e6));
    }
  }

  /** A request has failed. */
  synchronized void failed(long arrival, long now, String status, String message) {
    if (counts(arrival, now)) {
      errors.merge(status, 1, Integer::sum);
      if (firstError.isEmpty()) {
        firstError = message;
      }
    }
  }

  /** From a request's arrival to its first token. */
  public synchronized Samples firstToken() {
    return firstToken;
  }

  /** From a token to the next of the same answer. */
  public synchronized Samples gaps() {
    return gaps;
  }

  /** From arrival to end, of answers that were completed. */
  public synchronized Samples whole() {
    return whole;
  }

  /** How long requests waited for their adapter, of those that did. */
  public synchronized Samples swapIn() {
    return swapIn;
  }

  /** How long requests waited for a place, by the server's clock. */
  public synchronized Samples queue() {
    return queue;
  }

  /** Requests that failed, by status. */
  public synchronized Map<String, Integer> errors() {
    return new TreeMap<>(errors);
  }

  public synchronized String firstError() {
    return firstError;
  }

  /** Tokens that came within the window. */
  public synchronized long tokens() {
    return tokens;
  }

  /** Answers that were completed. */
  public synchronized int requests() {
    return requests;
  }

  /** Share of the prompts that the server did not need to compute. */
  public synchronized double cachedShare() {
    return promptTokens == 0 ? 0 : (double) cachedTokens / promptTokens;
  }

  /** When each gap ended, in microseconds from the window's beginning. */
  synchronized int[] gapEnds() {
    return Arrays.copyOf(gapEnds, gapCount);
  }

  synchronized int[] gapMicros() {
    return Arrays.copyOf(gapMicros, gapCount);
  }

  /** When requests arrived that then waited for their adapter, likewise. */
  synchronized int[] swapStarts() {
    return Arrays.copyOf(swapStarts, swapCount);
  }

  synchronized int[] swapMicros() {
    return Arrays.copyOf(swapMicros, swapCount);
  }
}
