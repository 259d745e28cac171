package dev.wardrobe.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.client.WardrobeClient.AnswerListener;
import dev.wardrobe.client.WardrobeClient.Failover;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.PublishAdapterRequest;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsServerCredentials;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What the client does when servers fail, over real connections. */
@Timeout(60)
final class WardrobeClientTest {
  private static final GenerateRequest HELLO =
      GenerateRequest.newBuilder().setPrompt("hello").build();

  @TempDir private Path folder;

  private static GenerateRequest to(String adapter) {
    return HELLO.toBuilder().setAdapter(adapter).build();
  }

  private static CallError refusal(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException e) {
      return Objects.requireNonNull(CallError.of(e));
    }
    throw new AssertionError("expected a refusal, got an answer");
  }

  @Test
  void failureBeforeTheFirstEvent_isTriedAgain() throws Exception {
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target())) {
      server.failures.add(FakeServer.unavailable());
      server.failures.add(FakeServer.busy(5));
      assertThat(client.generate(HELLO).getText()).isEqualTo("whole");
      assertThat(server.asked).hasSize(3);

      server.failures.add(FakeServer.unavailable());
      server.failures.add(FakeServer.busy(5));
      try (AnswerStream answer = client.stream(HELLO)) {
        assertThat(answer.next().getDelta().getText()).isEqualTo("piece");
        assertThat(answer.hasNext()).isFalse();
      }
      assertThat(server.asked).hasSize(6);

      server.failures.add(FakeServer.unavailable());
      CompletableFuture<@Nullable Throwable> end = new CompletableFuture<>();
      List<String> texts = new ArrayList<>();
      var _ =
          client.start(
              HELLO,
              new AnswerListener() {
                @Override
                public void event(GenerateEvent event) {
                  texts.add(event.getDelta().getText());
                }

                @Override
                public void end(@Nullable Throwable failure) {
                  end.complete(failure);
                }
              });
      assertThat(end.get(30, TimeUnit.SECONDS)).isNull();
      assertThat(texts).containsExactly("piece");
      assertThat(server.asked).hasSize(8);
    }
  }

  @Test
  void cancellationThatNobodyAskedFor_isAServerThatIsGone() throws Exception {
    List<Failover> failovers = new ArrayList<>();
    try (FakeServer a = new FakeServer();
        FakeServer b = new FakeServer();
        WardrobeClient client =
            WardrobeClient.builder(a.target(), b.target()).onFailover(failovers::add).build()) {
      boolean first = client.targets("sql").getFirst().equals(a.target());
      FakeServer own = first ? a : b;
      FakeServer other = first ? b : a;
      own.failures.add(Status.CANCELLED.withDescription("going down").asRuntimeException());
      assertThat(client.generate(to("sql")).getText()).isEqualTo("whole");
      assertThat(failovers)
          .singleElement()
          .satisfies(
              failover -> {
                assertThat(failover.from()).isEqualTo(own.target());
                assertThat(failover.why()).contains("going down");
              });
      assertThat(other.asked).containsExactly("sql");

      // What counts twice is not repeated, and is not called a cancellation.
      WardrobeClient only = client.at(own.target());
      own.asked.clear();
      own.failures.add(Status.CANCELLED.asRuntimeException());
      CallError gone = refusal(() -> only.rollbackAlias("sql", "prod"));
      assertThat(gone.code()).isEqualTo(Status.Code.UNAVAILABLE);
      assertThat(gone.message()).contains("ask again");
      assertThat(own.asked).hasSize(1);
    }
  }

  @Test
  void serverThatGoesDown_leavesItsCallsToAnother() throws Exception {
    try (FakeServer a = new FakeServer();
        FakeServer b = new FakeServer();
        WardrobeClient client =
            WardrobeClient.builder(a.target(), b.target()).onFailover(_ -> {}).build()) {
      boolean first = client.targets("sql").getFirst().equals(a.target());
      FakeServer own = first ? a : b;
      own.holding = true;
      CompletableFuture<String> text =
          CompletableFuture.supplyAsync(() -> client.generate(to("sql")).getText());
      assertThat(own.held.await(30, TimeUnit.SECONDS)).isTrue();
      own.stop();
      assertThat(text.get(30, TimeUnit.SECONDS)).isEqualTo("whole");
    }
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target());
        AnswerStream answer = client.stream(HELLO.toBuilder().setPrompt("endless").build())) {
      assertThat(answer.next().getDelta().getText()).isEqualTo("piece");
      server.stop();
      assertThat(refusal(answer::hasNext).code()).isEqualTo(Status.Code.UNAVAILABLE);
      assertThat(server.asked).hasSize(1);
    }
  }

  @Test
  void answerThatBegan_isNotBegunAgain() throws Exception {
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target());
        AnswerStream answer = client.stream(HELLO.toBuilder().setPrompt("torn").build())) {
      assertThat(answer.next().getDelta().getText()).isEqualTo("piece");
      assertThat(refusal(answer::hasNext).code()).isEqualTo(Status.Code.UNAVAILABLE);
      assertThat(server.asked).hasSize(1);
    }
  }

  @Test
  void attempts_areBounded_andOnlyForWhatMayPass() throws Exception {
    try (FakeServer server = new FakeServer();
        WardrobeClient client =
            WardrobeClient.builder(server.target()).attempts(3, Duration.ofMillis(200)).build()) {
      for (int i = 0; i < 3; i++) {
        server.failures.add(FakeServer.busy(1));
      }
      CallError busy = refusal(() -> client.generate(HELLO));
      assertThat(busy.code()).isEqualTo(Status.Code.RESOURCE_EXHAUSTED);
      assertThat(busy.message()).isEqualTo("the queue is full");
      assertThat(busy.retryAfter()).isEqualTo(Duration.ofMillis(1));
      assertThat(busy.details()).hasSize(1);
      assertThat(server.asked).hasSize(3);

      // For longer than we would wait; without a word of when; and what will not pass.
      for (Throwable failure :
          List.of(
              FakeServer.busy(900),
              Status.RESOURCE_EXHAUSTED.asRuntimeException(),
              Status.INVALID_ARGUMENT.asRuntimeException(),
              Status.DEADLINE_EXCEEDED.asRuntimeException())) {
        server.asked.clear();
        server.failures.add(failure);
        refusal(() -> client.generate(HELLO));
        assertThat(server.asked).as(failure.toString()).hasSize(1);
      }
    }
  }

  @Test
  void changesThatCountTwice_areRepeatedOnlyIfTheServerTookNothing() throws Exception {
    Files.writeString(folder.resolve("adapter_config.json"), "{}");
    Files.write(folder.resolve("adapter_model.safetensors"), new byte[3 << 20]);
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target())) {
      server.failures.add(FakeServer.unavailable());
      refusal(() -> client.rollbackAlias("sql", "prod"));
      assertThat(server.asked).hasSize(1);
      server.failures.add(FakeServer.busy(1));
      client.rollbackAlias("sql", "prod");
      assertThat(server.asked).hasSize(3);

      PublishAdapterRequest.Header any =
          PublishAdapterRequest.Header.newBuilder().setName("sql").build();
      server.asked.clear();
      server.failures.add(FakeServer.unavailable());
      assertThatThrownBy(() -> client.publishAdapter(any, folder))
          .isInstanceOf(StatusRuntimeException.class);
      assertThat(server.asked).hasSize(1);

      PublishAdapterRequest.Header exact =
          any.toBuilder().setVersion("3").setDigest("sha256:" + "0".repeat(64)).build();
      server.asked.clear();
      server.failures.add(FakeServer.unavailable());
      List<Long> sent = new ArrayList<>();
      assertThat(
              client
                  .publishAdapter(exact, folder, (bytes, _) -> sent.add(bytes))
                  .getAdapter()
                  .getBytes())
          .isEqualTo(3 << 20);
      assertThat(server.asked).hasSize(2);
      assertThat(sent).endsWith(3L << 20).hasSizeGreaterThan(3);
    }
  }

  @Test
  void deadline_endsAttemptsAndAnswers() throws Exception {
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target())) {
      WardrobeClient hasty = client.withDeadline(Duration.ofMillis(300));
      try (AnswerStream answer = hasty.stream(HELLO.toBuilder().setPrompt("endless").build())) {
        assertThat(answer.next().getDelta().getText()).isEqualTo("piece");
        assertThat(refusal(answer::hasNext).code()).isEqualTo(Status.Code.DEADLINE_EXCEEDED);
      }
      // A wait that would end after the deadline is not begun.
      server.asked.clear();
      server.failures.add(FakeServer.busy(800));
      assertThat(refusal(() -> hasty.generate(HELLO)).retryAfter()).isNotNull();
      assertThat(server.asked).hasSize(1);
    }
  }

  @Test
  void closedStream_endsOnTheServer() throws Exception {
    try (FakeServer server = new FakeServer();
        WardrobeClient client = WardrobeClient.connect(server.target())) {
      AnswerStream answer = client.stream(HELLO.toBuilder().setPrompt("endless").build());
      assertThat(answer.next().getDelta().getText()).isEqualTo("piece");
      answer.close();
      assertThat(server.cancelled.await(30, TimeUnit.SECONDS)).isTrue();
      assertThat(refusal(answer::hasNext).code()).isEqualTo(Status.Code.CANCELLED);
      assertThat(server.asked).hasSize(1);
    }
  }

  @Test
  void adapters_haveTheirServer_andMoveOnlyWhenItIsGone() throws Exception {
    try (FakeServer a = new FakeServer();
        FakeServer b = new FakeServer();
        FakeServer c = new FakeServer()) {
      List<FakeServer> servers = List.of(a, b, c);
      List<Failover> told = new ArrayList<>();
      try (WardrobeClient client =
          WardrobeClient.builder(a.target(), b.target(), c.target())
              .onFailover(told::add)
              .build()) {
        for (int i = 0; i < 30; i++) {
          String name = "adapter-" + i;
          client.generate(to(name));
          client.generate(to(name + "@prod"));
          client.generate(to(name + "@7"));
          assertThat(servers.stream().filter(s -> s.asked.contains(name))).hasSize(1);
          FakeServer home =
              servers.stream().filter(s -> s.asked.contains(name)).findFirst().orElseThrow();
          assertThat(home.asked).contains(name + "@prod", name + "@7");
          assertThat(client.targets(name).getFirst()).isEqualTo(home.target());
        }
        // Each has some: that one of three has none of 30 is a chance of 1 in 60,000, and the
        // ports are all that is drawn.
        assertThat(servers).allSatisfy(server -> assertThat(server.asked).isNotEmpty());
        assertThat(told).isEmpty();

        // The base goes round.
        servers.forEach(server -> server.asked.clear());
        for (int i = 0; i < 6; i++) {
          client.generate(HELLO);
        }
        assertThat(servers).allSatisfy(server -> assertThat(server.asked).hasSize(2));

        servers.forEach(server -> server.asked.clear());
        b.stop();
        for (int i = 0; i < 30; i++) {
          List<String> order = client.targets("adapter-" + i);
          client.generate(to("adapter-" + i));
          FakeServer expected =
              servers.stream()
                  .filter(
                      s ->
                          s.target()
                              .equals(
                                  order.stream()
                                      .filter(t -> !t.equals(b.target()))
                                      .findFirst()
                                      .orElseThrow()))
                  .findFirst()
                  .orElseThrow();
          assertThat(expected.asked).contains("adapter-" + i);
        }
        assertThat(told)
            .isNotEmpty()
            .allSatisfy(event -> assertThat(event.from()).isEqualTo(b.target()));
        assertThat(told.getFirst().toString()).contains("does not answer", "instead");

        // One of them, by name.
        a.asked.clear();
        client.at(a.target()).generate(to("adapter-1"));
        assertThat(a.asked).containsExactly("adapter-1");
        assertThatThrownBy(() -> client.at("nowhere:1")).hasMessageContaining("nowhere:1");
      }
    }
  }

  @Test
  void apiKey_isSent_andNeverShown() throws Exception {
    Path file = Files.writeString(folder.resolve("key"), "wd-secret-2\n");
    try (FakeServer server = new FakeServer()) {
      WardrobeClient.Builder builder =
          WardrobeClient.builder(server.target()).apiKey("wd-secret-1");
      try (WardrobeClient client = builder.build();
          WardrobeClient second =
              WardrobeClient.builder(server.target()).apiKeyFile(file).build()) {
        client.generate(HELLO);
        second.generate(HELLO);
        assertThat(server.keys).containsExactly("Bearer wd-secret-1", "Bearer wd-secret-2");
        assertThat(client + " " + builder + new ApiKey("wd-secret-3")).doesNotContain("wd-secret");
      }
    }
    assertThatThrownBy(() -> WardrobeClient.builder("a:1").apiKey("wd-secret\nHost: x"))
        .hasMessageContaining("API key: expected")
        .hasMessageNotContaining("wd-secret");
    assertThatThrownBy(() -> WardrobeClient.builder("a:1").apiKeyFile(folder.resolve("none")))
        .isInstanceOf(IOException.class);
  }

  @Test
  void builder_refusesWhatCannotBe() {
    assertThatThrownBy(WardrobeClient::builder).hasMessageContaining("at least one");
    assertThatThrownBy(() -> WardrobeClient.builder("a:1", "a:1")).hasMessageContaining("once");
    assertThatThrownBy(() -> WardrobeClient.builder("http://a:1"))
        .hasMessageContaining("HOST:PORT");
    assertThatThrownBy(() -> WardrobeClient.builder("a:1").deadline(Duration.ZERO))
        .hasMessageContaining("deadline");
    assertThatThrownBy(() -> WardrobeClient.builder("a:1").attempts(0, Duration.ZERO))
        .hasMessageContaining("attempts");
    Path none = folder.resolve("none.pem");
    assertThatThrownBy(() -> WardrobeClient.builder("a:1").tls(none).build())
        .hasMessageContaining("none.pem");
  }

  @Test
  void tls_checksTheServer_andSaysWhoWeAre() throws Exception {
    Pem server = pem("localhost");
    Pem ours = pem("client");
    try (FakeServer fake =
        new FakeServer(
            TlsServerCredentials.newBuilder()
                .keyManager(server.chain().toFile(), server.key().toFile())
                .trustManager(ours.chain().toFile())
                .clientAuth(TlsServerCredentials.ClientAuth.REQUIRE)
                .build())) {
      try (WardrobeClient client =
          WardrobeClient.builder(fake.target())
              .tls(server.chain())
              .tlsCertificate(ours.chain(), ours.key())
              .build()) {
        assertThat(client.generate(HELLO).getText()).isEqualTo("whole");
      }
      for (WardrobeClient.Builder wrong :
          List.of(
              WardrobeClient.builder(fake.target()),
              WardrobeClient.builder(fake.target()).tls(),
              WardrobeClient.builder(fake.target()).tls(server.chain()))) {
        try (WardrobeClient client = wrong.attempts(1, Duration.ZERO).build()) {
          assertThat(refusal(() -> client.generate(HELLO)).code())
              .isEqualTo(Status.Code.UNAVAILABLE);
        }
      }
      assertThat(fake.asked).hasSize(1);
    }
  }

  private record Pem(Path chain, Path key) {}

  /** A certificate that signs itself, and its key, by the JDK's keytool. */
  private Pem pem(String name) throws Exception {
    Path store = folder.resolve(name + ".p12");
    Path chain = folder.resolve(name + ".pem");
    Path key = folder.resolve(name + ".key");
    String tool = Path.of(System.getProperty("java.home"), "bin", "keytool").toString();
    List<String> common =
        List.of("-keystore", store.toString(), "-storepass", "password", "-alias", name);
    for (List<String> words :
        List.of(
            List.of(
                "-genkeypair",
                "-keyalg",
                "EC",
                "-dname",
                "CN=" + name,
                "-validity",
                "2",
                "-ext",
                "san=ip:127.0.0.1,dns:localhost"),
            List.of("-exportcert", "-rfc", "-file", chain.toString()))) {
      List<String> command = new ArrayList<>(List.of(tool));
      command.addAll(words);
      command.addAll(common);
      Process process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(folder.resolve(name + ".log").toFile())
              .start();
      assertThat(process.waitFor()).isZero();
    }
    KeyStore keys = KeyStore.getInstance(store.toFile(), "password".toCharArray());
    byte[] encoded = keys.getKey(name, "password".toCharArray()).getEncoded();
    Files.writeString(
        key,
        "-----BEGIN PRIVATE KEY-----\n"
            + Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(encoded)
            + "\n-----END PRIVATE KEY-----\n");
    return new Pem(chain, key);
  }
}
