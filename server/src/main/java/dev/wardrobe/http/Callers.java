package dev.wardrobe.http;

import dev.wardrobe.tenant.Caller;
import io.vertx.ext.web.RoutingContext;

/** Who asks over HTTP. */
final class Callers {
  private static final String KEY = Callers.class.getName();

  private Callers() {}

  static void put(RoutingContext context, Caller caller) {
    context.put(KEY, caller);
  }

  static Caller of(RoutingContext context) {
    return context.get(KEY, Caller.NOBODY);
  }
}
