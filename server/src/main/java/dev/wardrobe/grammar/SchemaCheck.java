package dev.wardrobe.grammar;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Whether given values, those of {@code enum} and {@code const}, satisfy a schema's keywords. */
final class SchemaCheck {
  /** Finds what a subschema's {@code $ref} names. */
  interface References {
    JsonSchema.Place resolve(JsonSchema.Place place) throws GrammarException;
  }

  private static final int DEEPEST = 200;

  private final References references;
  private final Budget budget;
  private final SchemaKeywords keywords = new SchemaKeywords();

  /** By the pointer of a subschema: what its {@code enum} lists. */
  private final Map<String, Listed> listed = new HashMap<>();

  private int depth;

  /**
   * What an {@code enum} lists: thousands of names, it may be, each of which is looked up.
   *
   * @param plain strings, and numbers without trailing zeros
   * @param others all other values
   */
  private record Listed(Set<Object> plain, List<JsonNode> others) {
    static Listed of(JsonNode values) {
      Set<Object> plain = new HashSet<>();
      List<JsonNode> others = new ArrayList<>();
      for (JsonNode value : values) {
        if (value.isTextual() || value.isNumber()) {
          plain.add(key(value));
        } else {
          others.add(value);
        }
      }
      return new Listed(plain, others);
    }

    private static Object key(JsonNode value) {
      return value.isTextual() ? value.textValue() : value.decimalValue().stripTrailingZeros();
    }

    boolean has(JsonNode value, Budget budget) throws GrammarException {
      if (value.isTextual() || value.isNumber()) {
        return plain.contains(key(value));
      }
      for (JsonNode other : others) {
        budget.work(1 + other.size());
        if (same(other, value)) {
          return true;
        }
      }
      return false;
    }
  }

  SchemaCheck(References references, Budget budget) {
    this.references = references;
    this.budget = budget;
  }

  /** Whether a value satisfies all of a schema. */
  private boolean all(JsonSchema.Place place, JsonNode value) throws GrammarException {
    if (place.schema().isBoolean()) {
      return place.schema().asBoolean();
    }
    keywords.check(place);
    if (++depth > DEEPEST) {
      throw SchemaKeywords.error(place, "refers to itself, with nothing in between");
    }
    boolean valid = own(place, value);
    if (valid && place.has("$ref")) {
      valid = all(references.resolve(place), value);
    }
    valid = valid && count(place.at("allOf"), value) == place.at("allOf").schema().size();
    valid = valid && (!place.has("anyOf") || count(place.at("anyOf"), value) > 0);
    valid = valid && (!place.has("oneOf") || count(place.at("oneOf"), value) == 1);
    depth--;
    return valid;
  }

  private int count(JsonSchema.Place list, JsonNode value) throws GrammarException {
    int count = 0;
    for (int i = 0; i < list.schema().size(); i++) {
      count += all(list.at(i), value) ? 1 : 0;
    }
    return count;
  }

  /** Whether a value satisfies a subschema's keywords, those aside that combine schemas. */
  boolean own(JsonSchema.Place place, JsonNode value) throws GrammarException {
    budget.work(20 + place.pointer().length());
    JsonNode schema = place.schema();
    if (schema.has("type") && !hasType(SchemaKeywords.types(schema.path("type")), value)) {
      return false;
    }
    if (schema.has("const") && !same(schema.path("const"), value)) {
      return false;
    }
    if (schema.has("enum")
        && !listed
            .computeIfAbsent(place.pointer(), _ -> Listed.of(schema.path("enum")))
            .has(value, budget)) {
      return false;
    }
    if (value.isNumber()) {
      return number(schema, value.decimalValue());
    }
    if (value.isTextual()) {
      return string(place, value.textValue());
    }
    if (value.isArray()) {
      return array(place, value);
    }
    return !value.isObject() || object(place, value);
  }

  private static boolean hasType(Set<String> types, JsonNode value) {
    return switch (value.getNodeType()) {
      case NULL -> types.contains("null");
      case BOOLEAN -> types.contains("boolean");
      case STRING -> types.contains("string");
      case ARRAY -> types.contains("array");
      case OBJECT -> types.contains("object");
      case NUMBER ->
          types.contains("number")
              || (types.contains("integer") && SchemaKeywords.isInteger(value.decimalValue()));
      default -> false;
    };
  }

  /** Equality as schemas have it: numbers by value, objects whatever their order. */
  private static boolean same(JsonNode one, JsonNode other) {
    if (one.isNumber() && other.isNumber()) {
      return one.decimalValue().compareTo(other.decimalValue()) == 0;
    }
    if (one.getNodeType() != other.getNodeType() || one.size() != other.size()) {
      return false;
    }
    if (one.isArray()) {
      for (int i = 0; i < one.size(); i++) {
        if (!same(one.get(i), other.get(i))) {
          return false;
        }
      }
      return true;
    }
    if (one.isObject()) {
      for (Map.Entry<String, JsonNode> member : one.properties()) {
        if (!other.has(member.getKey()) || !same(member.getValue(), other.path(member.getKey()))) {
          return false;
        }
      }
      return true;
    }
    return one.equals(other);
  }

  private static boolean number(JsonNode schema, BigDecimal value) {
    return (!schema.has("minimum") || order(schema, "minimum", value) >= 0)
        && (!schema.has("maximum") || order(schema, "maximum", value) <= 0)
        && (!schema.has("exclusiveMinimum") || order(schema, "exclusiveMinimum", value) > 0)
        && (!schema.has("exclusiveMaximum") || order(schema, "exclusiveMaximum", value) < 0)
        && (!schema.has("multipleOf") || isMultiple(value, schema.path("multipleOf")));
  }

  private static boolean isMultiple(BigDecimal value, JsonNode step) {
    if (value.signum() == 0) {
      return true;
    }
    // A number that is far from the step's size would take long to divide.
    boolean near = Math.abs((long) value.scale()) <= 1_000 && value.precision() <= 1_000;
    return near && value.remainder(step.decimalValue()).signum() == 0;
  }

  private static int order(JsonNode schema, String keyword, BigDecimal value) {
    return value.compareTo(schema.path(keyword).decimalValue());
  }

  private boolean string(JsonSchema.Place place, String value) throws GrammarException {
    JsonNode schema = place.schema();
    int length = value.codePointCount(0, value.length());
    if (!within(schema, "minLength", "maxLength", length)) {
      return false;
    }
    byte[] content = spelled(value);
    try {
      if (schema.has("pattern")
          && !Regex.within(schema.path("pattern").asText(), Spelling.JSON, budget)
              .matches(content)) {
        return false;
      }
      return !schema.has("format")
          || Formats.of(schema.path("format").asText(), budget).matches(content);
    } catch (GrammarException e) {
      throw SchemaKeywords.error(place, e.getMessage());
    }
  }

  /** A string as it is written, without quotes. */
  static byte[] spelled(String text) {
    return ((Expr.Literal) Spelling.JSON.of(text)).bytes();
  }

  private static boolean within(JsonNode schema, String min, String max, int count) {
    return (!schema.has(min) || count >= SchemaKeywords.count(schema.path(min)))
        && (!schema.has(max) || count <= SchemaKeywords.count(schema.path(max)));
  }

  private boolean array(JsonSchema.Place place, JsonNode value) throws GrammarException {
    if (!within(place.schema(), "minItems", "maxItems", value.size())) {
      return false;
    }
    for (int i = 0; i < value.size(); i++) {
      for (int j = 0; j < i && place.schema().path("uniqueItems").asBoolean(); j++) {
        budget.work(1);
        if (same(value.get(i), value.get(j))) {
          return false;
        }
      }
      JsonSchema.Place prefix = place.at("prefixItems");
      boolean valid =
          i < prefix.schema().size()
              ? all(prefix.at(i), value.get(i))
              : !place.has("items") || all(place.at("items"), value.get(i));
      if (!valid) {
        return false;
      }
    }
    return true;
  }

  private boolean object(JsonSchema.Place place, JsonNode value) throws GrammarException {
    if (!within(place.schema(), "minProperties", "maxProperties", value.size())) {
      return false;
    }
    for (JsonNode name : place.schema().path("required")) {
      if (!value.has(name.asText())) {
        return false;
      }
    }
    for (Map.Entry<String, JsonNode> member : value.properties()) {
      String name = member.getKey();
      boolean known = place.schema().path("properties").has(name);
      boolean valid = !known || all(place.at("properties").at(name), member.getValue());
      JsonSchema.Place patterns = place.at("patternProperties");
      for (Map.Entry<String, JsonNode> each : patterns.schema().properties()) {
        boolean matches = Regex.within(each.getKey(), Spelling.JSON, budget).matches(spelled(name));
        known |= matches;
        valid = valid && (!matches || all(patterns.at(each.getKey()), member.getValue()));
      }
      if (!known && place.has("additionalProperties")) {
        valid = valid && all(place.at("additionalProperties"), member.getValue());
      }
      if (valid && place.has("propertyNames")) {
        JsonNode text = TextNode.valueOf(name);
        valid = all(place.at("propertyNames"), text);
      }
      if (!valid) {
        return false;
      }
    }
    return true;
  }
}
