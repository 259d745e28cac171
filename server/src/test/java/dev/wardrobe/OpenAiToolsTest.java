package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Tools over HTTP: the embedded model with a chat template that has a place for them. */
final class OpenAiToolsTest {
  private static final String CHAT = "/v1/chat/completions";
  private static final String TEMPLATE =
      """
      {%- if tools %}{{ '<|system|>' + (tools | tojson) + ' <tool_call>' + '<|end|>' }}{% endif -%}
      {%- for m in messages -%}
      {{ '<|' + ('user' if m['role'] == 'tool' else m['role']) + '|>' + (m['content'] or '') }}
      {%- for call in m['tool_calls'] or [] -%}
      {{ '<tool_call>' + (call['function'] | tojson) + '</tool_call>' }}
      {%- endfor -%}
      {{ '<|end|>' }}
      {%- endfor -%}
      {%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif -%}
      """;

  private static final String TOOLS =
      """
      "tools": [
        {"type": "function", "function": {"name": "find", "description": "x", "parameters":
          {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}, "$ref": {"type": "boolean"}},
           "required": ["a", "$ref"], "$defs": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}}}},
        {"type": "function", "function": {"name": "stop"}}]
      """;

  @TempDir private static Path folder;
  private static Stack stack;
  private static HttpFrontend frontend;
  private static OpenAiClient client;

  @BeforeAll
  static void start() throws Exception {
    Path from = Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo/base");
    Path model = Files.createDirectory(folder.resolve("caller"));
    try (Stream<Path> files = Files.list(from)) {
      for (Path file : files.toList()) {
        Files.copy(file, model.resolve(file.getFileName()));
      }
    }
    Files.writeString(model.resolve("chat_template.jinja"), TEMPLATE);
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new picocli.CommandLine(arguments).parseArgs("--model", model.toString());
    stack = new Stack(arguments, List.of(), AdapterOptions.DEFAULT);
    frontend = stack.frontend(List.of());
    client = new OpenAiClient(frontend.listen("127.0.0.1", 0));
  }

  @AfterAll
  static void stop() throws IOException {
    client.close();
    frontend.close();
    stack.close();
  }

  private static String body(String more) {
    return "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"seed\": 3, %s, %s}"
        .formatted(TOOLS, more);
  }

  /** A call as it was streamed. */
  private static final class Call {
    private String name = "";
    private final StringBuilder arguments = new StringBuilder();

    @Override
    public String toString() {
      return name + " " + arguments;
    }
  }

  private static List<String> streamed(String body) throws Exception {
    Map<Integer, Call> calls = new TreeMap<>();
    String reason = "";
    for (JsonNode event : client.stream(CHAT, body)) {
      JsonNode choice = event.at("/choices/0");
      reason = choice.path("finish_reason").asText(reason);
      assertThat(choice.at("/delta/content").asText()).isEmpty();
      for (JsonNode delta : choice.at("/delta/tool_calls")) {
        Call call = calls.computeIfAbsent(delta.path("index").intValue(), _ -> new Call());
        if (delta.has("id")) {
          assertThat(call.name).isEmpty();
          assertThat(delta.path("type").textValue()).isEqualTo("function");
          call.name = delta.at("/function/name").textValue();
        }
        call.arguments.append(delta.at("/function/arguments").asText());
      }
    }
    assertThat(reason).isEqualTo("tool_calls");
    return calls.values().stream().map(Call::toString).toList();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 120
          "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 120, "seed": 9
          "tool_choice": {"type": "function", "function": {"name": "find"}}, "max_tokens": 120
          "tool_choice": {"type": "function", "function": {"name": "stop"}}, "max_tokens": 120
          """)
  void calls_thatHaveToBe_areOfTheirSchemas(String choice) throws Exception {
    String body =
        body(choice).replaceFirst("\"seed\": 3, ", choice.contains("seed") ? "" : "\"seed\": 3, ");
    JsonNode answer = client.good(CHAT, body).at("/choices/0");
    assertThat(answer.path("finish_reason").textValue()).isEqualTo("tool_calls");
    assertThat(answer.at("/message/content").isNull()).isTrue();
    List<String> calls = new ArrayList<>();
    for (JsonNode call : answer.at("/message/tool_calls")) {
      String name = call.at("/function/name").textValue();
      JsonNode arguments = OpenAiClient.JSON.readTree(call.at("/function/arguments").textValue());
      if (name.equals("find")) {
        assertThat(arguments.fieldNames()).toIterable().containsExactly("a", "$ref");
        assertThat(arguments.path("a").intValue()).isBetween(0, 9);
        assertThat(arguments.path("$ref").isBoolean()).isTrue();
      } else {
        assertThat(name).isEqualTo("stop");
        assertThat(arguments.isEmpty()).isTrue();
      }
      calls.add(name + " " + call.at("/function/arguments").textValue());
    }
    assertThat(calls).hasSize(1);
    assertThat(streamed(body.replaceFirst("\\{", "{\"stream\": true, "))).isEqualTo(calls);
  }

  @Test
  void calls_ofTheModelsOwn_areFound() throws Exception {
    String call =
        "<tool_call>\\\\n"
            + "\\\\{\"name\": \"find\", \"arguments\": \\\\{\"a\": 1\\\\}\\\\}\\\\n"
            + "</tool_call>";
    String body =
        body(
            "\"max_tokens\": 80, \"guided_regex\": \"Well\\\\n%s\\\\n%s\""
                .formatted(call.replace("\"", "\\\""), call.replace("\"", "\\\"")));
    // A form of the answer's own turns calls off.
    JsonNode held = client.good(CHAT, body).at("/choices/0/message");
    assertThat(held.has("tool_calls")).isFalse();
    assertThat(held.path("content").textValue()).startsWith("Well\n<tool_call>");
    JsonNode free = client.good(CHAT, body("\"max_tokens\": 5")).at("/choices/0");
    assertThat(free.path("finish_reason").textValue()).isIn("length", "stop");
    JsonNode none = client.good(CHAT, body("\"tool_choice\": \"none\", \"max_tokens\": 5"));
    assertThat(none.at("/usage/prompt_tokens").intValue()).isLessThan(20);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          "tool_choice": "sometimes" | tool_choice | expected auto, none, required
          "tool_choice": {"type": "function", "function": {"name": "other"}} | tool_choice.function.name | find, stop
          "tool_choice": {"type": "allowed_tools"} | tool_choice | expected {"type": "function"
          "tool_choice": "required", "response_format": {"type": "json_object"} | response_format | leave one
          """)
  void badChoices_areNamed(String choice, String parameter, String message) throws Exception {
    OpenAiClient.Answer answer = client.ask(CHAT, body(choice));
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(400);
    assertThat(answer.error().path("param").textValue()).isEqualTo(parameter);
    assertThat(answer.error().path("message").textValue()).contains(message);
  }

  @Test
  void badTools_areNamed() throws Exception {
    String body =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"tools\": [%s],"
            + " \"tool_choice\": \"required\"}";
    OpenAiClient.Answer custom = client.ask(CHAT, body.formatted("{\"type\": \"custom\"}"));
    assertThat(custom.error().path("param").textValue()).isEqualTo("tools[0].type");
    OpenAiClient.Answer schema =
        client.ask(
            CHAT,
            body.formatted(
                "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\":"
                    + " {\"type\": \"foo\"}}}"));
    assertThat(schema.status()).isEqualTo(400);
    assertThat(schema.error().path("param").textValue()).isEqualTo("tools");
  }

  @Test
  void aConversationWithCalls_isRendered() throws Exception {
    String body =
        """
        {"messages": [{"role": "user", "content": "Hi"},
          {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{\\"a\\": 1}"}}]},
          {"role": "tool", "tool_call_id": "call_1", "content": "two"}]}
        """;
    JsonNode tokens = client.good("/tokenize", body);
    JsonNode text =
        client.good("/detokenize", "{\"tokens\": %s}".formatted(tokens.path("tokens").toString()));
    assertThat(text.path("prompt").textValue())
        .contains("<tool_call>{\"name\": \"find\", \"arguments\": {\"a\": 1}}</tool_call>")
        .contains("<|user|>two");
  }
}
