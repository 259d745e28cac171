package dev.wardrobe;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.grpc.GrpcFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.spi.ServerContext;
import dev.wardrobe.spi.ServerExtension;
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
              + " loaded by the first request that names it. None: only --adapter.")
  private List<Path> roots = new ArrayList<>();

  @Option(
      names = "--store",
      paramLabel = "DIR",
      description =
          "Where published adapters are kept, with their versions and aliases; made if there is"
              + " nothing. None: adapters cannot be published.")
  private @Nullable Path store;

  @Option(
      names = "--adapter-host-mib",
      paramLabel = "N",
      description =
          "Copies of adapters to make them resident from, in MiB; those beyond it are read from"
              + " disk and checked again. Default: ${DEFAULT-VALUE}.")
  private long adapterHostMib = AdapterOptions.DEFAULT.hostBytes() >> 20;

  @Option(
      names = "--host",
      defaultValue = "127.0.0.1",
      description = "Address to listen on. Default: ${DEFAULT-VALUE}.")
  private String host = "127.0.0.1";

  @Option(
      names = "--port",
      paramLabel = "N",
      defaultValue = "7070",
      description = "Port to listen on; 0 for any that is free. Default: ${DEFAULT-VALUE}.")
  private int port;

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

  @Override
  public Integer call() throws StartException, IOException, InterruptedException {
    if (port < 0 || port > 65_535) {
      throw new StartException("--port: expected 0 to 65535, got " + port);
    }
    if (drainSeconds < 0) {
      throw new StartException("--drain-seconds: expected 0 or more, got " + drainSeconds);
    }
    if (warmUpSeconds < 0) {
      throw new StartException("--warm-up-seconds: expected 0 or more, got " + warmUpSeconds);
    }
    if (adapterHostMib < 0 || adapterHostMib > Long.MAX_VALUE >> 20) {
      throw new StartException("--adapter-host-mib: expected 0 or more, got " + adapterHostMib);
    }
    long began = System.nanoTime();
    Stack stack =
        new Stack(
            arguments,
            roots,
            store,
            AdapterOptions.DEFAULT.withHostBytes(adapterHostMib << 20),
            UnaryOperator.identity());
    GrpcFrontend frontend = stack.frontend(extensions(stack));
    long warm = System.nanoTime() + Duration.ofSeconds(warmUpSeconds).toNanos();
    if (!stack.backend().awaitWarm(Duration.ofSeconds(warmUpSeconds))) {
      log.info("the kernels are not all compiled yet; the first answers will be slower");
    }
    new Rehearsal(stack).run(warm);
    int actualPort;
    try {
      actualPort = frontend.listen(host, port);
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
    out.printf(
        Locale.ROOT,
        "wardrobe: ready on %s:%d after %.1f s: %s with %d adapters, on %s%n",
        host,
        actualPort,
        (System.nanoTime() - began) / 1e9,
        stack.model().name(),
        stack.adapters().list().size(),
        stack.backend().describe());
    out.flush();
    // The shutdown hook ends the process.
    new CountDownLatch(1).await();
    return 0;
  }

  private static List<BindableService> extensions(Stack stack) {
    ServerContext context =
        new ServerContext(stack.backend(), stack.model(), stack.adapters(), stack.engine());
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

  private void stop(GrpcFrontend frontend, Stack stack) {
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
