package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.data.Offset.offset;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.safetensors.ReferenceFolder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Trained models' golden answers, as the batch command gives them. */
final class ModelBatchTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  @TempDir private Path folder;

  /** The embedded model: conversations, by itself and with each of its adapters, in one batch. */
  @ParameterizedTest
  @CsvSource({"f32, 1e-4", "bf16, 1e-1"})
  void demo(String kv, double tolerance) throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root", ".."), "deploy/models/demo");
    JsonNode cases = JSON.readTree(demo.resolve("base/golden.json").toFile()).path("cases");
    List<String> requests = new ArrayList<>();
    for (JsonNode one : cases) {
      ObjectNode request = JSON.createObjectNode();
      request.set("messages", one.path("messages"));
      request.put("temperature", 0).put("max_tokens", 64).put("logprobs", 5);
      if (!one.path("adapter").isNull()) {
        request.put("adapter", one.path("adapter").asText());
      }
      requests.add(request.toString());
    }
    List<String> arguments =
        new ArrayList<>(List.of("--model", demo.resolve("base").toString(), "--kv", kv));
    for (String adapter : List.of("json", "pirate", "sql", "terse")) {
      arguments.add("--adapter");
      arguments.add(adapter + "=" + demo.resolve("adapters/" + adapter));
    }

    BatchRun run = BatchRun.of(folder, requests, arguments.toArray(String[]::new));

    assertThat(run.exit()).as(run.err()).isZero();
    for (int i = 0; i < cases.size(); i++) {
      JsonNode expected = cases.get(i);
      JsonNode line = run.lines().get(i);
      assertThat(line.path("text").asText())
          .as("case %d", i)
          .isEqualTo(expected.path("output").asText());
      assertThat(line.path("token_ids")).as("case %d", i).isEqualTo(expected.path("output_ids"));
      assertThat(line.at("/usage/prompt_tokens").asInt())
          .isEqualTo(expected.path("prompt_ids").size());
      JsonNode top = line.at("/logprobs/0/top");
      JsonNode golden = expected.path("first_top5");
      for (int k = 0; k < golden.size(); k++) {
        assertThat(top.get(k).path("token_id")).isEqualTo(golden.get(k).get(0));
        // Logits against log-probabilities: what lies between two of them is the same in both.
        double best = golden.get(0).get(1).asDouble();
        double logit = golden.get(k).get(1).asDouble();
        assertThat(top.get(k).path("logprob").asDouble() - top.get(0).path("logprob").asDouble())
            .isCloseTo(logit - best, offset(tolerance * (2 + Math.abs(logit) + Math.abs(best))));
      }
    }
    assertThat(run.lines()).anyMatch(line -> line.at("/usage/max_step_adapters").asInt() == 5);
  }

  /** A real model. */
  @Test
  void smollm2() throws Exception {
    JsonNode golden =
        JSON.readTree(ReferenceFolder.require("golden/logits/smollm2-135m.json").toFile());
    Path models = ReferenceFolder.require("models");
    List<String> requests = new ArrayList<>();
    List<JsonNode> expected = new ArrayList<>();
    add(golden, "base", golden.path("base"), requests, expected);
    for (Map.Entry<String, JsonNode> adapter : golden.path("adapters").properties()) {
      add(golden, adapter.getKey(), adapter.getValue(), requests, expected);
    }

    BatchRun run =
        BatchRun.of(
            folder,
            requests,
            "--model",
            models.resolve("smollm2-135m-instruct-nf4").toString(),
            "--kv",
            "f32",
            "--cache-dir",
            folder.resolve("cache").toString(),
            "--adapter",
            "sql=" + models.resolve("smollm2-adapters/sql"),
            "--adapter",
            "json=" + models.resolve("smollm2-adapters/json"));

    assertThat(run.exit()).as(run.err()).isZero();
    for (int i = 0; i < expected.size(); i++) {
      JsonNode line = run.lines().get(i);
      JsonNode one = expected.get(i);
      String where = line.path("id").asText();
      JsonNode ids = golden.path("prompts").path(where.split("/", -1)[1]).path("ids");
      assertThat(line.at("/usage/prompt_tokens").asInt()).as(where).isEqualTo(ids.size());
      for (int k = 0; k < 20; k++) {
        assertThat(line.at("/logprobs/0/top/" + k + "/logprob").asDouble())
            .as("%s top %d", where, k)
            .isCloseTo(one.path("top20_logprobs").get(k).asDouble(), offset(2e-3));
      }
      int step = 0;
      while (step < one.path("tokens").size() && one.path("gaps").get(step).asDouble() >= 1e-2) {
        assertThat(line.path("token_ids").get(step))
            .as("%s step %d", where, step)
            .isEqualTo(one.path("tokens").get(step));
        step++;
      }
      if (step == one.path("tokens").size()) {
        assertThat(line.path("text").asText()).isEqualTo(one.path("text").asText());
      }
    }
  }

  private static void add(
      JsonNode golden,
      String adapter,
      JsonNode prompts,
      List<String> requests,
      List<JsonNode> expected) {
    for (Map.Entry<String, JsonNode> prompt : prompts.properties()) {
      ObjectNode request = JSON.createObjectNode();
      request.put("id", adapter + "/" + prompt.getKey());
      request.set("messages", golden.path("prompts").path(prompt.getKey()).path("messages"));
      request.put("temperature", 0).put("logprobs", 20);
      request.put("max_tokens", prompt.getValue().path("tokens").size());
      if (!adapter.equals("base")) {
        request.put("adapter", adapter);
      }
      requests.add(request.toString());
      expected.add(prompt.getValue());
    }
  }
}
