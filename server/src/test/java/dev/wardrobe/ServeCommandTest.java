package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.awaitility.Awaitility;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code wardrobe serve} as a process of its own. */
final class ServeCommandTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo");

  @TempDir private Path folder;

  @Test
  void sigterm_finishesWhatRuns_andExitsWithZero() throws Exception {
    Path portFile = folder.resolve("port");
    Process server =
        serve(
            "--port",
            "0",
            "--port-file",
            portFile.toString(),
            "--drain-seconds",
            "120",
            "--warm-up-seconds",
            "100");
    try {
      Awaitility.await()
          .atMost(Duration.ofMinutes(2))
          .until(() -> Files.exists(portFile) || !server.isAlive());
      assertThat(server.isAlive()).as(log()).isTrue();
      int port = Integer.parseInt(Files.readString(portFile).strip());
      ManagedChannel channel =
          NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
      try {
        ModelInfoResponse info =
            GenerationServiceGrpc.newBlockingStub(channel)
                .modelInfo(ModelInfoRequest.getDefaultInstance());
        assertThat(info.getSteps()).as("steps of the rehearsal").isPositive();
        assertThat(info.getRunningSequences() + info.getWaitingSequences()).isZero();
        Iterator<GenerateEvent> stream =
            GenerationServiceGrpc.newBlockingStub(channel)
                .generateStream(
                    GenerateRequest.newBuilder()
                        .setPrompt("a")
                        .setTemperature(0)
                        .setIgnoreEos(true)
                        .setMaxTokens(80)
                        .build());
        stream.next();
        stream.next();
        // SIGTERM: the stream is in its first tokens.
        server.destroy();
        List<GenerateEvent> events = new ArrayList<>();
        stream.forEachRemaining(events::add);
        assertThat(events.getLast().getFinished().getFinishReason())
            .isEqualTo(FinishReason.FINISH_REASON_LENGTH);
        assertThat(events.getLast().getFinished().getUsage().getGeneratedTokens()).isEqualTo(80);
      } finally {
        channel.shutdownNow();
        assertThat(channel.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
      }
      assertThat(server.waitFor(1, TimeUnit.MINUTES)).isTrue();
      assertThat(server.exitValue()).as(log()).isZero();
      assertThat(portFile).doesNotExist();
      assertThat(log().lines().filter(line -> line.contains("ready on 127.0.0.1:" + port)))
          .hasSize(1);
    } finally {
      server.destroyForcibly();
    }
  }

  @Test
  void refusedAdapter_isOneLine_andExitsWithOne() throws Exception {
    Process server = serve("--port", "0", "--adapter", "bad=" + DEMO.resolve("adapters/nobody"));
    try {
      assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(server.exitValue()).isEqualTo(1);
      assertThat(log().lines()).hasSize(1).first().asString().contains("bad").contains("nobody");
    } finally {
      server.destroyForcibly();
    }
  }

  @Test
  void jsonLog_hasLibrariesLinesToo_andMetricsBeginBehindTheRehearsal() throws Exception {
    Path portFile = folder.resolve("port");
    Process server =
        serve(
            "--port",
            "0",
            "--port-file",
            portFile.toString(),
            "--log-format",
            "json",
            "--json",
            // Nobody takes traces there, which OpenTelemetry logs.
            "--otlp",
            "http://127.0.0.1:1");
    try {
      Awaitility.await()
          .atMost(Duration.ofMinutes(2))
          .until(() -> Files.exists(portFile) || !server.isAlive());
      assertThat(server.isAlive()).as(log()).isTrue();
      URI uri = URI.create("http://127.0.0.1:" + Files.readString(portFile).strip());
      try (HttpClient client = HttpClient.newHttpClient()) {
        String metrics =
            client
                .send(
                    HttpRequest.newBuilder(uri.resolve("/metrics")).build(),
                    BodyHandlers.ofString())
                .body();
        assertThat(metrics.lines())
            .contains(
                "vllm:generation_tokens_total{engine=\"0\",model_name=\"base\"} 0.0",
                "vllm:prompt_tokens_total{engine=\"0\",model_name=\"base\"} 0.0",
                "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"base\"} 0.0",
                "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"base\"} 0",
                "wardrobe_steps_total 0.0");
        assertThat(
                client
                    .send(
                        HttpRequest.newBuilder(uri.resolve("/v1/generate"))
                            .header("content-type", "application/json")
                            .POST(
                                HttpRequest.BodyPublishers.ofString(
                                    "{\"prompt\": \"a\", \"max_tokens\": 1}"))
                            .build(),
                        BodyHandlers.ofString())
                    .statusCode())
            .isEqualTo(200);
      }
      Awaitility.await()
          .atMost(Duration.ofMinutes(1))
          .until(() -> log().contains("\"logger\":\"io.opentelemetry."));
      server.destroy();
      assertThat(server.waitFor(1, TimeUnit.MINUTES)).isTrue();
      assertThat(server.exitValue()).as(log()).isZero();
      assertThat(log().lines()).isNotEmpty();
      for (String line : log().lines().toList()) {
        assertThat(new ObjectMapper().readTree(line).isObject()).as(line).isTrue();
      }
    } finally {
      server.destroyForcibly();
    }
  }

  private Process serve(String... more) throws Exception {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of(
            // The warning that --add-modules brings would be a line of its own.
            "-Xlog:disable",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "--add-exports=java.base/jdk.internal.module=ALL-UNNAMED",
            "-cp",
            System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
            "dev.wardrobe.Main",
            "serve",
            "--model",
            DEMO.resolve("base").toString()));
    command.addAll(List.of(more));
    ProcessBuilder builder =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(folder.resolve("log").toFile());
    builder.environment().put("OPT_OUT_TRACKING", "true");
    builder.environment().put("OTEL_BSP_SCHEDULE_DELAY", "100");
    builder.environment().put("OTEL_JAVA_EXPORTER_OTLP_RETRY_DISABLED", "true");
    return builder.start();
  }

  private String log() throws Exception {
    return Files.readString(folder.resolve("log"));
  }
}
