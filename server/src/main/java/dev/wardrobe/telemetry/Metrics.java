package dev.wardrobe.telemetry;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.engine.Distribution;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineState;
import dev.wardrobe.engine.EngineState.Held;
import dev.wardrobe.engine.EngineStats;
import dev.wardrobe.v1.MemoryUse;
import dev.wardrobe.v1.ModelInfoResponse;
import io.micrometer.core.instrument.Clock;
import io.micrometer.core.instrument.binder.jvm.ClassLoaderMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmGcMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmMemoryMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmThreadMetrics;
import io.micrometer.core.instrument.binder.system.FileDescriptorMetrics;
import io.micrometer.core.instrument.binder.system.ProcessorMetrics;
import io.micrometer.core.instrument.binder.system.UptimeMetrics;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.prometheus.metrics.model.registry.PrometheusRegistry;
import io.prometheus.metrics.model.snapshots.MetricSnapshots;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * What {@code /metrics} says. Counts are kept where things happen and read when somebody asks, so
 * that counting costs next to nothing. Names that begin with {@code vllm:} are those of vLLM, with
 * its meanings, for dashboards and gateways that know it; docs/operations.md describes all.
 */
public final class Metrics implements AutoCloseable {
  /** Who asks for this gets OpenMetrics. */
  private static final String OPEN_METRICS = "application/openmetrics-text";

  private static final String OPEN_METRICS_TYPE =
      "application/openmetrics-text; version=1.0.0; charset=utf-8";
  private static final String TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8";
  private static final String END = "# EOF\n";

  /** How long the engine may take to say what it has. */
  private static final long PATIENCE_MILLIS = 500;

  private final PrometheusMeterRegistry jvm;
  private final JvmGcMetrics collections = new JvmGcMetrics();
  private final Engine engine;
  private final AdapterRegistry adapters;
  private final Supplier<ModelInfoResponse> info;
  private final Readiness readiness;
  private final String model;
  private final RequestMeters requests = new RequestMeters();
  private final Distribution loopDelay =
      new Distribution(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5);
  private final LongAdder dropped = new LongAdder();
  private volatile EngineState last = new EngineState(List.of(), List.of(), List.of(), 0);

  /**
   * What was scraped.
   *
   * @param type the content type
   */
  public record Page(String type, String text) {}

  /**
   * @param model the base's name, as requests may have it
   */
  public Metrics(
      String model,
      Engine engine,
      AdapterRegistry adapters,
      Supplier<ModelInfoResponse> info,
      Readiness readiness) {
    this.model = model;
    this.engine = engine;
    this.adapters = adapters;
    this.info = info;
    this.readiness = readiness;
    PrometheusRegistry registry = new PrometheusRegistry();
    jvm = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT, registry, Clock.SYSTEM);
    new ClassLoaderMetrics().bindTo(jvm);
    new JvmMemoryMetrics().bindTo(jvm);
    new JvmThreadMetrics().bindTo(jvm);
    new ProcessorMetrics().bindTo(jvm);
    new FileDescriptorMetrics().bindTo(jvm);
    new UptimeMetrics().bindTo(jvm);
    collections.bindTo(jvm);
    registry.register(this::collect);
  }

  /** Counts a request that has ended. */
  public void ended(RequestReport report) {
    requests.add(report);
  }

  /** Counts a report that went nowhere but here. */
  void dropped() {
    dropped.increment();
  }

  /** By how much later than it should an event loop did something, in seconds. */
  public Distribution loopDelay() {
    return loopDelay;
  }

  /**
   * All metrics. Waits for the end of a step, but not for long.
   *
   * @param accept the caller's Accept header, or empty
   */
  public Page scrape(String accept) {
    last = state();
    boolean open = accept.contains(OPEN_METRICS);
    String type = open ? OPEN_METRICS_TYPE : TEXT_TYPE;
    String text = jvm.scrape(type);
    return open
        ? new Page(type, text.substring(0, text.lastIndexOf(END)) + byHand() + END)
        : new Page(type, text + byHand());
  }

  /** The latest that can be had. */
  private EngineState state() {
    try {
      return engine.inspect().get(PATIENCE_MILLIS, TimeUnit.MILLISECONDS);
    } catch (TimeoutException | ExecutionException e) {
      return last;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return last;
    }
  }

  /**
   * What the library refuses, since its names end as other types' do: a histogram in {@code
   * _total}, a gauge in {@code _info}.
   */
  private String byHand() {
    return stepTokens() + loraInfo();
  }

  private String stepTokens() {
    Distribution.Snapshot values = engine.meters().stepTokens().snapshot();
    String name = "vllm:iteration_tokens_total";
    String labels = "engine=\"0\",model_name=\"" + quote(model) + "\"";
    StringBuilder text = new StringBuilder();
    text.append("# HELP %s Tokens in a step.\n# TYPE %s histogram\n".formatted(name, name));
    long below = 0;
    for (int i = 0; i < values.bounds().length; i++) {
      below += values.counts()[i];
      String bound = Double.isInfinite(values.bounds()[i]) ? "+Inf" : "" + values.bounds()[i];
      text.append("%s_bucket{%s,le=\"%s\"} %d\n".formatted(name, labels, bound, below));
    }
    text.append("%s_count{%s} %d\n".formatted(name, labels, below));
    text.append("%s_sum{%s} %s\n".formatted(name, labels, values.sum()));
    return text.toString();
  }

  /** The gauge by which gateways send requests to where their adapter is; its value is the time. */
  private String loraInfo() {
    int most = engine.options().maxSequences();
    String running =
        last.adapters().stream()
            .filter(held -> held.state().equals("ready"))
            .sorted(
                Comparator.comparing((Held held) -> held.running() == 0)
                    .thenComparing(Comparator.comparingLong(Held::lastUse).reversed()))
            .limit(most)
            .map(Held::name)
            .collect(Collectors.joining(","));
    String waiting =
        last.adapters().stream()
            .filter(held -> held.waiting() > 0)
            .sorted(Comparator.comparingInt(Held::waiting).reversed())
            .limit(most)
            .map(Held::name)
            .collect(Collectors.joining(","));
    return String.format(
        Locale.ROOT,
        """
        # HELP vllm:lora_requests_info Adapters in memory and adapters that requests wait for; the value is the time in seconds since 1970.
        # TYPE vllm:lora_requests_info gauge
        vllm:lora_requests_info{max_lora="%d",running_lora_adapters="%s",waiting_lora_adapters="%s"} %.3f
        """,
        most,
        quote(running),
        quote(waiting),
        System.currentTimeMillis() / 1e3);
  }

  private static String quote(String text) {
    return text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
  }

  private MetricSnapshots collect() {
    Families families = new Families();
    EngineStats stats = engine.stats();
    ModelInfoResponse about = info.get();
    vllm(families.with("model_name", model, "engine", "0"), stats);
    ours(families.with(), stats, about);
    return families.snapshots();
  }

  private void vllm(Families.Labelled f, EngineStats stats) {
    f.gauge(
        "vllm:num_requests_running", "Sequences in the batch.", stats.running() + stats.paused());
    f.gauge("vllm:num_requests_waiting", "Sequences in the queue.", stats.waiting());
    int blocks = stats.blocks() - stats.lentBlocks();
    double usage = blocks == 0 ? 0 : 1 - (double) stats.freeBlocks() / blocks;
    String kv = "Share of the KV blocks that sequences hold, 0 to 1.";
    f.gauge("vllm:kv_cache_usage_perc", kv, usage);
    f.gauge("vllm:gpu_cache_usage_perc", kv + " The older name.", usage);
    f.counter(
        "vllm:prefix_cache_queries",
        "Prompt tokens looked up in the prefix cache.",
        stats.prefixLookups());
    f.counter("vllm:prefix_cache_hits", "Of those, the ones that were found.", stats.prefixHits());
    f.counter(
        "vllm:num_preemptions", "Sequences whose pages were taken away.", stats.preemptions());
    f.counter("vllm:prompt_tokens", "Prompt tokens computed.", engine.meters().promptTokens());
    f.counter("vllm:generation_tokens", "Tokens generated.", engine.meters().generatedTokens());
    for (Map.Entry<String, Long> finish : requests.finishes().entrySet()) {
      f.and("finished_reason", finish.getKey())
          .counter(
              "vllm:request_success", "Requests that ended, by why they did.", finish.getValue());
    }
    f.histogram(
        "vllm:time_to_first_token_seconds",
        "From a request's arrival to its first token.",
        requests.firstToken);
    f.histogram(
        "vllm:inter_token_latency_seconds",
        "From one token of a sequence to its next.",
        engine.meters().tokenSeconds());
    f.histogram(
        "vllm:time_per_output_token_seconds",
        "From one token of a sequence to its next. The older name.",
        engine.meters().tokenSeconds());
    f.histogram(
        "vllm:request_time_per_output_token_seconds",
        "A request's mean time for each token after the first.",
        requests.perToken);
    f.histogram(
        "vllm:e2e_request_latency_seconds", "From a request's arrival to its end.", requests.total);
    f.histogram(
        "vllm:request_queue_time_seconds", "Waiting for a place in the batch.", requests.queue);
    f.histogram(
        "vllm:request_inference_time_seconds", "From the batch to the end.", requests.inference);
    f.histogram(
        "vllm:request_prefill_time_seconds",
        "From the batch to the first token.",
        requests.prefill);
    f.histogram(
        "vllm:request_decode_time_seconds", "From the first token to the end.", requests.decode);
    f.histogram("vllm:request_prompt_tokens", "A request's prompt.", requests.promptTokens);
    f.histogram("vllm:request_generation_tokens", "A request's answers.", requests.generatedTokens);
    f.histogram(
        "vllm:request_params_max_tokens", "What max_tokens requests have.", requests.maxTokens);
    f.histogram("vllm:request_params_n", "What n requests have.", requests.choices);
    f.info(
        "vllm:cache_config",
        "The KV cache.",
        "block_size",
        Integer.toString(dev.wardrobe.compute.KvShape.BLOCK_TOKENS),
        "num_gpu_blocks",
        Integer.toString(stats.blocks()),
        "cache_dtype",
        engine.kvShape().type().name().toLowerCase(Locale.ROOT),
        "enable_prefix_caching",
        "True");
  }

  private void ours(Families.Labelled f, EngineStats stats, ModelInfoResponse about) {
    f.info(
        "wardrobe_build",
        "What runs here.",
        "version",
        about.getVersion(),
        "java",
        Runtime.version().toString(),
        "model",
        about.getModel(),
        "backend",
        about.getBackend(),
        "math",
        about.getMath(),
        "fingerprint",
        about.getFingerprint());
    f.gauge("wardrobe_ready", "1 if requests are welcome, else 0.", readiness.ready() ? 1 : 0);
    for (Map.Entry<String, Long> status : requests.statuses().entrySet()) {
      String[] key = status.getKey().split(" ", 2);
      f.and("frontend", key[0], "status", key[1])
          .counter("wardrobe_requests", "Requests that ended.", status.getValue());
    }
    f.counter(
        "wardrobe_reports_dropped",
        "Requests of which logs and traces say nothing, since they could not keep up.",
        dropped.sum());
    f.counter("wardrobe_steps", "Steps.", engine.meters().stepSeconds().snapshot().count());
    f.histogram("wardrobe_step_seconds", "What a step took.", engine.meters().stepSeconds());
    f.histogram("wardrobe_step_sequences", "Sequences in a step.", engine.meters().stepSequences());
    f.histogram(
        "wardrobe_step_adapters",
        "Distinct adapters in a step; the base counts as one.",
        engine.meters().stepAdapters());
    f.gauge(
        "wardrobe_step_running_seconds",
        "How long the step that is being computed has taken so far.",
        engine.stepNanos() / 1e9);
    f.gauge("wardrobe_sequences_paused", "Sequences whose reader is behind.", stats.paused());
    f.counter(
        "wardrobe_prompt_tokens_cached",
        "Prompt tokens of requests that were not computed again.",
        requests.cachedTokens.sum());
    pages(f, stats);
    adapters(f, stats);
    memory(f, about.getMemory());
    f.histogram(
        "wardrobe_event_loop_delay_seconds",
        "By how much later than it should an event loop did something.",
        loopDelay);
  }

  private static void pages(Families.Labelled f, EngineStats stats) {
    String help = "KV blocks, by what they are for.";
    String name = "wardrobe_kv_blocks";
    int free = stats.freeBlocks() - stats.cachedBlocks();
    f.and("state", "free").gauge(name, help, free);
    f.and("state", "cached").gauge(name, help, stats.cachedBlocks());
    f.and("state", "adapters").gauge(name, help, stats.lentBlocks());
    f.and("state", "used")
        .gauge(name, help, stats.blocks() - stats.lentBlocks() - stats.freeBlocks());
    f.counter(
        "wardrobe_prefix_cache_evictions",
        "Blocks that the prefix cache gave up.",
        stats.prefixEvictions());
  }

  private void adapters(Families.Labelled f, EngineStats stats) {
    Map<AdapterEntry.Place, long[]> places = new EnumMap<>(AdapterEntry.Place.class);
    for (AdapterEntry.Place place : AdapterEntry.Place.values()) {
      places.put(place, new long[2]);
    }
    // Of names for the same content one counts.
    adapters.list().stream()
        .collect(
            Collectors.toMap(
                entry -> entry.digest().isEmpty() ? entry.name() : entry.digest(),
                entry -> entry,
                (a, _) -> a))
        .values()
        .forEach(
            entry -> {
              long[] sums = places.getOrDefault(entry.place(), new long[2]);
              sums[0]++;
              sums[1] += entry.bytes();
            });
    places.forEach(
        (place, sums) -> {
          Families.Labelled at = f.and("place", place.name().toLowerCase(Locale.ROOT));
          at.gauge("wardrobe_adapters", "Adapters, by where they lie.", sums[0]);
          at.gauge(
              "wardrobe_adapter_bytes",
              "What adapters take in the backend's memory, or would, by where they lie; 0 for those"
                  + " that were never read.",
              sums[1]);
        });
    f.gauge(
        "wardrobe_adapters_loading",
        "Adapters on their way into the backend's memory.",
        last.adapters().stream().filter(held -> held.state().equals("loading")).count());
    f.counter(
        "wardrobe_adapter_loads",
        "Adapters brought into the backend's memory.",
        stats.adapterLoads());
    f.counter(
        "wardrobe_adapter_evictions",
        "Adapters taken from there to make room for others.",
        stats.adapterEvictions());
    f.histogram(
        "wardrobe_adapter_load_seconds",
        "What it took to bring an adapter into the backend's memory.",
        engine.meters().loadSeconds());
    f.histogram(
        "wardrobe_request_swap_in_seconds",
        "How long requests waited for their adapters.",
        requests.swapIn);
    for (AdapterTraffic.Row row : requests.adapters.rows()) {
      Families.Labelled of = f.and("adapter", row.adapter());
      of.counter("wardrobe_adapter_requests", "Requests, by adapter.", row.requests());
      of.counter("wardrobe_adapter_failures", "Those that failed.", row.failures());
      of.counter("wardrobe_adapter_prompt_tokens", "Their prompts' tokens.", row.promptTokens());
      of.counter("wardrobe_adapter_generated_tokens", "Their answers' tokens.", row.tokens());
    }
  }

  private static void memory(Families.Labelled f, MemoryUse memory) {
    Stream.of(
            Map.entry("base_packed", memory.getBasePacked()),
            Map.entry("base_absmax", memory.getBaseAbsmax()),
            Map.entry("base_nested_absmax", memory.getBaseNestedAbsmax()),
            Map.entry("base_dense", memory.getBaseDense()),
            Map.entry("embeddings", memory.getEmbeddings()),
            Map.entry("norms_and_biases", memory.getNormsAndBiases()),
            Map.entry("kv_cache", memory.getKvCache()),
            Map.entry("adapters", memory.getAdapters()),
            Map.entry("workspace", memory.getWorkspace()))
        .forEach(
            kind ->
                f.and("kind", kind.getKey())
                    .gauge(
                        "wardrobe_memory_bytes",
                        "Resident bytes, by what they hold.",
                        kind.getValue()));
  }

  @Override
  public void close() {
    collections.close();
    jvm.close();
  }
}
