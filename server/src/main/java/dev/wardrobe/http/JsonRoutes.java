package dev.wardrobe.http;

import dev.wardrobe.grpc.GrpcServices;
import dev.wardrobe.grpc.JsonMethod;
import io.vertx.core.Context;
import io.vertx.core.Vertx;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpMethod;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import io.vertx.ext.web.handler.BodyHandler;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Executor;
import java.util.stream.IntStream;

/** The gRPC methods that are annotated with a path, as JSON. */
final class JsonRoutes {
  /** Larger bodies are not parsed on the event loop. */
  private static final int SMALL = 16 << 10;

  private final List<JsonMethod> methods;
  private final Executor workers;

  JsonRoutes(List<JsonMethod> methods, Executor workers) {
    this.methods = methods;
    this.workers = workers;
  }

  void mount(Router router) {
    BodyHandler body = BodyHandler.create(false).setBodyLimit(GrpcServices.MAX_MESSAGE_BYTES);
    // Paths that end in something before those that end in a name.
    methods.stream()
        .sorted((a, b) -> Boolean.compare(a.template().endsWith("}"), b.template().endsWith("}")))
        .forEach(
            method ->
                router
                    .routeWithRegex(HttpMethod.valueOf(method.httpMethod()), method.pattern())
                    .handler(body)
                    .handler(JsonRoutes::checkType)
                    .handler(context -> answer(method, context)));
  }

  /** Whatever a form of another page could send is not taken for JSON. */
  private static void checkType(RoutingContext context) {
    String type = context.request().getHeader(HttpHeaders.CONTENT_TYPE);
    boolean good =
        type == null
            ? context.body().length() <= 0
            : type.split(";", 2)[0].strip().equalsIgnoreCase("application/json");
    if (good) {
      context.next();
    } else {
      HttpErrors.answer(
          context,
          415,
          "content-type: expected application/json, got %s"
              .formatted(type == null ? "none" : "'" + Fields.cut(type) + "'"),
          null);
    }
  }

  private void answer(JsonMethod method, RoutingContext context) {
    String text = Objects.requireNonNullElse(context.body().asString(), "");
    List<String> variables =
        IntStream.range(0, method.variables())
            .mapToObj(i -> context.pathParam("param" + i))
            .toList();
    JsonMethod.Request request =
        new JsonMethod.Request(Origins.of(context), variables, context.queryParams(), text);
    Context loop = Objects.requireNonNull(Vertx.currentContext());
    Executor parser = text.length() <= SMALL ? Runnable::run : workers;
    method.answer(
        request,
        parser,
        loop,
        context.response(),
        action -> context.addEndHandler(_ -> action.run()));
  }
}
