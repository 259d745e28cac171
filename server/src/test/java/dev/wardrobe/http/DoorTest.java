package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
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
import io.grpc.ManagedChannel;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Who gets as far as a route: by address, by name, by site, and by certificate. */
final class DoorTest {
  private static final char[] PASSWORD = "password".toCharArray();

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

  private void serve(FrontOptions options) throws IOException {
    HttpFrontend serving = new HttpFrontend(served(), List.of(), options);
    frontend = serving;
    port = serving.listen("127.0.0.1", 0);
  }

  /** Nothing behind the door. */
  private Served served() {
    AdapterRegistry adapters;
    try {
      adapters = new AdapterRegistry(null, null, List.of(), AdapterOptions.DEFAULT, workers);
    } catch (AdapterException e) {
      throw new IllegalStateException(e);
    }
    return new Served(
        null,
        null,
        adapters,
        null,
        workers,
        ModelInfoResponse::getDefaultInstance,
        new Telemetry("", null, adapters, ModelInfoResponse::getDefaultInstance));
  }

  private static FrontOptions options(List<String> origins, List<String> hosts) {
    return new FrontOptions(
        null, null, false, false, origins, hosts, FrontOptions.DEFAULT_MAX_CONNECTIONS);
  }

  /** The whole answer to a request that is written out. */
  private String send(String request) throws IOException {
    try (Socket socket = new Socket("127.0.0.1", port)) {
      socket.setSoTimeout(20_000);
      socket
          .getOutputStream()
          .write(
              (request.replace("\n", "\r\n") + "Connection: close\r\nContent-Length: 0\r\n\r\n")
                  .getBytes(StandardCharsets.ISO_8859_1));
      return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }
  }

  private static int status(String answer) {
    return Integer.parseInt(answer.substring(9, 12));
  }

  @ParameterizedTest
  @CsvSource({
    "localhost, 404",
    "localhost:7070, 404",
    "LocalHost, 404",
    "a.localhost:7070, 404",
    "127.0.0.1, 404",
    "127.1.2.3:80, 404",
    "[::1]:7070, 404",
    "evil.example, 403",
    "evil.example:7070, 403",
    "localhost.evil.example, 403",
    "127.0.0.1.evil.example, 403",
    "10.0.0.1, 403",
    "evil.example:, 403",
    "allowed.example, 404",
    "ALLOWED.example:8080, 404",
  })
  void withoutKeys_onlyLoopbackNamesAreAnswered(String host, int status) throws IOException {
    serve(options(List.of(), List.of("allowed.example")));
    String answer = send("GET /nothing HTTP/1.1\nHost: " + host + "\n");
    assertThat(status(answer)).as(answer).isEqualTo(status);
    if (status == 403) {
      assertThat(answer).contains("host: expected localhost", "--allow-host");
    }
  }

  @ParameterizedTest
  @CsvSource({
    "POST, Origin: https://evil.example, 403",
    "POST, Origin: null, 403",
    "POST, Origin: http://localhost:9999, 403",
    "POST, Origin: http://localhost, 403",
    "DELETE, Origin: https://evil.example, 403",
    "POST, Sec-Fetch-Site: cross-site, 403",
    "POST, Sec-Fetch-Site: same-site, 403",
    "POST, Sec-Fetch-Site: same-origin, 404",
    "POST, Origin: http://localhost:7070, 404",
    "POST, Origin: https://localhost:7070, 404",
    "POST, X-Nothing: x, 404",
    "GET, Origin: https://evil.example, 404",
    "POST, Origin: https://chat.example, 404",
    "POST, Origin: https://chat.example.evil, 403",
    "POST, Origin: http://chat.example, 403",
  })
  void otherSites_changeNothing(String method, String header, int status) throws IOException {
    serve(options(List.of("https://chat.example"), List.of()));
    String answer = send(method + " /nothing HTTP/1.1\nHost: localhost:7070\n" + header + "\n");
    assertThat(status(answer)).as(answer).isEqualTo(status);
    if (status == 403) {
      assertThat(answer).contains("--cors-origin");
    }
    assertThat(answer.contains("access-control-allow-origin: https://chat.example"))
        .isEqualTo(header.endsWith("https://chat.example"));
  }

  @Test
  void cors_isOffUnlessAskedFor() throws IOException {
    String preflight =
        "OPTIONS /v1/chat/completions HTTP/1.1\nHost: localhost\nOrigin: https://chat.example\n"
            + "Access-Control-Request-Method: POST\n"
            + "Access-Control-Request-Headers: authorization, x-stainless-os\n";
    serve(options(List.of(), List.of()));
    assertThat(send(preflight)).doesNotContain("access-control").startsWith("HTTP/1.1 403");
    assertThat(frontend).isNotNull();
    frontend.close();
    serve(options(List.of("https://chat.example"), List.of()));
    assertThat(send(preflight))
        .startsWith("HTTP/1.1 204")
        .contains("access-control-allow-origin: https://chat.example")
        .contains("access-control-allow-headers: authorization, x-stainless-os")
        .doesNotContain("access-control-allow-credentials");
    assertThat(send(preflight.replace("https://chat", "https://evil")))
        .startsWith("HTTP/1.1 403")
        .doesNotContain("access-control-allow");
  }

  @ParameterizedTest
  @ValueSource(strings = {"0.0.0.0", "::", "192.0.2.7"})
  void networks_takeKeysAndEncryption(String host) throws Exception {
    FrontOptions open = options(List.of(), List.of());
    assertThatThrownBy(() -> open.check(host))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("--keys FILE")
        .hasMessageContaining("--insecure");
    Keys keys = keys();
    FrontOptions.Tls tls = new FrontOptions.Tls(dir, dir, null);
    assertThatThrownBy(() -> with(keys, null, false).check(host))
        .hasMessageContaining("unencrypted")
        .hasMessageContaining("--tls-cert");
    assertThatThrownBy(() -> with(null, tls, false).check(host)).hasMessageContaining("--keys");
    assertThat(with(keys, tls, false).check(host)).isNull();
    assertThat(with(null, new FrontOptions.Tls(dir, dir, dir), false).check(host)).isNull();
    assertThat(with(null, null, true).check(host)).startsWith("INSECURE: everybody");
    assertThat(with(keys, null, true).check(host)).startsWith("INSECURE: keys and texts pass");
    assertThat(open.check("127.0.0.1")).contains("alone, without keys");
    assertThat(open.check("::1")).contains("alone, without keys");
  }

  private static FrontOptions with(
      @Nullable Keys keys, FrontOptions.@Nullable Tls tls, boolean insecure) {
    return new FrontOptions(
        keys, tls, insecure, false, List.of(), List.of(), FrontOptions.DEFAULT_MAX_CONNECTIONS);
  }

  private String key = "";

  private Keys keys() throws Exception {
    Path path = dir.resolve("keys.jsonl");
    KeyFile file = new KeyFile(path);
    key = ApiKey.create();
    file.add(Grant.ofKey(key, "admin", "ops", Set.of(Scope.ADMIN), List.of("*"), null));
    file.add(
        Grant.ofCertificate("gateway", "gateway", "acme", Set.of(Scope.ADMIN), List.of("*"), null));
    return Keys.open(path);
  }

  @Test
  void networks_areNotListenedToEither() {
    assertThatThrownBy(
            () -> {
              HttpFrontend serving = new HttpFrontend(served(), List.of());
              frontend = serving;
              serving.listen("0.0.0.0", 0);
            })
        .isInstanceOf(IOException.class)
        .hasMessageContaining("--host: 0.0.0.0 can be reached from other machines");
  }

  // Encryption

  /** A certificate of its own, in PEM form beside its key. */
  private record Identity(Path store, Path certificate, Path key) {}

  private Identity identity(String name) throws Exception {
    Path store = dir.resolve(name + ".p12");
    Files.deleteIfExists(store);
    Process keytool =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                "-genkeypair",
                "-keyalg",
                "EC",
                "-alias",
                name,
                "-dname",
                "CN=" + name,
                "-ext",
                "san=ip:127.0.0.1,dns:localhost",
                "-storetype",
                "PKCS12",
                "-keystore",
                store.toString(),
                "-storepass",
                new String(PASSWORD))
            .redirectErrorStream(true)
            .start();
    try (BufferedReader out =
        new BufferedReader(
            new InputStreamReader(keytool.getInputStream(), StandardCharsets.UTF_8))) {
      assertThat(out.lines().toList()).isNotNull();
    }
    assertThat(keytool.waitFor()).isZero();
    KeyStore loaded = KeyStore.getInstance(store.toFile(), PASSWORD);
    Path certificate = dir.resolve(name + ".crt");
    Path key = dir.resolve(name + ".key");
    write(certificate, "CERTIFICATE", loaded.getCertificate(name).getEncoded());
    write(key, "PRIVATE KEY", loaded.getKey(name, PASSWORD).getEncoded());
    return new Identity(store, certificate, key);
  }

  private static void write(Path path, String kind, byte[] bytes) throws IOException {
    Files.writeString(
        path,
        "-----BEGIN %s-----\n%s\n-----END %s-----\n"
            .formatted(
                kind, Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(bytes), kind));
  }

  private HttpClient client(Identity server, @Nullable Identity own) throws Exception {
    KeyStore trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, null);
    trusted.setCertificateEntry("server", certificate(server));
    TrustManagerFactory trust =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    if (own != null) {
      keys.init(KeyStore.getInstance(own.store().toFile(), PASSWORD), PASSWORD);
    }
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(own == null ? null : keys.getKeyManagers(), trust.getTrustManagers(), null);
    return HttpClient.newBuilder().sslContext(context).build();
  }

  private static X509Certificate certificate(Identity identity) throws Exception {
    try (var in = Files.newInputStream(identity.certificate())) {
      return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
    }
  }

  private HttpResponse<String> get(HttpClient client, String... headers) throws Exception {
    HttpRequest.Builder request =
        HttpRequest.newBuilder(URI.create("https://127.0.0.1:" + port + "/nothing"));
    if (headers.length > 0) {
      request.headers(headers);
    }
    return client.send(request.build(), HttpResponse.BodyHandlers.ofString());
  }

  @Test
  void tls_speaksBothVersionsOfHttpAndGrpc() throws Exception {
    Identity server = identity("server");
    serve(with(keys(), new FrontOptions.Tls(server.certificate(), server.key(), null), false));
    HttpResponse<String> answer = get(client(server, null), "api-key", key);
    assertThat(answer.statusCode()).isEqualTo(404);
    assertThat(answer.version()).isEqualTo(HttpClient.Version.HTTP_2);
    HttpRequest old =
        HttpRequest.newBuilder(URI.create("https://127.0.0.1:" + port + "/nothing"))
            .version(HttpClient.Version.HTTP_1_1)
            .build();
    assertThat(client(server, null).send(old, HttpResponse.BodyHandlers.ofString()).statusCode())
        .isEqualTo(401);
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", port)
            .sslContext(
                GrpcSslContexts.forClient().trustManager(server.certificate().toFile()).build())
            .build();
    try {
      // Nobody has to show a key for it; that there is no engine is not the door's business.
      assertThatThrownBy(
              () ->
                  ClientCalls.blockingUnaryCall(
                      channel,
                      HealthGrpc.getCheckMethod(),
                      io.grpc.CallOptions.DEFAULT,
                      HealthCheckRequest.newBuilder().setService("unknown").build()))
          .hasMessageContaining("NOT_FOUND");
    } finally {
      channel.shutdownNow();
    }
    assertThat(send("GET /nothing HTTP/1.1\nHost: localhost\n")).doesNotContain("HTTP");
  }

  @Test
  void certificates_areAskedForAndNamed() throws Exception {
    Identity server = identity("server");
    Identity gateway = identity("gateway");
    Identity stranger = identity("stranger");
    serve(
        with(
            null,
            new FrontOptions.Tls(server.certificate(), server.key(), gateway.certificate()),
            false));
    assertThat(get(client(server, gateway)).statusCode()).isEqualTo(404);
    assertThatThrownBy(() -> get(client(server, null))).isInstanceOf(IOException.class);
    assertThatThrownBy(() -> get(client(server, stranger))).isInstanceOf(IOException.class);
  }

  @Test
  void certificates_besideKeys_needAName() throws Exception {
    Identity server = identity("server");
    Identity gateway = identity("gateway");
    Identity stranger = identity("stranger");
    Path both = dir.resolve("both.crt");
    Files.writeString(
        both, Files.readString(gateway.certificate()) + Files.readString(stranger.certificate()));
    serve(with(keys(), new FrontOptions.Tls(server.certificate(), server.key(), both), false));
    assertThat(get(client(server, gateway)).statusCode()).isEqualTo(404);
    HttpResponse<String> refused = get(client(server, stranger));
    assertThat(refused.statusCode()).isEqualTo(401);
    assertThat(refused.body()).contains("whose name is not");
    assertThat(get(client(server, null)).statusCode()).isEqualTo(401);
    assertThat(get(client(server, null), "api-key", key).statusCode()).isEqualTo(404);
  }

  @Test
  void certificate_isReadAgain_andABadOneIsNot() throws Exception {
    Identity first = identity("server");
    HttpClient old = client(first, null);
    serve(with(keys(), new FrontOptions.Tls(first.certificate(), first.key(), null), false));
    assertThat(get(old).statusCode()).isEqualTo(401);
    Files.writeString(first.certificate(), "no certificate");
    Identity other = identity("other");
    await()
        .during(2, TimeUnit.SECONDS)
        .atMost(20, TimeUnit.SECONDS)
        .until(() -> get(old).statusCode() == 401);
    Files.copy(other.key(), first.key(), StandardCopyOption.REPLACE_EXISTING);
    Files.copy(other.certificate(), first.certificate(), StandardCopyOption.REPLACE_EXISTING);
    await()
        .ignoreExceptions()
        .atMost(20, TimeUnit.SECONDS)
        .until(() -> get(client(other, null)).statusCode() == 401);
  }

  @Test
  void tls_sayWhatIsWrongWithItsFiles() throws Exception {
    Identity server = identity("server");
    Identity other = identity("other");
    assertThatThrownBy(
            () ->
                serve(
                    with(
                        null,
                        new FrontOptions.Tls(server.certificate(), other.key(), null),
                        false)))
        .hasMessageContaining("--tls-key: expected the key of the certificate in");
    assertThat(frontend).isNotNull();
    frontend.close();
    assertThatThrownBy(
            () -> serve(with(null, new FrontOptions.Tls(server.key(), server.key(), null), false)))
        .hasMessageContaining("PEM form, got something else");
  }

  /** There is no engine to look at, which nobody foresaw. */
  @Test
  void whatNobodyForesaw_isInTheLog_notInTheAnswer() throws IOException {
    serve(options(List.of(), List.of()));
    String answer = send("GET /debug/state HTTP/1.1\nHost: localhost\nX-Request-Id: mine-7\n");
    assertThat(status(answer)).isEqualTo(500);
    assertThat(answer)
        .contains("the server failed; its log says why, under request mine-7")
        .doesNotContain("because", "Engine");
  }

  // Limits

  @Test
  void headers_areBounded() throws IOException {
    serve(options(List.of(), List.of()));
    String answer =
        send("GET /nothing HTTP/1.1\nHost: localhost\nX-Long: " + "x".repeat(20_000) + "\n");
    assertThat(status(answer)).isEqualTo(431);
  }

  @Test
  void connections_areBounded() throws Exception {
    serve(new FrontOptions(null, null, false, false, List.of(), List.of(), 2));
    String request = "GET /nothing HTTP/1.1\nHost: localhost\n";
    try (Socket first = new Socket("127.0.0.1", port);
        Socket second = new Socket("127.0.0.1", port)) {
      for (Socket socket : List.of(first, second)) {
        // What has said nothing yet is no connection of HTTP's.
        socket
            .getOutputStream()
            .write(
                "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    .getBytes(StandardCharsets.US_ASCII));
        assertThat(socket.getInputStream().read()).isEqualTo('H');
      }
      await().atMost(20, TimeUnit.SECONDS).until(() -> status(send(request)) == 503);
      assertThat(send(request)).contains("expected at most 2 connections, got more");
    }
    await().atMost(20, TimeUnit.SECONDS).until(() -> status(send(request)) == 404);
  }
}
