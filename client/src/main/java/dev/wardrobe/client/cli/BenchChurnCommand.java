package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.client.load.CanarySet;
import dev.wardrobe.client.load.Churn;
import dev.wardrobe.client.load.ChurnException;
import dev.wardrobe.client.load.ChurnOptions;
import dev.wardrobe.client.load.ChurnReport;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench churn}: sees that answers stay right while adapters come and go. */
@Command(
    name = "churn",
    description = {
      "Many short requests for many adapters, while adapters are published, rolled back, bound"
          + " anew, evicted,",
      "unloaded and deleted at random. Each answer is compared with what the digest that it names"
          + " answered",
      "alone, before."
    },
    footer = {
      "",
      "  wardrobe bench adapters --canaries --count 300 --out /tmp/canaries",
      "  wardrobe bench churn --set /tmp/canaries --serve '--adapter-root /tmp/canaries --store"
          + " /tmp/store'",
      "",
      "Exit code 0 if nothing was wrong, nothing lost, and memory flat."
    },
    mixinStandardHelpOptions = true)
final class BenchChurnCommand implements Callable<Integer> {
  /** As {@code --json}'s value. */
  private static final Path STDOUT = Path.of("-");

  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;

  @Option(
      names = "--set",
      paramLabel = "DIR",
      required = true,
      description =
          "Canaries that 'wardrobe bench adapters --canaries' made, under an --adapter-root of the"
              + " server.")
  private Path folder;

  @Option(
      names = "--serve",
      paramLabel = "ARGUMENTS",
      description = "Start a server with these arguments. Default: the one that --server names.")
  private @Nullable String serve;

  @Option(
      names = "--server-pid",
      paramLabel = "N",
      description = "The process of --server on this machine, to watch its memory.")
  private @Nullable Long pid;

  @Option(
      names = "--requests",
      paramLabel = "N",
      defaultValue = "100000",
      description = "In all. Default: ${DEFAULT-VALUE}.")
  private long requests = 100_000;

  @Option(
      names = "--streams",
      paramLabel = "N",
      defaultValue = "32",
      description = "Requests at a time. Default: ${DEFAULT-VALUE}.")
  private int streams = 32;

  @Option(
      names = "--published",
      paramLabel = "N",
      defaultValue = "50",
      description =
          "Names in the store, besides those under the root; 0 to leave the store alone. Default:"
              + " ${DEFAULT-VALUE}.")
  private int published = 50;

  @Option(
      names = "--cancelled",
      paramLabel = "PERCENT",
      defaultValue = "2",
      description = "Of the requests, how many are cancelled in the middle. Default: 2.")
  private int cancelled = 2;

  @Option(
      names = "--pause-ms",
      paramLabel = "N",
      defaultValue = "5",
      description = "Between two changes. Default: ${DEFAULT-VALUE}.")
  private long pause = 5;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of everything that is drawn. Default: ${DEFAULT-VALUE}.")
  private long seed = 1;

  @Option(
      names = "--json",
      paramLabel = "FILE",
      description = "Write all figures there; - is standard output, with all else on the other.")
  private @Nullable Path json;

  @Override
  public Integer call() throws IOException, ChurnException, InterruptedException {
    try {
      CaseOptions.within("--requests", (double) requests, 1, 1e9);
      CaseOptions.within("--streams", streams, 1, 10_000);
      CaseOptions.within("--published", published, 0, 10_000);
      CaseOptions.within("--cancelled", cancelled, 0, 100);
      CaseOptions.within("--pause-ms", (double) pause, 0, 60_000);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), String.valueOf(e.getMessage()), e);
    }
    CanarySet set = CanarySet.read(folder);
    PrintWriter out =
        STDOUT.equals(json) ? spec.commandLine().getErr() : spec.commandLine().getOut();
    try (Servers servers = new Servers(server, pid, 1)) {
      Servers.Server at = servers.get(serve);
      ChurnOptions options =
          new ChurnOptions(set.count(), published, requests, streams, cancelled, pause, seed);
      ChurnReport report =
          new Churn(at.connection(), at.process(), set, options, line -> print(out, "  %s", line))
              .run();
      print(out, report);
      if (json != null) {
        String figures =
            new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(tree(report));
        if (STDOUT.equals(json)) {
          spec.commandLine().getOut().println(figures);
          spec.commandLine().getOut().flush();
        } else {
          Files.writeString(json, figures + "\n");
        }
      }
      servers.stop();
      return report.passed() ? 0 : 1;
    }
  }

  private static void print(PrintWriter out, ChurnReport report) {
    print(
        out,
        "%d answers right, %d refused as they should be, %d cancelled, %d asked again for want of"
            + " room, in %.1f s",
        report.right(),
        report.refused(),
        report.cancelled(),
        report.retried(),
        report.seconds());
    print(out, "%d answers waited for their adapter", report.swapIns());
    print(out, "changes: %s", new TreeMap<>(report.changes()));
    findings(out, "wrong", report.wrong());
    findings(out, "lost", report.lost());
    findings(out, "failed changes", report.failedChanges());
    print(
        out,
        "left in the server: %s",
        report.leftovers().isEmpty() ? "nothing" : String.join("; ", report.leftovers()));
    if (report.memoryWatched()) {
      print(
          out,
          "resident memory: %,d bytes after the first third, %,d at the end: %s",
          report.residentEarly(),
          report.residentLate(),
          report.memoryFlat() ? "flat" : "IT HAS GROWN");
    } else {
      print(out, "resident memory: not watched, or not for long enough");
    }
    print(out, report.passed() ? "passed" : "FAILED");
  }

  private static void findings(PrintWriter out, String what, ChurnReport.Findings findings) {
    print(out, "%s: %d", what, findings.count());
    findings.first().forEach(each -> print(out, "  %s", each));
  }

  private static ObjectNode tree(ChurnReport report) {
    ObjectNode root = new ObjectMapper().createObjectNode();
    root.put("passed", report.passed());
    root.put("right", report.right());
    root.put("refused", report.refused());
    root.put("cancelled", report.cancelled());
    root.put("retried", report.retried());
    root.put("wrong", report.wrong().count());
    root.put("lost", report.lost().count());
    root.put("failed_changes", report.failedChanges().count());
    ObjectNode changes = root.putObject("changes");
    new TreeMap<>(report.changes()).forEach(changes::put);
    root.put("swap_ins", report.swapIns());
    root.put("seconds", report.seconds());
    report.residentBytes().forEach(root.putArray("resident_bytes")::add);
    report.leftovers().forEach(root.putArray("leftovers")::add);
    root.put("memory_flat", report.memoryFlat());
    return root;
  }

  @FormatMethod
  private static void print(PrintWriter out, String format, Object... arguments) {
    out.println(String.format(Locale.ROOT, format, arguments));
    out.flush();
  }
}
