package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.Choice;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.TokenLogprob;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(120)
final class ConversationTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root", ".."), "deploy/models/demo");

  private static CpuBackend backend;
  private static Model model;
  private static Prompts prompts;

  /** The embedded model's first golden conversation, and its answer. */
  private static GenerateRequest golden;

  private static String goldenText;
  private static List<Integer> goldenTokens = new ArrayList<>();

  private AdapterRegistry adapters;
  private Engine engine;
  private Conversation conversation;

  /** Work that the test lets happen; what is executed elsewhere runs at once. */
  private final ConcurrentLinkedQueue<Runnable> held = new ConcurrentLinkedQueue<>();

  private volatile boolean holdLoaders;
  private volatile boolean holdWorkers;

  @BeforeAll
  static void load() throws Exception {
    backend = new CpuBackend(2);
    model = ModelLoader.load(DEMO.resolve("base"), LoadOptions.DEFAULT, backend);
    prompts = Prompts.read(DEMO.resolve("base"), model.config().vocabulary(), Thread::new);
    JsonNode one =
        new ObjectMapper().readTree(DEMO.resolve("base/golden.json").toFile()).path("cases").get(0);
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder().setId("golden").setTemperature(0).setMaxTokens(64);
    for (JsonNode message : one.path("messages")) {
      request.addMessages(
          Message.newBuilder()
              .setRole(message.path("role").asText())
              .setContent(message.path("content").asText()));
    }
    golden = request.build();
    goldenText = one.path("output").asText();
    one.path("output_ids").forEach(id -> goldenTokens.add(id.asInt()));
  }

  @AfterAll
  static void close() {
    prompts.close();
    model.close();
    backend.close();
    assertThat(backend.liveBytes()).isZero();
  }

  @BeforeEach
  void start() throws Exception {
    start(EngineOptions.DEFAULT.withMaxSequences(8));
  }

  private void start(EngineOptions options) throws Exception {
    Executor direct = Runnable::run;
    adapters =
        new AdapterRegistry(
            model,
            backend,
            List.of(DEMO.resolve("adapters")),
            AdapterOptions.DEFAULT,
            task -> (holdLoaders ? (Executor) held::add : direct).execute(task));
    engine = new Engine(model, backend, options);
    conversation =
        new Conversation(
            model,
            prompts,
            adapters,
            engine,
            task -> (holdWorkers ? (Executor) held::add : direct).execute(task),
            Conversation.DEFAULT_MAX_LOGPROBS);
  }

  @AfterEach
  void stop() {
    engine.close();
    assertThat(adapters.list()).allMatch(entry -> entry.inUse() == 0);
    adapters.close();
  }

  private void release() {
    for (Runnable task = held.poll(); task != null; task = held.poll()) {
      task.run();
    }
  }

  private Listening ask(GenerateRequest request) {
    Listening listening = new Listening(request);
    conversation.start(request, listening);
    return listening;
  }

  @Test
  void answer_golden() throws Exception {
    Listening listening = ask(golden);

    GenerateResponse answer = listening.answer();

    assertThat(answer.getText()).isEqualTo(goldenText);
    assertThat(answer.getTokenIdsList()).isEqualTo(goldenTokens);
    assertThat(answer.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_EOS);
    assertThat(answer.getId()).isEqualTo("golden");
    assertThat(answer.getAdapterDigest()).isEmpty();
    assertThat(answer.getLogprobsList()).isEmpty();
    assertThat(answer.getUsage().getGeneratedTokens()).isEqualTo(goldenTokens.size());
    assertThat(answer.getUsage().getMaxStepSequences()).isEqualTo(1);
    assertThat(answer.getUsage().getFirstTokenMs())
        .isPositive()
        .isLessThanOrEqualTo(answer.getUsage().getTotalMs());
    assertThat(listening.events).first().isEqualTo("started");
    assertThat(listening.events).last().isEqualTo("finished");
    assertThat(listening.events.subList(1, listening.events.size() - 1)).containsOnly("delta");
    assertThat(listening.deltas).hasSizeGreaterThan(5);
  }

  @Test
  void answer_withAdapter_saysWhich() throws Exception {
    GenerateResponse first = ask(golden.toBuilder().setAdapter("sql").build()).answer();
    assertThat(first.getAdapter()).isEqualTo("sql");
    assertThat(first.getAdapterDigest()).isEqualTo(adapters.get("sql").digest());
    assertThat(first.getText()).isNotEqualTo(goldenText);
    assertThat(first.getUsage().getSwapInMs()).isPositive();

    GenerateResponse again =
        ask(golden.toBuilder().setAdapter(first.getAdapterDigest()).build()).answer();
    assertThat(again.getText()).isEqualTo(first.getText());
    assertThat(again.getUsage().getSwapInMs()).isZero();
  }

  @Test
  void adapter_unknown() throws Exception {
    RequestException failure = ask(golden.toBuilder().setAdapter("nobody").build()).failure();
    assertThat(failure.code()).isEqualTo(Code.NOT_FOUND);
    assertThat(failure).hasMessageContaining("nobody");
  }

  @Test
  void stop_anywhereInTheAnswer() throws Exception {
    for (int from = 0; from + 6 < goldenText.length(); from += 5) {
      String stop = goldenText.substring(from, from + 6);
      Listening listening = ask(golden.toBuilder().addStop("absent").addStop(stop).build());

      GenerateResponse answer = listening.answer();

      int at = goldenText.indexOf(stop);
      assertThat(answer.getText()).as(stop).isEqualTo(goldenText.substring(0, at));
      assertThat(answer.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
      // All tokens up to the one that completed the stop text.
      int count = answer.getTokenIdsCount();
      assertThat(answer.getTokenIdsList()).isEqualTo(goldenTokens.subList(0, count));
      assertThat(decode(goldenTokens.subList(0, count))).contains(stop);
      assertThat(decode(goldenTokens.subList(0, count - 1))).doesNotContain(stop);
    }
  }

  /** A stop text counts if it is complete after so many tokens only, wherever it begins. */
  @Test
  void minTokens_holdStopTexts() throws Exception {
    String stop = decode(goldenTokens.subList(1, 4)).substring(1);
    GenerateRequest request = golden.toBuilder().addStop(stop).build();
    int complete = ask(request).answer().getTokenIdsCount();
    assertThat(complete).isBetween(2, 5);
    GenerateResponse before = ask(request.toBuilder().setMinTokens(complete - 1).build()).answer();
    assertThat(before.getTokenIdsCount()).isEqualTo(complete);
    assertThat(before.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
    assertThat(before.getText()).isEqualTo(goldenText.substring(0, goldenText.indexOf(stop)));
    GenerateResponse after = ask(request.toBuilder().setMinTokens(complete).build()).answer();
    assertThat(after.getTokenIdsCount()).isGreaterThan(complete);
    assertThat(after.getText()).contains(stop);
  }

  /** Tokens that would end the answer are not chosen before. */
  @Test
  void minTokens_holdEndAndStopTokens() throws Exception {
    int end = goldenTokens.size();
    GenerateResponse longer =
        ask(golden.toBuilder().setMinTokens(end + 5).setMaxTokens(end + 9).build()).answer();
    assertThat(longer.getTokenIdsCount()).isGreaterThan(end + 5 - 1);
    assertThat(longer.getTokenIdsList().subList(0, end - 1))
        .isEqualTo(goldenTokens.subList(0, end - 1));
    assertThat(longer.getTokenIdsList().subList(0, end + 5))
        .doesNotContainAnyElementsOf(model.defaults().eos());
    // Where it ends by itself at this token, at least one more comes; the stop token is another.
    int stop = goldenTokens.get(3);
    GenerateRequest stopped = golden.toBuilder().addStopTokenIds(stop).build();
    int first = goldenTokens.indexOf(stop);
    assertThat(ask(stopped).answer().getTokenIdsCount()).isEqualTo(first + 1);
    GenerateResponse held = ask(stopped.toBuilder().setMinTokens(first + 1).build()).answer();
    assertThat(held.getTokenIdsList().subList(0, first)).isEqualTo(goldenTokens.subList(0, first));
    assertThat(held.getTokenIds(first)).isNotEqualTo(stop);
    // Not chosen before is not held for ever, and what does not end the answer is not held.
    assertThat(ask(golden.toBuilder().setMinTokens(end - 1).build()).answer().getTokenIdsList())
        .isEqualTo(goldenTokens);
    assertThat(
            ask(golden.toBuilder().setMinTokens(end).setIgnoreEos(true).setMaxTokens(end).build())
                .answer()
                .getTokenIdsList())
        .isEqualTo(goldenTokens);
  }

  @Test
  void logitBias_movesChoices() throws Exception {
    int first = goldenTokens.get(0);
    GenerateResponse without =
        ask(golden.toBuilder().putLogitBias(first, -100).setMaxTokens(1).setLogprobs(5).build())
            .answer();
    GenerateResponse with = ask(golden.toBuilder().setMaxTokens(1).setLogprobs(5).build()).answer();
    assertThat(without.getTokenIds(0)).isEqualTo(with.getLogprobs(0).getTop(1).getTokenId());
    // Log-probabilities are those of the model, whatever is added.
    assertThat(without.getLogprobs(0).getTopList()).isEqualTo(with.getLogprobs(0).getTopList());
    GenerateResponse forced =
        ask(golden.toBuilder().putLogitBias(17, 100).setMaxTokens(6).setIgnoreEos(true).build())
            .answer();
    assertThat(forced.getTokenIdsList()).containsOnly(17);
    assertThat(ask(golden.toBuilder().putLogitBias(17, 0).build()).answer().getTokenIdsList())
        .isEqualTo(goldenTokens);
  }

  @Test
  void decodingOptions_outOfRange() throws Exception {
    int vocabulary = model.config().vocabulary();
    GenerateRequest.Builder whole = golden.toBuilder().setMinTokens(1);
    for (int token = 0; token < vocabulary; token++) {
      whole.addStopTokenIds(token);
    }
    for (GenerateRequest request :
        List.of(
            golden.toBuilder().putLogitBias(vocabulary, 1).build(),
            golden.toBuilder().putLogitBias(-1, 1).build(),
            golden.toBuilder().putLogitBias(1, 101).build(),
            golden.toBuilder().putLogitBias(1, Float.NaN).build(),
            golden.toBuilder().setMinTokens(-1).build(),
            golden.toBuilder().setMinTokens(65).build(),
            whole.build())) {
      RequestException failure = ask(request).failure();
      assertThat(failure.code()).as(failure.getMessage()).isEqualTo(Code.INVALID_ARGUMENT);
      assertThat(failure).hasMessageMatching("(logit_bias|min_tokens)(.|\\n)*");
    }
  }

  /** Sampling with every option gives the same tokens alone, again, and beside others. */
  @Test
  void sampling_isReproducible() throws Exception {
    GenerateRequest.Builder options =
        golden.toBuilder()
            .setTemperature(1.4f)
            .setTopP(0.97f)
            .setRepetitionPenalty(1.1f)
            .setPresencePenalty(0.3f)
            .setFrequencyPenalty(0.2f)
            .putLogitBias(5, 2.5f)
            .putLogitBias(300, -4)
            .setMinTokens(20)
            .setMaxTokens(40);
    List<GenerateResponse> alone = new ArrayList<>();
    for (int seed = 0; seed < 6; seed++) {
      alone.add(ask(options.setSeed(seed).build()).answer());
      assertThat(alone.get(seed).getTokenIdsCount()).isGreaterThanOrEqualTo(20);
    }
    assertThat(alone.stream().map(GenerateResponse::getTokenIdsList).distinct()).hasSize(6);
    List<Listening> together = new ArrayList<>();
    for (int seed = 0; seed < 6; seed++) {
      together.add(ask(options.setSeed(seed).build()));
    }
    for (int seed = 0; seed < 6; seed++) {
      assertThat(together.get(seed).answer().getTokenIdsList())
          .as("seed %d", seed)
          .isEqualTo(alone.get(seed).getTokenIdsList());
    }
    // And on another number of threads.
    try (CpuBackend one = new CpuBackend(1);
        Model same = ModelLoader.load(DEMO.resolve("base"), LoadOptions.DEFAULT, one);
        Engine other = new Engine(same, one, EngineOptions.DEFAULT.withMaxSequences(2))) {
      Conversation elsewhere =
          new Conversation(
              same, prompts, adapters, other, Runnable::run, Conversation.DEFAULT_MAX_LOGPROBS);
      Listening listening = new Listening();
      elsewhere.start(options.setSeed(3).build(), listening);
      assertThat(listening.answer().getTokenIdsList()).isEqualTo(alone.get(3).getTokenIdsList());
    }
  }

  /** Several answers to one prompt, each of which the request has with its seed alone. */
  @Test
  void choices_eachAsAlone() throws Exception {
    GenerateRequest.Builder request =
        golden.toBuilder().setTemperature(3).setSeed(77).setMaxTokens(24).setLogprobs(0);
    Listening listening = ask(request.setN(5).build());
    GenerateResponse answer = listening.answer();

    assertThat(answer.getChoicesList()).extracting(Choice::getIndex).containsExactly(0, 1, 2, 3, 4);
    assertThat(answer.getChoicesList()).extracting(Choice::getSeed).doesNotHaveDuplicates();
    assertThat(answer.getChoicesList()).extracting(Choice::getText).doesNotHaveDuplicates();
    assertThat(answer.getChoices(0).getSeed()).isEqualTo(77);
    assertThat(answer.getText()).isEqualTo(answer.getChoices(0).getText());
    assertThat(answer.getTokenIdsList()).isEqualTo(answer.getChoices(0).getTokenIdsList());
    assertThat(answer.getUsage().getSeed()).isEqualTo(77);
    assertThat(answer.getUsage().getGeneratedTokens())
        .isEqualTo(answer.getChoicesList().stream().mapToInt(Choice::getTokenIdsCount).sum());
    assertThat(listening.events.stream().filter("started"::equals)).hasSize(1);
    assertThat(listening.events.stream().filter("finished"::equals)).hasSize(5);
    for (Choice choice : answer.getChoicesList()) {
      GenerateResponse alone = ask(request.clearN().setSeed(choice.getSeed()).build()).answer();
      assertThat(alone.getChoicesList()).isEmpty();
      assertThat(alone.getTokenIdsList()).isEqualTo(choice.getTokenIdsList());
      assertThat(alone.getLogprobsList()).isEqualTo(choice.getLogprobsList());
      assertThat(alone.getText()).isEqualTo(choice.getText());
      assertThat(alone.getFinishReason()).isEqualTo(choice.getFinishReason());
      assertThat(alone.getUsage().getPromptTokens()).isEqualTo(answer.getUsage().getPromptTokens());
      assertThat(choice.getMeanLogprob())
          .isCloseTo(
              choice.getLogprobsList().stream()
                  .mapToDouble(TokenLogprob::getLogprob)
                  .average()
                  .orElseThrow(),
              within(1e-9));
    }
  }

  /** The best of more: those of all with the highest means, in their order. */
  @Test
  void bestOf_ranksByMeanLogprob() throws Exception {
    GenerateRequest.Builder request =
        golden.toBuilder().setTemperature(1.5f).setSeed(5).setMaxTokens(16).setAdapter("terse");
    GenerateResponse all = ask(request.setN(8).build()).answer();
    GenerateResponse best = ask(request.setN(3).setBestOf(8).build()).answer();
    List<Choice> ranked =
        all.getChoicesList().stream()
            .sorted(Comparator.comparingDouble(Choice::getMeanLogprob).reversed())
            .limit(3)
            .toList();
    assertThat(best.getChoicesList()).isEqualTo(ranked);
    assertThat(best.getText()).isEqualTo(ranked.getFirst().getText());
    assertThat(best.getUsage().getGeneratedTokens()).isEqualTo(all.getUsage().getGeneratedTokens());
    GenerateResponse single = ask(request.clearN().setBestOf(8).build()).answer();
    assertThat(single.getChoicesList()).containsExactly(ranked.getFirst());
    assertThat(single.getAdapter()).isEqualTo("terse");
  }

  /** The prompt's scores are there before any answer, and once. */
  @Test
  void choices_withEcho() throws Exception {
    GenerateRequest.Builder request =
        golden.toBuilder().setTemperature(1).setSeed(3).setMaxTokens(5).setLogprobs(0);
    List<TokenLogprob> scores = ask(request.setEcho(true).build()).answer().getPromptLogprobsList();
    Listening listening = ask(request.setN(4).build());
    assertThat(listening.answer().getPromptLogprobsList()).isEqualTo(scores);
    assertThat(listening.events.getFirst()).isEqualTo("started");
    assertThat(listening.answer().getChoicesCount()).isEqualTo(4);
  }

  @Test
  void choices_cancelledTogether() throws Exception {
    Listening running = new Listening(golden.toBuilder().setTemperature(1).setN(4).build());
    running.patience = 6;
    Turn turn =
        conversation.start(
            golden.toBuilder()
                .setTemperature(1)
                .setN(4)
                .setIgnoreEos(true)
                .setAdapter("sql")
                .setMaxTokens(200)
                .build(),
            running);
    await().until(() -> !running.ready);
    turn.cancel();
    GenerateResponse cut = running.answer();
    assertThat(cut.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_CANCELLED);
    assertThat(cut.getChoicesList())
        .hasSize(4)
        .allMatch(c -> c.getFinishReason() == FinishReason.FINISH_REASON_CANCELLED);
    await().until(() -> engine.stats().finished() == engine.stats().submitted());
    assertThat(engine.stats().freeBlocks() + engine.stats().lentBlocks())
        .isEqualTo(engine.stats().blocks());
  }

  @Test
  void choices_lateTogether() throws Exception {
    GenerateRequest request =
        golden.toBuilder().setTemperature(1).setN(3).setIgnoreEos(true).setMaxTokens(300).build();
    Listening late = new Listening(request);
    late.patience = 7;
    conversation.start(request, System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(300), late);
    GenerateResponse cut = late.answer();
    assertThat(cut.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_DEADLINE);
    assertThat(cut.getChoicesList())
        .hasSize(3)
        .allMatch(c -> c.getFinishReason() == FinishReason.FINISH_REASON_DEADLINE)
        .allMatch(c -> c.getText().equals(decoded(c.getTokenIdsList())));
    assertThat(cut.getUsage().getGeneratedTokens())
        .isEqualTo(cut.getChoicesList().stream().mapToInt(Choice::getTokenIdsCount).sum());
  }

  private static String decoded(List<Integer> tokens) {
    try {
      return decode(tokens);
    } catch (RequestException e) {
      throw new AssertionError(e);
    }
  }

  /** Of several adapters one is there, another on its way; who gives up holds none of them. */
  @Test
  void mixture_cancelledWhileItLoads() throws Exception {
    ask(golden.toBuilder().setAdapter("sql").setMaxTokens(1).build()).answer();
    holdLoaders = true;
    Listening loading = new Listening();
    Turn turn =
        conversation.start(
            golden.toBuilder()
                .addAdapters(AdapterWeight.newBuilder().setAdapter("sql").setWeight(0.5f))
                .addAdapters(AdapterWeight.newBuilder().setAdapter("pirate").setWeight(0.5f))
                .build(),
            loading);
    assertThat(loading.events).isEmpty();
    turn.cancel();
    assertThat(loading.failure().code()).isEqualTo(Code.CANCELLED);
    holdLoaders = false;
    release();
    await().until(() -> adapters.list().stream().allMatch(entry -> entry.inUse() == 0));
    assertThat(adapters.list()).noneMatch(entry -> entry.name().equals("pirate"));
  }

  @Test
  void choices_outOfRange() throws Exception {
    GenerateRequest.Builder drawn = golden.toBuilder().setTemperature(1);
    for (GenerateRequest.Builder bad :
        List.of(
            drawn.clone().setN(0),
            drawn.clone().setN(-1),
            drawn.clone().setN(33),
            drawn.clone().setBestOf(33),
            drawn.clone().setBestOf(0),
            drawn.clone().setN(3).setBestOf(2),
            drawn.clone().setMaxTokens(0).setEcho(true).setN(2),
            golden.toBuilder().setN(2),
            golden.toBuilder().setBestOf(2))) {
      RequestException failure = ask(bad.build()).failure();
      assertThat(failure.code()).as("%s", bad).isEqualTo(Code.INVALID_ARGUMENT);
      assertThat(failure).hasMessageMatching("(n|best_of): expected(.|\n)*");
    }
    assertThat(ask(golden.toBuilder().setN(1).setBestOf(1).build()).answer().getText())
        .isEqualTo(goldenText);
    // All of them have room in the queue, or none is taken.
    stop();
    start(EngineOptions.DEFAULT.withMaxSequences(8).withMaxWaiting(3));
    assertThat(ask(drawn.clone().setN(4).build()).failure()).hasMessageContaining("1 to 3");
    assertThat(ask(drawn.clone().setN(3).build()).answer().getChoicesCount()).isEqualTo(3);
  }

  private static String decode(List<Integer> tokens) throws RequestException {
    return prompts
        .detokenize(
            DetokenizeRequest.newBuilder()
                .addAllTokenIds(tokens)
                .setSkipSpecialTokens(true)
                .build())
        .getText();
  }

  @Test
  void stop_beganAtTheEnd_isDelivered() throws Exception {
    String end = goldenText.substring(goldenText.length() - 4);
    GenerateResponse answer = ask(golden.toBuilder().addStop(end + "!").build()).answer();
    assertThat(answer.getText()).isEqualTo(goldenText);
    assertThat(answer.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_EOS);
  }

  @Test
  void stopToken_andIgnoreEos() throws Exception {
    GenerateResponse stopped =
        ask(golden.toBuilder().addStopTokenIds(goldenTokens.get(3)).build()).answer();
    assertThat(stopped.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
    int first = goldenTokens.indexOf(goldenTokens.get(3));
    assertThat(stopped.getTokenIdsList()).isEqualTo(goldenTokens.subList(0, first + 1));
    assertThat(stopped.getText()).isEqualTo(decode(goldenTokens.subList(0, first)));

    GenerateResponse beyond = ask(golden.toBuilder().setIgnoreEos(true).build()).answer();
    assertThat(beyond.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_LENGTH);
    assertThat(beyond.getTokenIdsCount()).isEqualTo(64);
    assertThat(beyond.getTokenIdsList().subList(0, goldenTokens.size())).isEqualTo(goldenTokens);
  }

  @Test
  void logprobs_andEcho() throws Exception {
    GenerateResponse answer = ask(golden.toBuilder().setLogprobs(2).setEcho(true).build()).answer();

    assertThat(answer.getLogprobsCount()).isEqualTo(goldenTokens.size());
    for (int i = 0; i < goldenTokens.size(); i++) {
      TokenLogprob logprob = answer.getLogprobs(i);
      assertThat(logprob.getTokenId()).isEqualTo(goldenTokens.get(i));
      assertThat(logprob.getTopCount()).isEqualTo(2);
      assertThat(logprob.getTop(0).getTokenId()).isEqualTo(goldenTokens.get(i));
      assertThat(logprob.getTop(0).getLogprob()).isEqualTo(logprob.getLogprob());
    }
    assertThat(answer.getPromptLogprobsCount()).isEqualTo(answer.getUsage().getPromptTokens());
    assertThat(answer.getPromptLogprobs(0).hasLogprob()).isFalse();
    assertThat(answer.getPromptLogprobs(1).hasLogprob()).isTrue();
  }

  @Test
  void maxTokens_unset_isToTheContextsEnd() throws Exception {
    GenerateRequest endless =
        GenerateRequest.newBuilder().addTokenIds(5).setTemperature(0).setIgnoreEos(true).build();
    GenerateResponse answer = ask(endless).answer();
    assertThat(answer.getTokenIdsCount()).isEqualTo(model.config().contextLength() - 1);
    assertThat(answer.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_LENGTH);
  }

  @Test
  void context_tooLong_bothNumbers() throws Exception {
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    for (int i = 0; i < 500; i++) {
      request.addTokenIds(5);
    }
    RequestException failure = ask(request.setMaxTokens(13).build()).failure();
    assertThat(failure.code()).isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(failure).hasMessageContainingAll("500", "13", "513", "512", "at most 12");
    for (int i = 0; i < 12; i++) {
      request.addTokenIds(5);
    }
    assertThat(ask(request.clearMaxTokens().build()).failure().code())
        .isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(ask(request.setMaxTokens(0).setEcho(true).build()).answer().getPromptLogprobsCount())
        .isEqualTo(512);
  }

  @Test
  void context_limitedByTheCache_saysSo() throws Exception {
    stop();
    start(EngineOptions.DEFAULT.withMaxSequences(8).withKvTokens(100));
    RequestException failure =
        ask(GenerateRequest.newBuilder().addTokenIds(5).setMaxTokens(200).build()).failure();
    assertThat(failure.code()).isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(failure).hasMessageContainingAll("200", "112", "512", "--kv-tokens");
  }

  @Test
  void limits_ofTheRequest() throws Exception {
    GenerateRequest.Builder request = GenerateRequest.newBuilder().addTokenIds(5).setMaxTokens(4);
    List<GenerateRequest> bad =
        List.of(
            request.clone().setMaxTokens(-1).build(),
            request.clone().setMaxTokens(0).build(),
            request.clone().setTemperature(-1).build(),
            request.clone().setTopP(Float.NaN).build(),
            request.clone().setLogprobs(21).build(),
            request.clone().setLogprobs(-1).build(),
            request.clone().setLogprobs(-2).build(),
            request.clone().addStop("").build(),
            request.clone().addStop("x".repeat(2000)).build(),
            request.clone().addStopTokenIds(5000).build());
    for (GenerateRequest one : bad) {
      assertThat(ask(one).failure().code()).as("%s", one).isEqualTo(Code.INVALID_ARGUMENT);
    }
    for (int i = 0; i < 65; i++) {
      request.addStop("stop " + i);
    }
    assertThat(ask(request.build()).failure()).hasMessageContaining("65");
  }

  @Test
  void reader_notReady_pauses() throws Exception {
    Listening slow = new Listening();
    slow.patience = 3;
    Turn turn = conversation.start(golden, slow);
    await().until(() -> !slow.ready && engine.stats().paused() == 1);
    assertThat(ask(golden).answer().getText()).isEqualTo(goldenText);
    assertThat(slow.deltas).hasSize(3);

    slow.ready = true;
    turn.resume();
    assertThat(slow.answer().getText()).isEqualTo(goldenText);
  }

  @Test
  void cancel_whereverItIs() throws Exception {
    Listening running = new Listening();
    running.patience = 2;
    Turn turn = conversation.start(golden.toBuilder().setAdapter("sql").build(), running);
    await().until(() -> !running.ready);
    turn.cancel();
    GenerateResponse cut = running.answer();
    assertThat(cut.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_CANCELLED);
    assertThat(cut.getTokenIdsCount()).isEqualTo(2);
    turn.cancel();

    holdWorkers = true;
    Listening preparing = new Listening();
    Turn unprepared = conversation.start(golden, preparing);
    unprepared.cancel();
    holdWorkers = false;
    assertThat(preparing.failure().code()).isEqualTo(Code.CANCELLED);
    release();

    holdLoaders = true;
    Listening loading = new Listening();
    Turn waiting = conversation.start(golden.toBuilder().setAdapter("pirate").build(), loading);
    waiting.resume();
    waiting.cancel();
    assertThat(loading.failure().code()).isEqualTo(Code.CANCELLED);
    holdLoaders = false;
    release();
    // Nobody waited any more, so it was not read.
    assertThat(adapters.list()).noneMatch(entry -> entry.name().equals("pirate"));
    assertThat(loading.events).containsExactly("failed");
    await().until(() -> engine.stats().finished() == engine.stats().submitted());
  }

  @Test
  void adapter_stillLoading_holdsNobodyUp() throws Exception {
    holdLoaders = true;
    Listening waits = ask(golden.toBuilder().setAdapter("pirate").build());
    assertThat(ask(golden).answer().getText()).isEqualTo(goldenText);
    assertThat(waits.events).isEmpty();
    assertThat(engine.stats().waiting()).isZero();

    holdLoaders = false;
    release();
    assertThat(waits.answer().getAdapter()).isEqualTo("pirate");
  }

  @Test
  void deadline_beforeAndInTheEngine() throws Exception {
    holdLoaders = true;
    Listening loading = new Listening();
    conversation.start(
        golden.toBuilder().setAdapter("pirate").build(),
        System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(50),
        loading);
    RequestException failure = loading.failure();
    assertThat(failure.code()).isEqualTo(Code.DEADLINE_EXCEEDED);
    assertThat(failure).hasMessageContaining("pirate");
    holdLoaders = false;
    release();
    // Nobody waited any more, so it was not read.
    assertThat(adapters.list()).noneMatch(entry -> entry.name().equals("pirate"));

    Listening running = new Listening();
    running.patience = 2;
    conversation.start(golden, System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(300), running);
    GenerateResponse cut = running.answer();
    assertThat(cut.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_DEADLINE);
    assertThat(cut.getText()).isEqualTo(decode(cut.getTokenIdsList()));
  }

  @Test
  void engine_fullOrClosed() throws Exception {
    stop();
    start(EngineOptions.DEFAULT.withMaxSequences(8).withMaxWaiting(1));
    Listening stuck = new Listening();
    stuck.ready = false;
    Turn turn = conversation.start(golden.toBuilder().setAdapter("sql").build(), stuck);
    assertThat(ask(golden.toBuilder().setAdapter("sql").build()).failure().code())
        .isEqualTo(Code.RESOURCE_EXHAUSTED);
    turn.cancel();
    stuck.answer();
    engine.drain(Duration.ofSeconds(5));
    assertThat(ask(golden.toBuilder().setAdapter("sql").build()).failure().code())
        .isEqualTo(Code.UNAVAILABLE);
  }
}
