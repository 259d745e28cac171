package dev.wardrobe.client.load;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;

/**
 * A look at the processors' clocks: how long they were busy, and how much of that was the client's
 * and the server's. Two of them say what others took in between, the hypervisor among them.
 *
 * @param nanos {@link System#nanoTime}
 * @param busy seconds that all processors together were not idle, or NaN where nobody says
 * @param client seconds of them that this process had
 * @param server seconds of them that the servers had, or NaN where they are not known
 */
record Occupancy(long nanos, double busy, double client, double server) {
  private static final Path CLOCKS = Path.of("/proc/stat");

  /** Linux counts in hundredths of a second here, whatever its own tick. */
  private static final double TICK = 0.01;

  /**
   * @param servers processes that were started for the measurement, or empty if the server is not
   *     known
   */
  static Occupancy now(List<ProcessHandle> servers) {
    double server = servers.isEmpty() ? Double.NaN : 0;
    for (ProcessHandle each : servers) {
      server += seconds(each);
    }
    return new Occupancy(
        System.nanoTime(), busySeconds(), seconds(ProcessHandle.current()), server);
  }

  /** Shares of the machine between two looks. */
  record Shares(double client, double server, double others) {}

  /** Shares of the machine, 0 to 1, since; NaN where nobody says. */
  Shares until(Occupancy now) {
    double all = (now.nanos - nanos) / 1e9 * Runtime.getRuntime().availableProcessors();
    double mine = now.client - client;
    double theirs = now.server - server;
    return new Shares(mine / all, theirs / all, Math.max(0, now.busy - busy - mine - theirs) / all);
  }

  private static double seconds(ProcessHandle process) {
    return process.info().totalCpuDuration().map(Duration::toNanos).orElse(0L) / 1e9;
  }

  private static double busySeconds() {
    try (Stream<String> lines = Files.lines(CLOCKS, StandardCharsets.US_ASCII)) {
      return busySeconds(lines.findFirst().orElse(""));
    } catch (IOException e) {
      return Double.NaN;
    }
  }

  /** Of a line {@code cpu user nice system idle iowait irq softirq steal guest ...}, in ticks. */
  static double busySeconds(String line) {
    String[] words = line.split(" +", -1);
    if (words.length < 9 || !words[0].equals("cpu")) {
      return Double.NaN;
    }
    double ticks = 0;
    for (int i : new int[] {1, 2, 3, 6, 7, 8}) {
      ticks += Long.parseLong(words[i]);
    }
    return ticks * TICK;
  }
}
