package dev.wardrobe.http;

import dev.wardrobe.tenant.Caller;
import io.vertx.ext.web.RoutingContext;
import java.util.function.Consumer;

/** Who asks over HTTP. */
final class Callers {
  private static final String KEY = Callers.class.getName();
  private static final String END = KEY + ".end";

  private Callers() {}

  static void put(RoutingContext context, Caller caller) {
    context.put(KEY, caller);
  }

  /**
   * How an answer ends that has begun when its caller is no longer let in.
   *
   * @param end given the reason, on the event loop
   */
  static void onRefused(RoutingContext context, Consumer<String> end) {
    context.put(END, end);
  }

  /** Ends a request whose caller is no longer let in; on its event loop. */
  static void refuse(RoutingContext context, String why) {
    Consumer<String> end = context.get(END);
    if (end != null) {
      end.accept(why);
    } else {
      HttpErrors.answer(context, 401, why, null);
    }
  }

  static Caller of(RoutingContext context) {
    return context.get(KEY, Caller.NOBODY);
  }
}
