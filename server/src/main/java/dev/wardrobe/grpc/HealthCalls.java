package dev.wardrobe.grpc;

import dev.wardrobe.tenant.OpenCalls;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthProto;
import io.vertx.grpc.common.GrpcStatus;
import io.vertx.grpc.server.Service;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.BooleanSupplier;

/**
 * {@code grpc.health.v1.Health}: whether requests are welcome. The empty name is the server as a
 * whole. (Vert.x's own says SERVING for it whatever happens, and answers for services it does not
 * have.)
 */
final class HealthCalls {
  private final Set<String> services;
  private final Map<Reply<HealthCheckResponse>, String> watchers = new ConcurrentHashMap<>();
  private final BooleanSupplier alive;
  private volatile boolean serving = true;

  /**
   * @param services full names of the services to answer for
   * @param alive whether they can be answered at all
   */
  HealthCalls(Set<String> services, BooleanSupplier alive) {
    this.services = Set.copyOf(services);
    this.alive = alive;
  }

  Service service() {
    return new Methods(HealthProto.getDescriptor().findServiceByName("Health"), new OpenCalls())
        .with("Check", HealthCheckRequest.getDefaultInstance(), this::check)
        .with("Watch", HealthCheckRequest.getDefaultInstance(), this::watch);
  }

  /** Everything is NOT_SERVING from now on, and watchers hear of it. */
  synchronized void notServing() {
    serving = false;
    watchers.forEach((reply, name) -> reply.send(response(name)));
  }

  private void check(HealthCheckRequest request, long timeout, Reply<HealthCheckResponse> reply) {
    HealthCheckResponse response = response(request.getService());
    if (response.getStatus() == ServingStatus.SERVICE_UNKNOWN) {
      reply.fail(GrpcStatus.NOT_FOUND, "no service is called '" + request.getService() + "'");
    } else {
      reply.end(response);
    }
  }

  private synchronized void watch(
      HealthCheckRequest request, long timeout, Reply<HealthCheckResponse> reply) {
    watchers.put(reply, request.getService());
    reply.onGone(() -> watchers.remove(reply));
    reply.send(response(request.getService()));
  }

  private HealthCheckResponse response(String name) {
    ServingStatus status =
        !name.isEmpty() && !services.contains(name)
            ? ServingStatus.SERVICE_UNKNOWN
            : serving && alive.getAsBoolean() ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    return HealthCheckResponse.newBuilder().setStatus(status).build();
  }
}
