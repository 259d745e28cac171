package dev.wardrobe.client.cli;

import java.util.List;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;
import picocli.CommandLine.Spec.Target;

/** Which adapters answer. */
final class AdapterOption {
  @Spec(Target.MIXEE)
  private CommandSpec spec;

  @Option(
      names = "--adapter",
      paramLabel = "NAME[=WEIGHT]",
      description = {
        "Default: the base. With a weight its deltas are multiplied by it (0 is the base);",
        "given several times, the adapters are added up."
      })
  private List<String> adapters = List.of();

  AdapterChoice choice() {
    try {
      return AdapterChoice.of(adapters);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), "--adapter: " + e.getMessage(), e);
    }
  }
}
