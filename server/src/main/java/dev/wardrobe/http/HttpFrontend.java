package dev.wardrobe.http;

import dev.wardrobe.engine.Distribution;
import dev.wardrobe.grpc.CallerContext;
import dev.wardrobe.grpc.GrpcServices;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Readiness;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Keys;
import dev.wardrobe.tenant.OpenCalls;
import io.grpc.BindableService;
import io.vertx.core.Context;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.VertxOptions;
import io.vertx.core.http.Http2Settings;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpServer;
import io.vertx.core.http.HttpServerOptions;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.net.ServerSSLOptions;
import io.vertx.ext.web.Route;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.io.IOException;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The port: gRPC's calls go to their services, everything else to the routes. */
public final class HttpFrontend implements AutoCloseable {
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

  /**
   * A system property: milliseconds that an event loop may be busy with one thing before the log
   * says so, with its stack. Default: Vert.x's, 2 s.
   */
  private static final String LOOP_LIMIT = "wardrobe.event-loop.limit";

  private static final long LIMIT_SECONDS = 30;

  private static final int EVENT_LOOPS = 2;

  /** How often the event loops are looked at. */
  private static final long LOOP_MILLIS = 100;

  /** How long the last bytes may take to those who read them. */
  private static final long FLUSH_SECONDS = 5;

  /** Largest head of a request, in bytes, with all of its headers. */
  private static final int MAX_HEADER_BYTES = 16 << 10;

  /** How often files of keys and certificates are looked at. */
  private static final long RELOAD_MILLIS = 1000;

  private static final Logger log = LoggerFactory.getLogger(HttpFrontend.class);

  private final FrontOptions options;
  private final Vertx vertx;
  private final GrpcServices services;
  private final Router router;
  private final Readiness readiness;
  private final Executor workers;
  private volatile @Nullable Door door;
  private final Patience patience;
  private final Connections connections;
  private final OpenCalls open = new OpenCalls();

  // Guarded by this.
  private String unread = "";
  private final WatchRoutes watches;
  private volatile @Nullable HttpServer server;

  /**
   * For the loopback address alone, without keys.
   *
   * @param extensions further gRPC services
   */
  public HttpFrontend(Served served, List<BindableService> extensions) {
    this(served, extensions, FrontOptions.DEFAULT);
  }

  /**
   * @param extensions further gRPC services
   */
  public HttpFrontend(Served served, List<BindableService> extensions, FrontOptions options) {
    this(served, extensions, options, Patience.DEFAULT);
  }

  HttpFrontend(
      Served served, List<BindableService> extensions, FrontOptions options, Patience patience) {
    this.options = options;
    this.patience = patience;
    workers = served.workers();
    CallerContext.prepare();
    vertx = Vertx.vertx(loops());
    connections = new Connections(vertx, options.maxConnections(), patience);
    services = new GrpcServices(vertx, served, patience.upload(), open, extensions);
    readiness = served.telemetry().readiness();
    watchLoops(served.telemetry().metrics().loopDelay());
    router = Router.router(vertx);
    router
        .route()
        .handler(RequestIds::handle)
        .handler(this::enter)
        .failureHandler(HttpErrors::answer);
    new OpsRoutes(served).mount(router);
    new PageRoutes().mount(router);
    watches = new WatchRoutes(vertx, served.adapters());
    watches.mount(router);
    new UploadRoutes(vertx, served.adapters(), served.workers(), patience.upload()).mount(router);
    new JsonRoutes(services.json(), served.workers()).mount(router);
    new OpenAiRoutes(served).mount(router);
    router.route().last().handler(new NoRoute(router)::answer);
  }

  /** With Vert.x's checker looking as often as it needs to for {@link #LOOP_LIMIT}. */
  private static VertxOptions loops() {
    VertxOptions options = new VertxOptions().setEventLoopPoolSize(EVENT_LOOPS);
    Integer limit = Integer.getInteger(LOOP_LIMIT);
    return limit == null || limit < 1
        ? options
        : options
            .setMaxEventLoopExecuteTime(limit)
            .setMaxEventLoopExecuteTimeUnit(TimeUnit.MILLISECONDS)
            .setWarningExceptionTime(limit)
            .setWarningExceptionTimeUnit(TimeUnit.MILLISECONDS)
            .setBlockedThreadCheckInterval(Math.max(1, limit / 5))
            .setBlockedThreadCheckIntervalUnit(TimeUnit.MILLISECONDS);
  }

  /** Has every event loop do something again and again, and notes how late it is. */
  private void watchLoops(Distribution delay) {
    for (int i = 0; i < EVENT_LOOPS; i++) {
      // Each such context is another loop's.
      vertx.getOrCreateContext().runOnContext(_ -> watchLoop(delay));
    }
  }

  private void watchLoop(Distribution delay) {
    long due = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(LOOP_MILLIS);
    vertx.setTimer(
        LOOP_MILLIS,
        _ -> {
          delay.addNanos(Math.max(0, System.nanoTime() - due));
          watchLoop(delay);
        });
  }

  /**
   * Opens the port.
   *
   * @param port 0 for any that is free
   * @return the port
   * @throws IOException when it cannot be had
   */
  public int listen(String host, int port) throws IOException {
    try {
      String warning = options.check(host);
      if (warning != null) {
        log.warn("{}", warning);
      }
    } catch (IllegalArgumentException e) {
      throw new IOException("--" + e.getMessage(), e);
    }
    boolean certificates = options.tls() != null && options.tls().clientCa() != null;
    door =
        new Door(
            options.keys(),
            certificates,
            new Access(options.openMetrics()),
            new Sites(options.origins(), options.hosts(), options.namesAt(host)));
    HttpServerOptions how =
        new HttpServerOptions()
            .setHost(host)
            .setPort(port)
            // Until the connection is one of HTTP; see Connections.
            .setIdleTimeout(Math.toIntExact(patience.first().toMillis()))
            .setIdleTimeoutUnit(TimeUnit.MILLISECONDS)
            .setHttp2RstFloodMaxRstFramePerWindow(MAX_CANCELLATIONS)
            .setHttp2RstFloodWindowDuration(1)
            .setHttp2RstFloodWindowDurationTimeUnit(TimeUnit.SECONDS)
            .setInitialSettings(
                new Http2Settings()
                    .setMaxConcurrentStreams(MAX_CONCURRENT_STREAMS)
                    .setMaxHeaderListSize(MAX_HEADER_BYTES))
            .setMaxHeaderSize(MAX_HEADER_BYTES)
            .setMaxInitialLineLength(MAX_HEADER_BYTES);
    TlsFiles files = options.tls() == null ? null : new TlsFiles(options.tls(), !hasKeys());
    ServerSSLOptions encryption = files == null ? null : files.read(vertx);
    if (encryption != null) {
      how.setSsl(true)
          .setUseAlpn(true)
          .setKeyCertOptions(encryption.getKeyCertOptions())
          .setTrustOptions(encryption.getTrustOptions())
          .setClientAuth(encryption.getClientAuth());
    }
    HttpServer listening =
        vertx
            .createHttpServer(how)
            .connectionHandler(connections::opened)
            .requestHandler(this::handle);
    try {
      int actual = await(listening.listen()).actualPort();
      server = listening;
      readiness.open();
      vertx.setPeriodic(RELOAD_MILLIS, _ -> work(() -> reload(listening, files)));
      return actual;
    } catch (IOException e) {
      throw new IOException(
          "cannot listen on %s:%d: %s; is another server there? --port 0 takes any free port"
              .formatted(host, port, e.getMessage()),
          e);
    }
  }

  private boolean hasKeys() {
    return options.keys() != null;
  }

  private void work(Runnable task) {
    try {
      workers.execute(task);
    } catch (RejectedExecutionException e) {
      log.debug("not done, since the server is stopping", e);
    }
  }

  /** Takes changed files of keys and certificates; on a worker. */
  private synchronized void reload(HttpServer listening, @Nullable TlsFiles files) {
    Keys keys = options.keys();
    if (keys != null) {
      keys.refresh();
      open.endRefused(keys::refusal);
    }
    if (files == null) {
      return;
    }
    try {
      ServerSSLOptions changed = files.read(vertx);
      if (changed != null) {
        await(listening.updateSSLOptions(changed));
        unread = "";
        log.info("the certificate was read again");
      }
    } catch (IOException e) {
      if (!unread.equals(e.getMessage())) {
        unread = String.valueOf(e.getMessage());
        log.error("the certificate stays as it was: {}", e.getMessage());
      }
    }
  }

  /** What becomes of a request; on its event loop. */
  private Door.Decision decide(HttpServerRequest request) {
    if (connections.isSurplus(request.connection())) {
      return new Door.Decision.Refused(
          503,
          "expected at most %d connections, got more; share one among requests, or ask again later"
              .formatted(options.maxConnections()));
    }
    return Objects.requireNonNull(door).decide(request);
  }

  private void handle(HttpServerRequest request) {
    if (!isGrpc(request)) {
      router.handle(request);
      return;
    }
    connections.begun(request);
    switch (decide(request)) {
      case Door.Decision.Admitted admitted -> {
        if (admitted.caller() != Caller.NOBODY) {
          connections.keep(request);
        }
        CallerContext.put(Objects.requireNonNull(Vertx.currentContext()), admitted.caller());
        services.handle(request);
      }
      case Door.Decision.Refused refused ->
          Refusals.answerGrpc(request, refused.status(), refused.message());
      case Door.Decision.Answered _ -> {}
    }
  }

  private static boolean isGrpc(HttpServerRequest request) {
    String type = request.getHeader(HttpHeaders.CONTENT_TYPE);
    return type != null && type.startsWith("application/grpc");
  }

  /** The first step of every route. */
  private void enter(RoutingContext context) {
    connections.begun(context);
    switch (decide(context.request())) {
      case Door.Decision.Admitted admitted -> {
        Context loop = Objects.requireNonNull(Vertx.currentContext());
        CallerContext.put(loop, admitted.caller());
        Callers.put(context, admitted.caller());
        Runnable ended =
            open.add(
                admitted.caller(), why -> loop.runOnContext(_ -> Callers.refuse(context, why)));
        context.addEndHandler(_ -> ended.run());
        context.next();
      }
      case Door.Decision.Refused refused ->
          Refusals.answer(context, refused.status(), refused.message());
      case Door.Decision.Answered _ -> {}
    }
  }

  /** What can be asked for over HTTP, for tests. */
  List<Route> routes() {
    return router.getRoutes();
  }

  /** From now on health says NOT_SERVING, so that balancers look elsewhere. */
  public void notServing() {
    services.notServing();
  }

  /** Lets answers that have ended reach their readers, then closes the port. */
  @Override
  public void close() throws IOException {
    services.stopWatches();
    watches.stop();
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
