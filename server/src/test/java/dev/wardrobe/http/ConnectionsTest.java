package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.tenant.ApiKey;
import dev.wardrobe.tenant.Grant;
import dev.wardrobe.tenant.KeyFile;
import dev.wardrobe.tenant.Keys;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.v1.ModelInfoResponse;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.NettyChannelBuilder;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Which connections are closed for their silence, and which never. */
@Timeout(120)
final class ConnectionsTest {
  private static final Patience SHORT =
      new Patience(
          Duration.ofMillis(600),
          Duration.ofMillis(600),
          Duration.ofMillis(1200),
          Duration.ofSeconds(60));

  /** Longer than all of them. */
  private static final long LONG_MILLIS = 2500;

  private static final String PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

  @TempDir private Path dir;

  private final ExecutorService workers = Executors.newSingleThreadExecutor();
  private @Nullable HttpFrontend frontend;
  private int port;

  @AfterEach
  void stop() throws IOException {
    if (frontend != null) {
      frontend.close();
    }
    workers.shutdownNow();
  }

  private void serve(@Nullable Keys keys) throws IOException, AdapterException {
    AdapterRegistry adapters =
        new AdapterRegistry(null, null, List.of(), AdapterOptions.DEFAULT, workers);
    Served nothing =
        new Served(
            null,
            null,
            adapters,
            null,
            workers,
            ModelInfoResponse::getDefaultInstance,
            new Telemetry("", null, adapters, ModelInfoResponse::getDefaultInstance));
    FrontOptions options =
        new FrontOptions(
            keys, null, false, false, List.of(), List.of(), FrontOptions.DEFAULT_MAX_CONNECTIONS);
    HttpFrontend serving = new HttpFrontend(nothing, List.of(), options, SHORT);
    frontend = serving;
    port = serving.listen("127.0.0.1", 0);
  }

  private Socket connect() throws IOException {
    Socket socket = new Socket("127.0.0.1", port);
    socket.setSoTimeout(30_000);
    return socket;
  }

  private static void say(Socket socket, String text) throws IOException {
    socket.getOutputStream().write(text.getBytes(StandardCharsets.ISO_8859_1));
  }

  /** What comes until the server closes; fails if it does not. */
  private static String toTheEnd(Socket socket) throws IOException {
    return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "G", "GET / HTTP/1.1\r\nHost: localhost\r\n", "PRI * H", PREFACE})
  void withoutARequest_isClosed(String said) throws Exception {
    serve(null);
    try (Socket socket = connect()) {
      say(socket, said);
      assertThat(toTheEnd(socket)).doesNotContain("HTTP/1.1");
    }
  }

  @Test
  void withoutAnotherRequest_isClosed() throws Exception {
    serve(null);
    try (Socket socket = connect()) {
      say(socket, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
      assertThat(toTheEnd(socket)).startsWith("HTTP/1.1 404").contains("nothing is at GET");
    }
    try (Socket socket = connect()) {
      // Its head is never complete.
      say(socket, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\n");
      assertThat(toTheEnd(socket)).startsWith("HTTP/1.1 404");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"/v1/chat/completions", "/v1/tokenize"})
  void aBodyThatDoesNotCome_isTimedOut(String path) throws Exception {
    serve(null);
    try (Socket socket = connect()) {
      say(
          socket,
          "POST %s HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n"
                  .formatted(path)
              + "content-length: 100\r\n\r\n{\"model\":");
      assertThat(toTheEnd(socket))
          .startsWith("HTTP/1.1 408")
          .contains("expected its next bytes within 1 s, got none; send the request again");
    }
  }

  @Test
  void aBodyThatComesSlowly_isRead() throws Exception {
    serve(null);
    try (Socket socket = connect()) {
      int bytes = 20;
      say(
          socket,
          "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
              + "content-type: application/json\r\ncontent-length: %d\r\n\r\n".formatted(bytes));
      for (int i = 0; i < bytes; i++) {
        TimeUnit.MILLISECONDS.sleep(LONG_MILLIS / bytes);
        say(socket, "x");
      }
      assertThat(toTheEnd(socket)).startsWith("HTTP/1.1 400");
    }
  }

  @ParameterizedTest
  @EnumSource(HttpClient.Version.class)
  void anAnswerThatTakesLong_isGiven(HttpClient.Version version) throws Exception {
    serve(null);
    CountDownLatch held = new CountDownLatch(1);
    workers.execute(
        () -> {
          try {
            held.await();
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
        });
    try (HttpClient client = HttpClient.newBuilder().version(version).build()) {
      CompletableFuture<HttpResponse<String>> answer =
          client.sendAsync(
              HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/v1/adapters"))
                  .build(),
              HttpResponse.BodyHandlers.ofString());
      await()
          .during(LONG_MILLIS, TimeUnit.MILLISECONDS)
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> !answer.isDone());
      held.countDown();
      assertThat(answer.get(20, TimeUnit.SECONDS).statusCode()).isEqualTo(200);
    }
  }

  @Test
  void aQuietWatch_stays() throws Exception {
    serve(null);
    try (Socket socket = connect()) {
      say(socket, "GET /v1/adapters:watch HTTP/1.1\r\nHost: localhost\r\n\r\n");
      InputStream in = socket.getInputStream();
      assertThat(in.read()).isEqualTo('H');
      CompletableFuture<String> rest =
          CompletableFuture.supplyAsync(
              () -> {
                try {
                  return toTheEnd(socket);
                } catch (IOException e) {
                  return e.toString();
                }
              });
      await()
          .during(LONG_MILLIS, TimeUnit.MILLISECONDS)
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> !rest.isDone());
    }
  }

  // gRPC

  private ManagedChannel channel() {
    return NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
  }

  /** Nothing is known of the service, but the call was let in. */
  private static void ask(ManagedChannel channel) {
    try {
      var _ =
          HealthGrpc.newBlockingStub(channel)
              .check(HealthCheckRequest.newBuilder().setService("unknown").build());
    } catch (StatusRuntimeException e) {
      assertThat(e.getStatus().getCode()).isEqualTo(Status.Code.NOT_FOUND);
    }
  }

  @Test
  void aGrpcClientThatWasLetIn_keepsItsConnection() throws Exception {
    serve(null);
    ManagedChannel channel = channel();
    try {
      ask(channel);
      await()
          .during(LONG_MILLIS, TimeUnit.MILLISECONDS)
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> channel.getState(false) == ConnectivityState.READY);
    } finally {
      channel.shutdownNow();
    }
  }

  @Test
  void aGrpcClientWithoutKey_doesNot() throws Exception {
    serve(keys());
    ManagedChannel channel = channel();
    try {
      ask(channel);
      await()
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> channel.getState(false) == ConnectivityState.IDLE);
    } finally {
      channel.shutdownNow();
    }
  }

  private Keys keys() throws Exception {
    Path path = dir.resolve("keys.jsonl");
    new KeyFile(path)
        .add(Grant.ofKey(ApiKey.create(), "admin", "ops", Set.of(Scope.ADMIN), List.of("*"), null));
    return Keys.open(path);
  }

  /** Not for who it is, but since it waits. */
  @Test
  void aCallInProgress_staysThoughNobodyAsksAgain() throws Exception {
    serve(keys());
    ManagedChannel channel = channel();
    try {
      Iterator<HealthCheckResponse> answers =
          HealthGrpc.newBlockingStub(channel)
              .watch(HealthCheckRequest.newBuilder().setService("unknown").build());
      assertThat(answers.next().getStatus()).isEqualTo(ServingStatus.SERVICE_UNKNOWN);
      CompletableFuture<Boolean> more = CompletableFuture.supplyAsync(answers::hasNext);
      await()
          .during(LONG_MILLIS, TimeUnit.MILLISECONDS)
          .atMost(20, TimeUnit.SECONDS)
          .until(() -> !more.isDone());
    } finally {
      channel.shutdownNow();
    }
  }
}
