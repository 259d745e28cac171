package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.ModelInfoResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** What the server serves, and where each byte of it is. */
@Command(
    name = "info",
    description = "Shows the base that a server holds, and where each byte of it is.",
    mixinStandardHelpOptions = true)
final class InfoCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    PrintWriter out = spec.commandLine().getOut();
    try (WardrobeClient client = server.connect()) {
      ModelInfoResponse info = client.modelInfo();
      if (json) {
        out.println(ProtoJson.document(info));
      } else {
        out.printf(
            "%s: %s, %,d parameters, context %,d, on %s%n",
            info.getModel(),
            info.getFamily(),
            info.getParameters(),
            info.getContextLength(),
            info.getBackend());
        MemoryTable.lines(info.getMemory()).forEach(out::println);
      }
    }
    out.flush();
    return 0;
  }
}
