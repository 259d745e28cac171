package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import com.google.protobuf.ByteString;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.FrontOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.tenant.ApiKey;
import dev.wardrobe.tenant.Grant;
import dev.wardrobe.tenant.KeyFile;
import dev.wardrobe.tenant.Keys;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.AdapterServiceGrpc.AdapterServiceBlockingStub;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListVersionsRequest;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.PinAdapterRequest;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.UnloadAdapterRequest;
import dev.wardrobe.v1.WatchAdaptersRequest;
import io.grpc.CallOptions;
import io.grpc.ClientInterceptor;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.LoggerFactory;
import picocli.CommandLine;

/** A server that asks for keys, as those see it who have one, and those who have none. */
final class AccessTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path DEMO = HOME.resolve("models/demo");
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  @TempDir private static Path dir;
  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;

  private static String acme = "";
  private static String acmeAdapters = "";
  private static String globex = "";
  private static String admin = "";

  private final List<ManagedChannel> channels = new ArrayList<>();

  @BeforeAll
  static void start() throws Exception {
    Path root = dir.resolve("root");
    copy("adapters/sql", root.resolve("acme/support"));
    copy("adapters/sql", root.resolve("globex/support"));
    copy("adapters/pirate", root.resolve("globex/parcels"));
    acme = key("acme-1", "acme", Set.of(Scope.INFERENCE), "acme/*");
    acmeAdapters = key("acme-2", "acme", Set.of(Scope.ADAPTERS), "acme/*");
    globex = key("globex-1", "globex", Set.of(Scope.INFERENCE, Scope.ADAPTERS), "globex/*");
    admin = key("admin", "operators", Set.of(Scope.ADMIN), "none");
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new CommandLine(arguments).parseArgs("--model", DEMO.resolve("base").toString());
    stack =
        new Stack(
            arguments,
            List.of(root),
            dir.resolve("store"),
            AdapterOptions.DEFAULT,
            UnaryOperator.identity(),
            new Stack.Terms(true, null));
    frontend =
        stack.frontend(
            List.of(),
            new FrontOptions(
                Keys.open(keys()),
                null,
                false,
                false,
                List.of(),
                List.of(),
                FrontOptions.DEFAULT_MAX_CONNECTIONS));
    port = frontend.listen("127.0.0.1", 0);
    var _ = stack.adapters().scan().join();
  }

  private static Path keys() {
    return dir.resolve("keys.jsonl");
  }

  private static String key(String id, String tenant, Set<Scope> scopes, String adapters)
      throws Exception {
    String key = ApiKey.create();
    new KeyFile(keys()).add(Grant.ofKey(key, id, tenant, scopes, List.of(adapters), null));
    return key;
  }

  private static void copy(String from, Path to) throws IOException {
    Files.createDirectories(to);
    try (Stream<Path> files = Files.list(DEMO.resolve(from))) {
      for (Path file : files.toList()) {
        Files.copy(file, to.resolve(file.getFileName().toString()));
      }
    }
  }

  @AfterAll
  static void stop() throws IOException {
    frontend.close();
    stack.close();
  }

  @AfterEach
  void disconnect() throws InterruptedException {
    for (ManagedChannel channel : channels) {
      channel.shutdownNow();
      assertThat(channel.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
    }
  }

  private ManagedChannel channel(ClientInterceptor... interceptors) {
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", port)
            .usePlaintext()
            .intercept(interceptors)
            .build();
    channels.add(channel);
    return channel;
  }

  private ManagedChannel channel(String key) {
    Metadata headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + key);
    return channel(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  private GenerationServiceBlockingStub generation(String key) {
    return GenerationServiceGrpc.newBlockingStub(channel(key));
  }

  private AdapterServiceBlockingStub adapters(String key) {
    return AdapterServiceGrpc.newBlockingStub(channel(key));
  }

  private static GenerateRequest.Builder ask(String adapter) {
    return GenerateRequest.newBuilder()
        .setPrompt("Where is order 4172?")
        .setAdapter(adapter)
        .setTemperature(0)
        .setMaxTokens(2);
  }

  private static Status refusal(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException e) {
      return e.getStatus();
    }
    throw new AssertionError("was not refused");
  }

  private static HttpResponse<String> http(String method, String path, String... headers)
      throws IOException, InterruptedException {
    HttpRequest.Builder request =
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
            .method(
                method,
                method.equals("GET")
                    ? HttpRequest.BodyPublishers.noBody()
                    : HttpRequest.BodyPublishers.ofString("{}"));
    if (headers.length > 0) {
      request.headers(headers);
    }
    try (HttpClient client = HttpClient.newHttpClient()) {
      return client.send(request.build(), HttpResponse.BodyHandlers.ofString());
    }
  }

  private List<String> names(String key) {
    return adapters(key)
        .listAdapters(ListAdaptersRequest.getDefaultInstance())
        .getAdaptersList()
        .stream()
        .map(Adapter::getName)
        .toList();
  }

  // Keys

  @Test
  void withoutKey_isUnauthenticated() throws Exception {
    Status status =
        refusal(() -> GenerationServiceGrpc.newBlockingStub(channel()).generate(ask("").build()));
    assertThat(status.getCode()).isEqualTo(Status.Code.UNAUTHENTICATED);
    assertThat(status.getDescription()).contains("authorization: Bearer KEY");
    HttpResponse<String> answer = http("GET", "/v1/adapters");
    assertThat(answer.statusCode()).isEqualTo(401);
    assertThat(answer.headers().firstValue("www-authenticate"))
        .hasValueSatisfying(value -> assertThat(value).startsWith("Bearer"));
    assertThat(answer.body()).contains("\"code\":\"invalid_api_key\"", "authorization: Bearer KEY");
  }

  @Test
  void key_isTakenFromEitherHeader() throws Exception {
    assertThat(generation(acme).generate(ask("").build()).getText()).isNotNull();
    for (String[] headers :
        List.of(
            new String[] {"authorization", "Bearer " + acme},
            new String[] {"Authorization", "bearer " + acme},
            new String[] {"api-key", acme})) {
      assertThat(http("GET", "/v1/adapters", headers).statusCode()).isEqualTo(200);
    }
    assertThat(http("GET", "/v1/adapters?api-key=" + acme).statusCode()).isEqualTo(401);
    assertThat(http("GET", "/v1/adapters", "authorization", acme + "x").statusCode())
        .isEqualTo(401);
    assertThat(http("GET", "/v1/adapters", "authorization", "Basic " + acme).statusCode())
        .isEqualTo(401);
  }

  @Test
  void unknownKey_isUnauthenticated() throws Exception {
    String unknown = ApiKey.create();
    Status status = refusal(() -> generation(unknown).generate(ask("").build()));
    assertThat(status.getCode()).isEqualTo(Status.Code.UNAUTHENTICATED);
    assertThat(status.getDescription()).contains("does not know").doesNotContain(unknown);
    assertThat(http("GET", "/v1/adapters", "api-key", unknown).statusCode()).isEqualTo(401);
    assertThat(http("GET", "/v1/adapters", "api-key", "x".repeat(8000)).statusCode())
        .isEqualTo(401);
  }

  @Test
  void missingScope_isDeniedAndSaysWhatIsNeeded() throws Exception {
    Status status =
        refusal(() -> generation(acme).modelInfo(ModelInfoRequest.getDefaultInstance()));
    assertThat(status.getCode()).isEqualTo(Status.Code.PERMISSION_DENIED);
    assertThat(status.getDescription())
        .isEqualTo("expected a key with scope admin, got 'acme-1', which has inference");
    assertThat(refusal(() -> generation(acmeAdapters).generate(ask("").build())).getCode())
        .isEqualTo(Status.Code.PERMISSION_DENIED);
    assertThat(
            refusal(
                    () ->
                        adapters(acme)
                            .loadAdapter(
                                LoadAdapterRequest.newBuilder().setName("acme/support").build()))
                .getCode())
        .isEqualTo(Status.Code.PERMISSION_DENIED);
    HttpResponse<String> answer = http("GET", "/v1/info", "api-key", acme);
    assertThat(answer.statusCode()).isEqualTo(403);
    assertThat(answer.body()).contains("scope admin");
    assertThat(http("GET", "/v1/info", "api-key", admin).statusCode()).isEqualTo(200);
    assertThat(
            http(
                    "POST",
                    "/v1/adapters/acme/support:load",
                    "api-key",
                    acme,
                    "content-type",
                    "application/json")
                .statusCode())
        .isEqualTo(403);
  }

  @Test
  void pathsWrittenAnotherWay_openNothing() throws Exception {
    for (String path :
        List.of(
            "/v1/adapters/../info",
            "/v1/adapters/%2e%2e/info",
            "/v1/adapters/x/../../info",
            "/v1//info",
            "/v1/%69nfo",
            "/v1/adapters/..%2finfo")) {
      assertThat(http("GET", path, "api-key", acme).statusCode()).as(path).isIn(400, 403, 404);
    }
    assertThat(http("GET", "/V1/INFO", "api-key", acme).statusCode()).isEqualTo(403);
    assertThat(http("GET", "/v1/info/", "api-key", acme).statusCode()).isEqualTo(403);
  }

  @Test
  void health_isOpen() {
    assertThat(
            HealthGrpc.newBlockingStub(channel())
                .check(HealthCheckRequest.getDefaultInstance())
                .getStatus())
        .isEqualTo(ServingStatus.SERVING);
  }

  @Test
  void reflection_takesAKey() throws Exception {
    ServerReflectionRequest list = ServerReflectionRequest.newBuilder().setListServices("").build();
    assertThat(reflect(channel(acme), list).get(10, TimeUnit.SECONDS).getListServicesResponse())
        .isNotNull();
    assertThatThrownBy(() -> reflect(channel(), list).get(10, TimeUnit.SECONDS))
        .hasMessageContaining("UNAUTHENTICATED");
  }

  private static CompletableFuture<ServerReflectionResponse> reflect(
      ManagedChannel channel, ServerReflectionRequest request) {
    CompletableFuture<ServerReflectionResponse> answer = new CompletableFuture<>();
    StreamObserver<ServerReflectionRequest> asking =
        ServerReflectionGrpc.newStub(channel)
            .serverReflectionInfo(
                new StreamObserver<>() {
                  @Override
                  public void onNext(ServerReflectionResponse response) {
                    answer.complete(response);
                  }

                  @Override
                  public void onError(Throwable failure) {
                    answer.completeExceptionally(failure);
                  }

                  @Override
                  public void onCompleted() {}
                });
    asking.onNext(request);
    asking.onCompleted();
    return answer;
  }

  @Test
  void everyUnknownMethod_isForAdminAlone() {
    var unknown =
        GenerationServiceGrpc.getGenerateMethod().toBuilder()
            .setFullMethodName("wardrobe.v1.GenerationService/Invented")
            .build();
    assertThat(
            refusal(
                    () ->
                        ClientCalls.blockingUnaryCall(
                            channel(acme), unknown, CallOptions.DEFAULT, ask("").build()))
                .getCode())
        .isEqualTo(Status.Code.PERMISSION_DENIED);
    assertThat(
            refusal(
                    () ->
                        ClientCalls.blockingUnaryCall(
                            channel(admin), unknown, CallOptions.DEFAULT, ask("").build()))
                .getCode())
        .isEqualTo(Status.Code.UNIMPLEMENTED);
  }

  // Tenants

  @Test
  void tenant_isTheKeys() {
    Status status = refusal(() -> generation(acme).generate(ask("").setTenant("globex").build()));
    assertThat(status.getCode()).isEqualTo(Status.Code.PERMISSION_DENIED);
    assertThat(status.getDescription())
        .contains("tenant: expected 'acme'")
        .contains("leave it out");
    assertThat(
            refusal(
                    () ->
                        generation(acme)
                            .embed(
                                EmbedRequest.newBuilder()
                                    .addInputs(EmbedInput.newBuilder().setText("a"))
                                    .setTenant("globex")
                                    .build()))
                .getCode())
        .isEqualTo(Status.Code.PERMISSION_DENIED);
    generation(acme).generate(ask("").setTenant("acme").build());
    generation(admin).generate(ask("").setTenant("globex").build());
  }

  @Test
  void prefixes_areNotSharedAmongTenants() {
    GenerateRequest request =
        ask("")
            .setPrompt("A long beginning that only one tenant has asked about. ".repeat(8))
            .build();
    assertThat(generation(acme).generate(request).getUsage().getCachedTokens()).isZero();
    assertThat(generation(acme).generate(request).getUsage().getCachedTokens()).isPositive();
    assertThat(generation(globex).generate(request).getUsage().getCachedTokens()).isZero();
  }

  // Which adapters there are

  @Test
  void list_showsWhatTheKeySees() {
    assertThat(names(acme)).contains("acme/support").allMatch(name -> name.startsWith("acme/"));
    assertThat(names(globex))
        .contains("globex/support", "globex/parcels")
        .allMatch(name -> name.startsWith("globex/"));
    assertThat(names(admin)).contains("acme/support", "globex/support", "globex/parcels");
    ListAdaptersResponse first =
        adapters(globex).listAdapters(ListAdaptersRequest.newBuilder().setPageSize(1).build());
    assertThat(first.getAdaptersList()).hasSize(1);
    assertThat(first.getNextPageToken()).isNotEmpty();
  }

  @Test
  void models_areThoseThatTheKeySees() throws Exception {
    String body = http("GET", "/v1/models", "api-key", acme).body();
    assertThat(body).contains("\"id\":\"acme/support\"").doesNotContain("globex");
    HttpResponse<String> hidden = http("GET", "/v1/models/globex/parcels", "api-key", acme);
    HttpResponse<String> missing = http("GET", "/v1/models/globex/missing", "api-key", acme);
    assertThat(hidden.statusCode()).isEqualTo(404);
    assertThat(hidden.body().replace("parcels", "missing")).isEqualTo(missing.body());
    assertThat(http("GET", "/v1/models/globex/parcels", "api-key", globex).statusCode())
        .isEqualTo(200);
    assertThat(http("GET", "/v1/models", "api-key", acmeAdapters).statusCode()).isEqualTo(403);
    for (String path : List.of("/v1/completions", "/v1/embeddings", "/tokenize")) {
      String field = path.equals("/v1/embeddings") ? "input" : "prompt";
      HttpResponse<String> answer =
          post(path, acme, "{\"model\":\"globex/parcels\",\"%s\":\"a\"}".formatted(field));
      assertThat(answer.statusCode()).as(path).isEqualTo(404);
      assertThat(answer.body().replace("'globex/parcels'", "")).doesNotContain("globex");
    }
    assertThat(post("/v1/load_lora_adapter", acme, "{}").statusCode()).isEqualTo(403);
    HttpResponse<String> stolen =
        post(
            "/v1/load_lora_adapter",
            acmeAdapters,
            "{\"lora_name\":\"acme/x\",\"lora_path\":\"globex/parcels\"}");
    assertThat(stolen.statusCode()).isEqualTo(404);
    assertThat(
            post("/v1/unload_lora_adapter", acmeAdapters, "{\"lora_name\":\"globex/parcels\"}")
                .statusCode())
        .isEqualTo(404);
  }

  private static HttpResponse<String> post(String path, String key, String body)
      throws IOException, InterruptedException {
    try (HttpClient client = HttpClient.newHttpClient()) {
      return client.send(
          HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
              .POST(HttpRequest.BodyPublishers.ofString(body))
              .headers("content-type", "application/json", "authorization", "Bearer " + key)
              .build(),
          HttpResponse.BodyHandlers.ofString());
    }
  }

  /** Whatever is asked of it, the answer is that to a name that nobody has. */
  @Test
  void hidden_isAsIfItWereNotThere() {
    for (String adapter : List.of("globex/parcels", "globex/parcels@1", "globex/parcels@prod")) {
      String missing = adapter.replace("parcels", "missing");
      hidden(adapter, missing, name -> generation(acme).generate(ask(name).build()));
      hidden(
          adapter,
          missing,
          name -> generation(acme).generateStream(ask(name).build()).forEachRemaining(event -> {}));
      hidden(
          adapter,
          missing,
          name ->
              generation(acme)
                  .generate(
                      ask("")
                          .addAdapters(
                              AdapterWeight.newBuilder().setAdapter("acme/support").setWeight(1))
                          .addAdapters(AdapterWeight.newBuilder().setAdapter(name).setWeight(1))
                          .build()));
      hidden(
          adapter,
          missing,
          name ->
              generation(acme)
                  .embed(
                      EmbedRequest.newBuilder()
                          .addInputs(EmbedInput.newBuilder().setText("a"))
                          .setAdapter(name)
                          .build()));
      hidden(
          adapter,
          missing,
          name -> adapters(acme).getAdapter(GetAdapterRequest.newBuilder().setName(name).build()));
      hidden(
          adapter,
          missing,
          name ->
              adapters(acmeAdapters)
                  .loadAdapter(LoadAdapterRequest.newBuilder().setName(name).build()));
      hidden(
          adapter,
          missing,
          name ->
              adapters(acmeAdapters)
                  .unloadAdapter(UnloadAdapterRequest.newBuilder().setName(name).build()));
      hidden(
          adapter,
          missing,
          name ->
              adapters(acmeAdapters)
                  .pinAdapter(PinAdapterRequest.newBuilder().setName(name).build()));
      hidden(
          adapter,
          missing,
          name ->
              adapters(acme).listVersions(ListVersionsRequest.newBuilder().setName(name).build()));
    }
    generation(globex).generate(ask("globex/parcels").build());
  }

  private interface Call {
    void with(String name);
  }

  private static void hidden(String adapter, String missing, Call call) {
    Status there = refusal(() -> call.with(adapter));
    Status nowhere = refusal(() -> call.with(missing));
    assertThat(there.getCode()).as(there.toString()).isEqualTo(Status.Code.NOT_FOUND);
    assertThat(String.valueOf(there.getDescription()).replace("parcels", "missing"))
        .isEqualTo(nowhere.getDescription());
  }

  /** Its own name that is missing gets the same words as somebody else's that is there. */
  @Test
  void hidden_isToldAsTheCallersOwnMissingNames() {
    String own =
        String.valueOf(
            refusal(() -> generation(acme).generate(ask("acme/missing").build())).getDescription());
    String others =
        String.valueOf(
            refusal(() -> generation(acme).generate(ask("globex/parcels").build()))
                .getDescription());
    assertThat(others).isEqualTo(own.replace("acme/missing", "globex/parcels"));
  }

  @Test
  void digest_opensNothing() {
    generation(globex).generate(ask("globex/parcels").build());
    GenerateResponse own = generation(acme).generate(ask("acme/support").build());
    String hidden =
        adapters(globex)
            .getAdapter(GetAdapterRequest.newBuilder().setName("globex/parcels").build())
            .getAdapter()
            .getDigest();
    assertThat(hidden).startsWith("sha256:");
    assertThat(refusal(() -> generation(acme).generate(ask(hidden).build())).getCode())
        .isEqualTo(Status.Code.NOT_FOUND);
    assertThat(
            refusal(
                    () ->
                        adapters(acme)
                            .getAdapter(GetAdapterRequest.newBuilder().setName(hidden).build()))
                .getCode())
        .isEqualTo(Status.Code.NOT_FOUND);
    // The same content under a name of its own is its own.
    generation(globex).generate(ask("globex/support").build());
    GenerateResponse shared = generation(acme).generate(ask(own.getAdapterDigest()).build());
    assertThat(shared.getAdapterDigest()).isEqualTo(own.getAdapterDigest());
    assertThat(shared.getAdapter()).startsWith("acme/");
    assertThat(shared.getTokenIdsList()).isEqualTo(own.getTokenIdsList());
  }

  @Test
  void load_readsNoDirectoryOfOthers() {
    for (String path : List.of("globex/parcels", "acme/../globex/parcels", "./globex/parcels")) {
      Status status =
          refusal(
              () ->
                  adapters(acmeAdapters)
                      .loadAdapter(
                          LoadAdapterRequest.newBuilder()
                              .setName("acme/stolen")
                              .setPath(path)
                              .build()));
      assertThat(status.getCode())
          .as(path)
          .isIn(Status.Code.NOT_FOUND, Status.Code.PERMISSION_DENIED, Status.Code.INVALID_ARGUMENT);
    }
    assertThat(names(admin)).doesNotContain("acme/stolen");
    Status named =
        refusal(
            () ->
                adapters(acmeAdapters)
                    .loadAdapter(
                        LoadAdapterRequest.newBuilder()
                            .setName("globex/mine")
                            .setPath("acme/support")
                            .build()));
    assertThat(named.getCode()).isEqualTo(Status.Code.PERMISSION_DENIED);
    assertThat(named.getDescription()).contains("acme/*");
  }

  @Test
  void publish_isForTheKeysNamesAlone() throws Exception {
    assertThatThrownBy(() -> publish(acmeAdapters, "globex/new").get(20, TimeUnit.SECONDS))
        .hasMessageContaining("PERMISSION_DENIED");
    assertThat(publish(acmeAdapters, "acme/new").get(20, TimeUnit.SECONDS).getVersion())
        .isEqualTo("1");
    assertThat(names(acme)).contains("acme/new@1");
    assertThat(names(globex)).noneMatch(name -> name.startsWith("acme/"));
    hidden(
        "acme/new",
        "acme/missing",
        name ->
            adapters(globex).listVersions(ListVersionsRequest.newBuilder().setName(name).build()),
        "new");
  }

  private static void hidden(String adapter, String missing, Call call, String word) {
    Status there = refusal(() -> call.with(adapter));
    Status nowhere = refusal(() -> call.with(missing));
    assertThat(there.getCode()).isEqualTo(Status.Code.NOT_FOUND);
    assertThat(String.valueOf(there.getDescription()).replace("/" + word, "/missing"))
        .isEqualTo(nowhere.getDescription());
  }

  private CompletableFuture<PublishAdapterResponse> publish(String key, String name)
      throws IOException {
    ByteString config =
        ByteString.copyFrom(Files.readAllBytes(DEMO.resolve("adapters/sql/adapter_config.json")));
    ByteString weights =
        ByteString.copyFrom(
            Files.readAllBytes(DEMO.resolve("adapters/sql/adapter_model.safetensors")));
    CompletableFuture<PublishAdapterResponse> answer = new CompletableFuture<>();
    StreamObserver<PublishAdapterRequest> sending =
        AdapterServiceGrpc.newStub(channel(key))
            .publishAdapter(
                new StreamObserver<>() {
                  @Override
                  public void onNext(PublishAdapterResponse response) {
                    answer.complete(response);
                  }

                  @Override
                  public void onError(Throwable failure) {
                    answer.completeExceptionally(failure);
                  }

                  @Override
                  public void onCompleted() {}
                });
    sending.onNext(
        PublishAdapterRequest.newBuilder()
            .setHeader(
                PublishAdapterRequest.Header.newBuilder()
                    .setName(name)
                    .setConfigBytes(config.size())
                    .setWeightsBytes(weights.size()))
            .build());
    sending.onNext(PublishAdapterRequest.newBuilder().setConfig(config).build());
    sending.onNext(PublishAdapterRequest.newBuilder().setWeights(weights).build());
    sending.onCompleted();
    return answer;
  }

  @Test
  void watch_tellsOfTheKeysAdaptersAlone() {
    Iterator<AdapterEvent> events =
        adapters(acme).watchAdapters(WatchAdaptersRequest.getDefaultInstance());
    assertThat(events.next().getKind()).isEqualTo(AdapterEvent.Kind.KIND_WATCHING);
    adapters(globex).loadAdapter(LoadAdapterRequest.newBuilder().setName("globex/parcels").build());
    var _ = stack.adapters().scan().join();
    adapters(acmeAdapters)
        .loadAdapter(
            LoadAdapterRequest.newBuilder().setName("acme/seen").setPath("acme/support").build());
    AdapterEvent seen = events.next();
    while (!seen.getName().equals("acme/seen")) {
      assertThat(seen.getName()).startsWith("acme/");
      seen = events.next();
    }
  }

  // Secrets

  @Test
  void keys_areInNoLogAndNoAnswer() throws Exception {
    ListAppender<ILoggingEvent> logged = new ListAppender<>();
    Logger root = (Logger) LoggerFactory.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
    Logger own = (Logger) LoggerFactory.getLogger("dev.wardrobe");
    Level before = own.getLevel();
    logged.start();
    root.addAppender(logged);
    own.setLevel(Level.TRACE);
    String unknown = ApiKey.create();
    List<String> told = new ArrayList<>();
    try {
      for (String key : List.of(acme, unknown, admin, acme.substring(0, 30))) {
        for (Map.Entry<String, String> header :
            Map.of(
                    "authorization", "Bearer " + key,
                    "Authorization", key,
                    "api-key", key,
                    "x-api-key", key,
                    "cookie", "key=" + key)
                .entrySet()) {
          told.add(http("GET", "/v1/adapters", header.getKey(), header.getValue()).body());
          told.add(http("GET", "/v1/nothing", header.getKey(), header.getValue()).body());
          told.add(
              http(
                      "POST",
                      "/v1/generate",
                      header.getKey(),
                      header.getValue(),
                      "content-type",
                      "application/json")
                  .body());
        }
        told.add(http("GET", "/v1/adapters?api_key=" + key).body());
        told.add(http("GET", "/v1/steps?key=" + key, "api-key", admin).body());
        Metadata headers = new Metadata();
        headers.put(AUTHORIZATION, "Token " + key);
        told.add(
            refusal(
                    () ->
                        GenerationServiceGrpc.newBlockingStub(
                                channel(MetadataUtils.newAttachHeadersInterceptor(headers)))
                            .generate(ask("").build()))
                .toString());
        try {
          generation(key).generate(ask("missing").build());
        } catch (StatusRuntimeException e) {
          told.add(e.getStatus().toString());
        }
      }
      told.add(http("GET", "/debug/state", "api-key", admin).body());
      told.add(http("GET", "/metrics", "api-key", admin).body());
    } finally {
      own.setLevel(before);
      root.detachAppender(logged);
    }
    List<String> secrets =
        Stream.of(acme, unknown, admin).map(key -> key.substring(9, 30)).toList();
    for (String secret : secrets) {
      assertThat(told).noneMatch(text -> text.contains(secret));
      assertThat(logged.list)
          .noneMatch(event -> (event.getFormattedMessage() + event).contains(secret));
    }
  }

  @Test
  void revokedKey_isRefusedWithinSeconds() throws Exception {
    String key = key("short-lived", "acme", Set.of(Scope.INFERENCE), "*");
    until(() -> http("GET", "/v1/adapters", "api-key", key).statusCode() == 200);
    new KeyFile(keys()).remove("short-lived");
    until(() -> http("GET", "/v1/adapters", "api-key", key).statusCode() == 401);
    assertThat(http("GET", "/v1/adapters", "api-key", acme).statusCode()).isEqualTo(200);
  }

  /** What a key opened ends with it, and says why. */
  @Test
  void revokedKey_endsWatchesAndStreams() throws Exception {
    String key = key("revoked", "acme", Set.of(Scope.INFERENCE), "acme/*");
    until(() -> http("GET", "/v1/adapters", "api-key", key).statusCode() == 200);
    // More than fits into any buffer, for readers who do not read.
    GenerateRequest much =
        GenerateRequest.newBuilder()
            .setPrompt("The")
            .setMaxTokens(400)
            .setIgnoreEos(true)
            .setN(32)
            .setLogprobs(20)
            .build();
    String body =
        "{\"prompt\": \"The\", \"max_tokens\": 400, \"ignore_eos\": true, \"n\": 32,"
            + " \"logprobs\": 20, \"stream\": true}";
    try (HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build()) {
      HttpResponse<InputStream> watch = open(client, at("/v1/adapters:watch", key).build());
      HttpResponse<InputStream> stream =
          open(
              client,
              at("/v1/completions", key)
                  .header("content-type", "application/json")
                  .POST(HttpRequest.BodyPublishers.ofString(body))
                  .build());
      Iterator<AdapterEvent> events =
          adapters(key).watchAdapters(WatchAdaptersRequest.getDefaultInstance());
      assertThat(events.next().getKind()).isEqualTo(AdapterEvent.Kind.KIND_WATCHING);
      Iterator<GenerateEvent> answers = generation(key).generateStream(much);
      assertThat(answers.next().hasStarted()).isTrue();
      Iterator<AdapterEvent> others =
          adapters(acme).watchAdapters(WatchAdaptersRequest.getDefaultInstance());
      assertThat(others.next().getKind()).isEqualTo(AdapterEvent.Kind.KIND_WATCHING);
      CompletableFuture<Boolean> more = CompletableFuture.supplyAsync(others::hasNext);

      new KeyFile(keys()).remove("revoked");

      assertThat(rest(watch)).contains("event: error", "invalid_api_key", "was revoked");
      assertThat(rest(stream))
          .contains("\"code\":\"invalid_api_key\"", "was revoked")
          .endsWith("data: [DONE]\n\n");
      for (Iterator<?> each : List.of(events, answers)) {
        Status status = refusal(() -> each.forEachRemaining(event -> {}));
        assertThat(status.getCode()).isEqualTo(Status.Code.UNAUTHENTICATED);
        assertThat(status.getDescription()).contains("was revoked; ask for a new one");
      }
      until(() -> stack.engine().stats().running() == 0);
      assertThat(stack.engine().stats().waiting()).isZero();
      assertThat(more).isNotDone();
    }
  }

  private static HttpRequest.Builder at(String path, String key) {
    return HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
        .header("api-key", key);
  }

  /** Asks for what does not end by itself; returns once it has begun. */
  private static HttpResponse<InputStream> open(HttpClient client, HttpRequest request)
      throws IOException, InterruptedException {
    HttpResponse<InputStream> response =
        client.send(request, HttpResponse.BodyHandlers.ofInputStream());
    assertThat(response.statusCode()).isEqualTo(200);
    return response;
  }

  private static String rest(HttpResponse<InputStream> response) throws IOException {
    try (InputStream in = response.body()) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    }
  }

  @Test
  void expiredKey_endsItsWatch() throws Exception {
    String key = ApiKey.create();
    Instant end = Instant.now().plusSeconds(4);
    new KeyFile(keys())
        .add(Grant.ofKey(key, "expiring", "acme", Set.of(Scope.INFERENCE), List.of("acme/*"), end));
    until(() -> http("GET", "/v1/adapters", "api-key", key).statusCode() == 200);
    Iterator<AdapterEvent> events =
        adapters(key).watchAdapters(WatchAdaptersRequest.getDefaultInstance());
    Status status = refusal(() -> events.forEachRemaining(event -> {}));
    assertThat(status.getCode()).isEqualTo(Status.Code.UNAUTHENTICATED);
    assertThat(status.getDescription()).contains("expired at");
    assertThat(Instant.now()).isAfterOrEqualTo(end);
  }

  @Test
  void watches_ofATenant_leaveRoomForOthers() throws Exception {
    try (HttpClient client = HttpClient.newHttpClient()) {
      List<HttpResponse<InputStream>> watches = new ArrayList<>();
      HttpRequest watch = at("/v1/adapters:watch", globex).build();
      for (int i = 0; i < 64; i++) {
        watches.add(open(client, watch));
      }
      HttpResponse<String> refused = client.send(watch, HttpResponse.BodyHandlers.ofString());
      assertThat(refused.statusCode()).isEqualTo(429);
      assertThat(refused.body())
          .contains("expected at most 64 readers of events of a tenant at once", "end one");
      watches.add(open(client, at("/v1/adapters:watch", acme).build()));
      watches.removeFirst().body().close();
      until(
          () -> {
            HttpResponse<InputStream> again =
                client.send(watch, HttpResponse.BodyHandlers.ofInputStream());
            watches.add(again);
            return again.statusCode() == 200;
          });
      for (HttpResponse<InputStream> each : watches) {
        each.body().close();
      }
      client.shutdownNow();
    }
  }

  private static void until(Callable<Boolean> condition) {
    await().atMost(20, TimeUnit.SECONDS).until(condition);
  }
}
