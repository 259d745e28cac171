package dev.wardrobe.client.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.List;
import java.util.Map;

/** What a demo saw; {@code demo --json} prints it as it is. */
record DemoReport(
    @JsonProperty("server") Server server,
    @JsonProperty("adapters") List<Loaded> adapters,
    @JsonProperty("system") String system,
    @JsonProperty("question") String question,
    @JsonProperty("answers") List<Answer> answers,
    @JsonProperty("batch") BatchSeen batch,
    @JsonProperty("swap") Swap swap,
    @JsonProperty("training") Training training,
    @JsonProperty("memory") Map<String, Object> memory,
    @JsonProperty("server_exit_code") int serverExitCode) {

  record Server(
      @JsonProperty("model") String model,
      @JsonProperty("quantization") String quantization,
      @JsonProperty("backend") String backend,
      @JsonProperty("start_up_ms") double startUpMs) {}

  record Loaded(
      @JsonProperty("name") String name,
      @JsonProperty("digest") String digest,
      @JsonProperty("kind") String kind,
      @JsonProperty("rank") int rank,
      @JsonProperty("bytes") long bytes,
      @JsonProperty("load_ms") double loadMs) {}

  /** An answer and who served it; adapter and digest are empty for the base. */
  record Answer(
      @JsonProperty("adapter") String adapter,
      @JsonProperty("adapter_digest") String digest,
      @JsonProperty("text") String text,
      @JsonProperty("finish_reason") String finishReason,
      @JsonProperty("prompt_tokens") int promptTokens,
      @JsonProperty("generated_tokens") int generatedTokens,
      @JsonProperty("first_token_ms") double firstTokenMs,
      @JsonProperty("total_ms") double totalMs) {}

  /** The steps that the answers shared. */
  record BatchSeen(
      @JsonProperty("steps") List<StepSeen> steps,
      @JsonProperty("max_sequences") int maxSequences,
      @JsonProperty("max_adapters") int maxAdapters,
      @JsonProperty("wall_ms") double wallMs,
      @JsonProperty("tokens_per_second") double tokensPerSecond) {}

  record StepSeen(
      @JsonProperty("number") long number,
      @JsonProperty("sequences") int sequences,
      @JsonProperty("adapters") int adapters,
      @JsonProperty("prefill_tokens") int prefillTokens,
      @JsonProperty("decode_tokens") int decodeTokens,
      @JsonProperty("duration_ms") double durationMs) {}

  /** An adapter made resident while a stream ran, and what the stream felt of it. */
  record Swap(
      @JsonProperty("adapter") Loaded adapter,
      @JsonProperty("answer") Answer answer,
      @JsonProperty("load_call_ms") double loadCallMs,
      @JsonProperty("stream_tokens") int streamTokens,
      @JsonProperty("stream_tokens_during") int streamTokensDuring,
      @JsonProperty("stream_median_gap_ms") double medianGapMs,
      @JsonProperty("stream_longest_gap_ms") double longestGapMs,
      @JsonProperty("stream_same_as_alone") boolean sameAsAlone,
      @JsonProperty("alone_tokens_per_second") double aloneTokensPerSecond) {}

  /**
   * An adapter that was trained and published while the server ran.
   *
   * @param seconds of the whole command, from its start to its end
   * @param before what the base said to the question
   * @param after what the new adapter says
   * @param heldOut conversations that training never saw
   * @param wordForWord how many of their answers are the reference's, word for word
   */
  record Training(
      @JsonProperty("steps") int steps,
      @JsonProperty("seconds") double seconds,
      @JsonProperty("first_loss") double firstLoss,
      @JsonProperty("last_loss") double lastLoss,
      @JsonProperty("publish_ms") double publishMs,
      @JsonProperty("adapter_digest") String digest,
      @JsonProperty("before") String before,
      @JsonProperty("after") String after,
      @JsonProperty("held_out") int heldOut,
      @JsonProperty("word_for_word") int wordForWord) {}
}
