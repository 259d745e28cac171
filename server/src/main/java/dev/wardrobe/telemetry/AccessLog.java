package dev.wardrobe.telemetry;

import dev.wardrobe.telemetry.RequestReport.Answering;
import java.util.Locale;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.spi.LoggingEventBuilder;

/**
 * One line for each request, in fields: who asked for what, what it took, how it ended. Never a
 * text of a prompt or an answer, nor a key; and what callers choose cannot make a line look like
 * two.
 */
public final class AccessLog implements Consumer<RequestReport> {
  /** The logger's name, by which these lines are filtered. */
  public static final String NAME = "dev.wardrobe.access";

  private static final Logger log = LoggerFactory.getLogger(NAME);
  private static final int LONGEST = 256;

  private final String model;

  /**
   * @param model the base's name
   */
  public AccessLog(String model) {
    this.model = model;
  }

  @Override
  public void accept(RequestReport report) {
    LoggingEventBuilder line =
        log.atInfo()
            .addKeyValue("request", plain(report.id()))
            .addKeyValue("frontend", report.origin().frontend())
            .addKeyValue("operation", report.operation().name().toLowerCase(Locale.ROOT))
            .addKeyValue("tenant", plain(report.tenant()))
            .addKeyValue("model", plain(model));
    String asked = String.join("+", report.asked());
    String answered =
        report.adapters().stream().map(Answering::name).collect(Collectors.joining("+"));
    line = line.addKeyValue("adapter", plain(answered.isEmpty() ? asked : answered));
    if (!answered.isEmpty()) {
      line =
          line.addKeyValue(
              "digest",
              report.adapters().stream().map(Answering::digest).collect(Collectors.joining("+")));
    }
    if (!answered.isEmpty() && !asked.equals(answered)) {
      line = line.addKeyValue("asked", plain(asked));
    }
    line =
        line.addKeyValue("status", report.status())
            .addKeyValue("prompt_tokens", report.promptTokens())
            .addKeyValue("cached_tokens", report.cachedTokens())
            .addKeyValue("generated_tokens", report.generatedTokens())
            .addKeyValue("queue_ms", millis(report.queueNanos()))
            .addKeyValue("swap_in_ms", millis(report.swapInNanos()));
    if (report.firstToken() != 0) {
      line = line.addKeyValue("first_token_ms", millis(report.firstToken() - report.arrived()));
    }
    line = line.addKeyValue("total_ms", millis(report.ended() - report.arrived()));
    String trace = TraceParent.traceId(report.origin().traceparent());
    if (trace != null) {
      line = line.addKeyValue("trace_id", trace);
    }
    if (report.finish() != null) {
      line = line.addKeyValue("finish", report.finish());
    }
    line.log("request");
  }

  private static double millis(long nanos) {
    return Math.round(nanos / 1e3) / 1e3;
  }

  /** Without what ends or forges a line, and not longer than needed. */
  static String plain(String text) {
    StringBuilder plain = new StringBuilder();
    text.codePoints()
        .limit(LONGEST)
        .forEach(
            c -> {
              int type = Character.getType(c);
              boolean odd =
                  type == Character.CONTROL
                      || type == Character.FORMAT
                      || type == Character.LINE_SEPARATOR
                      || type == Character.PARAGRAPH_SEPARATOR
                      || type == Character.SURROGATE
                      || c == '"'
                      || c == '\\';
              if (odd) {
                plain.append("\\u%04x".formatted(c));
              } else {
                plain.appendCodePoint(c);
              }
            });
    return plain.toString();
  }
}
