package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.core.http.HttpVersion;
import io.vertx.ext.web.RoutingContext;
import io.vertx.ext.web.handler.HttpException;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * An answer as server-sent events. What is written is bounded by who writes: it asks {@link #ready}
 * first and is told when to go on.
 *
 * <p>Writers hand over what writes ({@link #post}); that runs on the event loop, as do all methods
 * but {@link #post} and {@link #ready}. The head is sent with the first event: until then a failure
 * is an error with a status.
 */
final class EventStream {
  /** Actions between the writer and the event loop. */
  private static final int IN_FLIGHT = 32;

  /** After so long without an event proxies, and some clients, begin to think of giving up. */
  private static final long HEARTBEAT_MILLIS = 10_000;

  private final Exchange exchange;
  private final HttpServerResponse response;
  private final long heartbeatMillis;
  private final AtomicInteger inFlight = new AtomicInteger();
  private volatile boolean full;
  private volatile Runnable onReady = () -> {};

  private boolean written;
  private boolean beating;

  EventStream(Exchange exchange) {
    this(exchange, HEARTBEAT_MILLIS);
  }

  EventStream(Exchange exchange, long heartbeatMillis) {
    this.exchange = exchange;
    this.heartbeatMillis = heartbeatMillis;
    Callers.onRefused(
        exchange.routing(),
        why -> {
          fail(new HttpException(401, why));
          exchange.abandon();
        });
    response = exchange.response();
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

  /** Runs {@code write} on the event loop, unless the stream has ended; from any thread. */
  void post(Runnable write) {
    inFlight.incrementAndGet();
    exchange.run(
        () -> {
          boolean wasBehind = inFlight.getAndDecrement() >= IN_FLIGHT;
          if (exchange.isOver()) {
            return;
          }
          try {
            write.run();
          } catch (RuntimeException e) {
            fail(e);
            exchange.abandon();
          }
          if (wasBehind && !full) {
            onReady.run();
          }
        });
  }

  /** From now on a comment is sent whenever nothing else is for long. */
  void beat() {
    if (beating) {
      return;
    }
    beating = true;
    RoutingContext routing = exchange.routing();
    long timer =
        routing
            .vertx()
            .setPeriodic(
                heartbeatMillis,
                _ -> {
                  if (!written) {
                    write(": waiting\n\n");
                  }
                  written = false;
                });
    // With the answer, not at the next beat: until then it would keep all of the request.
    routing.addEndHandler(_ -> routing.vertx().cancelTimer(timer));
  }

  void send(JsonNode event) {
    send(event.toString());
  }

  /**
   * @param data without line breaks
   */
  void send(String data) {
    written = true;
    write("data: " + data + "\n\n");
  }

  private void write(String text) {
    if (!exchange.isOver()) {
      head();
      response.write(text);
      full = response.writeQueueFull();
    }
  }

  private void head() {
    if (!response.headWritten()) {
      response
          .putHeader(HttpHeaders.CONTENT_TYPE, "text/event-stream; charset=utf-8")
          .putHeader(HttpHeaders.CACHE_CONTROL, "no-cache")
          // nginx would collect them to pages.
          .putHeader("x-accel-buffering", "no");
      if (exchange.routing().request().version() != HttpVersion.HTTP_2) {
        response.setChunked(true);
      }
    }
  }

  void end() {
    if (exchange.end()) {
      head();
      response.end();
    }
  }

  /** Ends with an error: with its status if nothing was sent, as an event otherwise. */
  void fail(Throwable failure) {
    if (exchange.end()) {
      if (!response.headWritten()) {
        HttpErrors.answer(exchange.routing(), failure);
      } else {
        String body = HttpErrors.body(exchange.routing(), failure).toString();
        response.end("data: %s\n\ndata: [DONE]\n\n".formatted(body));
      }
    }
  }
}
