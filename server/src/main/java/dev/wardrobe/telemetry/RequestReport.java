package dev.wardrobe.telemetry;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A request that has ended, however it did. Times are {@link System#nanoTime}, and 0 where it never
 * came so far; nothing in it is from a prompt or an answer.
 *
 * @param id as the caller chose it, or empty
 * @param origin how it came here
 * @param operation what was asked for
 * @param tenant empty for those without a name
 * @param asked the adapters as the request names them, in order; none for the base
 * @param adapters those that answered, in order; none for the base, or if it came not so far
 * @param status the gRPC status' name: "OK", or another
 * @param finish why the answer ended, or null if there is none
 * @param problem what the caller was told if it failed, or null
 * @param promptTokens 0 if it came not so far
 * @param cachedTokens of the prompt's, those that were not computed again
 * @param generatedTokens of all answers
 * @param maxTokens as asked for, or 0
 * @param choices how many answers were asked for
 * @param arrived when it came
 * @param tokenized when its prompt was tokens, and whatever constrains it compiled
 * @param leased when its adapters were known and checked
 * @param admitted when it joined the batch for the first time
 * @param firstToken when the first token was generated
 * @param ended when it ended
 * @param queueNanos waiting for a place in the batch
 * @param swapInNanos waiting for its adapters to come into memory
 */
public record RequestReport(
    String id,
    Origin origin,
    Operation operation,
    String tenant,
    List<String> asked,
    List<Answering> adapters,
    String status,
    @Nullable String finish,
    @Nullable String problem,
    int promptTokens,
    int cachedTokens,
    int generatedTokens,
    int maxTokens,
    int choices,
    long arrived,
    long tokenized,
    long leased,
    long admitted,
    long firstToken,
    long ended,
    long queueNanos,
    long swapInNanos) {

  public RequestReport {
    asked = List.copyOf(asked);
    adapters = List.copyOf(adapters);
  }

  /** An adapter that answered. */
  public record Answering(String name, String digest) {}

  /** What was asked for. */
  public enum Operation {
    GENERATE,
    EMBED
  }

  /** Whether it was answered. */
  public boolean answered() {
    return status.equals("OK");
  }
}
