package dev.wardrobe.client.load;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * A scale of a plot.
 *
 * @param least value
 * @param most value
 * @param log whether equal distances are equal ratios
 * @param start where the least value is, in pixels
 * @param end where the most is
 */
record Axis(double least, double most, boolean log, double start, double end) {
  /** From this ratio of the largest to the smallest on, small values need a logarithmic scale. */
  private static final double WIDE = 30;

  /** A scale of durations or rates, from 0 or, if they are far apart, from the least. */
  static Axis of(double least, double most, double start, double end) {
    double top = most > 0 && Double.isFinite(most) ? most : 1;
    double bottom = least > 0 && Double.isFinite(least) ? least : top / 1000;
    if (top / bottom >= WIDE) {
      return new Axis(
          Math.pow(10, Math.floor(Math.log10(bottom) * 2) / 2),
          Math.pow(10, Math.ceil(Math.log10(top) * 4) / 4),
          true,
          start,
          end);
    }
    double step = step(top);
    return new Axis(0, Math.ceil(top / step) * step, false, start, end);
  }

  private static double step(double top) {
    double power = Math.pow(10, Math.floor(Math.log10(top)));
    double lead = top / power;
    return power * (lead <= 1.2 ? 0.2 : lead <= 2.5 ? 0.5 : lead <= 6 ? 1 : 2);
  }

  double at(double value) {
    double share =
        log
            ? Math.log(Math.max(value, least) / least) / Math.log(most / least)
            : (value - least) / (most - least);
    return start + Math.clamp(share, 0, 1) * (end - start);
  }

  /** Values to write beside it. */
  List<Double> ticks() {
    List<Double> ticks = new ArrayList<>();
    if (!log) {
      double step = step(most);
      for (int i = 0; i * step <= most * 1.000001; i++) {
        ticks.add(i * step);
      }
      return ticks;
    }
    boolean few = most / least > 1e4;
    for (double power = Math.pow(10, Math.floor(Math.log10(least))); power <= most; power *= 10) {
      for (int lead : few ? new int[] {1} : new int[] {1, 2, 5}) {
        double tick = lead * power;
        if (tick >= least * 0.999999 && tick <= most * 1.000001) {
          ticks.add(tick);
        }
      }
    }
    return ticks;
  }

  static String text(double value) {
    if (value == 0) {
      return "0";
    }
    String text =
        String.format(Locale.ROOT, value >= 100 ? "%,.0f" : value >= 1 ? "%.2f" : "%.4f", value);
    return text.contains(".") ? text.replaceAll("0+$", "").replaceAll("\\.$", "") : text;
  }
}
