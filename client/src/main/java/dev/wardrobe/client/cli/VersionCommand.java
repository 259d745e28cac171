package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code wardrobe version}. */
@Command(
    name = "version",
    description = "Prints the version.",
    mixinStandardHelpOptions = true,
    versionProvider = Version.class)
final class VersionCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;

  @Option(names = "--json", description = "Print one JSON document.")
  private boolean json;

  @Override
  public Integer call() {
    PrintWriter out = spec.commandLine().getOut();
    out.println(
        json
            ? new ObjectMapper()
                .createObjectNode()
                .put("version", Version.text())
                .put("java", System.getProperty("java.vm.version"))
                .toString()
            : "wardrobe " + Version.text());
    out.flush();
    return ExitCode.DONE;
  }
}
