package dev.wardrobe.trainer.plan;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.wardrobe.ExitCode;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code wardrobe plan}: says where a training run's memory will go, and whether it fits. */
@Command(
    name = "plan",
    description = "Say where a training run's memory would go, and what would make it fit.",
    footer = {"", "Exit code 0 if it fits, 7 if it does not."},
    mixinStandardHelpOptions = true)
public final class PlanCommand implements Callable<Integer> {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--model",
      paramLabel = "DIR",
      required = true,
      description = "A Hugging Face model directory; its config.json is all that is read.")
  private Path model = Path.of("");

  @Option(names = "--rank", paramLabel = "R", description = "Default: ${DEFAULT-VALUE}.")
  private int rank = 16;

  @Option(
      names = "--target-modules",
      paramLabel = "NAMES",
      description = "Names or endings of names, separated by commas. Default: ${DEFAULT-VALUE}.")
  private String targets = LoraOptions.ALL_LINEAR;

  @Option(names = "--use-dora", description = "Train magnitudes too.")
  private boolean dora;

  @Option(names = "--dropout", paramLabel = "P", description = "Default: ${DEFAULT-VALUE}.")
  private double dropout;

  @Option(
      names = {"--seq-len", "--seq"},
      paramLabel = "N",
      description = "Tokens of the longest sequence. Default: ${DEFAULT-VALUE}.")
  private int sequence = 2048;

  @Option(
      names = {"--batch-size", "--batch"},
      paramLabel = "N",
      description = "Sequences of a micro-batch. Default: ${DEFAULT-VALUE}.")
  private int batch = 1;

  @Option(
      names = "--keep-layers",
      paramLabel = "N",
      description =
          "Layers that keep their activations instead of computing them again; as many as the"
              + " model has for no gradient checkpointing. Default: ${DEFAULT-VALUE}.")
  private int keep;

  @Option(
      names = "--optim",
      paramLabel = "NAME",
      description =
          "adamw, adamw8bit, paged_adamw_32bit, paged_adamw_8bit, lion, lion8bit, paged_lion_32bit,"
              + " paged_lion_8bit or sgd. Default: ${DEFAULT-VALUE}.")
  private String optimizer = "adamw";

  @Option(
      names = "--paged-budget",
      paramLabel = "SIZE",
      description =
          "Optimizer state that may be in fast memory at once, for a paged optimizer. Default:"
              + " 64MiB on a GPU, all of it on the processor.")
  private @Nullable String pagedBudget;

  @Option(
      names = "--gpu",
      paramLabel = "NAME|SIZE",
      description =
          "Plan for a GPU, such as h200, a100-40, rtx4090, or any of so much memory: 48GiB."
              + " Default: the processor.")
  private @Nullable String gpu;

  @Option(
      names = "--memory",
      paramLabel = "SIZE",
      description = "Memory for the processor. Default: all that this machine has.")
  private @Nullable String memory;

  @Option(
      names = "--math",
      paramLabel = "MODE",
      description = "exact or fast. Default: fast on a GPU, exact on the processor.")
  private @Nullable String math;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws ModelException, AdapterException, IOException {
    ModelConfig config = ModelConfig.read(model);
    Device device;
    PlanOptions options;
    try {
      device = device();
      options = options(device.gpu());
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), String.valueOf(e.getMessage()), e);
    }
    MemoryPlan plan = MemoryPlan.of(config, options, device);
    Remedies remedies =
        plan.fits() ? new Remedies(List.of(), List.of()) : Remedies.of(config, options, device);
    PrintWriter out = spec.commandLine().getOut();
    if (json) {
      out.println(
          new ObjectMapper()
              .writerWithDefaultPrettyPrinter()
              .writeValueAsString(tree(plan, remedies)));
    } else {
      print(config, options, plan, remedies, out);
    }
    out.flush();
    return plan.fits() ? ExitCode.DONE : ExitCode.DOES_NOT_FIT;
  }

  private Device device() {
    if (gpu != null && memory != null) {
      throw new IllegalArgumentException(
          "--memory is the processor's; --gpu takes the size of its own memory");
    }
    if (gpu != null) {
      return Device.gpu(gpu);
    }
    return memory == null
        ? Device.machine()
        : new Device("cpu", false, Device.bytes("--memory", memory));
  }

  private PlanOptions options(boolean onGpu) {
    LoraOptions lora =
        new LoraOptions(
            rank,
            2.0 * rank,
            dropout,
            false,
            dora,
            new LinkedHashMap<>(),
            new LinkedHashMap<>(),
            targets(),
            Map.of(),
            LoraOptions.Init.DEFAULT);
    PlanOptions.Budget budget =
        pagedBudget == null
            ? PlanOptions.Budget.TENTH
            : PlanOptions.Budget.of("--paged-budget", pagedBudget);
    String mode = math == null ? (onGpu ? "fast" : "exact") : math;
    if (!mode.equals("fast") && !mode.equals("exact")) {
      throw new IllegalArgumentException("--math: expected exact or fast, got '" + mode + "'");
    }
    return new PlanOptions(
        LoadOptions.DEFAULT,
        lora,
        sequence,
        batch,
        keep,
        OptimizerOptions.named(optimizer),
        budget,
        mode.equals(MathMode.FAST.id()));
  }

  private JsonNode targets() {
    if (targets.equals(LoraOptions.ALL_LINEAR)) {
      return TextNode.valueOf(targets);
    }
    ArrayNode names = JsonNodeFactory.instance.arrayNode();
    for (String name : targets.split(",", -1)) {
      names.add(name.strip());
    }
    return names;
  }

  private static void print(
      ModelConfig config,
      PlanOptions options,
      MemoryPlan plan,
      Remedies remedies,
      PrintWriter out) {
    out.printf(
        Locale.ROOT,
        "%s, %d layers, hidden %,d: %,d parameters; rank %d on %d modules trains %,d (%.2f %%)%n",
        config.family(),
        config.layers(),
        config.hidden(),
        plan.parameters(),
        options.lora().rank(),
        plan.modules(),
        plan.trained(),
        100.0 * plan.trained() / plan.parameters());
    out.printf(
        Locale.ROOT, "micro-batch of %,d x %,d tokens%n", options.batch(), options.sequence());
    for (MemoryPlan.Term term : plan.terms()) {
      out.printf(Locale.ROOT, "  %-20s%12s  %s%n", term.name(), size(term.bytes()), term.note());
    }
    out.printf(Locale.ROOT, "  %-20s%12s%n", "total", size(plan.total()));
    if (plan.paged() > 0) {
      out.printf(
          Locale.ROOT,
          "paged out: %s of optimizer state, in and out once a step%n",
          size(plan.paged()));
    }
    long left = plan.device().bytes() - plan.total();
    out.printf(
        Locale.ROOT,
        "%s has %s: %s%n",
        plan.device().name(),
        size(plan.device().bytes()),
        left >= 0 ? "fits, " + size(left) + " left" : "does not fit, " + size(-left) + " too much");
    if (plan.fits()) {
      return;
    }
    for (Remedies.Remedy remedy : remedies.alone()) {
      out.printf(Locale.ROOT, "fits with %s: %s%n", remedy.option(), size(remedy.total()));
    }
    for (Remedies.Remedy remedy : remedies.together()) {
      out.printf(
          Locale.ROOT,
          "with %s%s: %s%n",
          remedies.together().indexOf(remedy) == 0 ? "" : "also ",
          remedy.option(),
          size(remedy.total()));
    }
    if (!remedies.together().isEmpty()) {
      out.println("fits with all of these");
    } else if (remedies.alone().isEmpty()) {
      out.println("no option makes it fit; take a smaller model or more memory");
    }
  }

  private static String size(long bytes) {
    return bytes >= 10L << 30
        ? String.format(Locale.ROOT, "%.2f GiB", bytes / 0x1p30)
        : String.format(Locale.ROOT, "%,.1f MiB", bytes / 0x1p20);
  }

  private static ObjectNode tree(MemoryPlan plan, Remedies remedies) {
    ObjectNode root = JsonNodeFactory.instance.objectNode();
    root.put("device", plan.device().name());
    root.put("device_bytes", plan.device().bytes());
    root.put("parameters", plan.parameters());
    root.put("trained_parameters", plan.trained());
    root.put("adapted_modules", plan.modules());
    ObjectNode terms = root.putObject("bytes");
    plan.terms().forEach(term -> terms.put(term.key(), term.bytes()));
    root.put("total_bytes", plan.total());
    root.put("paged_bytes", plan.paged());
    root.put("fits", plan.fits());
    options(root.putArray("fits_with_any_of"), remedies.alone());
    options(root.putArray("fits_with_all_of"), remedies.together());
    return root;
  }

  private static void options(ArrayNode array, List<Remedies.Remedy> remedies) {
    remedies.forEach(
        r -> array.addObject().put("option", r.option()).put("total_bytes", r.total()));
  }
}
