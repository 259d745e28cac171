package dev.wardrobe.text;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * A model's chat template: the Jinja program that turns a conversation into the text the model was
 * trained on. It is read by an own interpreter of the language that Hugging Face's templates use,
 * with Jinja2's semantics in its immutable sandbox ({@code trim_blocks}, {@code lstrip_blocks},
 * loop controls) and transformers' additions. A template reaches nothing but its variables, and its
 * steps, memory and depth are limited; whatever cannot be rendered is an error, never a guess.
 *
 * <p>Instances are immutable and may be used from several threads.
 */
public final class ChatTemplate {

  private static final long MAX_TEMPLATE_BYTES = 1 << 20;
  private static final long MAX_CONFIG_BYTES = 64 << 20;

  /** What {@link #render} itself gives a template, so that a caller's variables may not. */
  private static final Set<String> RESERVED =
      Set.of("messages", "tools", "documents", "add_generation_prompt", "continue_final_message");

  /** The keys that a message's reasoning goes by; the first one set is the reasoning. */
  private static final List<String> REASONING_KEYS =
      List.of("reasoning_content", "thinking", "reasoning");

  /** Marks the end of the message to be continued; transformers' own, as templates may trim it. */
  private static final String CONTINUATION = "CONTINUE_FINAL_MESSAGE_TAG ";

  private static final String LOST_FINAL_MESSAGE =
      "continue_final_message is set but the final message does not appear in the chat after"
          + " applying the chat template! This can happen if the chat template deletes portions of"
          + " the final message.";

  /** One program: its source, where messages come from, and its statements. */
  private record Program(String source, List<Statement> statements) {}

  private final Map<String, Program> programs;
  private final Map<String, String> specialTokens;

  private ChatTemplate(Map<String, Program> programs, Map<String, String> specialTokens) {
    this.programs = programs;
    this.specialTokens = Map.copyOf(specialTokens);
  }

  /**
   * Loads the template of a model directory: {@code chat_template.jinja}, else {@code
   * tokenizer_config.json}'s {@code chat_template}, which may be a list of named ones ({@code
   * default}, and {@code tool_use} for requests with tools).
   *
   * @param specialTokens variables by name, such as {@code bos_token}
   * @return null if the model has no chat template
   * @throws TextException if a file or template is malformed
   */
  public static @Nullable ChatTemplate load(Path modelDir, Map<String, String> specialTokens)
      throws TextException {
    Map<String, String> sources = new LinkedHashMap<>();
    JsonNode config = JsonFiles.object(modelDir.resolve("tokenizer_config.json"), MAX_CONFIG_BYTES);
    JsonNode configured = config == null ? null : config.get("chat_template");
    if (configured != null && configured.isTextual()) {
      sources.put("default", configured.textValue());
    } else if (configured != null && !configured.isNull()) {
      named(configured, sources);
    }
    Path file = modelDir.resolve("chat_template.jinja");
    String source = JsonFiles.text(file, MAX_TEMPLATE_BYTES);
    if (source != null) {
      sources.clear();
      sources.put("default", source);
    }
    if (sources.isEmpty()) {
      return null;
    }
    Map<String, Program> programs = new TreeMap<>();
    for (Map.Entry<String, String> entry : sources.entrySet()) {
      String where = entry.getKey().equals("default") ? "" : " '" + entry.getKey() + "'";
      programs.put(entry.getKey(), program(entry.getValue(), "chat template" + where));
    }
    return new ChatTemplate(programs, specialTokens);
  }

  private static void named(JsonNode templates, Map<String, String> sources) throws TextException {
    if (!templates.isArray()) {
      throw malformed();
    }
    for (JsonNode template : templates) {
      JsonNode name = template.get("name");
      JsonNode source = template.get("template");
      if (name == null || !name.isTextual() || source == null || !source.isTextual()) {
        throw malformed();
      }
      sources.put(name.textValue(), source.textValue());
    }
  }

  private static TextException malformed() {
    return new TextException(
        "tokenizer_config.json: chat_template must be a string or a list of objects with strings"
            + " 'name' and 'template'");
  }

  /**
   * Compiles a template.
   *
   * @param specialTokens variables by name, such as {@code bos_token}
   * @throws TextException with line and column if the template is malformed
   */
  public static ChatTemplate compile(String source, Map<String, String> specialTokens)
      throws TextException {
    return new ChatTemplate(Map.of("default", program(source, "chat template")), specialTokens);
  }

  private static Program program(String source, String what) throws TextException {
    if (source.length() > MAX_TEMPLATE_BYTES) {
      throw new TextException(
          what + ": " + source.length() + " characters; at most " + MAX_TEMPLATE_BYTES);
    }
    try {
      return new Program(source, Parser.parse(source));
    } catch (TemplateFailure e) {
      throw new TextException(what + ", " + e.text(), e);
    }
  }

  /** Whether it has that text in its source: a hint at what it knows of. */
  public boolean mentions(String text) {
    return programs.values().stream().anyMatch(program -> program.source().contains(text));
  }

  /**
   * Renders a conversation, prepared as transformers prepares it: keys whose value is null are
   * dropped from messages, and a message's reasoning is given under all names that templates read.
   *
   * @return text to be tokenized without special tokens added
   * @throws TextException if the conversation is empty or the template fails; what the template
   *     gives to {@code raise_exception} is the message
   */
  public String render(ChatRequest request) throws TextException {
    Program program = choose(request);
    Interpreter interpreter = new Interpreter();
    try {
      return render(request, program, interpreter);
    } catch (TemplateFailure e) {
      throw failed(e, interpreter);
    }
  }

  /**
   * Renders a conversation and says which parts an assistant wrote.
   *
   * @throws TextException as {@link #render}; and if the template's {@code generation} tags stand
   *     where their place in the text cannot be told, or the final message is to be continued
   */
  public RenderedChat renderWithSpans(ChatRequest request) throws TextException {
    if (request.continueFinalMessage()) {
      throw new TextException("continue_final_message cannot be combined with assistant masks");
    }
    Program program = choose(request);
    Interpreter interpreter = new Interpreter();
    try {
      String text = render(request, program, interpreter);
      List<RenderedChat.Span> spans =
          interpreter
              .generated()
              .orElseThrow(
                  () ->
                      new TextException(
                          "chat template: a 'generation' tag inside a macro or captured block;"
                              + " which tokens the assistant wrote cannot be told"));
      return new RenderedChat(text, spans);
    } catch (TemplateFailure e) {
      throw failed(e, interpreter);
    }
  }

  private Program choose(ChatRequest request) throws TextException {
    Program program = request.tools() == null ? null : programs.get("tool_use");
    if (program == null) {
      program = programs.get("default");
    }
    if (program == null) {
      throw new TextException(
          "the model has chat templates named " + programs.keySet() + ", but none named 'default'");
    }
    return program;
  }

  private static TextException failed(TemplateFailure e, Interpreter interpreter) {
    String message = e.text();
    return e.verbatim()
        ? new TextException(message, e)
        : new TextException("chat template, line " + interpreter.line() + ": " + message, e);
  }

  private String render(ChatRequest request, Program program, Interpreter interpreter)
      throws TextException {
    if (request.messages().isEmpty()) {
      throw new TextException(
          "Cannot apply chat template to an empty conversation. Provide at least one message.");
    }
    if (request.continueFinalMessage() && request.addGenerationPrompt()) {
      throw new TextException(
          "continue_final_message and add_generation_prompt cannot be combined: the one continues"
              + " the last message, the other begins a new one");
    }
    for (String name : request.templateKwargs().keySet()) {
      if (RESERVED.contains(name)) {
        throw new TextException(
            "template_kwargs: '" + name + "' has a field of its own in the request");
      }
    }
    List<Object> messages = messages(request);
    String continued = request.continueFinalMessage() ? open(messages, program) : null;
    Map<String, Object> variables = new HashMap<>(specialTokens);
    request.templateKwargs().forEach((name, value) -> variables.put(name, Values.of(value)));
    variables.put("messages", messages);
    variables.put("tools", Values.of(request.tools()));
    variables.put("documents", Values.of(request.documents()));
    variables.put("add_generation_prompt", request.addGenerationPrompt());

    Scope globals = new Scope(null);
    Globals.of(request.clock()).forEach(globals::set);
    Scope scope = new Scope(globals);
    variables.forEach(scope::set);
    Budget budget = new Budget(length(variables.values()));
    ScopedValue.where(Budget.CURRENT, budget)
        .run(() -> run(program.statements(), scope, interpreter));
    String text = interpreter.text();
    return continued == null ? text : cut(text, continued);
  }

  private static void run(List<Statement> statements, Scope scope, Interpreter interpreter) {
    try {
      interpreter.run(statements, scope);
    } catch (StackOverflowError e) {
      throw new TemplateFailure("nested too deep while rendering");
    }
  }

  private static long length(Object value) {
    long length = 0;
    switch (value) {
      case String text -> length = text.length();
      case Map<?, ?> map -> {
        for (Map.Entry<?, ?> entry : map.entrySet()) {
          length += length(entry.getKey()) + length(entry.getValue());
        }
      }
      case Iterable<?> items -> {
        for (Object item : items) {
          length += length(item);
        }
      }
      default -> {}
    }
    return length;
  }

  private static List<Object> messages(ChatRequest request) {
    List<Object> messages = new ArrayList<>();
    for (Map<String, ? extends @Nullable Object> given : request.messages()) {
      Map<Object, Object> message = Values.dict((Map<?, ?>) Values.of(given));
      message.values().removeIf(value -> value == None.NONE);
      messages.add(withReasoning(message));
    }
    return messages;
  }

  private static Map<Object, Object> withReasoning(Map<Object, Object> message) {
    Object reasoning = null;
    for (String key : REASONING_KEYS) {
      if (reasoning == null) {
        reasoning = message.get(key);
      }
    }
    if (reasoning == null) {
      return message;
    }
    Map<Object, Object> result = new LinkedHashMap<>();
    result.put("thinking", reasoning);
    result.putAll(message);
    result.put("reasoning_content", reasoning);
    return result;
  }

  /** Marks the end of the last message's text, and returns that text. */
  private static String open(List<Object> messages, Program program) throws TextException {
    Map<Object, Object> last = Values.dict((Map<?, ?>) messages.getLast());
    Object content = last.get("content");
    if (content == null) {
      throw new TextException(
          "continue_final_message is set but the final message has no \"content\" to continue");
    }
    if (!program.source().contains("content")) {
      throw new TextException(
          "continue_final_message is set but the chat template does not read \"content\"");
    }
    if (content instanceof String text) {
      last.put("content", text + CONTINUATION);
      return text;
    }
    if (content instanceof List<?> parts) {
      for (Object part : parts.reversed()) {
        if (part instanceof Map<?, ?> map && map.get("text") instanceof String text) {
          Values.dict(map).put("text", text + CONTINUATION);
          return text;
        }
      }
    }
    throw new TextException(
        "continue_final_message is set but we could not find any text to continue in the final"
            + " message!");
  }

  private static String cut(String text, String continued) throws TextException {
    String tag = PythonText.strip(CONTINUATION);
    int at = text.lastIndexOf(tag);
    if (at < 0 || !text.contains(PythonText.strip(continued))) {
      throw new TextException(LOST_FINAL_MESSAGE);
    }
    // A template that trims took the blank after the tag; then the message's own end went too.
    String before = text.substring(0, at);
    return text.startsWith(CONTINUATION, at) ? before : PythonText.rstrip(before);
  }
}
