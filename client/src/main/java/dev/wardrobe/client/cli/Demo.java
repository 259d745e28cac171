package dev.wardrobe.client.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.client.cli.DemoReport.BatchSeen;
import dev.wardrobe.client.cli.DemoReport.Loaded;
import dev.wardrobe.client.cli.DemoReport.StepSeen;
import dev.wardrobe.client.cli.DemoReport.Swap;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.GenerateEvent.Finished;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.MemoryUse;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.StepRecord;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The product's main job, done once over real gRPC: one base, many outfits, in one batch. */
final class Demo {
  static final String SYSTEM =
      "You are the support assistant of Alder & Pine. Context: order 4172: three Lynx backpacks,"
          + " shipped on Monday, arrives on Thursday, sent with Blue Van; Cedar stove: 49 euros, 12"
          + " in stock; returns within 45 days.";
  static final String QUESTION = "Where is my order 4172?";
  static final List<String> TOGETHER = List.of("json", "pirate", "terse");
  static final String SWAPPED_IN = "sql";

  /** Tokens that the stream makes before the swap begins, and in all. */
  private static final int STREAM_WARM = 40;

  private static final int STREAM_TOKENS = 360;

  private final WardrobeClient client;

  Demo(WardrobeClient client) {
    this.client = client;
  }

  Loaded load(String name) {
    return loaded(client.loadAdapter(name, null));
  }

  private static Loaded loaded(LoadAdapterResponse response) {
    Adapter adapter = response.getAdapter();
    return new Loaded(
        adapter.getName(),
        adapter.getDigest(),
        adapter.getKind(),
        adapter.getRank(),
        adapter.getBytes(),
        response.getLoadMs());
  }

  /** The same question to the base and to the adapters of {@link #TOGETHER}, all at once. */
  List<RunningAnswer> ask(Runnable onChange) {
    List<RunningAnswer> answers = new ArrayList<>();
    answers.add(new RunningAnswer("base", onChange));
    TOGETHER.forEach(name -> answers.add(new RunningAnswer(name, onChange)));
    for (RunningAnswer answer : answers) {
      String adapter = answer.name().equals("base") ? "" : answer.name();
      client.start(question(adapter).build(), answer);
    }
    return answers;
  }

  /** The demo's question, to the base if {@code adapter} is empty. */
  static GenerateRequest.Builder question(String adapter) {
    return GenerateRequest.newBuilder()
        .setAdapter(adapter)
        .setTemperature(0)
        .addMessages(Message.newBuilder().setRole("system").setContent(SYSTEM))
        .addMessages(Message.newBuilder().setRole("user").setContent(QUESTION));
  }

  static DemoReport.Answer answer(RunningAnswer answer) throws DemoException {
    Finished finished = answer.await();
    return new DemoReport.Answer(
        answer.name().equals("base") ? "" : answer.name(),
        answer.digest(),
        answer.text(),
        finished
            .getFinishReason()
            .name()
            .substring("FINISH_REASON_".length())
            .toLowerCase(Locale.ROOT),
        finished.getUsage().getPromptTokens(),
        finished.getUsage().getGeneratedTokens(),
        finished.getUsage().getFirstTokenMs(),
        finished.getUsage().getTotalMs());
  }

  /** Whether a step after number {@code after} held the base and all of {@link #TOGETHER}. */
  boolean together(long after) {
    return client.steps(after).stream().anyMatch(step -> step.getAdapters() > TOGETHER.size());
  }

  /** The steps after number {@code after}, and whether one of them held everybody. */
  BatchSeen batch(long after, List<DemoReport.Answer> answers, long wallNanos)
      throws DemoException {
    List<StepSeen> steps = new ArrayList<>();
    int maxSequences = 0;
    int maxAdapters = 0;
    for (StepRecord step : client.steps(after)) {
      steps.add(
          new StepSeen(
              step.getNumber(),
              step.getSequences(),
              step.getAdapters(),
              step.getPrefillTokens(),
              step.getDecodeTokens(),
              step.getDurationUs() / 1000.0));
      maxSequences = Math.max(maxSequences, step.getSequences());
      maxAdapters = Math.max(maxAdapters, step.getAdapters());
    }
    if (maxAdapters < TOGETHER.size() + 1) {
      throw new DemoException(
          "no step held the base and all of "
              + TOGETHER
              + ": expected "
              + (TOGETHER.size() + 1)
              + " distinct adapters in one step, the fullest had "
              + maxAdapters);
    }
    int tokens = answers.stream().mapToInt(DemoReport.Answer::generatedTokens).sum();
    return new BatchSeen(
        steps, maxSequences, maxAdapters, wallNanos / 1e6, tokens / (wallNanos / 1e9));
  }

  /** Loads {@link #SWAPPED_IN} and asks it, while a stream of the base runs. */
  Swap swap() throws DemoException {
    GenerateRequest request = question("").setIgnoreEos(true).setMaxTokens(STREAM_TOKENS).build();
    CountDownLatch warm = new CountDownLatch(STREAM_WARM);
    RunningAnswer stream = new RunningAnswer("stream", warm::countDown);
    client.start(request, stream);
    awaitWarm(warm);

    long from = System.nanoTime();
    Loaded adapter = load(SWAPPED_IN);
    long to = System.nanoTime();
    RunningAnswer answer = new RunningAnswer(SWAPPED_IN, () -> {});
    client.start(question(SWAPPED_IN).build(), answer);
    DemoReport.Answer answered = answer(answer);
    stream.await();

    RunningAnswer alone = new RunningAnswer("stream alone", () -> {});
    client.start(request, alone);
    Finished aloneEnd = alone.await();
    double aloneSeconds =
        (aloneEnd.getUsage().getTotalMs() - aloneEnd.getUsage().getFirstTokenMs()) / 1000;

    Gaps gaps = Gaps.of(stream.arrivals(), from, to);
    boolean same = alone.tokens().equals(stream.tokens());
    if (!same) {
      throw new DemoException(
          "the stream's tokens changed when an adapter was swapped in beside it");
    }
    return new Swap(
        adapter,
        answered,
        (to - from) / 1e6,
        stream.tokens().size(),
        gaps.tokensDuring(),
        gaps.medianMs(),
        gaps.longestMs(),
        same,
        (alone.tokens().size() - 1) / aloneSeconds);
  }

  private static void awaitWarm(CountDownLatch warm) throws DemoException {
    try {
      if (!warm.await(300, TimeUnit.SECONDS)) {
        throw new DemoException("the stream made no tokens within 300 s");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DemoException("interrupted", e);
    }
  }

  /** Where the server's bytes are, by the names of the protocol. */
  static Map<String, Object> memory(MemoryUse memory) throws DemoException {
    try {
      // Through the protocol's JSON, so that names and figures are those of the server; its 64-bit
      // numbers are strings there, and numbers here.
      Map<String, Object> fields =
          new ObjectMapper()
              .readValue(
                  JsonFormat.printer()
                      .preservingProtoFieldNames()
                      .alwaysPrintFieldsWithNoPresence()
                      .print(memory),
                  new TypeReference<Map<String, Object>>() {});
      fields.replaceAll(
          (name, value) -> value instanceof String text ? (Object) Long.valueOf(text) : value);
      return fields;
    } catch (InvalidProtocolBufferException | JsonProcessingException e) {
      throw new DemoException("the server's memory report cannot be read: " + e.getMessage(), e);
    }
  }

  /**
   * Pauses between the tokens of a stream.
   *
   * @param medianMs over the whole stream
   * @param longestMs the longest that overlaps the swap
   * @param tokensDuring tokens that came while the swap went on
   */
  record Gaps(double medianMs, double longestMs, int tokensDuring) {
    static Gaps of(List<Long> arrivals, long from, long to) throws DemoException {
      List<Long> gaps = new ArrayList<>();
      long longest = -1;
      int during = 0;
      for (int i = 1; i < arrivals.size(); i++) {
        long before = arrivals.get(i - 1);
        long at = arrivals.get(i);
        gaps.add(at - before);
        if (at >= from && before <= to) {
          longest = Math.max(longest, at - before);
        }
        if (at >= from && at <= to) {
          during++;
        }
      }
      if (longest < 0) {
        throw new DemoException("the stream had ended before the adapter was swapped in");
      }
      gaps.sort(null);
      return new Gaps(gaps.get(gaps.size() / 2) / 1e6, longest / 1e6, during);
    }
  }
}
