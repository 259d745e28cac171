package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.safetensors.ReferenceFolder;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Keys and values in bfloat16, the default, against float32 ones. */
final class KvTypeTest {
  /** Of a prompt's rows together, of a row, of a logit; shares of the logits' spread. */
  private static final Deviation TOLERANCE = new Deviation(0.01, 0.03, 0.12);

  private static final int TOKENS = 150;

  @Test
  void logits_ofTheSmallestModel() throws Exception {
    agrees(Golden.smallest());
  }

  static List<Golden> reference() throws IOException {
    return Golden.all(ReferenceFolder.require("golden"));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("reference")
  void logits_ofReferenceModels(Golden golden) throws Exception {
    agrees(golden);
  }

  /** Of what it is asked and answers, and of tokens without sense. */
  @Test
  void logits_ofTheDemo() throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    JsonNode cases = new ObjectMapper().readTree(demo.resolve("golden.json").toFile()).get("cases");
    try (Forward floats = new Forward(demo, LoadOptions.DEFAULT);
        Forward halves = new Forward(demo, LoadOptions.DEFAULT, KvShape.Type.BF16)) {
      assertThat(cases).isNotEmpty();
      for (JsonNode each : cases) {
        int[] tokens =
            IntStream.concat(ints(each.get("prompt_ids")), ints(each.get("output_ids")))
                .limit(TOKENS)
                .toArray();
        agree(each.get("prompt").textValue(), floats, halves, tokens, TOLERANCE);
      }
      random(floats, halves).forEach(t -> agree("random", floats, halves, t, TOLERANCE));
    }
  }

  /** Massive activations cost a trained model of thirty layers more. */
  @Test
  void logits_ofSmollm2() throws Exception {
    Path directory = ReferenceFolder.require("models/smollm2-135m-instruct-nf4");
    JsonNode golden =
        new ObjectMapper()
            .readTree(ReferenceFolder.require("golden/logits/smollm2-135m.json").toFile());
    Deviation tolerance = new Deviation(0.02, 0.06, 0.18);
    try (Forward floats = new Forward(directory, LoadOptions.DEFAULT);
        Forward halves = new Forward(directory, LoadOptions.DEFAULT, KvShape.Type.BF16)) {
      assertThat(golden.get("base")).isNotEmpty();
      for (var each : golden.get("base").properties()) {
        int[] tokens =
            IntStream.concat(
                    ints(golden.at("/prompts/" + each.getKey() + "/ids")),
                    ints(each.getValue().get("tokens")))
                .limit(TOKENS)
                .toArray();
        agree(each.getKey(), floats, halves, tokens, tolerance);
      }
    }
  }

  /** Both the golden's own rows, which are transformers', and float32's for other prompts. */
  private static void agrees(Golden golden) throws Exception {
    for (String variant :
        golden.cases().stream().map(Golden.Case::variant).distinct().sorted().toList()) {
      String what = golden + " " + variant;
      Path directory = golden.directory(variant);
      try (Forward floats = new Forward(directory, LoadOptions.AS_STORED);
          Forward halves = new Forward(directory, LoadOptions.AS_STORED, KvShape.Type.BF16)) {
        for (Golden.Case each : golden.cases()) {
          if (each.variant().equals(variant) && each.what().equals("logits")) {
            float[][] expected = golden.expected(each);
            int[] prompt = golden.prompt(each.prompt());
            float[][] rows = halves.logits(prompt, prompt.length);
            float[][] last = Arrays.copyOfRange(rows, rows.length - expected.length, rows.length);
            within(each.key(), Deviation.of(expected, last), TOLERANCE);
          }
        }
        random(floats, halves).forEach(t -> agree(what, floats, halves, t, TOLERANCE));
      }
    }
  }

  private static Stream<int[]> random(Forward floats, Forward halves) {
    int vocabulary = floats.model().config().vocabulary();
    assertThat(halves.model().config().vocabulary()).isEqualTo(vocabulary);
    Random random = new Random(1);
    return Stream.generate(() -> random.ints(TOKENS, 0, vocabulary).toArray()).limit(4);
  }

  private static void agree(
      String what, Forward floats, Forward halves, int[] tokens, Deviation tolerance) {
    within(
        what,
        Deviation.of(floats.logits(tokens, tokens.length), halves.logits(tokens, tokens.length)),
        tolerance);
  }

  private static void within(String what, Deviation actual, Deviation tolerance) {
    assertThat(actual.together()).as(what).isPositive().isLessThan(tolerance.together());
    assertThat(actual.row()).as(what).isLessThan(tolerance.row());
    assertThat(actual.single()).as(what).isLessThan(tolerance.single());
  }

  private static IntStream ints(JsonNode ids) {
    return StreamSupport.stream(ids.spliterator(), false).mapToInt(JsonNode::intValue);
  }
}
