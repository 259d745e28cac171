package dev.wardrobe.telemetry;

import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.telemetry.RequestReport.Operation;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Requests as OpenTelemetry's spans, sent by OTLP over HTTP. The spans of a request are made when
 * it has ended, from the times that were noted anyway: nothing is done for a token. They continue
 * the caller's trace, and have no texts.
 */
public final class Traces implements Consumer<RequestReport>, AutoCloseable {
  private static final long LAST_SECONDS = 5;

  private static final TextMapGetter<Origin> HEADERS =
      new TextMapGetter<>() {
        @Override
        public Iterable<String> keys(Origin origin) {
          return List.of("traceparent", "tracestate");
        }

        @Override
        public @Nullable String get(@Nullable Origin origin, String key) {
          if (origin == null) {
            return null;
          }
          return switch (key) {
            case "traceparent" -> origin.traceparent();
            case "tracestate" -> origin.tracestate();
            default -> null;
          };
        }
      };

  private final OpenTelemetrySdk sdk;
  private final Tracer tracer;
  private final String model;

  private Traces(OpenTelemetrySdk sdk, String model) {
    this.sdk = sdk;
    this.model = model;
    tracer = sdk.getTracer("dev.wardrobe");
  }

  /** Whether OpenTelemetry's environment variables name a place to send to. */
  public static boolean asked(Map<String, String> environment) {
    return environment.containsKey("OTEL_EXPORTER_OTLP_ENDPOINT")
        || environment.containsKey("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
  }

  /**
   * Traces as OpenTelemetry's environment variables say.
   *
   * @param endpoint where to send to, {@code http://HOST:4318}, instead of what they say; or null
   * @param model the base's name
   * @throws RuntimeException if something is not as it should be
   */
  public static Traces to(@Nullable String endpoint, String model) {
    Map<String, String> defaults = new HashMap<>();
    defaults.put("otel.traces.exporter", "otlp");
    defaults.put("otel.metrics.exporter", "none");
    defaults.put("otel.logs.exporter", "none");
    defaults.put("otel.exporter.otlp.protocol", "http/protobuf");
    defaults.put("otel.service.name", "wardrobe");
    Map<String, String> given =
        endpoint == null ? Map.of() : Map.of("otel.exporter.otlp.endpoint", endpoint);
    return new Traces(
        AutoConfiguredOpenTelemetrySdk.builder()
            .addPropertiesSupplier(() -> defaults)
            .addPropertiesCustomizer(_ -> given)
            .disableShutdownHook()
            .build()
            .getOpenTelemetrySdk(),
        model);
  }

  @Override
  public void accept(RequestReport report) {
    // Both clocks at once: what was noted is of the one, spans are of the other.
    long now = System.nanoTime();
    long epoch = TimeUnit.MILLISECONDS.toNanos(System.currentTimeMillis());
    Context parent =
        W3CTraceContextPropagator.getInstance().extract(Context.root(), report.origin(), HEADERS);
    String asked = report.asked().isEmpty() ? model : String.join("+", report.asked());
    String operation = report.operation() == Operation.EMBED ? "embeddings" : "text_completion";
    SpanBuilder builder =
        tracer
            .spanBuilder(operation + " " + asked)
            .setSpanKind(SpanKind.SERVER)
            .setParent(parent)
            .setStartTimestamp(epoch + (report.arrived() - now), TimeUnit.NANOSECONDS)
            .setAttribute("gen_ai.operation.name", operation)
            .setAttribute("gen_ai.provider.name", "wardrobe")
            .setAttribute("gen_ai.request.model", asked)
            .setAttribute("gen_ai.response.model", model)
            .setAttribute("gen_ai.usage.input_tokens", report.promptTokens())
            .setAttribute("gen_ai.usage.output_tokens", report.generatedTokens())
            .setAttribute("wardrobe.cached_tokens", report.cachedTokens())
            .setAttribute("wardrobe.frontend", report.origin().frontend())
            .setAttribute("wardrobe.request", AccessLog.plain(report.id()))
            .setAttribute("wardrobe.tenant", AccessLog.plain(report.tenant()));
    if (report.maxTokens() > 0) {
      builder.setAttribute("gen_ai.request.max_tokens", report.maxTokens());
    }
    if (report.finish() != null) {
      builder.setAttribute(
          AttributeKey.stringArrayKey("gen_ai.response.finish_reasons"), List.of(report.finish()));
    }
    if (!report.adapters().isEmpty()) {
      builder
          .setAttribute(
              AttributeKey.stringArrayKey("wardrobe.adapter.names"),
              report.adapters().stream().map(Answering::name).toList())
          .setAttribute(
              AttributeKey.stringArrayKey("wardrobe.adapter.digests"),
              report.adapters().stream().map(Answering::digest).toList());
    }
    Span request = builder.startSpan();
    Context inside = parent.with(request);
    long shift = epoch - now;
    part(inside, "tokenize", report.arrived(), report.tokenized(), shift);
    part(inside, "find adapter", report.tokenized(), report.leased(), shift);
    long ready = report.admitted() == 0 ? 0 : report.admitted() - report.queueNanos();
    if (!report.asked().isEmpty()) {
      part(inside, "load adapter", report.leased(), ready, shift);
    }
    part(inside, "queue", ready, report.admitted(), shift);
    part(
        inside,
        "prefill",
        report.admitted(),
        report.firstToken() == 0 && report.admitted() != 0 ? report.ended() : report.firstToken(),
        shift);
    part(inside, "decode", report.firstToken(), report.ended(), shift);
    if (!report.answered()) {
      request.setAttribute("error.type", report.status()).setStatus(StatusCode.ERROR);
    }
    request.end(report.ended() + shift, TimeUnit.NANOSECONDS);
  }

  /** A part of a request, if it came to that. */
  private void part(Context parent, String name, long from, long to, long shift) {
    if (from != 0 && to != 0 && to - from >= 0) {
      tracer
          .spanBuilder(name)
          .setParent(parent)
          .setStartTimestamp(from + shift, TimeUnit.NANOSECONDS)
          .startSpan()
          .end(to + shift, TimeUnit.NANOSECONDS);
    }
  }

  /** Sends what is left, for a few seconds at most. */
  @Override
  public void close() {
    sdk.shutdown().join(LAST_SECONDS, TimeUnit.SECONDS);
  }
}
