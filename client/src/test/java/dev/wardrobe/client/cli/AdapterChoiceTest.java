package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.v1.GenerateRequest;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class AdapterChoiceTest {
  private static GenerateRequest request(String... words) {
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    AdapterChoice.of(List.of(words)).in(request);
    return request.build();
  }

  @Test
  void in_noneOneAndSeveral() {
    assertThat(request()).isEqualTo(GenerateRequest.getDefaultInstance());
    assertThat(request("sql")).isEqualTo(GenerateRequest.newBuilder().setAdapter("sql").build());
    assertThat(request("sql@prod=-0.5"))
        .isEqualTo(
            GenerateRequest.newBuilder().setAdapter("sql@prod").setAdapterScale(-0.5f).build());
    GenerateRequest mix = request("support=0.7", "terse");
    assertThat(mix.hasAdapter()).isFalse();
    assertThat(mix.hasAdapterScale()).isFalse();
    assertThat(mix.getAdapters(0).getAdapter()).isEqualTo("support");
    assertThat(mix.getAdapters(0).getWeight()).isEqualTo(0.7f);
    assertThat(mix.getAdapters(1).getAdapter()).isEqualTo("terse");
    assertThat(mix.getAdapters(1).hasWeight()).isFalse();
    assertThat(AdapterChoice.of(List.of("a=0.5", "b"))).hasToString("a=0.5 b");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "=0.5", "a=", "a=x", "a=0,5"})
  void of_neitherNameNorNameAndWeight(String word) {
    assertThatThrownBy(() -> AdapterChoice.of(List.of(word)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("NAME=WEIGHT")
        .hasMessageContaining("'" + word + "'");
  }
}
