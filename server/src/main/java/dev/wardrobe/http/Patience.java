package dev.wardrobe.http;

import java.time.Duration;

/**
 * How long the port waits for what does not come.
 *
 * @param first a connection's first request
 * @param next another request, once the last was answered; nginx waits so long
 * @param body the next bytes of a request's body
 * @param upload the next bytes of an adapter that is published
 */
record Patience(Duration first, Duration next, Duration body, Duration upload) {
  static final Patience DEFAULT =
      new Patience(
          Duration.ofSeconds(30),
          Duration.ofSeconds(75),
          Duration.ofSeconds(30),
          Duration.ofSeconds(60));

  /** How often to look whether it is over. */
  long checkMillis() {
    long shortest = Math.min(first.toMillis(), Math.min(next.toMillis(), body.toMillis()));
    return Math.max(1, shortest / 6);
  }
}
