package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterPage;
import dev.wardrobe.serve.Served;
import dev.wardrobe.tenant.VisibleAdapters;
import io.vertx.core.http.HttpMethod;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The models that can be asked for, which are the base and its adapters; vLLM's way to load them.
 */
final class ModelList {
  private static final String PATH = "/v1/models";
  private static final int PAGE = 1000;

  private final Served served;
  private final ModelNames names;
  private final Instant started = Instant.now();

  ModelList(Served served, ModelNames names) {
    this.served = served;
    this.names = names;
  }

  void mount(Router router) {
    router.get(PATH).handler(context -> work(context, this::list));
    router.get(PATH + "/*").handler(context -> work(context, this::retrieve));
    for (String path : new String[] {"/health", "/ping"}) {
      router.route(HttpMethod.GET, path).handler(this::health);
    }
    router.post("/ping").handler(this::health);
    router.get("/version").handler(context -> work(context, this::version));
  }

  /** Answers a request without a body. */
  private interface Listing {
    ObjectNode of(Exchange exchange) throws Exception;
  }

  private void work(RoutingContext context, Listing listing) {
    Exchange exchange = new Exchange(context);
    try {
      served
          .workers()
          .execute(
              () -> {
                try {
                  exchange.answer(listing.of(exchange));
                } catch (Exception e) {
                  exchange.fail(e);
                }
              });
    } catch (RuntimeException e) {
      exchange.fail(e);
    }
  }

  private void health(RoutingContext context) {
    List<String> problems = served.telemetry().readiness().problems();
    if (problems.isEmpty()) {
      context.response().end();
    } else {
      HttpErrors.answer(context, 503, String.join("; ", problems), null);
    }
  }

  private ObjectNode version(Exchange exchange) {
    return JsonNodeFactory.instance.objectNode().put("version", served.info().get().getVersion());
  }

  /** The adapters that there are for who asks. */
  private VisibleAdapters of(Exchange exchange) {
    return new VisibleAdapters(served.adapters(), exchange.caller());
  }

  private ObjectNode list(Exchange exchange) {
    ObjectNode list = JsonNodeFactory.instance.objectNode().put("object", "list");
    ArrayNode data = list.putArray("data");
    data.add(base());
    VisibleAdapters adapters = of(exchange);
    Set<String> aliases = new TreeSet<>();
    String after = null;
    do {
      AdapterPage page = adapters.page(after, PAGE);
      for (AdapterEntry entry : page.entries()) {
        data.add(adapter(entry.name(), entry));
        int at = entry.name().indexOf('@');
        if (at > 0) {
          String name = entry.name().substring(0, at);
          entry.aliases().forEach(alias -> aliases.add(name + "@" + alias));
        }
      }
      after = page.next();
    } while (after != null);
    for (String alias : aliases) {
      data.add(alias(adapters, alias));
    }
    return list;
  }

  private ObjectNode retrieve(Exchange exchange) throws FieldException, AdapterException {
    String path = Objects.requireNonNull(exchange.routing().request().path());
    String id =
        URLDecoder.decode(
            path.substring(PATH.length() + 1).replace("+", "%2B"), StandardCharsets.UTF_8);
    if (id.equals(names.base())) {
      return base();
    }
    try {
      return adapter(id, of(exchange).get(id));
    } catch (AdapterException e) {
      return switch (e.reason()) {
        // An alias that stands for several.
        case INVALID -> alias(of(exchange), id);
        case NOT_FOUND ->
            throw FieldException.noModel("model", names.unknown(exchange.caller(), id));
        default -> throw e;
      };
    }
  }

  private ObjectNode base() {
    return model(names.base(), started, names.base(), null);
  }

  private ObjectNode adapter(String id, AdapterEntry entry) {
    ObjectNode model =
        model(
            id,
            entry.published() == null ? started : entry.published(),
            entry.digest().isEmpty() ? entry.name() : entry.digest(),
            names.base());
    if (!entry.problem().isEmpty()) {
      model.put("problem", entry.problem());
    }
    return model;
  }

  private ObjectNode alias(VisibleAdapters adapters, String id) {
    try {
      return adapter(id, adapters.get(id));
    } catch (AdapterException e) {
      // It divides its requests among several.
      return model(id, started, id, names.base());
    }
  }

  private ObjectNode model(String id, Instant created, String root, @Nullable String parent) {
    return JsonNodeFactory.instance
        .objectNode()
        .put("id", id)
        .put("object", "model")
        .put("created", created.getEpochSecond())
        .put("owned_by", "wardrobe")
        .put("root", root)
        .put("parent", parent)
        .put("max_model_len", served.engine().contextLength());
  }

  /** vLLM's: loads an adapter from under a root. */
  void load(Exchange exchange, Fields fields) throws FieldException {
    String name = fields.requiredText("lora_name");
    String path = fields.requiredText("lora_path");
    boolean replace = fields.flag("load_inplace", false);
    fields.withoutEffect("base_model_name", "lora_int_id");
    fields.end();
    // The list may be long.
    served.workers().execute(() -> load(exchange, name, path, replace));
  }

  private void load(Exchange exchange, String name, String path, boolean replace) {
    if (!replace && isLoaded(of(exchange), name)) {
      exchange.fail(
          FieldException.of(
              "lora_name",
              "'%s' is loaded already; give \"load_inplace\": true to load it anew, or another name"
                  .formatted(Fields.cut(name))));
      return;
    }
    var _ =
        of(exchange)
            .load(name, path)
            .whenComplete(
                (entry, failure) -> {
                  if (failure != null) {
                    exchange.fail(failure);
                  } else {
                    exchange.answer(
                        "text/plain; charset=utf-8",
                        "Success: LoRA adapter '%s' added successfully."
                            .formatted(name)
                            .getBytes(StandardCharsets.UTF_8));
                  }
                });
  }

  private static boolean isLoaded(VisibleAdapters adapters, String name) {
    return adapters.list().stream().anyMatch(entry -> entry.name().equals(name));
  }

  /** vLLM's: forgets an adapter. */
  void unload(Exchange exchange, Fields fields) throws FieldException {
    String name = fields.requiredText("lora_name");
    fields.withoutEffect("lora_int_id");
    fields.end();
    served
        .workers()
        .execute(
            () -> {
              try {
                of(exchange).unload(name);
                exchange.answer(
                    "text/plain; charset=utf-8",
                    "Success: LoRA adapter '%s' removed successfully."
                        .formatted(name)
                        .getBytes(StandardCharsets.UTF_8));
              } catch (AdapterException e) {
                exchange.fail(e);
              }
            });
  }
}
