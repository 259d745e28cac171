package dev.wardrobe.client.load;

import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.StepRecord;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a server says of itself over a run, and the system of it.
 *
 * @param steps that it took
 * @param meanSequences in those of the steps that it still remembers, as the next two
 * @param meanAdapters different ones in a step; the base counts as one
 * @param p99StepMillis which 99 % of the steps do not exceed
 * @param adapterBytes that adapters take in the end
 * @param residentBytes of the process in the end, or -1 where nobody says
 * @param residentGrowth by how much they have grown
 * @param readBytes that the process had to read from the disk, because the page cache did not have
 *     them; -1 where nobody says
 */
public record ServerSeen(
    long steps,
    double meanSequences,
    double meanAdapters,
    double p99StepMillis,
    long adapterBytes,
    long residentBytes,
    long residentGrowth,
    long readBytes) {

  /** A look at a server's counters. */
  record Look(long steps, long adapterBytes, long residentBytes, long readBytes) {
    static Look at(Connection connection, @Nullable ProcessHandle process) {
      ModelInfoResponse info = connection.modelInfo();
      return new Look(
          info.getSteps(),
          info.getMemory().getAdapters(),
          process == null ? -1 : status(process, "VmRSS:"),
          process == null ? -1 : number(process, "io", "read_bytes:"));
    }
  }

  static ServerSeen between(Look before, Look after, List<StepRecord> recorded) {
    double sequences = 0;
    double adapters = 0;
    Samples durations = new Samples();
    for (StepRecord step : recorded) {
      sequences += step.getSequences();
      adapters += step.getAdapters();
      durations.add(step.getDurationUs() * 1000);
    }
    return new ServerSeen(
        after.steps - before.steps,
        sequences / recorded.size(),
        adapters / recorded.size(),
        durations.millis(0.99),
        after.adapterBytes,
        after.residentBytes,
        after.residentBytes - before.residentBytes,
        after.readBytes < 0 || before.readBytes < 0 ? -1 : after.readBytes - before.readBytes);
  }

  /** Resident bytes of a process, or -1 where nobody says. */
  static long resident(ProcessHandle process) {
    return status(process, "VmRSS:");
  }

  private static long status(ProcessHandle process, String field) {
    long kibibytes = number(process, "status", field);
    return kibibytes < 0 ? -1 : kibibytes << 10;
  }

  private static long number(ProcessHandle process, String file, String field) {
    Path path = Path.of("/proc", Long.toString(process.pid()), file);
    try {
      for (String line : Files.readAllLines(path, StandardCharsets.US_ASCII)) {
        if (line.startsWith(field)) {
          return Long.parseLong(line.substring(field.length()).replace("kB", "").strip());
        }
      }
    } catch (IOException | NumberFormatException e) {
      // Nobody says.
    }
    return -1;
  }
}
