package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.bench.Bench;
import dev.wardrobe.bench.BenchOptions;
import dev.wardrobe.bench.Measurement;
import dev.wardrobe.bench.Shape;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.UnavailableException;
import dev.wardrobe.compute.cuda.CudaBackend;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.RandomModel;
import java.io.IOException;
import java.io.PrintWriter;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench device}: what a CUDA device does, in one report. */
@Command(
    name = "device",
    description =
        "Measure a CUDA device: copies, decoding with and without adapters, prefill, swap-in, and"
            + " what a 65B model takes; with random weights.",
    mixinStandardHelpOptions = true)
final class BenchDeviceCommand implements Callable<Integer> {
  private static final int SWAPS = 15;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--shape",
      paramLabel = "NAME",
      defaultValue = "llama3-8b",
      description = "The shape that is timed. Default: ${DEFAULT-VALUE}.")
  private String shape = "llama3-8b";

  @Option(
      names = "--large",
      paramLabel = "NAME",
      defaultValue = "llama-65b",
      description = "The shape that is only made resident, or none. Default: ${DEFAULT-VALUE}.")
  private String large = "llama-65b";

  @Option(
      names = "--batch",
      paramLabel = "LIST",
      split = ",",
      defaultValue = "1,8,32,64",
      description = "Streams. Default: ${DEFAULT-VALUE}.")
  private List<Integer> batches = List.of();

  @Option(
      names = "--prompt",
      paramLabel = "LIST",
      split = ",",
      defaultValue = "512,2048",
      description = "Tokens of prefills. Default: ${DEFAULT-VALUE}.")
  private List<Integer> prompts = List.of();

  @Option(
      names = "--adapters",
      paramLabel = "N",
      defaultValue = "32",
      description = "Different adapters of one batch. Default: ${DEFAULT-VALUE}.")
  private int adapters;

  @Option(
      names = "--rank",
      paramLabel = "N",
      defaultValue = "16",
      description = "Their rank. Default: ${DEFAULT-VALUE}.")
  private int rank;

  @Option(
      names = "--reps",
      paramLabel = "N",
      defaultValue = "5",
      description = "Timed runs of each case. Default: ${DEFAULT-VALUE}.")
  private int repetitions;

  @Option(
      names = "--steps",
      paramLabel = "N",
      defaultValue = "64",
      description = "Tokens that each stream generates in a run. Default: ${DEFAULT-VALUE}.")
  private int steps;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      description = "Where device.json and device.md go. Default: Markdown on standard output.")
  private @Nullable Path out;

  @Option(
      names = "--images",
      description = "Only list the kernels that this build has as machine code; needs no device.")
  private boolean images;

  @Option(names = "--json", description = "Print one JSON document instead of Markdown.")
  private boolean json;

  @Override
  public Integer call() throws StartException, IOException {
    if (images) {
      try {
        if (json) {
          ObjectNode root = new ObjectMapper().createObjectNode();
          CudaBackend.images().forEach(root.putArray("images")::add);
          spec.commandLine().getOut().println(root);
        } else {
          CudaBackend.images().forEach(spec.commandLine().getOut()::println);
        }
      } catch (UnavailableException e) {
        throw new StartException(String.valueOf(e.getMessage()), e);
      }
      return 0;
    }
    Shape timed = shape("--shape", shape);
    Shape resident = large.equals("none") ? null : shape("--large", large);
    ObjectNode report = new ObjectMapper().createObjectNode();
    try (CudaBackend backend = CudaBackend.open(MathMode.EXACT)) {
      report.put("device", backend.describe());
      report.put("java", Runtime.version().toString());
      double copies = backend.copyRate();
      report.put("copy_bytes_per_second", copies);
      say("%s, copies %.0f GB/s", backend.describe(), copies / 1e9);
      time(timed, backend, copies, report);
      if (resident != null) {
        try {
          report.set("large", resident(resident, backend));
        } catch (OutOfMemoryException e) {
          report.putObject("large").put("name", large).put("refused", e.getMessage());
        }
      }
    } catch (UnavailableException e) {
      throw new StartException(
          "%s; bench device measures a CUDA device, wardrobe bench the processor"
              .formatted(e.getMessage()),
          e);
    } catch (OutOfMemoryException e) {
      throw new StartException(String.valueOf(e.getMessage()), e);
    }
    String markdown = markdown(report);
    PrintWriter console = spec.commandLine().getOut();
    if (json) {
      console.println(
          new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(report));
    } else if (out == null) {
      console.print(markdown);
    }
    if (out != null) {
      Files.createDirectories(out);
      Files.writeString(
          out.resolve("device.json"),
          new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(report) + "\n");
      Files.writeString(out.resolve("device.md"), markdown);
      if (!json) {
        console.println("wrote " + out.resolve("device.json") + " and device.md");
      }
    }
    console.flush();
    return 0;
  }

  private static Shape shape(String option, String name) throws StartException {
    Shape known = Shape.find(name);
    if (known == null) {
      throw StartException.usage(
          "%s: expected one of %s, got '%s'".formatted(option, Shape.known(), name));
    }
    return known;
  }

  @FormatMethod
  private void say(String format, Object... arguments) {
    PrintWriter err = spec.commandLine().getErr();
    err.println(String.format(Locale.ROOT, format, arguments));
    err.flush();
  }

  private static ObjectNode resident(Shape of, CudaBackend backend) {
    long began = System.nanoTime();
    long before = backend.spareBytes();
    try (Model model = RandomModel.of(of.id(), of.config(), false, 1, backend)) {
      return about(model, of)
          .put("seconds_to_make_resident", (System.nanoTime() - began) / 1e9)
          .put("spare_bytes_before", before)
          .put("spare_bytes_after", backend.spareBytes());
    }
  }

  private static ObjectNode about(Model model, Shape of) {
    return new ObjectMapper()
        .createObjectNode()
        .put("name", of.id())
        .put("parameters", model.memory().parameters())
        .put("bytes", model.memory().total())
        .put("bits_per_quantized_weight", model.memory().bitsPerWeight());
  }

  private void time(Shape of, CudaBackend backend, double copies, ObjectNode report) {
    try (Model model = RandomModel.of(of.id(), of.config(), false, 1, backend)) {
      report.set("model", about(model, of));
      // A step reads every weight but the embedding's, of which it reads rows.
      long read = model.memory().total() - model.memory().embeddings();
      report.put("bytes_read_per_step", read);
      ArrayNode cases = report.putArray("cases");
      for (int prompt : prompts) {
        add(cases, run(model, backend, Measurement.Kind.PREFILL, prompt, List.of(), 0), 0, 0);
      }
      for (Measurement each : run(model, backend, Measurement.Kind.BATCH, 1, batches, 0)) {
        add(cases, List.of(each), read, copies);
      }
      List<Measurement> mixed =
          run(model, backend, Measurement.Kind.ADAPTERS, 1, List.of(), adapters);
      add(cases, mixed, read, copies);
      report.put("adapters_to_base", mixed.get(1).ratioTo(mixed.get(0)));
      swap(model, backend, report.putArray("swap_in"));
    }
  }

  private List<Measurement> run(
      Model model,
      CudaBackend backend,
      Measurement.Kind kind,
      int prompt,
      List<Integer> streams,
      int different) {
    BenchOptions options =
        new BenchOptions(
            Set.of(kind),
            prompt,
            1,
            streams,
            steps,
            different,
            rank,
            repetitions,
            repetitions,
            1,
            Math.max(256, prompt),
            KvShape.Type.BF16,
            false,
            1);
    return new Bench(model, backend, options)
        .run(
            each ->
                say(
                    "%s, %d streams, %d adapters: %.1f tokens/s",
                    each.kind().name().toLowerCase(Locale.ROOT),
                    each.streams(),
                    each.adapters(),
                    each.median()));
  }

  private static void add(ArrayNode to, List<Measurement> all, long read, double copies) {
    for (Measurement each : all) {
      ObjectNode node = to.addObject();
      node.put("case", each.kind().name().toLowerCase(Locale.ROOT));
      node.put("streams", each.streams());
      node.put("prompt", each.prompt());
      node.put("adapters", each.adapters());
      node.put("rank", each.rank());
      node.put("tokens_per_second", each.median());
      node.put("min", each.min());
      node.put("max", each.max());
      if (copies > 0) {
        node.put("of_copy_rate", each.median() / each.streams() * read / copies);
      }
    }
  }

  /** How long an adapter takes from host memory until it can be used. */
  private void swap(Model model, CudaBackend backend, ArrayNode to) {
    for (int each : new int[] {8, rank, 64}) {
      try (Arena arena = Arena.ofShared()) {
        Map<Integer, Delta> deltas = RandomModel.deltas(model, each, 1, arena);
        double[] seconds = new double[SWAPS];
        for (int i = 0; i < SWAPS; i++) {
          long began = System.nanoTime();
          try (Lora lora = backend.lora(deltas, model::matrix)) {
            seconds[i] = (System.nanoTime() - began) / 1e9;
            if (i == 0) {
              to.addObject().put("rank", each).put("bytes", lora.bytes());
            }
          }
        }
        Arrays.sort(seconds);
        ((ObjectNode) to.get(to.size() - 1))
            .put("median_seconds", seconds[SWAPS / 2])
            .put("min", seconds[0])
            .put("max", seconds[SWAPS - 1]);
      }
    }
  }

  private static String markdown(ObjectNode report) {
    StringBuilder text = new StringBuilder();
    line(text, "# %s", report.get("device").asText());
    line(text, "");
    line(
        text,
        "Copies within the device: %.0f GB/s read and written. Model: %s, random weights, %,d bytes"
            + " resident, %,d of them read for each step.",
        report.get("copy_bytes_per_second").asDouble() / 1e9,
        report.get("model").get("name").asText(),
        report.get("model").get("bytes").asLong(),
        report.get("bytes_read_per_step").asLong());
    line(text, "");
    line(text, "| case | streams | prompt | adapters | tokens/s (min to max) | of the copy rate |");
    line(text, "|---|---|---|---|---|---|");
    for (var each : report.get("cases")) {
      line(
          text,
          "| %s | %d | %d | %d | %.1f (%.1f to %.1f) | %s |",
          each.get("case").asText(),
          each.get("streams").asInt(),
          each.get("prompt").asInt(),
          each.get("adapters").asInt(),
          each.get("tokens_per_second").asDouble(),
          each.get("min").asDouble(),
          each.get("max").asDouble(),
          each.has("of_copy_rate") ? "%.2f".formatted(each.get("of_copy_rate").asDouble()) : "");
    }
    line(text, "");
    line(text, "Adapters over base: %.3f.", report.get("adapters_to_base").asDouble());
    line(text, "");
    line(text, "| swap-in of rank | bytes | milliseconds (min to max) |");
    line(text, "|---|---|---|");
    for (var each : report.get("swap_in")) {
      line(
          text,
          "| %d | %,d | %.2f (%.2f to %.2f) |",
          each.get("rank").asInt(),
          each.get("bytes").asLong(),
          1e3 * each.get("median_seconds").asDouble(),
          1e3 * each.get("min").asDouble(),
          1e3 * each.get("max").asDouble());
    }
    if (report.has("large")) {
      line(text, "");
      line(text, "Made resident: %s.", report.get("large"));
    }
    return text.toString();
  }

  @FormatMethod
  private static void line(StringBuilder text, String format, Object... arguments) {
    text.append(String.format(Locale.ROOT, format, arguments)).append('\n');
  }
}
