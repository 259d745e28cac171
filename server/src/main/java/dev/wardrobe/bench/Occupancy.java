package dev.wardrobe.bench;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/**
 * A look at the processors' clocks: how long they were busy, and how much of that was ours. Two of
 * them say what others took in between, the hypervisor ("steal") among them.
 *
 * @param nanos {@link System#nanoTime}
 * @param busy seconds that all processors together were not idle, or NaN where nobody says
 * @param own seconds of them that this process had
 */
record Occupancy(long nanos, double busy, double own) {
  private static final Path CLOCKS = Path.of("/proc/stat");

  /** Linux counts in hundredths of a second here, whatever its own tick. */
  private static final double TICK = 0.01;

  static Occupancy now() {
    return new Occupancy(System.nanoTime(), busySeconds(), ownSeconds());
  }

  /** Share of the machine, 0 to 1, that others have taken since; NaN where nobody says. */
  double others() {
    Occupancy now = now();
    double seconds = (now.nanos - nanos) / 1e9 * Runtime.getRuntime().availableProcessors();
    return Math.max(0, (now.busy - busy - (now.own - own)) / seconds);
  }

  private static double busySeconds() {
    try (Stream<String> lines = Files.lines(CLOCKS)) {
      return busySeconds(lines.findFirst().orElse(""));
    } catch (IOException e) {
      return Double.NaN;
    }
  }

  /** Of a line {@code cpu user nice system idle iowait irq softirq steal guest ...}, in ticks. */
  static double busySeconds(String line) {
    String[] words = line.split(" +");
    if (words.length < 9 || !words[0].equals("cpu")) {
      return Double.NaN;
    }
    double ticks = 0;
    for (int i : new int[] {1, 2, 3, 6, 7, 8}) {
      ticks += Long.parseLong(words[i]);
    }
    return ticks * TICK;
  }

  private static double ownSeconds() {
    return ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
        ? system.getProcessCpuTime() / 1e9
        : Double.NaN;
  }
}
