package dev.wardrobe;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.google.protobuf.Descriptors.FieldDescriptor;
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
    json.writeStringField("text", answer.getText());
    json.writeArrayFieldStart("token_ids");
    for (int token : answer.getTokenIdsList()) {
      json.writeNumber(token);
    }
    json.writeEndArray();
    if (request.hasLogprobs()) {
      boolean all = request.getLogprobs() == -1;
      logprobs("logprobs", answer.getLogprobsList(), all);
    }
    if (request.getEcho()) {
      logprobs("prompt_logprobs", answer.getPromptLogprobsList(), request.getLogprobs() == -1);
    }
    usage(answer.getUsage());
    json.writeStringField("adapter_digest", answer.getAdapterDigest());
    json.writeStringField(
        "finish_reason",
        answer.getFinishReason().name().replace("FINISH_REASON_", "").toLowerCase(Locale.ROOT));
    end();
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
