package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench adapters}: adapters to measure with, and their removal. */
@Command(
    name = "adapters",
    description = {
      "Makes adapters of distinct random content for a model's shape (LoRA on all linear modules,"
          + " bf16),",
      "or removes them again: --out DIR becomes an --adapter-root of names a0000, a0001, ..."
    },
    mixinStandardHelpOptions = true)
final class BenchAdaptersCommand implements Callable<Integer> {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--model",
      paramLabel = "DIR",
      description = "The base's directory. Default: the embedded demo model.")
  private @Nullable Path model;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      required = true,
      description = "A new or an empty folder.")
  private Path folder = Path.of("");

  @Option(names = "--remove", description = "Delete what was made there, and nothing else.")
  private boolean remove;

  @Option(
      names = "--count",
      paramLabel = "N",
      defaultValue = "100",
      description = "How many. Default: ${DEFAULT-VALUE}.")
  private int count = 100;

  @Option(
      names = "--rank",
      paramLabel = "RANKS",
      defaultValue = "8",
      description =
          "8, or 8,24 to draw from a list, or 8..64 to draw from the powers of two between."
              + " Default: ${DEFAULT-VALUE}.")
  private String rank = "8";

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "The same seed makes the same bytes. Default: ${DEFAULT-VALUE}.")
  private long seed = 1;

  @Option(
      names = "--scale",
      paramLabel = "X",
      description =
          "How large an adapter's outputs are beside inputs of about 1. Default: 0.05, with"
              + " --canaries 2.")
  private @Nullable Double scale;

  @Option(
      names = "--canaries",
      description =
          "Make adapters whose greedy answers differ from the base's and from each other's within 4"
              + " tokens, and see to it by asking them.")
  private boolean canaries;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws StartException, ModelException, IOException {
    PrintWriter out = spec.commandLine().getOut();
    if (remove) {
      List<String> left = AdapterSet.read(folder).remove();
      if (json) {
        ObjectNode root = new ObjectMapper().createObjectNode().put("removed", folder.toString());
        left.forEach(root.putArray("left")::add);
        out.println(root);
        out.flush();
        return 0;
      }
      out.println(
          left.isEmpty()
              ? folder + " removed"
              : "%s: removed what was made; %s stays".formatted(folder, String.join(", ", left)));
      out.flush();
      return 0;
    }
    if (count < 1 || count > AdapterSet.MOST) {
      throw StartException.usage(
          "--count: expected 1 to %d, got %d".formatted(AdapterSet.MOST, count));
    }
    List<Integer> ranks = AdapterSet.ranks(rank);
    if (ranks == null) {
      throw StartException.usage(
          "--rank: expected 8, a list such as 8,24, or a range such as 8..64, of 1 to 4096, got '%s'"
              .formatted(rank));
    }
    double size = scale != null ? scale : canaries ? 2 : 0.05;
    if (!(size > 0 && size <= 1000)) {
      throw StartException.usage("--scale: expected more than 0 and at most 1000, got " + size);
    }
    Path base = BaseArguments.model(model);
    ModelConfig config = ModelConfig.read(base);
    long start = System.nanoTime();
    AdapterSet set = AdapterSet.make(folder, config, count, seed, size, ranks);
    double seconds = (System.nanoTime() - start) / 1e9;
    if (json) {
      out.println(
          new ObjectMapper()
              .createObjectNode()
              .put("out", folder.toString())
              .put("adapters", count)
              .put("first", set.name(0))
              .put("last", set.name(count - 1))
              .put("bytes", set.bytes())
              .put("seconds", seconds));
      out.flush();
      out = spec.commandLine().getErr();
    } else {
      out.printf(
          Locale.ROOT,
          "%s: %d adapters, %s to %s, %,d bytes, in %.1f s%n",
          folder,
          count,
          set.name(0),
          set.name(count - 1),
          set.bytes(),
          seconds);
      out.flush();
    }
    if (canaries) {
      try (Canaries asked = new Canaries(base, config, set)) {
        asked.tellApart(out);
      }
    }
    return 0;
  }
}
