package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.v1.GenerateRequest;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

final class PlainValuesTest {

  @Test
  void struct_numbersWithoutFraction_areWhole() throws Exception {
    Struct.Builder struct = Struct.newBuilder();
    JsonFormat.parser()
        .merge(
            "{\"z\":1,\"a\":1.5,\"big\":1e300,\"neg\":-3,\"none\":null,\"yes\":true,"
                + "\"list\":[1,null,{\"s\":\"x\"}]}",
            struct);

    Map<String, @Nullable Object> plain = PlainValues.struct(struct.build());

    assertThat(plain.keySet()).containsExactly("z", "a", "big", "neg", "none", "yes", "list");
    assertThat(plain)
        .containsEntry("z", 1L)
        .containsEntry("a", 1.5)
        .containsEntry("big", 1e300)
        .containsEntry("neg", -3L)
        .containsEntry("none", null)
        .containsEntry("yes", true)
        .containsEntry("list", Arrays.asList(1L, null, Map.of("s", "x")));
  }

  @Test
  void messages_onlyWhatIsSet() throws Exception {
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    JsonFormat.parser()
        .merge(
            "{\"messages\":[{\"role\":\"user\",\"content\":\"\"},"
                + "{\"role\":\"assistant\",\"reasoning_content\":\"hm\",\"tool_calls\":["
                + "{\"id\":\"c1\",\"type\":\"function\",\"function\":"
                + "{\"name\":\"f\",\"arguments\":{\"n\":2}}},"
                + "{\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
                + "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"name\":\"f\",\"content\":\"3\"}]}",
            request);

    assertThat(PlainValues.messages(request.getMessagesList()))
        .isEqualTo(
            List.of(
                Map.of("role", "user", "content", ""),
                Map.of(
                    "role",
                    "assistant",
                    "reasoning_content",
                    "hm",
                    "tool_calls",
                    List.of(
                        Map.of(
                            "id",
                            "c1",
                            "type",
                            "function",
                            "function",
                            Map.of("name", "f", "arguments", Map.of("n", 2L))),
                        Map.of("function", Map.of("name", "g", "arguments", "{}")))),
                Map.of("role", "tool", "tool_call_id", "c1", "name", "f", "content", "3")));
  }
}
