package dev.wardrobe.client.cli;

import dev.wardrobe.client.load.AdapterMix;
import dev.wardrobe.client.load.Lengths;
import dev.wardrobe.client.load.LoadCase;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** What load to make: the command's own options, and again those of each case. */
final class CaseOptions {
  @Option(
      names = "--adapters",
      paramLabel = "NAMES",
      defaultValue = "none",
      description =
          "Names with commas between; a{0000..0031} are 32 of them, none is the base. Default:"
              + " ${DEFAULT-VALUE}.")
  private String adapters = "none";

  @Option(
      names = "--pick",
      paramLabel = "HOW",
      defaultValue = "uniform",
      description =
          "Which of them a request asks for: uniform, zipf:1.0 (the first most often), round-robin,"
              + " or each (every stream has its own). Default: ${DEFAULT-VALUE}.")
  private String pick = "uniform";

  @Option(
      names = "--streams",
      paramLabel = "N",
      defaultValue = "16",
      description =
          "Closed loop: so many requests at a time, each followed at once by another. Default:"
              + " ${DEFAULT-VALUE}.")
  private int streams = 16;

  @Option(
      names = "--rate",
      paramLabel = "X",
      defaultValue = "0",
      description =
          "Open loop instead: so many requests a second, at random times (Poisson), whatever"
              + " becomes of them; latencies count from when a request was due.")
  private double rate;

  @Option(
      names = "--prompt-tokens",
      paramLabel = "N[-M]",
      defaultValue = "32",
      description = "Tokens of a prompt, random ones. Default: ${DEFAULT-VALUE}.")
  private String prompt = "32";

  @Option(
      names = "--shared-prefix",
      paramLabel = "N",
      defaultValue = "0",
      description = "Tokens that all prompts begin with. Default: ${DEFAULT-VALUE}.")
  private int shared;

  @Option(
      names = "--answer-tokens",
      paramLabel = "N[-M]",
      defaultValue = "64",
      description = "Tokens of an answer, exactly. Default: ${DEFAULT-VALUE}.")
  private String answer = "64";

  @Option(
      names = "--guests",
      paramLabel = "NAMES",
      description = "Requests beside the load, for these adapters in turn, measured apart.")
  private @Nullable String guests;

  @Option(
      names = "--guest-every",
      paramLabel = "SECONDS",
      defaultValue = "1",
      description = "From one guest to the next. Default: ${DEFAULT-VALUE}.")
  private double guestEvery = 1;

  @Option(
      names = "--guest-answer-tokens",
      paramLabel = "N[-M]",
      defaultValue = "8",
      description = "Tokens of a guest's answer. Default: ${DEFAULT-VALUE}.")
  private String guestAnswer = "8";

  @Option(
      names = "--deadline-ms",
      paramLabel = "N",
      defaultValue = "0",
      description = "Of each request. Default: none.")
  private long deadlineMillis;

  @Option(
      names = "--serve",
      paramLabel = "ARGUMENTS",
      description =
          "Start a server with these arguments, for as long as this takes; cases with the same"
              + " arguments share it. Default: the one that --server names.")
  private @Nullable String serve;

  /** The arguments of a server to start, or null for one that runs already. */
  @Nullable String serve() {
    return serve;
  }

  /**
   * The case that they describe.
   *
   * @throws IllegalArgumentException if they do not; says which
   */
  LoadCase named(String name) {
    within("--streams", streams, 1, 100_000);
    within("--rate", rate, 0, 1e6);
    within("--shared-prefix", shared, 0, 1 << 20);
    within("--guest-every", guestEvery, 0.001, 3600);
    within("--deadline-ms", (double) deadlineMillis, 0, 86_400_000);
    return new LoadCase(
        name,
        AdapterMix.parse(adapters, pick),
        streams,
        rate,
        Lengths.parse("--prompt-tokens", prompt),
        shared,
        Lengths.parse("--answer-tokens", answer),
        guests == null ? List.of() : AdapterMix.parse(guests, "round-robin").names(),
        guestEvery,
        Lengths.parse("--guest-answer-tokens", guestAnswer),
        deadlineMillis);
  }

  static void within(String what, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
      throw new IllegalArgumentException(
          "%s: expected %.15g to %.15g, got %.15g"
              .formatted(what, least, most, value)
              .replaceAll("(\\.\\d*?)0+(?!\\d)", "$1")
              .replaceAll("\\.(?!\\d)", ""));
    }
  }
}
