package dev.wardrobe;

import dev.wardrobe.bench.Measurement;
import dev.wardrobe.bench.Run;
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
