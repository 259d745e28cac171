package dev.wardrobe.client.cli;

import dev.wardrobe.v1.GenerateRequest;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** How tokens are chosen; what is not given is the server's choice. */
final class SamplingOptions {
  @Option(names = "--max-tokens", paramLabel = "N", description = "Most tokens to generate.")
  private @Nullable Integer maxTokens;

  @Option(names = "--temperature", paramLabel = "T", description = "0 is greedy.")
  private @Nullable Float temperature;

  @Option(names = "--top-k", paramLabel = "K", description = "Keep the K most probable tokens.")
  private @Nullable Integer topK;

  @Option(names = "--top-p", paramLabel = "P", description = "Keep the most probable mass P.")
  private @Nullable Float topP;

  @Option(
      names = "--min-p",
      paramLabel = "P",
      description = "Keep tokens at least P times as" + " probable as the most probable.")
  private @Nullable Float minP;

  @Option(names = "--repetition-penalty", paramLabel = "R", description = "1 is off.")
  private @Nullable Float repetitionPenalty;

  @Option(names = "--seed", paramLabel = "N", description = "Same seed, same answer.")
  private @Nullable Long seed;

  @Option(names = "--stop", paramLabel = "TEXT", description = "A text that ends the answer.")
  private List<String> stop = List.of();

  @Option(
      names = "--min-tokens",
      paramLabel = "N",
      description = "Nothing ends the answer within N tokens.")
  private @Nullable Integer minTokens;

  @Option(names = "--ignore-eos", description = "Go on past end-of-sequence tokens.")
  private boolean ignoreEos;

  @Option(
      names = "--bias",
      paramLabel = "TOKEN=B",
      description = "Add B, -100 to 100, to the logit of the token of this id.")
  private Map<Integer, Float> bias = Map.of();

  GenerateRequest.Builder request() {
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder().addAllStop(stop).putAllLogitBias(bias);
    if (minTokens != null) {
      request.setMinTokens(minTokens);
    }
    if (ignoreEos) {
      request.setIgnoreEos(true);
    }
    if (maxTokens != null) {
      request.setMaxTokens(maxTokens);
    }
    if (temperature != null) {
      request.setTemperature(temperature);
    }
    if (topK != null) {
      request.setTopK(topK);
    }
    if (topP != null) {
      request.setTopP(topP);
    }
    if (minP != null) {
      request.setMinP(minP);
    }
    if (repetitionPenalty != null) {
      request.setRepetitionPenalty(repetitionPenalty);
    }
    if (seed != null) {
      request.setSeed(seed);
    }
    return request;
  }
}
