package dev.wardrobe.client.load;

import com.google.errorprone.annotations.FormatMethod;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/** What was measured, for people. */
public final class LoadTable {
  private static final double MIB = 1 << 20;

  private LoadTable() {}

  /** One line of a run, as it ends. */
  public static void run(PrintWriter out, int round, LoadRun run) {
    print(
        out,
        "  round %d  %-16s %8.1f tokens/s  %7.2f requests/s  client %4.1f %%  others %s%s",
        round + 1,
        run.of().name(),
        run.tokensPerSecond(),
        run.requestsPerSecond(),
        100 * run.shares().client(),
        percent(run.shares().others()),
        run.undisturbed() ? "" : "  disturbed");
  }

  /**
   * All cases.
   *
   * @param against what the others are compared with
   */
  public static void all(PrintWriter out, List<LoadResult> results, LoadResult against) {
    for (LoadResult result : results) {
      out.println();
      one(out, result, against);
    }
    out.flush();
  }

  private static void one(PrintWriter out, LoadResult result, LoadResult against) {
    List<LoadRun> runs = result.counted();
    print(out, "%s: %s", result.of().name(), result.of().describe());
    double[] rates = result.values(LoadRun::tokensPerSecond);
    print(
        out,
        "  throughput     %.1f tokens/s (%.1f to %.1f in %d runs of %.1f s%s), %.2f requests/s",
        result.median(LoadRun::tokensPerSecond),
        rates[0],
        rates[rates.length - 1],
        runs.size(),
        result.median(LoadRun::seconds),
        result.undisturbed() ? "" : ", ALL OF THEM DISTURBED",
        result.median(LoadRun::requestsPerSecond));
    if (result != against) {
      double[] ratios = result.ratiosTo(against, LoadRun::tokensPerSecond);
      print(
          out,
          "                 %.3f of %s (%.3f to %.3f); time between tokens, p99: %s of it",
          result.ratioTo(against, LoadRun::tokensPerSecond),
          against.of().name(),
          ratios[0],
          ratios[ratios.length - 1],
          number(result.ratioTo(against, run -> run.load().gaps().millis(0.99))));
    }
    print(out, "  %-14s %9s %9s %9s %9s %9s", "milliseconds", "p50", "p90", "p99", "most", "count");
    row(out, "first token", result.together(run -> run.load().firstToken()));
    row(out, "between tokens", result.together(run -> run.load().gaps()));
    row(out, "whole answer", result.together(run -> run.load().whole()));
    Samples waited = result.together(run -> run.load().swapIn());
    if (waited.size() > 0) {
      row(out, "swap-in", waited);
    }
    if (!result.of().guests().isEmpty()) {
      row(out, "guest, first", result.together(run -> run.guests().firstToken()));
      row(out, "guest, swap-in", result.together(run -> run.guests().swapIn()));
    }
    long requests = runs.stream().mapToLong(run -> run.load().requests()).sum();
    ServerSeen server = runs.getLast().server();
    print(
        out,
        "  swap-ins       %d of %d requests waited for their adapter; %.1f %% of prompt tokens were"
            + " cached",
        waited.size(),
        requests,
        100 * runs.stream().mapToDouble(run -> run.load().cachedShare()).average().orElse(0));
    print(
        out,
        "  batches        %s sequences and %s outfits in a step; p99 of a step %s ms",
        number(server.meanSequences()),
        number(server.meanAdapters()),
        number(server.p99StepMillis()));
    print(
        out,
        "  server         adapters %,.1f MiB%s",
        server.adapterBytes() / MIB,
        server.residentBytes() < 0
            ? ""
            : String.format(
                Locale.ROOT,
                "; process %,.0f MiB, %+,.1f over the run; %,.1f MiB read from disk",
                server.residentBytes() / MIB,
                server.residentGrowth() / MIB,
                server.readBytes() / MIB));
    print(
        out,
        "  machine        server %s, client %s, others %s",
        percent(result.median(run -> run.shares().server())),
        percent(result.median(run -> run.shares().client())),
        percent(result.median(run -> run.shares().others())));
    Map<String, Integer> errors = result.errors();
    print(
        out,
        "  errors         %s",
        errors.isEmpty()
            ? "none"
            : errors.entrySet().stream()
                    .map(each -> each.getKey() + " " + each.getValue())
                    .collect(Collectors.joining(", "))
                + " (the first: "
                + result.firstError()
                + ")");
  }

  private static void row(PrintWriter out, String what, Samples samples) {
    print(
        out,
        "  %-14s %9s %9s %9s %9s %9d",
        what,
        number(samples.millis(0.5)),
        number(samples.millis(0.9)),
        number(samples.millis(0.99)),
        number(samples.maxMillis()),
        samples.size());
  }

  /** A number with as many digits as it deserves. */
  private static String number(double value) {
    return Double.isNaN(value)
        ? "-"
        : String.format(Locale.ROOT, value < 10 ? "%.2f" : value < 1000 ? "%.1f" : "%.0f", value);
  }

  private static String percent(double share) {
    return Double.isNaN(share) ? "unknown" : String.format(Locale.ROOT, "%.1f %%", 100 * share);
  }

  @FormatMethod
  private static void print(PrintWriter out, String format, Object... arguments) {
    out.println(String.format(Locale.ROOT, format, arguments));
    out.flush();
  }
}
