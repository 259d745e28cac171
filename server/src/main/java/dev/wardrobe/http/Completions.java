package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.http.GenerationFields.Shape;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.serve.Served;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TopLogprob;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** {@code /v1/completions}. */
final class Completions {
  /** OpenAI's. */
  private static final int DEFAULT_MAX_TOKENS = 16;

  /** Each is a request of its own to the engine. */
  private static final int MOST_PROMPTS = 256;

  private static final Map<String, String> FIELDS =
      Map.of("token_ids", "prompt", "adapter", "model");

  private final Served served;
  private final ModelNames names;

  Completions(Served served, ModelNames names) {
    this.served = served;
    this.names = names;
  }

  void answer(Exchange exchange, Fields fields) throws FieldException, RequestException {
    GenerateRequest.Builder common = GenerateRequest.newBuilder();
    String model = GenerationFields.model(fields, names, common);
    GenerationFields.sampling(fields, common);
    Integer most = fields.integer("max_tokens");
    common.setMaxTokens(most == null ? DEFAULT_MAX_TOKENS : most);
    Integer logprobs = fields.integer("logprobs");
    if (logprobs != null && logprobs < 0) {
      throw FieldException.of("logprobs", "expected 0 or more, got " + logprobs);
    }
    if (logprobs != null) {
      common.setLogprobs(logprobs);
    }
    boolean echo = fields.flag("echo", false);
    // Only what is asked for is computed: the prompt's own text is known.
    if (echo && (logprobs != null || common.getMaxTokens() == 0)) {
      common.setEcho(true);
    }
    Shape shape = GenerationFields.shape(fields);
    if (shape != null) {
      common.setConstraint(shape.constraint());
    }
    Boolean special = fields.flag("add_special_tokens");
    boolean withTokens = fields.flag("return_token_ids", false);
    List<Prompt> prompts = Prompt.read(fields.node("prompt"), "prompt");
    if (prompts.size() > MOST_PROMPTS) {
      throw FieldException.of(
          "prompt", "expected at most %d, got %d".formatted(MOST_PROMPTS, prompts.size()));
    }
    others(fields);
    List<GenerateRequest> requests = new ArrayList<>();
    List<String> echoed = new ArrayList<>();
    for (Prompt prompt : prompts) {
      GenerateRequest.Builder request =
          common
              .clone()
              .setId(
                  prompts.size() == 1
                      ? exchange.id()
                      : "%s-%d".formatted(exchange.id(), requests.size()));
      if (prompt.text() != null) {
        request.setPrompt(prompt.text());
        if (special != null) {
          request.setAddSpecialTokens(special);
        }
      } else {
        request.addAllTokenIds(prompt.tokens());
      }
      requests.add(request.build());
      echoed.add(echo ? text(prompt) : "");
    }
    Form form =
        new Form(
            echoed,
            GenerationFields.named(FIELDS, shape == null ? "constraint" : shape.field()),
            logprobs != null,
            withTokens,
            Generations.ends(served, common));
    new Generation(served, names, exchange, new Generation.Asked(requests, model), form)
        .begin(fields);
  }

  private String text(Prompt prompt) throws FieldException {
    if (prompt.text() != null) {
      return prompt.text();
    }
    try {
      return served
          .conversation()
          .detokenize(DetokenizeRequest.newBuilder().addAllTokenIds(prompt.tokens()).build())
          .getText();
    } catch (RequestException e) {
      throw FieldException.of(
          "prompt", "cannot be given back as text: " + e.getMessage() + "; leave echo out");
    }
  }

  private static void others(Fields fields) throws FieldException {
    fields.withoutEffect("metadata", "store", "service_tier");
    Generations.onlyUsual(fields);
    fields.refuse("suffix", "this server does not fill in; write the whole text as prompt");
  }

  private final class Form implements AnswerForm {
    private final List<String> prompts;
    private final Map<String, String> fields;
    private final boolean logprobs;
    private final boolean withTokens;
    private final Set<Integer> ends;

    /**
     * @param prompts what each answer's text begins with
     */
    Form(
        List<String> prompts,
        Map<String, String> fields,
        boolean logprobs,
        boolean withTokens,
        Set<Integer> ends) {
      this.prompts = prompts;
      this.fields = fields;
      this.logprobs = logprobs;
      this.withTokens = withTokens;
      this.ends = ends;
    }

    @Override
    public String prefix() {
      return "cmpl-";
    }

    @Override
    public String object(boolean part) {
      return "text_completion";
    }

    @Override
    public Map<String, String> fields() {
      return fields;
    }

    @Override
    public ChoiceForm choice(int prompt) {
      return new Answer(this, prompts.get(prompt));
    }
  }

  /** One of the answers. */
  private final class Answer implements AnswerForm.ChoiceForm {
    private final Form form;
    private final String prompt;
    private final TokenTrail trail;

    Answer(Form form, String prompt) {
      this.form = form;
      this.prompt = prompt;
      trail = new TokenTrail(served.conversation(), form.ends);
    }

    @Override
    public @Nullable ObjectNode begin(List<TokenLogprob> logprobs) {
      List<TokenTrail.Told> told = trail.prompt(logprobs, prompt);
      return prompt.isEmpty() ? null : choice(prompt, List.of(), told, null);
    }

    @Override
    public @Nullable ObjectNode more(
        String text, List<Integer> tokens, List<TokenLogprob> logprobs) {
      List<TokenTrail.Told> told = trail.add(logprobs, text);
      boolean silent = text.isEmpty() && told.isEmpty() && !(form.withTokens && !tokens.isEmpty());
      return silent ? null : choice(text, tokens, told, null);
    }

    @Override
    public ObjectNode end(FinishReason reason) {
      return choice("", List.of(), trail.end(Generations.cut(reason)), reason);
    }

    @Override
    public ObjectNode whole(
        List<TokenLogprob> prompted,
        String text,
        List<Integer> tokens,
        List<TokenLogprob> logprobs,
        FinishReason reason) {
      List<TokenTrail.Told> told = trail.prompt(prompted, prompt);
      told.addAll(trail.add(logprobs, text));
      told.addAll(trail.end(Generations.cut(reason)));
      return choice(prompt + text, tokens, told, reason);
    }

    private ObjectNode choice(
        String text,
        List<Integer> tokens,
        List<TokenTrail.Told> told,
        @Nullable FinishReason reason) {
      ObjectNode choice = JsonNodeFactory.instance.objectNode().put("text", text);
      choice.set("logprobs", logprobs(told));
      choice.put("finish_reason", reason == null ? null : Generations.reason(reason));
      if (form.withTokens) {
        tokens.forEach(choice.withArray("token_ids")::add);
      }
      return choice;
    }

    private JsonNode logprobs(List<TokenTrail.Told> told) {
      if (!form.logprobs) {
        return JsonNodeFactory.instance.nullNode();
      }
      ObjectNode logprobs = JsonNodeFactory.instance.objectNode();
      ArrayNode tokens = logprobs.putArray("tokens");
      ArrayNode values = logprobs.putArray("token_logprobs");
      ArrayNode tops = logprobs.putArray("top_logprobs");
      ArrayNode offsets = logprobs.putArray("text_offset");
      for (TokenTrail.Told each : told) {
        String name = TokenTrail.text(each.piece(), "bytes:");
        tokens.add(name);
        offsets.add(each.offset());
        if (!each.logprob().hasLogprob()) {
          // Nothing predicts the first.
          values.addNull();
          tops.addNull();
          continue;
        }
        values.add(each.value());
        ObjectNode top = tops.addObject();
        for (TopLogprob other : each.logprob().getTopList()) {
          String text = TokenTrail.text(served.conversation().piece(other.getTokenId()), "bytes:");
          // Two tokens may have the same text; the first is the more probable.
          if (!top.has(text)) {
            top.put(text, TokenTrail.bounded(other.getLogprob()));
          }
        }
        if (!top.has(name)) {
          top.put(name, each.value());
        }
      }
      return logprobs;
    }
  }
}
