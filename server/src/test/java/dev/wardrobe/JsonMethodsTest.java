package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.api.AnnotationsProto;
import com.google.api.HttpRule;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.Announcement;
import dev.wardrobe.adapter.Publication;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.AdapterProto;
import dev.wardrobe.v1.GenerationProto;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

/** The gRPC methods as JSON over HTTP, by the paths of their annotations. */
@Timeout(120)
final class JsonMethodsTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path DEMO = HOME.resolve("models/demo/adapters");
  private static final ObjectMapper MAPPER = new ObjectMapper();

  @TempDir private static Path folder;
  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;
  private static HttpClient client;

  private record Answer(int status, JsonNode body, HttpResponse<String> response) {}

  @BeforeAll
  static void start() throws Exception {
    Path root = Files.createDirectory(folder.resolve("root"));
    for (String name : List.of("sql", "json")) {
      copy(name, root.resolve(name));
    }
    copy("pirate", root.resolve("team/pirate"));
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
    client = HttpClient.newHttpClient();
    stack.adapters().scan().join();
  }

  @AfterAll
  static void stop() throws IOException {
    client.close();
    frontend.close();
    stack.close();
  }

  private static void copy(String name, Path to) throws IOException {
    Files.createDirectories(to);
    for (String file : List.of("adapter_config.json", "adapter_model.safetensors")) {
      Files.copy(DEMO.resolve(name).resolve(file), to.resolve(file));
    }
  }

  private static Answer send(HttpRequest.Builder request) throws Exception {
    HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
    assertThat(response.headers().firstValue("content-type")).contains("application/json");
    return new Answer(response.statusCode(), MAPPER.readTree(response.body()), response);
  }

  private static HttpRequest.Builder at(String path) {
    return HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path));
  }

  private static HttpRequest.Builder posting(String path, String body) {
    return at(path).header("content-type", "application/json").POST(BodyPublishers.ofString(body));
  }

  private static JsonNode get(String path) throws Exception {
    return ok(send(at(path)));
  }

  private static JsonNode post(String path, String body) throws Exception {
    return ok(send(posting(path, body)));
  }

  private static JsonNode delete(String path) throws Exception {
    return ok(send(at(path).DELETE()));
  }

  private static JsonNode ok(Answer answer) {
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(200);
    return answer.body();
  }

  private static void refused(HttpRequest.Builder request, int http, String status, String... parts)
      throws Exception {
    Answer answer = send(request);
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(http);
    assertThat(answer.body().path("status").asText())
        .as(answer.response().body())
        .isEqualTo(status);
    assertThat(answer.body().get("code").isInt()).isTrue();
    assertThat(answer.body().get("message").asText()).contains(parts);
  }

  @Test
  void list_pageByPage() throws Exception {
    List<String> names = new ArrayList<>();
    String token = "";
    do {
      JsonNode page = get("/v1/adapters?page_size=1&page_token=" + token);
      assertThat(page.get("adapters")).hasSize(1);
      page.get("adapters").forEach(adapter -> names.add(adapter.get("name").asText()));
      // 64 bits do not fit into a number of JavaScript.
      assertThat(page.get("revision").isTextual()).isTrue();
      token = page.get("next_page_token").asText();
    } while (!token.isEmpty());
    assertThat(names).contains("json", "sql", "team/pirate").isSorted().doesNotHaveDuplicates();
    // What is false or 0 is there, too.
    assertThat(get("/v1/adapters/json").get("adapter").get("pinned").isBoolean()).isTrue();
  }

  @Test
  void load_pin_unload_ofANameWithASlash() throws Exception {
    JsonNode loaded = post("/v1/adapters/team/pirate:load", "").get("adapter");
    assertThat(loaded.get("name").asText()).isEqualTo("team/pirate");
    assertThat(loaded.get("resident").asBoolean()).isTrue();
    String digest = loaded.get("digest").asText();
    assertThat(get("/v1/adapters/team/pirate").at("/adapter/digest").asText()).isEqualTo(digest);
    assertThat(get("/v1/adapters/team%2Fpirate").at("/adapter/digest").asText()).isEqualTo(digest);
    assertThat(get("/v1/adapters/" + digest).at("/adapter/digest").asText()).isEqualTo(digest);
    assertThat(post("/v1/adapters/team/pirate:pin", "{}").at("/adapter/pinned").asBoolean())
        .isTrue();
    assertThat(post("/v1/adapters/team/pirate:unpin", "{}").at("/adapter/pinned").asBoolean())
        .isFalse();
    JsonNode unloaded = post("/v1/adapters/team/pirate:unload", "{\"name\": \"team/pirate\"}");
    assertThat(unloaded.get("digest").asText()).isEqualTo(digest);
  }

  @Test
  void load_fromAPathUnderARoot() throws Exception {
    post("/v1/adapters/second-sql:load", "{\"path\": \"sql\"}");
    assertThat(get("/v1/adapters/second-sql").at("/adapter/resident").asBoolean()).isTrue();
    post("/v1/adapters/second-sql:unload", "");
  }

  @Test
  void scan() throws Exception {
    assertThat(post("/v1/adapters:scan", "").get("adapters").asInt()).isEqualTo(3);
  }

  @Test
  void versions_aliases_rollback_delete() throws Exception {
    publish("returns", "1", "sql");
    publish("returns", "2", "json");
    String aliases = "/v1/adapters/returns/aliases";
    JsonNode alias =
        post(
            aliases,
            """
            {"alias": "prod", "shares": [{"version": "1", "weight": 3}, {"version": "2"}]}
            """);
    assertThat(alias.at("/alias/shares")).hasSize(2);
    post(aliases, "{\"alias\": \"prod\", \"shares\": [{\"version\": \"2\"}]}");
    JsonNode back = post(aliases + ":rollback", "{\"alias\": \"prod\"}");
    assertThat(back.at("/alias/shares")).hasSize(2);
    JsonNode versions = get("/v1/adapters/returns/versions");
    assertThat(versions.get("versions")).hasSize(2);
    assertThat(versions.at("/versions/0/name").asText()).isEqualTo("returns@1");
    assertThat(get("/v1/adapters/returns@1").at("/adapter/name").asText()).isEqualTo("returns@1");
    assertThat(get("/v1/adapters/returns%40latest").at("/adapter/name").asText())
        .isEqualTo("returns@2");
    refused(
        at("/v1/adapters/returns/versions?version=1").DELETE(), 400, "FAILED_PRECONDITION", "prod");
    delete(aliases + "?alias=prod");
    assertThat(delete("/v1/adapters/returns/versions?version=1").get("digest").asText())
        .startsWith("sha256:");
    assertThat(delete("/v1/adapters/returns/versions?version=2&force=true").get("in_use").asInt())
        .isZero();
    refused(at("/v1/adapters/returns/versions"), 404, "NOT_FOUND", "returns");
  }

  private static void publish(String name, String version, String from) throws Exception {
    Announcement announcement = new Announcement(name, version, List.of(), false, null);
    try (Publication publication = stack.adapters().publishFrom(announcement, from)) {
      publication.finish();
    }
  }

  @Test
  void info_andSteps() throws Exception {
    JsonNode info = get("/v1/info");
    assertThat(info.get("model").asText()).isEqualTo("base");
    assertThat(info.at("/memory/base_packed").isTextual()).isTrue();
    assertThat(info.at("/memory/base_packed").asLong()).isPositive();
    JsonNode answer =
        post("/v1/generate", "{\"prompt\": \"The\", \"max_tokens\": 3, \"temperature\": 0}");
    assertThat(answer.get("token_ids")).hasSize(3);
    JsonNode steps = get("/v1/steps").get("steps");
    long last = steps.get(steps.size() - 1).get("number").asLong();
    assertThat(last).isPositive();
    assertThat(get("/v1/steps?after=" + (last - 1)).get("steps")).isNotEmpty();
  }

  @Test
  void tokenize_thereAndBack_alsoWhatIsLong() throws Exception {
    String text = "Wörter, 字, 🙂. ".repeat(2000);
    JsonNode tokens =
        post("/v1/tokenize", MAPPER.createObjectNode().put("text", text).toString())
            .get("token_ids");
    assertThat(tokens.size()).isGreaterThan(2000);
    JsonNode back =
        post("/v1/detokenize", MAPPER.createObjectNode().set("token_ids", tokens).toString());
    assertThat(back.get("text").asText()).contains("Wörter, 字, 🙂. Wörter");
  }

  @Test
  void embed() throws Exception {
    JsonNode answer = post("/v1/embed", "{\"inputs\": [{\"text\": \"one\"}, {\"text\": \"two\"}]}");
    assertThat(answer.get("embeddings")).hasSize(2);
    assertThat(answer.at("/embeddings/0/values").size()).isPositive();
  }

  @Test
  void whatIsWrong_isSaid() throws Exception {
    refused(at("/v1/adapters/nobody"), 404, "NOT_FOUND", "nobody");
    refused(at("/v1/adapters/no%20body%C3%A4"), 404, "NOT_FOUND", "no bodyä");
    refused(at("/v1/adapters?page_size=x"), 400, "INVALID_ARGUMENT", "page_size:", "x");
    refused(at("/v1/adapters?size=1"), 400, "INVALID_ARGUMENT", "size");
    refused(
        posting("/v1/adapters/sql:load", "{\"name\": \"json\"}"),
        400,
        "INVALID_ARGUMENT",
        "'sql'",
        "'json'");
    for (String body : List.of("{", "[1]", "null", "{\"prompt\": \"x\"} }", "x", "\"\"")) {
      refused(
          posting("/v1/generate", body),
          400,
          "INVALID_ARGUMENT",
          "the body: expected a JSON object");
    }
    refused(posting("/v1/generate", "{\"promt\": \"x\"}"), 400, "INVALID_ARGUMENT", "promt");
    String deep = "{\"template_kwargs\": {\"a\": " + "[".repeat(50_000) + "]".repeat(50_000) + "}}";
    refused(posting("/v1/generate", deep), 400, "INVALID_ARGUMENT", "the body");
    String twice = "{\"prompt\": \"x\", \"prompt\": \"y\"}";
    refused(posting("/v1/generate", twice), 400, "INVALID_ARGUMENT", "prompt");
  }

  @Test
  void whatAFormSends_isNoJson() throws Exception {
    Answer form =
        send(
            at("/v1/adapters/sql:load")
                .header("content-type", "text/plain")
                .POST(BodyPublishers.ofString("{}")));
    assertThat(form.status()).isEqualTo(415);
    assertThat(form.response().body()).contains("expected application/json, got 'text/plain'");
  }

  @Test
  void aBodyWithoutType_isNoJson() throws Exception {
    Answer untyped =
        send(at("/v1/adapters/sql:load").POST(BodyPublishers.ofString("{\"path\": \"sql\"}")));
    assertThat(untyped.status()).isEqualTo(415);
    assertThat(untyped.response().body()).contains("expected application/json, got none");
    ok(send(at("/v1/adapters/sql:load").POST(BodyPublishers.noBody())));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "POST   | /v1/adapters                 | GET",
        "PUT    | /v1/adapters/sql:load        | GET, POST",
        "DELETE | /v1/adapters/sql             | GET",
        "PUT    | /v1/adapters/team/x/versions | DELETE, GET",
        "GET    | /v1/adapters:scan            | POST",
        "POST   | /v1/adapters:watch           | GET",
        "GET    | /v1/adapters:upload          | POST",
        "GET    | /v1/generate                 | POST",
        "GET    | /v1/chat/completions         | POST",
        "POST   | /v1/models/sql               | GET",
        "POST   | /health                      | GET",
        "DELETE | /ping                        | GET, POST",
        "PATCH  | /metrics                     | GET",
        "POST   | /page/page.js                | GET, HEAD",
      })
  void anotherMethod_isRefused_withThoseThatThereAre(String method, String path, String allowed)
      throws Exception {
    Answer answer =
        send(
            at(path)
                .header("content-type", "application/json")
                .method(method, BodyPublishers.ofString("{}")));
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(405);
    assertThat(answer.response().headers().firstValue("allow")).contains(allowed);
    assertThat(answer.body().at("/error/message").asText())
        .isEqualTo("%s: expected %s, got %s".formatted(path, allowed, method));
  }

  @ParameterizedTest
  @ValueSource(strings = {"/health", "/ready", "/metrics", "/v1/models", "/v1/adapters/sql"})
  void head_isNoMethodButOfThePage(String path) throws Exception {
    for (HttpClient.Version version : HttpClient.Version.values()) {
      HttpResponse<String> answer =
          client.send(at(path).HEAD().version(version).build(), BodyHandlers.ofString());
      assertThat(answer.statusCode()).isEqualTo(405);
      assertThat(answer.headers().firstValue("allow")).contains("GET");
      assertThat(answer.body()).isEmpty();
    }
    HttpResponse<String> page = client.send(at("/").HEAD().build(), BodyHandlers.ofString());
    assertThat(page.statusCode()).isEqualTo(200);
  }

  @Test
  void whereNothingIs_isNotFound() throws Exception {
    for (String path : List.of("/v1/nothing", "/nothing", "/v1/adapters/")) {
      assertThat(send(at(path)).status()).as(path).isEqualTo(404);
      assertThat(send(posting(path, "{}")).status()).as(path).isEqualTo(404);
    }
  }

  @Test
  void everyMethodOfOneAnswer_hasAPath() {
    Stream.of(AdapterProto.getDescriptor(), GenerationProto.getDescriptor())
        .flatMap(file -> file.getServices().stream())
        .flatMap(service -> service.getMethods().stream())
        .filter(method -> !method.isClientStreaming() && !method.isServerStreaming())
        .forEach(
            method -> {
              HttpRule rule = method.getOptions().getExtension(AnnotationsProto.http);
              assertThat(rule.getPatternCase())
                  .as(method.getFullName())
                  .isNotEqualTo(HttpRule.PatternCase.PATTERN_NOT_SET);
            });
  }
}
