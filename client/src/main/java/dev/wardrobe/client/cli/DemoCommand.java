package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.MemoryUse;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.StepRecord;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** The main job on the embedded model, from start to a clean stop. */
@Command(
    name = "demo",
    description = {
      "Starts a server on the embedded model, asks the base and three adapters the same question",
      "in one batch, swaps a further adapter in while a stream runs, trains a new one, publishes"
          + " it",
      "to the running server, and stops it again."
    },
    mixinStandardHelpOptions = true)
final class DemoCommand implements Callable<Integer> {
  /** How often the same question is asked, until one step held all of its answers. */
  private static final int ATTEMPTS = 20;

  private static final int LINE = 110;

  @Spec private CommandSpec spec;

  @Option(names = "--json", description = "Print what was seen as one JSON document, nothing else.")
  private boolean json;

  @Override
  public Integer call() throws IOException, DemoException {
    String home = System.getProperty("wardrobe.home");
    if (home == null) {
      throw new DemoException(
          "the demo needs the launcher (deploy/wardrobe), which sets wardrobe.home; start it with"
              + " 'deploy/wardrobe demo'");
    }
    PrintWriter out = json ? new PrintWriter(Writer.nullWriter()) : spec.commandLine().getOut();
    out.println("Starting a server on the embedded model ...");
    out.flush();
    Path folder = Files.createTempDirectory("wardrobe-demo");
    try {
      run(Path.of(home), folder, out);
    } finally {
      ChildServer.delete(folder);
    }
    return 0;
  }

  private void run(Path home, Path folder, PrintWriter out) throws IOException, DemoException {
    Path adapters = home.resolve("models/demo/adapters");
    try (ChildServer server =
        ChildServer.start(
            home.resolve("wardrobe"),
            List.of(
                "--adapter-root",
                adapters.toString(),
                "--store",
                folder.resolve("store").toString()))) {
      DemoReport report;
      try (WardrobeClient client = WardrobeClient.connect(server.target())) {
        report =
            run(server, client, new DemoTraining(home, folder.resolve(DemoTraining.NAME)), out);
      }
      int exit = server.stop();
      if (exit != 0) {
        throw new DemoException("the server's exit code after SIGTERM: expected 0, got " + exit);
      }
      out.println();
      out.println("The server stopped cleanly.");
      out.flush();
      if (json) {
        PrintWriter document = spec.commandLine().getOut();
        document.println(
            new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(report));
        document.flush();
      }
    }
  }

  private DemoReport run(
      ChildServer server, WardrobeClient client, DemoTraining training, PrintWriter out)
      throws IOException, DemoException {
    ModelInfoResponse info = client.modelInfo();
    double startUp = server.startUp().toNanos() / 1e6;
    print(
        out,
        "Ready on %s after %.1f s: %s, %,d parameters, %s%s, on %s.",
        server.target(),
        startUp / 1000,
        info.getModel(),
        info.getParameters(),
        info.getQuantization().toUpperCase(Locale.ROOT),
        info.getDoubleQuantization() ? " with double quantization" : "",
        info.getBackend());

    Demo demo = new Demo(client);
    List<DemoReport.Loaded> loaded = new ArrayList<>();
    print(out, "");
    for (String name : Demo.TOGETHER) {
      DemoReport.Loaded adapter = demo.load(name);
      loaded.add(adapter);
      print(
          out,
          "Loaded %-7s %-6s rank %2d  %s  in %5.1f ms",
          adapter.name(),
          adapter.kind(),
          adapter.rank(),
          brief(adapter.digest()),
          adapter.loadMs());
    }

    print(out, "");
    print(out, "The same question to all four at once: %s", Demo.QUESTION);
    print(out, "");
    long lastStep = lastStep(client);
    long began = System.nanoTime();
    LiveColumns live = new LiveColumns(out, !json && Terminal.attached(), LINE);
    List<RunningAnswer> running = demo.ask(live::changed);
    List<DemoReport.Answer> answers = new ArrayList<>();
    live.show(running);
    for (RunningAnswer answer : running) {
      answers.add(Demo.answer(answer));
    }
    long wall = System.nanoTime() - began;
    live.finish(running);
    // Short answers may miss one another: they are then asked for again, and are the same.
    for (int i = 1; i < ATTEMPTS && !demo.together(lastStep); i++) {
      lastStep = lastStep(client);
      began = System.nanoTime();
      answers.clear();
      for (RunningAnswer answer : demo.ask(() -> {})) {
        answers.add(Demo.answer(answer));
      }
      wall = System.nanoTime() - began;
    }
    DemoReport.BatchSeen batch = demo.batch(lastStep, answers, wall);
    print(out, "");
    print(
        out,
        "One batch: %d steps; the fullest held %d sequences on %d outfits (the base is one)."
            + " %.0f tokens/s together.",
        batch.steps().size(),
        batch.maxSequences(),
        batch.maxAdapters(),
        batch.tokensPerSecond());

    print(out, "");
    print(out, "Swapping %s in while a stream of the base runs ...", Demo.SWAPPED_IN);
    DemoReport.Swap swap = demo.swap();
    print(
        out,
        "  %s (%s, rank %d, %s) was loaded in %.1f ms and answered:",
        swap.adapter().name(),
        swap.adapter().kind(),
        swap.adapter().rank(),
        brief(swap.adapter().digest()),
        swap.adapter().loadMs());
    print(out, "  %s", swap.answer().text());
    print(
        out,
        "  The stream went on: %d tokens, a pause of %.1f ms between them in the median, %.1f ms at"
            + " the longest during the swap;",
        swap.streamTokens(),
        swap.medianGapMs(),
        swap.longestGapMs());
    print(
        out,
        "  its tokens are the same as without the swap. Alone it makes %.0f tokens/s.",
        swap.aloneTokensPerSecond());

    print(out, "");
    print(out, "Training an outfit of formal letters, which the base never writes:");
    print(out, "  %s", String.join(" ", training.command()));
    DemoReport.Training trained = training.run(client, answers.getFirst().text(), !json);
    print(
        out,
        "  %d steps, loss %.2f to %.2f, in %.1f s with start and end; published to the running"
            + " server in %.1f ms (%s).",
        trained.steps(),
        trained.firstLoss(),
        trained.lastLoss(),
        trained.seconds(),
        trained.publishMs(),
        brief(trained.digest()));
    print(out, "  Before: %s", trained.before());
    print(out, "  After:  %s", trained.after());
    print(
        out,
        "  Of %d conversations that it never saw, %d answers are the reference's word for word.",
        trained.heldOut(),
        trained.wordForWord());

    MemoryUse memory = client.modelInfo().getMemory();
    print(out, "");
    print(out, "Where each byte is:");
    MemoryTable.lines(memory).forEach(line -> print(out, "  %s", line));
    return new DemoReport(
        new DemoReport.Server(info.getModel(), info.getQuantization(), info.getBackend(), startUp),
        loaded,
        Demo.SYSTEM,
        Demo.QUESTION,
        answers,
        batch,
        swap,
        trained,
        Demo.memory(memory),
        0);
  }

  private static long lastStep(WardrobeClient client) {
    long last = 0;
    for (StepRecord step : client.steps(0)) {
      last = Math.max(last, step.getNumber());
    }
    return last;
  }

  private static String brief(String digest) {
    return digest.length() > 19 ? digest.substring(0, 19) : digest;
  }

  @FormatMethod
  private static void print(PrintWriter out, String format, Object... arguments) {
    out.println(String.format(Locale.ROOT, format, arguments));
    out.flush();
  }
}
