package dev.wardrobe.serve;

import com.google.protobuf.Struct;
import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.grammar.Grammars;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.text.ChatRequest;
import dev.wardrobe.text.ChatTemplate;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.TokenStream;
import dev.wardrobe.text.Tokenizer;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.DetokenizeResponse;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.ZoneId;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What turns text and conversations into a model's tokens and back: its tokenizer and its chat
 * template, as far as it has them. A model without a tokenizer takes token ids.
 */
public final class Prompts implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Prompts.class);

  private final int vocabulary;
  private final @Nullable Tokenizer tokenizer;
  private final @Nullable Grammars grammars;
  private final AtomicReference<@Nullable Pieces> pieces = new AtomicReference<>();
  private final @Nullable ChatTemplate template;

  /** Why there is no template: nothing but conversations need one. */
  private final String noTemplate;

  private Prompts(
      int vocabulary,
      @Nullable Tokenizer tokenizer,
      @Nullable ChatTemplate template,
      String noTemplate,
      ThreadFactory background) {
    this.vocabulary = vocabulary;
    this.tokenizer = tokenizer;
    this.grammars =
        tokenizer == null
            ? null
            : new Grammars(tokenizer::tokenBytes, vocabulary, Constraints.memory(), background);
    this.template = template;
    this.noTemplate = noTemplate;
  }

  /**
   * Reads a model directory's tokenizer and chat template. A template that cannot be used only
   * matters to requests that need it, and is their error.
   *
   * @param vocabulary the model's; ids beyond it are refused
   * @param background makes the thread that compiles what takes long
   * @throws TextException if there is a tokenizer, but it cannot be used
   */
  public static Prompts read(Path directory, int vocabulary, ThreadFactory background)
      throws TextException {
    if (!Files.exists(directory.resolve("tokenizer.json"))) {
      return new Prompts(vocabulary, null, null, "this model has no tokenizer", background);
    }
    Tokenizer tokenizer = Tokenizer.load(directory);
    ChatTemplate template = null;
    String noTemplate = "this model has no chat template";
    try {
      template = ChatTemplate.load(directory, tokenizer.specialTokens());
    } catch (TextException e) {
      noTemplate = "this model's chat template cannot be used: " + e.getMessage();
      log.warn(noTemplate);
    }
    return new Prompts(vocabulary, tokenizer, template, noTemplate, background);
  }

  public boolean hasTokenizer() {
    return tokenizer != null;
  }

  public boolean hasTemplate() {
    return template != null;
  }

  /** What a token is in a text; null without a tokenizer. */
  @Nullable Piece piece(int token) {
    if (tokenizer == null) {
      return null;
    }
    Pieces known = pieces.get();
    if (known == null) {
      // Twice at worst, with the same outcome.
      known = new Pieces(tokenizer);
      pieces.set(known);
    }
    return known.of(token);
  }

  /** Whether the chat template has that text in its source. */
  boolean templateMentions(String text) {
    return template != null && template.mentions(text);
  }

  /** A new answer's text, or null without a tokenizer. */
  @Nullable TokenStream stream() {
    return tokenizer == null ? null : tokenizer.stream();
  }

  /** What a request's answer must be, compiled; null if it may be anything. */
  CompletableFuture<@Nullable Grammar> grammar(GenerateRequest request) throws RequestException {
    if (!request.hasConstraint()) {
      return CompletableFuture.completedFuture(null);
    }
    requireTokenizer("constraint", "leave it out");
    return Constraints.compile(request.getConstraint(), Objects.requireNonNull(grammars))
        .thenApply(grammar -> grammar);
  }

  int[] tokens(GenerateRequest request) throws RequestException {
    int given =
        (request.hasPrompt() ? 1 : 0)
            + (request.getMessagesCount() > 0 ? 1 : 0)
            + (request.getTokenIdsCount() > 0 ? 1 : 0);
    if (given != 1) {
      throw RequestException.invalid(
          "expected exactly one of prompt, messages and token_ids, and that not empty, got %s"
              .formatted(given == 0 ? "none" : given + " of them"));
    }
    if (request.getMessagesCount() == 0) {
      refuse("tools", request.getToolsCount() > 0, "messages");
      refuse("template_kwargs", request.hasTemplateKwargs(), "messages");
      refuse("add_generation_prompt", request.hasAddGenerationPrompt(), "messages");
      refuse("continue_final_message", request.hasContinueFinalMessage(), "messages");
    }
    if (!request.hasPrompt()) {
      refuse("add_special_tokens", request.hasAddSpecialTokens(), "prompt");
    }
    int[] tokens;
    if (request.hasPrompt()) {
      Tokenizer mine = requireTokenizer("prompt", "give token_ids");
      boolean special = !request.hasAddSpecialTokens() || request.getAddSpecialTokens();
      tokens = encode(mine, request.getPrompt(), special);
    } else if (request.getMessagesCount() > 0) {
      Tokenizer mine = requireTokenizer("messages", "give token_ids");
      tokens = encode(mine, render(conversation(request)), false);
    } else {
      tokens = new int[request.getTokenIdsCount()];
      for (int i = 0; i < tokens.length; i++) {
        tokens[i] = checkToken("token_ids", request.getTokenIds(i));
      }
    }
    if (tokens.length == 0) {
      throw RequestException.invalid(
          "the prompt has no tokens, and a model goes on from at least one; give some text, or the"
              + " beginning-of-sequence token in token_ids");
    }
    return tokens;
  }

  /** Tokens of an input that is to become a vector. */
  int[] tokens(EmbedInput input, boolean special, String field) throws RequestException {
    int[] tokens;
    switch (input.getInputCase()) {
      case TEXT ->
          tokens = encode(requireTokenizer(field, "give tokens"), input.getText(), special);
      case TOKENS -> {
        tokens = new int[input.getTokens().getIdsCount()];
        for (int i = 0; i < tokens.length; i++) {
          tokens[i] = checkToken(field, input.getTokens().getIds(i));
        }
      }
      default -> throw RequestException.invalid(field + ": expected text or tokens, got none");
    }
    if (tokens.length == 0) {
      throw RequestException.invalid(field + ": expected at least one token, got none");
    }
    return tokens;
  }

  private static void refuse(String field, boolean given, String goesWith) throws RequestException {
    if (given) {
      throw RequestException.invalid(
          "%s goes with %s only; leave it out, or give %s".formatted(field, goesWith, goesWith));
    }
  }

  Tokenizer requireTokenizer(String field, String instead) throws RequestException {
    if (tokenizer == null) {
      throw new RequestException(
          Code.FAILED_PRECONDITION,
          "%s needs a tokenizer, and this model has no tokenizer.json; %s"
              .formatted(field, instead));
    }
    return tokenizer;
  }

  /** The token, if it is one of the model's. */
  int checkToken(String field, int token) throws RequestException {
    if (token < 0 || token >= vocabulary) {
      throw RequestException.invalid(
          "%s: expected ids below the vocabulary's size %d, got %d"
              .formatted(field, vocabulary, Integer.toUnsignedLong(token)));
    }
    return token;
  }

  private int[] encode(Tokenizer mine, String text, boolean special) throws RequestException {
    int[] tokens;
    try {
      tokens = mine.encode(text, special);
    } catch (IllegalArgumentException e) {
      throw new RequestException(Code.INVALID_ARGUMENT, String.valueOf(e.getMessage()), e);
    }
    for (int token : tokens) {
      if (token >= vocabulary) {
        throw new RequestException(
            Code.FAILED_PRECONDITION,
            ("the tokenizer gives token %d ('%s'), but the model's vocabulary has %d; leave that"
                    + " text out, or use the model's own tokenizer")
                .formatted(token, mine.decode(new int[] {token}, false), vocabulary));
      }
    }
    return tokens;
  }

  /** What the template is given. */
  private record Talk(
      List<Message> messages,
      List<Struct> tools,
      Struct kwargs,
      @Nullable Boolean addGenerationPrompt,
      boolean continueFinalMessage) {}

  private static Talk conversation(GenerateRequest request) {
    return new Talk(
        request.getMessagesList(),
        request.getToolsList(),
        request.getTemplateKwargs(),
        request.hasAddGenerationPrompt() ? request.getAddGenerationPrompt() : null,
        request.getContinueFinalMessage());
  }

  private static Talk conversation(TokenizeRequest request) {
    return new Talk(
        request.getMessagesList(),
        request.getToolsList(),
        request.getTemplateKwargs(),
        request.hasAddGenerationPrompt() ? request.getAddGenerationPrompt() : null,
        request.getContinueFinalMessage());
  }

  private String render(Talk talk) throws RequestException {
    if (template == null) {
      throw new RequestException(
          Code.FAILED_PRECONDITION, noTemplate + "; give the whole text as prompt");
    }
    if (talk.continueFinalMessage() && Boolean.TRUE.equals(talk.addGenerationPrompt())) {
      throw RequestException.invalid(
          "continue_final_message goes on with the last message, add_generation_prompt begins a"
              + " new one; set one of them");
    }
    boolean add =
        talk.addGenerationPrompt() == null
            ? !talk.continueFinalMessage()
            : talk.addGenerationPrompt();
    try {
      return template.render(
          new ChatRequest(
              PlainValues.messages(talk.messages()),
              talk.tools().isEmpty() ? null : PlainValues.structs(talk.tools()),
              null,
              add,
              talk.continueFinalMessage(),
              PlainValues.struct(talk.kwargs()),
              Clock.system(ZoneId.systemDefault())));
    } catch (TextException e) {
      throw new RequestException(Code.INVALID_ARGUMENT, String.valueOf(e.getMessage()), e);
    }
  }

  TokenizeResponse tokenize(TokenizeRequest request) throws RequestException {
    boolean chat = request.getMessagesCount() > 0;
    if (chat == request.hasText()) {
      throw RequestException.invalid(
          "expected either text or messages, got " + (chat ? "both" : "none"));
    }
    Tokenizer mine =
        requireTokenizer(chat ? "messages" : "text", "only a model that has one can tokenize");
    TokenizeResponse.Builder response = TokenizeResponse.newBuilder();
    int[] tokens;
    if (chat) {
      String text = render(conversation(request));
      response.setText(text);
      tokens = encode(mine, text, false);
    } else {
      boolean special = !request.hasAddSpecialTokens() || request.getAddSpecialTokens();
      tokens = encode(mine, request.getText(), special);
    }
    for (int token : tokens) {
      response.addTokenIds(token);
    }
    return response.build();
  }

  DetokenizeResponse detokenize(DetokenizeRequest request) throws RequestException {
    Tokenizer mine = requireTokenizer("token_ids", "only a model that has one can detokenize");
    int[] tokens = new int[request.getTokenIdsCount()];
    for (int i = 0; i < tokens.length; i++) {
      tokens[i] = checkToken("token_ids", request.getTokenIds(i));
    }
    return DetokenizeResponse.newBuilder()
        .setText(mine.decode(tokens, request.getSkipSpecialTokens()))
        .build();
  }

  @Override
  public void close() {
    if (tokenizer != null) {
      tokenizer.close();
    }
    if (grammars != null) {
      grammars.close();
    }
  }
}
