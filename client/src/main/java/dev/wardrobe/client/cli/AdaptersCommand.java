package dev.wardrobe.client.cli;

import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.UnloadAdapterResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** What the server holds, and its coming and going. */
@Command(
    name = "adapters",
    description = "Lists, loads and unloads adapters.",
    mixinStandardHelpOptions = true)
final class AdaptersCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Override
  public void run() {
    throw new ParameterException(
        spec.commandLine(), "a command is missing: list, get, load or unload");
  }

  @Command(
      name = "list",
      description = "The adapters that are loaded.",
      mixinStandardHelpOptions = true)
  int list(@Mixin ServerOption server, @Option(names = "--json") boolean json) throws IOException {
    try (WardrobeClient client = server.connect()) {
      List<Adapter> adapters = client.listAdapters();
      if (json) {
        print(ListAdaptersResponse.newBuilder().addAllAdapters(adapters));
      } else {
        PrintWriter out = spec.commandLine().getOut();
        out.printf(
            "%-20s %-7s %5s %10s %7s  %s%n", "NAME", "KIND", "RANK", "KiB", "IN USE", "DIGEST");
        for (Adapter adapter : adapters) {
          row(out, adapter);
        }
        out.flush();
      }
    }
    return 0;
  }

  @Command(
      name = "get",
      description = "One adapter, by name or digest.",
      mixinStandardHelpOptions = true)
  int get(@Mixin ServerOption server, @Parameters(paramLabel = "NAME") String name)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      print(client.adapter(name));
    }
    return 0;
  }

  @Command(
      name = "load",
      description = "Loads a PEFT directory under one of the server's --adapter-root folders.",
      mixinStandardHelpOptions = true)
  int load(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME") String name,
      @Parameters(arity = "0..1", paramLabel = "PATH", description = "Default: NAME.")
          @Nullable String path) {
    try (WardrobeClient client = server.connect()) {
      LoadAdapterResponse loaded = client.loadAdapter(name, path);
      PrintWriter out = spec.commandLine().getOut();
      out.printf(
          Locale.ROOT,
          "%s %s loaded in %.1f ms%n",
          loaded.getAdapter().getName(),
          loaded.getAdapter().getDigest(),
          loaded.getLoadMs());
      loaded.getAdapter().getWarningsList().forEach(warning -> out.println("warning: " + warning));
      out.flush();
    }
    return 0;
  }

  @Command(
      name = "unload",
      description = "Forgets an adapter; requests that use it end undisturbed.",
      mixinStandardHelpOptions = true)
  int unload(@Mixin ServerOption server, @Parameters(paramLabel = "NAME") String name) {
    try (WardrobeClient client = server.connect()) {
      UnloadAdapterResponse gone = client.unloadAdapter(name);
      PrintWriter out = spec.commandLine().getOut();
      out.println(
          name
              + " unloaded"
              + (gone.getInUse() > 0 ? "; " + gone.getInUse() + " requests still use it" : ""));
      out.flush();
    }
    return 0;
  }

  private static void row(PrintWriter out, Adapter adapter) {
    out.printf(
        Locale.ROOT,
        "%-20s %-7s %5d %,10d %7d  %s%n",
        adapter.getName(),
        adapter.getKind(),
        adapter.getRank(),
        adapter.getBytes() / 1024,
        adapter.getInUse(),
        adapter.getDigest());
  }

  private void print(MessageOrBuilder message) throws IOException {
    PrintWriter out = spec.commandLine().getOut();
    out.println(JsonFormat.printer().preservingProtoFieldNames().print(message));
    out.flush();
  }
}
