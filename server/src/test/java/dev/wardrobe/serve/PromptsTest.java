package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.wardrobe.engine.TestBase;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class PromptsTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root", ".."), "deploy/models/demo/base");
  private static final int VOCABULARY = 1536;

  @TempDir private Path folder;

  private static GenerateRequest.Builder request() {
    return GenerateRequest.newBuilder();
  }

  private static Message message(String role, String content) {
    return Message.newBuilder().setRole(role).setContent(content).build();
  }

  /** The demo's tokenizer with another template. */
  private Prompts withTemplate(String template) throws Exception {
    Files.copy(DEMO.resolve("tokenizer.json"), folder.resolve("tokenizer.json"));
    Files.writeString(folder.resolve("chat_template.jinja"), template);
    return Prompts.read(folder, VOCABULARY, Thread::new);
  }

  private static void refused(
      Prompts prompts, GenerateRequest.Builder request, Code code, String... said) {
    assertThatThrownBy(() -> prompts.tokens(request.build()))
        .isInstanceOfSatisfying(
            RequestException.class,
            e -> {
              assertThat(e.code()).isEqualTo(code);
              assertThat(e.getMessage()).contains(said);
            });
  }

  @Test
  void tokens_ofEachKind() throws Exception {
    try (Prompts prompts = Prompts.read(DEMO, VOCABULARY, Thread::new)) {
      int[] text = prompts.tokens(request().setPrompt("Where is my order?").build());
      int[] ids = prompts.tokens(request().addTokenIds(5).addTokenIds(1535).build());
      int[] chat = prompts.tokens(request().addMessages(message("user", "Hello")).build());

      assertThat(text).hasSizeGreaterThan(2);
      assertThat(ids).containsExactly(5, 1535);
      // <|user|> … <|end|> <|assistant|>, and no further special token in front.
      assertThat(chat).startsWith(3).endsWith(1, 4).doesNotContain(2);
    }
  }

  @Test
  void tokens_notExactlyOneKind() throws Exception {
    try (Prompts prompts = Prompts.read(DEMO, VOCABULARY, Thread::new)) {
      refused(prompts, request(), Code.INVALID_ARGUMENT, "exactly one", "none");
      refused(prompts, request().setPrompt("a").addTokenIds(1), Code.INVALID_ARGUMENT, "got 2");
      refused(prompts, request().setPrompt(""), Code.INVALID_ARGUMENT, "no tokens", "give");
      refused(
          prompts,
          request().addTokenIds(VOCABULARY),
          Code.INVALID_ARGUMENT,
          "token_ids",
          "1536",
          "got 1536");
      refused(prompts, request().addTokenIds(-1), Code.INVALID_ARGUMENT, "4294967295");
      refused(
          prompts,
          request().setPrompt("a").addTools(Struct.getDefaultInstance()),
          Code.INVALID_ARGUMENT,
          "tools");
      refused(
          prompts,
          request().addTokenIds(1).setAddSpecialTokens(true),
          Code.INVALID_ARGUMENT,
          "add_special_tokens");
      refused(
          prompts,
          request()
              .addMessages(message("assistant", "a"))
              .setContinueFinalMessage(true)
              .setAddGenerationPrompt(true),
          Code.INVALID_ARGUMENT,
          "continue_final_message");
    }
  }

  @Test
  void tokens_vocabularySmallerThanTheTokenizers() throws Exception {
    try (Prompts prompts = Prompts.read(DEMO, 100, Thread::new)) {
      refused(
          prompts, request().setPrompt("order"), Code.FAILED_PRECONDITION, "vocabulary has 100");
    }
  }

  @Test
  void noTokenizer_takesTokenIds() throws Exception {
    try (Prompts prompts =
        Prompts.read(TestBase.resource("models/llama_mha-nf4-dq"), 512, Thread::new)) {
      assertThat(prompts.hasTokenizer()).isFalse();
      assertThat(prompts.stream()).isNull();
      assertThat(prompts.tokens(request().addTokenIds(7).build())).containsExactly(7);
      refused(prompts, request().setPrompt("a"), Code.FAILED_PRECONDITION, "prompt", "token_ids");
      refused(
          prompts,
          request().addMessages(message("user", "a")),
          Code.FAILED_PRECONDITION,
          "messages",
          "token_ids");
    }
  }

  @Test
  void template_errorsAreTheCallers() throws Exception {
    try (Prompts prompts = withTemplate("{{ raise_exception('only users may speak') }}")) {
      refused(
          prompts,
          request().addMessages(message("user", "a")),
          Code.INVALID_ARGUMENT,
          "only users may speak");
      assertThat(prompts.tokens(request().setPrompt("still fine").build())).isNotEmpty();
    }
  }

  @Test
  void template_thatCannotBeRead_spoilsOnlyConversations() throws Exception {
    try (Prompts prompts = withTemplate("{% nonsense %}")) {
      assertThat(prompts.hasTemplate()).isFalse();
      refused(
          prompts,
          request().addMessages(message("user", "a")),
          Code.FAILED_PRECONDITION,
          "nonsense",
          "prompt");
      assertThat(prompts.tokens(request().setPrompt("still fine").build())).isNotEmpty();
    }
  }

  @Test
  void template_isGivenEverything() throws Exception {
    String template =
        "{{ messages[0].content }}|{{ tools[0].n }}|{{ enable_thinking }}|{{ add_generation_prompt"
            + " }}";
    try (Prompts prompts = withTemplate(template)) {
      TokenizeRequest.Builder request =
          TokenizeRequest.newBuilder()
              .addMessages(message("user", "hi"))
              .addTools(
                  Struct.newBuilder().putFields("n", Value.newBuilder().setNumberValue(1).build()))
              .setTemplateKwargs(
                  Struct.newBuilder()
                      .putFields(
                          "enable_thinking", Value.newBuilder().setBoolValue(false).build()));

      assertThat(prompts.tokenize(request.build()).getText()).isEqualTo("hi|1|False|True");
      assertThat(prompts.tokenize(request.setAddGenerationPrompt(false).build()).getText())
          .isEqualTo("hi|1|False|False");
    }
  }

  @Test
  void tokenize_andBack() throws Exception {
    try (Prompts prompts = Prompts.read(DEMO, VOCABULARY, Thread::new)) {
      TokenizeResponse tokens =
          prompts.tokenize(TokenizeRequest.newBuilder().setText("A 🦊 in Łódź").build());
      assertThat(
              prompts
                  .detokenize(
                      DetokenizeRequest.newBuilder()
                          .addAllTokenIds(tokens.getTokenIdsList())
                          .build())
                  .getText())
          .isEqualTo("A 🦊 in Łódź");
      assertThat(tokens.getText()).isEmpty();
      assertThatThrownBy(() -> prompts.tokenize(TokenizeRequest.getDefaultInstance()))
          .isInstanceOf(RequestException.class)
          .hasMessageContaining("text or messages");

      DetokenizeRequest.Builder end = DetokenizeRequest.newBuilder().addTokenIds(1);
      assertThat(prompts.detokenize(end.build()).getText()).isEqualTo("<|end|>");
      assertThat(prompts.detokenize(end.setSkipSpecialTokens(true).build()).getText()).isEmpty();
    }
  }
}
