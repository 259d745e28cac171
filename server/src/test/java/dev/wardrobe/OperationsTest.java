package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.telemetry.Readiness;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerationServiceGrpc;
import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import picocli.CommandLine;

/** What operators see of a server at work: metrics, readiness, state. */
@Timeout(120)
final class OperationsTest {
  private static final Path ROOT = Path.of(System.getProperty("wardrobe.root"));
  private static final Path HOME = ROOT.resolve("deploy");
  private static final String SECRET = "Nobody may read this prompt anywhere";

  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;
  private static HttpClient client;

  /** What was scraped when nothing else had been asked yet. */
  private static Map<String, Double> atFirst;

  @BeforeAll
  static void start() throws Exception {
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new CommandLine(arguments).parseArgs("--model", HOME.resolve("models/demo/base").toString());
    stack =
        new Stack(
            arguments,
            List.of(HOME.resolve("models/demo/adapters")),
            null,
            AdapterOptions.DEFAULT,
            UnaryOperator.identity());
    frontend = stack.frontend(List.of());
    port = frontend.listen("127.0.0.1", 0);
    client = HttpClient.newHttpClient();
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
    try {
      GenerationServiceGrpc.GenerationServiceFutureStub stub =
          GenerationServiceGrpc.newFutureStub(channel);
      List<Future<?>> answers = new ArrayList<>();
      for (String adapter : List.of("", "sql", "pirate", "nobody")) {
        for (int i = 0; i < 3; i++) {
          answers.add(
              stub.generate(
                  GenerateRequest.newBuilder()
                      .setPrompt(SECRET)
                      .setAdapter(adapter)
                      .setMaxTokens(8)
                      .setIgnoreEos(true)
                      .setTenant("acme")
                      .build()));
        }
      }
      for (Future<?> answer : answers) {
        try {
          answer.get();
        } catch (ExecutionException e) {
          assertThat(e).hasMessageContaining("nobody");
        }
      }
    } finally {
      channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
    }
    // The last report may come after the last answer.
    await()
        .atMost(10, TimeUnit.SECONDS)
        .until(() -> value("wardrobe_requests_total{frontend=\"grpc\",status=\"OK\"}") == 9);
    atFirst = scrape();
  }

  @AfterAll
  static void stop() throws IOException {
    client.close();
    frontend.close();
    stack.close();
  }

  private static HttpResponse<String> get(String path, String accept) throws Exception {
    return client.send(
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
            .header("accept", accept)
            .build(),
        BodyHandlers.ofString());
  }

  private static JsonNode json(String path) throws Exception {
    HttpResponse<String> response = get(path, "*/*");
    assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
    return new ObjectMapper().readTree(response.body());
  }

  /** Samples by name with labels. */
  private static Map<String, Double> scrape() throws Exception {
    HttpResponse<String> response = get("/metrics", "text/plain");
    assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
    assertThat(response.headers().firstValue("content-type").orElseThrow())
        .startsWith("text/plain; version=0.0.4");
    Map<String, Double> samples = new HashMap<>();
    for (String line : response.body().lines().toList()) {
      if (!line.startsWith("#")) {
        int blank = line.lastIndexOf(' ');
        String value = line.substring(blank + 1);
        samples.put(
            line.substring(0, blank),
            value.equals("+Inf") ? Double.POSITIVE_INFINITY : Double.parseDouble(value));
      }
    }
    return samples;
  }

  private static double value(String sample) throws Exception {
    Map<String, Double> samples = scrape();
    assertThat(samples).containsKey(sample);
    return samples.get(sample);
  }

  @Test
  void metrics_countWhatWasAsked() throws Exception {
    String base = "{engine=\"0\",model_name=\"base\"}";
    Map<String, Double> samples = atFirst;
    assertThat(samples)
        .containsEntry("vllm:generation_tokens_total" + base, 72.0)
        .containsEntry("vllm:time_to_first_token_seconds_count" + base, 9.0)
        .containsEntry("vllm:e2e_request_latency_seconds_count" + base, 9.0)
        .containsEntry("vllm:inter_token_latency_seconds_count" + base, 63.0)
        .containsEntry("vllm:request_generation_tokens_sum" + base, 72.0)
        .containsEntry("vllm:num_requests_running" + base, 0.0)
        .containsEntry("vllm:num_requests_waiting" + base, 0.0)
        .containsEntry(finished("length"), 9.0)
        .containsEntry(finished("error"), 3.0)
        .containsEntry(finished("stop"), 0.0)
        .containsEntry("wardrobe_requests_total{frontend=\"grpc\",status=\"OK\"}", 9.0)
        .containsEntry("wardrobe_requests_total{frontend=\"grpc\",status=\"NOT_FOUND\"}", 3.0)
        .containsEntry("wardrobe_adapter_requests_total{adapter=\"sql\"}", 3.0)
        .containsEntry("wardrobe_adapter_generated_tokens_total{adapter=\"sql\"}", 24.0)
        .containsEntry("wardrobe_adapter_requests_total{adapter=\"_base\"}", 3.0)
        .containsEntry("wardrobe_adapter_failures_total{adapter=\"_other\"}", 3.0)
        .containsEntry("wardrobe_adapters{place=\"device\"}", 2.0)
        .containsEntry("wardrobe_adapter_loads_total", 2.0)
        .containsEntry("wardrobe_adapter_load_seconds_count", 2.0)
        .containsEntry("wardrobe_ready", 1.0);
    assertThat(samples.get("wardrobe_memory_bytes{kind=\"base_packed\"}")).isPositive();
    assertThat(samples.get("wardrobe_steps_total"))
        .isEqualTo(samples.get("wardrobe_step_seconds_count"))
        .isEqualTo(samples.get("vllm:iteration_tokens_total_count" + base));
    await()
        .atMost(10, TimeUnit.SECONDS)
        .until(() -> value("wardrobe_event_loop_delay_seconds_count") > 2);
  }

  private static String finished(String reason) {
    return "vllm:request_success_total{engine=\"0\",finished_reason=\"%s\",model_name=\"base\"}"
        .formatted(reason);
  }

  @Test
  void loraInfo_namesWhatIsInMemory() throws Exception {
    List<String> lines =
        get("/metrics", "text/plain").body().lines().filter(l -> l.contains("lora_req")).toList();
    assertThat(lines).hasSize(3);
    assertThat(lines.get(1)).isEqualTo("# TYPE vllm:lora_requests_info gauge");
    Matcher info =
        Pattern.compile(
                "vllm:lora_requests_info\\{max_lora=\"64\",running_lora_adapters=\"([^\"]*)\","
                    + "waiting_lora_adapters=\"\"} ([0-9.]+)")
            .matcher(lines.get(2));
    assertThat(info.matches()).as(lines.get(2)).isTrue();
    assertThat(info.group(1).split(",")).contains("sql", "pirate");
    assertThat(Double.parseDouble(info.group(2)))
        .isBetween(System.currentTimeMillis() / 1e3 - 60, System.currentTimeMillis() / 1e3 + 1);
  }

  @Test
  void openMetrics_forWhoAcceptsIt() throws Exception {
    HttpResponse<String> response = get("/metrics", "application/openmetrics-text;version=1.0.0");
    assertThat(response.headers().firstValue("content-type").orElseThrow())
        .startsWith("application/openmetrics-text; version=1.0.0");
    assertThat(response.body()).endsWith("# EOF\n").containsOnlyOnce("# EOF");
    assertThat(response.body()).contains("vllm:lora_requests_info{").contains("_total{");
  }

  @Test
  void readyAndLive() throws Exception {
    assertThat(json("/ready").get("ready").asBoolean()).isTrue();
    assertThat(json("/ready").get("problems")).isEmpty();
    assertThat(json("/live").get("live").asBoolean()).isTrue();
  }

  @Test
  void ready_saysWhyNot() {
    Readiness never = new Readiness(stack.engine(), Duration.ofSeconds(60));
    assertThat(never.problems()).containsExactly("the server is starting");
    never.open();
    assertThat(never.ready()).isTrue();
    never.drain();
    assertThat(never.problems()).singleElement().asString().contains("stopping");
    assertThat(never.live()).isTrue();
  }

  @Test
  void state_tellsAllButTexts() throws Exception {
    HttpResponse<String> response = get("/debug/state", "*/*");
    assertThat(response.body()).doesNotContain("Nobody").doesNotContain("prompt\"");
    JsonNode state = json("/debug/state");
    assertThat(state.get("problems")).isEmpty();
    assertThat(state.get("adapters").findValuesAsText("name")).contains("sql", "pirate");
    assertThat(state.at("/sequences/finished").asInt()).isGreaterThanOrEqualTo(9);
    assertThat(state.at("/pages/all").asInt()).isPositive();
    assertThat(state.get("steps").size()).isBetween(8, 32);
  }

  @Test
  void state_ofARequestThatRuns() throws Exception {
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
    try {
      // A reader that takes nothing holds its place.
      var call =
          GenerationServiceGrpc.newBlockingStub(channel)
              .generateStream(
                  GenerateRequest.newBuilder()
                      .setId("slow-1")
                      .setPrompt(SECRET)
                      .setAdapter("terse")
                      .setTenant("acme")
                      .setN(16)
                      .setMaxTokens(480)
                      .setIgnoreEos(true)
                      .build());
      assertThat(call.next().hasStarted()).isTrue();
      JsonNode seat = json("/debug/state").at("/batch/0");
      assertThat(seat.path("id").asText()).as(seat.toString()).isEqualTo("slow-1");
      assertThat(seat.get("tenant").asText()).isEqualTo("acme");
      assertThat(seat.at("/adapters/0").asText()).isEqualTo("terse");
    } finally {
      channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
    }
    await().atMost(20, TimeUnit.SECONDS).until(() -> json("/debug/state").get("batch").isEmpty());
  }

  /** The page and a scrape have the same names, with the same types. */
  @Test
  void everyMetric_isDescribed() throws Exception {
    Map<String, String> exposed = new TreeMap<>();
    get("/metrics", "text/plain")
        .body()
        .lines()
        .filter(line -> line.startsWith("# TYPE "))
        .map(line -> line.split(" "))
        .forEach(parts -> exposed.put(parts[2], parts[3]));
    String page = Files.readString(ROOT.resolve("docs/operations.md"));
    Map<String, String> described = new TreeMap<>();
    Pattern.compile("(?m)^\\| `((?:vllm:|wardrobe_)[a-z0-9_]+)` \\| ([a-z]+) \\|")
        .matcher(page)
        .results()
        .forEach(row -> described.put(row.group(1), row.group(2)));
    Map<String, String> ours = new TreeMap<>(exposed);
    ours.keySet().removeIf(name -> !name.startsWith("vllm:") && !name.startsWith("wardrobe_"));
    assertThat(described).isEqualTo(ours).hasSizeGreaterThan(40);
    List<String> families =
        Pattern.compile("`([a-z_]+_)\\*`").matcher(page).results().map(m -> m.group(1)).toList();
    assertThat(exposed.keySet())
        .allMatch(name -> ours.containsKey(name) || families.stream().anyMatch(name::startsWith));
  }
}
