package dev.wardrobe.telemetry;

import dev.wardrobe.engine.Distribution;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.LongAdder;

/** What requests came to, summed up as they end. Times are in seconds. */
final class RequestMeters {
  private static final double[] FIRST_TOKEN = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80, 160, 640, 2560
  };
  private static final double[] LATENCY = {
    0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480,
    960, 1920, 7680
  };
  private static final double[] PER_TOKEN = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
    7.5, 10, 20, 40, 80
  };
  private static final double[] TOKENS = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000
  };

  /** Most adapters that have time series of their own. */
  static final int NAMED = 100;

  final Distribution firstToken = new Distribution(FIRST_TOKEN);
  final Distribution total = new Distribution(LATENCY);
  final Distribution queue = new Distribution(LATENCY);
  final Distribution prefill = new Distribution(LATENCY);
  final Distribution decode = new Distribution(LATENCY);
  final Distribution inference = new Distribution(LATENCY);
  final Distribution swapIn = new Distribution(LATENCY);
  final Distribution perToken = new Distribution(PER_TOKEN);
  final Distribution promptTokens = new Distribution(TOKENS);
  final Distribution generatedTokens = new Distribution(TOKENS);
  final Distribution maxTokens = new Distribution(TOKENS);
  final Distribution choices = new Distribution(1, 2, 5, 10, 20);
  final LongAdder cachedTokens = new LongAdder();
  final AdapterTraffic adapters = new AdapterTraffic(NAMED);

  // Guarded by itself.
  private final Map<String, Long> finishes = new TreeMap<>();

  /** By front end and status, "grpc OK". Guarded by itself. */
  private final Map<String, Long> statuses = new TreeMap<>();

  RequestMeters() {
    for (String reason : new String[] {"abort", "error", "length", "stop"}) {
      finishes.put(reason, 0L);
    }
  }

  void add(RequestReport report) {
    adapters.add(report);
    synchronized (statuses) {
      statuses.merge(report.origin().frontend() + " " + report.status(), 1L, Long::sum);
    }
    if (report.operation() != RequestReport.Operation.GENERATE) {
      return;
    }
    synchronized (finishes) {
      finishes.merge(reason(report), 1L, Long::sum);
    }
    if (report.admitted() == 0) {
      // It failed before anything was computed.
      return;
    }
    queue.addNanos(report.queueNanos());
    swapIn.addNanos(report.swapInNanos());
    promptTokens.add(report.promptTokens());
    cachedTokens.add(report.cachedTokens());
    generatedTokens.add(report.generatedTokens());
    choices.add(report.choices());
    if (report.maxTokens() > 0) {
      maxTokens.add(report.maxTokens());
    }
    total.addNanos(report.ended() - report.arrived());
    inference.addNanos(report.ended() - report.admitted());
    if (report.firstToken() != 0) {
      firstToken.addNanos(report.firstToken() - report.arrived());
      prefill.addNanos(report.firstToken() - report.admitted());
      decode.addNanos(report.ended() - report.firstToken());
      int further = report.generatedTokens() / report.choices() - 1;
      if (further > 0) {
        perToken.addNanos((report.ended() - report.firstToken()) / further);
      }
    }
  }

  /** As vLLM has it. */
  private static String reason(RequestReport report) {
    return switch (report.finish()) {
      case "stop", "eos" -> "stop";
      case "length" -> "length";
      case "cancelled", "deadline" -> "abort";
      case null, default ->
          switch (report.status()) {
            case "CANCELLED", "DEADLINE_EXCEEDED" -> "abort";
            default -> "error";
          };
    };
  }

  Map<String, Long> finishes() {
    synchronized (finishes) {
      return new TreeMap<>(finishes);
    }
  }

  Map<String, Long> statuses() {
    synchronized (statuses) {
      return new TreeMap<>(statuses);
    }
  }
}
