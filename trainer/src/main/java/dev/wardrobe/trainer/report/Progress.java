package dev.wardrobe.trainer.report;

import java.io.PrintWriter;
import java.util.Locale;

/**
 * How far a run is: one line that is written anew at each step where a person watches, else a line
 * now and then.
 */
public final class Progress {
  private static final int BAR = 12;

  /** So wide is a terminal at least. */
  private static final int COLUMNS = 79;

  private static final String ERASE = "\r\033[K";

  private final PrintWriter out;
  private final boolean live;
  private final boolean coloured;
  private final int every;
  private final int steps;
  private final int first;
  private final long began;

  // Of the steps since the last line.
  private double losses;
  private long counted;
  private boolean drawn;

  /**
   * @param live whether {@code out} is a terminal
   * @param coloured whether it may be written to in colours
   * @param every steps between lines where it is none
   * @param steps of the whole run
   * @param first how many were made before
   * @param nanos {@link System#nanoTime} at the beginning
   */
  public Progress(
      PrintWriter out,
      boolean live,
      boolean coloured,
      int every,
      int steps,
      int first,
      long nanos) {
    this.out = out;
    this.live = live;
    this.coloured = coloured;
    this.every = every;
    this.steps = steps;
    this.first = first;
    this.began = nanos;
  }

  /**
   * Tells of a step.
   *
   * @param nanos {@link System#nanoTime} now
   */
  public void step(StepMetrics step, long nanos) {
    if (step.skipped() == null) {
      losses += step.loss();
      counted++;
    }
    long done = (long) step.step() - first;
    long left =
        done > 0 ? (nanos - began) / done * ((long) steps - step.step()) / 1_000_000_000 : 0;
    if (live) {
      draw(step, left);
    } else if (step.step() % every == 0 || step.step() == steps) {
      out.printf(
          Locale.ROOT,
          "step %d/%d  %s  lr %.3g  norm %.3g  %s tokens/s%s  %s left%n",
          step.step(),
          steps,
          counted == 0 ? "loss -" : String.format(Locale.ROOT, "loss %.4f", losses / counted),
          step.rate(),
          step.norm(),
          rate(step.tokensPerSecond()),
          step.memory() > 0 ? "  " + gib(step.memory()) : "",
          clock(left));
      out.flush();
      losses = 0;
      counted = 0;
    }
  }

  private void draw(StepMetrics step, long left) {
    int full = (int) ((long) BAR * step.step() / Math.max(steps, 1));
    String bar = "━".repeat(full);
    String rest = "━".repeat(BAR - full);
    if (coloured) {
      bar = "\033[32m" + bar + "\033[90m" + rest + "\033[0m";
    } else {
      bar += " ".repeat(BAR - full);
    }
    String text =
        String.format(
            Locale.ROOT,
            " %d/%d  loss %.4f  lr %.2g  %s tok/s%s  %s left",
            step.step(),
            steps,
            step.loss(),
            step.rate(),
            rate(step.tokensPerSecond()),
            step.memory() > 0 ? "  " + gib(step.memory()) : "",
            clock(left));
    out.print(ERASE + bar + text.substring(0, Math.min(text.length(), COLUMNS - BAR)));
    out.flush();
    drawn = true;
  }

  /** Writes a line of its own, whatever stands there. */
  public void say(String line) {
    clear();
    out.println(line);
    out.flush();
  }

  /** What is done while no step is: shown where a person watches, else not at all. */
  public void meanwhile(String what) {
    if (live) {
      out.print(ERASE + what);
      out.flush();
      drawn = true;
    }
  }

  /** Removes the line that is written anew. */
  public void clear() {
    if (drawn) {
      out.print(ERASE);
      out.flush();
      drawn = false;
    }
  }

  private static String rate(double tokens) {
    return String.format(Locale.ROOT, tokens < 100 ? "%.1f" : "%.0f", tokens);
  }

  /** Bytes as a person reads them. */
  public static String gib(long bytes) {
    if (bytes < 1L << 20) {
      return String.format(Locale.ROOT, "%.0f KiB", bytes / 0x1p10);
    }
    return bytes < 1L << 30
        ? String.format(Locale.ROOT, "%.0f MiB", bytes / 0x1p20)
        : String.format(Locale.ROOT, "%.2f GiB", bytes / 0x1p30);
  }

  /** Seconds as {@code 1:02:03} or {@code 2:03}. */
  public static String clock(long seconds) {
    return seconds < 3600
        ? String.format(Locale.ROOT, "%d:%02d", seconds / 60, seconds % 60)
        : String.format(
            Locale.ROOT, "%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }
}
