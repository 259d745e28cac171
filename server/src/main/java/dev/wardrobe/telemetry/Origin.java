package dev.wardrobe.telemetry;

import org.jspecify.annotations.Nullable;

/**
 * How a request came here.
 *
 * @param frontend "grpc", "http", or "" for those that nobody outside asked
 * @param traceparent as W3C's Trace Context has it, not checked yet; null if there was none
 * @param tracestate likewise
 */
public record Origin(String frontend, @Nullable String traceparent, @Nullable String tracestate) {
  public static final Origin NONE = new Origin("", null, null);
}
