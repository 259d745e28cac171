package dev.wardrobe.trainer.data;

import java.nio.file.Path;
import java.time.Clock;
import java.time.ZoneId;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * How files become rows of tokens.
 *
 * @param format null to tell it from each file's first rows
 * @param loss which tokens are learned
 * @param sequenceLength rows are cut off behind so many tokens
 * @param skipBadRows whether a row that cannot be used is counted and left out; else it is an error
 * @param templateVariables further variables of the chat template, such as {@code enable_thinking}
 * @param clock what a template's {@code strftime_now} sees; fix it, so that a run that is resumed
 *     tomorrow has the same rows
 * @param threads how many tokenize
 * @param scratch the folder for the file of tokens, 4 bytes each
 */
public record DataOptions(
    @Nullable Format format,
    Loss loss,
    int sequenceLength,
    boolean skipBadRows,
    Map<String, ? extends @Nullable Object> templateVariables,
    Clock clock,
    int threads,
    Path scratch) {

  /**
   * @throws IllegalArgumentException if sequences have fewer than two tokens, or there is no thread
   */
  public DataOptions {
    if (sequenceLength < 2) {
      throw new IllegalArgumentException(
          "sequence length: expected at least 2 tokens, one to go on from and one to learn, got "
              + sequenceLength);
    }
    if (threads < 1) {
      throw new IllegalArgumentException("threads: expected at least 1, got " + threads);
    }
  }

  /** Detected formats, the assistant's part learned, bad rows an error, at most four threads. */
  public static DataOptions of(int sequenceLength) {
    return new DataOptions(
        null,
        Loss.ASSISTANT,
        sequenceLength,
        false,
        Map.of(),
        Clock.system(ZoneId.systemDefault()),
        Math.min(4, Runtime.getRuntime().availableProcessors()),
        Path.of(System.getProperty("java.io.tmpdir")));
  }

  public DataOptions format(@Nullable Format format) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions loss(Loss loss) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions skipBadRows(boolean skipBadRows) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions templateVariables(Map<String, ? extends @Nullable Object> templateVariables) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions clock(Clock clock) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions threads(int threads) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }

  public DataOptions scratch(Path scratch) {
    return new DataOptions(
        format, loss, sequenceLength, skipBadRows, templateVariables, clock, threads, scratch);
  }
}
