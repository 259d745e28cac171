package dev.wardrobe.sampling;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.model.GenerationDefaults;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class SamplingRequestTest {
  private static final GenerationDefaults SILENT =
      new GenerationDefaults(null, null, null, null, null, null, List.of(), List.of());
  private static final SamplingRequest UNSET =
      new SamplingRequest(null, null, null, null, null, null, null, null, Map.of(), null);

  private static SamplingParams params(String name, float value) {
    return new SamplingParams(
        name.equals("temperature") ? value : 1,
        name.equals("top_k") ? (int) value : 0,
        name.equals("top_p") ? value : 1,
        name.equals("min_p") ? value : 0,
        name.equals("repetition_penalty") ? value : 1,
        name.equals("presence_penalty") ? value : 0,
        name.equals("frequency_penalty") ? value : 0,
        0);
  }

  @Test
  void resolve_nothingSaid_drawsSeed() {
    SamplingParams first = UNSET.resolve(SILENT);
    SamplingParams second = UNSET.resolve(SILENT);

    assertThat(first)
        .isEqualTo(new SamplingParams(1, 0, 1, 0, 1, 0, 0, first.seed()))
        .isNotEqualTo(second);
    assertThat(first.seed()).isBetween(0L, 1L << 53);
  }

  @Test
  void resolve_requestBeforeModelBeforeDefault() {
    GenerationDefaults model =
        new GenerationDefaults(0.6f, 20, 0.9f, null, 1.05f, true, List.of(), List.of());
    SamplingRequest request =
        new SamplingRequest(null, 5, null, 0.1f, null, 0.5f, null, -1L, Map.of(), null);

    assertThat(request.resolve(model))
        .isEqualTo(new SamplingParams(0.6f, 5, 0.9f, 0.1f, 1.05f, 0.5f, 0, -1));
  }

  @Test
  void resolve_modelThatDoesNotSample_isGreedy() {
    GenerationDefaults greedy =
        new GenerationDefaults(0.7f, null, null, null, null, false, List.of(), List.of());

    assertThat(UNSET.resolve(greedy).temperature()).isZero();
    assertThat(
            new SamplingRequest(0.5f, null, null, null, null, null, null, null, Map.of(), null)
                .resolve(greedy)
                .temperature())
        .isEqualTo(0.5f);
  }

  @Test
  void resolve_badModelValue_saysWhereItIsFrom() {
    GenerationDefaults bad =
        new GenerationDefaults(null, null, 0f, null, null, null, List.of(), List.of());

    assertThatThrownBy(() -> UNSET.resolve(bad))
        .isInstanceOf(SamplingException.class)
        .hasMessageContaining("top_p")
        .hasMessageContaining("generation_config.json");
    assertThatThrownBy(
            () ->
                new SamplingRequest(null, null, 2f, null, null, null, null, null, Map.of(), null)
                    .resolve(bad))
        .isInstanceOf(SamplingException.class)
        .hasMessageContaining("got 2.0")
        .hasMessageNotContaining("generation_config.json");
  }

  @Test
  void params_biases() {
    SamplingParams biased =
        new SamplingParams(1, 0, 1, 0, 1, 0, 0, 5, Map.of(3, -100f, 4, 100f), 7);
    assertThat(biased.withSeed(6))
        .isEqualTo(new SamplingParams(1, 0, 1, 0, 1, 0, 0, 6, Map.of(3, -100f, 4, 100f), 7));
    for (float bad : new float[] {-100.5f, 101, Float.NaN, Float.NEGATIVE_INFINITY}) {
      assertThatThrownBy(() -> new SamplingParams(1, 0, 1, 0, 1, 0, 0, 5, Map.of(3, bad), 0))
          .isInstanceOf(SamplingException.class)
          .hasMessageContaining("logit_bias")
          .hasMessageContaining("got " + bad);
    }
    Map<Integer, Float> many = new HashMap<>();
    for (int i = 0; i <= SamplingParams.MOST_BIASED; i++) {
      many.put(i, 1f);
    }
    assertThatThrownBy(() -> new SamplingParams(1, 0, 1, 0, 1, 0, 0, 5, many, 0))
        .isInstanceOf(SamplingException.class)
        .hasMessageContaining("at most 1024 tokens, got 1025");
    assertThatThrownBy(() -> new SamplingParams(1, 0, 1, 0, 1, 0, 0, 5, Map.of(), -1))
        .isInstanceOf(SamplingException.class)
        .hasMessageContaining("min_tokens");
  }

  @ParameterizedTest
  @CsvSource({
    "temperature, -0.1",
    "temperature, 101",
    "top_k, -1",
    "top_p, 0",
    "top_p, 1.01",
    "min_p, -0.1",
    "min_p, 1.1",
    "repetition_penalty, 0",
    "repetition_penalty, -1",
    "repetition_penalty, 101",
    "presence_penalty, 2.1",
    "frequency_penalty, -2.1"
  })
  void params_outOfRange(String name, float value) {
    assertThatThrownBy(() -> params(name, value))
        .isInstanceOfSatisfying(
            SamplingException.class, e -> assertThat(e.parameter()).isEqualTo(name))
        .hasMessageContaining(name)
        .hasMessageContaining("expected")
        .hasMessageContaining("got " + (name.equals("top_k") ? "" + (int) value : "" + value));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "temperature",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty"
      })
  void params_notANumber(String name) {
    assertThatThrownBy(() -> params(name, Float.NaN)).isInstanceOf(SamplingException.class);
    assertThatThrownBy(() -> params(name, Float.POSITIVE_INFINITY))
        .isInstanceOf(SamplingException.class);
  }
}
