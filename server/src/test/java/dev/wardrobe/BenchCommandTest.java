package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code bench} from the command line: what it prints, and what it refuses; never how fast. */
final class BenchCommandTest {
  private static final String QUICK =
      "--reps 1 --retries 0 --warm-up 0 --steps 2 --prompt 20 --depth 24 --prefill-tokens 16";

  private static final List<String> OPERATIONS =
      List.of(
          "step's tables",
          "embed",
          "norm",
          "linear q, k, v",
          "rope, kv write",
          "attention",
          "linear o",
          "linear gate, up",
          "activate",
          "linear down",
          "logits",
          "sample",
          "the rest");

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  @Test
  void json_hasEveryCase() throws Exception {
    int code =
        run("--shape tiny --random-weights --seed 7 --batch 1,3 --adapters 3 --rank 2 --json");
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    JsonNode root = new ObjectMapper().readTree(out.toString());
    assertThat(root.get("backend").asText()).startsWith("CPU");
    assertThat(root.get("math").asText()).isEqualTo("exact");
    assertThat(root.at("/model/name").asText()).isEqualTo("tiny");
    assertThat(root.at("/model/random_weights").asBoolean()).isTrue();
    assertThat(root.at("/model/seed").asLong()).isEqualTo(7);
    assertThat(root.at("/model/parameters").asLong()).isEqualTo(500_352);
    assertThat(root.at("/model/bits_per_weight").asDouble()).isBetween(4.125, 4.13);

    List<String> cases = new ArrayList<>();
    for (JsonNode each : root.get("cases")) {
      cases.add(
          "%s streams %d depth %d prompt %d generated %d adapters %d rank %d"
              .formatted(
                  each.get("case").asText(),
                  each.get("streams").asInt(),
                  each.get("depth").asInt(),
                  each.get("prompt").asInt(),
                  each.get("generated").asInt(),
                  each.get("adapters").asInt(),
                  each.get("rank").asInt()));
      assertThat(each.get("runs")).hasSize(1);
      JsonNode run = each.get("runs").get(0);
      assertThat(run.get("tokens").asInt())
          .isEqualTo(
              each.get("streams").asInt()
                  * (each.get("prompt").asInt() + each.get("generated").asInt()));
      assertThat(run.get("tokens_per_second").asDouble())
          .isPositive()
          .isEqualTo(each.get("tokens_per_second").asDouble());
      assertThat(run.has("others")).isTrue();
      assertThat(run.has("undisturbed")).isTrue();
    }
    assertThat(cases)
        .containsExactly(
            "prefill streams 1 depth 0 prompt 20 generated 0 adapters 0 rank 0",
            "decode streams 1 depth 0 prompt 0 generated 2 adapters 0 rank 0",
            "depth streams 1 depth 24 prompt 0 generated 2 adapters 0 rank 0",
            "batch streams 1 depth 32 prompt 0 generated 2 adapters 0 rank 0",
            "batch streams 3 depth 32 prompt 0 generated 2 adapters 0 rank 0",
            "adapters streams 3 depth 32 prompt 0 generated 2 adapters 0 rank 0",
            "adapters streams 3 depth 32 prompt 0 generated 2 adapters 3 rank 2");
    assertThat(root.get("adapters_to_base").asDouble()).isPositive();
  }

  @Test
  void profile_accountsForAllTheTime() throws Exception {
    int code =
        run(
            "--shape tiny --cases prefill,adapters --adapters 2 --rank 3 --kv f32 --profile"
                + " --json");
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    JsonNode root = new ObjectMapper().readTree(out.toString());
    for (String figure :
        List.of(
            "read_one_bytes_per_second",
            "read_all_bytes_per_second",
            "compute_one_flops",
            "compute_all_flops")) {
      assertThat(root.get("roof").get(figure).asDouble()).as(figure).isBetween(1e7, 1e16);
    }
    for (JsonNode each : root.get("cases")) {
      Map<String, JsonNode> costs = new LinkedHashMap<>();
      double seconds = 0;
      double share = 0;
      for (JsonNode cost : each.get("profile")) {
        costs.put(cost.get("operation").asText(), cost);
        seconds += cost.get("seconds").asDouble();
        share += cost.get("share").asDouble();
      }
      boolean adapted = each.get("adapters").asInt() > 0;
      assertThat(costs.keySet())
          .containsExactlyElementsOf(
              adapted ? with("adapters, shrink", "adapters, expand") : OPERATIONS);
      assertThat(seconds).isCloseTo(each.at("/runs/0/seconds").asDouble(), within(1e-6));
      assertThat(share).isCloseTo(1, within(1e-6));

      boolean prefill = each.get("case").asText().equals("prefill");
      // 20 tokens in steps of 16 are two; and there are two layers.
      assertThat(costs.get("embed").get("calls").asInt()).isEqualTo(2);
      assertThat(costs.get("linear down").get("calls").asInt()).isEqualTo(4);
      assertThat(costs.get("norm").get("calls").asInt()).isEqualTo(2 * 5);
      JsonNode down = costs.get("linear down");
      int weights = 128 * 352;
      assertThat(down.get("weights").asLong()).isEqualTo(4 * weights);
      assertThat(down.get("operations").asDouble())
          .isEqualTo(2.0 * 2 * weights * (prefill ? 20 : 2 * 2));
      if (prefill) {
        // Keys and values of 16 positions, then of 20, in two layers of two heads of 32.
        assertThat(costs.get("attention").get("bytes").asLong())
            .isEqualTo((16 + 20) * 2 * 2 * (2 * 32) * 4);
        assertThat(costs.get("attention").get("operations").asDouble())
            .isEqualTo(20 * 21 / 2 * 2 * 4 * (4 * 32));
      }
      if (adapted) {
        // Of q, k, v, o, gate, up and down; in two layers, two steps, two adapters of rank 3.
        long in = 6 * 128 + 352;
        long out = 128 + 64 + 64 + 128 + 352 + 352 + 128;
        assertThat(costs.get("adapters, shrink").get("weights").asLong())
            .isEqualTo(2 * 2 * 2 * 3 * in);
        assertThat(costs.get("adapters, expand").get("weights").asLong())
            .isEqualTo(2 * 2 * 2 * 3 * out);
        // A shrink for q, k and v together, and for gate and up.
        assertThat(costs.get("adapters, shrink").get("calls").asInt()).isEqualTo(2 * 2 * 4);
      }
    }
  }

  private static List<String> with(String... more) {
    List<String> all = new ArrayList<>(OPERATIONS.subList(0, OPERATIONS.size() - 1));
    all.addAll(List.of(more));
    all.add(OPERATIONS.getLast());
    return all;
  }

  @Test
  void table_ofAModel() {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    int code = run("--model " + demo + " --cases decode,prefill --profile");
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    assertThat(out.toString())
        .contains("exact mode", "4.127 bits per quantized weight")
        .containsPattern("(?m)^prefill 20 +[0-9.]+ ")
        .containsPattern("(?m)^decode 2 +[0-9.]+ ")
        .containsPattern("(?m)^roof: read [0-9.]+ GB/s")
        .containsPattern("(?m)^  linear gate, up +[0-9.]+ +[0-9.]+% ")
        .doesNotContain("stream");
  }

  @Test
  void training_hasEveryOperation() {
    int code = run("--shape tiny --cases training --rank 3 --profile");
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    assertThat(out.toString()).containsPattern("(?m)^training, layer and head, 20 +[0-9.]+ ");
    for (String operation :
        List.of("linear, back", "A's gradient", "attention, back", "cross-entropy", "head, back")) {
      assertThat(out.toString()).containsPattern("(?m)^  " + operation + " +[0-9.]+ +[0-9.]+% ");
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--cases decode | expected either --shape (tiny, tinyllama, smollm2, llama3-8b-2layers,"
            + " llama3-8b, llama-65b) or --model",
        "--shape tiny --model x | expected either --shape",
        "--shape big | --shape: expected one of tiny, tinyllama, smollm2, llama3-8b-2layers,"
            + " llama3-8b, llama-65b, got 'big'",
        "--model x --random-weights | --random-weights: expected a --shape, got --model",
        "--model nowhere | nowhere: expected a model directory with config.json, got nothing",
        "--shape tiny --head f32 | --head: expected bf16 or nf4, got 'f32'",
        "--shape tiny --kv f16 | --kv: expected f32 or bf16, got 'f16'",
        "--shape tiny --cases decode,train | --cases: expected some of prefill, decode, depth,"
            + " batch, adapters, training, got 'train'",
        "--shape tiny --cases adapters | --cases adapters: expected --adapters N as well, got none",
        "--shape tiny --batch 0 | --batch: expected 1 to 4096, got 0",
        "--shape tiny --depth 5000 | a sequence of 5003 tokens is to be measured, but the model's"
            + " context is 4096; lower --prompt, --depth or --steps",
        "--shape tiny --warm-up -1 | --warm-up: expected 0 to 3600 seconds, got -1.0",
        "--shape tiny --threads 0 | --threads: expected 1 to 1024, got 0",
      })
  void refused_inOneLine(String arguments, String message) {
    // A folder that is not there could have been there.
    assertThat(run(arguments)).isEqualTo(message.startsWith("nowhere") ? 1 : 2);
    assertThat(err.toString()).contains("wardrobe: " + message).hasLineCount(1);
    assertThat(out.toString()).isEmpty();
  }

  /** The quick options first, so that {@code arguments} prevail. */
  private int run(String arguments) {
    List<String> all = new ArrayList<>(List.of("bench"));
    all.addAll(List.of((QUICK + " " + arguments).split(" ")));
    return Main.commandLine()
        .setOverwrittenOptionsAllowed(true)
        .setOut(new PrintWriter(out))
        .setErr(new PrintWriter(err))
        .execute(all.toArray(String[]::new));
  }
}
