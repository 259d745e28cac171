package dev.wardrobe.client.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * A server of our own on a free port of the loopback address, for as long as a demo or a
 * measurement takes.
 */
final class ChildServer implements AutoCloseable {
  private static final Duration START_LIMIT = Duration.ofMinutes(3);
  private static final Duration STOP_LIMIT = Duration.ofSeconds(30);

  private static final int LAST_WORDS = 2000;

  private final Process process;
  private final Path folder;
  private final int port;
  private final Duration startUp;

  private ChildServer(Process process, Path folder, int port, Duration startUp) {
    this.process = process;
    this.folder = folder;
    this.port = port;
    this.startUp = startUp;
  }

  /**
   * Starts {@code wardrobe serve} and waits until it is ready.
   *
   * @param launcher the launcher's path
   * @param arguments further arguments of serve
   */
  static ChildServer start(Path launcher, List<String> arguments) throws IOException {
    Path folder = Files.createTempDirectory("wardrobe-child");
    Path portFile = folder.resolve("port");
    Path log = folder.resolve("server.log");
    List<String> command = new ArrayList<>();
    command.addAll(List.of(launcher.toString(), "serve", "--port", "0"));
    command.addAll(List.of("--port-file", portFile.toString()));
    command.addAll(arguments);
    long began = System.nanoTime();
    Process process =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(log.toFile())
            .redirectInput(ProcessBuilder.Redirect.from(Path.of("/dev/null").toFile()))
            .start();
    // Also when this process is ended by a signal.
    Runtime.getRuntime().addShutdownHook(new Thread(process::destroy, "wardrobe-child-shutdown"));
    try {
      int port = awaitPort(process, portFile, log, began);
      return new ChildServer(process, folder, port, Duration.ofNanos(System.nanoTime() - began));
    } catch (IOException | RuntimeException e) {
      process.destroyForcibly();
      delete(folder);
      throw e;
    }
  }

  private static int awaitPort(Process process, Path portFile, Path log, long began)
      throws IOException {
    while (true) {
      if (Files.exists(portFile)) {
        return Integer.parseInt(Files.readString(portFile).strip());
      }
      if (!process.isAlive()) {
        throw new IOException(
            "the server ended with exit code "
                + process.exitValue()
                + " before it was ready:\n"
                + Files.readString(log).strip());
      }
      if (System.nanoTime() - began > START_LIMIT.toNanos()) {
        throw new IOException(
            "the server was not ready after "
                + START_LIMIT.toSeconds()
                + " s:\n"
                + Files.readString(log).strip());
      }
      pause();
    }
  }

  private static void pause() throws IOException {
    try {
      Thread.sleep(20);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while the server was starting", e);
    }
  }

  String target() {
    return "127.0.0.1:" + port;
  }

  ProcessHandle process() {
    return process.toHandle();
  }

  /** The end of what it has said. */
  String lastWords() throws IOException {
    String said = Files.readString(folder.resolve("server.log")).strip();
    return said.substring(Math.max(0, said.length() - LAST_WORDS));
  }

  Duration startUp() {
    return startUp;
  }

  /** Asks it to end, as an operator would, and returns its exit code. */
  int stop() throws IOException {
    process.destroy();
    try {
      if (!process.waitFor(STOP_LIMIT.toMillis(), TimeUnit.MILLISECONDS)) {
        throw new IOException(
            "the server did not stop within " + STOP_LIMIT.toSeconds() + " s of SIGTERM");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while the server was stopping", e);
    }
    return process.exitValue();
  }

  @Override
  public void close() {
    process.destroyForcibly();
    delete(folder);
  }

  /** Removes a folder and all that is in it, as far as that is possible. */
  static void delete(Path folder) {
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      // A leftover in the temporary folder is not worth failing for.
    }
  }
}
