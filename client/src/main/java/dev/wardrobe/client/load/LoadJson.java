package dev.wardrobe.client.load;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.v1.ModelInfoResponse;
import java.util.List;
import java.util.Locale;

/** What was measured, as one JSON document. */
public final class LoadJson {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private LoadJson() {}

  /**
   * The document.
   *
   * @param info of the first case's server
   */
  public static ObjectNode of(
      ModelInfoResponse info, long seed, List<LoadResult> results, LoadResult against) {
    ObjectNode root = MAPPER.createObjectNode();
    ObjectNode model = root.putObject("model");
    model.put("name", info.getModel());
    model.put("quantization", info.getQuantization());
    model.put("parameters", info.getParameters());
    root.put("backend", info.getBackend());
    root.put("math", info.getMath());
    root.put("version", info.getVersion());
    root.put("processors", Runtime.getRuntime().availableProcessors());
    root.put("seed", seed);
    root.put("against", against.of().name());
    for (LoadResult result : results) {
      root.withArray("cases").add(of(result, against));
    }
    return root;
  }

  private static ObjectNode of(LoadResult result, LoadResult against) {
    LoadCase plan = result.of();
    ObjectNode node = MAPPER.createObjectNode();
    node.put("name", plan.name());
    node.put("loop", plan.open() ? "open" : "closed");
    if (plan.open()) {
      node.put("offered_requests_per_second", plan.rate());
    } else {
      node.put("streams", plan.streams());
    }
    node.put("adapters", plan.mix().names().equals(List.of("")) ? 0 : plan.mix().names().size());
    node.put("pick", plan.mix().pick().name().toLowerCase(Locale.ROOT).replace('_', '-'));
    node.put("zipf_exponent", plan.mix().exponent());
    node.put("prompt_tokens", plan.prompt().toString());
    node.put("shared_prompt_tokens", plan.shared());
    node.put("answer_tokens", plan.answer().toString());
    node.put("guests", plan.guests().size());
    node.put("guest_every_seconds", plan.guestEvery());
    node.put("guest_answer_tokens", plan.guestAnswer().toString());
    node.put("undisturbed", result.undisturbed());
    number(node, "tokens_per_second", result.median(LoadRun::tokensPerSecond));
    number(node, "requests_per_second", result.median(LoadRun::requestsPerSecond));
    number(node, "ratio", result.ratioTo(against, LoadRun::tokensPerSecond));
    number(
        node,
        "between_tokens_p99_ratio",
        result.ratioTo(against, run -> run.load().gaps().millis(0.99)));
    samples(node.putObject("first_token_ms"), result.together(run -> run.load().firstToken()));
    samples(node.putObject("between_tokens_ms"), result.together(run -> run.load().gaps()));
    samples(node.putObject("whole_answer_ms"), result.together(run -> run.load().whole()));
    samples(node.putObject("queue_ms"), result.together(run -> run.load().queue()));
    samples(node.putObject("swap_in_ms"), result.together(run -> run.load().swapIn()));
    samples(node.putObject("guest_first_token_ms"), result.together(r -> r.guests().firstToken()));
    samples(node.putObject("guest_swap_in_ms"), result.together(r -> r.guests().swapIn()));
    ObjectNode errors = node.putObject("errors");
    result.errors().forEach(errors::put);
    for (LoadRun run : result.all()) {
      node.withArray("runs").add(of(run));
    }
    return node;
  }

  private static ObjectNode of(LoadRun run) {
    ObjectNode node = MAPPER.createObjectNode();
    number(node, "seconds", run.seconds());
    node.put("tokens", run.load().tokens());
    node.put("requests", run.load().requests());
    node.put("swap_ins", run.load().swapIn().size());
    number(node, "tokens_per_second", run.tokensPerSecond());
    number(node, "requests_per_second", run.requestsPerSecond());
    number(node, "cached_share", run.load().cachedShare());
    samples(node.putObject("first_token_ms"), run.load().firstToken());
    samples(node.putObject("between_tokens_ms"), run.load().gaps());
    node.put("unfinished", run.unfinished());
    node.put("undisturbed", run.undisturbed());
    ObjectNode shares = node.putObject("machine");
    number(shares, "server", run.shares().server());
    number(shares, "client", run.shares().client());
    number(shares, "others", run.shares().others());
    ObjectNode server = node.putObject("server");
    server.put("steps", run.server().steps());
    number(server, "mean_sequences", run.server().meanSequences());
    number(server, "mean_adapters", run.server().meanAdapters());
    number(server, "p99_step_ms", run.server().p99StepMillis());
    server.put("adapter_bytes", run.server().adapterBytes());
    server.put("resident_bytes", run.server().residentBytes());
    server.put("resident_growth", run.server().residentGrowth());
    server.put("read_bytes", run.server().readBytes());
    return node;
  }

  private static void samples(ObjectNode node, Samples samples) {
    node.put("count", samples.size());
    number(node, "p50", samples.millis(0.5));
    number(node, "p90", samples.millis(0.9));
    number(node, "p99", samples.millis(0.99));
    number(node, "p999", samples.millis(0.999));
    number(node, "max", samples.maxMillis());
  }

  /** Null where there is none: JSON knows no NaN. */
  private static void number(ObjectNode node, String name, double value) {
    if (Double.isFinite(value)) {
      node.put(name, value);
    } else {
      node.putNull(name);
    }
  }
}
