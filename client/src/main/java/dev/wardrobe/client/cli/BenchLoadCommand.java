package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.client.load.Load;
import dev.wardrobe.client.load.LoadCase;
import dev.wardrobe.client.load.LoadJson;
import dev.wardrobe.client.load.LoadPlot;
import dev.wardrobe.client.load.LoadResult;
import dev.wardrobe.client.load.LoadRun;
import dev.wardrobe.client.load.LoadTable;
import dev.wardrobe.v1.ModelInfoResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench load}: throughput and latencies of a server, through gRPC. */
@Command(
    name = "load",
    description = {
      "Asks a server for answers to random prompts and measures throughput, the time to the first"
          + " token and",
      "that between tokens. Several cases take turns, so that their ratios come from one run."
    },
    footer = {
      "",
      "Such as, for 32 streams on 32 adapters beside 32 on the base:",
      "  wardrobe bench adapters --out /tmp/set --count 32",
      "  wardrobe bench load --serve '--adapter-root /tmp/set' --streams 32 --case base \\",
      "    --case 'adapters --adapters a{0000..0031} --pick each'",
      "",
      "Exit code 1 if a request failed otherwise than by being refused for want of room or time."
    },
    mixinStandardHelpOptions = true)
final class BenchLoadCommand implements Callable<Integer> {
  /** Failures that a server under load may choose. */
  private static final Set<String> REFUSALS = Set.of("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED");

  /** As {@code --json}'s value. */
  private static final Path STDOUT = Path.of("-");

  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;
  @Mixin private CaseOptions common;

  @Option(
      names = "--case",
      paramLabel = "'NAME OPTIONS'",
      description =
          "A case: a name, and what of --adapters to --serve is different for it. May be repeated."
              + " Default: one case of those options.")
  private List<String> cases = new ArrayList<>();

  @Option(
      names = "--against",
      paramLabel = "NAME",
      description = "The case that the others are compared with. Default: the first.")
  private @Nullable String against;

  @Option(
      names = "--rounds",
      paramLabel = "N",
      defaultValue = "3",
      description = "Runs of each case, in turn; every other round goes backwards. Default: 3.")
  private int rounds = 3;

  @Option(
      names = "--retries",
      paramLabel = "N",
      defaultValue = "2",
      description =
          "Most further runs in a round in place of one of which others took more than 6 %% of the"
              + " machine. Default: ${DEFAULT-VALUE}.")
  private int retries = 2;

  @Option(
      names = "--seconds",
      paramLabel = "X",
      defaultValue = "10",
      description = "How long a run is measured. Default: ${DEFAULT-VALUE}.")
  private double seconds = 10;

  @Option(
      names = "--ramp",
      paramLabel = "SECONDS",
      defaultValue = "2",
      description = "How long each run goes on before it is measured. Default: ${DEFAULT-VALUE}.")
  private double ramp = 2;

  @Option(
      names = "--requests",
      paramLabel = "N",
      defaultValue = "0",
      description = "So many requests a run instead, measured from the first to the last.")
  private long requests;

  @Option(
      names = "--warm-up",
      paramLabel = "SECONDS",
      defaultValue = "3",
      description = "How long each case runs once before all. Default: ${DEFAULT-VALUE}.")
  private double warmUp = 3;

  @Option(
      names = "--touch",
      description = "Ask each adapter for one token before all, so that each has been loaded once.")
  private boolean touch;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of prompts, lengths, arrivals and choices. Default: ${DEFAULT-VALUE}.")
  private long seed = 1;

  @Option(
      names = "--connections",
      paramLabel = "N",
      defaultValue = "1",
      description = "To a server, between which the streams are divided. Default: 1.")
  private int connections = 1;

  @Option(
      names = "--server-pid",
      paramLabel = "N",
      description = "The process of --server on this machine, to tell its work from others'.")
  private @Nullable Long pid;

  @Option(
      names = "--json",
      paramLabel = "FILE",
      description = "Write all figures there; - is standard output, with all else on the other.")
  private @Nullable Path json;

  @Option(names = "--plot", paramLabel = "FILE", description = "Draw them there, as SVG.")
  private @Nullable Path plot;

  @Option(names = "--title", paramLabel = "TEXT", description = "Of the plot.")
  private @Nullable String title;

  /** A case and the server that it runs against. */
  private record Planned(LoadCase plan, @Nullable String serve) {}

  @Override
  public Integer call() throws IOException, InterruptedException {
    List<Planned> planned;
    try {
      planned = planned();
      CaseOptions.within("--rounds", rounds, 1, 1000);
      CaseOptions.within("--retries", retries, 0, 1000);
      CaseOptions.within("--seconds", seconds, 0.1, 86_400);
      CaseOptions.within("--ramp", ramp, 0, 3600);
      CaseOptions.within("--requests", (double) requests, 0, 1e9);
      CaseOptions.within("--warm-up", warmUp, 0, 3600);
      CaseOptions.within("--connections", connections, 1, 1000);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), String.valueOf(e.getMessage()), e);
    }
    PrintWriter out =
        STDOUT.equals(json) ? spec.commandLine().getErr() : spec.commandLine().getOut();
    try (Servers servers = new Servers(server, pid, connections)) {
      List<Load> loads = new ArrayList<>();
      List<LoadResult> results = new ArrayList<>();
      for (int i = 0; i < planned.size(); i++) {
        LoadCase plan = planned.get(i).plan();
        Servers.Server at = servers.get(planned.get(i).serve());
        int vocabulary = at.connection().modelInfo().getVocabularySize();
        // Of its own for each case: no prompt is another case's, which a prefix cache might know.
        loads.add(new Load(plan, at.connection(), at.process(), vocabulary, seed * 1_000_003 + i));
        results.add(new LoadResult(plan));
      }
      ModelInfoResponse info = servers.get(planned.getFirst().serve()).connection().modelInfo();
      out.printf("%s on %s%n", info.getModel(), info.getBackend());
      out.flush();
      ProgressBar progress =
          new ProgressBar(
              spec.commandLine().getErr(), Terminal.err() && !STDOUT.equals(json), "measuring");
      prepare(loads, progress);
      LoadResult reference =
          results.stream()
              .filter(result -> result.of().name().equals(against))
              .findFirst()
              .orElse(results.getFirst());
      try (progress) {
        measure(loads, results, out, progress);
      }
      LoadTable.all(out, results, reference);
      if (json != null) {
        String figures =
            new ObjectMapper()
                .writerWithDefaultPrettyPrinter()
                .writeValueAsString(LoadJson.of(info, seed, results, reference));
        if (STDOUT.equals(json)) {
          spec.commandLine().getOut().println(figures);
          spec.commandLine().getOut().flush();
        } else {
          Files.writeString(json, figures + "\n");
        }
      }
      if (plot != null) {
        String head = title != null ? title : info.getModel() + " under load";
        Files.writeString(plot, LoadPlot.of(head, results));
      }
      servers.stop();
      return results.stream().allMatch(r -> REFUSALS.containsAll(r.errors().keySet())) ? 0 : 1;
    }
  }

  private List<Planned> planned() {
    List<Planned> planned = new ArrayList<>();
    if (cases.isEmpty()) {
      planned.add(new Planned(common.named("load"), common.serve()));
    }
    ParseResult given = spec.commandLine().getParseResult();
    Set<String> names = new HashSet<>();
    for (String text : cases) {
      List<String> words = Words.of(text);
      if (words.isEmpty() || words.getFirst().startsWith("-")) {
        throw new IllegalArgumentException(
            "--case: expected a name and then options, got '%s'".formatted(text));
      }
      if (!names.add(words.getFirst())) {
        throw new IllegalArgumentException(
            "--case: '%s' is given twice; choose two names".formatted(words.getFirst()));
      }
      CaseOptions options = new CaseOptions();
      try {
        new CommandLine(options)
            .setDefaultValueProvider(
                argument ->
                    argument instanceof OptionSpec option
                            && given.hasMatchedOption(option.longestName())
                        ? given.matchedOption(option.longestName()).stringValues().getFirst()
                        : null)
            .parseArgs(words.subList(1, words.size()).toArray(String[]::new));
      } catch (ParameterException e) {
        throw new IllegalArgumentException("--case '%s': %s".formatted(text, e.getMessage()), e);
      }
      planned.add(new Planned(options.named(words.getFirst()), options.serve()));
    }
    if (against != null && planned.stream().noneMatch(p -> p.plan().name().equals(against))) {
      throw new IllegalArgumentException(
          "--against: expected a case's name, got '%s'".formatted(against));
    }
    return planned;
  }

  private void prepare(List<Load> loads, ProgressBar progress) throws InterruptedException {
    for (Load load : loads) {
      if (touch) {
        progress.step(0, rounds * loads.size(), "asking each adapter of " + load.plan().name());
        Set<String> names = new TreeSet<>(load.plan().mix().names());
        names.remove("");
        load.touch(List.copyOf(names), load.plan().streams());
      }
    }
    for (Load load : loads) {
      if (warmUp > 0) {
        progress.step(0, rounds * loads.size(), "warming up " + load.plan().name());
        load.run(0, warmUp, 0);
      }
    }
  }

  private void measure(
      List<Load> loads, List<LoadResult> results, PrintWriter out, ProgressBar progress)
      throws InterruptedException {
    for (int round = 0; round < rounds; round++) {
      for (int i = 0; i < loads.size(); i++) {
        int at = round % 2 == 0 ? i : loads.size() - 1 - i;
        for (int attempt = 0; attempt <= retries; attempt++) {
          progress.step(
              round * loads.size() + i, rounds * loads.size(), loads.get(at).plan().name());
          LoadRun run = loads.get(at).run(ramp, seconds, requests);
          results.get(at).add(round, run);
          progress.clear();
          LoadTable.run(out, round, run);
          if (run.undisturbed()) {
            break;
          }
        }
      }
    }
  }
}
