package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.engine.TestBase;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class BatchCommandTest {
  private static final String MODEL = TestBase.resource("models/llama_mha-nf4-dq").toString();
  private static final String GOOD = TestBase.resource("adapters/llama_mha/lora_r8_qv").toString();

  @TempDir private Path folder;

  private BatchRun run(List<String> requests, String... more) throws Exception {
    List<String> arguments = new ArrayList<>(List.of("--model", MODEL));
    arguments.addAll(List.of(more));
    return BatchRun.of(folder, requests, arguments.toArray(String[]::new));
  }

  private List<String> files() throws Exception {
    try (Stream<Path> files = Files.list(folder)) {
      return files.map(f -> f.getFileName().toString()).sorted().toList();
    }
  }

  @Test
  void answers_inOrder_badLinesAlone() throws Exception {
    BatchRun run =
        run(
            List.of(
                "{\"id\":\"first\",\"token_ids\":[1,2,3],\"max_tokens\":30,\"temperature\":0}",
                "",
                "   \t",
                "{\"tokenIds\":[5],\"maxTokens\":2,\"temperature\":0,\"adapter\":\"good\"}",
                "{\"id\":\"typo\",\"token_ids\":[5],\"max_token\":2}",
                "{\"token_ids\":[5]",
                "[1,2]",
                "{\"token_ids\":[5]} {\"token_ids\":[5]}",
                "{\"token_ids\":[5,99999],\"max_tokens\":2}",
                "{\"token_ids\":[5],\"max_tokens\":600}",
                "{\"token_ids\":[5],\"max_tokens\":1,\"temperature\":\"NaN\"}",
                "{\"token_ids\":[5],\"max_tokens\":1,\"adapter\":\"missing\"}",
                "{\"id\":\"last\",\"token_ids\":[1,2,3],\"max_tokens\":1,\"temperature\":0}"),
            "--adapter",
            "good=" + GOOD);

    assertThat(run.exit()).isZero();
    assertThat(run.err()).containsOnlyOnce("\n").contains("11 requests, 3 answered, 8 failed");
    assertThat(run.lines())
        .extracting(line -> line.path("id").asText())
        .containsExactly("first", "4", "typo", "6", "7", "8", "9", "10", "11", "12", "last");
    JsonNode first = run.lines().get(0);
    assertThat(first.path("finish_reason").asText()).isIn("length", "eos");
    assertThat(first.path("adapter_digest").asText()).isEmpty();
    assertThat(first.has("logprobs")).isFalse();
    assertThat(first.has("prompt_logprobs")).isFalse();
    JsonNode second = run.lines().get(1);
    assertThat(second.path("token_ids")).hasSize(2);
    assertThat(second.path("adapter_digest").asText()).matches("sha256:[0-9a-f]{64}");
    assertThat(second.path("usage").path("generated_tokens").asInt()).isEqualTo(2);
    assertThat(run.lines().get(2).path("error").asText()).contains("line 5").contains("max_token");
    assertThat(run.lines().get(6).path("error").asText()).contains("99999").contains("512");
    assertThat(run.lines().get(7).path("error").asText())
        .contains("600")
        .contains("601")
        .contains("512")
        .contains("511");
    assertThat(run.lines().get(8).path("error").asText()).contains("temperature").contains("NaN");
    assertThat(run.lines().get(9).path("error").asText()).contains("missing");
    assertThat(run.lines().get(5).path("error").asText()).endsWith("got more behind it");
    for (int i = 2; i < 10; i++) {
      assertThat(run.lines().get(i)).hasSize(2);
    }
    assertThat(files()).containsExactly("in.jsonl", "out.jsonl");
  }

  @Test
  void logprobs_asAskedFor() throws Exception {
    BatchRun run =
        run(
            List.of(
                "{\"token_ids\":[1,2],\"max_tokens\":3,\"temperature\":0,\"logprobs\":0}",
                "{\"token_ids\":[1,2],\"max_tokens\":3,\"temperature\":0,\"logprobs\":2}",
                "{\"token_ids\":[1,2],\"max_tokens\":3,\"temperature\":0,\"logprobs\":-1}",
                "{\"token_ids\":[1,2],\"max_tokens\":0,\"echo\":true}",
                "{\"token_ids\":[1,2],\"max_tokens\":0}",
                "{\"token_ids\":[1,2],\"max_tokens\":1,\"logprobs\":513}"));

    List<JsonNode> lines = run.lines();
    assertThat(lines.get(0).at("/logprobs/0/top")).isEmpty();
    assertThat(lines.get(1).at("/logprobs/0/top")).hasSize(2);
    assertThat(lines.get(1).at("/logprobs/0/top/0/logprob"))
        .isEqualTo(lines.get(0).at("/logprobs/0/logprob"));
    JsonNode all = lines.get(2).at("/logprobs/0/all");
    assertThat(all).hasSize(512);
    int token = lines.get(0).at("/token_ids/0").asInt();
    assertThat(all.get(token)).isEqualTo(lines.get(0).at("/logprobs/0/logprob"));
    assertThat(lines.get(2).at("/logprobs/0").has("top")).isFalse();
    assertThat(lines.get(3).path("token_ids")).isEmpty();
    assertThat(lines.get(3).at("/prompt_logprobs/0/logprob").isNull()).isTrue();
    assertThat(lines.get(3).at("/prompt_logprobs/1/logprob").asDouble()).isNegative();
    assertThat(lines.get(3).path("finish_reason").asText()).isEqualTo("length");
    assertThat(lines.get(4).path("error").asText()).contains("max_tokens").contains("echo");
    assertThat(lines.get(5).path("error").asText()).contains("513").contains("512");
  }

  @Test
  void logprobs_beyondTheLimit() throws Exception {
    BatchRun run =
        run(
            List.of(
                "{\"token_ids\":[1,2],\"max_tokens\":1,\"logprobs\":20}",
                "{\"token_ids\":[1,2],\"max_tokens\":1,\"logprobs\":21}",
                "{\"token_ids\":[1,2],\"max_tokens\":1,\"logprobs\":-1}"),
            "--max-logprobs",
            "20");

    assertThat(run.lines().get(0).at("/logprobs/0/top")).hasSize(20);
    assertThat(run.lines().get(1).path("error").asText()).contains("21").contains("--max-logprobs");
    assertThat(run.lines().get(2).path("error").asText()).contains("whole vocabulary");
  }

  @Test
  void seed_isReported_andRepeats() throws Exception {
    String request = "{\"token_ids\":[1,2],\"max_tokens\":20,\"ignore_eos\":true%s}";
    BatchRun first = run(List.of(request.formatted(""), request.formatted("")));
    JsonNode one = first.lines().get(0);
    JsonNode two = first.lines().get(1);
    assertThat(one.path("token_ids")).isNotEqualTo(two.path("token_ids"));

    BatchRun again =
        run(
            List.of(
                request.formatted(",\"seed\":" + two.at("/usage/seed")),
                request.formatted(",\"seed\":\"18446744073709551615\"")));

    assertThat(again.lines().get(0).path("token_ids")).isEqualTo(two.path("token_ids"));
    assertThat(again.lines().get(1).at("/usage/seed").asText()).isEqualTo("18446744073709551615");
  }

  @Test
  void adapter_refused_nothingIsWritten() throws Exception {
    BatchRun run =
        run(
            List.of("{\"token_ids\":[1],\"max_tokens\":1}"),
            "--adapter",
            "good=" + GOOD,
            "--adapter",
            "bad=" + MODEL);

    assertThat(run.exit()).isEqualTo(1);
    assertThat(run.err()).containsOnlyOnce("\n").contains("'bad'");
    assertThat(files()).containsExactly("in.jsonl");
  }

  @Test
  void start_refusals() throws Exception {
    List<String> request = List.of("{\"token_ids\":[1],\"max_tokens\":1}");
    for (List<String> arguments :
        List.of(
            List.of("--adapter", "nodir"),
            List.of("--adapter", "a=" + GOOD, "--adapter", "a=" + GOOD),
            List.of("--kv", "f64"),
            List.of("--quantize", "int8"),
            List.of("--block-size", "100"),
            List.of("--threads", "0"),
            List.of("--max-batch", "0"),
            List.of("--max-logprobs", "-2"))) {
      BatchRun run = run(request, arguments.toArray(String[]::new));

      assertThat(run.exit()).as("%s", arguments).isEqualTo(2);
      assertThat(run.err()).containsOnlyOnce("\n").contains(arguments.getFirst());
      assertThat(files()).containsExactly("in.jsonl");
    }
    BatchRun noModel =
        BatchRun.of(folder, request, "--model", folder.resolve("nowhere").toString());
    assertThat(noModel.exit()).isEqualTo(1);
    assertThat(noModel.err()).containsOnlyOnce("\n").contains("nowhere");
  }

  @Test
  void out_inNoDirectory_isRefusedAtStart() {
    StringWriter err = new StringWriter();
    Path target = folder.resolve("absent/out.jsonl");
    int exit =
        Main.commandLine()
            .setErr(new PrintWriter(err))
            .execute(
                "batch", "--model", MODEL, "--in", MODEL + "/config.json", "--out", "" + target);

    assertThat(exit).isEqualTo(1);
    assertThat(err.toString()).containsOnlyOnce("\n").contains("--out").contains("" + target);
    assertThat(target.getParent()).doesNotExist();
  }

  @Test
  void lines_tooLongOrNotText() throws Exception {
    byte[] good = "{\"token_ids\":[1],\"max_tokens\":1}\n".getBytes(StandardCharsets.UTF_8);
    Path in = folder.resolve("raw.jsonl");
    try (var out = Files.newOutputStream(in)) {
      out.write(new byte[] {(byte) 0xEF, (byte) 0xBB, (byte) 0xBF});
      out.write(good);
      out.write(new byte[] {'{', (byte) 0xC3, '}', '\n'});
      byte[] spaces = new byte[1 << 20];
      Arrays.fill(spaces, (byte) ' ');
      for (int i = 0; i < 17; i++) {
        out.write(spaces);
      }
      out.write('\n');
      out.write("[".repeat(100_000).getBytes(StandardCharsets.UTF_8));
      out.write('\n');
      out.write(good, 0, good.length - 1);
    }
    Path target = folder.resolve("raw-out.jsonl");
    int exit =
        Main.commandLine()
            .execute("batch", "--model", MODEL, "--in", in.toString(), "--out", target.toString());

    assertThat(exit).isZero();
    List<String> lines = Files.readAllLines(target);
    assertThat(lines).hasSize(5);
    assertThat(lines.get(0)).contains("token_ids");
    assertThat(lines.get(1)).contains("UTF-8");
    assertThat(lines.get(2)).contains("" + (17 << 20));
    assertThat(lines.get(3)).contains("error");
    assertThat(lines.get(4)).contains("token_ids");
  }
}
