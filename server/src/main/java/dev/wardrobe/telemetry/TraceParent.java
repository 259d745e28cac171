package dev.wardrobe.telemetry;

import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** W3C Trace Context's header, as far as it is needed without a tracer. */
final class TraceParent {
  private static final Pattern FORM =
      Pattern.compile("(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?");

  private TraceParent() {}

  /** The trace's id, or null if there is none. */
  static @Nullable String traceId(@Nullable String header) {
    if (header == null) {
      return null;
    }
    Matcher form = FORM.matcher(header);
    return form.matches() && !form.group(1).chars().allMatch(c -> c == '0') ? form.group(1) : null;
  }
}
