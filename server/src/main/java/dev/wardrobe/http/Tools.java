package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.Struct;
import dev.wardrobe.http.ToolCallParser.Style;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.Constraint;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The functions that an answer may call, or has to.
 *
 * @param given to the chat template
 * @param constraint what the answer must be, or null
 * @param names of the functions that may be called
 * @param several whether an answer may have more than one call
 */
record Tools(
    List<Struct> given,
    @Nullable Constraint constraint,
    Style style,
    Set<String> names,
    boolean several) {
  static final Tools NONE = new Tools(List.of(), null, Style.NONE, Set.of(), true);

  /** Most calls in an answer that has to have some: a list without an end would have none. */
  private static final int MOST_CALLS = 16;

  /** Keywords with schemas by names of the caller's. */
  private static final Set<String> NAMED =
      Set.of("properties", "patternProperties", "$defs", "definitions", "dependentSchemas");

  /** Keywords with values that are no schemas. */
  private static final Set<String> VALUES = Set.of("const", "enum", "default", "examples");

  private static final JsonNodeFactory JSON = JsonNodeFactory.instance;

  /**
   * A function.
   *
   * @param parameters a schema of an object
   */
  private record Function(String name, JsonNode parameters, boolean strict) {}

  Tools {
    given = List.copyOf(given);
    names = Set.copyOf(names);
  }

  /** As they are, for the chat template alone. */
  static List<Struct> declared(Fields fields) throws FieldException {
    List<Struct> declared = new ArrayList<>();
    for (Fields tool : fields.objects("tools")) {
      declared.add(GenerationFields.struct(tool.json()));
    }
    return declared;
  }

  static Tools read(Fields fields, Conversation conversation) throws FieldException {
    List<Struct> declared = declared(fields);
    Map<String, Function> functions = new LinkedHashMap<>();
    for (Fields tool : fields.objects("tools")) {
      Function function = function(tool);
      if (functions.put(function.name(), function) != null) {
        throw FieldException.of(
            tool.name("function.name"),
            "there are two of the name '%s'; rename one".formatted(Fields.cut(function.name())));
      }
    }
    boolean several = fields.flag("parallel_tool_calls", true);
    JsonNode choice = fields.node("tool_choice");
    fields.refuse("functions", "this form is out of use; give tools");
    fields.refuse("function_call", "this form is out of use; give tool_choice");
    String mode = choice == null ? "auto" : choice.isTextual() ? choice.textValue() : "function";
    if (functions.isEmpty()) {
      if (!mode.equals("auto") && !mode.equals("none")) {
        throw FieldException.of("tool_choice", "goes with tools, and there are none; give tools");
      }
      return NONE;
    }
    if (mode.equals("none")) {
      return NONE;
    }
    if (!conversation.templateMentions("tools")) {
      throw FieldException.of(
          "tools",
          "this model's chat template has no place for them; describe them in a message, and give"
              + " response_format the schema of a call, or serve a model that was trained to call");
    }
    Style style = style(conversation);
    return switch (mode) {
      case "auto" -> new Tools(declared, null, style, functions.keySet(), several);
      case "required" ->
          new Tools(
              declared,
              calls(List.copyOf(functions.values()), style, several),
              Style.LIST,
              functions.keySet(),
              several);
      case "function" -> {
        Function named = functions.get(named(choice));
        if (named == null) {
          throw FieldException.of(
              "tool_choice.function.name",
              "expected one of tools, %s, got '%s'"
                  .formatted(String.join(", ", functions.keySet()), Fields.cut(named(choice))));
        }
        yield new Tools(
            declared,
            Constraint.newBuilder()
                .setJsonSchema(named.parameters().toString())
                .setClosedObjects(named.strict())
                .build(),
            Style.ARGUMENTS,
            Set.of(named.name()),
            false);
      }
      default ->
          throw FieldException.of(
              "tool_choice",
              "expected auto, none, required or a function, got \"%s\""
                  .formatted(Fields.cut(mode)));
    };
  }

  /** How models of this template's family write calls. */
  private static Style style(Conversation conversation) {
    if (conversation.templateMentions("<tool_call>")) {
      return Style.TAGS;
    }
    if (conversation.templateMentions("[TOOL_CALLS]")) {
      return Style.LIST;
    }
    boolean llama =
        conversation.templateMentions("<|python_tag|>")
            || conversation.templateMentions("\"parameters\"")
            || conversation.templateMentions("ipython");
    return llama ? Style.OBJECTS : Style.NONE;
  }

  private static String named(@Nullable JsonNode choice) throws FieldException {
    if (choice == null) {
      return "";
    }
    Fields fields = Fields.object(choice, "tool_choice");
    String type = fields.requiredText("type");
    Fields function = fields.object("function");
    if (!type.equals("function") || function == null) {
      throw FieldException.of(
          "tool_choice",
          "expected {\"type\": \"function\", \"function\": {\"name\": ...}}, got type \"%s\""
              .formatted(Fields.cut(type)));
    }
    String name = function.requiredText("name");
    function.end();
    fields.end();
    return name;
  }

  private static Function function(Fields tool) throws FieldException {
    String type = tool.requiredText("type");
    if (!type.equals("function")) {
      throw FieldException.of(
          tool.name("type"), "expected function, got \"%s\"".formatted(Fields.cut(type)));
    }
    Fields fields = tool.object("function");
    if (fields == null) {
      throw FieldException.of(tool.name("function"), "expected an object, got nothing");
    }
    Function function =
        new Function(
            fields.requiredText("name"),
            parameters(fields.object("parameters")),
            fields.flag("strict", false));
    fields.withoutEffect("description");
    fields.end();
    tool.end();
    return function;
  }

  /** An object with the parameters that are named, and no others. */
  private static JsonNode parameters(@Nullable Fields given) {
    if (given == null || given.json().isEmpty()) {
      ObjectNode none = JSON.objectNode().put("type", "object");
      none.putObject("properties");
      return none.put("additionalProperties", false);
    }
    ObjectNode schema = given.json().deepCopy();
    schema.remove(List.of("$schema", "$id"));
    if (!schema.has("type") && schema.has("properties")) {
      schema.put("type", "object");
    }
    boolean simple = true;
    for (String keyword :
        List.of("additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref")) {
      simple &= !schema.has(keyword);
    }
    if (simple && schema.has("properties")) {
      schema.put("additionalProperties", false);
    }
    return schema;
  }

  /** A list of calls, each with a name and what that function takes. */
  private static Constraint calls(List<Function> functions, Style style, boolean several) {
    ObjectNode list = JSON.objectNode().put("type", "array").put("minItems", 1);
    list.put("maxItems", several ? MOST_CALLS : 1);
    String arguments = style == Style.OBJECTS ? "parameters" : "arguments";
    ArrayNode kinds = list.putObject("items").putArray("anyOf");
    boolean strict = true;
    for (int i = 0; i < functions.size(); i++) {
      Function function = functions.get(i);
      strict &= function.strict();
      ObjectNode call = kinds.addObject().put("type", "object");
      ObjectNode properties = call.putObject("properties");
      properties.putObject("name").put("const", function.name());
      String place = "#/items/anyOf/%d/properties/%s".formatted(i, arguments);
      properties.set(arguments, moved(function.parameters(), place));
      call.putArray("required").add("name").add(arguments);
      call.put("additionalProperties", false);
    }
    return Constraint.newBuilder().setJsonSchema(list.toString()).setClosedObjects(strict).build();
  }

  /** A schema whose references say where it is now. */
  private static JsonNode moved(JsonNode schema, String place) {
    if (schema.isArray()) {
      ArrayNode copy = JSON.arrayNode();
      schema.forEach(element -> copy.add(moved(element, place)));
      return copy;
    }
    if (!schema.isObject()) {
      return schema;
    }
    ObjectNode copy = JSON.objectNode();
    for (Map.Entry<String, JsonNode> each : schema.properties()) {
      JsonNode value = each.getValue();
      boolean reference =
          each.getKey().equals("$ref") && value.isTextual() && value.textValue().startsWith("#");
      if (reference) {
        copy.put("$ref", place + value.textValue().substring(1));
      } else if (NAMED.contains(each.getKey()) && value.isObject()) {
        ObjectNode named = copy.putObject(each.getKey());
        value.properties().forEach(one -> named.set(one.getKey(), moved(one.getValue(), place)));
      } else {
        copy.set(each.getKey(), VALUES.contains(each.getKey()) ? value : moved(value, place));
      }
    }
    return copy;
  }
}
