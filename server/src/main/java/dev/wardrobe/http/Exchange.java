package dev.wardrobe.http;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.telemetry.Origin;
import dev.wardrobe.tenant.Caller;
import io.vertx.core.Context;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.ext.web.RoutingContext;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A request and its answer, usable from any thread: everything is written on the request's own
 * event loop. It is answered once; what comes after that is dropped.
 */
final class Exchange {
  private final RoutingContext routing;
  private final Context context;
  private final AtomicBoolean over = new AtomicBoolean();
  private volatile Runnable onGone = () -> {};

  /** For a request whose event loop this is. */
  Exchange(RoutingContext routing) {
    this.routing = routing;
    context = Objects.requireNonNull(routing.vertx().getOrCreateContext());
    // An answer that was given has ended before. Else a stream was reset, or a connection lost:
    // nobody reads any more. (The response's own handlers are the routing's, and there is one
    // each.)
    routing.addEndHandler(_ -> gone());
  }

  String id() {
    return RequestIds.of(routing);
  }

  Caller caller() {
    return Callers.of(routing);
  }

  Origin origin() {
    return Origins.of(routing);
  }

  HttpServerResponse response() {
    return routing.response();
  }

  RoutingContext routing() {
    return routing;
  }

  /** Called once if the reader goes away before the end; at once if it is gone already. */
  void onGone(Runnable action) {
    onGone = action;
    if (over.get()) {
      action.run();
    }
  }

  private void gone() {
    if (end()) {
      onGone.run();
    }
  }

  /** Ends what is done for an answer that cannot be given, as if its reader had gone away. */
  void abandon() {
    end();
    onGone.run();
  }

  /** Runs {@code action} on the event loop, after what was handed over before. */
  void run(Runnable action) {
    context.runOnContext(_ -> action.run());
  }

  /** True for the one who ends it. */
  boolean end() {
    return over.compareAndSet(false, true);
  }

  boolean isOver() {
    return over.get();
  }

  /** Answers with JSON, which this thread writes. */
  void answer(JsonNode body) {
    byte[] bytes;
    try {
      bytes = JsonBody.MAPPER.writeValueAsBytes(body);
    } catch (JsonProcessingException e) {
      fail(e);
      return;
    }
    answer("application/json", bytes);
  }

  void answer(String type, byte[] body) {
    run(
        () -> {
          if (end()) {
            response().putHeader(HttpHeaders.CONTENT_TYPE, type).end(Buffer.buffer(body));
          }
        });
  }

  void fail(Throwable failure) {
    run(
        () -> {
          if (end()) {
            HttpErrors.answer(routing, failure);
          }
        });
  }
}
