package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.serve.Served;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import java.util.Map;

/** vLLM's {@code /tokenize} and {@code /detokenize}. */
final class Tokens {
  private final Served served;
  private final ModelNames names;

  Tokens(Served served, ModelNames names) {
    this.served = served;
    this.names = names;
  }

  void tokenize(Exchange exchange, Fields fields) throws FieldException {
    checkModel(exchange, fields);
    TokenizeRequest.Builder request = TokenizeRequest.newBuilder();
    String prompt = fields.text("prompt");
    boolean chat = fields.has("messages");
    if (chat == (prompt != null)) {
      throw FieldException.of(
          "prompt", "expected either prompt or messages, got " + (chat ? "both" : "none"));
    }
    Boolean special = fields.flag("add_special_tokens");
    if (prompt != null) {
      request.setText(prompt);
      if (special != null) {
        request.setAddSpecialTokens(special);
      }
    } else {
      if (Boolean.TRUE.equals(special)) {
        throw FieldException.of(
            "add_special_tokens", "goes with prompt only: a chat template writes its own");
      }
      request.addAllMessages(Messages.read(fields, "messages"));
      TemplateFields.read(fields).addTo(request);
      request.addAllTools(Tools.declared(fields));
    }
    boolean withTexts = fields.flag("return_token_strs", false);
    fields.end();
    work(
        exchange,
        Map.of("text", "prompt"),
        () -> {
          TokenizeResponse tokens = served.conversation().tokenize(request.build());
          ObjectNode answer =
              JsonNodeFactory.instance
                  .objectNode()
                  .put("count", tokens.getTokenIdsCount())
                  .put("max_model_len", served.engine().contextLength());
          ArrayNode ids = answer.putArray("tokens");
          tokens.getTokenIdsList().forEach(ids::add);
          if (withTexts) {
            ArrayNode texts = answer.putArray("token_strs");
            for (int token : tokens.getTokenIdsList()) {
              texts.add(TokenTrail.text(served.conversation().piece(token), ""));
            }
          } else {
            answer.putNull("token_strs");
          }
          return answer;
        });
  }

  void detokenize(Exchange exchange, Fields fields) throws FieldException {
    checkModel(exchange, fields);
    if (!fields.has("tokens")) {
      throw FieldException.of("tokens", "expected a list of token ids, got nothing");
    }
    DetokenizeRequest.Builder request =
        DetokenizeRequest.newBuilder().addAllTokenIds(fields.integers("tokens"));
    fields.end();
    work(
        exchange,
        Map.of("token_ids", "tokens"),
        () ->
            JsonNodeFactory.instance
                .objectNode()
                .put("prompt", served.conversation().detokenize(request.build()).getText()));
  }

  /** All adapters have the base's tokens: that there is the one asked for is all that matters. */
  private void checkModel(Exchange exchange, Fields fields) throws FieldException {
    String model = fields.text("model");
    if (!names.adapter(model).isEmpty() && model != null) {
      names.check(exchange.caller(), model);
    }
  }

  private interface Work {
    ObjectNode answer() throws Exception;
  }

  private void work(Exchange exchange, Map<String, String> fields, Work work) {
    served
        .workers()
        .execute(
            () -> {
              try {
                exchange.answer(work.answer());
              } catch (Exception e) {
                exchange.fail(names.explain(exchange.caller(), e, null, false, fields));
              }
            });
  }
}
