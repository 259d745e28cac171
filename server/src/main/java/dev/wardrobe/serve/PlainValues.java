package dev.wardrobe.serve;

import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.ToolCall;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Messages and JSON values as plain maps, lists, strings, numbers and booleans, for chat templates.
 * A number without a fraction becomes a {@link Long}, so that a template prints 1 and not 1.0; keys
 * keep their order; what is unset has no key.
 */
final class PlainValues {
  /** Up to here every whole double is one whole number. */
  private static final double EXACT = 0x1p53;

  private PlainValues() {}

  static List<Map<String, @Nullable Object>> messages(List<Message> messages) {
    List<Map<String, @Nullable Object>> plain = new ArrayList<>(messages.size());
    for (Message message : messages) {
      plain.add(message(message));
    }
    return plain;
  }

  private static Map<String, @Nullable Object> message(Message message) {
    Map<String, @Nullable Object> plain = new LinkedHashMap<>();
    plain.put("role", message.getRole());
    if (message.hasContent()) {
      plain.put("content", message.getContent());
    }
    if (message.hasName()) {
      plain.put("name", message.getName());
    }
    if (message.hasReasoningContent()) {
      plain.put("reasoning_content", message.getReasoningContent());
    }
    if (message.getToolCallsCount() > 0) {
      List<@Nullable Object> calls = new ArrayList<>();
      for (ToolCall call : message.getToolCallsList()) {
        calls.add(toolCall(call));
      }
      plain.put("tool_calls", calls);
    }
    if (message.hasToolCallId()) {
      plain.put("tool_call_id", message.getToolCallId());
    }
    return plain;
  }

  private static Map<String, @Nullable Object> toolCall(ToolCall call) {
    Map<String, @Nullable Object> plain = new LinkedHashMap<>();
    if (call.hasId()) {
      plain.put("id", call.getId());
    }
    if (call.hasType()) {
      plain.put("type", call.getType());
    }
    if (call.hasFunction()) {
      Map<String, @Nullable Object> function = new LinkedHashMap<>();
      function.put("name", call.getFunction().getName());
      if (call.getFunction().hasArguments()) {
        function.put("arguments", value(call.getFunction().getArguments()));
      }
      plain.put("function", function);
    }
    return plain;
  }

  static List<Map<String, @Nullable Object>> structs(List<Struct> structs) {
    List<Map<String, @Nullable Object>> plain = new ArrayList<>(structs.size());
    for (Struct struct : structs) {
      plain.add(struct(struct));
    }
    return plain;
  }

  static Map<String, @Nullable Object> struct(Struct struct) {
    Map<String, @Nullable Object> plain = new LinkedHashMap<>();
    struct.getFieldsMap().forEach((key, value) -> plain.put(key, value(value)));
    return plain;
  }

  private static @Nullable Object value(Value value) {
    return switch (value.getKindCase()) {
      case NULL_VALUE, KIND_NOT_SET -> null;
      case BOOL_VALUE -> value.getBoolValue();
      case STRING_VALUE -> value.getStringValue();
      case NUMBER_VALUE -> number(value.getNumberValue());
      case STRUCT_VALUE -> struct(value.getStructValue());
      case LIST_VALUE -> {
        List<@Nullable Object> list = new ArrayList<>();
        value.getListValue().getValuesList().forEach(element -> list.add(value(element)));
        yield list;
      }
    };
  }

  private static Object number(double number) {
    boolean whole = number == Math.rint(number) && Math.abs(number) <= EXACT;
    return whole ? (Object) (long) number : (Object) number;
  }
}
