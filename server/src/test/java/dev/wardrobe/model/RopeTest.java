package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

final class RopeTest {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  static List<Arguments> cases() throws IOException {
    try (var in = RopeTest.class.getResourceAsStream("/golden/rope/rope.json")) {
      JsonNode root = MAPPER.readTree(in);
      List<Arguments> cases = new ArrayList<>();
      root.properties().forEach(e -> cases.add(Arguments.of(e.getKey(), e.getValue())));
      assertThat(cases).isNotEmpty();
      return cases;
    }
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("cases")
  void tables_equalTransformers(String name, JsonNode expected) throws ModelException {
    ObjectNode config = MAPPER.createObjectNode();
    config.set("rope_parameters", expected.get("rope_parameters"));
    Rope rope = Rope.read(new Fields("config.json", config), expected.get("context").intValue());

    assertThat(rope.attentionFactor()).isEqualTo(expected.get("attention_factor").doubleValue());
    float[] inverse = rope.inverseFrequencies(expected.get("head_dim").intValue());
    JsonNode frequencies = expected.get("inv_freq");
    assertThat(inverse).hasSize(frequencies.size());
    for (int i = 0; i < inverse.length; i++) {
      // torch's power function may be an ulp off the nearest float.
      float e = (float) frequencies.get(i).doubleValue();
      assertThat(Math.abs((double) inverse[i] - e))
          .as("frequency %d: expected %s, got %s", i, e, inverse[i])
          .isLessThanOrEqualTo(Math.ulp(e));
    }
    float[] cos = new float[inverse.length];
    float[] sin = new float[inverse.length];
    JsonNode positions = expected.get("positions");
    for (int p = 0; p < positions.size(); p++) {
      int position = positions.get(p).intValue();
      rope.rotation(inverse, position, cos, sin, 0);
      for (int i = 0; i < inverse.length; i++) {
        double tolerance = 2.5e-7 + 2.0 * position * Math.ulp(inverse[i]);
        double expectedCos = expected.get("cos").get(p).get(i).doubleValue();
        double expectedSin = expected.get("sin").get(p).get(i).doubleValue();
        assertThat((double) cos[i])
            .as("cos %d, %d", p, i)
            .isCloseTo(expectedCos, within(tolerance));
        assertThat((double) sin[i])
            .as("sin %d, %d", p, i)
            .isCloseTo(expectedSin, within(tolerance));
      }
    }
  }

  @Test
  void read_version4IsVersion5() throws ModelException {
    assertThat(read("{'rope_theta': 500000.0}"))
        .isEqualTo(read("{'rope_parameters': {'rope_type': 'default', 'rope_theta': 500000.0}}"));
    assertThat(read("{'rope_theta': 5e4, 'rope_scaling': {'type': 'linear', 'factor': 4.0}}"))
        .isEqualTo(
            read("{'rope_parameters': {'rope_type': 'linear', 'factor': 4, 'rope_theta': 50000}}"));
    assertThat(
            read(
                "{'rope_theta': 1e4, 'rope_scaling': {'rope_type': 'yarn', 'type': 'yarn',"
                    + " 'factor': 2.0, 'original_max_position_embeddings': 256}}"))
        .isEqualTo(
            read(
                "{'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 2.0,"
                    + " 'original_max_position_embeddings': 256}}"));
  }

  @Test
  void read_absentIsDefault() throws ModelException {
    assertThat(read("{}")).isEqualTo(Rope.unscaled(10000));
    assertThat(read("{'rope_scaling': null, 'rope_theta': 7}")).isEqualTo(Rope.unscaled(7));
  }

  @Test
  void read_yarnInfersFactorAndContext() throws ModelException {
    Rope rope =
        read(
            "{'rope_parameters': {'rope_type': 'yarn', 'factor': null,"
                + " 'original_max_position_embeddings': 128}}");
    assertThat(rope.factor()).isEqualTo(4);
    assertThat(read("{'rope_parameters': {'rope_type': 'yarn', 'factor': 2}}").originalContext())
        .isEqualTo(512);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{'rope_type': 'dynamic', 'factor': 2.0} | 'dynamic' is not supported; supported are"
            + " default, linear, llama3, yarn",
        "{'rope_type': 'longrope', 'short_factor': [1]} | 'longrope' is not supported",
        "{'rope_type': 'proportional'} | 'proportional' is not supported",
        "{'type': 'mrope', 'mrope_section': [1, 2]} | 'mrope' is not supported",
        "{'full_attention': {'rope_type': 'default'}} | per layer type",
        "{'rope_type': 'linear'} | factor is missing",
        "{'rope_type': 'linear', 'factor': 'x'} | factor: expected a number",
        "{'rope_type': 'linear', 'factor': 0} | factor: expected a number",
        "{'rope_type': 'linear', 'factor': 1e999} | factor: expected a number",
        "{'rope_type': 'default', 'rope_theta': -1} | rope_theta: expected a number",
        "{'rope_type': 'default', 'factor': 2} | factor is not used by rope_type 'default'",
        "{'rope_type': 'default', 'mrope_section': [1]} | mrope_section is not used",
        "{'rope_type': 'default', 'partial_rotary_factor': 0.5} | partial_rotary_factor 0.5",
        "{'rope_type': 'llama3', 'factor': 8} | low_freq_factor is missing",
        "{'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 4, 'high_freq_factor': 4} |"
            + " must be greater than low_freq_factor",
        "{'rope_type': 'yarn', 'factor': 2, 'truncate': 1} | truncate: expected true or false",
        "{'rope_type': 'yarn', 'factor': 2, 'rope_theta': 1} | must be above 1",
      })
  void read_refused(String rope, String message) {
    assertThatThrownBy(() -> read("{'rope_parameters': " + rope + "}"))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining(message.strip());
  }

  private static Rope read(String json) throws ModelException {
    byte[] bytes = json.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
    return Rope.read(Fields.parse("config.json", bytes), 512);
  }
}
