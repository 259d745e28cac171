package dev.wardrobe.trainer.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Understands rows: their fields, by the format that they have. */
final class Samples {
  private static final String FIELDS = "fields missing or of another kind";
  private static final String LABELS = "labels that do not fit";

  /** Messages of the longest conversation: each may have to be rendered with all before it. */
  private static final int MAX_MESSAGES = 4096;

  private static final int NONE = MicroBatch.NONE;

  private Samples() {}

  /**
   * Understands a row.
   *
   * @throws BadRow if it does not have the format's fields
   */
  static Sample of(Format format, Map<String, @Nullable Object> row) throws BadRow {
    return switch (format) {
      case MESSAGES -> chat(row, messages(row, "messages"), null);
      case SHAREGPT -> shareGpt(row);
      case TOKENS -> tokens(row);
      case ALPACA -> alpaca(row);
      case COMPLETION -> completion(row);
      case TEXT -> new Sample.Text(null, text(row, "text"));
    };
  }

  // Text

  private static Sample completion(Map<String, @Nullable Object> row) throws BadRow {
    boolean given = row.get("prompt") instanceof List;
    boolean answered = row.get("completion") instanceof List;
    if (given != answered) {
      throw new BadRow(
          FIELDS, "expected prompt and completion to be both texts or both lists of messages");
    }
    if (!given) {
      return new Sample.Text(text(row, "prompt"), text(row, "completion"));
    }
    List<Map<String, @Nullable Object>> messages = messages(row, "prompt");
    int prompt = messages.size();
    messages.addAll(messages(row, "completion"));
    boolean[] learned = new boolean[messages.size()];
    Arrays.fill(learned, prompt, learned.length, true);
    return chat(row, messages, learned);
  }

  private static Sample alpaca(Map<String, @Nullable Object> row) throws BadRow {
    String instruction = text(row, "instruction");
    String input = optionalText(row, "input");
    String output = text(row, "output");
    String system = optionalText(row, "system");
    List<Map<String, @Nullable Object>> messages = new ArrayList<>();
    StringBuilder plain = new StringBuilder();
    if (!system.isEmpty()) {
      messages.add(message("system", system));
      plain.append(system).append("\n\n");
    }
    for (List<String> turn : history(row)) {
      messages.add(message("user", turn.get(0)));
      messages.add(message("assistant", turn.get(1)));
      plain.append("### Instruction:\n").append(turn.get(0));
      plain.append("\n\n### Response:\n").append(turn.get(1)).append("\n\n");
    }
    messages.add(message("user", input.isEmpty() ? instruction : instruction + "\n\n" + input));
    messages.add(message("assistant", output));
    plain.append("### Instruction:\n").append(instruction);
    if (!input.isEmpty()) {
      plain.append("\n\n### Input:\n").append(input);
    }
    plain.append("\n\n### Response:\n");
    return new Sample.Instruction(
        chat(row, messages, null), new Sample.Text(plain.toString(), output));
  }

  private static List<List<String>> history(Map<String, @Nullable Object> row) throws BadRow {
    List<List<String>> turns = new ArrayList<>();
    if (row.get("history") == null) {
      return turns;
    }
    for (Object turn : list(row, "history")) {
      if (!(turn instanceof List<?> pair)
          || pair.size() != 2
          || !(pair.get(0) instanceof String question)
          || !(pair.get(1) instanceof String answer)) {
        throw new BadRow(FIELDS, "history: expected pairs of question and answer");
      }
      turns.add(List.of(question, answer));
    }
    return turns;
  }

  // Conversations

  private static Sample.Chat chat(
      Map<String, @Nullable Object> row,
      List<Map<String, @Nullable Object>> messages,
      boolean @Nullable [] among)
      throws BadRow {
    if (messages.size() > MAX_MESSAGES) {
      throw new BadRow(
          Json.TOO_LARGE,
          "a conversation of %,d messages; at most %,d".formatted(messages.size(), MAX_MESSAGES));
    }
    boolean[] learned = new boolean[messages.size()];
    for (int i = 0; i < learned.length; i++) {
      Map<String, @Nullable Object> message = messages.get(i);
      boolean wanted = among == null || among[i];
      // OpenAI's own files say so of single answers.
      Object weight = message.remove("weight");
      if (weight != null) {
        if (!(weight instanceof Number number)
            || (number.doubleValue() != 0 && number.doubleValue() != 1)) {
          throw new BadRow(FIELDS, "weight of message " + i + ": expected 0 or 1, got " + weight);
        }
        wanted &= number.doubleValue() == 1;
      }
      learned[i] = wanted && "assistant".equals(message.get("role"));
    }
    return new Sample.Chat(messages, learned, tools(row), variables(row));
  }

  private static List<Map<String, @Nullable Object>> messages(
      Map<String, @Nullable Object> row, String field) throws BadRow {
    List<Map<String, @Nullable Object>> messages = new ArrayList<>();
    for (Object message : list(row, field)) {
      Map<String, @Nullable Object> fields = fields(message, field, messages.size());
      if (!(fields.get("role") instanceof String)) {
        throw new BadRow(
            FIELDS,
            field
                + "["
                + messages.size()
                + "]: expected 'role' to be a text, got "
                + kind(fields.get("role")));
      }
      messages.add(fields);
    }
    if (messages.isEmpty()) {
      throw new BadRow(FIELDS, field + ": expected at least one message, got none");
    }
    return messages;
  }

  private static Sample shareGpt(Map<String, @Nullable Object> row) throws BadRow {
    List<Map<String, @Nullable Object>> messages = new ArrayList<>();
    String system = optionalText(row, "system");
    if (!system.isEmpty()) {
      messages.add(message("system", system));
    }
    for (Object item : list(row, "conversations")) {
      int index = messages.size();
      Map<String, @Nullable Object> said = fields(item, "conversations", index);
      if (said.containsKey("role") && !said.containsKey("from")) {
        messages.add(said);
        continue;
      }
      if (!(said.get("from") instanceof String from)
          || !(said.get("value") instanceof String value)) {
        throw new BadRow(
            FIELDS,
            "conversations[%d]: expected texts 'from' and 'value', got fields %s"
                .formatted(index, Json.shortened(said.keySet().toString())));
      }
      messages.add(said(from, value, index));
    }
    if (messages.isEmpty()) {
      throw new BadRow(FIELDS, "conversations: expected at least one message, got none");
    }
    return chat(row, messages, null);
  }

  private static Map<String, @Nullable Object> said(String from, String value, int index)
      throws BadRow {
    return switch (from) {
      case "human", "user" -> message("user", value);
      case "gpt", "assistant", "chatgpt", "bing", "bard", "model" -> message("assistant", value);
      case "system" -> message("system", value);
      case "observation", "tool", "function_response" -> message("tool", value);
      case "function_call" -> call(value, index);
      default ->
          throw new BadRow(
              FIELDS,
              "conversations[%d]: expected 'from' to be human, gpt, system, function_call or"
                      .formatted(index)
                  + " observation, got '"
                  + Json.shortened(from)
                  + "'");
    };
  }

  private static Map<String, @Nullable Object> call(String value, int index) throws BadRow {
    if (!(Json.parse(value) instanceof Map<?, ?> call)
        || !(call.get("name") instanceof String name)) {
      throw new BadRow(
          FIELDS,
          "conversations[%d]: expected a function_call to be JSON with 'name' and 'arguments'"
              .formatted(index));
    }
    Map<String, @Nullable Object> function = new LinkedHashMap<>();
    function.put("name", name);
    function.put("arguments", call.get("arguments"));
    Map<String, @Nullable Object> entry = new LinkedHashMap<>();
    entry.put("type", "function");
    entry.put("function", function);
    Map<String, @Nullable Object> message = message("assistant", "");
    message.put("tool_calls", List.of(entry));
    return message;
  }

  private static Map<String, @Nullable Object> message(String role, String content) {
    Map<String, @Nullable Object> message = new LinkedHashMap<>();
    message.put("role", role);
    message.put("content", content);
    return message;
  }

  /** A list of functions, or a text that holds one, as tables that want one type have it. */
  private static @Nullable List<Map<String, @Nullable Object>> tools(
      Map<String, @Nullable Object> row) throws BadRow {
    Object given = row.get("tools");
    if (given instanceof String text) {
      given = text.isBlank() ? null : Objects.requireNonNullElse(Json.parse(text), text);
    }
    if (given == null) {
      return null;
    }
    if (!(given instanceof List<?> list)) {
      throw new BadRow(FIELDS, "tools: expected a list of functions, got " + kind(given));
    }
    List<Map<String, @Nullable Object>> tools = new ArrayList<>();
    for (Object tool : list) {
      tools.add(fields(tool, "tools", tools.size()));
    }
    return tools.isEmpty() ? null : tools;
  }

  private static Map<String, @Nullable Object> variables(Map<String, @Nullable Object> row)
      throws BadRow {
    Object given = row.get("chat_template_kwargs");
    return given == null ? Map.of() : fields(given, "chat_template_kwargs", -1);
  }

  // Tokens

  private static Sample tokens(Map<String, @Nullable Object> row) throws BadRow {
    int[] ids = ints(row, "input_ids");
    int[] labels = row.get("labels") == null ? ids : ints(row, "labels");
    if (labels.length != ids.length) {
      throw new BadRow(
          LABELS,
          "expected as many labels as input_ids, %d, got %d".formatted(ids.length, labels.length));
    }
    boolean[] learned = new boolean[ids.length];
    for (int i = 0; i < ids.length; i++) {
      if (labels[i] != NONE && labels[i] != ids[i]) {
        throw new BadRow(
            LABELS,
            ("labels[%d]: expected %d, the token there, or %d where it is not learned, got %d;"
                    + " labels are not shifted")
                .formatted(i, ids[i], NONE, labels[i]));
      }
      learned[i] = labels[i] != NONE;
    }
    if (row.get("attention_mask") != null) {
      return unpadded(ids, learned, ints(row, "attention_mask"));
    }
    return new Sample.Tokens(ids, learned);
  }

  /** Padding, before or behind, is left out: sequences go through the model without. */
  private static Sample unpadded(int[] ids, boolean[] learned, int[] mask) throws BadRow {
    if (mask.length != ids.length) {
      throw new BadRow(
          LABELS,
          "attention_mask: expected %d entries, as input_ids has, got %d"
              .formatted(ids.length, mask.length));
    }
    int from = 0;
    while (from < mask.length && mask[from] == 0) {
      from++;
    }
    int to = mask.length;
    while (to > from && mask[to - 1] == 0) {
      to--;
    }
    for (int i = from; i < to; i++) {
      if (mask[i] != 1) {
        throw new BadRow(
            LABELS,
            "attention_mask[%d]: expected 1 between the first and the last token that count, got %d"
                .formatted(i, mask[i]));
      }
    }
    return new Sample.Tokens(
        Arrays.copyOfRange(ids, from, to), Arrays.copyOfRange(learned, from, to));
  }

  private static int[] ints(Map<String, @Nullable Object> row, String field) throws BadRow {
    List<?> list = list(row, field);
    if (list instanceof Ints ints) {
      return ints.toInts();
    }
    for (int i = 0; i < list.size(); i++) {
      if (!(list.get(i) instanceof Integer)) {
        throw new BadRow(
            FIELDS,
            "%s[%d]: expected a whole number of 32 bits, got %s"
                .formatted(field, i, kind(list.get(i))));
      }
    }
    return new int[0];
  }

  // Fields

  private static String text(Map<String, @Nullable Object> row, String field) throws BadRow {
    if (!(row.get(field) instanceof String text)) {
      throw new BadRow(FIELDS, field + ": expected a text, got " + kind(row, field));
    }
    return text;
  }

  private static String optionalText(Map<String, @Nullable Object> row, String field)
      throws BadRow {
    return row.get(field) == null ? "" : text(row, field);
  }

  private static List<?> list(Map<String, @Nullable Object> row, String field) throws BadRow {
    if (!(row.get(field) instanceof List<?> list)) {
      throw new BadRow(FIELDS, field + ": expected a list, got " + kind(row, field));
    }
    return list;
  }

  private static Map<String, @Nullable Object> fields(
      @Nullable Object value, String field, int index) throws BadRow {
    if (!(value instanceof Map<?, ?> map)) {
      throw new BadRow(
          FIELDS,
          field
              + (index < 0 ? "" : "[" + index + "]")
              + ": expected an object, got "
              + kind(value));
    }
    Map<String, @Nullable Object> fields = new LinkedHashMap<>();
    map.forEach((name, entry) -> fields.put(String.valueOf(name), entry));
    return fields;
  }

  private static String kind(Map<String, @Nullable Object> row, String field) {
    return row.containsKey(field)
        ? kind(row.get(field))
        : "no such field among " + Json.shortened(row.keySet().toString());
  }

  private static String kind(@Nullable Object value) {
    return switch (value) {
      case null -> "null";
      case String text -> "a text";
      case List<?> list -> "a list";
      case Map<?, ?> map -> "an object";
      case Boolean flag -> "a boolean";
      default -> Json.shortened("the number " + value);
    };
  }
}
