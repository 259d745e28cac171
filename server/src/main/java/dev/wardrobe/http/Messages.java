package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.wardrobe.v1.FunctionCall;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.ToolCall;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A conversation in OpenAI's form, as messages for a chat template. */
final class Messages {
  private static final String NO_MEDIA =
      "this server takes text only; leave the %s out, or describe it in words";

  private static final String NO_AUDIO = NO_MEDIA.formatted("audio");

  private Messages() {}

  /** The messages of a field; at least one. */
  static List<Message> read(Fields fields, String field) throws FieldException {
    List<Message> messages = new ArrayList<>();
    for (Fields each : fields.objects(field)) {
      messages.add(message(each));
    }
    if (messages.isEmpty()) {
      throw FieldException.of(fields.name(field), "expected at least one message, got none");
    }
    return messages;
  }

  private static Message message(Fields fields) throws FieldException {
    String role = fields.requiredText("role");
    // A later name for the same thing, which no template knows.
    Message.Builder message =
        Message.newBuilder().setRole(role.equals("developer") ? "system" : role);
    String content = content(fields);
    if (content != null) {
      message.setContent(content);
    }
    String name = fields.text("name");
    if (name != null) {
      message.setName(name);
    }
    String reasoning = fields.text("reasoning_content");
    String newer = fields.text("reasoning");
    if (reasoning != null || newer != null) {
      message.setReasoningContent(reasoning != null ? reasoning : newer);
    }
    for (Fields call : fields.objects("tool_calls")) {
      message.addToolCalls(toolCall(call));
    }
    String answered = fields.text("tool_call_id");
    if (answered != null) {
      message.setToolCallId(answered);
    }
    fields.refuse("audio", NO_AUDIO);
    fields.refuse("function_call", "this form is out of use; give tool_calls");
    // What answers carry besides, and clients send back as it is.
    fields.withoutEffect("refusal", "annotations", "parsed");
    fields.end();
    return message.build();
  }

  private static @Nullable String content(Fields fields) throws FieldException {
    JsonNode content = fields.node("content");
    if (content == null || content.isTextual()) {
      return content == null ? null : content.textValue();
    }
    if (!content.isArray()) {
      throw Fields.expected(fields.name("content"), "a string or a list of parts", content);
    }
    List<String> texts = new ArrayList<>();
    for (Fields part : fields.objects("content")) {
      String type = part.requiredText("type");
      String text =
          switch (type) {
            case "text" -> part.requiredText("text");
            case "refusal" -> part.requiredText("refusal");
            case "image_url", "input_image" ->
                throw FieldException.of(part.name("type"), NO_MEDIA.formatted("image"));
            case "input_audio", "video_url", "file" ->
                throw FieldException.of(
                    part.name("type"), NO_MEDIA.formatted(type.replaceAll("input_|_url", "")));
            default ->
                throw FieldException.of(
                    part.name("type"), "expected text, got \"%s\"".formatted(Fields.cut(type)));
          };
      part.withoutEffect("cache_control");
      part.end();
      texts.add(text);
    }
    return String.join("\n", texts);
  }

  private static ToolCall toolCall(Fields fields) throws FieldException {
    ToolCall.Builder call = ToolCall.newBuilder();
    String id = fields.text("id");
    if (id != null) {
      call.setId(id);
    }
    String type = fields.text("type");
    if (type != null && !type.equals("function")) {
      throw FieldException.of(
          fields.name("type"), "expected function, got \"%s\"".formatted(Fields.cut(type)));
    }
    call.setType("function");
    Fields function = fields.object("function");
    if (function == null) {
      throw FieldException.of(fields.name("function"), "expected an object, got nothing");
    }
    call.setFunction(
        FunctionCall.newBuilder()
            .setName(function.requiredText("name"))
            .setArguments(arguments(function)));
    function.end();
    fields.withoutEffect("index");
    fields.end();
    return call.build();
  }

  /** Templates want the object, not its text. */
  private static Value arguments(Fields function) throws FieldException {
    JsonNode given = function.node("arguments");
    if (given == null || (given.isTextual() && given.textValue().isBlank())) {
      return Value.newBuilder().setStructValue(Struct.getDefaultInstance()).build();
    }
    JsonNode value = given.isTextual() ? JsonBody.parse(given.textValue()) : given;
    if (value == null || !value.isObject()) {
      throw Fields.expected(
          function.name("arguments"), "a JSON object, written as a string", given);
    }
    return GenerationFields.value(value);
  }
}
