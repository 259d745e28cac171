package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.engine.TestBase;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The golden logits, as the batch command gives them: log-probabilities and greedy answers. */
final class GoldenBatchTest {
  private static final double TOLERANCE = 1e-4;
  private static final double SURE_GAP = 1e-3;
  private static final ObjectMapper JSON = new ObjectMapper();

  @TempDir private Path folder;

  /** A golden case: an adapter, or the base, and a prompt. */
  private record Case(String adapter, String prompt) {}

  @Test
  void smallest() throws Exception {
    check(TestBase.resource(""), "llama_mha");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "llama_mha",
        "llama3",
        "llama_linear_rope",
        "mistral",
        "qwen2",
        "qwen2_yarn",
        "qwen3",
        "smollm2"
      })
  void every(String model) throws Exception {
    check(ReferenceFolder.require("golden"), model);
  }

  private void check(Path golden, String model) throws Exception {
    JsonNode expected = JSON.readTree(golden.resolve("logits/" + model + ".json").toFile());
    JsonNode prompts =
        JSON.readTree(golden.resolve("logits/logits.json").toFile()).path("prompts").path(model);
    Set<String> variants = new LinkedHashSet<>();
    expected.fieldNames().forEachRemaining(name -> variants.add(name.split("/", -1)[0]));
    try (SafetensorsFile logits =
        SafetensorsFile.open(golden.resolve("logits/" + model + ".safetensors"))) {
      for (String variant : variants) {
        check(golden, model, variant, expected, prompts, logits);
      }
    }
  }

  private void check(
      Path golden,
      String model,
      String variant,
      JsonNode expected,
      JsonNode prompts,
      SafetensorsFile logits)
      throws Exception {
    Map<Case, JsonNode> cases = new LinkedHashMap<>();
    Set<String> adapters = new LinkedHashSet<>();
    for (Map.Entry<String, JsonNode> entry : expected.properties()) {
      String[] name = entry.getKey().split("/", -1);
      if (name[0].equals(variant) && !name[1].startsWith("mix_")) {
        if (!name[1].equals("base")) {
          adapters.add(name[1]);
        }
        entry.getValue().properties().stream()
            .filter(p -> prompts.has(p.getKey()))
            .forEach(p -> cases.put(new Case(name[1], p.getKey()), p.getValue()));
      }
    }
    boolean quantized = !variant.equals("unquantized");
    List<String> arguments = new ArrayList<>();
    arguments.addAll(
        List.of(
            "--model",
            golden.resolve("models/" + model + (quantized ? "-" + variant : "")).toString(),
            "--quantize",
            "none",
            "--kv",
            "f32",
            "--max-logprobs",
            "-1"));
    for (String adapter : adapters) {
      arguments.add("--adapter");
      arguments.add(adapter + "=" + golden.resolve("adapters/" + model + "/" + adapter));
    }
    List<String> requests = new ArrayList<>();
    for (Case one : cases.keySet()) {
      ObjectNode request = JSON.createObjectNode();
      request.put("id", variant + "/" + one.adapter() + "/" + one.prompt());
      request.set("token_ids", prompts.path(one.prompt()));
      request.put("temperature", 0).put("max_tokens", 64).put("ignore_eos", true);
      request.put("logprobs", -1).put("echo", true);
      if (!one.adapter().equals("base")) {
        request.put("adapter", one.adapter());
      }
      requests.add(request.toString());
    }

    BatchRun run = BatchRun.of(folder, requests, arguments.toArray(String[]::new));

    assertThat(run.exit()).as(run.err()).isZero();
    assertThat(run.lines()).hasSize(cases.size());
    int i = 0;
    for (Map.Entry<Case, JsonNode> entry : cases.entrySet()) {
      JsonNode line = run.lines().get(i++);
      assertThat(line.has("error")).as(line.path("error").asText()).isFalse();
      checkGreedy(line, entry.getValue().path("greedy"));
      checkPrompt(line, entry.getValue().path("prompt_logprobs"));
      TensorInfo tensor = logits.find(line.path("id").asText() + "/logits");
      if (tensor != null) {
        checkLogits(line, tensor, logits.floats(tensor));
      }
    }
    if (variant.equals("nf4-dq") && !adapters.isEmpty()) {
      assertThat(run.lines())
          .anyMatch(line -> line.at("/usage/max_step_adapters").asInt() > adapters.size());
    }
  }

  private static void checkGreedy(JsonNode line, JsonNode greedy) {
    for (int step = 0; step < greedy.path("tokens").size(); step++) {
      String where = line.path("id").asText() + " step " + step;
      if (greedy.path("gaps").get(step).asDouble() < SURE_GAP) {
        return;
      }
      assertThat(line.path("token_ids").get(step))
          .as(where)
          .isEqualTo(greedy.path("tokens").get(step));
      close(
          line.path("logprobs").get(step).path("logprob").asDouble(),
          greedy.path("logprobs").get(step).asDouble(),
          where);
    }
  }

  private static void checkPrompt(JsonNode line, JsonNode expected) {
    for (int i = 1; i < expected.size(); i++) {
      close(
          line.path("prompt_logprobs").get(i).path("logprob").asDouble(),
          expected.get(i).asDouble(),
          line.path("id").asText() + " prompt token " + i);
    }
  }

  /** Compares with the log-softmax, in double, of the last positions' logits. */
  private static void checkLogits(JsonNode line, TensorInfo tensor, float[] logits) {
    int rows = tensor.shape().get(0).intValue();
    int vocabulary = tensor.shape().get(1).intValue();
    int prompt = line.at("/usage/prompt_tokens").asInt();
    for (int row = 0; row < rows; row++) {
      int next = prompt - rows + row + 1;
      JsonNode all =
          (next < prompt ? line.path("prompt_logprobs").get(next) : line.path("logprobs").get(0))
              .path("all");
      assertThat(all).hasSize(vocabulary);
      double max = Double.NEGATIVE_INFINITY;
      for (int t = 0; t < vocabulary; t++) {
        max = Math.max(max, logits[row * vocabulary + t]);
      }
      double sum = 0;
      for (int t = 0; t < vocabulary; t++) {
        sum += Math.exp(logits[row * vocabulary + t] - max);
      }
      double norm = max + Math.log(sum);
      for (int t = 0; t < vocabulary; t++) {
        double logit = logits[row * vocabulary + t];
        double difference = Math.abs(all.get(t).asDouble() - (logit - norm));
        if (!(difference <= TOLERANCE + TOLERANCE * Math.abs(logit))) {
          close(all.get(t).asDouble(), logit - norm, tensor.name() + " row " + row + " token " + t);
        }
      }
    }
  }

  private static void close(double actual, double expected, String where) {
    assertThat(Math.abs(actual - expected))
        .as("%s: expected %s, got %s", where, expected, actual)
        .isLessThanOrEqualTo(TOLERANCE);
  }
}
