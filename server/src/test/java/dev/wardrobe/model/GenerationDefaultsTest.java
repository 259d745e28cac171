package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class GenerationDefaultsTest {
  @TempDir private Path dir;
  private ModelConfig config = readConfig();

  private static ModelConfig readConfig() {
    try {
      return ModelConfig.of(
          Fields.parse(
              "config.json",
              """
              {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "vocab_size": 9,
               "num_attention_heads": 1, "num_hidden_layers": 1, "eos_token_id": 5}
              """
                  .getBytes(StandardCharsets.UTF_8)));
    } catch (ModelException e) {
      throw new AssertionError(e);
    }
  }

  @BeforeEach
  void reset() {
    config = readConfig();
  }

  @Test
  void read_absentFileSaysNothing() throws Exception {
    GenerationDefaults defaults = GenerationDefaults.read(dir, config);
    assertThat(defaults)
        .isEqualTo(
            new GenerationDefaults(null, null, null, null, null, null, List.of(5), List.of()));
  }

  @Test
  void read_settings() throws ModelException {
    GenerationDefaults defaults =
        of(
            "{'temperature': 0.6, 'top_k': 50, 'top_p': 0.9, 'min_p': 0.05, 'do_sample': true,"
                + " 'repetition_penalty': 1.1, 'eos_token_id': [2, 3], 'pad_token_id': 0,"
                + " 'transformers_version': '4.46.0'}");
    assertThat(defaults)
        .isEqualTo(
            new GenerationDefaults(0.6f, 50, 0.9f, 0.05f, 1.1f, true, List.of(2, 3), List.of()));
  }

  @Test
  void read_notSampledIsGreedy() throws ModelException {
    assertThat(of("{'do_sample': false, 'temperature': 0.6}").temperature()).isEqualTo(0f);
    assertThat(of("{'temperature': 0.6}").temperature()).isEqualTo(0.6f);
    assertThat(of("{}").temperature()).isNull();
  }

  @Test
  void read_eosOfConfigWhereNoneIsGiven() throws ModelException {
    assertThat(of("{'eos_token_id': null}").eos()).containsExactly(5);
    assertThat(of("{'eos_token_id': 7}").eos()).containsExactly(7);
  }

  @Test
  void read_saysWhatIsNotApplied() throws ModelException {
    assertThat(of("{'no_repeat_ngram_size': 3, 'typical_p': 1.0, 'num_beams': 1}").ignored())
        .containsExactly("no_repeat_ngram_size 3");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{'temperature': -1} | temperature: expected a number",
        "{'temperature': 'hot'} | temperature: expected a number",
        "{'top_k': 1.5} | top_k: expected an integer",
        "{'top_p': 1.5} | top_p: expected a number from 0 to 1, got 1.5",
        "{'repetition_penalty': 0} | repetition_penalty: expected a number",
        "{'do_sample': 1} | do_sample: expected true or false",
        "{'eos_token_id': {}} | eos_token_id: expected a token id or a list of token ids",
      })
  void read_refused(String json, String message) {
    assertThatThrownBy(() -> of(json))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining(message.strip());
  }

  private GenerationDefaults of(String json) throws ModelException {
    byte[] bytes = json.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
    return GenerationDefaults.of(Fields.parse("generation_config.json", bytes), config);
  }
}
