package dev.wardrobe.grpc;

import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Readiness;
import dev.wardrobe.tenant.OpenCalls;
import io.grpc.BindableService;
import io.vertx.core.Handler;
import io.vertx.core.Vertx;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.grpc.server.GrpcServerOptions;
import io.vertx.grpcio.server.GrpcIoServer;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The gRPC services: generation, adapters, health, reflection, and extensions'. */
public final class GrpcServices implements Handler<HttpServerRequest> {
  /**
   * Largest request. Vert.x's default of 256 KiB would refuse a long prompt; this holds the token
   * ids of a context of millions.
   */
  public static final int MAX_MESSAGE_BYTES = 64 << 20;

  private static final long CHECK_MILLIS = 1000;

  private final GrpcIoServer services;
  private final AdapterCalls adapters;
  private final Readiness readiness;
  private final HealthCalls health;
  private final List<JsonMethod> json;

  /**
   * @param idle how long a publication may fall silent
   * @param open where calls are noted while they last
   * @param extensions further services
   */
  public GrpcServices(
      Vertx vertx, Served served, Duration idle, OpenCalls open, List<BindableService> extensions) {
    readiness = served.telemetry().readiness();
    services =
        GrpcIoServer.server(vertx, new GrpcServerOptions().setMaxMessageSize(MAX_MESSAGE_BYTES));
    Methods generation = new GenerationCalls(served, open).service();
    services.addService(generation);
    adapters = new AdapterCalls(served.adapters(), served.workers(), open);
    Methods adapterMethods = adapters.service();
    services.addService(adapterMethods);
    json =
        Stream.concat(
                Stream.of(generation, adapterMethods).flatMap(service -> service.json().stream()),
                extensions.stream().flatMap(service -> UnaryCall.json(service).stream()))
            .toList();
    vertx.setPeriodic(CHECK_MILLIS, _ -> adapters.checkIdle(idle.toNanos()));
    extensions.forEach(services::addService);
    health =
        new HealthCalls(
            services.services().stream()
                .map(service -> service.name().fullyQualifiedName())
                .collect(Collectors.toSet()),
            readiness::ready);
    services.addService(health.service());
    services.addService(Reflection.of(services::services));
    services.addService(Reflection.alpha(services::services));
  }

  /** Takes a gRPC call, on the event loop. */
  @Override
  public void handle(HttpServerRequest request) {
    services.handle(request);
  }

  /** The methods that can be called as JSON over HTTP, each by the path of its annotation. */
  public List<JsonMethod> json() {
    return json;
  }

  /** From now on health says NOT_SERVING, so that balancers look elsewhere. */
  public void notServing() {
    readiness.drain();
    health.notServing();
  }

  /** Ends all watches: they would never end by themselves. */
  public void stopWatches() {
    adapters.stopWatches();
  }
}
