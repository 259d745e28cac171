package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.safetensors.ReferenceFolder;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

final class DecoderTest {
  /** Proposed by the reference data: an independent float64 pass differs by at most 2.3e-5. */
  private static final double TOLERANCE = 1e-4;

  @Test
  void forward_smallestModelMeetsGolden() throws Exception {
    meets(Golden.smallest());
  }

  static List<Golden> reference() throws IOException {
    return Golden.all(ReferenceFolder.require("golden"));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("reference")
  void forward_meetsGolden(Golden golden) throws Exception {
    meets(golden);
  }

  private static void meets(Golden golden) throws Exception {
    Map<String, List<Golden.Case>> variants =
        golden.cases().stream().collect(Collectors.groupingBy(Golden.Case::variant));
    assertThat(variants).containsKeys("nf4-dq", "unquantized");
    for (var variant : variants.entrySet()) {
      try (Forward forward =
          new Forward(golden.directory(variant.getKey()), LoadOptions.AS_STORED)) {
        for (Golden.Case each : variant.getValue()) {
          int[] tokens = golden.prompt(each.prompt());
          float[][] logits = forward.logits(tokens, tokens.length);
          float[][] actual =
              each.what().equals("logits")
                  ? logits
                  : forward.hidden(Integer.parseInt(each.what().substring("hidden.".length())));
          assertClose(golden + " " + each.key(), actual, golden.expected(each));
        }
      }
    }
  }

  private static void assertClose(String what, float[][] actual, float[][] lastRows) {
    assertThat(actual.length).as(what).isGreaterThanOrEqualTo(lastRows.length);
    for (int row = 0; row < lastRows.length; row++) {
      float[] expected = lastRows[row];
      float[] got = actual[actual.length - lastRows.length + row];
      assertThat(got).as(what).hasSameSizeAs(expected);
      for (int i = 0; i < expected.length; i++) {
        double difference = Math.abs((double) got[i] - expected[i]);
        assertThat(difference)
            .as("%s row %d, %d: expected %s, got %s", what, row, i, expected[i], got[i])
            .isLessThanOrEqualTo(TOLERANCE + TOLERANCE * Math.abs(expected[i]));
      }
    }
  }

  /**
   * The embedded model: its golden quantizes statistics by bitsandbytes' table, hence 2e-2; 4e-2
   * with bfloat16.
   */
  @ParameterizedTest
  @EnumSource(KvShape.Type.class)
  void forward_demoModelMeetsItsGolden(KvShape.Type type) throws Exception {
    Path demo = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    JsonNode cases = new ObjectMapper().readTree(demo.resolve("golden.json").toFile()).get("cases");
    int checked = 0;
    try (Forward forward = new Forward(demo, LoadOptions.DEFAULT, type)) {
      for (JsonNode each : cases) {
        if (each.get("adapter").isNull()) {
          int[] prompt = ints(each.get("prompt_ids"));
          meetsTop(forward, prompt, each.get("first_top5"), type == KvShape.Type.F32 ? 2e-2 : 4e-2);
          assertThat(forward.greedy(prompt, 64))
              .as(each.get("prompt").textValue())
              .containsExactlyElementsOf(
                  Arrays.stream(ints(each.get("output_ids"))).boxed().toList());
          checked++;
        }
      }
    }
    assertThat(checked).isPositive();
  }

  /** A real model; decoding is another test's, a few tokens of each prompt are enough here. */
  @Test
  void forward_smollm2MeetsItsGolden() throws Exception {
    Path directory = ReferenceFolder.require("models/smollm2-135m-instruct-nf4");
    JsonNode golden =
        new ObjectMapper()
            .readTree(ReferenceFolder.require("golden/logits/smollm2-135m.json").toFile());
    int checked = 0;
    try (Forward forward = new Forward(directory, LoadOptions.DEFAULT)) {
      for (var each : golden.get("base").properties()) {
        int[] prompt = ints(golden.at("/prompts/" + each.getKey() + "/ids"));
        meetsTop(forward, prompt, each.getValue().get("top20"), 2e-3);
        int[] expected = ints(each.getValue().get("tokens"));
        int safe = 0;
        while (safe < Math.min(4, expected.length)
            && each.getValue().get("gaps").get(safe).doubleValue() >= 1e-2) {
          safe++;
        }
        assertThat(forward.greedy(prompt, safe))
            .as(each.getKey())
            .containsExactlyElementsOf(Arrays.stream(expected).limit(safe).boxed().toList());
        checked++;
      }
    }
    assertThat(checked).isPositive();
  }

  /** The logits of the most probable next tokens, {@code [[token, logit], …]}. */
  private static void meetsTop(Forward forward, int[] prompt, JsonNode top, double tolerance) {
    float[] last = forward.last(prompt);
    assertThat(top).isNotEmpty();
    for (JsonNode pair : top) {
      int token = pair.get(0).intValue();
      assertThat((double) last[token])
          .as("token %d", token)
          .isCloseTo(pair.get(1).doubleValue(), within(tolerance));
    }
  }

  private static int[] ints(JsonNode ids) {
    int[] values = new int[ids.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = ids.get(i).intValue();
    }
    return values;
  }

  @Test
  void forward_cutsChangeNoBit() throws Exception {
    cutsChangeNoBit(Golden.smallest(), "nf4-dq");
  }

  @ParameterizedTest
  @ValueSource(strings = {"mistral", "qwen3", "qwen2_yarn"})
  void forward_cutsChangeNoBit(String name) throws Exception {
    var folder = ReferenceFolder.require("golden");
    cutsChangeNoBit(new Golden(folder.resolve("models"), folder.resolve("logits"), name), "nf4-dq");
  }

  private static void cutsChangeNoBit(Golden golden, String variant) throws Exception {
    int[] tokens = golden.prompt("p150");
    try (Forward forward = new Forward(golden.directory(variant), LoadOptions.AS_STORED)) {
      float[][] whole = forward.logits(tokens, tokens.length);
      int[] single = new int[tokens.length];
      Arrays.fill(single, 1);
      assertThat(forward.logits(tokens, single)).isDeepEqualTo(whole);
      long seed = System.nanoTime();
      Random random = new Random(seed);
      for (int round = 0; round < 3; round++) {
        List<Integer> pieces = new ArrayList<>();
        for (int left = tokens.length; left > 0; left -= pieces.getLast()) {
          pieces.add(1 + random.nextInt(Math.min(left, 40)));
        }
        int[] cut = pieces.stream().mapToInt(i -> i).toArray();
        assertThat(forward.logits(tokens, cut))
            .as("seed %d, %s", seed, pieces)
            .isDeepEqualTo(whole);
      }
    }
  }

  /** Quantizing at load is the same model as the stored codes, but for the 8-bit statistics. */
  @Test
  void forward_quantizedAtLoadIsTheStoredPlainCheckpoint() throws Exception {
    Golden golden = Golden.smallest();
    int[] tokens = golden.prompt("p24");
    LoadOptions plain = new LoadOptions(new QuantOptions(QuantType.NF4, 64, false), List.of());
    try (Forward stored = new Forward(golden.directory("nf4"), LoadOptions.AS_STORED);
        Forward loaded = new Forward(golden.directory("unquantized"), plain)) {
      assertThat(loaded.logits(tokens, tokens.length))
          .isDeepEqualTo(stored.logits(tokens, tokens.length));
    }
  }

  @Test
  void closed_everythingIsFreed() throws Exception {
    Forward forward = new Forward(Golden.smallest().directory("nf4-dq"), LoadOptions.AS_STORED);
    forward.logits(new int[] {1, 2, 3}, 3);
    assertThat(forward.cpu().liveBytes()).isPositive();
    forward.close();
    assertThat(forward.cpu().liveBytes()).isZero();
  }

  @Test
  void constructor_cacheOfAnotherModel() throws Exception {
    try (Forward forward = new Forward(Golden.smallest().directory("nf4"), LoadOptions.AS_STORED);
        KvCache cache = forward.backend().kvCache(new KvShape(3, 4, 16, 4, KvShape.Type.F32))) {
      assertThatThrownBy(() -> new Decoder(forward.model(), forward.backend(), cache, 1, 1))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("KV cache of 3 layers");
    }
  }
}
