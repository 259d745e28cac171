package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.FrontOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.spi.ServerContext;
import dev.wardrobe.spi.ServerExtension;
import dev.wardrobe.telemetry.AccessLog;
import dev.wardrobe.telemetry.Traces;
import io.grpc.BindableService;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.ServiceLoader;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Serves a base and its adapters over gRPC until it is told to stop. */
@Command(
    name = "serve",
    description = "Serve a base and its adapters over gRPC.",
    footer = {
      "",
      "Ready when it says so on standard output. SIGTERM and SIGINT stop it: no new requests,"
          + " running",
      "ones are finished within --drain-seconds, exit code 0."
    },
    mixinStandardHelpOptions = true)
final class ServeCommand implements Callable<Integer> {
  private static final Logger log = LoggerFactory.getLogger(ServeCommand.class);

  @Spec private CommandSpec spec;

  @Mixin
  private final ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);

  @Option(
      names = "--adapter-root",
      paramLabel = "DIR",
      arity = "1..*",
      description =
          "Where adapters may be loaded from while the server runs: a PEFT directory DIR/NAME is"
              + " loaded by the first request that names it. None: only --adapter, and the embedded"
              + " model's.")
  private List<Path> roots = new ArrayList<>();

  @Option(
      names = "--store",
      paramLabel = "DIR",
      description =
          "Where published adapters are kept, with their versions and aliases; made if there is"
              + " nothing. None: adapters cannot be published.")
  private @Nullable Path store;

  @Option(
      names = "--runs",
      paramLabel = "DIR",
      arity = "1..*",
      description =
          "Folders of training runs to tell of, on the page and by TrainingService: DIR is what"
              + " 'wardrobe train --out' wrote to, or a folder of such. Only read. None: no such"
              + " service.")
  private List<Path> runs = new ArrayList<>();

  @Option(
      names = "--adapter-host-mib",
      paramLabel = "N",
      description =
          "Copies of adapters to make them resident from, in MiB; those beyond it are read from"
              + " disk and checked again. Default: ${DEFAULT-VALUE}.")
  private long adapterHostMib = AdapterOptions.DEFAULT.hostBytes() >> 20;

  @Mixin private final FrontArguments front = new FrontArguments();

  @Option(
      names = "--port-file",
      paramLabel = "FILE",
      description = "Write the port there when ready; removed again at the end.")
  private @Nullable Path portFile;

  @Option(
      names = "--drain-seconds",
      paramLabel = "N",
      defaultValue = "30",
      description = "How long running requests may take at the end. Default: ${DEFAULT-VALUE}.")
  private int drainSeconds;

  @Option(
      names = "--warm-up-seconds",
      paramLabel = "N",
      defaultValue = "15",
      description =
          "How long readiness may wait for code to be compiled, the kernels first, then whatever a"
              + " few answers of the base need; until then the same answers come slower. Default:"
              + " ${DEFAULT-VALUE}.")
  private int warmUpSeconds;

  @Option(
      names = "--otlp",
      paramLabel = "URL",
      description =
          "Send OpenTelemetry traces by OTLP over HTTP there, such as http://localhost:4318. The"
              + " OTEL_* environment variables count, too. None: no traces.")
  private @Nullable String otlp;

  @Option(
      names = "--log-format",
      paramLabel = "FORMAT",
      defaultValue = "text",
      description =
          "How log lines are written to standard error: text, or json, an object a line. Default:"
              + " ${DEFAULT-VALUE}.")
  private String logFormat = "text";

  @Option(
      names = "--json",
      description = "Say that it is ready, and what it serves, as one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws StartException, IOException, InterruptedException {
    FrontOptions open = front.read();
    if (drainSeconds < 0) {
      throw StartException.usage("--drain-seconds: expected 0 or more, got " + drainSeconds);
    }
    if (warmUpSeconds < 0) {
      throw StartException.usage("--warm-up-seconds: expected 0 or more, got " + warmUpSeconds);
    }
    if (adapterHostMib < 0 || adapterHostMib > Long.MAX_VALUE >> 20) {
      throw StartException.usage("--adapter-host-mib: expected 0 or more, got " + adapterHostMib);
    }
    Path embedded = arguments.embeddedAdapters();
    if (roots.isEmpty() && embedded != null) {
      roots = List.of(embedded);
    }
    LogFormat.of(logFormat).apply();
    for (Path each : runs) {
      if (!Files.isDirectory(each)) {
        throw new StartException("--runs: expected a directory, got " + each);
      }
    }
    long began = System.nanoTime();
    Stack stack;
    try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json)) {
      arguments.tell(progress::at);
      stack =
          new Stack(
              arguments,
              roots,
              store,
              AdapterOptions.DEFAULT.withHostBytes(adapterHostMib << 20),
              UnaryOperator.identity(),
              new Stack.Terms(front.asks(), front.requestTimeout()));
    }
    stack.telemetry().also(new AccessLog(stack.model().name()));
    if (otlp != null || Traces.asked(System.getenv())) {
      trace(stack);
    }
    HttpFrontend frontend = stack.frontend(extensions(stack, runs), open);
    long warm = System.nanoTime() + Duration.ofSeconds(warmUpSeconds).toNanos();
    boolean compiled;
    try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json)) {
      progress.at("warming up");
      compiled = stack.backend().awaitWarm(Duration.ofSeconds(warmUpSeconds));
      new Rehearsal(stack).run(warm);
    }
    if (!compiled) {
      log.info("the kernels are not all compiled yet; the first answers will be slower");
    }
    int actualPort;
    try {
      actualPort = frontend.listen(front.host(), front.port());
    } catch (IOException e) {
      frontend.close();
      stack.close();
      throw e;
    }
    Thread shutdown = new Thread(() -> stop(frontend, stack), "wardrobe-shutdown");
    Runtime.getRuntime().addShutdownHook(shutdown);
    if (portFile != null) {
      try {
        write(portFile, actualPort);
      } catch (IOException e) {
        // Its exit code is that of a clean stop.
        Runtime.getRuntime().removeShutdownHook(shutdown);
        frontend.close();
        stack.close();
        throw new StartException(
            "--port-file: expected a file in a directory that can be written to, got " + portFile,
            e);
      }
    }
    if (!roots.isEmpty()) {
      var _ = stack.adapters().scan().thenAccept(scanned -> log.info("adapter roots: {}", scanned));
    }
    PrintWriter out = spec.commandLine().getOut();
    if (json) {
      ObjectNode root = new ObjectMapper().createObjectNode();
      root.putObject("ready")
          .put("host", front.host())
          .put("port", actualPort)
          .put("seconds", (System.nanoTime() - began) / 1e9)
          .put("model", stack.model().name())
          .put("adapters", stack.adapters().list().size())
          .put("backend", stack.backend().describe());
      out.println(root);
    } else {
      out.printf(
          Locale.ROOT,
          "wardrobe: ready on %s:%d after %.1f s: %s with %d adapters%s, on %s%n",
          front.host(),
          actualPort,
          (System.nanoTime() - began) / 1e9,
          stack.model().name(),
          stack.adapters().list().size(),
          roots.isEmpty() && store == null ? "" : ", others when they are asked for",
          stack.backend().describe());
    }
    out.flush();
    // The shutdown hook ends the process.
    new CountDownLatch(1).await();
    return 0;
  }

  private void trace(Stack stack) throws StartException {
    try {
      stack.telemetry().also(Traces.to(otlp, stack.model().name()));
    } catch (RuntimeException e) {
      stack.close();
      throw StartException.usage(
          "--otlp, or the OTEL_* variables: expected such as http://localhost:4318, got what is"
              + " refused: "
              + e.getMessage(),
          e);
    }
  }

  private static List<BindableService> extensions(Stack stack, List<Path> runs) {
    ServerContext context =
        new ServerContext(stack.backend(), stack.model(), stack.adapters(), stack.engine(), runs);
    List<BindableService> services = new ArrayList<>();
    for (ServerExtension extension : ServiceLoader.load(ServerExtension.class)) {
      services.addAll(extension.services(context));
    }
    return services;
  }

  /** Whole or not at all: who waits for the file must never read half a number. */
  private static void write(Path file, int port) throws IOException {
    Path unfinished = file.resolveSibling(file.getFileName() + ".unfinished");
    Files.writeString(unfinished, port + "\n");
    Files.move(unfinished, file, StandardCopyOption.ATOMIC_MOVE);
  }

  private void stop(HttpFrontend frontend, Stack stack) {
    int exit = 0;
    try {
      frontend.notServing();
      if (!stack.engine().drain(Duration.ofSeconds(drainSeconds))) {
        log.warn("requests were still running after {} s and were ended", drainSeconds);
      }
      // Whoever waits for an adapter that is yet to be read is handed back.
      stack.adapters().close();
      frontend.close();
      stack.close();
      if (portFile != null) {
        Files.deleteIfExists(portFile);
      }
    } catch (IOException | RuntimeException | InterruptedException e) {
      log.error("stopping failed", e);
      exit = 1;
    }
    // Without this a process that a signal ends has the signal's exit code, however cleanly it
    // stopped.
    Runtime.getRuntime().halt(exit);
  }
}
