package dev.wardrobe.telemetry;

import dev.wardrobe.engine.Engine;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * Whether requests are welcome: one answer for {@code /ready}, {@code /health} and gRPC's health
 * service. Safe for use by all threads; asking takes no time.
 */
public final class Readiness {
  /** A step that takes longer than this is taken for one that will never end. */
  public static final Duration STUCK = Duration.ofSeconds(60);

  private final Engine engine;
  private final Duration stuck;
  private volatile boolean open;
  private volatile boolean draining;

  /**
   * @param stuck how long a step may take
   */
  public Readiness(Engine engine, Duration stuck) {
    this.engine = engine;
    this.stuck = stuck;
  }

  /** The base is loaded and rehearsed, and the port is open. */
  public void open() {
    open = true;
  }

  /** From now on no requests are taken. */
  public void drain() {
    draining = true;
  }

  /** Why requests are not welcome, a line each; empty if they are. */
  public List<String> problems() {
    List<String> problems = new ArrayList<>();
    if (!open) {
      problems.add("the server is starting");
    }
    if (draining || engine.draining()) {
      problems.add("the server is stopping: no new requests, running ones go on to their end");
    }
    if (!engine.alive()) {
      problems.add("the engine has failed; see the log, and start the server again");
    }
    long nanos = engine.stepNanos();
    if (nanos > stuck.toNanos()) {
      problems.add(
          "a step has been running for %.0f s, %d s are the most"
              .formatted(nanos / 1e9, stuck.toSeconds()));
    }
    return problems;
  }

  public boolean ready() {
    return problems().isEmpty();
  }

  /** Whether it may ever be ready again without being started anew. */
  public boolean live() {
    return engine.alive();
  }
}
