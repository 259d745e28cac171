package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.http.GenerationFields.Shape;
import dev.wardrobe.http.ToolCallParser.Part;
import dev.wardrobe.serve.Piece;
import dev.wardrobe.serve.Served;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TopLogprob;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** {@code /v1/chat/completions}. */
final class ChatCompletions {
  private static final Map<String, String> FIELDS =
      Map.of(
          "logprobs", "top_logprobs",
          "template_kwargs", "chat_template_kwargs",
          "adapter", "model");

  private final Served served;
  private final ModelNames names;

  ChatCompletions(Served served, ModelNames names) {
    this.served = served;
    this.names = names;
  }

  void answer(Exchange exchange, Fields fields) throws FieldException {
    GenerateRequest.Builder request = GenerateRequest.newBuilder().setId(exchange.id());
    String model = GenerationFields.model(fields, names, request);
    request.addAllMessages(Messages.read(fields, "messages"));
    TemplateFields.read(fields).addTo(request);
    GenerationFields.sampling(fields, request);
    Integer most = fields.integer("max_tokens");
    Integer newer = fields.integer("max_completion_tokens");
    if (most != null && newer != null && !most.equals(newer)) {
      throw FieldException.of(
          "max_completion_tokens",
          "is %d, but max_tokens, which is the same, is %d; give one of them"
              .formatted(newer, most));
    }
    if (newer != null) {
      request.setMaxTokens(newer);
    } else if (most != null) {
      request.setMaxTokens(most);
    }
    boolean logprobs = fields.flag("logprobs", false);
    Integer top = fields.integer("top_logprobs");
    if (top != null && (!logprobs || top < 0)) {
      throw FieldException.of(
          "top_logprobs",
          logprobs
              ? "expected 0 or more, got " + top
              : "goes with \"logprobs\": true only; leave it out, or set that");
    }
    if (logprobs) {
      request.setLogprobs(top == null ? 0 : top);
    }
    Tools tools = Tools.read(fields, served.conversation());
    request.addAllTools(tools.given());
    Shape shape = GenerationFields.shape(fields);
    if (shape != null && tools.constraint() != null) {
      throw FieldException.of(
          shape.field(), "the answer has to be a call of a tool; leave one of them out");
    }
    if (tools.constraint() != null) {
      request.setConstraint(tools.constraint());
    } else if (shape != null) {
      request.setConstraint(shape.constraint());
    }
    boolean withTokens = fields.flag("return_token_ids", false);
    others(fields);
    Form form =
        new Form(
            // A call is one, whatever else the text might be.
            shape == null ? tools : Tools.NONE,
            GenerationFields.named(FIELDS, shape == null ? "tools" : shape.field()),
            logprobs,
            withTokens,
            Generations.ends(served, request));
    new Generation(
            served, names, exchange, new Generation.Asked(List.of(request.build()), model), form)
        .begin(fields);
  }

  /** What changes nothing here, and what cannot be done. */
  private static void others(Fields fields) throws FieldException {
    fields.withoutEffect(
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "prediction",
        "reasoning_effort",
        "verbosity");
    Generations.onlyUsual(fields);
    fields.only("add_special_tokens", false);
    fields.only("echo", false);
    fields.refuse("audio", "this server writes text only; leave it out");
    fields.refuse("web_search_options", "this server searches nothing; leave it out");
    fields.refuse("moderation", "this server does not moderate; leave it out");
    for (String kind : fields.texts("modalities")) {
      if (!kind.equals("text")) {
        throw FieldException.of(
            "modalities", "expected [\"text\"], got \"%s\"".formatted(Fields.cut(kind)));
      }
    }
  }

  private final class Form implements AnswerForm {
    private final Tools tools;
    private final Map<String, String> fields;
    private final boolean logprobs;
    private final boolean withTokens;
    private final Set<Integer> ends;

    Form(
        Tools tools,
        Map<String, String> fields,
        boolean logprobs,
        boolean withTokens,
        Set<Integer> ends) {
      this.tools = tools;
      this.fields = fields;
      this.logprobs = logprobs;
      this.withTokens = withTokens;
      this.ends = ends;
    }

    @Override
    public String prefix() {
      return "chatcmpl-";
    }

    @Override
    public String object(boolean part) {
      return part ? "chat.completion.chunk" : "chat.completion";
    }

    @Override
    public Map<String, String> fields() {
      return fields;
    }

    @Override
    public ChoiceForm choice(int prompt) {
      return new Answer(this);
    }
  }

  /** One of the answers. */
  private final class Answer implements AnswerForm.ChoiceForm {
    private final Form form;
    private final ToolCallParser parser;
    private final TokenTrail trail;

    Answer(Form form) {
      this.form = form;
      parser = new ToolCallParser(form.tools.style(), form.tools.names(), form.tools.several());
      trail = new TokenTrail(served.conversation(), form.ends);
    }

    @Override
    public ObjectNode begin(List<TokenLogprob> prompt) {
      ObjectNode choice = JsonNodeFactory.instance.objectNode();
      choice.putObject("delta").put("role", "assistant").put("content", "");
      return choice.putNull("logprobs").putNull("finish_reason");
    }

    @Override
    public @Nullable ObjectNode more(
        String text, List<Integer> tokens, List<TokenLogprob> logprobs) {
      List<Part> parts = parser.add(text);
      List<TokenTrail.Told> told = trail.add(logprobs, text);
      boolean silent = parts.isEmpty() && told.isEmpty() && !(form.withTokens && !tokens.isEmpty());
      return silent ? null : part(parts, tokens, told, null);
    }

    @Override
    public ObjectNode end(FinishReason reason) {
      List<Part> parts = parser.end();
      return part(parts, List.of(), trail.end(Generations.cut(reason)), reason);
    }

    private ObjectNode part(
        List<Part> parts,
        List<Integer> tokens,
        List<TokenTrail.Told> told,
        @Nullable FinishReason reason) {
      ObjectNode choice = JsonNodeFactory.instance.objectNode();
      ObjectNode delta = choice.putObject("delta");
      StringBuilder content = new StringBuilder();
      ArrayNode calls = JsonNodeFactory.instance.arrayNode();
      for (Part part : parts) {
        switch (part) {
          case Part.Text text -> content.append(text.text());
          case Part.Call call -> {
            ObjectNode begun =
                calls
                    .addObject()
                    .put("index", call.index())
                    .put("id", call.id())
                    .put("type", "function");
            begun.putObject("function").put("name", call.name()).put("arguments", "");
          }
          case Part.Arguments arguments ->
              calls
                  .addObject()
                  .put("index", arguments.index())
                  .putObject("function")
                  .put("arguments", arguments.json());
        }
      }
      if (!content.isEmpty()) {
        delta.put("content", content.toString());
      }
      if (!calls.isEmpty()) {
        delta.set("tool_calls", calls);
      }
      choice.set("logprobs", logprobs(told));
      choice.put("finish_reason", reason == null ? null : reason(reason));
      if (form.withTokens) {
        tokens.forEach(choice.withArray("token_ids")::add);
      }
      return choice;
    }

    @Override
    public ObjectNode whole(
        List<TokenLogprob> prompt,
        String text,
        List<Integer> tokens,
        List<TokenLogprob> logprobs,
        FinishReason reason) {
      List<TokenTrail.Told> told = trail.add(logprobs, text);
      told.addAll(trail.end(Generations.cut(reason)));
      StringBuilder content = new StringBuilder();
      ArrayNode calls = JsonNodeFactory.instance.arrayNode();
      ObjectNode function = JsonNodeFactory.instance.objectNode();
      List<Part> parts = new ArrayList<>(parser.add(text));
      parts.addAll(parser.end());
      for (Part part : parts) {
        switch (part) {
          case Part.Text more -> content.append(more.text());
          case Part.Call call -> {
            ObjectNode begun = calls.addObject().put("id", call.id()).put("type", "function");
            function = begun.putObject("function").put("name", call.name()).put("arguments", "");
          }
          case Part.Arguments more ->
              function.put("arguments", function.path("arguments").asText() + more.json());
        }
      }
      ObjectNode choice = JsonNodeFactory.instance.objectNode();
      ObjectNode message = choice.putObject("message").put("role", "assistant");
      message.put("content", content.isEmpty() && !calls.isEmpty() ? null : content.toString());
      message.putNull("refusal");
      if (!calls.isEmpty()) {
        message.set("tool_calls", calls);
      }
      choice.set("logprobs", logprobs(told));
      choice.put("finish_reason", reason(reason));
      if (form.withTokens) {
        tokens.forEach(choice.withArray("token_ids")::add);
      }
      return choice;
    }

    private String reason(FinishReason reason) {
      boolean ended =
          reason == FinishReason.FINISH_REASON_EOS || reason == FinishReason.FINISH_REASON_STOP;
      return ended && parser.calls() > 0 ? "tool_calls" : Generations.reason(reason);
    }

    private JsonNode logprobs(List<TokenTrail.Told> told) {
      if (!form.logprobs) {
        return JsonNodeFactory.instance.nullNode();
      }
      ObjectNode logprobs = JsonNodeFactory.instance.objectNode();
      ArrayNode content = logprobs.putArray("content");
      for (TokenTrail.Told each : told) {
        ObjectNode token = content.addObject();
        token(token, each.piece(), each.value());
        ArrayNode top = token.putArray("top_logprobs");
        for (TopLogprob other : each.logprob().getTopList()) {
          token(
              top.addObject(),
              served.conversation().piece(other.getTokenId()),
              TokenTrail.bounded(other.getLogprob()));
        }
      }
      return logprobs.putNull("refusal");
    }

    private static void token(ObjectNode token, @Nullable Piece piece, float logprob) {
      token.put("token", TokenTrail.text(piece, "")).put("logprob", logprob);
      ArrayNode bytes = token.putArray("bytes");
      for (byte each : piece == null ? new byte[0] : piece.bytes()) {
        bytes.add(each & 0xff);
      }
    }
  }
}
