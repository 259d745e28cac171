package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.Choices;
import dev.wardrobe.v1.Constraint;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.JsonKind;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What requests for chats and for completions have in common, as fields of a GenerateRequest. */
final class GenerationFields {
  private GenerationFields() {}

  /** Which adapters, and whose request it is; returns what {@code model} says. */
  static @Nullable String model(Fields fields, ModelNames names, GenerateRequest.Builder request)
      throws FieldException {
    String model = fields.text("model");
    String adapter = names.adapter(model);
    List<AdapterWeight> mixture = mixture(fields);
    Float scale = fields.number("adapter_scale");
    if (!mixture.isEmpty() && !adapter.isEmpty()) {
      throw FieldException.of(
          "adapters",
          "they go with the base, but model is '%s'; make model '%s', and give all of them in adapters"
              .formatted(Fields.cut(adapter), names.base()));
    }
    if (scale != null && adapter.isEmpty()) {
      throw FieldException.of(
          "adapter_scale", "goes with an adapter as model only; leave it out, or name an adapter");
    }
    request.setAdapter(adapter).addAllAdapters(mixture);
    if (scale != null) {
      request.setAdapterScale(scale);
    }
    String user = fields.text("user");
    String key = fields.text("request_key");
    if (key != null || user != null) {
      request.setRequestKey(key != null ? key : user);
    }
    return model;
  }

  /** {@code {"a": 0.7, "b": 0.3}}, or a list of {@code {"adapter": "a", "weight": 0.7}}. */
  static List<AdapterWeight> mixture(Fields fields) throws FieldException {
    JsonNode value = fields.node("adapters");
    List<AdapterWeight> mixture = new ArrayList<>();
    if (value != null && value.isObject()) {
      for (Map.Entry<String, JsonNode> each : value.properties()) {
        mixture.add(
            AdapterWeight.newBuilder()
                .setAdapter(each.getKey())
                .setWeight(Fields.number(each.getValue(), "adapters." + Fields.cut(each.getKey())))
                .build());
      }
      return mixture;
    }
    for (Fields each : fields.objects("adapters")) {
      AdapterWeight.Builder weight =
          AdapterWeight.newBuilder().setAdapter(each.requiredText("adapter"));
      Float number = each.number("weight");
      if (number != null) {
        weight.setWeight(number);
      }
      each.end();
      mixture.add(weight.build());
    }
    return mixture;
  }

  /** How tokens are drawn, and what ends the answer. */
  static void sampling(Fields fields, GenerateRequest.Builder request) throws FieldException {
    Float temperature = fields.number("temperature");
    if (temperature != null) {
      request.setTemperature(temperature);
    }
    Integer topK = fields.integer("top_k");
    if (topK != null) {
      // vLLM's off is -1 as well.
      request.setTopK(topK == -1 ? 0 : topK);
    }
    Float topP = fields.number("top_p");
    if (topP != null) {
      request.setTopP(topP);
    }
    Float minP = fields.number("min_p");
    if (minP != null) {
      request.setMinP(minP);
    }
    Float repetition = fields.number("repetition_penalty");
    if (repetition != null) {
      request.setRepetitionPenalty(repetition);
    }
    Float presence = fields.number("presence_penalty");
    if (presence != null) {
      request.setPresencePenalty(presence);
    }
    Float frequency = fields.number("frequency_penalty");
    if (frequency != null) {
      request.setFrequencyPenalty(frequency);
    }
    Long seed = fields.longer("seed");
    if (seed != null) {
      request.setSeed(seed);
    }
    Integer minTokens = fields.integer("min_tokens");
    if (minTokens != null) {
      request.setMinTokens(minTokens);
    }
    Integer n = fields.integer("n");
    if (n != null) {
      request.setN(n);
    }
    Integer bestOf = fields.integer("best_of");
    if (bestOf != null) {
      request.setBestOf(bestOf);
    }
    request.addAllStop(fields.texts("stop"));
    request.addAllStopTokenIds(fields.integers("stop_token_ids"));
    Boolean ignoreEos = fields.flag("ignore_eos");
    if (ignoreEos != null) {
      request.setIgnoreEos(ignoreEos);
    }
    Fields bias = fields.object("logit_bias");
    if (bias != null) {
      for (Map.Entry<String, JsonNode> each : bias.properties()) {
        request.putLogitBias(
            token(each.getKey()),
            Fields.number(each.getValue(), "logit_bias." + Fields.cut(each.getKey())));
      }
    }
  }

  private static int token(String id) throws FieldException {
    try {
      return Integer.parseInt(id);
    } catch (NumberFormatException e) {
      throw FieldException.of(
          "logit_bias",
          "expected token ids as names, such as \"15\": -100, got \"%s\""
              .formatted(Fields.cut(id)));
    }
  }

  /**
   * What the answer must be.
   *
   * @param field the one that says so
   */
  record Shape(Constraint constraint, String field) {}

  /** What the answer must be, or null: OpenAI's field, and vLLM's. */
  static @Nullable Shape shape(Fields fields) throws FieldException {
    List<Shape> given = new ArrayList<>();
    Constraint format = format(fields.object("response_format"));
    if (format != null) {
      given.add(new Shape(format, "response_format"));
    }
    structured(fields, "guided_", given);
    fields.withoutEffect("guided_decoding_backend");
    Fields structured = fields.object("structured_outputs");
    if (structured != null) {
      int before = given.size();
      structured(structured, "", given);
      structured.end();
      if (given.size() == before) {
        throw FieldException.of(
            "structured_outputs",
            "expected one of json, json_object, regex and choice, got none of them");
      }
    }
    if (given.size() > 1) {
      throw FieldException.of(
          given.getLast().field(),
          "an answer has one form, got it and %s; give one of them"
              .formatted(given.getFirst().field()));
    }
    return given.isEmpty() ? null : given.getFirst();
  }

  /** What fields are called in messages, the constraint's too. */
  static Map<String, String> named(Map<String, String> fields, String constraint) {
    Map<String, String> named = new HashMap<>(fields);
    named.put("constraint", constraint);
    return Map.copyOf(named);
  }

  private static @Nullable Constraint format(@Nullable Fields format) throws FieldException {
    if (format == null) {
      return null;
    }
    String type = format.requiredText("type");
    Constraint constraint =
        switch (type) {
          case "text" -> null;
          case "json_object" -> Constraint.newBuilder().setJson(JsonKind.JSON_KIND_OBJECT).build();
          case "json_schema" -> {
            Fields schema = format.object("json_schema");
            if (schema == null) {
              throw FieldException.of(
                  "response_format.json_schema",
                  "expected an object with name and schema, got nothing");
            }
            schema.withoutEffect("name", "description");
            JsonNode document = schema.node("schema");
            if (document == null) {
              throw FieldException.of(
                  "response_format.json_schema.schema", "expected a JSON schema, got nothing");
            }
            Constraint one =
                Constraint.newBuilder()
                    .setJsonSchema(document.toString())
                    .setClosedObjects(schema.flag("strict", false))
                    .build();
            schema.end();
            yield one;
          }
          default ->
              throw FieldException.of(
                  "response_format.type",
                  "expected text, json_object or json_schema, got \"%s\""
                      .formatted(Fields.cut(type)));
        };
    format.end();
    return constraint;
  }

  private static void structured(Fields fields, String prefix, List<Shape> given)
      throws FieldException {
    JsonNode json = fields.node(prefix + "json");
    if (json != null) {
      String schema = json.isTextual() ? json.textValue() : json.toString();
      given.add(
          new Shape(
              Constraint.newBuilder().setJsonSchema(schema).build(), fields.name(prefix + "json")));
    }
    if (fields.flag(prefix + "json_object", false)) {
      given.add(
          new Shape(
              Constraint.newBuilder().setJson(JsonKind.JSON_KIND_OBJECT).build(),
              fields.name(prefix + "json_object")));
    }
    String regex = fields.text(prefix + "regex");
    if (regex != null) {
      given.add(
          new Shape(
              Constraint.newBuilder().setRegex(regex).build(), fields.name(prefix + "regex")));
    }
    if (fields.has(prefix + "choice")) {
      Choices choices = Choices.newBuilder().addAllTexts(fields.texts(prefix + "choice")).build();
      given.add(
          new Shape(
              Constraint.newBuilder().setChoice(choices).build(), fields.name(prefix + "choice")));
    }
    fields.refuse(
        prefix + "grammar", "grammars are not supported; give a JSON schema or an expression");
  }

  static Struct struct(JsonNode object) {
    Struct.Builder struct = Struct.newBuilder();
    for (Map.Entry<String, JsonNode> each : object.properties()) {
      struct.putFields(each.getKey(), value(each.getValue()));
    }
    return struct.build();
  }

  static Value value(JsonNode node) {
    Value.Builder value = Value.newBuilder();
    switch (node.getNodeType()) {
      case OBJECT -> value.setStructValue(struct(node));
      case ARRAY -> {
        ListValue.Builder list = ListValue.newBuilder();
        node.forEach(element -> list.addValues(value(element)));
        value.setListValue(list);
      }
      case STRING -> value.setStringValue(node.textValue());
      case NUMBER -> value.setNumberValue(node.doubleValue());
      case BOOLEAN -> value.setBoolValue(node.booleanValue());
      default -> value.setNullValue(NullValue.NULL_VALUE);
    }
    return value.build();
  }
}
