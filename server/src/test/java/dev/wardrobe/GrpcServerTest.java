package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.tuple;
import static org.awaitility.Awaitility.await;

import com.google.common.util.concurrent.ListenableFuture;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.engine.EngineStats;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.AdapterServiceGrpc.AdapterServiceBlockingStub;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.Embedding;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListStepsRequest;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.PrefixCache;
import dev.wardrobe.v1.StepRecord;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.UnloadAdapterRequest;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

/** The server as its callers see it: real gRPC on the loopback address, the embedded model. */
final class GrpcServerTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path ROOT = HOME.resolve("models/demo/adapters");
  private static final String SYSTEM =
      "You are the support assistant of Alder & Pine. Context: order 4172: three Lynx backpacks,"
          + " shipped on Monday, arrives on Thursday, sent with Blue Van; Cedar stove: 49 euros, 12"
          + " in stock; returns within 45 days.";

  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;

  private ManagedChannel channel;
  private GenerationServiceBlockingStub generation;
  private AdapterServiceBlockingStub adapters;

  @BeforeAll
  static void start() throws Exception {
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new CommandLine(arguments).parseArgs("--model", HOME.resolve("models/demo/base").toString());
    stack = new Stack(arguments, List.of(ROOT), AdapterOptions.DEFAULT);
    frontend = stack.frontend(List.of());
    port = frontend.listen("127.0.0.1", 0);
  }

  @AfterAll
  static void stop() throws IOException {
    frontend.close();
    stack.close();
  }

  @BeforeEach
  void connect() {
    channel = channel();
    generation = GenerationServiceGrpc.newBlockingStub(channel);
    adapters = AdapterServiceGrpc.newBlockingStub(channel);
  }

  @AfterEach
  void disconnect() throws InterruptedException {
    channel.shutdownNow();
    assertThat(channel.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
    // Whatever a test did, nothing of it is left in the engine.
    await()
        .atMost(20, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              assertThat(stack.engine().stats().freeBlocks() + stack.engine().stats().lentBlocks())
                  .isEqualTo(stack.engine().stats().blocks());
              assertThat(stack.engine().stats().waiting()).isZero();
              assertThat(stack.adapters().list()).allMatch(entry -> entry.inUse() == 0);
            });
  }

  private static ManagedChannel channel() {
    return NettyChannelBuilder.forAddress("127.0.0.1", port)
        .usePlaintext()
        .maxInboundMessageSize(64 << 20)
        .build();
  }

  private static GenerateRequest.Builder question() {
    return GenerateRequest.newBuilder()
        .setTemperature(0)
        .addMessages(Message.newBuilder().setRole("system").setContent(SYSTEM))
        .addMessages(Message.newBuilder().setRole("user").setContent("Where is my order 4172?"));
  }

  /** A request that goes on for as long as the context lasts. */
  private static GenerateRequest.Builder endless() {
    return GenerateRequest.newBuilder().setPrompt("a").setTemperature(0).setIgnoreEos(true);
  }

  /** Several answers mingle in one stream, each with its number. */
  @Test
  void stream_severalAnswers() {
    GenerateRequest request =
        question().setTemperature(1.3f).setSeed(9).setMaxTokens(12).setN(3).build();
    GenerateResponse whole = generation.generate(request);
    List<StringBuilder> texts = Stream.generate(StringBuilder::new).limit(3).toList();
    List<List<Integer>> tokens = List.of(new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
    List<GenerateEvent.Finished> ends = new ArrayList<>();
    Iterator<GenerateEvent> events = generation.generateStream(request);
    assertThat(events.next().hasStarted()).isTrue();
    while (events.hasNext()) {
      GenerateEvent event = events.next();
      if (event.hasFinished()) {
        ends.add(event.getFinished());
      } else {
        texts.get(event.getDelta().getIndex()).append(event.getDelta().getText());
        tokens.get(event.getDelta().getIndex()).addAll(event.getDelta().getTokenIdsList());
      }
    }
    assertThat(ends)
        .extracting(GenerateEvent.Finished::getIndex)
        .containsExactlyInAnyOrder(0, 1, 2);
    assertThat(ends.stream().mapToInt(e -> e.getUsage().getGeneratedTokens()).sum())
        .isEqualTo(whole.getUsage().getGeneratedTokens());
    for (int i = 0; i < 3; i++) {
      assertThat(texts.get(i)).hasToString(whole.getChoices(i).getText());
      assertThat(tokens.get(i)).isEqualTo(whole.getChoices(i).getTokenIdsList());
    }
    assertStatus(
        () -> generation.generateStream(request.toBuilder().setBestOf(4).build()).next(),
        Status.Code.INVALID_ARGUMENT,
        "best_of");
  }

  /** What a caller wrote may be quoted: the status still arrives. */
  @ParameterizedTest
  @ValueSource(strings = {"x", "\u00e9", "\ud83e\udde5"})
  void longMessages_areCutShort(String letter) {
    AdapterWeight twice = AdapterWeight.newBuilder().setAdapter(letter.repeat(20_000)).build();
    assertStatus(
        () -> generation.generate(question().addAdapters(twice).addAdapters(twice).build()),
        Status.Code.INVALID_ARGUMENT,
        "adapters: '" + letter);
  }

  @Test
  void embed_texts() {
    EmbedRequest request =
        EmbedRequest.newBuilder()
            .addInputs(EmbedInput.newBuilder().setText("When does order 4172 arrive?"))
            .addInputs(EmbedInput.newBuilder().setText("Do you sell stoves?"))
            .addInputs(EmbedInput.newBuilder().setText("When does order 4172 arrive?"))
            .build();
    EmbedResponse base = generation.embed(request);
    assertThat(base.getEmbeddingsList())
        .hasSize(3)
        .allMatch(e -> e.getValuesCount() == stack.model().config().hidden());
    assertThat(base.getEmbeddings(2)).isEqualTo(base.getEmbeddings(0));
    assertThat(base.getEmbeddings(1)).isNotEqualTo(base.getEmbeddings(0));
    assertThat(base.getUsage().getPromptTokens())
        .isEqualTo(base.getEmbeddingsList().stream().mapToInt(Embedding::getTokens).sum());
    EmbedResponse adapted = generation.embed(request.toBuilder().setAdapter("json").build());
    assertThat(adapted.getAdapters(0).getAdapter()).isEqualTo("json");
    assertThat(adapted.getEmbeddings(0)).isNotEqualTo(base.getEmbeddings(0));
    assertStatus(
        () -> generation.embed(EmbedRequest.getDefaultInstance()),
        Status.Code.INVALID_ARGUMENT,
        "inputs");
  }

  @Test
  void adapters_weighted() {
    GenerateResponse sum =
        generation.generate(
            question()
                .addAdapters(AdapterWeight.newBuilder().setAdapter("json").setWeight(0.6f))
                .addAdapters(AdapterWeight.newBuilder().setAdapter("pirate").setWeight(0.4f))
                .build());
    assertThat(sum.getAdaptersList())
        .extracting(AppliedAdapter::getAdapter, AppliedAdapter::getScale)
        .containsExactly(tuple("json", 0.6f), tuple("pirate", 0.4f));
    GenerateEvent.Started started =
        generation
            .generateStream(question().setAdapter("json").setAdapterScale(0.5f).build())
            .next()
            .getStarted();
    assertThat(started.getAdaptersList())
        .containsExactly(
            AppliedAdapter.newBuilder()
                .setAdapter("json")
                .setDigest(sum.getAdapters(0).getDigest())
                .setScale(0.5f)
                .build());
    assertThat(started.getAdapterDigest()).isEqualTo(sum.getAdapters(0).getDigest());
  }

  @Test
  void generate_streamedAndWhole_areTheSame() {
    GenerateResponse whole = generation.generate(question().setId("q1").setLogprobs(2).build());
    List<GenerateEvent> events = new ArrayList<>();
    generation
        .generateStream(question().setId("q1").setLogprobs(2).build())
        .forEachRemaining(events::add);

    assertThat(whole.getId()).isEqualTo("q1");
    assertThat(whole.getText()).isNotBlank();
    assertThat(whole.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_EOS);
    assertThat(whole.getUsage().getGeneratedTokens()).isEqualTo(whole.getTokenIdsCount());
    assertThat(whole.getUsage().getPromptTokens()).isPositive();
    assertThat(whole.getLogprobsList()).hasSize(whole.getTokenIdsCount());
    assertThat(whole.getLogprobs(0).getTopList()).hasSize(2);
    assertThat(whole.getAdapterDigest()).isEmpty();

    assertThat(events.getFirst().getStarted().getId()).isEqualTo("q1");
    assertThat(events.getLast().getFinished().getFinishReason())
        .isEqualTo(FinishReason.FINISH_REASON_EOS);
    StringBuilder text = new StringBuilder();
    List<Integer> tokens = new ArrayList<>();
    for (GenerateEvent event : events) {
      text.append(event.getDelta().getText());
      tokens.addAll(event.getDelta().getTokenIdsList());
    }
    assertThat(text.toString()).isEqualTo(whole.getText());
    assertThat(tokens).isEqualTo(whole.getTokenIdsList());
  }

  @Test
  void chat_withoutMessages_isRefused() {
    assertStatus(
        () -> generation.chat(endless().build()).forEachRemaining(event -> {}),
        Status.Code.INVALID_ARGUMENT,
        "messages");
  }

  @Test
  void adapter_namedUnderRoot_isLoadedByTheFirstRequest_andUnloaded() {
    GenerateResponse response = generation.generate(question().setAdapter("sql").build());
    assertThat(response.getText()).startsWith("SELECT");
    assertThat(response.getAdapter()).isEqualTo("sql");
    assertThat(response.getAdapterDigest()).startsWith("sha256:");
    assertThat(
            adapters
                .getAdapter(GetAdapterRequest.newBuilder().setName("sql").build())
                .getAdapter()
                .getDigest())
        .isEqualTo(response.getAdapterDigest());
    assertThat(adapters.listAdapters(ListAdaptersRequest.getDefaultInstance()).getAdaptersList())
        .anyMatch(adapter -> adapter.getName().equals("sql"));

    // By digest too.
    GenerateResponse byDigest =
        generation.generate(question().setAdapter(response.getAdapterDigest()).build());
    assertThat(byDigest.getText()).isEqualTo(response.getText());

    adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("sql").build());
    assertThat(adapters.listAdapters(ListAdaptersRequest.getDefaultInstance()).getAdaptersList())
        .noneMatch(adapter -> adapter.getName().equals("sql"));
  }

  @Test
  void adapters_inOneBatch_answerAsAlone() throws Exception {
    // Long enough that the last to arrive still meets the first.
    List<GenerateRequest> requests =
        Stream.of("", "json", "pirate", "terse")
            .map(name -> question().setAdapter(name).setLogprobs(3))
            .map(request -> request.setIgnoreEos(true).setMaxTokens(150).build())
            .toList();
    List<GenerateResponse> alone = requests.stream().map(generation::generate).toList();
    long before = lastStep();
    List<ListenableFuture<GenerateResponse>> together =
        requests.stream().map(GenerationServiceGrpc.newFutureStub(channel)::generate).toList();
    for (int i = 0; i < alone.size(); i++) {
      GenerateResponse response = together.get(i).get(60, TimeUnit.SECONDS);
      assertThat(response.getTokenIdsList()).isEqualTo(alone.get(i).getTokenIdsList());
      assertThat(response.getLogprobsList()).isEqualTo(alone.get(i).getLogprobsList());
      assertThat(response.getUsage().getMaxStepAdapters()).isEqualTo(4);
    }
    assertThat(
            generation
                .listSteps(ListStepsRequest.newBuilder().setAfter(before).build())
                .getStepsList())
        .anyMatch(step -> step.getSequences() == 4 && step.getAdapters() == 4);
  }

  private long lastStep() {
    return generation.listSteps(ListStepsRequest.getDefaultInstance()).getStepsList().stream()
        .mapToLong(StepRecord::getNumber)
        .max()
        .orElse(0);
  }

  @Test
  void adapter_unknown_isNotFound() {
    assertStatus(
        () -> generation.generate(question().setAdapter("nobody").build()),
        Status.Code.NOT_FOUND,
        "nobody");
    assertStatus(
        () -> adapters.getAdapter(GetAdapterRequest.newBuilder().setName("nobody").build()),
        Status.Code.NOT_FOUND,
        "nobody");
    assertStatus(
        () -> adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("nobody").build()),
        Status.Code.NOT_FOUND,
        "nobody");
  }

  @Test
  void load_pathOutsideTheRoots_isRefused() {
    for (String path : List.of("../base", "/etc", "json/../../base")) {
      assertThatThrownBy(
              () ->
                  adapters.loadAdapter(
                      LoadAdapterRequest.newBuilder().setName("x").setPath(path).build()))
          .as(path)
          .isInstanceOfSatisfying(
              StatusRuntimeException.class,
              e ->
                  assertThat(e.getStatus().getCode())
                      .isIn(Status.Code.PERMISSION_DENIED, Status.Code.INVALID_ARGUMENT));
    }
  }

  @Test
  void load_whileAStreamRuns_changesNothingOfIt() {
    List<Integer> alone = tokens(generation.generateStream(endless().setMaxTokens(120).build()));
    Iterator<GenerateEvent> stream = generation.generateStream(endless().setMaxTokens(120).build());
    List<Integer> tokens = new ArrayList<>(stream.next().getDelta().getTokenIdsList());
    LoadAdapterResponse loaded =
        adapters.loadAdapter(
            LoadAdapterRequest.newBuilder().setName("swapped").setPath("sql").build());
    tokens.addAll(tokens(stream));
    assertThat(loaded.getAdapter().getKind()).isEqualTo("rslora");
    assertThat(loaded.getLoadMs()).isPositive();
    assertThat(tokens).isEqualTo(alone);
    adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("swapped").build());
  }

  private static List<Integer> tokens(Iterator<GenerateEvent> events) {
    List<Integer> tokens = new ArrayList<>();
    events.forEachRemaining(event -> tokens.addAll(event.getDelta().getTokenIdsList()));
    return tokens;
  }

  @Test
  void request_beyondTheContext_namesBothNumbers() {
    assertStatus(
        () -> generation.generate(endless().setMaxTokens(600).build()),
        Status.Code.INVALID_ARGUMENT,
        "600",
        "512");
  }

  @Test
  void request_withTwoPrompts_isRefused() {
    assertStatus(
        () -> generation.generate(endless().addTokenIds(5).build()),
        Status.Code.INVALID_ARGUMENT,
        "prompt",
        "token_ids");
  }

  @Test
  void deadline_endsTheRequest() {
    assertStatus(
        () ->
            generation
                .withDeadlineAfter(150, TimeUnit.MILLISECONDS)
                .generateStream(endless().build())
                .forEachRemaining(event -> {}),
        Status.Code.DEADLINE_EXCEEDED);
  }

  @Test
  void cancellation_freesThePlace() {
    Context.CancellableContext context = Context.current().withCancellation();
    context.run(
        () -> {
          Iterator<GenerateEvent> stream = generation.generateStream(endless().build());
          stream.next();
          stream.next();
        });
    context.cancel(null);
    await()
        .atMost(10, TimeUnit.SECONDS)
        .until(() -> stack.engine().stats().running() + stack.engine().stats().paused() == 0);
  }

  @Test
  void lostConnection_freesThePlace() throws InterruptedException {
    ManagedChannel lost = channel();
    Iterator<GenerateEvent> stream =
        GenerationServiceGrpc.newBlockingStub(lost).generateStream(endless().build());
    stream.next();
    lost.shutdownNow();
    assertThat(lost.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
    await()
        .atMost(10, TimeUnit.SECONDS)
        .until(() -> stack.engine().stats().running() + stack.engine().stats().paused() == 0);
  }

  @Test
  void readerThatStops_stopsItsOwnSequenceAlone() {
    // Whole vocabularies fill any transport buffer soon; the limit of 20 would take longer than the
    // context lasts, so the reader asks for many and reads none.
    GenerateRequest wide = endless().setLogprobs(20).build();
    Iterator<GenerateEvent> stalled = generation.generateStream(wide);
    GenerateResponse other = generation.generate(question().build());
    assertThat(other.getText()).isNotBlank();
    List<Integer> tokens = tokens(stalled);
    assertThat(tokens).hasSize(511);
  }

  @Test
  void tokenize_andBack() {
    List<Integer> tokens =
        generation
            .tokenize(TokenizeRequest.newBuilder().setText("Where is my order 4172?").build())
            .getTokenIdsList();
    assertThat(tokens).isNotEmpty();
    assertThat(
            generation
                .detokenize(DetokenizeRequest.newBuilder().addAllTokenIds(tokens).build())
                .getText())
        .isEqualTo("Where is my order 4172?");
  }

  @Test
  void prefixCache_isCounted_andChangesNothing() {
    GenerateRequest request = question().build();
    GenerateResponse first = generation.generate(request);
    long hits =
        generation.modelInfo(ModelInfoRequest.getDefaultInstance()).getPrefixCache().getHitTokens();
    GenerateResponse second = generation.generate(request);

    int expected = (second.getUsage().getPromptTokens() - 1) / 16 * 16;
    assertThat(expected).isPositive();
    assertThat(second.getUsage().getCachedTokens()).isEqualTo(expected);
    assertThat(second.getTokenIdsList()).isEqualTo(first.getTokenIdsList());
    await()
        .atMost(10, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              PrefixCache cache =
                  generation.modelInfo(ModelInfoRequest.getDefaultInstance()).getPrefixCache();
              assertThat(cache.getHitTokens()).isEqualTo(hits + expected);
              assertThat(cache.getLookupTokens()).isGreaterThanOrEqualTo(cache.getHitTokens());
              assertThat(cache.getCachedBlocks()).isPositive();
              assertThat(cache.getFreeBlocks()).isEqualTo(cache.getBlocks());
            });
  }

  @Test
  void modelInfo_accountsForEveryByte() {
    ModelInfoResponse info = generation.modelInfo(ModelInfoRequest.getDefaultInstance());
    assertThat(info.getFamily()).isEqualTo("llama");
    assertThat(info.getContextLength()).isEqualTo(512);
    assertThat(info.getMemory().getBitsPerWeight()).isBetween(4.12, 4.14);
    assertThat(info.getMemory().getBasePacked()).isPositive();
    assertThat(info.getMemory().getKvCache()).isPositive();
    assertThat(info.getFingerprint()).hasSize(64);
  }

  @Test
  void health_knowsItsServices() {
    HealthGrpc.HealthBlockingStub health = HealthGrpc.newBlockingStub(channel);
    for (String name : List.of("", "wardrobe.v1.GenerationService", "wardrobe.v1.AdapterService")) {
      assertThat(health.check(HealthCheckRequest.newBuilder().setService(name).build()).getStatus())
          .as(name)
          .isEqualTo(ServingStatus.SERVING);
    }
    assertStatus(
        () -> health.check(HealthCheckRequest.newBuilder().setService("nobody").build()),
        Status.Code.NOT_FOUND,
        "nobody");
    assertThat(
            health
                .watch(HealthCheckRequest.newBuilder().setService("nobody").build())
                .next()
                .getStatus())
        .isEqualTo(ServingStatus.SERVICE_UNKNOWN);
  }

  @Test
  void reflection_answersSeveralQuestionsOnOneStream() throws InterruptedException {
    BlockingQueue<ServerReflectionResponse> answers = new LinkedBlockingQueue<>();
    StreamObserver<ServerReflectionRequest> questions =
        ServerReflectionGrpc.newStub(channel)
            .serverReflectionInfo(
                new StreamObserver<>() {
                  @Override
                  public void onNext(ServerReflectionResponse answer) {
                    answers.add(answer);
                  }

                  @Override
                  public void onError(Throwable failure) {}

                  @Override
                  public void onCompleted() {}
                });
    questions.onNext(ServerReflectionRequest.newBuilder().setListServices("").build());
    ServerReflectionResponse list = answers.poll(10, TimeUnit.SECONDS);
    assertThat(list.getListServicesResponse().getServiceList())
        .extracting(service -> service.getName())
        .contains(
            "wardrobe.v1.GenerationService", "wardrobe.v1.AdapterService", "grpc.health.v1.Health");
    questions.onNext(
        ServerReflectionRequest.newBuilder()
            .setFileContainingSymbol("wardrobe.v1.GenerationService")
            .build());
    ServerReflectionResponse file = answers.poll(10, TimeUnit.SECONDS);
    assertThat(file.getFileDescriptorResponse().getFileDescriptorProtoCount()).isPositive();
    questions.onCompleted();
  }

  @Test
  void reflection_knowsTheOlderProtocolToo() throws InterruptedException {
    BlockingQueue<List<String>> answers = new LinkedBlockingQueue<>();
    var questions =
        io.grpc.reflection.v1alpha.ServerReflectionGrpc.newStub(channel)
            .serverReflectionInfo(
                new StreamObserver<io.grpc.reflection.v1alpha.ServerReflectionResponse>() {
                  @Override
                  public void onNext(io.grpc.reflection.v1alpha.ServerReflectionResponse answer) {
                    answers.add(
                        answer.getListServicesResponse().getServiceList().stream()
                            .map(service -> service.getName())
                            .toList());
                  }

                  @Override
                  public void onError(Throwable failure) {}

                  @Override
                  public void onCompleted() {}
                });
    questions.onNext(
        io.grpc.reflection.v1alpha.ServerReflectionRequest.newBuilder()
            .setListServices("")
            .build());
    assertThat(answers.poll(10, TimeUnit.SECONDS)).contains("wardrobe.v1.GenerationService");
    questions.onCompleted();
  }

  /** HTTP/2 would let a client hold back what is more than the server allows on a connection. */
  @Test
  void hundredsOfCallsOnOneConnection_allReachTheEngine() {
    List<ListenableFuture<GenerateResponse>> calls = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      calls.add(GenerationServiceGrpc.newFutureStub(channel).generate(endless().build()));
    }
    await()
        .atMost(20, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              EngineStats stats = stack.engine().stats();
              assertThat(stats.running() + stats.waiting()).isEqualTo(300);
            });
    calls.forEach(call -> call.cancel(true));
  }

  /** Who shares a connection with callers that lose interest, such as through a proxy. */
  @Test
  void hundredsOfCancellations_leaveTheConnectionToOthers() {
    AtomicReference<Throwable> failed = new AtomicReference<>();
    BlockingQueue<ServingStatus> seen = new LinkedBlockingQueue<>();
    HealthGrpc.newStub(channel)
        .watch(
            HealthCheckRequest.getDefaultInstance(),
            new StreamObserver<>() {
              @Override
              public void onNext(HealthCheckResponse health) {
                seen.add(health.getStatus());
              }

              @Override
              public void onError(Throwable failure) {
                failed.set(failure);
              }

              @Override
              public void onCompleted() {}
            });
    await().atMost(10, TimeUnit.SECONDS).until(() -> !seen.isEmpty());
    for (int wave = 0; wave < 2; wave++) {
      List<ListenableFuture<GenerateResponse>> calls = new ArrayList<>();
      for (int i = 0; i < 300; i++) {
        calls.add(GenerationServiceGrpc.newFutureStub(channel).generate(endless().build()));
      }
      await()
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> stack.engine().stats().running() + stack.engine().stats().waiting() > 0);
      calls.forEach(call -> call.cancel(true));
      // Comes after the cancellations on the same connection.
      assertThat(generation.generate(question().build()).getText()).isNotEmpty();
    }
    assertThat(failed).hasNullValue();
  }

  private static void assertStatus(Runnable call, Status.Code code, String... words) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(
            StatusRuntimeException.class,
            e -> {
              assertThat(e.getStatus().getCode()).as(e.getMessage()).isEqualTo(code);
              for (String word : words) {
                assertThat(e.getStatus().getDescription()).contains(word);
              }
            });
  }
}
