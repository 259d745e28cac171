package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.tenant.ApiKey;
import dev.wardrobe.tenant.Grant;
import dev.wardrobe.tenant.KeyFile;
import dev.wardrobe.tenant.Keys;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.v1.ModelInfoResponse;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** How many uploads there may be at once. None of them is ever complete. */
@Timeout(120)
final class UploadRoutesTest {
  @TempDir private Path folder;

  private final ExecutorService workers = Executors.newFixedThreadPool(2);
  private final List<Socket> sockets = new ArrayList<>();
  private AdapterStore store;
  private AdapterRegistry adapters;
  private @Nullable HttpFrontend frontend;
  private int port;

  @BeforeEach
  void open() throws Exception {
    store = AdapterStore.open(folder.resolve("store"), StoreOptions.DEFAULT);
    adapters = new AdapterRegistry(null, null, List.of(), store, AdapterOptions.DEFAULT, workers);
  }

  @AfterEach
  void close() throws Exception {
    for (Socket socket : sockets) {
      socket.close();
    }
    if (frontend != null) {
      frontend.close();
    }
    adapters.close();
    store.close();
    workers.shutdownNow();
  }

  private void serve(@Nullable Keys keys) throws IOException {
    HttpFrontend serving =
        new HttpFrontend(
            new Served(
                null,
                null,
                adapters,
                null,
                workers,
                ModelInfoResponse::getDefaultInstance,
                new Telemetry("", null, adapters, ModelInfoResponse::getDefaultInstance)),
            List.of(),
            new FrontOptions(
                keys,
                null,
                false,
                false,
                List.of(),
                List.of(),
                FrontOptions.DEFAULT_MAX_CONNECTIONS));
    frontend = serving;
    port = serving.listen("127.0.0.1", 0);
  }

  private String key(String id, String tenant) throws Exception {
    String key = ApiKey.create();
    new KeyFile(folder.resolve("keys.jsonl"))
        .add(Grant.ofKey(key, id, tenant, Set.of(Scope.ADAPTERS), List.of("*"), null));
    return key;
  }

  /** Begins uploads that do not go on. */
  private List<Socket> begin(int count, String key) throws IOException {
    List<Socket> begun = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      Socket socket = new Socket("127.0.0.1", port);
      socket.setSoTimeout(20_000);
      sockets.add(socket);
      begun.add(socket);
      String head =
          "POST /v1/adapters:upload?name=x HTTP/1.1\r\nHost: localhost\r\napi-key: %s\r\n"
                  .formatted(key)
              + "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x";
      socket.getOutputStream().write(head.getBytes(StandardCharsets.US_ASCII));
    }
    return begun;
  }

  private static List<Socket> answered(List<Socket> asking) throws IOException {
    List<Socket> answered = new ArrayList<>();
    for (Socket socket : asking) {
      if (socket.getInputStream().available() > 0) {
        answered.add(socket);
      }
    }
    return answered;
  }

  private static String answer(Socket socket) throws IOException {
    byte[] bytes = new byte[4096];
    int length = socket.getInputStream().read(bytes);
    return new String(bytes, 0, Math.max(0, length), StandardCharsets.UTF_8);
  }

  private static void onlyOneIsRefused(List<Socket> asking, String why) throws IOException {
    await().atMost(20, TimeUnit.SECONDS).until(() -> !answered(asking).isEmpty());
    await()
        .during(500, TimeUnit.MILLISECONDS)
        .atMost(20, TimeUnit.SECONDS)
        .until(() -> answered(asking).size() == 1);
    assertThat(answer(answered(asking).getFirst())).startsWith("HTTP/1.1 429").contains(why);
  }

  @Test
  void uploads_areBounded() throws Exception {
    serve(null);
    onlyOneIsRefused(begin(9, ""), "expected at most 8 uploads at once, got another");
  }

  @Test
  void uploads_ofATenant_leaveRoomForOthers() throws Exception {
    String acme = key("acme-1", "acme");
    String globex = key("globex-1", "globex");
    serve(Keys.open(folder.resolve("keys.jsonl")));
    List<Socket> first = begin(3, acme);
    onlyOneIsRefused(first, "expected at most 2 uploads of a tenant at once, got another");
    onlyOneIsRefused(begin(3, globex), "of a tenant");
    for (Socket socket : first) {
      socket.close();
    }
    // Those places are free again.
    await()
        .atMost(20, TimeUnit.SECONDS)
        .until(
            () -> {
              List<Socket> again = begin(1, acme);
              TimeUnit.MILLISECONDS.sleep(300);
              return answered(again).isEmpty();
            });
  }

  @Test
  void anUpload_endsWithItsKey() throws Exception {
    String acme = key("acme-1", "acme");
    serve(Keys.open(folder.resolve("keys.jsonl")));
    List<Socket> begun = begin(1, acme);
    new KeyFile(folder.resolve("keys.jsonl")).remove("acme-1");
    assertThat(answer(begun.getFirst())).startsWith("HTTP/1.1 401").contains("that was revoked");
  }
}
