package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.Announcement;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.Publication;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** OpenAI's API of a server with too much to do, or too little time; and of published versions. */
@Timeout(120)
final class OpenAiLimitsTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo");
  private static final String LONG =
      "{\"prompt\": \"The\", \"max_tokens\": 400, \"ignore_eos\": true, \"n\": 32, \"stream\": %s}";

  @TempDir private Path folder;

  private @Nullable Stack stack;
  private @Nullable HttpFrontend frontend;
  private @Nullable OpenAiClient client;

  private Stack serve(@Nullable Duration longest) throws Exception {
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new picocli.CommandLine(arguments).parseArgs("--model", DEMO.resolve("base").toString());
    Stack serving =
        new Stack(
            arguments,
            List.of(DEMO.resolve("adapters")),
            folder.resolve("store"),
            AdapterOptions.DEFAULT,
            UnaryOperator.identity(),
            new Stack.Terms(false, longest));
    stack = serving;
    HttpFrontend port = serving.frontend(List.of());
    frontend = port;
    client = new OpenAiClient(port.listen("127.0.0.1", 0));
    return serving;
  }

  @AfterEach
  void stop() throws IOException {
    if (client != null) {
      client.close();
    }
    if (frontend != null) {
      frontend.close();
    }
    if (stack != null) {
      stack.close();
    }
  }

  private OpenAiClient.Answer ask(String body) throws Exception {
    assertThat(client).isNotNull();
    return client.ask("/v1/completions", body);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void moreThanTheQueueHolds_isTooMuch(boolean stream) throws Exception {
    Stack serving = serve(null);
    String prompts = String.join(", ", Collections.nCopies(256, "\"The\""));
    OpenAiClient.Answer answer =
        ask(LONG.formatted(stream).replace("\"The\"", "[" + prompts + "]"));
    assertThat(answer.response().body()).contains("\"code\":\"overloaded\"");
    if (!stream) {
      assertThat(answer.status()).isEqualTo(429);
      assertThat(answer.error().path("type").textValue()).isEqualTo("rate_limit_error");
      assertThat(Long.parseLong(answer.header("retry-after"))).isPositive();
    }
    // What of it was taken ends, too.
    await()
        .atMost(20, TimeUnit.SECONDS)
        .until(
            () ->
                serving.engine().stats().running() == 0 && serving.engine().stats().waiting() == 0);
  }

  @Test
  void aServerThatStops_saysSo() throws Exception {
    Stack serving = serve(null);
    assertThat(serving.engine().drain(Duration.ofSeconds(20))).isTrue();
    for (boolean stream : new boolean[] {false, true}) {
      OpenAiClient.Answer answer = ask(LONG.formatted(stream));
      assertThat(answer.status()).as(answer.response().body()).isEqualTo(503);
      assertThat(answer.error().path("type").textValue()).isEqualTo("server_error");
    }
    assertThat(client).isNotNull();
    assertThat(client.get("/health").status()).isEqualTo(503);
  }

  @Test
  void whatTakesTooLong_isLate() throws Exception {
    serve(Duration.ofMillis(1));
    OpenAiClient.Answer answer = ask(LONG.formatted(false));
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(504);
    assertThat(answer.error().path("message").textValue()).contains("the deadline passed");
    assertThat(ask(LONG.formatted(true)).response().body()).contains("the deadline passed");
  }

  @Test
  void versionsAndAliases_areModels() throws Exception {
    Stack serving = serve(null);
    for (String version : List.of("1", "2")) {
      Announcement announcement = new Announcement("returns", version, List.of(), false, null);
      String from = version.equals("1") ? "sql" : "json";
      try (Publication publication = serving.adapters().publishFrom(announcement, from)) {
        publication.finish();
      }
    }
    serving.adapters().setAlias("returns", "prod", List.of(new Catalog.Share("1", 1)), null);
    String first = digest("returns@1");
    assertThat(first).startsWith("sha256:");
    assertThat(digest("returns@prod")).isEqualTo(first);
    assertThat(digest("returns@2")).isNotEqualTo(first).isEqualTo(digest("returns@latest"));
    assertThat(client).isNotNull();
    assertThat(client.get("/v1/models").response().body())
        .contains("\"returns@1\"", "\"returns@2\"", "\"returns@prod\"");
    OpenAiClient.Answer missing =
        ask("{\"model\": \"returns@3\", \"prompt\": \"The\", \"max_tokens\": 1}");
    assertThat(missing.status()).isEqualTo(404);
    assertThat(missing.error().path("code").textValue()).isEqualTo("model_not_found");
  }

  /** What answers to a model of this name. */
  private String digest(String model) throws Exception {
    OpenAiClient.Answer answer =
        ask("{\"model\": \"%s\", \"prompt\": \"The\", \"max_tokens\": 1}".formatted(model));
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(200);
    assertThat(answer.json().path("model").textValue()).isEqualTo(model);
    String digest = answer.json().at("/wardrobe/adapters/0/digest").asText();
    assertThat(answer.header("x-wardrobe-adapter-digest")).isEqualTo(digest);
    return digest;
  }
}
