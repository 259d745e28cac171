package dev.wardrobe.trainer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.wardrobe.StartException;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.data.BatchOptions;
import dev.wardrobe.trainer.data.DataOptions;
import dev.wardrobe.trainer.data.Format;
import dev.wardrobe.trainer.data.Loss;
import dev.wardrobe.trainer.loop.LoopOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.PagerOptions;
import dev.wardrobe.trainer.optim.Schedule;
import dev.wardrobe.trainer.plan.PlanOptions;
import java.nio.file.Path;
import java.time.Clock;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** What the options of a run come to, with what is not given filled in. */
final class Settings {
  private static final int DEFAULT_LENGTH = 1024;
  private static final double DEFAULT_WARMUP = 0.03;
  private static final int DEFAULT_PARTS = 10;
  private static final int MOST_SAVE_STEPS = 100;

  private final TrainArguments arguments;
  private final TrainArguments.AdapterArguments adapter;
  private final TrainArguments.StepArguments steps;

  Settings(TrainArguments arguments) {
    this.arguments = arguments;
    this.adapter = arguments.adapter;
    this.steps = arguments.steps;
  }

  /** Something that may refuse what it is made of. */
  private interface Maker<T> {
    T make();
  }

  /** Says of which options a refusal is. */
  private static <T> T made(String options, Maker<T> maker) throws StartException {
    try {
      return maker.make();
    } catch (IllegalArgumentException e) {
      throw StartException.usage(options + ": " + e.getMessage(), e);
    }
  }

  private static StartException wrong(String option, String expected, Object got) {
    return StartException.usage("%s: expected %s, got %s".formatted(option, expected, got));
  }

  private static <T> T named(String option, Map<String, T> values, String name)
      throws StartException {
    T value = values.get(name.toLowerCase(Locale.ROOT));
    if (value == null) {
      throw wrong(option, String.join(", ", values.keySet()), "'" + name + "'");
    }
    return value;
  }

  private static <T> Map<String, T> byName(T[] values, Function<T, String> name) {
    Map<String, T> byName = new LinkedHashMap<>();
    for (T value : values) {
      byName.put(name.apply(value), value);
    }
    return byName;
  }

  private static int positive(String option, int value) throws StartException {
    if (value < 1) {
      throw wrong(option, "at least 1", value);
    }
    return value;
  }

  /**
   * How files become rows.
   *
   * @param context the model's longest sequence
   */
  DataOptions data(int context, Clock clock, int threads, Path scratch) throws StartException {
    TrainArguments.DataArguments data = arguments.data;
    int length = length(context);
    boolean skip =
        named("--on-bad-row", Map.of("fail", Boolean.FALSE, "skip", Boolean.TRUE), data.onBadRow);
    Map<String, Loss> losses = byName(Loss.values(), loss -> loss.name().toLowerCase(Locale.ROOT));
    Loss loss = named("--loss", losses, data.loss);
    Format format =
        data.format == null
            ? null
            : named("--format", byName(Format.values(), Format::option), data.format);
    return made(
        "--seq-len",
        () ->
            DataOptions.of(length)
                .format(format)
                .loss(loss)
                .skipBadRows(skip)
                .clock(clock)
                .threads(Math.min(4, threads))
                .scratch(scratch));
  }

  private int length(int context) throws StartException {
    int length = arguments.data.length;
    if (length == 0) {
      return Math.min(DEFAULT_LENGTH, context);
    }
    if (length < 2 || length > context) {
      throw wrong("--seq-len", "2 to " + context + ", which is the model's context", length);
    }
    return length;
  }

  BatchOptions batches(int context) throws StartException {
    Map<String, BatchOptions.Order> orders =
        byName(BatchOptions.Order.values(), order -> order.name().toLowerCase(Locale.ROOT));
    BatchOptions.Order order = named("--order", orders, arguments.data.order);
    int batchSize = positive("--batch-size", steps.batchSize);
    int accumulation = positive("--grad-accum", steps.accumulation);
    int packing = arguments.data.packing ? length(context) : 0;
    return made(
        "--packing, --group-by-length, --order",
        () ->
            new BatchOptions(
                batchSize, accumulation, order, arguments.data.groupByLength, packing));
  }

  int evaluationBatch() throws StartException {
    Integer size = arguments.watch.batchSize;
    return positive("--eval-batch-size", size == null ? steps.batchSize : size);
  }

  /** What is trained; an adapter that is gone on with says so itself. */
  LoraOptions lora() throws StartException {
    int rank = positive("--rank", adapter.rank == null ? 16 : adapter.rank);
    double alpha = adapter.alpha == null ? 2.0 * rank : adapter.alpha;
    double dropout = adapter.dropout == null ? 0 : adapter.dropout;
    if (!(dropout >= 0 && dropout < 1)) {
      throw wrong("--dropout", "at least 0 and below 1", dropout);
    }
    LoraOptions.Init init =
        named(
            "--init-lora-weights",
            byName(LoraOptions.Init.values(), each -> each.name().toLowerCase(Locale.ROOT)),
            adapter.init == null ? "default" : adapter.init);
    Map<String, JsonNode> further = new LinkedHashMap<>();
    if (!adapter.layers.isEmpty()) {
      ArrayNode layers = JsonNodeFactory.instance.arrayNode();
      adapter.layers.forEach(layers::add);
      further.put("layers_to_transform", layers);
    }
    return made(
        "--rank, --alpha, --target-modules",
        () ->
            new LoraOptions(
                rank,
                alpha,
                dropout,
                adapter.rsLora,
                adapter.dora,
                new LinkedHashMap<>(adapter.ranks),
                new LinkedHashMap<>(adapter.alphas),
                targets(),
                further,
                init));
  }

  /** A list of names, or one expression or word that stands for modules. */
  private JsonNode targets() {
    List<String> targets = adapter.targets;
    if (targets.isEmpty()) {
      return TextNode.valueOf(LoraOptions.ALL_LINEAR);
    }
    String only = targets.getFirst();
    boolean word = only.equalsIgnoreCase(LoraOptions.ALL_LINEAR);
    if (targets.size() == 1 && (word || !only.matches("[\\w.]+"))) {
      return TextNode.valueOf(word ? LoraOptions.ALL_LINEAR : only);
    }
    ArrayNode names = JsonNodeFactory.instance.arrayNode();
    targets.forEach(names::add);
    return names;
  }

  /** That what an adapter says of itself is not said otherwise. */
  private void checkInitial() throws StartException {
    if (keepLayers() < 0) {
      throw wrong("--keep-layers", "at least 0", keepLayers());
    }
    if (!adapter.bias.equals("none")) {
      throw wrong("--bias", "none, since biases are served but not trained", adapter.bias);
    }
    List<String> given = new ArrayList<>();
    if (adapter.from != null) {
      add(given, "--rank", adapter.rank != null);
      add(given, "--alpha", adapter.alpha != null);
      add(given, "--target-modules", !adapter.targets.isEmpty());
      add(given, "--layers-to-transform", !adapter.layers.isEmpty());
      add(given, "--rank-pattern", !adapter.ranks.isEmpty());
      add(given, "--alpha-pattern", !adapter.alphas.isEmpty());
      add(given, "--dropout", adapter.dropout != null);
      add(given, "--use-rslora", adapter.rsLora);
      add(given, "--use-dora", adapter.dora);
      add(given, "--init-lora-weights", adapter.init != null);
    }
    if (!given.isEmpty()) {
      throw StartException.usage(
          "--init-adapter: its configuration says what is trained; leave out "
              + String.join(", ", given));
    }
  }

  /** That options have values that they may have, before anything is read that takes time. */
  void check() throws StartException {
    checkInitial();
    if (adapter.from == null) {
      lora();
    }
    optimizer();
    epochs();
    // How many steps there will be, the data says; their number is no matter of the others.
    loop(total(Integer.MAX_VALUE));
  }

  private static void add(List<String> given, String option, boolean is) {
    if (is) {
      given.add(option);
    }
  }

  /**
   * How many steps.
   *
   * @param byEpochs how many the epochs come to
   */
  int total(long byEpochs) throws StartException {
    if (steps.most < 0) {
      throw wrong("--max-steps", "at least 1", steps.most);
    }
    if (steps.most == 0 && byEpochs > Integer.MAX_VALUE) {
      throw wrong("--epochs", "fewer steps than " + Integer.MAX_VALUE, byEpochs + " of them");
    }
    return steps.most > 0 ? steps.most : (int) byEpochs;
  }

  double epochs() throws StartException {
    if (!(steps.epochs > 0 && steps.epochs <= 1e6)) {
      throw wrong("--epochs", "more than 0 and at most a million", steps.epochs);
    }
    return steps.epochs;
  }

  OptimizerOptions optimizer() throws StartException {
    return made(
        "--optim",
        () -> {
          OptimizerOptions options = OptimizerOptions.named(steps.optimizer);
          options =
              options.withBetas(
                  steps.beta1 == null ? options.beta1() : steps.beta1,
                  steps.beta2 == null ? options.beta2() : steps.beta2);
          if (steps.epsilon != null) {
            options = options.withEpsilon(steps.epsilon);
          }
          if (arguments.memory.leastEightBit != null) {
            options = options.withLeastEightBit(arguments.memory.leastEightBit);
          }
          return options
              .withMomentum(steps.momentum)
              .withWeightDecay(steps.decay)
              .withLoraPlus(steps.ratio);
        });
  }

  /**
   * What the run's memory depends on.
   *
   * @param longest tokens of the longest row, or of a pack
   * @param paging where the optimizer's state may lie
   */
  PlanOptions plan(
      LoadOptions load,
      LoraOptions lora,
      int longest,
      OptimizerOptions optimizer,
      PagerOptions paging,
      MathMode math) {
    return new PlanOptions(
        load,
        lora,
        longest,
        steps.batchSize,
        keepLayers(),
        optimizer,
        new PlanOptions.Budget(1, paging.budget()),
        math == MathMode.FAST);
  }

  /** Layers that keep their activations. */
  int keepLayers() {
    return arguments.memory.keepLayers;
  }

  /**
   * Where a paged optimizer's state may lie.
   *
   * @param stateBytes all of it
   */
  PagerOptions paging(OptimizerOptions optimizer, long stateBytes, Path folder)
      throws StartException {
    String budget = arguments.memory.budget;
    String host = arguments.memory.host;
    if (!optimizer.paged()) {
      if (budget != null || host != null) {
        throw StartException.usage(
            "--paged-budget, --paged-host: they go with a paged optimizer, got --optim %s; take"
                    .formatted(steps.optimizer)
                + " paged_adamw_32bit, or leave them out");
      }
      return PagerOptions.RESIDENT;
    }
    long most =
        budget == null
            ? PlanOptions.Budget.TENTH.of(stateBytes)
            : bytes("--paged-budget", budget, stateBytes);
    PagerOptions within = PagerOptions.within(Math.max(1, most), folder);
    return host == null
        ? within
        : new PagerOptions(
            within.budget(),
            within.pageBytes(),
            within.ring(),
            bytes("--paged-host", host, stateBytes),
            folder);
  }

  private static long bytes(String option, String text, long all) throws StartException {
    return made(
        "expected a size or a share such as 10%",
        () -> PlanOptions.Budget.of(option, text).of(all));
  }

  /** How the run goes over so many steps. */
  LoopOptions loop(int total) throws StartException {
    TrainArguments.WatchArguments watch = arguments.watch;
    // The first step of a warm-up has rate 0, so that a run of one step would learn nothing.
    int share = Math.min((int) Math.ceil(DEFAULT_WARMUP * total), total - 1);
    int warmup = steps.warmup == null ? share : steps.warmup;
    int tenth = Math.max(1, total / DEFAULT_PARTS);
    int evalSteps = positive("--eval-steps", watch.steps == null ? tenth : watch.steps);
    int sampleSteps =
        positive("--sample-steps", watch.sampleSteps == null ? evalSteps : watch.sampleSteps);
    Integer save = arguments.output.saveSteps;
    return made(
        "--lr, --schedule, --warmup-steps, --max-grad-norm, --max-skipped, --patience, --min-gain,"
            + " --save-steps",
        () ->
            new LoopOptions(
                new Schedule(
                    Schedule.Kind.named(steps.schedule), steps.rate, warmup, total, steps.cycles),
                steps.norm,
                steps.seed,
                steps.skipped,
                evalSteps,
                watch.patience,
                watch.leastGain,
                sampleSteps,
                save == null ? Math.min(tenth, MOST_SAVE_STEPS) : save));
  }

  /**
   * The options that the result's bits depend on, by name.
   *
   * @param evaluation digest of what is evaluated on, or null
   */
  Map<String, String> decisive(
      MathMode math,
      BatchOptions batches,
      OptimizerOptions optimizer,
      LoopOptions loop,
      @Nullable String evaluation)
      throws StartException {
    Map<String, String> all = new LinkedHashMap<>();
    if (adapter.from != null) {
      all.put("init-adapter", adapter.from.toString());
    } else {
      ObjectNode config = lora().config();
      all.put("rank", config.path("r").asText());
      all.put("alpha", config.path("lora_alpha").asText());
      all.put("target-modules", text(config.path("target_modules")));
      all.put("dropout", config.path("lora_dropout").asText());
      all.put("use-rslora", config.path("use_rslora").asText());
      all.put("use-dora", config.path("use_dora").asText());
      all.put("init-lora-weights", adapter.init == null ? "default" : adapter.init);
      if (!adapter.layers.isEmpty()) {
        all.put("layers-to-transform", config.path("layers_to_transform").toString());
      }
      if (!adapter.ranks.isEmpty()) {
        all.put("rank-pattern", config.path("rank_pattern").toString());
      }
      if (!adapter.alphas.isEmpty()) {
        all.put("alpha-pattern", config.path("alpha_pattern").toString());
      }
    }
    Schedule schedule = loop.schedule();
    all.put("steps", Integer.toString(loop.steps()));
    all.put("batch-size", Integer.toString(batches.batchSize()));
    all.put("grad-accum", Integer.toString(batches.accumulation()));
    all.put("order", batches.order().name().toLowerCase(Locale.ROOT));
    all.put("group-by-length", Boolean.toString(batches.groupByLength()));
    all.put("packing", Integer.toString(batches.packing()));
    all.put("lr", Double.toString(schedule.peak()));
    all.put("schedule", schedule.kind().name().toLowerCase(Locale.ROOT));
    all.put("warmup-steps", Integer.toString(schedule.warmup()));
    if (schedule.kind() == Schedule.Kind.COSINE_WITH_RESTARTS) {
      all.put("cycles", Integer.toString(schedule.cycles()));
    }
    all.put(
        "optim",
        optimizer.rule().name().toLowerCase(Locale.ROOT) + (optimizer.eightBit() ? "8bit" : ""));
    all.put("beta1", Double.toString(optimizer.beta1()));
    all.put("beta2", Double.toString(optimizer.beta2()));
    all.put("epsilon", Double.toString(optimizer.epsilon()));
    all.put("momentum", Double.toString(optimizer.momentum()));
    if (optimizer.eightBit()) {
      all.put("min-8bit-size", Integer.toString(optimizer.leastEightBit()));
    }
    all.put("weight-decay", Double.toString(steps.decay));
    all.put("loraplus-ratio", Double.toString(steps.ratio));
    all.put("max-grad-norm", Double.toString(loop.maxNorm()));
    all.put("max-skipped", Integer.toString(loop.mostSkipped()));
    all.put("math", math.id());
    all.put("seed", Long.toString(loop.seed()));
    if (evaluation != null) {
      all.put("eval-data", evaluation);
      all.put("eval-split", arguments.watch.split == null ? "none" : arguments.watch.split);
      all.put("eval-batch-size", Integer.toString(evaluationBatch()));
      all.put("eval-steps", Integer.toString(loop.evalSteps()));
      all.put("patience", Integer.toString(loop.patience()));
      all.put("min-gain", Double.toString(loop.leastGain()));
    }
    return all;
  }

  private static String text(JsonNode node) {
    return node.isTextual() ? node.textValue() : node.toString();
  }
}
