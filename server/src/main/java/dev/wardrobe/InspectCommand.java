package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterSummary;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.Inspection;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.MemoryUse;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code wardrobe inspect}: says what a model or an adapter holds, and where each byte is. */
@Command(
    name = "inspect",
    description = "Say what a model's or an adapter's directory holds, and where each byte is.",
    mixinStandardHelpOptions = true)
final class InspectCommand implements Callable<Integer> {
  /** What the JVM takes beside weights and cache: heap, code, threads, and a step's workspace. */
  private static final long JVM_BYTES = 256L << 20;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(paramLabel = "DIR", description = "A model's directory, or a PEFT adapter's.")
  private Path directory = Path.of("");

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Option(
      names = "--fingerprint",
      description = "Read all quantized weights, and print the base's fingerprint.")
  private boolean fingerprint;

  @Option(
      names = "--math",
      paramLabel = "MODE",
      defaultValue = "exact",
      description =
          "The mode that the model would be run in, exact or fast; says which one this machine"
              + " would then use. Default: ${DEFAULT-VALUE}.")
  private String math = "exact";

  @Mixin private final ResidentArguments resident = new ResidentArguments();

  @Override
  public Integer call() throws ModelException, AdapterException, IOException, StartException {
    MathMode asked = BaseArguments.math(math);
    LoadOptions load = resident.load();
    EngineOptions engine = resident.engine();
    PrintWriter out = spec.commandLine().getOut();
    if (Files.exists(directory.resolve("adapter_config.json"))
        && !Files.exists(directory.resolve("config.json"))) {
      AdapterSummary adapter = AdapterSummary.read(directory, AdapterOptions.DEFAULT);
      if (json) {
        out.println(pretty(tree(adapter)));
      } else {
        print(adapter, out);
      }
      return 0;
    }
    Inspection model = Inspection.of(directory, load, fingerprint);
    KvShape kv = engine.shape(model.config());
    String refusal = CpuBackend.refusal(asked);
    MathMode effective = refusal == null ? asked : MathMode.EXACT;
    if (json) {
      out.println(pretty(tree(model, kv).put("math", effective.id())));
    } else {
      print(model, kv, out);
      out.println("math " + effective.id());
    }
    if (refusal != null) {
      spec.commandLine().getErr().println("--math fast is not to be had: " + refusal);
    }
    return 0;
  }

  private static String pretty(ObjectNode tree) throws IOException {
    return new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(tree);
  }

  private void print(AdapterSummary adapter, PrintWriter out) {
    out.printf(
        Locale.ROOT,
        "%s: %s adapter, r %d, alpha %s, targets %s%n",
        name(directory),
        adapter.kind(),
        adapter.rank(),
        adapter.alpha(),
        adapter.targets());
    out.printf(
        Locale.ROOT,
        "%d modules of rank %s, %d tensors as %s%n",
        adapter.modules(),
        adapter.ranks(),
        adapter.tensors(),
        String.join(", ", adapter.types()));
    row(out, "adapter_config.json", adapter.configBytes());
    row(out, "adapter weights", adapter.weightBytes());
    out.printf(Locale.ROOT, "  %-24s%,16d%n", "parameters", adapter.parameters());
    if (!adapter.saved().isEmpty()) {
      out.println("replaces " + String.join(", ", adapter.saved()));
    }
    if (adapter.base() != null) {
      out.println("base " + adapter.base());
    }
    if (adapter.fingerprint() != null) {
      out.println("base fingerprint " + adapter.fingerprint());
    }
    adapter.warnings().forEach(warning -> out.println("warning: " + warning));
    out.println("digest " + adapter.digest());
  }

  private ObjectNode tree(AdapterSummary adapter) {
    ObjectNode root = new ObjectMapper().createObjectNode();
    root.put("kind", "adapter");
    root.put("name", name(directory));
    root.put("digest", adapter.digest());
    root.put("type", adapter.kind().toString());
    root.put("r", adapter.rank());
    root.put("lora_alpha", adapter.alpha());
    root.put("target_modules", adapter.targets());
    adapter.saved().forEach(root.putArray("modules_to_save")::add);
    root.put("base_model_name_or_path", adapter.base());
    root.put("base_fingerprint", adapter.fingerprint());
    root.put("modules", adapter.modules());
    adapter.ranks().forEach(root.putArray("ranks")::add);
    root.put("tensors", adapter.tensors());
    root.put("parameters", adapter.parameters());
    adapter.types().forEach(root.putArray("types")::add);
    root.put("config_bytes", adapter.configBytes());
    root.put("weight_bytes", adapter.weightBytes());
    adapter.warnings().forEach(root.putArray("warnings")::add);
    return root;
  }

  private static void print(Inspection model, KvShape kv, PrintWriter out) {
    ModelConfig c = model.config();
    out.printf(
        "%s: %s, %d layers, hidden %d, %d heads of %d (%d for keys and values), feed-forward %d,"
            + " vocabulary %d%s, context %d, RoPE %s%n",
        name(model.directory()),
        c.family(),
        c.layers(),
        c.hidden(),
        c.heads(),
        c.headDim(),
        c.kvHeads(),
        c.ffn(),
        c.vocabulary(),
        c.tied() ? " (head tied)" : "",
        c.contextLength(),
        c.rope().kind().id());
    out.printf(
        "%d file%s, %d bytes; weights as %s%s%n",
        model.files().size(),
        model.files().size() == 1 ? "" : "s",
        model.fileBytes(),
        String.join(", ", model.types()),
        blocks(model));
    table(model.stored(), out);
    MemoryUse quantized = model.quantized();
    if (quantized != null) {
      out.println("quantized when loaded (nf4, double quantization):");
      table(quantized, out);
    }
    long elements = kvElements(c);
    out.printf(
        Locale.ROOT,
        "  %-24s%,16d bytes, or %,d as bf16%n",
        "KV cache per token",
        4 * elements,
        2 * elements);
    out.println("resident when served with these options, without adapters:");
    MemoryUse weights = model.resident();
    row(
        out,
        model.headQuantized() ? "linears and head, 4 bits" : "linears at 4 bits",
        weights.quantized());
    row(out, "other weights", weights.total() - weights.quantized());
    row(out, "KV cache when full", kv.bytes(), tokens(kv));
    row(out, "JVM and workspace", JVM_BYTES, "allowed for");
    row(out, "total", expected(weights, kv));
    if (model.fingerprint() != null) {
      out.println(
          "fingerprint "
              + (model.fingerprint().isEmpty()
                  ? "none: nothing is quantized"
                  : model.fingerprint()));
    }
  }

  private static long expected(MemoryUse weights, KvShape kv) {
    return weights.total() + kv.bytes() + JVM_BYTES;
  }

  private static String tokens(KvShape kv) {
    return String.format(
        Locale.ROOT,
        "%,d tokens as %s",
        (long) kv.blocks() * KvShape.BLOCK_TOKENS,
        kv.type().name().toLowerCase(Locale.ROOT));
  }

  /** Elements of keys and values that one token takes, over all layers. */
  private static long kvElements(ModelConfig c) {
    return 2L * c.layers() * c.kvHeads() * c.headDim();
  }

  private static String blocks(Inspection model) {
    return model.blockSizes().isEmpty()
        ? ""
        : " in blocks of "
            + model.blockSizes().stream().map(String::valueOf).collect(Collectors.joining(", "));
  }

  private static void table(MemoryUse use, PrintWriter out) {
    row(out, "base at 4 bits", use.packed());
    row(out, "absmax", use.absmax());
    row(out, "nested absmax", use.nestedAbsmax());
    row(out, "projections unquantized", use.dense());
    row(out, "embeddings", use.embeddings());
    row(out, "norms and biases", use.norms());
    row(out, "total", use.total());
    out.printf("  %-24s%,16d%n", "parameters", use.parameters());
    if (use.quantizedParameters() > 0) {
      out.printf(
          Locale.ROOT,
          "  %-24s%16.3f over %,d quantized weights%n",
          "bits per weight",
          use.bitsPerWeight(),
          use.quantizedParameters());
    }
  }

  private static void row(PrintWriter out, String what, long bytes) {
    out.printf(Locale.ROOT, "  %-24s%,16d bytes%n", what, bytes);
  }

  private static void row(PrintWriter out, String what, long bytes, String note) {
    out.printf(Locale.ROOT, "  %-24s%,16d bytes, %s%n", what, bytes, note);
  }

  private static String name(Path directory) {
    Path name = directory.toAbsolutePath().normalize().getFileName();
    return name == null ? directory.toString() : name.toString();
  }

  private static ObjectNode tree(Inspection model, KvShape kv) {
    ModelConfig c = model.config();
    ObjectNode root = new ObjectMapper().createObjectNode();
    root.put("kind", "model");
    root.put("name", name(model.directory()));
    root.put("family", c.family());
    root.put("layers", c.layers());
    root.put("hidden_size", c.hidden());
    root.put("heads", c.heads());
    root.put("kv_heads", c.kvHeads());
    root.put("head_dim", c.headDim());
    root.put("intermediate_size", c.ffn());
    root.put("vocabulary", c.vocabulary());
    root.put("tied", c.tied());
    root.put("context", c.contextLength());
    root.put("rope", c.rope().kind().id());
    root.put("files", model.files().size());
    root.put("file_bytes", model.fileBytes());
    model.types().forEach(root.putArray("types")::add);
    model.blockSizes().forEach(root.putArray("block_sizes")::add);
    use(root, "stored", model.stored());
    use(root, "quantized", model.quantized());
    root.put("kv_bytes_per_token_f32", 4 * kvElements(c));
    root.put("kv_bytes_per_token_bf16", 2 * kvElements(c));
    MemoryUse weights = model.resident();
    root.putObject("resident")
        .put("head_quantized", model.headQuantized())
        .put("quantized_bytes", weights.quantized())
        .put("other_weight_bytes", weights.total() - weights.quantized())
        .put("kv_tokens", (long) kv.blocks() * KvShape.BLOCK_TOKENS)
        .put("kv_type", kv.type().name().toLowerCase(Locale.ROOT))
        .put("kv_bytes", kv.bytes())
        .put("jvm_bytes", JVM_BYTES)
        .put("total_bytes", expected(weights, kv));
    root.put("fingerprint", model.fingerprint());
    return root;
  }

  private static void use(ObjectNode root, String key, @Nullable MemoryUse use) {
    if (use == null) {
      root.putNull(key);
      return;
    }
    ObjectNode node = root.putObject(key);
    node.put("packed_bytes", use.packed());
    node.put("absmax_bytes", use.absmax());
    node.put("nested_absmax_bytes", use.nestedAbsmax());
    node.put("unquantized_projection_bytes", use.dense());
    node.put("embedding_bytes", use.embeddings());
    node.put("norm_bytes", use.norms());
    node.put("total_bytes", use.total());
    node.put("parameters", use.parameters());
    node.put("quantized_parameters", use.quantizedParameters());
    node.put("bits_per_weight", use.bitsPerWeight());
  }
}
