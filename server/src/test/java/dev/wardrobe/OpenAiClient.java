package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** Asks a server of ours over HTTP, as a client that knows nothing of it. */
final class OpenAiClient implements AutoCloseable {
  static final ObjectMapper JSON = new ObjectMapper();

  private final HttpClient http = HttpClient.newHttpClient();
  private final int port;

  /** An answer: its body as text, and as JSON if it is that. */
  record Answer(int status, HttpResponse<String> response, JsonNode json) {
    String header(String name) {
      return response.headers().firstValue(name).orElse("");
    }

    JsonNode error() {
      return json.path("error");
    }
  }

  OpenAiClient(int port) {
    this.port = port;
  }

  HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
        .timeout(Duration.ofSeconds(60));
  }

  HttpClient http() {
    return http;
  }

  Answer send(HttpRequest request) throws IOException, InterruptedException {
    HttpResponse<String> response =
        http.send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
    JsonNode json = com.fasterxml.jackson.databind.node.MissingNode.getInstance();
    try {
      json = JSON.readTree(response.body());
    } catch (JsonProcessingException e) {
      // Then it is something else.
    }
    return new Answer(response.statusCode(), response, json);
  }

  Answer get(String path) throws IOException, InterruptedException {
    return send(request(path).GET().build());
  }

  HttpRequest post(String path, String body) {
    return request(path)
        .header("content-type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString(body))
        .build();
  }

  Answer ask(String path, String body) throws IOException, InterruptedException {
    return send(post(path, body));
  }

  /** An answer that has to be good. */
  JsonNode good(String path, String body) throws IOException, InterruptedException {
    Answer answer = ask(path, body);
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(200);
    return answer.json();
  }

  /** The events of a stream that has to be good. */
  List<JsonNode> stream(String path, String body) throws IOException, InterruptedException {
    Answer answer = ask(path, body);
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(200);
    assertThat(answer.header("content-type")).startsWith("text/event-stream");
    List<JsonNode> events = new ArrayList<>();
    boolean done = false;
    for (String line : answer.response().body().lines().toList()) {
      if (line.isEmpty() || line.startsWith(":")) {
        continue;
      }
      assertThat(line).startsWith("data: ");
      assertThat(done).as("the end was before").isFalse();
      String data = line.substring("data: ".length());
      done = data.equals("[DONE]");
      if (!done) {
        events.add(JSON.readTree(data));
      }
    }
    assertThat(done).as("the stream has its end").isTrue();
    return events;
  }

  @Override
  public void close() {
    http.close();
  }
}
