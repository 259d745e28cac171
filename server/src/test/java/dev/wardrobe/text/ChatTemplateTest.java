package dev.wardrobe.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ChatTemplateTest {

  private static final List<Map<String, @Nullable Object>> HELLO =
      List.of(Map.of("role", "user", "content", "Hello"));

  private static String render(String template) throws TextException {
    return ChatTemplate.compile(template, Map.of()).render(ChatRequest.of(HELLO));
  }

  private static ChatRequest continuing(@Nullable Object content) {
    Map<String, @Nullable Object> message = new HashMap<>();
    message.put("role", "assistant");
    message.put("content", content);
    return new ChatRequest(List.of(message), null, null, false, true, Map.of(), Clock.systemUTC());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        // time
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x=[0]) %}"
            + "{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[0], y=[0]) %}{% for i in range(60) %}"
            + "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
            + "{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=[0]) %}"
            + "{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}"
            + "{% for i in range(99999) %}{% set ns.x = ns.x|map('upper') %}{% endfor %}"
            + "{{ ns.x|list }}",
        // memory
        "{{ 'a' * 10**12 }}",
        "{{ [0] * 10**12 }}",
        "{{ 'a'|center(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 9**(9**9) }}",
        "{% set ns = namespace(x='ab') %}"
            + "{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}"
            + "{% for i in range(60) %}{% set ns.x = ns.x|replace('', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=7) %}"
            + "{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
        "{{ [1]|batch(10**9, 0)|list }}",
        "{{ [1]|slice(10**9)|list }}",
        // depth
        "{% set ns = namespace(x=[]) %}"
            + "{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}"
            + "{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
      })
  @Timeout(60)
  void render_beyondLimits(String template) {
    assertThatThrownBy(() -> render(template)).isInstanceOf(TextException.class);
  }

  @Test
  @Timeout(60)
  void compile_deepNesting() {
    for (String template :
        List.of(
            "{{ " + "(".repeat(50_000),
            "{{ " + "[".repeat(50_000),
            "{{ " + "-".repeat(50_000) + "1 }}",
            "{{ " + "not ".repeat(50_000) + "1 }}",
            "{{ " + "1 if 1 else ".repeat(50_000) + "1 }}",
            "{% if 1 %}".repeat(50_000),
            "{% set " + "(".repeat(50_000))) {
      assertThatThrownBy(() -> ChatTemplate.compile(template, Map.of()))
          .isInstanceOf(TextException.class);
    }
  }

  @Test
  @Timeout(60)
  void render_longChains() {
    assertThatThrownBy(() -> render("{{ 1" + " + 1".repeat(50_000) + " }}"))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("deep");
    assertThatThrownBy(() -> render("{{ x" + ".x".repeat(50_000) + " }}"))
        .isInstanceOf(TextException.class);
  }

  @Test
  @Timeout(60)
  void render_longConversation() throws Exception {
    List<Map<String, @Nullable Object>> messages =
        java.util.stream.IntStream.range(0, 2000)
            .mapToObj(
                i -> {
                  Map<String, @Nullable Object> message = new HashMap<>();
                  message.put("role", i % 2 == 0 ? "user" : "assistant");
                  message.put("content", "word ".repeat(100));
                  return message;
                })
            .toList();
    String source = Files.readString(Golden.resource("chat/templates/hermes.jinja"));
    String text = ChatTemplate.compile(source, Map.of()).render(ChatRequest.of(messages));
    assertThat(text).hasSizeGreaterThan(1_000_000);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__() }}",
        "{{ ''['__class__'].x }}",
        "{{ (''|attr('__class__')).x }}",
        "{{ messages|map(attribute='__class__.__mro__')|list }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ range.__globals__.x }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ messages[0].pop('role') }}",
        "{{ messages.sort() }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
      })
  void render_forbidden(String template) {
    assertThatThrownBy(() -> render(template)).isInstanceOf(TextException.class);
  }

  @Test
  void render_nothingOfJavaIsReachable() throws Exception {
    assertThat(render("{{ ''.getClass }}{{ messages.getClass }}{{ messages.stream }}")).isEmpty();
    assertThat(render("{{ ''['class'] }}{{ messages[0].entrySet }}")).isEmpty();
  }

  @Test
  void compile_errorNamesPlace() {
    assertThatThrownBy(() -> ChatTemplate.compile("a\n{{ b }}\n  {{ 1 + }}", Map.of()))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("line 3, column 10");
    assertThatThrownBy(() -> ChatTemplate.compile("{% if x %}\n{% endfor %}", Map.of()))
        .hasMessageContaining("line 2, column 4")
        .hasMessageContaining("'{% endif %}'");
  }

  @Test
  void render_errorNamesLine() {
    assertThatThrownBy(() -> render("\n\n{{ messages[0].content + 1 }}"))
        .isInstanceOf(TextException.class)
        .hasMessage("chat template, line 3: can only concatenate str (not \"int\") to str");
  }

  @Test
  void render_raisedTextIsVerbatim() {
    assertThatThrownBy(() -> render("{{ raise_exception('Only <user> & co!') }}"))
        .isInstanceOf(TextException.class)
        .hasMessage("Only <user> & co!");
  }

  @Test
  void render_reservedVariable() {
    ChatRequest request =
        new ChatRequest(HELLO, null, null, true, false, Map.of("messages", 1), Clock.systemUTC());
    assertThatThrownBy(() -> ChatTemplate.compile("", Map.of()).render(request))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("'messages'");
  }

  @Test
  void render_continueFinalMessage() throws Exception {
    ChatTemplate chatml =
        ChatTemplate.compile(
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</end>{% endfor %}", Map.of());
    assertThat(chatml.render(continuing("Once upon "))).isEqualTo("<assistant>Once upon ");
    ChatTemplate trimming =
        ChatTemplate.compile(
            "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</end>{% endfor %}",
            Map.of());
    assertThat(trimming.render(continuing("Once upon "))).isEqualTo("<assistant>Once upon");
    ChatTemplate parts =
        ChatTemplate.compile("{{ messages[-1].content[0].text }}|content", Map.of());
    assertThat(parts.render(continuing(List.of(Map.of("type", "text", "text", "So")))))
        .isEqualTo("So");
    assertThatThrownBy(() -> chatml.render(continuing(null)))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("content");
    assertThatThrownBy(() -> ChatTemplate.compile("content", Map.of()).render(continuing("x")))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("does not appear");
  }

  @Test
  void render_numbersKeepTheirKind() throws Exception {
    Map<String, @Nullable Object> message = new HashMap<>();
    message.put("int", 2);
    message.put("long", 1L << 40);
    message.put("double", 2.0);
    message.put("nested", List.of(true, Map.of("k", 1.5f)));
    String text =
        ChatTemplate.compile("{{ messages[0]|tojson(sort_keys=true) }}", Map.of())
            .render(ChatRequest.of(List.of(message)));
    assertThat(text)
        .isEqualTo(
            "{\"double\": 2.0, \"int\": 2, \"long\": 1099511627776,"
                + " \"nested\": [true, {\"k\": 1.5}]}");
  }

  @Test
  void render_otherObjectIsRefused() {
    Map<String, @Nullable Object> message = Map.of("content", Duration.ZERO);
    assertThatThrownBy(
            () -> ChatTemplate.compile("", Map.of()).render(ChatRequest.of(List.of(message))))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("Duration");
  }

  @Test
  void renderWithSpans_insideMacro() throws Exception {
    ChatTemplate template =
        ChatTemplate.compile(
            "{% macro m() %}a{% generation %}b{% endgeneration %}{% endmacro %}{{ m() }}",
            Map.of());
    assertThat(template.render(ChatRequest.of(HELLO))).isEqualTo("ab");
    assertThatThrownBy(() -> template.renderWithSpans(ChatRequest.of(HELLO)))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("generation");
  }

  @Test
  void load_fromDirectory(@TempDir Path folder) throws Exception {
    assertThat(ChatTemplate.load(folder, Map.of())).isNull();
    Path config = folder.resolve("tokenizer_config.json");
    Files.writeString(config, "{\"chat_template\": \"C{{ bos_token }}\"}");
    assertThat(rendered(folder, false)).isEqualTo("C<s>");
    Files.writeString(
        config,
        """
        {"chat_template": [{"name": "default", "template": "D"},
                           {"name": "tool_use", "template": "T{{ tools|length }}"}]}
        """);
    assertThat(rendered(folder, false)).isEqualTo("D");
    assertThat(rendered(folder, true)).isEqualTo("T1");
    Files.writeString(folder.resolve("chat_template.jinja"), "F");
    assertThat(rendered(folder, true)).isEqualTo("F");
  }

  private static String rendered(Path folder, boolean tools) throws TextException {
    ChatTemplate template = ChatTemplate.load(folder, Map.of("bos_token", "<s>"));
    if (template == null) {
      throw new AssertionError("no template");
    }
    List<Map<String, @Nullable Object>> list = List.of(Map.of("type", "function"));
    return template.render(
        new ChatRequest(
            HELLO, tools ? list : null, null, true, false, Map.of(), Clock.systemUTC()));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{\"chat_template\": 5}",
        "{\"chat_template\": [5]}",
        "{\"chat_template\": [{\"name\": \"default\"}]}",
        "{\"chat_template\": \"{{\"}",
        "{\"chat_template\": \"x\"",
        "[]",
        "",
      })
  void load_malformed(String config, @TempDir Path folder) throws Exception {
    Files.writeString(folder.resolve("tokenizer_config.json"), config);
    assertThatThrownBy(() -> ChatTemplate.load(folder, Map.of())).isInstanceOf(TextException.class);
  }
}
