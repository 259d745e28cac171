package dev.wardrobe;

import dev.wardrobe.bench.Cost;
import dev.wardrobe.bench.Measurement;
import dev.wardrobe.bench.Run;
import dev.wardrobe.compute.cpu.Roof;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** What was measured, for people. */
final class BenchTable {
  private BenchTable() {}

  static void heading(PrintWriter out) {
    out.printf(
        Locale.ROOT,
        "%-34s%10s%10s%10s%6s  %s%n",
        "case",
        "tokens/s",
        "min",
        "max",
        "runs",
        "others took");
    out.flush();
  }

  static void row(PrintWriter out, Measurement measurement) {
    long kept = measurement.runs().stream().filter(Run::undisturbed).count();
    out.printf(
        Locale.ROOT,
        "%-34s%10.2f%10.2f%10.2f%6d  %s%n",
        name(measurement),
        measurement.median(),
        measurement.min(),
        measurement.max(),
        kept,
        others(measurement));
    out.flush();
  }

  /** What each operation took of a step's time, and of what the machine can do. */
  static void profile(PrintWriter out, Measurement measurement, Roof roof) {
    List<Cost> costs = measurement.costs();
    if (costs.isEmpty()) {
      return;
    }
    out.printf(
        Locale.ROOT,
        "  %-26s%9s%8s%10s%9s%9s%9s%9s%8s%n",
        "of "
            + (measurement.prompt() > 0 && measurement.kind() != Measurement.Kind.TRAINING
                ? "a prompt"
                : "a step"),
        "ms",
        "share",
        "calls",
        "MB",
        "GB/s",
        "Gw/s",
        "GFLOP/s",
        "of roof");
    double steps = measurement.steps();
    for (Cost cost : costs) {
      out.printf(
          Locale.ROOT,
          "  %-26s%9.3f%7.1f%%%10.0f%9.1f%9.1f%9.1f%9.1f%7.1f%%%n",
          cost.operation(),
          1e3 * cost.seconds() / steps,
          100 * cost.seconds() / measurement.seconds(),
          cost.calls() / steps,
          cost.bytes() / 1e6 / steps,
          rate((double) cost.bytes(), cost),
          rate((double) cost.weights(), cost),
          rate(cost.operations(), cost),
          100 * cost.shareOfRoof(roof.readAll(), roof.computeAll()));
    }
    out.println();
    out.flush();
  }

  static void roof(PrintWriter out, Roof roof) {
    out.printf(
        Locale.ROOT,
        "roof: read %.1f GB/s with one thread, %.1f with %d; compute in float32 %.0f GFLOP/s with"
            + " one, %.0f with %d%n%n",
        roof.readOne() / 1e9,
        roof.readAll() / 1e9,
        roof.threads(),
        roof.computeOne() / 1e9,
        roof.computeAll() / 1e9,
        roof.threads());
  }

  /** Thousand millions a second. */
  static double rate(double count, Cost cost) {
    return cost.seconds() > 0 ? count / cost.seconds() / 1e9 : 0;
  }

  private static String name(Measurement m) {
    return switch (m.kind()) {
      case PREFILL -> "prefill " + m.prompt();
      case DECODE -> "decode " + m.generated();
      case DEPTH -> "decode " + m.generated() + " at depth " + m.depth();
      case BATCH -> "%d stream%s".formatted(m.streams(), m.streams() == 1 ? "" : "s");
      case ADAPTERS ->
          m.adapters() == 0
              ? m.streams() + " streams, base"
              : "%d streams, %d adapters of rank %d".formatted(m.streams(), m.adapters(), m.rank());
      case TRAINING -> "training, layer and head, " + m.prompt();
    };
  }

  /** Each run's share; those that do not count are marked. */
  private static String others(Measurement measurement) {
    StringBuilder line = new StringBuilder();
    for (Run run : measurement.runs()) {
      line.append(
          Double.isNaN(run.others())
              ? "? "
              : "%.1f%%%s "
                  .formatted(100 * run.others(), run.undisturbed() ? "" : " (not counted)"));
    }
    return line.toString().strip() + (measurement.undisturbed() ? "" : "; none undisturbed");
  }

  /** The rate with adapters over the base's, or null if they were not measured. */
  static @Nullable Double ratio(List<Measurement> all) {
    Measurement base = null;
    for (Measurement each : all) {
      if (each.kind() == Measurement.Kind.ADAPTERS) {
        if (base == null) {
          base = each;
        } else {
          return each.ratioTo(base);
        }
      }
    }
    return null;
  }

  static void ratio(PrintWriter out, List<Measurement> all) {
    Double ratio = ratio(all);
    if (ratio != null) {
      out.printf(Locale.ROOT, "%nadapters / base, step by step in turn: %.3f%n", ratio);
    }
  }
}
