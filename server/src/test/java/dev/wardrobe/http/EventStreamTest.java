package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import io.vertx.core.Vertx;
import io.vertx.core.http.HttpServer;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.ref.WeakReference;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Streams that wait, that end, and whose readers leave. */
@Timeout(60)
final class EventStreamTest {
  private final Vertx vertx = Vertx.vertx();

  @AfterEach
  void stop() throws Exception {
    vertx.close().toCompletionStage().toCompletableFuture().get(20, TimeUnit.SECONDS);
  }

  /** Where {@code handler} answers. */
  private URI serve(Consumer<RoutingContext> handler) throws Exception {
    Router router = Router.router(vertx);
    router.route().handler(handler::accept);
    HttpServer server =
        vertx
            .createHttpServer()
            .requestHandler(router)
            .listen(0, "127.0.0.1")
            .toCompletionStage()
            .toCompletableFuture()
            .get(20, TimeUnit.SECONDS);
    return URI.create("http://127.0.0.1:" + server.actualPort());
  }

  @ParameterizedTest
  @EnumSource(HttpClient.Version.class)
  void ended_keepsNothing(HttpClient.Version version) throws Exception {
    AtomicReference<WeakReference<RoutingContext>> last =
        new AtomicReference<>(new WeakReference<>(null));
    AtomicInteger answered = new AtomicInteger();
    URI uri =
        serve(
            context -> {
              if (answered.getAndIncrement() > 0) {
                // Of the latest request a connection may know until the next.
                context.response().end();
                return;
              }
              last.set(new WeakReference<>(context));
              // With the heartbeat that there is, which is longer than this test waits.
              EventStream stream = new EventStream(new Exchange(context));
              stream.post(
                  () -> {
                    stream.beat();
                    stream.send("{}");
                    stream.end();
                  });
            });
    try (HttpClient client = HttpClient.newBuilder().version(version).build()) {
      HttpRequest request = HttpRequest.newBuilder(uri).build();
      assertThat(client.send(request, HttpResponse.BodyHandlers.ofString()).body())
          .isEqualTo("data: {}\n\n");
      client.send(request, HttpResponse.BodyHandlers.ofString());
      await()
          .atMost(5, TimeUnit.SECONDS)
          .until(
              () -> {
                System.gc();
                return last.get().refersTo(null);
              });
    }
  }

  @Test
  void waiting_saysSoAgainAndAgain() throws Exception {
    URI uri =
        serve(
            context -> {
              EventStream stream = new EventStream(new Exchange(context), 50);
              stream.post(stream::beat);
              stream.post(stream::beat);
              vertx.setTimer(
                  1000,
                  _ -> {
                    stream.send("{}");
                    stream.end();
                  });
            });
    try (HttpClient client = HttpClient.newHttpClient()) {
      String body =
          client
              .send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString())
              .body();
      assertThat(body).matches("(: waiting\\n\\n){2,20}data: \\{}\\n\\n");
    }
  }

  /** Who cancels what nobody reads hears of it, though the stream beats. */
  @ParameterizedTest
  @EnumSource(HttpClient.Version.class)
  void leftByItsReader_tellsSo(HttpClient.Version version) throws Exception {
    AtomicInteger gone = new AtomicInteger();
    URI uri =
        serve(
            context -> {
              Exchange exchange = new Exchange(context);
              exchange.onGone(gone::incrementAndGet);
              EventStream stream = new EventStream(exchange);
              stream.post(
                  () -> {
                    stream.beat();
                    stream.send("{}");
                  });
            });
    HttpClient client = HttpClient.newBuilder().version(version).build();
    HttpResponse<InputStream> response =
        client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofInputStream());
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8))) {
      assertThat(reader.readLine()).isEqualTo("data: {}");
    }
    client.shutdownNow();
    await().atMost(20, TimeUnit.SECONDS).until(() -> gone.get() == 1);
  }
}
