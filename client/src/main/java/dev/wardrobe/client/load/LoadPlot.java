package dev.wardrobe.client.load;

import com.google.errorprone.annotations.FormatMethod;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.function.Function;

/**
 * What was measured, as a picture (SVG): throughput, the distributions of the time to the first
 * token and of that between tokens, and the latter over time with the swap-ins in it.
 */
public final class LoadPlot {
  private static final int WIDTH = 1080;
  private static final int MARGIN = 24;
  private static final int PANEL = 280;
  private static final int TIMELINE = 150;
  private static final int BAR = 24;

  /** Room for what is written left of a panel. */
  private static final int LEFT = 62;

  /** Colours that those who see few of them can tell apart (Okabe and Ito). */
  private static final List<String> COLOURS =
      List.of("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000");

  private static final String SWAP = "#d55e00";

  /** Most points of a timeline; the long gaps are among them in any case. */
  private static final int MOST_POINTS = 5000;

  private static final double[] QUANTILES = {
    0.4, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999
  };

  private final StringBuilder svg = new StringBuilder();
  private final List<LoadResult> results;
  private double y = MARGIN;

  private LoadPlot(List<LoadResult> results) {
    this.results = results;
  }

  /** The picture. */
  public static String of(String title, List<LoadResult> results) {
    return new LoadPlot(results).draw(title);
  }

  private String draw(String title) {
    text(MARGIN, y + 10, "start", 18, "#111", title);
    y += 34;
    legend();
    bars();
    double top = y;
    double half = (WIDTH - 3.0 * MARGIN) / 2;
    distribution("Time to first token, ms", MARGIN, top, half, run -> run.load().firstToken());
    distribution("Time between tokens, ms", 2 * MARGIN + half, top, half, run -> run.load().gaps());
    y = top + PANEL + 78;
    double most = 0;
    for (LoadResult result : results) {
      most = Math.max(most, result.together(run -> run.load().gaps()).maxMillis());
    }
    for (LoadResult result : results) {
      timeline(result, most);
    }
    String head =
        """
        <svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" viewBox="0 0 %d %.0f" \
        font-family="DejaVu Sans, Helvetica, Arial, sans-serif">
        <rect width="100%%" height="100%%" fill="#ffffff"/>
        """
            .formatted(WIDTH, y, WIDTH, y);
    return head + svg + "</svg>\n";
  }

  private static String colour(int i) {
    return COLOURS.get(i % COLOURS.size());
  }

  private void legend() {
    for (int i = 0; i < results.size(); i++) {
      LoadCase plan = results.get(i).of();
      add(
          "<rect x=\"%d\" y=\"%.1f\" width=\"14\" height=\"14\" rx=\"2\" fill=\"%s\"/>",
          MARGIN, y - 11, colour(i));
      text(MARGIN + 22, y + 1, "start", 13, "#222", plan.name() + ": " + plan.describe());
      y += 21;
    }
    y += 12;
  }

  private void bars() {
    double most = 0;
    for (LoadResult result : results) {
      double[] rates = result.values(LoadRun::tokensPerSecond);
      most = Math.max(most, rates[rates.length - 1]);
    }
    text(MARGIN, y, "start", 14, "#111", "Throughput, tokens/s: median, least and most run");
    y += 12;
    // As wide as the longest name needs, about.
    int longest = results.stream().mapToInt(r -> r.of().name().length()).max().orElse(0);
    double left = MARGIN + Math.min(220, 20 + 8.0 * longest);
    Axis axis = Axis.of(most, most, left, WIDTH - MARGIN - 90.0);
    for (int i = 0; i < results.size(); i++) {
      LoadResult result = results.get(i);
      double[] rates = result.values(LoadRun::tokensPerSecond);
      double median = result.median(LoadRun::tokensPerSecond);
      double middle = y + BAR / 2.0;
      add(
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\""
              + " fill-opacity=\"0.8\"/>",
          left, y + 2, axis.at(median) - left, BAR - 6, colour(i));
      add(
          "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\" stroke=\"#222\" fill=\"none\"/>",
          axis.at(rates[0]),
          middle - 1,
          axis.at(rates[rates.length - 1]),
          axis.at(rates[0]),
          middle - 5,
          axis.at(rates[rates.length - 1]),
          middle - 5);
      text(left - 8, middle + 3, "end", 12, "#222", result.of().name());
      text(
          axis.at(rates[rates.length - 1]) + 8,
          middle + 3,
          "start",
          12,
          "#222",
          String.format(Locale.ROOT, median < 100 ? "%.1f" : "%,.0f", median)
              + (result.undisturbed() ? "" : " (disturbed)"));
      y += BAR;
    }
    y += 34;
  }

  /** How long the slower half, tenth, hundredth took, at least. */
  private void distribution(
      String title, double x, double top, double width, Function<LoadRun, Samples> of) {
    text(x, top, "start", 14, "#111", title);
    List<Samples> all = new ArrayList<>();
    double least = Double.MAX_VALUE;
    double most = 0;
    for (LoadResult result : results) {
      Samples samples = result.together(of);
      all.add(samples);
      if (samples.size() > 0) {
        least = Math.min(least, Math.max(samples.millis(0.4), 1e-3));
        most = Math.max(most, samples.maxMillis());
      }
    }
    double bottom = top + 12 + PANEL;
    Axis vertical = Axis.of(least, most, bottom, top + 12);
    double left = x + LEFT;
    double right = x + width;
    grid(vertical, left, right);
    // Equal distances are equal factors of the share that is slower.
    Axis horizontal = new Axis(1.6, 1e4, true, left, right - 34);
    for (double q : new double[] {0.5, 0.9, 0.99, 0.999, 0.9999}) {
      double at = horizontal.at(1 / (1 - q));
      add("<path d=\"M%.1f %.1fV%.1f\" stroke=\"#e4e4e4\"/>", at, top + 12, bottom);
      text(at, bottom + 17, "middle", 12, "#444", Axis.text(100 * q) + " %");
    }
    text((left + right) / 2, bottom + 34, "middle", 12, "#444", "share that took less");
    for (int i = 0; i < results.size(); i++) {
      Samples samples = all.get(i);
      StringBuilder path = new StringBuilder();
      for (double q : QUANTILES) {
        // A quantile that rests on less than one value would be an invention.
        if (samples.size() * (1 - q) >= 1) {
          path.append(
              String.format(
                  Locale.ROOT,
                  "%s%.1f %.1f",
                  path.isEmpty() ? "M" : "L",
                  horizontal.at(1 / (1 - q)),
                  vertical.at(samples.millis(q))));
        }
      }
      if (samples.size() > 0) {
        double end = horizontal.at(Math.min(1e4, samples.size()));
        if (!path.isEmpty()) {
          path.append(
              String.format(Locale.ROOT, "L%.1f %.1f", end, vertical.at(samples.maxMillis())));
          add(
              "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\""
                  + " stroke-opacity=\"0.85\"/>",
              path, colour(i));
        }
        add(
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>most</title></circle>",
            end, vertical.at(samples.maxMillis()), colour(i));
      }
    }
  }

  private void grid(Axis vertical, double left, double right) {
    for (double tick : vertical.ticks()) {
      double at = vertical.at(tick);
      add("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#e4e4e4\"/>", left, at, right);
      text(left - 7, at + 4, "end", 12, "#444", Axis.text(tick));
    }
    add("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#888\"/>", left, vertical.start(), right);
  }

  /** Each gap between two tokens of the last run, when it ended; swap-ins behind them. */
  private void timeline(LoadResult result, double most) {
    LoadRun run = result.counted().getLast();
    text(
        MARGIN,
        y,
        "start",
        14,
        "#111",
        result.of().name() + ": time between tokens, ms, over the last run");
    double top = y + 12;
    double bottom = top + TIMELINE;
    double left = MARGIN + LEFT;
    double right = WIDTH - MARGIN;
    Samples gaps = run.load().gaps();
    Axis vertical = Axis.of(Math.max(gaps.millis(0.05), most / 300), most, bottom, top);
    grid(vertical, left, right);
    Axis time = new Axis(0, Math.max(run.seconds(), 1e-3), false, left, right);
    for (double tick : time.ticks()) {
      text(time.at(tick), bottom + 17, "middle", 12, "#444", Axis.text(tick) + " s");
    }
    boolean swaps = swaps(run.load(), time, top);
    swaps |= swaps(run.guests(), time, top);
    points(run, gaps, time, vertical);
    if (swaps) {
      add(
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"10\" fill=\"%s\""
              + " fill-opacity=\"0.25\"/>",
          right - 214, y - 9, SWAP);
      text(right, y, "end", 12, "#444", "a request waits for a swap-in");
    }
    y = bottom + 50;
  }

  private boolean swaps(Observed seen, Axis time, double top) {
    int[] starts = seen.swapStarts();
    int[] lengths = seen.swapMicros();
    for (int i = 0; i < starts.length; i++) {
      double from = time.at(starts[i] / 1e6);
      double to = time.at((starts[i] + (double) lengths[i]) / 1e6);
      add(
          "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" fill=\"%s\""
              + " fill-opacity=\"0.25\"/>",
          from, top, Math.max(1, to - from), TIMELINE, SWAP);
    }
    return starts.length > 0;
  }

  private void points(LoadRun run, Samples gaps, Axis time, Axis vertical) {
    int[] ends = run.load().gapEnds();
    int[] lengths = run.load().gapMicros();
    double longOnes = gaps.millis(0.99) * 1000;
    double share = Math.min(1, (double) MOST_POINTS / Math.max(1, ends.length));
    SplittableRandom random = new SplittableRandom(1);
    add("<g fill=\"%s\" fill-opacity=\"0.45\">", COLOURS.getFirst());
    for (int i = 0; i < ends.length; i++) {
      if (lengths[i] >= longOnes || random.nextDouble() < share) {
        add(
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"1.5\"/>",
            time.at(ends[i] / 1e6), vertical.at(lengths[i] / 1e3));
      }
    }
    add("</g>");
  }

  private void text(double x, double at, String anchor, int size, String fill, String text) {
    add(
        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\" fill=\"%s\">%s</text>",
        x, at, anchor, size, fill, escape(text));
  }

  private static String escape(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
  }

  @FormatMethod
  private void add(String format, Object... arguments) {
    svg.append(String.format(Locale.ROOT, format, arguments)).append('\n');
  }
}
