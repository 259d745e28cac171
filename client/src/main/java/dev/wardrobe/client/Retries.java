package dev.wardrobe.client;

import io.grpc.Deadline;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * When a failed call is made once more, and after how long.
 *
 * @param attempts most calls for one request and server, the first included
 * @param longest longest wait between two, of our own or by the server's word
 */
record Retries(int attempts, Duration longest) {
  static final Retries DEFAULT = new Retries(4, Duration.ofSeconds(10));

  /** The first wait of our own is up to this, the next up to twice as long. */
  private static final long FIRST_NANOS = TimeUnit.MILLISECONDS.toNanos(100);

  Retries {
    if (attempts < 1) {
      throw new IllegalArgumentException("attempts: expected 1 or more, got " + attempts);
    }
    if (longest.isNegative()) {
      throw new IllegalArgumentException(
          "longest wait between attempts: expected 0 or more, got " + longest);
    }
  }

  /** Whether a call may be made twice. */
  enum Repeat {
    /** To make it twice is to make it once. */
    ALWAYS,
    /** Only if the server did not take it: it said so, and when to come back. */
    UNTAKEN,
    /** What was sent is too much to send on suspicion. */
    NEVER
  }

  /**
   * Nanoseconds to wait before the next attempt; negative if there is to be none.
   *
   * @param made attempts so far
   * @param deadline of all attempts, or null
   */
  long wait(@Nullable CallError error, Repeat repeat, int made, @Nullable Deadline deadline) {
    if (error == null || repeat == Repeat.NEVER || made >= attempts) {
      return -1;
    }
    Duration hint = error.retryAfter();
    long nanos;
    if (hint != null
        && (error.code() == Status.Code.RESOURCE_EXHAUSTED
            || error.code() == Status.Code.UNAVAILABLE)) {
      if (hint.compareTo(longest) > 0) {
        return -1;
      }
      // Those who were refused together come back apart.
      long least = hint.toNanos();
      nanos = least + ThreadLocalRandom.current().nextLong(Math.max(1, least / 4));
    } else if (error.code() == Status.Code.UNAVAILABLE && repeat == Repeat.ALWAYS) {
      long most = Math.min(longest.toNanos(), FIRST_NANOS << Math.min(made - 1, 30));
      nanos = ThreadLocalRandom.current().nextLong(Math.max(1, most));
    } else {
      return -1;
    }
    return deadline != null && deadline.timeRemaining(TimeUnit.NANOSECONDS) <= nanos ? -1 : nanos;
  }
}
