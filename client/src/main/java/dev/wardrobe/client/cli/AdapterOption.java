package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.GenerateRequest;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
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

  /**
   * After a refusal: if a name is unknown and another is near, says so instead.
   *
   * @throws UnknownAdapterException if there is one to suggest
   */
  void refused(StatusRuntimeException failure, ServerOption server)
      throws IOException, UnknownAdapterException {
    if (failure.getStatus().getCode() != Status.Code.NOT_FOUND || adapters.isEmpty()) {
      return;
    }
    Set<String> names = new TreeSet<>();
    try (WardrobeClient client = server.connect()) {
      for (Adapter each : client.withDeadline(Duration.ofSeconds(5)).listAdapters()) {
        names.add(each.getName());
        int at = each.getName().indexOf('@');
        if (at > 0) {
          names.add(each.getName().substring(0, at));
        }
      }
    } catch (StatusRuntimeException e) {
      return;
    }
    for (AdapterWeight each : choice().adapters()) {
      String meant =
          names.contains(each.getAdapter()) ? null : Spelling.closest(each.getAdapter(), names);
      if (meant != null) {
        throw new UnknownAdapterException(Failure.of(failure).meant(meant), failure);
      }
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
