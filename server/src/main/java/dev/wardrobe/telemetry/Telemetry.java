package dev.wardrobe.telemetry;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.v1.ModelInfoResponse;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** Where what is known about requests goes: metrics at once, all else on a thread of its own. */
public final class Telemetry implements Consumer<RequestReport>, AutoCloseable {
  /** Reports that may wait for that thread; those beyond are dropped, and counted. */
  private static final int WAITING = 8192;

  private static final long LAST_SECONDS = 5;

  private final Readiness readiness;
  private final Metrics metrics;
  private final List<Consumer<RequestReport>> sinks = new CopyOnWriteArrayList<>();
  private final ThreadPoolExecutor thread =
      new ThreadPoolExecutor(
          1,
          1,
          0,
          TimeUnit.SECONDS,
          new ArrayBlockingQueue<>(WAITING),
          Thread.ofPlatform().daemon().name("wardrobe-telemetry").factory());

  /**
   * @param model the base's name
   * @param info the answer to ModelInfo
   */
  public Telemetry(
      String model, Engine engine, AdapterRegistry adapters, Supplier<ModelInfoResponse> info) {
    readiness = new Readiness(engine, Readiness.STUCK);
    metrics = new Metrics(model, engine, adapters, info, readiness);
  }

  public Readiness readiness() {
    return readiness;
  }

  public Metrics metrics() {
    return metrics;
  }

  /**
   * Has a further one told of requests, one after the other; it may take its time. {@link Traces}
   * are closed with this.
   */
  public void also(Consumer<RequestReport> sink) {
    sinks.add(sink);
  }

  /** Takes note of a request that has ended; returns at once. Nobody's requests are left out. */
  @Override
  public void accept(RequestReport report) {
    if (report.origin().equals(Origin.NONE)) {
      return;
    }
    metrics.ended(report);
    if (sinks.isEmpty()) {
      return;
    }
    try {
      thread.execute(() -> sinks.forEach(sink -> sink.accept(report)));
    } catch (RejectedExecutionException e) {
      metrics.dropped();
    }
  }

  /** Waits a little for what has not been told yet. */
  @Override
  public void close() {
    thread.shutdown();
    try {
      if (!thread.awaitTermination(LAST_SECONDS, TimeUnit.SECONDS)) {
        thread.shutdownNow();
      }
    } catch (InterruptedException e) {
      thread.shutdownNow();
      Thread.currentThread().interrupt();
    }
    for (Consumer<RequestReport> sink : sinks) {
      if (sink instanceof Traces traces) {
        traces.close();
      }
    }
    metrics.close();
  }
}
