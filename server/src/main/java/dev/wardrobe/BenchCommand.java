package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.bench.Bench;
import dev.wardrobe.bench.BenchOptions;
import dev.wardrobe.bench.Cost;
import dev.wardrobe.bench.Measurement;
import dev.wardrobe.bench.Run;
import dev.wardrobe.bench.Shape;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.compute.cpu.Roof;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.model.RandomModel;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench}: says how fast a model, or a model's shape, runs on this machine. */
@Command(
    name = "bench",
    description = "Measure prefill, decoding, batches and adapters, with or without a checkpoint.",
    footer = {
      "",
      "Through a server: bench load measures one under load, bench churn sees that answers stay"
          + " right while",
      "adapters come and go (each explains itself with --help)."
    },
    subcommands = {BenchAdaptersCommand.class, BenchDeviceCommand.class},
    mixinStandardHelpOptions = true)
final class BenchCommand implements Callable<Integer> {
  /** How long the vector kernels may take to be compiled. */
  private static final Duration WARM = Duration.ofMinutes(2);

  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--shape",
      paramLabel = "NAME",
      description =
          "A model's shape, given random weights: tinyllama, smollm2, llama3-8b-2layers, llama3-8b,"
              + " llama-65b or tiny.")
  private @Nullable String shape;

  @Option(
      names = "--random-weights",
      description = "Makes --shape's weights in memory; the only source of them, and so implied.")
  private boolean randomWeights;

  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "A Hugging Face model directory, instead of a shape.")
  private @Nullable Path model;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of weights, adapters and prompts. Default: ${DEFAULT-VALUE}.")
  private long seed = 1;

  @Option(
      names = "--head",
      paramLabel = "TYPE",
      defaultValue = "bf16",
      description =
          "The output head: bf16 (a model's as stored) or nf4. Default: ${DEFAULT-VALUE}.")
  private String head = "bf16";

  @Option(
      names = "--kv",
      paramLabel = "TYPE",
      defaultValue = "bf16",
      description = "How keys and values are kept: bf16 or f32. Default: ${DEFAULT-VALUE}.")
  private String kv = "bf16";

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads that compute. Default: as many as there are processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--backend",
      paramLabel = "NAME",
      defaultValue = "${sys:wardrobe.backend:-auto}",
      description = "auto, cpu or cuda, as to serve. Default: ${DEFAULT-VALUE}.")
  private String device = "auto";

  @Option(
      names = "--math",
      paramLabel = "MODE",
      defaultValue = "exact",
      description = "exact or fast, as to serve. Default: ${DEFAULT-VALUE}.")
  private String math = "exact";

  @Option(
      names = "--cases",
      paramLabel = "LIST",
      split = ",",
      defaultValue = "prefill,decode,depth,batch",
      description =
          "What to measure: prefill, decode (from an empty context), depth (behind a long one),"
              + " batch, adapters, training (of a layer). Default: ${DEFAULT-VALUE}, and adapters"
              + " with --adapters.")
  private List<String> cases = new ArrayList<>();

  @Option(
      names = "--prompt",
      paramLabel = "N",
      defaultValue = "512",
      description = "Tokens of the prefill. Default: ${DEFAULT-VALUE}.")
  private int prompt = 512;

  @Option(
      names = "--depth",
      paramLabel = "N",
      defaultValue = "1024",
      description = "Context of the case 'depth'. Default: ${DEFAULT-VALUE}.")
  private int depth = 1024;

  @Option(
      names = "--batch",
      paramLabel = "LIST",
      split = ",",
      defaultValue = "1,8,32",
      description = "Streams of the case 'batch'. Default: ${DEFAULT-VALUE}.")
  private List<Integer> batches = new ArrayList<>();

  @Option(
      names = "--steps",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Tokens that each stream generates in a timed run. Default: 128 from an empty context,"
              + " else 64.")
  private int steps;

  @Option(
      names = "--adapters",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Streams that each have an adapter of their own, on all linear modules, random, in bf16;"
              + " their steps alternate with the base's.")
  private int adapters;

  @Option(
      names = "--rank",
      paramLabel = "N",
      defaultValue = "16",
      description = "The adapters' rank. Default: ${DEFAULT-VALUE}.")
  private int rank = 16;

  @Option(
      names = "--reps",
      paramLabel = "N",
      defaultValue = "5",
      description = "Timed runs of each case. Default: ${DEFAULT-VALUE}.")
  private int repetitions = 5;

  @Option(
      names = "--retries",
      paramLabel = "N",
      defaultValue = "5",
      description =
          "Most further runs of a case in place of those of which others took more than 6 %% of the"
              + " machine. Default: ${DEFAULT-VALUE}.")
  private int retries = 5;

  @Option(
      names = "--warm-up",
      paramLabel = "SECONDS",
      defaultValue = "2",
      description = "What a case runs before it is timed. Default: ${DEFAULT-VALUE}.")
  private double warmUp = 2;

  @Option(
      names = "--prefill-tokens",
      paramLabel = "N",
      description = "Most prompt tokens in a step. Default: as to serve.")
  private int prefillTokens = EngineOptions.DEFAULT.prefillTokens();

  @Option(
      names = "--profile",
      description =
          "Time each operation too, and say how much of what this machine can read and compute, as"
              + " a probe finds it, each reaches.")
  private boolean profile;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws StartException, ModelException, IOException, InterruptedException {
    BenchOptions options = options();
    boolean quantizedHead = quantizedHead();
    Shape known = shape();
    within("--threads", threads, 1, 1024);
    PrintWriter out = spec.commandLine().getOut();
    MathMode asked = BaseArguments.math(math);
    try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json);
        Backend backend = BaseArguments.backend(device, asked, threads);
        Model base = model(known, quantizedHead, backend, progress)) {
      if (backend.refusal() != null) {
        throw new StartException("--math fast is not to be had: " + backend.refusal());
      }
      checkContext(base.config(), options);
      progress.at("warming up");
      if (!backend.awaitWarm(WARM)) {
        throw new StartException(
            "the vector kernels were not in use after %d s; the machine is too busy to measure"
                .formatted(WARM.toSeconds()));
      }
      if (profile && !(backend instanceof CpuBackend)) {
        throw StartException.usage(
            "--profile: expected --backend cpu; on a device operations overlap, and nsys times"
                + " them");
      }
      if (profile) {
        progress.at("probing the machine");
      }
      Roof roof = profile ? Roof.measure(threads) : null;
      progress.clear();
      if (!json) {
        out.printf(
            Locale.ROOT,
            "%s%n%s, %s keys and values, prefill in steps of %d%n%n",
            backend.describe(),
            describe(base),
            options.kv().name().toLowerCase(Locale.ROOT),
            options.prefillTokens());
        if (roof != null) {
          BenchTable.roof(out, roof);
        }
        BenchTable.heading(out);
      }
      List<Measurement> all =
          new Bench(base, backend, options)
              .run(
                  new Bench.Listener() {
                    @Override
                    public void measuring(int done, int of, Measurement.Kind kind) {
                      progress.at(done, of, kind.name().toLowerCase(Locale.ROOT));
                    }

                    @Override
                    public void measured(Measurement measurement) {
                      progress.clear();
                      if (!json) {
                        BenchTable.row(out, measurement);
                        if (roof != null) {
                          BenchTable.profile(out, measurement, roof);
                        }
                      }
                    }
                  });
      progress.clear();
      if (json) {
        out.println(
            new ObjectMapper()
                .writerWithDefaultPrettyPrinter()
                .writeValueAsString(tree(base, backend, options, all, roof)));
      } else {
        BenchTable.ratio(out, all);
      }
      out.flush();
    } catch (OutOfMemoryException e) {
      throw new StartException(String.valueOf(e.getMessage()), e);
    }
    return 0;
  }

  private @Nullable Shape shape() throws StartException {
    if ((shape == null) == (model == null)) {
      throw StartException.usage(
          "expected either --shape (%s) or --model".formatted(Shape.known()));
    }
    if (shape == null) {
      if (randomWeights) {
        throw StartException.usage("--random-weights: expected a --shape, got --model");
      }
      return null;
    }
    Shape known = Shape.find(shape);
    if (known == null) {
      throw StartException.usage(
          "--shape: expected one of %s, got '%s'".formatted(Shape.known(), shape));
    }
    return known;
  }

  private Model model(
      @Nullable Shape known, boolean quantizedHead, Backend backend, ProgressLine progress)
      throws ModelException, IOException {
    if (known != null) {
      progress.at("making random weights");
      return RandomModel.of(known.id(), known.config(), quantizedHead, seed, backend);
    }
    return ModelLoader.load(
        Objects.requireNonNull(model),
        LoadOptions.DEFAULT.withQuantizeHead(quantizedHead),
        backend,
        progress::at);
  }

  private boolean quantizedHead() throws StartException {
    return switch (head) {
      case "bf16" -> false;
      case "nf4" -> true;
      default ->
          throw StartException.usage("--head: expected bf16 or nf4, got '%s'".formatted(head));
    };
  }

  private BenchOptions options() throws StartException {
    Set<Measurement.Kind> kinds = EnumSet.noneOf(Measurement.Kind.class);
    for (String each : cases) {
      try {
        kinds.add(Measurement.Kind.valueOf(each.strip().toUpperCase(Locale.ROOT)));
      } catch (IllegalArgumentException e) {
        throw StartException.usage(
            "--cases: expected some of prefill, decode, depth, batch, adapters, training, got '%s'"
                .formatted(each),
            e);
      }
    }
    boolean chosen = spec.commandLine().getParseResult().hasMatchedOption("--cases");
    if (adapters > 0 && !chosen) {
      kinds.add(Measurement.Kind.ADAPTERS);
    }
    if (kinds.contains(Measurement.Kind.ADAPTERS) && adapters == 0) {
      throw StartException.usage("--cases adapters: expected --adapters N as well, got none");
    }
    KvShape.Type type = ResidentArguments.kvType(kv);
    for (int batch : batches) {
      within("--batch", batch, 1, 4096);
    }
    within("--prompt", prompt, 1, 1 << 20);
    within("--depth", depth, 1, 1 << 20);
    within("--steps", steps, 0, 1 << 20);
    within("--adapters", adapters, 0, 4096);
    within("--rank", rank, 1, 1024);
    within("--reps", repetitions, 1, 1000);
    within("--retries", retries, 0, 1000);
    within("--prefill-tokens", prefillTokens, 1, 1 << 16);
    if (!(warmUp >= 0 && warmUp <= 3600)) {
      throw StartException.usage("--warm-up: expected 0 to 3600 seconds, got " + warmUp);
    }
    return new BenchOptions(
        kinds,
        prompt,
        depth,
        batches,
        steps,
        adapters,
        rank,
        repetitions,
        retries,
        warmUp,
        prefillTokens,
        type,
        profile,
        seed);
  }

  private static void within(String what, int value, int least, int most) throws StartException {
    if (value < least || value > most) {
      throw StartException.usage(
          "%s: expected %d to %d, got %d".formatted(what, least, most, value));
    }
  }

  private static void checkContext(ModelConfig config, BenchOptions options) throws StartException {
    int longest = Bench.longest(options);
    if (longest > config.contextLength()) {
      throw StartException.usage(
          "a sequence of %d tokens is to be measured, but the model's context is %d; lower"
                  .formatted(longest, config.contextLength())
              + " --prompt, --depth or --steps");
    }
  }

  private String describe(Model base) {
    return "%s%s: %,d parameters, %.3f bits per quantized weight, head %s, %,d bytes"
        .formatted(
            base.name(),
            shape == null ? "" : " (random weights, seed " + seed + ")",
            base.memory().parameters(),
            base.memory().bitsPerWeight(),
            headType(base),
            base.memory().total());
  }

  private String headType(Model base) {
    if (base.modules().head().quantized()) {
      return "nf4";
    }
    return base.config().tied() ? "tied" : shape == null ? "as stored" : head;
  }

  private ObjectNode tree(
      Model base,
      Backend backend,
      BenchOptions options,
      List<Measurement> all,
      @Nullable Roof roof) {
    ObjectNode root = new ObjectMapper().createObjectNode();
    root.put("backend", backend.describe());
    root.put("math", backend.math().id());
    root.put("java", Runtime.version().toString());
    root.put("processors", Runtime.getRuntime().availableProcessors());
    root.put("threads", threads);
    root.put("kv", options.kv().name().toLowerCase(Locale.ROOT));
    root.put("prefill_tokens", options.prefillTokens());
    ObjectNode about = root.putObject("model");
    about.put("name", base.name());
    about.put("random_weights", shape != null);
    about.put("seed", seed);
    about.put("head", headType(base));
    about.put("parameters", base.memory().parameters());
    about.put("bits_per_weight", base.memory().bitsPerWeight());
    about.put("bytes", base.memory().total());
    if (roof != null) {
      ObjectNode most = root.putObject("roof");
      most.put("read_one_bytes_per_second", roof.readOne());
      most.put("read_all_bytes_per_second", roof.readAll());
      most.put("compute_one_flops", roof.computeOne());
      most.put("compute_all_flops", roof.computeAll());
    }
    ArrayNode measured = root.putArray("cases");
    for (Measurement each : all) {
      ObjectNode node = measured.addObject();
      node.put("case", each.kind().name().toLowerCase(Locale.ROOT));
      node.put("streams", each.streams());
      node.put("depth", each.depth());
      node.put("prompt", each.prompt());
      node.put("generated", each.generated());
      node.put("adapters", each.adapters());
      node.put("rank", each.rank());
      node.put("tokens_per_second", each.median());
      node.put("min", each.min());
      node.put("max", each.max());
      node.put("undisturbed", each.undisturbed());
      for (Run run : each.runs()) {
        put(node.withArray("runs").addObject(), run);
      }
      if (roof != null) {
        for (Cost cost : each.costs()) {
          put(node.withArray("profile").addObject(), cost, each, roof);
        }
      }
    }
    Double ratio = BenchTable.ratio(all);
    if (ratio != null) {
      root.put("adapters_to_base", ratio);
    }
    return root;
  }

  private static void put(ObjectNode node, Run run) {
    node.put("tokens", run.tokens());
    node.put("seconds", run.seconds());
    node.put("tokens_per_second", run.rate());
    node.put("others", Double.isNaN(run.others()) ? null : run.others());
    node.put("undisturbed", run.undisturbed());
  }

  private static void put(ObjectNode node, Cost cost, Measurement of, Roof roof) {
    node.put("operation", cost.operation());
    node.put("calls", cost.calls());
    node.put("seconds", cost.seconds());
    node.put("share", cost.seconds() / of.seconds());
    node.put("milliseconds_per_step", 1e3 * cost.seconds() / of.steps());
    node.put("weights", cost.weights());
    node.put("bytes", cost.bytes());
    node.put("operations", cost.operations());
    node.put("gigaweights_per_second", BenchTable.rate((double) cost.weights(), cost));
    node.put("gigabytes_per_second", BenchTable.rate((double) cost.bytes(), cost));
    node.put("gigaflops", BenchTable.rate(cost.operations(), cost));
    node.put("share_of_roof", cost.shareOfRoof(roof.readAll(), roof.computeAll()));
  }
}
