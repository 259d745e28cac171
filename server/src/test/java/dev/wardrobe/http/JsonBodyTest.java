package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

final class JsonBodyTest {
  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  @Test
  void takesTheTokensOfALongContext() throws FieldException {
    byte[] body = bytes("{\"prompt\": [0" + ",15496".repeat(2_000_000) + "]}");

    assertThat(JsonBody.read(body).get("prompt").size()).isEqualTo(2_000_001);
  }

  @Test
  void refusesMoreObjectsThanAnyRequestHas() {
    byte[] body = bytes("{\"prompt\": [{}" + ",{}".repeat(2_000_000) + "]}");

    assertThatThrownBy(() -> JsonBody.read(body))
        .isInstanceOf(FieldException.class)
        .hasMessageContaining("expected at most 2500000 values");
  }

  @Test
  void refusesWhatIsNestedTooDeeply() {
    assertThatThrownBy(() -> JsonBody.read(bytes("{\"a\":" + "[".repeat(201))))
        .isInstanceOf(FieldException.class)
        .hasMessageContaining("200 levels");
  }
}
