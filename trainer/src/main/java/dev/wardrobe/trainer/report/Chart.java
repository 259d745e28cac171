package dev.wardrobe.trainer.report;

import com.google.errorprone.annotations.FormatMethod;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Curves over a run's steps, as an SVG element whose colours are its page's. */
final class Chart {
  private static final int WIDTH = 520;
  private static final int HEIGHT = 240;
  private static final int LEFT = 58;
  private static final int RIGHT = 12;
  private static final int TOP = 10;
  private static final int BOTTOM = 30;

  /** More points than this are told by their means. */
  private static final int MOST_POINTS = 800;

  /** So many lines across. */
  private static final int LINES = 5;

  /**
   * A curve.
   *
   * @param style the page's class for it
   * @param dots whether its points are marked
   */
  record Curve(String name, String style, boolean dots, List<Point> points) {
    Curve {
      points = points.stream().filter(point -> Double.isFinite(point.y())).toList();
    }
  }

  /** A curve's value at a step. */
  record Point(double x, double y) {}

  private final StringBuilder svg = new StringBuilder();
  private final double left;
  private final double right;
  private final double low;
  private final double high;

  private Chart(double left, double right, double low, double high) {
    this.left = left;
    this.right = right;
    this.low = low;
    this.high = high;
  }

  /**
   * Draws curves; nothing, if they have no points.
   *
   * @param title what they show and in which unit
   * @param zero whether the axis begins at 0
   */
  static String of(String title, boolean zero, List<Curve> curves) {
    List<Curve> drawn = curves.stream().filter(curve -> !curve.points().isEmpty()).toList();
    if (drawn.isEmpty()) {
      return "";
    }
    double left = Double.MAX_VALUE;
    double right = -Double.MAX_VALUE;
    double low = zero ? 0 : Double.MAX_VALUE;
    double high = -Double.MAX_VALUE;
    for (Curve curve : drawn) {
      for (Point point : curve.points()) {
        left = Math.min(left, point.x());
        right = Math.max(right, point.x());
        low = Math.min(low, point.y());
        high = Math.max(high, point.y());
      }
    }
    if (high <= low) {
      double more = Math.max(Math.abs(high) * 0.05, 1e-9);
      low = zero ? 0 : low - more;
      high += more;
    }
    double step = tidy((high - low) / LINES);
    low = Math.floor(low / step) * step;
    high = Math.ceil(high / step) * step;
    Chart chart = new Chart(left, Math.max(right, left + 1), low, high);
    chart.draw(title, step, drawn);
    return chart.svg.toString();
  }

  /** The next larger of 1, 2, 5 and their tenfolds. */
  private static double tidy(double least) {
    // A power of ten by its text: the same on every machine.
    double power = Double.parseDouble("1e" + (int) Math.floor(StrictMath.log10(least)));
    for (double digit : new double[] {1, 2, 5}) {
      if (digit * power >= least) {
        return digit * power;
      }
    }
    return 10 * power;
  }

  private void draw(String title, double step, List<Curve> curves) {
    add("<figure><figcaption>%s", Page.escaped(title));
    if (curves.size() > 1) {
      add("<span class=\"legend\">");
      for (Curve curve : curves) {
        add(
            "<svg class=\"key\" viewBox=\"0 0 18 8\" aria-hidden=\"true\"><path class=\"%s\""
                + " d=\"M0 4H18\"/></svg>%s ",
            curve.style(), Page.escaped(curve.name()));
      }
      add("</span>");
    }
    add(
        "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">",
        WIDTH, HEIGHT, Page.escaped(title));
    int lines = (int) Math.round((high - low) / step);
    for (int i = 0; i <= lines; i++) {
      double value = low + i * step;
      double y = y(value);
      add("<path class=\"grid\" d=\"M%d %.1fH%d\"/>", LEFT, y, WIDTH - RIGHT);
      add("<text x=\"%d\" y=\"%.1f\" class=\"end\">%s</text>", LEFT - 6, y + 4, label(value, step));
    }
    double across = Math.max(1, tidy((right - left) / LINES));
    for (double value = Math.ceil(left / across) * across; value <= right; value += across) {
      add("<text x=\"%.1f\" y=\"%d\" class=\"middle\">%.0f</text>", x(value), HEIGHT - 15, value);
    }
    add("<text x=\"%d\" y=\"%d\" class=\"end\">step</text>", WIDTH - RIGHT, HEIGHT - 3);
    for (Curve curve : curves) {
      draw(curve);
    }
    add("</svg></figure>\n");
  }

  private void draw(Curve curve) {
    List<Point> points = fewer(curve.points());
    StringBuilder path = new StringBuilder();
    for (Point point : points) {
      path.append(path.isEmpty() ? 'M' : 'L')
          .append(String.format(Locale.ROOT, "%.1f %.1f", x(point.x()), y(point.y())));
    }
    add("<path class=\"%s\" d=\"%s\"/>", curve.style(), path);
    if (curve.dots() || points.size() == 1) {
      for (Point point : points) {
        add(
            "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"><title>step %.0f:"
                + " %.4g</title></circle>",
            curve.style(), x(point.x()), y(point.y()), point.x(), point.y());
      }
    }
  }

  private static List<Point> fewer(List<Point> points) {
    int together = (points.size() + MOST_POINTS - 1) / MOST_POINTS;
    if (together <= 1) {
      return points;
    }
    List<Point> means = new ArrayList<>();
    for (int from = 0; from < points.size(); from += together) {
      List<Point> some = points.subList(from, Math.min(points.size(), from + together));
      double x = 0;
      double y = 0;
      for (Point point : some) {
        x += point.x();
        y += point.y();
      }
      means.add(new Point(x / some.size(), y / some.size()));
    }
    return means;
  }

  private double x(double value) {
    return LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT);
  }

  private double y(double value) {
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
  }

  private static String label(double value, double step) {
    if (Math.abs(value) < step / 2) {
      return "0";
    }
    if (step < 1e-3 || step >= 1e6) {
      return String.format(Locale.ROOT, "%.1e", value).replace("e-0", "e-").replace("e+0", "e");
    }
    int digits = Math.max(0, (int) -Math.floor(StrictMath.log10(step) + 1e-9));
    return String.format(Locale.ROOT, "%,." + digits + "f", value);
  }

  @FormatMethod
  private void add(String format, Object... values) {
    svg.append(String.format(Locale.ROOT, format, values));
  }
}
