package dev.wardrobe;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.google.protobuf.Descriptors.FieldDescriptor;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.Choice;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TopLogprob;
import dev.wardrobe.v1.Usage;
import java.io.IOException;
import java.io.OutputStream;
import java.util.List;
import java.util.Locale;

/**
 * Answers as JSON, one a line. Floats have as many digits as float32 needs to come back the same;
 * JSON has no infinity, so the log-probability of an impossible token is written as float32's
 * lowest number, -3.4028235E38.
 */
final class AnswerLines implements AutoCloseable {
  private final JsonGenerator json;

  AnswerLines(OutputStream out) throws IOException {
    json = new JsonFactory().createGenerator(out);
    json.setRootValueSeparator(null);
  }

  void answer(String id, GenerateRequest request, GenerateResponse answer) throws IOException {
    json.writeStartObject();
    json.writeStringField("id", id);
    text(request, answer.getText(), answer.getTokenIdsList(), answer.getLogprobsList());
    if (request.getEcho()) {
      logprobs("prompt_logprobs", answer.getPromptLogprobsList(), request.getLogprobs() == -1);
    }
    usage(answer.getUsage());
    json.writeStringField("adapter_digest", answer.getAdapterDigest());
    if (request.getAdaptersCount() > 0 || request.hasAdapterScale()) {
      json.writeArrayFieldStart("adapters");
      for (AppliedAdapter applied : answer.getAdaptersList()) {
        json.writeStartObject();
        json.writeStringField("adapter", applied.getAdapter());
        json.writeStringField("digest", applied.getDigest());
        json.writeNumberField("scale", applied.getScale());
        json.writeEndObject();
      }
      json.writeEndArray();
    }
    reason(answer.getFinishReason());
    if (answer.getChoicesCount() > 0) {
      json.writeArrayFieldStart("choices");
      for (Choice choice : answer.getChoicesList()) {
        json.writeStartObject();
        json.writeNumberField("index", choice.getIndex());
        text(request, choice.getText(), choice.getTokenIdsList(), choice.getLogprobsList());
        reason(choice.getFinishReason());
        json.writeFieldName("seed");
        json.writeNumber(Long.toUnsignedString(choice.getSeed()));
        json.writeNumberField("mean_logprob", Math.max(choice.getMeanLogprob(), -Float.MAX_VALUE));
        json.writeEndObject();
      }
      json.writeEndArray();
    }
    end();
  }

  private void text(
      GenerateRequest request, String text, List<Integer> tokens, List<TokenLogprob> logprobs)
      throws IOException {
    json.writeStringField("text", text);
    json.writeArrayFieldStart("token_ids");
    for (int token : tokens) {
      json.writeNumber(token);
    }
    json.writeEndArray();
    if (request.hasLogprobs()) {
      logprobs("logprobs", logprobs, request.getLogprobs() == -1);
    }
  }

  private void reason(FinishReason reason) throws IOException {
    json.writeStringField(
        "finish_reason", reason.name().replace("FINISH_REASON_", "").toLowerCase(Locale.ROOT));
  }

  void error(String id, String message) throws IOException {
    json.writeStartObject();
    json.writeStringField("id", id);
    json.writeStringField("error", message);
    end();
  }

  private void end() throws IOException {
    json.writeEndObject();
    json.writeRaw('\n');
  }

  private void logprobs(String name, List<TokenLogprob> logprobs, boolean all) throws IOException {
    json.writeArrayFieldStart(name);
    for (TokenLogprob logprob : logprobs) {
      json.writeStartObject();
      json.writeNumberField("token_id", logprob.getTokenId());
      if (logprob.hasLogprob()) {
        json.writeFieldName("logprob");
        number(logprob.getLogprob());
      } else {
        json.writeNullField("logprob");
      }
      if (all) {
        json.writeArrayFieldStart("all");
        for (int i = 0; i < logprob.getAllCount(); i++) {
          number(logprob.getAll(i));
        }
        json.writeEndArray();
      } else {
        json.writeArrayFieldStart("top");
        for (TopLogprob top : logprob.getTopList()) {
          json.writeStartObject();
          json.writeNumberField("token_id", top.getTokenId());
          json.writeFieldName("logprob");
          number(top.getLogprob());
          json.writeEndObject();
        }
        json.writeEndArray();
      }
      json.writeEndObject();
    }
    json.writeEndArray();
  }

  private void number(float value) throws IOException {
    json.writeNumber(Math.max(value, -Float.MAX_VALUE));
  }

  private void usage(Usage usage) throws IOException {
    json.writeObjectFieldStart("usage");
    for (FieldDescriptor field : Usage.getDescriptor().getFields()) {
      json.writeFieldName(field.getName());
      switch (usage.getField(field)) {
        case Integer number -> json.writeNumber(Integer.toUnsignedLong(number));
        case Long number -> json.writeNumber(Long.toUnsignedString(number));
        case Double number -> json.writeNumber(number);
        case Object other -> json.writeString(other.toString());
      }
    }
    json.writeEndObject();
  }

  @Override
  public void close() throws IOException {
    json.close();
  }
}
