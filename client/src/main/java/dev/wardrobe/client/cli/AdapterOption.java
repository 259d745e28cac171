package dev.wardrobe.client.cli;

import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.GenerateRequest;
import java.util.List;
import org.jspecify.annotations.Nullable;
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

  @Option(
      names = "--request-key",
      paramLabel = "KEY",
      description = "Whose request it is: an alias that is split gives one key one version.")
  private @Nullable String requestKey;

  /** Asks for what was chosen. */
  void in(GenerateRequest.Builder request) {
    in(choice(), request);
  }

  /** Asks for another choice by now, as whoever it was before. */
  void in(AdapterChoice choice, GenerateRequest.Builder request) {
    choice.in(request);
    if (requestKey != null) {
      request.setRequestKey(requestKey);
    }
  }

  /** Asks for what was chosen. */
  void in(EmbedRequest.Builder request) {
    choice().in(request);
    if (requestKey != null) {
      request.setRequestKey(requestKey);
    }
  }

  AdapterChoice choice() {
    try {
      return AdapterChoice.of(adapters);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), "--adapter: " + e.getMessage(), e);
    }
  }
}
