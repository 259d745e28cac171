package dev.wardrobe.text;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.safetensors.ReferenceFolder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** Every rendering that transformers made for the reference data, and every refusal. */
class ChatGoldenTest {

  private static final TypeReference<List<Map<String, @Nullable Object>>> MAPS =
      new TypeReference<>() {};

  @Test
  void render_ownTemplates() throws Exception {
    JsonNode golden = Golden.json(Golden.resource("chat/cases.json"));
    Map<String, String> tokens = tokens(golden);
    check(golden, golden, Golden.resource("chat/templates"), name -> tokens, 439);
  }

  @Test
  void render_realTemplates() throws Exception {
    Path folder = ReferenceFolder.require("golden/chat/real");
    JsonNode golden = Golden.json(folder.resolve("cases.json"));
    JsonNode conversations = Golden.json(ReferenceFolder.require("golden/chat/cases.json"));
    check(
        golden,
        conversations,
        folder,
        name -> {
          Map<String, String> tokens = tokens(golden.get("special_tokens").get(name));
          tokens.putIfAbsent("bos_token", "<|bos|>");
          return tokens;
        },
        1);
  }

  private static void check(
      JsonNode golden,
      JsonNode shared,
      Path templates,
      Function<String, Map<String, String>> tokens,
      int atLeast)
      throws Exception {
    List<String> wrong = new ArrayList<>();
    int checked = 0;
    for (JsonNode testCase : golden.get("cases")) {
      String name = testCase.get("template").textValue();
      String source = Files.readString(templates.resolve(name + ".jinja"));
      String expected =
          testCase.has("expected")
              ? "text: " + testCase.get("expected").textValue()
              : testCase.get("error").textValue().equals("TemplateError")
                  ? "raised: " + testCase.get("message").textValue()
                  : "error";
      String actual;
      try {
        ChatTemplate template = ChatTemplate.compile(source, tokens.apply(name));
        actual = "text: " + template.render(request(golden, shared, testCase));
      } catch (TextException e) {
        actual = expected.startsWith("raised: ") ? "raised: " + e.getMessage() : "error";
      }
      checked++;
      if (!actual.equals(expected)) {
        wrong.add(testCase + "\n  got " + actual);
      }
    }
    assertThat(wrong).isEmpty();
    assertThat(checked).isGreaterThanOrEqualTo(atLeast);
  }

  private static ChatRequest request(JsonNode golden, JsonNode shared, JsonNode testCase) {
    JsonNode conversation =
        shared.get("conversations").get(testCase.get("conversation").textValue());
    Map<String, @Nullable Object> kwargs =
        testCase.has("kwargs")
            ? Golden.MAPPER.convertValue(testCase.get("kwargs"), new TypeReference<>() {})
            : Map.of();
    return new ChatRequest(
        Golden.MAPPER.convertValue(conversation, MAPS),
        testCase.has("tools") ? Golden.MAPPER.convertValue(shared.get("TOOLS"), MAPS) : null,
        null,
        testCase.path("add_generation_prompt").booleanValue(),
        testCase.path("continue_final_message").booleanValue(),
        kwargs,
        Clock.fixed(
            LocalDateTime.parse(golden.get("now").textValue()).toInstant(ZoneOffset.UTC),
            ZoneOffset.UTC));
  }

  private static Map<String, String> tokens(JsonNode node) {
    Map<String, String> tokens = new HashMap<>();
    for (String name : List.of("bos_token", "eos_token", "pad_token")) {
      if (node.path(name).isTextual()) {
        tokens.put(name, node.get(name).textValue());
      }
    }
    return tokens;
  }

  @Test
  void encode_assistantMasks() throws Exception {
    JsonNode golden = Golden.json(Golden.resource("chat/cases.json"));
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      assertThat(golden.get("assistant_masks")).isNotEmpty();
      for (JsonNode testCase : golden.get("assistant_masks")) {
        String source =
            Files.readString(
                Golden.resource(
                    "chat/templates/" + testCase.get("template").textValue() + ".jinja"));
        RenderedChat chat =
            ChatTemplate.compile(source, tokens(golden))
                .renderWithSpans(request(golden, golden, testCase));
        Tokenizer.MaskedTokens masked = tokenizer.encode(chat);
        assertThat(masked.ids()).isEqualTo(Golden.ints(testCase.get("input_ids")));
        int[] mask = new int[masked.assistant().length];
        for (int i = 0; i < mask.length; i++) {
          mask[i] = masked.assistant()[i] ? 1 : 0;
        }
        assertThat(mask)
            .as(testCase.get("conversation").textValue())
            .isEqualTo(Golden.ints(testCase.get("assistant_masks")));
      }
    }
  }
}
