package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The expected values are those of transformers 5.23's {@code should_convert_module}. */
final class SkipRuleTest {
  @ParameterizedTest
  @CsvSource({
    "o_proj, model.layers.0.self_attn.o_proj, true",
    "o_proj, model.layers.0.self_attn.k_proj, false",
    "layers.1.mlp.down_proj, model.layers.1.mlp.down_proj, true",
    "layers.1.mlp.down_proj, model.layers.11.mlp.down_proj, false",
    "model.layers.1, model.layers.1.mlp.down_proj, true",
    "model.layers.1, model.layers.11.mlp.down_proj, false",
    "model.layers.1., model.layers.1.mlp.up_proj, true",
    "model.layers.*, model.layers.11.mlp.up_proj, true",
    "model.layers.0|model.layers.2, model.layers.2.mlp.up_proj, true",
    "model.layers.0|model.layers.2, model.layers.21.mlp.up_proj, false",
    "layers.1, model.layers.1.mlp.down_proj, false",
    "proj, model.layers.1.mlp.down_proj, true",
    "'model\\.layers\\.\\d\\.mlp', model.layers.1.mlp.down_proj, true",
    "'model\\.layers\\.\\d\\.mlp', model.layers.11.mlp.down_proj, false",
    "anything, lm_head, true",
  })
  void skips(String entry, String path, boolean expected) throws ModelException {
    assertThat(new SkipRule(List.of(entry)).skips(path)).isEqualTo(expected);
  }

  @Test
  void entries_alwaysNameTheHead() throws ModelException {
    assertThat(new SkipRule(List.of()).entries()).containsExactly("lm_head");
    assertThat(new SkipRule(List.of("o_proj")).entries()).containsExactly("lm_head", "o_proj");
    assertThat(new SkipRule(List.of("o_proj", "lm_head")).entries())
        .containsExactly("o_proj", "lm_head");
  }

  @Test
  void refused() {
    assertThatThrownBy(() -> new SkipRule(List.of("(")))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("skip '(': not a regular expression");
    assertThatThrownBy(() -> new SkipRule(List.of("")))
        .isInstanceOf(ModelException.class)
        .hasMessageContaining("would match every module");
  }
}
