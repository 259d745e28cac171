package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.StoreImport;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.model.ModelLoader;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code wardrobe store}: what an adapter store holds, without a server. */
@Command(
    name = "store",
    description = "Look after a store of adapters: an OCI image layout on disk.",
    footer = {
      "",
      "list, verify and export may run beside a server; import and gc need the store to themselves,"
          + " and say so.",
    },
    subcommands = {
      StoreCommand.ListCommand.class,
      StoreCommand.ImportCommand.class,
      StoreCommand.ExportCommand.class,
      StoreCommand.VerifyCommand.class,
      StoreCommand.CollectCommand.class
    },
    mixinStandardHelpOptions = true)
final class StoreCommand implements Runnable {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(
        spec.commandLine(), "expected a command of the store: list, import, export, verify or gc");
  }

  /** Which store. */
  static final class Place {
    @Option(
        names = "--store",
        required = true,
        paramLabel = "DIR",
        description = "The store's directory.")
    private Path directory = Path.of("");

    AdapterStore toRead() throws AdapterException {
      return AdapterStore.openToRead(directory, StoreOptions.DEFAULT);
    }

    AdapterStore toWrite() throws AdapterException {
      return AdapterStore.open(directory, StoreOptions.DEFAULT);
    }

    /** To change what is there, which a mistyped path is not. */
    AdapterStore existing() throws AdapterException {
      toRead().close();
      return toWrite();
    }
  }

  private static String plural(long count, String one, String many) {
    return String.format(Locale.ROOT, "%,d %s", count, count == 1 ? one : many);
  }

  /** {@code wardrobe store list}. */
  @Command(
      name = "list",
      description = "List names with their versions and aliases.",
      mixinStandardHelpOptions = true)
  static final class ListCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws AdapterException, IOException {
      try (AdapterStore store = place.toRead()) {
        PrintWriter out = spec.commandLine().getOut();
        if (json) {
          out.println(
              new ObjectMapper()
                  .writerWithDefaultPrettyPrinter()
                  .writeValueAsString(tree(store.catalog())));
        } else {
          print(store.catalog(), out);
        }
        out.flush();
        return 0;
      }
    }

    private static void print(Catalog catalog, PrintWriter out) {
      long bytes = 0;
      for (Catalog.Entry entry : catalog.entries().values()) {
        for (Catalog.Version version : entry.versions()) {
          out.printf(
              Locale.ROOT,
              "%-32s %s %,15d bytes  %s%n",
              entry.name() + "@" + version.label(),
              version.digest(),
              version.content().bytes(),
              version.time());
        }
        for (Catalog.Alias alias : entry.aliases().values()) {
          out.printf("%-32s -> %s%n", entry.name() + "@" + alias.label(), target(entry, alias));
        }
      }
      for (var content : catalog.contents().values()) {
        bytes += content.bytes();
      }
      out.printf(
          Locale.ROOT,
          "%s, %s, %,d bytes; revision %d%n",
          plural(catalog.entries().size(), "name", "names"),
          plural(catalog.contents().size(), "adapter", "adapters"),
          bytes,
          catalog.revision());
    }

    private static String target(Catalog.Entry entry, Catalog.Alias alias) {
      List<Catalog.Share> shares = alias.target().shares();
      String text =
          shares.size() == 1
              ? version(entry, shares.getFirst().digest())
              : shares.stream()
                  .map(share -> version(entry, share.digest()) + " x " + share.weight())
                  .collect(Collectors.joining(", "));
      Catalog.@Nullable Shadow shadow = alias.shadow();
      return shadow == null
          ? text
          : text
              + String.format(
                  Locale.ROOT,
                  "; shadow %s of %s",
                  version(entry, shadow.digest()),
                  shadow.fraction());
    }

    /** The newest version of that digest. */
    private static String version(Catalog.Entry entry, String digest) {
      for (Catalog.Version version : entry.versions().reversed()) {
        if (version.digest().equals(digest)) {
          return version.label();
        }
      }
      return digest;
    }

    private static ObjectNode tree(Catalog catalog) {
      ObjectNode root = new ObjectMapper().createObjectNode();
      root.put("revision", catalog.revision());
      ArrayNode names = root.putArray("names");
      for (Catalog.Entry entry : catalog.entries().values()) {
        ObjectNode name = names.addObject().put("name", entry.name());
        ArrayNode versions = name.putArray("versions");
        for (Catalog.Version version : entry.versions()) {
          versions
              .addObject()
              .put("version", version.label())
              .put("digest", version.digest())
              .put("config_bytes", version.content().configBytes())
              .put("weight_bytes", version.content().weightBytes())
              .put("time", version.time().toString());
        }
        ArrayNode aliases = name.putArray("aliases");
        for (Catalog.Alias alias : entry.aliases().values()) {
          ObjectNode each = aliases.addObject().put("alias", alias.label());
          for (Catalog.Share share : alias.target().shares()) {
            each.withArray("target")
                .addObject()
                .put("digest", share.digest())
                .put("weight", share.weight());
          }
          Catalog.@Nullable Shadow shadow = alias.shadow();
          if (shadow != null) {
            each.putObject("shadow")
                .put("digest", shadow.digest())
                .put("fraction", shadow.fraction());
          }
          each.put("time", alias.current().time().toString());
          each.put("earlier", alias.earlier().size());
        }
      }
      return root;
    }
  }

  /** {@code wardrobe store import}. */
  @Command(
      name = "import",
      description =
          "Take in PEFT directories, or what another OCI image layout holds. What is there already"
              + " is not taken twice. Exit code 1 if any was refused.")
  static final class ImportCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Parameters(
        arity = "1..*",
        paramLabel = "DIR",
        description =
            "PEFT directories, or an OCI image layout, whose names are kept; the store itself, to"
                + " take over what other tools have copied there.")
    private List<Path> directories = new ArrayList<>();

    // Alone: the usual mixin has a --version of its own.
    @Option(
        names = {"-h", "--help"},
        usageHelp = true,
        description = "Show this help message and exit.")
    @SuppressWarnings("UnusedVariable") // picocli's to read
    private boolean help;

    @Option(
        names = "--each",
        description = "DIR holds PEFT directories; each is called as its directory is.")
    private boolean each;

    @Option(
        names = "--name",
        paramLabel = "NAME",
        description = "What it is called. Default: as its directory.")
    private @Nullable String name;

    @Option(
        names = "--version",
        paramLabel = "VERSION",
        description = "Default: the next number, or that which has this content.")
    private @Nullable String version;

    @Option(
        names = "--alias",
        paramLabel = "ALIAS",
        description = "An alias to point to it. May be repeated.")
    private List<String> aliases = new ArrayList<>();

    @Option(
        names = "--model",
        paramLabel = "DIR",
        description =
            "The base that adapters must fit. Without one, that is checked when a server loads"
                + " them.")
    private @Nullable Path model;

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    private final ObjectNode told = new ObjectMapper().createObjectNode();
    private final ArrayNode outcomes = told.putArray("adapters");
    private @Nullable ProgressLine line;
    private int taken;
    private int refused;

    @Override
    public Integer call() throws AdapterException, ModelException, IOException {
      List<Path> layouts =
          directories.stream().filter(dir -> Files.exists(dir.resolve("oci-layout"))).toList();
      List<StoreImport.Source> sources = sources();
      if (name != null && sources.size() + layouts.size() != 1) {
        throw new ParameterException(
            spec.commandLine(),
            "--name: expected one directory, got " + (sources.size() + layouts.size()));
      }
      boolean named = name != null || version != null || !aliases.isEmpty();
      if (named && !layouts.isEmpty()) {
        throw new ParameterException(
            spec.commandLine(), "an OCI image layout has its own names, versions and aliases");
      }
      try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json);
          CpuBackend backend = model == null ? null : new CpuBackend(1);
          Model base =
              model == null || backend == null
                  ? null
                  : ModelLoader.load(model, LoadOptions.DEFAULT, backend, progress::at);
          AdapterStore store = place.toWrite()) {
        line = progress;
        StoreImport importing =
            new StoreImport(store, AdapterOptions.DEFAULT, base).telling(progress::at);
        importing.directories(sources, this::tell);
        for (Path layout : layouts) {
          importing.layout(layout, this::tell);
        }
      }
      PrintWriter out = spec.commandLine().getOut();
      if (json) {
        out.println(told.put("taken", taken).put("refused", refused));
        out.flush();
        return refused == 0 ? 0 : 1;
      }
      out.printf("%s taken in, %d refused%n", plural(taken, "adapter", "adapters"), refused);
      out.flush();
      return refused == 0 ? 0 : 1;
    }

    private List<StoreImport.Source> sources() throws IOException {
      List<StoreImport.Source> sources = new ArrayList<>();
      for (Path directory : directories) {
        if (Files.exists(directory.resolve("oci-layout"))) {
          continue;
        }
        if (!each) {
          sources.add(source(directory));
          continue;
        }
        List<Path> children = new ArrayList<>();
        try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory)) {
          for (Path entry : entries) {
            if (Files.exists(entry.resolve("adapter_config.json"))) {
              children.add(entry);
            }
          }
        }
        children.sort(null);
        children.forEach(child -> sources.add(source(child)));
      }
      return sources;
    }

    private StoreImport.Source source(Path directory) {
      String called = name;
      if (called == null) {
        called = directory.toAbsolutePath().normalize().getFileName() + "";
      }
      return new StoreImport.Source(called, version, aliases, directory);
    }

    private void tell(StoreImport.Outcome outcome) {
      PrintWriter out = spec.commandLine().getOut();
      var content = outcome.content();
      if (line != null) {
        line.clear();
      }
      if (json) {
        ObjectNode each = outcomes.addObject().put("name", outcome.name());
        if (content == null) {
          refused++;
          each.put("refused", String.join("; ", outcome.notes()));
        } else {
          taken++;
          each.put("digest", content.digest()).put("bytes", content.bytes());
          outcome.notes().forEach(each.putArray("warnings")::add);
        }
        return;
      }
      if (content == null) {
        refused++;
        spec.commandLine()
            .getErr()
            .printf("%s: refused: %s%n", outcome.name(), String.join("; ", outcome.notes()));
        spec.commandLine().getErr().flush();
        return;
      }
      taken++;
      out.printf(
          Locale.ROOT, "%-32s %s %,15d bytes%n", outcome.name(), content.digest(), content.bytes());
      outcome.notes().forEach(note -> out.println("  warning: " + note));
      out.flush();
    }
  }

  /** {@code wardrobe store export}. */
  @Command(
      name = "export",
      description = "Write an adapter out as a PEFT directory.",
      mixinStandardHelpOptions = true)
  static final class ExportCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Parameters(
        index = "0",
        paramLabel = "ADAPTER",
        description = "NAME, NAME@VERSION, NAME@ALIAS or a digest.")
    private String reference = "";

    @Parameters(index = "1", paramLabel = "DIR", description = "A new or empty directory.")
    private Path directory = Path.of("");

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws AdapterException, StartException {
      try (AdapterStore store = place.toRead()) {
        Catalog.Found found = store.catalog().find(reference);
        if (found == null) {
          throw StartException.notFound(
              "expected an adapter in the store, got '%s'; see wardrobe store list"
                  .formatted(reference));
        }
        if (found.target().shares().size() > 1) {
          throw StartException.usage(
              "expected one adapter, got '%s', which divides its requests; name a version"
                  .formatted(reference));
        }
        String digest = found.target().main();
        store.export(digest, directory);
        PrintWriter out = spec.commandLine().getOut();
        if (json) {
          out.println(
              new ObjectMapper()
                  .createObjectNode()
                  .put("digest", digest)
                  .put("directory", directory.toString()));
        } else {
          out.printf("%s written to %s%n", digest, directory);
        }
        out.flush();
        return 0;
      }
    }
  }

  /** {@code wardrobe store verify}. */
  @Command(
      name = "verify",
      description =
          "Read everything and compare it with its digests. Exit code 1 if something is wrong.",
      mixinStandardHelpOptions = true)
  static final class VerifyCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws AdapterException {
      try (AdapterStore store = place.toRead()) {
        AdapterStore.Verified verified;
        try (ProgressLine progress = ProgressLine.on(spec.commandLine().getErr(), json)) {
          verified = store.verify(progress::at);
        }
        PrintWriter out = spec.commandLine().getOut();
        PrintWriter err = spec.commandLine().getErr();
        if (json) {
          ObjectNode root =
              new ObjectMapper()
                  .createObjectNode()
                  .put("adapters", verified.adapters())
                  .put("blobs", verified.blobs())
                  .put("bytes", verified.bytes())
                  .put("unreferred", verified.unreferred());
          verified.faults().forEach(root.putArray("faults")::add);
          out.println(root);
          out.flush();
          return verified.faults().isEmpty() ? 0 : 1;
        }
        verified.faults().forEach(err::println);
        err.flush();
        out.printf(
            Locale.ROOT,
            "%s, %s, %,d bytes: %s%s%n",
            plural(verified.adapters(), "adapter", "adapters"),
            plural(verified.blobs(), "blob", "blobs"),
            verified.bytes(),
            verified.faults().isEmpty()
                ? "whole"
                : plural(verified.faults().size(), "fault", "faults"),
            verified.unreferred() == 0
                ? ""
                : "; nothing refers to " + plural(verified.unreferred(), "blob", "blobs"));
        out.flush();
        return verified.faults().isEmpty() ? 0 : 1;
      }
    }
  }

  /** {@code wardrobe store gc}. */
  @Command(
      name = "gc",
      description =
          "Remove blobs that nothing refers to. A server does so itself with what it deletes; this"
              + " is for what other tools leave.",
      mixinStandardHelpOptions = true)
  static final class CollectCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Option(
        names = "--grace",
        paramLabel = "TIME",
        defaultValue = "1h",
        description =
            "Keep what is younger, such as 10m, 1h or 0s: a tool that copies into the store writes"
                + " its blobs first. Default: ${DEFAULT-VALUE}.")
    private String grace = "1h";

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws AdapterException {
      Duration least = duration();
      try (AdapterStore store = place.existing()) {
        AdapterStore.Collected collected = store.collect(least);
        PrintWriter out = spec.commandLine().getOut();
        if (json) {
          out.println(
              new ObjectMapper()
                  .createObjectNode()
                  .put("removed", collected.removed())
                  .put("bytes", collected.bytes())
                  .put("kept", collected.kept()));
          out.flush();
          return 0;
        }
        out.printf(
            Locale.ROOT,
            "%s removed, %,d bytes; %d kept, younger than %s%n",
            plural(collected.removed(), "blob", "blobs"),
            collected.bytes(),
            collected.kept(),
            grace);
        out.flush();
        return 0;
      }
    }

    private Duration duration() {
      try {
        Duration parsed = Duration.parse("PT" + grace);
        if (!parsed.isNegative()) {
          return parsed;
        }
      } catch (DateTimeParseException e) {
        // Said below.
      }
      throw new ParameterException(
          spec.commandLine(), "--grace: expected a time such as 10m or 1h, got '" + grace + "'");
    }
  }
}
