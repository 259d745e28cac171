package dev.wardrobe.grpc;

import dev.wardrobe.telemetry.Origin;
import io.vertx.grpc.common.GrpcStatus;
import io.vertx.grpc.server.GrpcServerRequest;
import io.vertx.grpc.server.GrpcServerResponse;
import java.time.Duration;
import org.jspecify.annotations.Nullable;

/** A gRPC call's. */
final class GrpcWire<T> implements Reply.Wire<T> {
  private final GrpcServerRequest<?, T> request;
  private final GrpcServerResponse<?, T> response;

  GrpcWire(GrpcServerRequest<?, T> request) {
    this.request = request;
    this.response = request.response();
  }

  @Override
  public Origin origin() {
    return new Origin(
        "grpc", request.headers().get("traceparent"), request.headers().get("tracestate"));
  }

  @Override
  public void open(Runnable gone, Runnable drained) {
    // A reader that is reset, a connection that is lost, an error while writing: each comes in its
    // own way, and each means that nobody reads any more.
    request.errorHandler(_ -> gone.run());
    request.exceptionHandler(_ -> gone.run());
    response.exceptionHandler(_ -> gone.run());
    response.drainHandler(_ -> drained.run());
  }

  @Override
  public boolean write(T message) {
    response.write(message);
    return !response.writeQueueFull();
  }

  @Override
  public Runnable last(T message) {
    return () -> response.end(message);
  }

  @Override
  public void end() {
    response.end();
  }

  @Override
  public void fail(GrpcStatus status, String message, @Nullable Duration retryAfter) {
    response.status(status).statusMessage(Errors.sendable(message));
    if (retryAfter != null) {
      response.trailers().set(Errors.DETAILS, Errors.details(status, message, retryAfter));
    }
    response.end();
  }
}
