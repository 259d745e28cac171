package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.engine.TestBase;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The promise that an answer's bits depend on model, adapter and request alone: whatever shares the
 * batch, however the prompt is cut, on any number of threads, at any vector width, at the first
 * call and at a late one.
 */
final class ExactnessTest {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final List<String> ADAPTERS =
      List.of("all_linear_r16", "dora_r8", "head_embed", "lora_r8_qv", "rslora_r32");

  @TempDir private static Path folder;

  /** Requests whose answers are compared: the base and every adapter, greedy and sampled. */
  private static final List<String> probes = new ArrayList<>();

  /** What each of them gives when it is alone in its process's batch. */
  private static final List<String> alone = new ArrayList<>();

  @BeforeAll
  static void answerAlone() throws Exception {
    for (int i = 0; i <= ADAPTERS.size(); i++) {
      ObjectNode request = request(1000 + i, i, 70, 24);
      request.put("logprobs", 4).put("echo", true);
      probes.add(request.toString());
    }
    for (String probe : probes) {
      BatchRun run = BatchRun.of(folder, List.of(probe), arguments());
      JsonNode usage = run.lines().getFirst().path("usage");
      assertThat(usage.path("max_step_sequences").asInt()).isEqualTo(1);
      alone.add(bits(run.lines().getFirst()));
    }
  }

  /** A request over the base (0) or an adapter; odd seeds are sampled. */
  private static ObjectNode request(long seed, int adapter, int prompt, int maxTokens) {
    Random random = new Random(seed);
    ObjectNode request = JSON.createObjectNode();
    for (int i = 0; i < prompt; i++) {
      request.withArray("token_ids").add(random.nextInt(512));
    }
    if (seed % 2 == 0) {
      request.put("temperature", 0);
    } else {
      request.put("temperature", 1.2).put("top_p", 0.97).put("min_p", 0.001);
      request.put("repetition_penalty", 1.1).put("frequency_penalty", 0.1).put("seed", seed);
    }
    request.put("max_tokens", maxTokens).put("ignore_eos", true);
    if (adapter > 0) {
      request.put("adapter", ADAPTERS.get(adapter - 1));
    }
    return request;
  }

  private static String[] arguments(String... more) {
    List<String> arguments = new ArrayList<>();
    arguments.add("--model");
    arguments.add(TestBase.resource("models/llama_mha-nf4-dq").toString());
    for (String adapter : ADAPTERS) {
      arguments.add("--adapter");
      arguments.add(adapter + "=" + TestBase.resource("adapters/llama_mha/" + adapter));
    }
    arguments.addAll(List.of(more));
    return arguments.toArray(String[]::new);
  }

  /** Tokens and every digit of every log-probability. */
  private static String bits(JsonNode line) {
    assertThat(line.has("error")).as(line.path("error").asText()).isFalse();
    return line.path("token_ids").toString() + line.path("logprobs") + line.path("prompt_logprobs");
  }

  @ParameterizedTest
  @CsvSource({"1, 2", "8, 1", "15, 2", "64, 1", "256, 2"})
  void among31Neighbours_prefillCutAnywhere(int prefillTokens, int threads) throws Exception {
    // Two probes for each setting, so that all have their turn.
    for (int probe : new int[] {prefillTokens % 6, (prefillTokens + 3) % 6}) {
      List<String> requests = new ArrayList<>();
      for (int i = 0; i < 31; i++) {
        // Long enough to be there until the probe's last token.
        requests.add(request(i, i % 6, 1 + i % 3, 200).toString());
      }
      requests.add(13, probes.get(probe));

      // All are there at once unless one is late with its reading or its adapter: then once more.
      JsonNode usage = null;
      for (int i = 0; i < 10 && (usage == null || !isFull(usage)); i++) {
        BatchRun run =
            BatchRun.of(
                folder,
                requests,
                arguments("--prefill-tokens", "" + prefillTokens, "--threads", "" + threads));
        JsonNode line = run.lines().get(13);
        assertThat(bits(line)).isEqualTo(alone.get(probe));
        usage = line.path("usage");
      }
      assertThat(isFull(usage)).as("%s", usage).isTrue();
    }
  }

  private static boolean isFull(JsonNode usage) {
    return usage.path("max_step_sequences").asInt() == 32
        && usage.path("max_step_adapters").asInt() == 6;
  }

  @Test
  void thousandthCall() throws Exception {
    List<String> requests = new ArrayList<>();
    for (int i = 0; i < 1000; i++) {
      requests.add(i % 200 == 0 ? probes.get(i / 200) : request(i, i % 6, 5, 4).toString());
    }
    requests.addAll(probes);

    BatchRun run = BatchRun.of(folder, requests, arguments());

    for (int i = 0; i < 5; i++) {
      assertThat(bits(run.lines().get(200 * i))).isEqualTo(alone.get(i));
    }
    for (int i = 0; i < probes.size(); i++) {
      assertThat(bits(run.lines().get(1000 + i))).isEqualTo(alone.get(i));
    }
  }

  /** An adapter that overflows leaves NaN in the pages it gives back. */
  @Test
  void afterAnAdapterThatOverflows() throws Exception {
    Path overflows = Files.createDirectories(folder.resolve("overflows"));
    Path good = TestBase.resource("adapters/llama_mha/lora_r8_qv");
    Files.copy(good.resolve("adapter_config.json"), overflows.resolve("adapter_config.json"));
    byte[] weights = Files.readAllBytes(good.resolve("adapter_model.safetensors"));
    ByteBuffer bytes = ByteBuffer.wrap(weights).order(ByteOrder.LITTLE_ENDIAN);
    for (int at = 8 + (int) bytes.getLong(0); at < weights.length; at += 4) {
      bytes.putFloat(at, 1e38f);
    }
    Files.write(overflows.resolve("adapter_model.safetensors"), weights);
    ObjectNode bad = request(0, 0, 60, 20);
    bad.put("adapter", "overflows");

    BatchRun run =
        BatchRun.of(
            folder,
            List.of(bad.toString(), probes.get(0), bad.toString(), probes.get(1)),
            arguments(
                "--adapter", "overflows=" + overflows, "--max-batch", "1", "--kv-tokens", "96"));

    assertThat(run.lines().get(0).path("error").asText()).contains("overflows");
    assertThat(run.lines().get(2).path("error").asText()).contains("overflows");
    assertThat(bits(run.lines().get(1))).isEqualTo(alone.get(0));
    assertThat(bits(run.lines().get(3))).isEqualTo(alone.get(1));
  }

  /** In processes of their own, since a process has one vector width. */
  @ParameterizedTest
  @ValueSource(ints = {128, 256, 512})
  void atAnyVectorWidth(int bits) throws Exception {
    Path in = Files.write(folder.resolve("width.jsonl"), probes);
    Path out = folder.resolve("width-" + bits + ".jsonl");
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of(
            "--add-modules=jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
            "-Dwardrobe.vector.bits=" + bits,
            "-cp",
            System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
            "dev.wardrobe.Main",
            "batch",
            "--in",
            in.toString(),
            "--out",
            out.toString()));
    command.addAll(List.of(arguments("--threads", bits == 256 ? "2" : "1")));
    Path log = folder.resolve("width-" + bits + ".log");
    Process process =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile()).start();
    try {
      assertThat(process.waitFor(5, TimeUnit.MINUTES)).isTrue();
    } finally {
      process.destroyForcibly();
    }

    assertThat(process.exitValue()).as(Files.readString(log)).isZero();
    List<String> lines = Files.readAllLines(out);
    for (int i = 0; i < probes.size(); i++) {
      assertThat(bits(JSON.readTree(lines.get(i)))).isEqualTo(alone.get(i));
    }
  }
}
