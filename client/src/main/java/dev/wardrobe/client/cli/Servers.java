package dev.wardrobe.client.cli;

import dev.wardrobe.client.load.Connection;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The servers that a measurement talks to: one that runs, and those that are started for it. */
final class Servers implements AutoCloseable {
  private final ServerOption running;
  private final @Nullable Long pid;
  private final int connections;
  private final Map<String, Server> servers = new HashMap<>();

  /** A server, and its process where that is known. */
  record Server(
      Connection connection, @Nullable ProcessHandle process, @Nullable ChildServer child) {}

  /**
   * @param running where the server is that needs no start
   * @param pid its process on this machine, or null
   * @param connections to each
   */
  Servers(ServerOption running, @Nullable Long pid, int connections) {
    this.running = running;
    this.pid = pid;
    this.connections = connections;
  }

  /**
   * The server with these arguments, started if need be.
   *
   * @param arguments as one line, or null for the one that runs
   */
  Server get(@Nullable String arguments) throws IOException {
    String key = arguments == null ? "" : "serve " + arguments;
    Server known = servers.get(key);
    if (known != null) {
      return known;
    }
    Server started;
    if (arguments == null) {
      ProcessHandle process = pid == null ? null : ProcessHandle.of(pid).orElse(null);
      if (pid != null && process == null) {
        throw new IllegalArgumentException(
            "--server-pid: expected the number of a process, got " + pid);
      }
      started =
          new Server(
              new Connection(running.builder(), running.target(), connections), process, null);
    } else {
      List<String> words = Words.of(arguments);
      ChildServer child = ChildServer.start(launcher(), words);
      started = new Server(new Connection(child.target(), connections), child.process(), child);
    }
    servers.put(key, started);
    return started;
  }

  private static Path launcher() {
    String home = System.getProperty("wardrobe.home");
    if (home == null) {
      throw new IllegalArgumentException(
          "--serve: only the launcher (deploy/wardrobe) knows how to start a server; start one"
              + " yourself and name it with --server");
    }
    return Path.of(home, "wardrobe");
  }

  /** Ends those that were started, as an operator would. */
  void stop() throws IOException {
    for (Server server : servers.values()) {
      if (server.child != null) {
        server.connection.close();
        int exit = server.child.stop();
        if (exit != 0) {
          throw new IOException(
              "a server's exit code after SIGTERM: expected 0, got %d; it said: %s"
                  .formatted(exit, server.child.lastWords()));
        }
      }
    }
  }

  @Override
  public void close() {
    for (Server server : servers.values()) {
      server.connection.close();
      if (server.child != null) {
        server.child.close();
      }
    }
  }
}
