package dev.wardrobe.bench;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.model.Decoder;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.RandomModel;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Measures what a model's forward pass costs on a backend: the steps that the engine takes, without
 * the engine, whose queue and listeners would have to be fed.
 */
public final class Bench {
  /** Steps and prompts as llama.cpp's benchmarks have them, to be compared with. */
  private static final int DECODE_STEPS = 128;

  private static final int DEPTH_STEPS = 64;
  private static final int BATCH_STEPS = 64;
  private static final int BATCH_PROMPT = 32;

  /** Logits computed at a time, as in the engine on a processor. */
  private static final int LOGIT_ROWS = 32;

  private final Model model;
  private final Backend backend;
  private final @Nullable ProfiledBackend profiled;
  private final BenchOptions options;

  public Bench(Model model, Backend backend, BenchOptions options) {
    this.model = model;
    this.profiled = options.profile() ? new ProfiledBackend(backend, model.modules()) : null;
    this.backend = profiled == null ? backend : profiled;
    this.options = options;
  }

  /** What is told of each measurement as soon as it is there. */
  public interface Listener {
    /** So many of so many kinds are done, and this is the next. */
    default void measuring(int done, int of, Measurement.Kind kind) {}

    void measured(Measurement measurement);
  }

  /** Runs all cases, in a fixed order. */
  public List<Measurement> run(Listener listener) {
    List<Measurement> all = new ArrayList<>();
    int done = 0;
    for (Measurement.Kind kind : Measurement.Kind.values()) {
      if (options.kinds().contains(kind)) {
        listener.measuring(done++, options.kinds().size(), kind);
        for (Measurement measurement : run(kind)) {
          listener.measured(measurement);
          all.add(measurement);
        }
      }
    }
    return all;
  }

  private List<Measurement> run(Measurement.Kind kind) {
    return switch (kind) {
      case PREFILL -> List.of(prefill());
      case DECODE -> List.of(decode(kind, 1, 1, steps(DECODE_STEPS)));
      case DEPTH -> List.of(decode(kind, 1, options.depth(), steps(DEPTH_STEPS)));
      case BATCH ->
          options.batches().stream()
              .map(streams -> decode(kind, streams, BATCH_PROMPT, steps(BATCH_STEPS)))
              .toList();
      case ADAPTERS -> adapters(steps(BATCH_STEPS));
      case TRAINING -> List.of(training());
    };
  }

  /** Tokens of the longest sequence that {@code options} ask for. */
  public static int longest(BenchOptions options) {
    int longest = 0;
    for (Measurement.Kind kind : options.kinds()) {
      int tokens =
          switch (kind) {
            case PREFILL -> options.prompt() + 1;
            case TRAINING -> options.prompt();
            case DECODE -> steps(options, DECODE_STEPS) + 1;
            case DEPTH -> options.depth() + steps(options, DEPTH_STEPS) + 1;
            case BATCH, ADAPTERS -> BATCH_PROMPT + steps(options, BATCH_STEPS) + 1;
          };
      longest = Math.max(longest, tokens);
    }
    return longest;
  }

  private int steps(int usual) {
    return steps(options, usual);
  }

  private static int steps(BenchOptions options, int usual) {
    return options.steps() == 0 ? usual : options.steps();
  }

  private Measurement prefill() {
    int prompt = options.prompt();
    try (KvCache cache = cache(Streams.blocks(1, prompt + 1));
        Decoder decoder = decoder(cache, 1)) {
      Streams streams = streams(decoder, 1, prompt, prompt + 1);
      Runnable once =
          () -> {
            streams.restart();
            streams.prefill(options.prefillTokens());
          };
      warmUp(once);
      List<Run> runs = repeat(() -> timed(prompt, once));
      return new Measurement(Measurement.Kind.PREFILL, 1, 0, prompt, 0, 0, 0, runs);
    }
  }

  private Measurement decode(Measurement.Kind kind, int count, int prompt, int steps) {
    int capacity = prompt + steps + 1;
    try (KvCache cache = cache(Streams.blocks(count, capacity));
        Decoder decoder = decoder(cache, count)) {
      Streams streams = streams(decoder, count, prompt, capacity);
      // From an empty context the first step takes the first token.
      int depth = kind == Measurement.Kind.DECODE ? 0 : prompt;
      if (depth > 0) {
        streams.prefill(options.prefillTokens());
      }
      streams.rewind(depth);
      warmUp(
          () -> {
            streams.rewind(depth);
            streams.decode();
          });
      List<Run> runs =
          repeat(
              () -> {
                streams.rewind(depth);
                return timed(
                    (long) count * steps,
                    () -> {
                      for (int i = 0; i < steps; i++) {
                        streams.decode();
                      }
                    });
              });
      return new Measurement(kind, count, depth, 0, steps, 0, 0, runs);
    }
  }

  private Measurement training() {
    int tokens = options.prompt();
    try (TrainingLayer layer =
        new TrainingLayer(model, backend, tokens, options.rank(), options.seed())) {
      warmUp(layer::run);
      List<Run> runs =
          repeat(
              () -> {
                Occupancy before = Occupancy.now();
                List<Cost> costs = layer.run();
                double seconds = costs.stream().mapToDouble(Cost::seconds).sum();
                return new Run(
                    tokens, seconds, before.others(), options.profile() ? costs : List.of());
              });
      return new Measurement(Measurement.Kind.TRAINING, 1, 0, tokens, 0, 1, options.rank(), runs);
    }
  }

  /**
   * The base's steps and those of as many adapters in turn, so that whatever else the machine does
   * slows both alike.
   */
  private List<Measurement> adapters(int steps) {
    int count = options.adapters();
    int capacity = BATCH_PROMPT + steps + 1;
    int half = Streams.blocks(count, capacity);
    List<Lora> loras = new ArrayList<>();
    try (KvCache cache = cache(2 * half);
        Decoder decoder = decoder(cache, count)) {
      for (int i = 0; i < count; i++) {
        loras.add(RandomModel.adapter(model, options.rank(), options.seed() + 1 + i, backend));
      }
      Side base = new Side(streams(decoder, Collections.nCopies(count, null), capacity, 0));
      Side adapted = new Side(streams(decoder, loras, capacity, half));
      for (Side side : List.of(base, adapted)) {
        side.streams.prefill(options.prefillTokens());
      }
      warmUp(
          () -> {
            base.restart();
            adapted.restart();
            base.decode();
            adapted.decode();
          });
      repeat(
          () -> {
            base.restart();
            adapted.restart();
            Occupancy before = Occupancy.now();
            for (int i = 0; i < steps; i++) {
              Side first = i % 2 == 0 ? base : adapted;
              first.decode();
              (first == base ? adapted : base).decode();
            }
            double others = before.others();
            base.end((long) count * steps, others);
            adapted.costs = apart(adapted.costs, base.costs, steps);
            return adapted.end((long) count * steps, others);
          });
      return List.of(
          new Measurement(
              Measurement.Kind.ADAPTERS, count, BATCH_PROMPT, 0, steps, 0, 0, base.runs),
          new Measurement(
              Measurement.Kind.ADAPTERS,
              count,
              BATCH_PROMPT,
              0,
              steps,
              count,
              options.rank(),
              adapted.runs));
    } finally {
      loras.forEach(Lora::close);
    }
  }

  /**
   * Costs with adapters, the adapters' own apart. Their second factors are multiplied by as outputs
   * are made: they cost what projections took longer than the base's did in as many steps.
   */
  private List<Cost> apart(List<Cost> adapted, List<Cost> base, int steps) {
    long in = 0;
    long out = 0;
    for (Module module : model.modules().all()) {
      if (module.kind() == Module.Kind.LINEAR) {
        in += module.in();
        out += module.out();
      }
    }
    long times = (long) options.rank() * options.adapters() * steps;
    List<Cost> costs = new ArrayList<>();
    double more = 0;
    for (int i = 0; i < adapted.size(); i++) {
      Cost cost = adapted.get(i);
      if (ProfiledBackend.shrink(cost)) {
        costs.add(lora(cost.operation(), cost.calls(), cost.seconds(), times * in));
      } else if (ProfiledBackend.linear(cost)) {
        costs.add(base.get(i));
        more += cost.seconds() - base.get(i).seconds();
      } else {
        costs.add(cost);
      }
    }
    if (!costs.isEmpty()) {
      costs.add(lora("adapters, expand", costs.getLast().calls(), more, times * out));
    }
    return costs;
  }

  /** The cost of as many weights in bf16, each for one token. */
  private static Cost lora(String operation, long calls, double seconds, long weights) {
    return new Cost(operation, calls, seconds, weights, 2 * weights, 2.0 * weights);
  }

  /** One of two that take steps in turn. */
  private final class Side {
    private final Streams streams;
    private final List<Run> runs = new ArrayList<>();
    private List<Cost> costs = List.of();
    private long nanos;

    Side(Streams streams) {
      this.streams = streams;
    }

    void restart() {
      streams.rewind(BATCH_PROMPT);
      costs = List.of();
      nanos = 0;
    }

    void decode() {
      costs();
      long start = System.nanoTime();
      streams.decode();
      nanos += System.nanoTime() - start;
      costs = Cost.sum(costs, costs());
    }

    Run end(long tokens, double others) {
      double seconds = nanos / 1e9;
      runs.add(new Run(tokens, seconds, others, rest(costs, seconds)));
      return runs.getLast();
    }
  }

  private KvCache cache(int blocks) {
    ModelConfig config = model.config();
    return backend.kvCache(
        new KvShape(config.layers(), config.kvHeads(), config.headDim(), blocks, options.kv()));
  }

  private Decoder decoder(KvCache cache, int streams) {
    int tokens = Math.max(options.prefillTokens(), streams);
    boolean device = backend.spareBytes() >= 0;
    int rows = device ? streams : Math.min(streams, LOGIT_ROWS);
    return new Decoder(model, backend, cache, tokens, rows);
  }

  private Streams streams(Decoder decoder, int count, int prompt, int capacity) {
    return new Streams(
        decoder,
        backend,
        Collections.nCopies(count, null),
        prompt,
        capacity,
        0,
        model.config().vocabulary(),
        options.seed());
  }

  private Streams streams(
      Decoder decoder, List<? extends @Nullable Lora> adapters, int capacity, int firstBlock) {
    return new Streams(
        decoder,
        backend,
        adapters,
        BATCH_PROMPT,
        capacity,
        firstBlock,
        model.config().vocabulary(),
        options.seed());
  }

  private void warmUp(Runnable once) {
    long end = System.nanoTime() + (long) (options.warmUp() * 1e9);
    do {
      once.run();
    } while (System.nanoTime() - end < 0);
  }

  private Run timed(long tokens, Runnable work) {
    costs();
    Occupancy before = Occupancy.now();
    long start = System.nanoTime();
    work.run();
    double seconds = (System.nanoTime() - start) / 1e9;
    return new Run(tokens, seconds, before.others(), rest(costs(), seconds));
  }

  /** Costs since the last time; none unless asked for. */
  private List<Cost> costs() {
    return profiled == null ? List.of() : profiled.take();
  }

  /** Those that there were, and what they leave of the time. */
  private static List<Cost> rest(List<Cost> costs, double seconds) {
    if (costs.isEmpty()) {
      return costs;
    }
    List<Cost> all = new ArrayList<>(costs);
    all.removeIf(cost -> cost.calls() == 0);
    double known = costs.stream().mapToDouble(Cost::seconds).sum();
    all.add(new Cost("the rest", 0, seconds - known, 0, 0, 0));
    return all;
  }

  /** Runs until enough runs were undisturbed, or too many were not. */
  private List<Run> repeat(Supplier<Run> once) {
    List<Run> runs = new ArrayList<>();
    int undisturbed = 0;
    while (undisturbed < options.repetitions()
        && runs.size() < options.repetitions() + options.retries()) {
      Run run = once.get();
      runs.add(run);
      undisturbed += run.undisturbed() ? 1 : 0;
    }
    return runs;
  }
}
