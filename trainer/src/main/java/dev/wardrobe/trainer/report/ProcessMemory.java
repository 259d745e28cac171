package dev.wardrobe.trainer.report;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * What the process has in memory, as Linux counts it.
 *
 * @param resident bytes now, or 0 where the system does not say
 * @param peak most bytes so far, or 0
 */
public record ProcessMemory(long resident, long peak) {

  /** As it is now. */
  public static ProcessMemory now() {
    long resident = 0;
    long peak = 0;
    try {
      for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
        if (line.startsWith("VmRSS:")) {
          resident = kib(line);
        } else if (line.startsWith("VmHWM:")) {
          peak = kib(line);
        }
      }
    } catch (IOException e) {
      // Another system than Linux.
    }
    return new ProcessMemory(resident, peak);
  }

  private static long kib(String line) {
    long value = 0;
    for (int i = 0; i < line.length(); i++) {
      int digit = line.charAt(i) - '0';
      value = digit >= 0 && digit <= 9 ? value * 10 + digit : value;
    }
    return value << 10;
  }
}
