package dev.wardrobe.http;

import dev.wardrobe.telemetry.Origin;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.ext.web.RoutingContext;

/** How requests over HTTP came here. */
final class Origins {
  private Origins() {}

  static Origin of(RoutingContext context) {
    HttpServerRequest request = context.request();
    return new Origin("http", request.getHeader("traceparent"), request.getHeader("tracestate"));
  }
}
