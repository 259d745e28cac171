package dev.wardrobe.http;

import dev.wardrobe.serve.Served;
import io.vertx.core.http.HttpHeaders;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import io.vertx.ext.web.handler.BodyHandler;
import java.util.Locale;

/** What OpenAI's clients ask for, and vLLM's additions to it. */
final class OpenAiRoutes {
  /** Up to here a body is read on the event loop: that takes less than to hand it over. */
  private static final int SMALL = 16 << 10;

  private final Served served;
  private final ModelNames names;

  OpenAiRoutes(Served served) {
    this.served = served;
    names = new ModelNames(served);
  }

  /** Answers a body. */
  interface Endpoint {
    /** Begins to answer; what is thrown is the answer, too. */
    void answer(Exchange exchange, Fields fields) throws Exception;
  }

  void mount(Router router) {
    ModelList models = new ModelList(served, names);
    models.mount(router);
    post(router, "/v1/load_lora_adapter", models::load);
    post(router, "/v1/unload_lora_adapter", models::unload);
    post(router, "/v1/chat/completions", new ChatCompletions(served, names)::answer);
    post(router, "/v1/completions", new Completions(served, names)::answer);
    post(router, "/v1/embeddings", new Embeddings(served, names)::answer);
    Tokens tokens = new Tokens(served, names);
    post(router, "/tokenize", tokens::tokenize);
    post(router, "/detokenize", tokens::detokenize);
  }

  private void post(Router router, String path, Endpoint endpoint) {
    router.post(path).handler(OpenAiRoutes::checkType);
    router
        .post(path)
        .handler(BodyHandler.create(false).setBodyLimit(JsonBody.LARGEST))
        .handler(context -> read(context, endpoint))
        .failureHandler(OpenAiRoutes::failed);
  }

  /**
   * Only JSON: a page of another origin can have a browser send forms and plain text without being
   * asked whether it may.
   */
  private static void checkType(RoutingContext context) {
    String type = context.request().getHeader(HttpHeaders.CONTENT_TYPE);
    String plain = type == null ? "" : type.split(";", 2)[0].strip().toLowerCase(Locale.ROOT);
    if (plain.equals("application/json")) {
      context.next();
      return;
    }
    HttpErrors.answer(
        context,
        415,
        "content-type: expected application/json, got %s; with curl: -H 'content-type:"
                .formatted(type == null ? "none" : Fields.cut(type))
            + " application/json'",
        null);
  }

  private static void failed(RoutingContext context) {
    if (context.statusCode() == 413 && !context.response().headWritten()) {
      HttpErrors.answer(
          context,
          413,
          "body: expected at most %d bytes, got more".formatted(JsonBody.LARGEST),
          null);
    } else {
      HttpErrors.answer(context);
    }
  }

  private void read(RoutingContext context, Endpoint endpoint) {
    Exchange exchange = new Exchange(context);
    byte[] body =
        context.body().buffer() == null ? new byte[0] : context.body().buffer().getBytes();
    if (body.length <= SMALL) {
      answer(exchange, body, endpoint);
      return;
    }
    try {
      served.workers().execute(() -> answer(exchange, body, endpoint));
    } catch (RuntimeException e) {
      exchange.fail(e);
    }
  }

  private static void answer(Exchange exchange, byte[] body, Endpoint endpoint) {
    try {
      endpoint.answer(exchange, new Fields(JsonBody.read(body), ""));
    } catch (Exception e) {
      exchange.fail(e);
    }
  }
}
