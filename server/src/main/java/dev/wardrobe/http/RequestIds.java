package dev.wardrobe.http;

import io.vertx.ext.web.RoutingContext;
import java.util.UUID;
import java.util.regex.Pattern;

/** The name under which a request is answered and logged: the caller's, or one that is made. */
final class RequestIds {
  static final String HEADER = "x-request-id";

  private static final String KEY = RequestIds.class.getName();

  /** What may go into logs and headers as it is. */
  private static final Pattern PLAIN = Pattern.compile("[\\x21-\\x7e]{1,128}");

  private RequestIds() {}

  static void handle(RoutingContext context) {
    String given = context.request().getHeader(HEADER);
    String id =
        given != null && PLAIN.matcher(given).matches() ? given : UUID.randomUUID().toString();
    context.put(KEY, id);
    context.response().putHeader(HEADER, id);
    context.next();
  }

  static String of(RoutingContext context) {
    return context.get(KEY, "");
  }
}
