package dev.wardrobe.http;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.EventLog;
import dev.wardrobe.adapter.RegistryEvent;
import dev.wardrobe.grpc.AdapterMessages;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Places;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.v1.AdapterEvent;
import io.vertx.core.Context;
import io.vertx.core.Vertx;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.util.Objects;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * {@code GET /v1/adapters:watch}: WatchAdapters as server-sent events. Each is an AdapterEvent in
 * JSON, with its revision as its id; it goes on after the revision in {@code Last-Event-ID}, else
 * that in {@code after_revision}, else after the latest. An event named {@code error} is the last.
 */
final class WatchRoutes {
  private static final int MOST_AT_ONCE = 512;
  private static final int MOST_OF_A_TENANT = MOST_AT_ONCE / 8;

  /** So that a proxy, or whoever reads, can tell a quiet server from one that is gone. */
  private static final long HEARTBEAT_MILLIS = 15_000;

  private final Vertx vertx;
  private final AdapterRegistry adapters;
  private final Set<Reader> readers = ConcurrentHashMap.newKeySet();
  private final Places places = new Places("readers of events", MOST_AT_ONCE, MOST_OF_A_TENANT);

  WatchRoutes(Vertx vertx, AdapterRegistry adapters) {
    this.vertx = vertx;
    this.adapters = adapters;
  }

  void mount(Router router) {
    router.routeWithRegex(HttpMethod.GET, "/v1/adapters:watch").handler(this::watch);
  }

  /** Ends all of them: they would never end by themselves. On any thread. */
  void stop() {
    readers.forEach(
        reader ->
            reader.loop.runOnContext(
                _ -> reader.fail(503, "the server is stopping; watch again once it is up")));
  }

  private void watch(RoutingContext context) {
    try {
      Caller caller = Callers.of(context);
      String full = places.take(caller);
      if (full != null) {
        HttpErrors.answer(context, 429, full, null);
        return;
      }
      context.addEndHandler(_ -> places.giveBack(caller));
      new Reader(context, after(context)).begin();
    } catch (AdapterException e) {
      HttpErrors.answer(context, e);
    }
  }

  private static OptionalLong after(RoutingContext context) throws AdapterException {
    String header = context.request().getHeader("last-event-id");
    String given = header != null ? header : context.queryParams().get("after_revision");
    if (given == null) {
      return OptionalLong.empty();
    }
    try {
      return OptionalLong.of(Long.parseUnsignedLong(given));
    } catch (NumberFormatException e) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected a revision, a whole number, got '%s'"
              .formatted(header != null ? "Last-Event-ID" : "after_revision", given),
          e);
    }
  }

  /** One that reads. All of it runs on the request's event loop. */
  private final class Reader {
    private final Context loop = Objects.requireNonNull(Vertx.currentContext());
    private final RoutingContext context;
    private final HttpServerResponse response;
    private final EventLog.Watch watch;
    private long heartbeat;
    private boolean over;

    Reader(RoutingContext context, OptionalLong after) throws AdapterException {
      this.context = context;
      this.response = context.response();
      this.watch =
          new VisibleAdapters(adapters, Callers.of(context))
              .watch(after, () -> loop.runOnContext(_ -> drain()));
    }

    void begin() {
      readers.add(this);
      response
          .setChunked(true)
          .putHeader(HttpHeaders.CONTENT_TYPE, "text/event-stream")
          .putHeader(HttpHeaders.CACHE_CONTROL, "no-store")
          // Proxies of nginx's kind would keep events until they have many.
          .putHeader("x-accel-buffering", "no");
      context.addEndHandler(_ -> end());
      Callers.onRefused(context, why -> fail(401, why));
      response.drainHandler(_ -> drain());
      heartbeat =
          vertx.setPeriodic(
              HEARTBEAT_MILLIS,
              _ -> {
                if (!over && !response.writeQueueFull()) {
                  response.write(":\n\n");
                }
              });
      send(
          AdapterEvent.newBuilder()
              .setKind(AdapterEvent.Kind.KIND_WATCHING)
              .setRevision(watch.revision())
              .build());
      drain();
    }

    private void drain() {
      try {
        while (!over && !response.writeQueueFull()) {
          RegistryEvent event = watch.next();
          if (event == null) {
            return;
          }
          send(AdapterMessages.event(event));
        }
      } catch (AdapterException e) {
        fail(HttpErrors.status(e), String.valueOf(e.getMessage()));
      }
    }

    private void send(AdapterEvent event) {
      response.write("id: %d\ndata: %s\n\n".formatted(event.getRevision(), ProtoJson.of(event)));
    }

    /** Says why it ends. */
    void fail(int status, String why) {
      if (!over) {
        end();
        response.end("event: error\ndata: %s\n\n".formatted(HttpErrors.body(status, why, null)));
      }
    }

    private void end() {
      if (!over) {
        over = true;
        vertx.cancelTimer(heartbeat);
        watch.close();
        readers.remove(this);
      }
    }
  }
}
