package dev.wardrobe.http;

import io.vertx.core.http.HttpMethod;
import io.vertx.ext.web.Route;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;

/** Answers what no route is for: 405 with the methods that its path has, or 404 if it has none. */
final class NoRoute {
  private final List<Offer> offers = new ArrayList<>();

  private record Offer(Set<HttpMethod> methods, Pattern path) {}

  /** Behind all routes that {@code router} has. */
  NoRoute(Router router) {
    for (Route route : router.getRoutes()) {
      Set<HttpMethod> methods = route.methods();
      String path = route.getPath();
      if (methods != null && !methods.isEmpty()) {
        offers.add(
            new Offer(methods, path == null ? Pattern.compile(route.getName()) : pattern(path)));
      }
    }
  }

  /** Of a star the router keeps what is before it. */
  private static Pattern pattern(String path) {
    boolean all = path.endsWith("/") && path.length() > 1;
    return Pattern.compile(Pattern.quote(path) + (all ? ".+" : ""));
  }

  void answer(RoutingContext context) {
    HttpMethod asked = context.request().method();
    String path = context.normalizedPath();
    Set<String> allowed = new TreeSet<>();
    for (Offer offer : offers) {
      if (offer.path().matcher(path).matches()) {
        offer.methods().forEach(method -> allowed.add(method.name()));
      }
    }
    if (allowed.isEmpty() || allowed.contains(asked.name())) {
      HttpErrors.answer(context, 404, "nothing is at %s %s".formatted(asked, path), null);
      return;
    }
    String expected = String.join(", ", allowed);
    context.response().putHeader("allow", expected);
    HttpErrors.answer(
        context, 405, "%s: expected %s, got %s".formatted(path, expected, asked), null);
  }
}
