package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import com.google.common.util.concurrent.ListenableFuture;
import com.google.protobuf.ByteString;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.AdapterServiceGrpc.AdapterServiceBlockingStub;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.DeleteAliasRequest;
import dev.wardrobe.v1.DeleteVersionRequest;
import dev.wardrobe.v1.DeleteVersionResponse;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListVersionsRequest;
import dev.wardrobe.v1.ListVersionsResponse;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.PinAdapterRequest;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterRequest.Header;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.RollbackAliasRequest;
import dev.wardrobe.v1.ScanAdaptersRequest;
import dev.wardrobe.v1.ScanAdaptersResponse;
import dev.wardrobe.v1.SetAliasRequest;
import dev.wardrobe.v1.Shadow;
import dev.wardrobe.v1.ShadowTraffic;
import dev.wardrobe.v1.Share;
import dev.wardrobe.v1.UnloadAdapterRequest;
import dev.wardrobe.v1.UnpinAdapterRequest;
import dev.wardrobe.v1.WatchAdaptersRequest;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** Publishing, naming and watching as callers see it: real gRPC, the embedded model. */
@Timeout(180)
final class AdapterServiceTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path DEMO = HOME.resolve("models/demo/adapters");

  @TempDir private static Path folder;
  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;

  private ManagedChannel channel;
  private GenerationServiceBlockingStub generation;
  private AdapterServiceBlockingStub adapters;

  @BeforeAll
  static void start() throws Exception {
    Path root = Files.createDirectory(folder.resolve("root"));
    for (String name : List.of("sql", "json", "pirate", "terse")) {
      copy(name, root.resolve(name));
    }
    Files.createDirectory(root.resolve("torn"));
    Files.writeString(root.resolve("torn/adapter_config.json"), "{");
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new CommandLine(arguments).parseArgs("--model", HOME.resolve("models/demo/base").toString());
    stack =
        new Stack(
            arguments,
            List.of(root),
            folder.resolve("store"),
            AdapterOptions.DEFAULT,
            UnaryOperator.identity());
    frontend = stack.frontend(List.of());
    port = frontend.listen("127.0.0.1", 0);
  }

  private static void copy(String name, Path to) throws IOException {
    Files.createDirectories(to);
    for (String file : List.of("adapter_config.json", "adapter_model.safetensors")) {
      Files.copy(DEMO.resolve(name).resolve(file), to.resolve(file));
    }
  }

  @AfterAll
  static void stop() throws IOException {
    frontend.close();
    stack.close();
    assertThat(stack.adapters().residentBytes()).isZero();
  }

  @BeforeEach
  void connect() {
    channel = channel();
    generation = GenerationServiceGrpc.newBlockingStub(channel);
    adapters = AdapterServiceGrpc.newBlockingStub(channel);
  }

  @AfterEach
  void disconnect() throws Exception {
    channel.shutdownNow();
    assertThat(channel.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
    await()
        .atMost(10, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              assertThat(stack.engine().stats().freeBlocks() + stack.engine().stats().lentBlocks())
                  .isEqualTo(stack.engine().stats().blocks());
              assertThat(stack.adapters().list()).allMatch(entry -> entry.inUse() == 0);
              assertThat(files("store/.staging")).isZero();
            });
  }

  private static long files(String directory) {
    try (Stream<Path> files = Files.list(folder.resolve(directory))) {
      return files.count();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static ManagedChannel channel() {
    return NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
  }

  private static ByteString file(String adapter, String file) {
    try {
      return ByteString.copyFrom(Files.readAllBytes(DEMO.resolve(adapter).resolve(file)));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static ByteString config(String adapter) {
    return file(adapter, "adapter_config.json");
  }

  private static ByteString weights(String adapter) {
    return file(adapter, "adapter_model.safetensors");
  }

  private static Header.Builder header(String name, String content) {
    return Header.newBuilder()
        .setName(name)
        .setConfigBytes(config(content).size())
        .setWeightsBytes(weights(content).size());
  }

  private static PublishAdapterRequest message(Header.Builder header) {
    return PublishAdapterRequest.newBuilder().setHeader(header).build();
  }

  private static PublishAdapterRequest config(ByteString bytes) {
    return PublishAdapterRequest.newBuilder().setConfig(bytes).build();
  }

  private static PublishAdapterRequest weights(ByteString bytes) {
    return PublishAdapterRequest.newBuilder().setWeights(bytes).build();
  }

  /** All messages of a good publication; the weights in pieces. */
  private static List<PublishAdapterRequest> messages(Header.Builder header, String content) {
    List<PublishAdapterRequest> messages = new ArrayList<>();
    messages.add(message(header));
    messages.add(config(config(content)));
    ByteString weights = weights(content);
    for (int at = 0; at < weights.size(); at += 100_000) {
      messages.add(weights(weights.substring(at, Math.min(weights.size(), at + 100_000))));
    }
    return messages;
  }

  /** A call of PublishAdapter. */
  private static final class Sending
      implements ClientResponseObserver<PublishAdapterRequest, PublishAdapterResponse> {
    final CompletableFuture<PublishAdapterResponse> response = new CompletableFuture<>();
    @Nullable ClientCallStreamObserver<PublishAdapterRequest> call;

    static Sending to(ManagedChannel channel, List<PublishAdapterRequest> messages) {
      Sending sending = new Sending();
      var _ = AdapterServiceGrpc.newStub(channel).publishAdapter(sending);
      for (PublishAdapterRequest message : messages) {
        if (!sending.response.isDone()) {
          sending.call().onNext(message);
        }
      }
      return sending;
    }

    ClientCallStreamObserver<PublishAdapterRequest> call() {
      return Objects.requireNonNull(call);
    }

    PublishAdapterResponse end() {
      if (!response.isDone()) {
        call().onCompleted();
      }
      try {
        return response.join();
      } catch (CompletionException e) {
        throw (StatusRuntimeException) e.getCause();
      }
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<PublishAdapterRequest> stream) {
      call = stream;
    }

    @Override
    public void onNext(PublishAdapterResponse answer) {
      response.complete(answer);
    }

    @Override
    public void onError(Throwable failure) {
      response.completeExceptionally(failure);
    }

    @Override
    public void onCompleted() {}
  }

  private PublishAdapterResponse publish(Header.Builder header, String content) {
    return Sending.to(channel, messages(header, content)).end();
  }

  private PublishAdapterResponse publish(String name, String content) {
    return publish(header(name, content), content);
  }

  private static GenerateRequest.Builder question(String adapter) {
    return GenerateRequest.newBuilder()
        .setPrompt("Where is my order 4172? The stove costs")
        .setTemperature(0)
        .setIgnoreEos(true)
        .setMaxTokens(24)
        .setAdapter(adapter);
  }

  private GenerateResponse ask(String adapter) {
    return generation.generate(question(adapter).build());
  }

  private void setAlias(String name, String alias, String... versions) {
    SetAliasRequest.Builder request = SetAliasRequest.newBuilder().setName(name).setAlias(alias);
    for (String version : versions) {
      request.addShares(Share.newBuilder().setVersion(version));
    }
    var _ = adapters.setAlias(request.build());
  }

  private DeleteVersionResponse delete(String name, String version) {
    return adapters.deleteVersion(
        DeleteVersionRequest.newBuilder().setName(name).setVersion(version).setForce(true).build());
  }

  private ListVersionsResponse versions(String name) {
    return adapters.listVersions(ListVersionsRequest.newBuilder().setName(name).build());
  }

  private Alias alias(String name, String alias) {
    return versions(name).getAliasesList().stream()
        .filter(each -> each.getAlias().equals(alias))
        .findFirst()
        .orElseThrow();
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

  @Test
  void publish_isAnsweredByEveryName() {
    GenerateResponse sql = ask("sql");
    PublishAdapterResponse first =
        publish(header("names", "sql").addAliases("prod").setDigest(sql.getAdapterDigest()), "sql");
    assertThat(first.getVersion()).isEqualTo("1");
    assertThat(first.getExisted()).isFalse();
    assertThat(first.getAdapter().getName()).isEqualTo("names@1");
    assertThat(first.getAdapter().getDigest()).isEqualTo(sql.getAdapterDigest());
    assertThat(first.getAdapter().getAliasesList()).containsExactly("latest", "prod");
    assertThat(first.getAdapter().getSource()).isEqualTo("store");
    publish("names", "pirate");
    for (String reference : List.of("names@1", "names@prod", sql.getAdapterDigest())) {
      GenerateResponse answer = ask(reference);
      assertThat(answer.getAdapter()).as(reference).isEqualTo("names@1");
      assertThat(answer.getAdapterDigest()).isEqualTo(sql.getAdapterDigest());
      assertThat(answer.getTokenIdsList()).isEqualTo(sql.getTokenIdsList());
    }
    assertThat(ask("names").getAdapter()).isEqualTo("names@2");
    assertThat(ask("names").getTokenIdsList()).isEqualTo(ask("pirate").getTokenIdsList());
    List<Adapter> listed = versions("names").getVersionsList();
    assertThat(listed).extracting(Adapter::getName).containsExactly("names@1", "names@2");
    assertThat(listed.getFirst().getRequests()).isEqualTo(3);
    assertThat(publish(header("names", "sql").setVersion("1"), "sql").getExisted()).isTrue();
    assertStatus(
        () -> publish(header("names", "json").setVersion("1"), "json"),
        Status.Code.ALREADY_EXISTS,
        "never changes");
    delete("names", "1");
    delete("names", "2");
  }

  @Test
  void publish_cutOffAnywhere_leavesNothing() throws Exception {
    long blobs = files("store/blobs/sha256");
    long revision = list(null).getRevision();
    List<PublishAdapterRequest> all = messages(header("cut", "json"), "json");
    ByteString half = config("json").substring(0, 20);
    List<List<PublishAdapterRequest>> beginnings = new ArrayList<>();
    beginnings.add(List.of());
    beginnings.add(List.of(all.getFirst(), config(half)));
    for (int count = 1; count < all.size(); count++) {
      beginnings.add(all.subList(0, count));
    }
    for (List<PublishAdapterRequest> beginning : beginnings) {
      assertStatus(
          () -> Sending.to(channel, beginning).end(), Status.Code.INVALID_ARGUMENT, "expected");
      Sending cancelled = Sending.to(channel, beginning);
      cancelled.call().cancel("enough", null);
    }
    for (List<PublishAdapterRequest> beginning : List.of(beginnings.get(1), all)) {
      ManagedChannel lost = channel();
      Sending sending = Sending.to(lost, beginning);
      await().atMost(10, TimeUnit.SECONDS).until(() -> files("store/.staging") > 0);
      lost.shutdownNow();
      assertThat(lost.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
      await().atMost(10, TimeUnit.SECONDS).until(sending.response::isCompletedExceptionally);
    }
    await()
        .atMost(30, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              assertThat(files("store/.staging")).isZero();
              assertThat(files("store/blobs/sha256")).isEqualTo(blobs);
            });
    assertStatus(() -> versions("cut"), Status.Code.NOT_FOUND, "cut");
    assertThat(list(null).getRevision()).isEqualTo(revision);
  }

  @Test
  void publish_lies_areRefused() {
    long blobs = files("store/blobs/sha256");
    List<PublishAdapterRequest> good = messages(header("lie", "json"), "json");
    Map<String, List<PublishAdapterRequest>> lies = new HashMap<>();
    lies.put("header", List.of(good.get(1)));
    lies.put("header,", List.of(good.getFirst(), good.getFirst()));
    lies.put("none of them", List.of(PublishAdapterRequest.getDefaultInstance()));
    lies.put(
        "declared",
        List.of(message(header("lie", "json").setConfigBytes(3)), config(config("json"))));
    lies.put(
        "after",
        List.of(good.getFirst(), good.get(1), good.get(2), config(ByteString.copyFromUtf8(" "))));
    lies.put(
        "damaged on its way",
        messages(header("lie", "json").setDigest("sha256:" + "0".repeat(64)), "json"));
    lies.put("sha256: and 64", messages(header("lie", "json").setDigest("sha256:0"), "json"));
    lies.put("path or sizes", List.of(message(header("lie", "json").setPath("json"))));
    lies.put(
        "after a header with a path",
        List.of(message(Header.newBuilder().setName("lie").setPath("json")), good.get(1)));
    lies.put("name", messages(header("../lie", "json"), "json"));
    lies.put("alias", messages(header("lie", "json").addAliases("@"), "json"));
    lies.put("JSON", torn());
    lies.forEach(
        (word, messages) ->
            assertStatus(
                () -> Sending.to(channel, messages).end(), Status.Code.INVALID_ARGUMENT, word));
    assertStatus(
        () ->
            Sending.to(
                    channel,
                    List.of(message(header("lie", "json").setWeightsBytes(Long.MAX_VALUE))))
                .end(),
        Status.Code.RESOURCE_EXHAUSTED);
    assertStatus(
        () ->
            Sending.to(
                    channel,
                    List.of(message(Header.newBuilder().setName("lie").setPath("../store"))))
                .end(),
        Status.Code.PERMISSION_DENIED);
    assertThat(files("store/blobs/sha256")).isEqualTo(blobs);
    assertStatus(() -> versions("lie"), Status.Code.NOT_FOUND);
  }

  /** Of the announced sizes, but no config. */
  private static List<PublishAdapterRequest> torn() {
    List<PublishAdapterRequest> messages = messages(header("lie", "json"), "json");
    messages.set(1, config(ByteString.copyFrom(new byte[config("json").size()])));
    return messages;
  }

  @Test
  void alias_flipsInMidStream_andBack() {
    publish("flip", "sql");
    publish("flip", "pirate");
    setAlias("flip", "prod", "1");
    GenerateRequest longer = question("flip@prod").setMaxTokens(150).build();
    List<Integer> alone = tokens(generation.generateStream(longer));
    Iterator<GenerateEvent> stream = generation.generateStream(longer);
    GenerateEvent started = stream.next();
    assertThat(started.getStarted().getAdapter()).isEqualTo("flip@1");
    stream.next();
    setAlias("flip", "prod", "2");
    GenerateResponse after = ask("flip@prod");
    assertThat(after.getAdapter()).isEqualTo("flip@2");
    assertThat(after.getTokenIdsList()).isEqualTo(ask("pirate").getTokenIdsList());
    // Of the stream one token was read already.
    assertThat(tokens(stream)).isEqualTo(alone.subList(1, alone.size()));
    Alias back =
        adapters
            .rollbackAlias(
                RollbackAliasRequest.newBuilder().setName("flip").setAlias("prod").build())
            .getAlias();
    assertThat(back.getShares(0).getVersion()).isEqualTo("1");
    assertThat(back.getHistoryList()).isEmpty();
    assertThat(ask("flip@prod").getAdapter()).isEqualTo("flip@1");
    assertStatus(
        () ->
            adapters.rollbackAlias(
                RollbackAliasRequest.newBuilder().setName("flip").setAlias("prod").build()),
        Status.Code.NOT_FOUND,
        "earlier");
    delete("flip", "1");
    delete("flip", "2");
  }

  private static List<Integer> tokens(Iterator<GenerateEvent> events) {
    List<Integer> tokens = new ArrayList<>();
    events.forEachRemaining(event -> tokens.addAll(event.getDelta().getTokenIdsList()));
    return tokens;
  }

  @Test
  void delete_inMidStream_endsNothing() {
    publish("gone", "terse");
    GenerateRequest longer = question("gone").setMaxTokens(150).build();
    List<Integer> alone = tokens(generation.generateStream(longer));
    Iterator<GenerateEvent> stream = generation.generateStream(longer);
    stream.next();
    assertStatus(
        () ->
            adapters.deleteVersion(
                DeleteVersionRequest.newBuilder().setName("gone").setVersion("1").build()),
        Status.Code.FAILED_PRECONDITION,
        "latest",
        "force");
    DeleteVersionResponse gone = delete("gone", "1");
    assertThat(gone.getInUse()).isEqualTo(1);
    assertThat(gone.getAliasesList()).containsExactly("latest");
    assertStatus(() -> ask("gone"), Status.Code.NOT_FOUND, "gone");
    assertThat(tokens(stream)).isEqualTo(alone);
  }

  @Test
  void name_thatIsLoadedAnew_hasNothingOfTheOld() {
    List<Integer> sql = ask("sql").getTokenIdsList();
    List<Integer> pirate = ask("pirate").getTokenIdsList();
    assertThat(sql).isNotEqualTo(pirate);
    for (String content : List.of("sql", "pirate", "sql")) {
      var _ =
          adapters.loadAdapter(
              LoadAdapterRequest.newBuilder().setName("again").setPath(content).build());
      for (int i = 0; i < 2; i++) {
        assertThat(ask("again").getTokenIdsList())
            .as(content)
            .isEqualTo(content.equals("sql") ? sql : pirate);
      }
    }
    // The same through an alias: what two versions have in common is no more than the name.
    publish("again2", "sql");
    assertThat(ask("again2").getTokenIdsList()).isEqualTo(sql);
    publish("again2", "pirate");
    assertThat(ask("again2").getTokenIdsList()).isEqualTo(pirate);
    adapters.rollbackAlias(
        RollbackAliasRequest.newBuilder().setName("again2").setAlias("latest").build());
    assertThat(ask("again2").getTokenIdsList()).isEqualTo(sql);
    adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("again").build());
    delete("again2", "1");
    delete("again2", "2");
  }

  @Test
  void split_sticksToTheKey() {
    publish("split", "sql");
    publish("split", "json");
    var _ =
        adapters.setAlias(
            SetAliasRequest.newBuilder()
                .setName("split")
                .setAlias("prod")
                .addShares(Share.newBuilder().setVersion("1").setWeight(3))
                .addShares(Share.newBuilder().setVersion("2").setWeight(1))
                .build());
    Map<String, String> byKey = new HashMap<>();
    int requests = 0;
    for (int round = 0; round < 2; round++) {
      for (int i = 0; i < 40; i++) {
        String key = "customer " + i;
        GenerateResponse answer =
            generation.generate(question("split@prod").setMaxTokens(1).setRequestKey(key).build());
        requests++;
        String before = byKey.putIfAbsent(key, answer.getAdapter());
        assertThat(before).isIn(null, answer.getAdapter());
      }
    }
    assertThat(byKey.values()).contains("split@1", "split@2");
    for (Map.Entry<String, String> each : byKey.entrySet()) {
      EmbedResponse embedded =
          generation.embed(
              embedding("split@prod").toBuilder().setRequestKey(each.getKey()).build());
      requests++;
      assertThat(embedded.getAdapters(0).getAdapter()).isEqualTo(each.getValue());
    }
    List<Share> shares = alias("split", "prod").getSharesList();
    assertThat(shares).extracting(Share::getWeight).containsExactly(3, 1);
    assertThat(shares.get(0).getRequests() + shares.get(1).getRequests()).isEqualTo(requests);
    assertThat(shares.get(1).getRequests())
        .isEqualTo(3 * byKey.values().stream().filter("split@2"::equals).count());
    assertStatus(
        () -> adapters.getAdapter(GetAdapterRequest.newBuilder().setName("split@prod").build()),
        Status.Code.INVALID_ARGUMENT,
        "divides");
    assertStatus(
        () -> generation.generate(question("split@prod").setRequestKey("k".repeat(2000)).build()),
        Status.Code.INVALID_ARGUMENT,
        "request_key");
    assertStatus(
        () ->
            generation.embed(
                embedding("split@prod").toBuilder().setRequestKey("k".repeat(2000)).build()),
        Status.Code.INVALID_ARGUMENT,
        "request_key");
    delete("split", "1");
    delete("split", "2");
  }

  private static EmbedRequest embedding(String adapter) {
    return EmbedRequest.newBuilder()
        .setAdapter(adapter)
        .addInputs(EmbedInput.newBuilder().setText("a"))
        .build();
  }

  @Test
  void shadow_neverHurts_andIsCounted() throws Exception {
    publish("shade", "sql");
    publish("shade", "pirate");
    List<Integer> alone = ask("shade@1").getTokenIdsList();
    shadow("1");
    for (int i = 0; i < 4; i++) {
      assertThat(ask("shade@prod").getTokenIdsList()).isEqualTo(alone);
    }
    // The same adapter, asked once more: exactness says that it answers the same.
    ShadowTraffic same = settled();
    assertThat(same.getRequests()).isEqualTo(4);
    assertThat(same.getFailed()).isZero();
    assertThat(same.getCompleted()).isPositive();
    assertThat(same.getIdentical()).isEqualTo(same.getCompleted());
    assertThat(same.getTokens()).isEqualTo(alone.size() * same.getCompleted());
    assertThat(same.getTokensAgreed()).isEqualTo(same.getTokens());
    assertThat(same.getTotalMs()).isPositive();
    assertThat(same.getRealTotalMs()).isPositive();

    shadow("2");
    // More than there are places: real requests wait, and copies give way.
    List<ListenableFuture<GenerateResponse>> together = new ArrayList<>();
    for (int i = 0; i < 150; i++) {
      together.add(
          GenerationServiceGrpc.newFutureStub(channel).generate(question("shade@prod").build()));
    }
    for (ListenableFuture<GenerateResponse> each : together) {
      GenerateResponse answer = each.get(120, TimeUnit.SECONDS);
      assertThat(answer.getTokenIdsList()).isEqualTo(alone);
      assertThat(answer.getAdapter()).isEqualTo("shade@1");
    }
    ShadowTraffic other = settled();
    assertThat(other.getRequests()).isEqualTo(150);
    assertThat(other.getFailed()).isZero();
    assertThat(other.getDropped()).isPositive();
    assertThat(other.getIdentical()).isZero();
    delete("shade", "1");
    delete("shade", "2");
  }

  private void shadow(String version) {
    var _ =
        adapters.setAlias(
            SetAliasRequest.newBuilder()
                .setName("shade")
                .setAlias("prod")
                .addShares(Share.newBuilder().setVersion("1"))
                .setShadow(Shadow.newBuilder().setVersion(version))
                .build());
  }

  private ShadowTraffic settled() {
    await()
        .atMost(60, TimeUnit.SECONDS)
        .until(
            () -> {
              ShadowTraffic traffic = alias("shade", "prod").getShadow().getTraffic();
              return traffic.getCompleted() + traffic.getDropped() + traffic.getFailed()
                  == traffic.getRequests();
            });
    return alias("shade", "prod").getShadow().getTraffic();
  }

  private ListAdaptersResponse list(@Nullable String token) {
    ListAdaptersRequest.Builder request = ListAdaptersRequest.newBuilder().setPageSize(2);
    if (token != null) {
      request.setPageToken(token);
    }
    return adapters.listAdapters(request.build());
  }

  @Test
  void list_showsWhatLiesThere_byPages() {
    ScanAdaptersResponse scanned = adapters.scanAdapters(ScanAdaptersRequest.getDefaultInstance());
    assertThat(scanned.getAdapters()).isEqualTo(5);
    assertThat(scanned.getBroken()).isEqualTo(1);
    publish("paged", "sql");
    List<Adapter> all = new ArrayList<>();
    String token = null;
    do {
      ListAdaptersResponse page = list(token);
      assertThat(page.getAdaptersCount()).isBetween(1, 2);
      all.addAll(page.getAdaptersList());
      token = page.getNextPageToken();
    } while (!token.isEmpty());
    assertThat(all).extracting(Adapter::getName).isSorted().doesNotHaveDuplicates();
    assertThat(all)
        .extracting(Adapter::getName)
        .contains("json", "paged@1", "pirate", "sql", "terse", "torn");
    Adapter torn = all.stream().filter(a -> a.getName().equals("torn")).findFirst().orElseThrow();
    assertThat(torn.getProblem()).contains("JSON");
    assertThat(torn.getSource()).isEqualTo("root");
    assertStatus(() -> ask("torn"), Status.Code.INVALID_ARGUMENT, "JSON");
    assertStatus(() -> list("!"), Status.Code.INVALID_ARGUMENT, "page_token");
    assertStatus(
        () -> adapters.listAdapters(ListAdaptersRequest.newBuilder().setPageSize(0).build()),
        Status.Code.INVALID_ARGUMENT,
        "page_size");
    delete("paged", "1");
  }

  @Test
  void pin_staysResident() {
    publish("pinned", "terse");
    Adapter pinned =
        adapters.pinAdapter(PinAdapterRequest.newBuilder().setName("pinned").build()).getAdapter();
    assertThat(pinned.getName()).isEqualTo("pinned@1");
    assertThat(pinned.getPinned()).isTrue();
    assertThat(pinned.getResident()).isTrue();
    Adapter free =
        adapters
            .unpinAdapter(UnpinAdapterRequest.newBuilder().setName("pinned@latest").build())
            .getAdapter();
    assertThat(free.getPinned()).isFalse();
    assertStatus(
        () -> adapters.pinAdapter(PinAdapterRequest.newBuilder().setName("nobody@1").build()),
        Status.Code.NOT_FOUND);
    delete("pinned", "1");
  }

  @Test
  void place_followsTheAdapter_andItsAnswersAreTimed() {
    // Of a digest that no other name has.
    ByteString config = config("pirate").concat(ByteString.copyFromUtf8("\n"));
    Sending.to(
            channel,
            List.of(
                message(header("placed", "pirate").setConfigBytes(config.size())),
                config(config),
                weights(weights("pirate"))))
        .end();
    Adapter published = get("placed");
    assertThat(published.getPlace()).isEqualTo(Adapter.Place.PLACE_HOST);
    assertThat(published.getFirstTokenMs()).isZero();
    double took = ask("placed").getUsage().getFirstTokenMs();
    Adapter asked = get("placed");
    assertThat(asked.getPlace()).isEqualTo(Adapter.Place.PLACE_DEVICE);
    assertThat(asked.getFirstTokenMs()).isEqualTo(took);
    adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("placed").build());
    await().until(() -> get("placed").getPlace() == Adapter.Place.PLACE_DISK);
    delete("placed", "1");
  }

  private Adapter get(String name) {
    return adapters.getAdapter(GetAdapterRequest.newBuilder().setName(name).build()).getAdapter();
  }

  @Test
  void watch_seesAllFromARevision() {
    long from = list(null).getRevision();
    publish("seen", "sql");
    ask("seen");
    setAlias("seen", "prod", "1");
    adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName("seen@1").build());
    adapters.deleteAlias(DeleteAliasRequest.newBuilder().setName("seen").setAlias("prod").build());
    assertStatus(() -> ask("torn"), Status.Code.INVALID_ARGUMENT);
    delete("seen", "1");
    Iterator<AdapterEvent> events = watch(from);
    AdapterEvent first = events.next();
    assertThat(first.getKind()).isEqualTo(AdapterEvent.Kind.KIND_WATCHING);
    assertThat(first.getRevision()).isEqualTo(from);
    Set<AdapterEvent.Kind> kinds = EnumSet.noneOf(AdapterEvent.Kind.class);
    long revision = from;
    AdapterEvent event;
    do {
      event = events.next();
      assertThat(event.getRevision()).isEqualTo(++revision);
      if (event.getKind() == AdapterEvent.Kind.KIND_FAILED) {
        assertThat(event.getName()).isEqualTo("torn");
        assertThat(event.getDetail()).contains("JSON");
      } else if (event.getName().startsWith("seen")) {
        assertThat(event.getDigest()).startsWith("sha256:");
      }
      kinds.add(event.getKind());
    } while (event.getKind() != AdapterEvent.Kind.KIND_DELETED);
    assertThat(kinds)
        .contains(
            AdapterEvent.Kind.KIND_PUBLISHED,
            AdapterEvent.Kind.KIND_ALIAS_SET,
            AdapterEvent.Kind.KIND_ALIAS_DELETED,
            AdapterEvent.Kind.KIND_UNLOADED,
            AdapterEvent.Kind.KIND_FAILED,
            AdapterEvent.Kind.KIND_DELETED);
    for (long lost : List.of(5L, revision + 1_000_000)) {
      assertStatus(() -> watch(lost).next(), Status.Code.OUT_OF_RANGE, "list the adapters again");
    }
  }

  private Iterator<AdapterEvent> watch(long after) {
    return adapters.watchAdapters(
        WatchAdaptersRequest.newBuilder().setAfterRevision(after).build());
  }

  @Test
  void watch_slowReaders_holdUpNobody_andMissNothing() {
    publish("slow", "sql");
    publish("slow", "json");
    long from = list(null).getRevision();
    List<Iterator<AdapterEvent>> readers = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      readers.add(watch(from));
      readers.getLast().next();
    }
    // More than what transport and buffers take: each event is some 150 bytes.
    int changes = 800;
    for (int i = 0; i < changes; i++) {
      setAliasQuickly(i);
    }
    assertThat(ask("slow@1").getAdapter()).isEqualTo("slow@1");
    TreeSet<Long> seen = new TreeSet<>();
    for (Iterator<AdapterEvent> reader : readers) {
      long revision = from;
      int moved = 0;
      while (moved < changes) {
        AdapterEvent event = reader.next();
        assertThat(event.getRevision()).isEqualTo(++revision);
        moved += event.getKind() == AdapterEvent.Kind.KIND_ALIAS_SET ? 1 : 0;
      }
      seen.add(revision);
    }
    assertThat(seen).hasSize(1);
    delete("slow", "1");
    delete("slow", "2");
  }

  private static void setAliasQuickly(int i) {
    try {
      stack
          .adapters()
          .setAlias(
              "slow",
              "prod",
              List.of(new dev.wardrobe.adapter.Catalog.Share(String.valueOf(1 + i % 2), 1)),
              null);
    } catch (dev.wardrobe.adapter.AdapterException e) {
      throw new AssertionError(e);
    }
  }
}
