package dev.wardrobe.grpc;

import io.vertx.core.Context;
import io.vertx.grpc.common.GrpcStatus;
import io.vertx.grpc.server.GrpcServerRequest;
import io.vertx.grpc.server.GrpcServerResponse;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * The sending half of one call, usable from any thread.
 *
 * <p>Everything is written on the call's own event loop, in the order in which it was handed over.
 * What is handed over but not yet taken by the transport is bounded by the caller: it asks {@link
 * #ready} first and is told when to go on. Ends exactly once; what comes after that is dropped.
 */
final class Reply<T> {
  /** Messages between the caller and the event loop. */
  private static final int IN_FLIGHT = 32;

  private final Context context;
  private final GrpcServerResponse<?, T> response;
  private final AtomicInteger inFlight = new AtomicInteger();
  private final AtomicBoolean over = new AtomicBoolean();
  private volatile boolean full;
  private volatile Runnable onReady = () -> {};
  private volatile Runnable onGone = () -> {};

  Reply(Context context, GrpcServerRequest<?, T> request) {
    this.context = context;
    this.response = request.response();
    // A reader that is reset, a connection that is lost, an error while writing: each comes in its
    // own way, and each means that nobody reads any more.
    request.errorHandler(_ -> gone());
    request.exceptionHandler(_ -> gone());
    response.exceptionHandler(_ -> gone());
    response.drainHandler(
        _ -> {
          full = false;
          onReady.run();
        });
  }

  /** Whether the reader keeps up. */
  boolean ready() {
    return !full && inFlight.get() < IN_FLIGHT;
  }

  /** Called on the event loop whenever a reader that was behind keeps up again. */
  void onReady(Runnable action) {
    onReady = action;
  }

  /** Called once if the reader goes away before the end; at once if it is gone already. */
  void onGone(Runnable action) {
    onGone = action;
    if (over.get()) {
      action.run();
    }
  }

  /** Runs {@code action} on the call's event loop, after what was handed over before. */
  void run(Runnable action) {
    context.runOnContext(_ -> action.run());
  }

  void send(T message) {
    inFlight.incrementAndGet();
    context.runOnContext(
        _ -> {
          boolean wasBehind = inFlight.getAndDecrement() >= IN_FLIGHT;
          if (over.get()) {
            return;
          }
          response.write(message);
          full = response.writeQueueFull();
          if (wasBehind && !full) {
            onReady.run();
          }
        });
  }

  void end(T last) {
    context.runOnContext(
        _ -> {
          if (over.compareAndSet(false, true)) {
            response.end(last);
          }
        });
  }

  void end() {
    context.runOnContext(
        _ -> {
          if (over.compareAndSet(false, true)) {
            response.end();
          }
        });
  }

  void fail(Throwable failure) {
    fail(Errors.status(failure), Errors.message(failure), Errors.details(failure));
  }

  void fail(GrpcStatus status, String message) {
    fail(status, message, null);
  }

  private void fail(GrpcStatus status, String message, @Nullable String details) {
    context.runOnContext(
        _ -> {
          if (over.compareAndSet(false, true)) {
            response.status(status).statusMessage(Errors.sendable(message));
            if (details != null) {
              response.trailers().set(Errors.DETAILS, details);
            }
            response.end();
          }
        });
  }

  private void gone() {
    if (over.compareAndSet(false, true)) {
      onGone.run();
    }
  }
}
