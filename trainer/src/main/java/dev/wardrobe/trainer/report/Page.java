package dev.wardrobe.trainer.report;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * A run as one HTML page that needs nothing beside it: curves, samples, options, data.
 *
 * @param title what was trained
 * @param facts what a person wants to know first, by name
 * @param metrics of all steps
 * @param samples in the order of their steps
 * @param data what was learned from, by name
 * @param options of the run, by name
 */
public record Page(
    String title,
    Map<String, String> facts,
    List<StepMetrics> metrics,
    List<Answer> samples,
    Map<String, String> data,
    Map<String, String> options) {
  /** Its name in the output folder. */
  public static final String FILE = "report.html";

  /** Weight of the past in the smoothed loss. */
  private static final double SMOOTHING = 0.9;

  private static final String STYLE =
      """
      :root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1a; --soft: #62615c;
        --line: #e4e2dc; --panel: #f7f6f2; --one: #0072b2; --two: #d55e00; --pale: #9cc7e2; }
      @media (prefers-color-scheme: dark) { :root { --paper: #161615; --ink: #e9e7e1;
        --soft: #a3a199; --line: #35342f; --panel: #1f1e1c; --one: #56b4e9; --two: #e8894a;
        --pale: #2b5a77; } }
      * { box-sizing: border-box; }
      body { margin: 0 auto; max-width: 1120px; padding: 32px 24px 64px; background: var(--paper);
        color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
      h1 { font-size: 24px; margin: 0 0 20px; overflow-wrap: anywhere; }
      h2 { font-size: 17px; margin: 36px 0 10px; }
      h3 { font-size: 14px; margin: 20px 0 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
      dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
        gap: 10px; margin: 0 0 24px; }
      dl.facts div { background: var(--panel); border-radius: 8px; padding: 10px 14px; }
      dl.facts dt { color: var(--soft); font-size: 12px; }
      dl.facts dd { margin: 0; font-size: 18px; overflow-wrap: anywhere;
        font-variant-numeric: tabular-nums; }
      .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
        gap: 20px; }
      figure { margin: 0; }
      figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; display: flex;
        justify-content: space-between; gap: 12px; flex-wrap: wrap; }
      figure > svg { width: 100%; height: auto; display: block; }
      svg.key { width: 18px; height: 8px; margin: 0 5px 0 10px; }
      .legend { font-weight: 400; color: var(--soft); }
      svg text { font-size: 11px; fill: var(--soft); }
      svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
      .end { text-anchor: end; } .middle { text-anchor: middle; }
      path.grid { stroke: var(--line); stroke-width: 1; }
      path.raw { stroke: var(--pale); stroke-width: 1.2; }
      path.one { stroke: var(--one); } circle.one { fill: var(--one); }
      path.two { stroke: var(--two); } circle.two { fill: var(--two); }
      circle.raw { fill: var(--pale); }
      table { border-collapse: collapse; width: 100%; font-size: 14px; }
      th, td { text-align: left; vertical-align: top; padding: 5px 16px 5px 0;
        border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
      th { color: var(--soft); font-weight: 400; width: 200px; }
      table.samples th { width: 90px; }
      td.text { white-space: pre-wrap; }
      """;

  public Page {
    metrics = List.copyOf(metrics);
    samples = List.copyOf(samples);
  }

  /** The page's text. */
  public String html() {
    StringBuilder html = new StringBuilder();
    html.append("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.append(
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    html.append(escaped(title)).append("</title>\n<style>\n").append(STYLE);
    html.append("</style>\n</head>\n<body>\n<h1>").append(escaped(title)).append("</h1>\n");
    html.append("<dl class=\"facts\">\n");
    facts.forEach(
        (name, value) ->
            html.append(
                "<div><dt>%s</dt><dd>%s</dd></div>\n".formatted(escaped(name), escaped(value))));
    html.append("</dl>\n<div class=\"charts\">\n");
    charts(html);
    html.append("</div>\n");
    samples(html);
    table(html, "Data", data);
    table(html, "Options", options);
    return html.append("</body>\n</html>\n").toString();
  }

  private void charts(StringBuilder html) {
    List<Chart.Point> losses = new ArrayList<>();
    List<Chart.Point> smooth = new ArrayList<>();
    List<Chart.Point> evaluations = new ArrayList<>();
    List<Chart.Point> rates = new ArrayList<>();
    List<Chart.Point> norms = new ArrayList<>();
    List<Chart.Point> speeds = new ArrayList<>();
    List<Chart.Point> memory = new ArrayList<>();
    double past = 0;
    double weight = 0;
    for (StepMetrics each : metrics) {
      int step = each.step();
      if (each.memory() > 0) {
        memory.add(new Chart.Point(step, each.memory() / 0x1p30));
      }
      if (each.evaluation().isPresent()) {
        evaluations.add(new Chart.Point(step, each.evaluation().getAsDouble()));
      }
      if (step == 0) {
        continue;
      }
      rates.add(new Chart.Point(step, each.rate()));
      norms.add(new Chart.Point(step, each.norm()));
      speeds.add(new Chart.Point(step, each.tokensPerSecond()));
      if (each.skipped() == null) {
        losses.add(new Chart.Point(step, each.loss()));
        past = SMOOTHING * past + (1 - SMOOTHING) * each.loss();
        weight = SMOOTHING * weight + (1 - SMOOTHING);
        smooth.add(new Chart.Point(step, past / weight));
      }
    }
    html.append(
        Chart.of(
            "Loss",
            false,
            List.of(
                new Chart.Curve("each step", "raw", false, losses),
                new Chart.Curve("smoothed", "one", false, smooth),
                new Chart.Curve("evaluation", "two", true, evaluations))));
    html.append(chart("Learning rate", true, rates));
    html.append(chart("Memory, GiB", true, memory));
    html.append(chart("Tokens per second", true, speeds));
    html.append(chart("Norm of the gradient, before clipping", true, norms));
  }

  private static String chart(String title, boolean zero, List<Chart.Point> points) {
    return Chart.of(title, zero, List.of(new Chart.Curve(title, "one", false, points)));
  }

  private void samples(StringBuilder html) {
    if (samples.isEmpty()) {
      return;
    }
    Map<String, List<Answer>> byPrompt = new LinkedHashMap<>();
    for (Answer answer : samples) {
      byPrompt.computeIfAbsent(answer.prompt(), _ -> new ArrayList<>()).add(answer);
    }
    html.append("<h2>Samples</h2>\n");
    byPrompt.forEach(
        (prompt, answers) -> {
          html.append("<h3>").append(escaped(prompt)).append("</h3>\n<table class=\"samples\">\n");
          for (Answer answer : answers) {
            html.append(
                String.format(
                    Locale.ROOT,
                    "<tr><th>step %d</th><td class=\"text\">%s</td></tr>\n",
                    answer.step(),
                    escaped(answer.answer())));
          }
          html.append("</table>\n");
        });
  }

  private static void table(StringBuilder html, String title, Map<String, String> rows) {
    if (rows.isEmpty()) {
      return;
    }
    html.append("<h2>").append(title).append("</h2>\n<table>\n");
    rows.forEach(
        (name, value) ->
            html.append(
                "<tr><th>%s</th><td class=\"text\">%s</td></tr>\n"
                    .formatted(escaped(name), escaped(value))));
    html.append("</table>\n");
  }

  /** Text that stands for itself in HTML; characters that no page may have become U+FFFD. */
  static String escaped(String text) {
    StringBuilder escaped = new StringBuilder(text.length());
    text.codePoints()
        .forEach(
            c -> {
              switch (c) {
                case '&' -> escaped.append("&amp;");
                case '<' -> escaped.append("&lt;");
                case '>' -> escaped.append("&gt;");
                case '"' -> escaped.append("&quot;");
                default -> {
                  boolean control = Character.isISOControl(c) && c != '\n' && c != '\t';
                  boolean half = c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE;
                  escaped.appendCodePoint(control || half ? 0xfffd : c);
                }
              }
            });
    return escaped.toString();
  }
}
