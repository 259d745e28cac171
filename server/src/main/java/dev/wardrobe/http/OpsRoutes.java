package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.engine.EngineState;
import dev.wardrobe.engine.EngineStats;
import dev.wardrobe.engine.StepRecord;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Metrics;
import dev.wardrobe.telemetry.Readiness;
import io.vertx.core.Context;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpHeaders;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/** What operators and their machines ask: metrics, readiness, and what the engine has before it. */
final class OpsRoutes {
  /** How long the engine may take to say what it has: it does so between steps. */
  private static final long PATIENCE_SECONDS = 2;

  /** Steps that are told of. */
  private static final int STEPS = 32;

  private final Served served;
  private final Readiness readiness;

  OpsRoutes(Served served) {
    this.served = served;
    readiness = served.telemetry().readiness();
  }

  void mount(Router router) {
    router.get("/metrics").handler(this::metrics);
    router.get("/ready").handler(this::ready);
    router.get("/live").handler(this::live);
    router.get("/debug/state").handler(this::state);
  }

  private void metrics(RoutingContext context) {
    String accept = Objects.requireNonNullElse(context.request().getHeader(HttpHeaders.ACCEPT), "");
    Context loop = loop();
    work(
        context,
        loop,
        () -> {
          Metrics.Page page = served.telemetry().metrics().scrape(accept);
          Buffer text = Buffer.buffer(page.text());
          loop.runOnContext(
              _ -> context.response().putHeader(HttpHeaders.CONTENT_TYPE, page.type()).end(text));
        });
  }

  private void ready(RoutingContext context) {
    List<String> problems = readiness.problems();
    ObjectNode body = JsonNodeFactory.instance.objectNode().put("ready", problems.isEmpty());
    ArrayNode reasons = body.putArray("problems");
    problems.forEach(reasons::add);
    end(context, problems.isEmpty() ? 200 : 503, body);
  }

  private void live(RoutingContext context) {
    boolean live = readiness.live();
    end(context, live ? 200 : 503, JsonNodeFactory.instance.objectNode().put("live", live));
  }

  private void state(RoutingContext context) {
    Context loop = loop();
    var _ =
        served
            .engine()
            .inspect()
            .orTimeout(PATIENCE_SECONDS, TimeUnit.SECONDS)
            .whenComplete(
                (state, failure) -> work(context, loop, () -> show(context, loop, state, failure)));
  }

  private void show(
      RoutingContext context,
      Context loop,
      @Nullable EngineState state,
      @Nullable Throwable failure) {
    ObjectNode body = JsonNodeFactory.instance.objectNode();
    ArrayNode problems = body.putArray("problems");
    readiness.problems().forEach(problems::add);
    if (failure != null) {
      problems.add(
          failure instanceof TimeoutException
              ? "the engine did not say within %d s what it has".formatted(PATIENCE_SECONDS)
              : "the engine says nothing: " + failure.getMessage());
    }
    body.put("step_running_ms", served.engine().stepNanos() / 1e6);
    engine(body, served.engine().stats());
    if (state != null) {
      queue(body.putArray("queue"), state.queue());
      batch(body.putArray("batch"), state.batch());
      adapters(body.putArray("adapters"), state.adapters());
      body.put("prefetches", state.prefetches());
    }
    List<StepRecord> steps = served.engine().recentSteps(served.engine().stats().steps() - STEPS);
    ArrayNode recent = body.putArray("steps");
    for (StepRecord step : steps) {
      recent
          .addObject()
          .put("number", step.number())
          .put("sequences", step.sequences())
          .put("adapters", step.adapters())
          .put("prefill_tokens", step.prefillTokens())
          .put("decode_tokens", step.decodeTokens())
          .put("duration_ms", step.durationNanos() / 1e6)
          .put("gap_ms", step.gapNanos() / 1e6);
    }
    loop.runOnContext(_ -> end(context, 200, body));
  }

  private static void engine(ObjectNode body, EngineStats stats) {
    body.putObject("sequences")
        .put("running", stats.running())
        .put("paused", stats.paused())
        .put("waiting", stats.waiting())
        .put("submitted", stats.submitted())
        .put("finished", stats.finished())
        .put("preemptions", stats.preemptions());
    body.putObject("pages")
        .put("all", stats.blocks())
        .put("with_memory", stats.touchedBlocks())
        .put("of_adapters", stats.lentBlocks())
        .put("free", stats.freeBlocks())
        .put("cached", stats.cachedBlocks());
    body.putObject("prefix_cache")
        .put("lookup_tokens", stats.prefixLookups())
        .put("hit_tokens", stats.prefixHits())
        .put("evicted_blocks", stats.prefixEvictions());
    body.putObject("residency")
        .put("loads", stats.adapterLoads())
        .put("evictions", stats.adapterEvictions());
  }

  private static void queue(ArrayNode to, List<EngineState.Line> lines) {
    for (EngineState.Line line : lines) {
      ObjectNode each = to.addObject().put("tenant", line.tenant());
      line.adapters().forEach(each.putArray("adapters")::add);
      each.put("waiting", line.waiting()).put("oldest_ms", line.oldestNanos() / 1e6);
    }
  }

  private static void batch(ArrayNode to, List<EngineState.Seat> seats) {
    for (EngineState.Seat seat : seats) {
      ObjectNode each = to.addObject().put("id", seat.id()).put("tenant", seat.tenant());
      seat.adapters().forEach(each.putArray("adapters")::add);
      each.put("prompt_tokens", seat.promptTokens())
          .put("computed_tokens", seat.computedTokens())
          .put("generated_tokens", seat.generatedTokens())
          .put("max_tokens", seat.maxTokens())
          .put("pages", seat.pages())
          .put("ready", seat.ready())
          .put("age_ms", seat.ageNanos() / 1e6);
    }
  }

  private static void adapters(ArrayNode to, List<EngineState.Held> adapters) {
    for (EngineState.Held held : adapters) {
      to.addObject()
          .put("name", held.name())
          .put("digest", held.digest())
          .put("state", held.state())
          .put("bytes", held.bytes())
          .put("pages", held.pages())
          .put("running", held.running())
          .put("waiting", held.waiting())
          .put("pinned", held.pinned());
    }
  }

  private static Context loop() {
    return Objects.requireNonNull(Vertx.currentContext());
  }

  /** Does elsewhere what takes time. */
  private void work(RoutingContext context, Context loop, Runnable task) {
    try {
      served
          .workers()
          .execute(
              () -> {
                try {
                  task.run();
                } catch (Throwable e) {
                  loop.runOnContext(_ -> HttpErrors.answer(context, e));
                }
              });
    } catch (RejectedExecutionException e) {
      loop.runOnContext(_ -> HttpErrors.answer(context, e));
    }
  }

  private static void end(RoutingContext context, int status, JsonNode body) {
    if (!context.response().ended() && !context.response().closed()) {
      context
          .response()
          .setStatusCode(status)
          .putHeader(HttpHeaders.CONTENT_TYPE, "application/json")
          .putHeader(HttpHeaders.CACHE_CONTROL, "no-store")
          .end(body.toPrettyString() + "\n");
    }
  }
}
