package dev.wardrobe.grpc;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.engine.StepRecord;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.ModelInfoResponse;
import io.grpc.BindableService;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.VertxOptions;
import io.vertx.core.http.Http2Settings;
import io.vertx.core.http.HttpServer;
import io.vertx.core.http.HttpServerOptions;
import io.vertx.grpc.server.GrpcServerOptions;
import io.vertx.grpcio.server.GrpcIoServer;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.function.LongFunction;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** The gRPC services on one port: generation, adapters, health, reflection, and extensions'. */
public final class GrpcFrontend implements AutoCloseable {
  /**
   * Largest request. Vert.x's default of 256 KiB would refuse a long prompt; this holds the token
   * ids of a context of millions.
   */
  private static final int MAX_MESSAGE_BYTES = 64 << 20;

  /**
   * Most calls at a time on one connection. Vert.x's default of 100 would have hundreds of callers
   * that share a connection wait in the client, where neither fairness nor a deadline's estimate
   * sees them; what is too much the engine's queue refuses.
   */
  private static final long MAX_CONCURRENT_STREAMS = 4096;

  /**
   * Most cancellations in a second on one connection, after which it is closed with all that is on
   * it: every call once. Vert.x's default, 200 in 30 seconds against floods of them, would end the
   * calls of everyone behind a proxy in which a few hundred readers lose interest.
   */
  private static final int MAX_CANCELLATIONS = 4096;

  private static final long LIMIT_SECONDS = 30;

  /** How long a publication may fall silent. */
  private static final Duration IDLE = Duration.ofSeconds(60);

  private static final long CHECK_MILLIS = 1000;

  /** How long the last bytes may take to those who read them. */
  private static final long FLUSH_SECONDS = 5;

  private final Vertx vertx;
  private final GrpcIoServer services;
  private final HealthCalls health;
  private final Runnable onClose;
  private volatile @Nullable HttpServer server;

  /**
   * @param workers run what takes time
   * @param info the answer to ModelInfo
   * @param steps the engine's steps after a number
   * @param alive whether the engine is; health says so
   * @param extensions further services
   */
  public GrpcFrontend(
      Conversation conversation,
      AdapterRegistry adapters,
      Executor workers,
      Supplier<ModelInfoResponse> info,
      LongFunction<List<StepRecord>> steps,
      BooleanSupplier alive,
      List<BindableService> extensions) {
    this(conversation, adapters, workers, info, steps, alive, extensions, IDLE);
  }

  GrpcFrontend(
      Conversation conversation,
      AdapterRegistry adapters,
      Executor workers,
      Supplier<ModelInfoResponse> info,
      LongFunction<List<StepRecord>> steps,
      BooleanSupplier alive,
      List<BindableService> extensions,
      Duration idle) {
    vertx = Vertx.vertx(new VertxOptions().setEventLoopPoolSize(2));
    services =
        GrpcIoServer.server(vertx, new GrpcServerOptions().setMaxMessageSize(MAX_MESSAGE_BYTES));
    services.addService(new GenerationCalls(conversation, workers, info, steps).service());
    AdapterCalls adapterCalls = new AdapterCalls(adapters, workers);
    services.addService(adapterCalls.service());
    vertx.setPeriodic(CHECK_MILLIS, _ -> adapterCalls.checkIdle(idle.toNanos()));
    onClose = adapterCalls::stopWatches;
    extensions.forEach(services::addService);
    health =
        new HealthCalls(
            services.services().stream()
                .map(service -> service.name().fullyQualifiedName())
                .collect(Collectors.toSet()),
            alive);
    services.addService(health.service());
    services.addService(Reflection.of(services::services));
    services.addService(Reflection.alpha(services::services));
  }

  /**
   * Opens the port.
   *
   * @param port 0 for any that is free
   * @return the port
   * @throws IOException when it cannot be had
   */
  public int listen(String host, int port) throws IOException {
    HttpServer listening =
        vertx
            .createHttpServer(
                new HttpServerOptions()
                    .setHost(host)
                    .setPort(port)
                    .setHttp2RstFloodMaxRstFramePerWindow(MAX_CANCELLATIONS)
                    .setHttp2RstFloodWindowDuration(1)
                    .setHttp2RstFloodWindowDurationTimeUnit(TimeUnit.SECONDS)
                    .setInitialSettings(
                        new Http2Settings().setMaxConcurrentStreams(MAX_CONCURRENT_STREAMS)))
            .requestHandler(services);
    try {
      int actual = await(listening.listen()).actualPort();
      server = listening;
      return actual;
    } catch (IOException e) {
      throw new IOException(
          "cannot listen on %s:%d: %s; is another server there? --port 0 takes any free port"
              .formatted(host, port, e.getMessage()),
          e);
    }
  }

  /** From now on health says NOT_SERVING, so that balancers look elsewhere. */
  public void notServing() {
    health.notServing();
  }

  /** Lets answers that have ended reach their readers, then closes the port. */
  @Override
  public void close() throws IOException {
    onClose.run();
    HttpServer listening = server;
    if (listening != null) {
      await(listening.shutdown(FLUSH_SECONDS, TimeUnit.SECONDS));
    }
    await(vertx.close());
  }

  private static <T> T await(Future<T> future) throws IOException {
    try {
      return future.toCompletionStage().toCompletableFuture().get(LIMIT_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      throw new IOException(cause.getMessage(), cause);
    } catch (TimeoutException e) {
      throw new IOException("no answer from the event loop within " + LIMIT_SECONDS + " s", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", e);
    }
  }
}
