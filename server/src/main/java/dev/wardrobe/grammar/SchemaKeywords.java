package dev.wardrobe.grammar;

import com.fasterxml.jackson.databind.JsonNode;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The keywords that schemas may have, and the values that those may have. */
final class SchemaKeywords {
  private static final Set<String> TYPES =
      Set.of("object", "array", "string", "number", "integer", "boolean", "null");

  /** What says nothing about a value. */
  private static final Set<String> ANNOTATIONS =
      Set.of(
          "title",
          "description",
          "default",
          "examples",
          "example",
          "deprecated",
          "readOnly",
          "writeOnly",
          "$comment",
          "$anchor",
          "contentMediaType",
          "contentEncoding",
          "contentSchema",
          "discriminator");

  /** What each keyword must be, in words that {@link #fits} knows. */
  private static final Map<String, String> KEYWORDS =
      Map.ofEntries(
          Map.entry(
              "type", "a type, or a list of different ones, of " + new java.util.TreeSet<>(TYPES)),
          Map.entry("enum", "a list with at least one value"),
          Map.entry("const", "any value"),
          Map.entry("properties", "an object of schemas"),
          Map.entry("patternProperties", "an object of schemas"),
          Map.entry("$defs", "an object of schemas"),
          Map.entry("definitions", "an object of schemas"),
          Map.entry("required", "a list of strings"),
          Map.entry("additionalProperties", "a schema"),
          Map.entry("propertyNames", "a schema"),
          Map.entry("items", "a schema"),
          Map.entry("prefixItems", "a list of schemas"),
          Map.entry("anyOf", "a list with at least one schema"),
          Map.entry("oneOf", "a list with at least one schema"),
          Map.entry("allOf", "a list with at least one schema"),
          Map.entry("minProperties", "a count"),
          Map.entry("maxProperties", "a count"),
          Map.entry("minItems", "a count"),
          Map.entry("maxItems", "a count"),
          Map.entry("minLength", "a count"),
          Map.entry("maxLength", "a count"),
          Map.entry("uniqueItems", "true or false"),
          Map.entry("pattern", "a string"),
          Map.entry("format", "a string"),
          Map.entry("$ref", "a string"),
          Map.entry("$schema", "a string"),
          Map.entry("$id", "a string"),
          Map.entry("minimum", "a number"),
          Map.entry("maximum", "a number"),
          Map.entry("exclusiveMinimum", "a number"),
          Map.entry("exclusiveMaximum", "a number"),
          Map.entry("multipleOf", "a number over 0"));

  /** Far more than any text has; as large as counters go. */
  private static final int LARGEST_COUNT = 1_000_000_000;

  private static final int MOST_DIGITS = 60;

  private final Set<String> checked = new HashSet<>();

  static GrammarException error(
      JsonSchema.Place place, @org.jspecify.annotations.Nullable String what) {
    return new GrammarException(
        (place.pointer().isEmpty() ? "the schema" : place.pointer()) + ": " + what);
  }

  /** Checks a subschema's own keywords. */
  void check(JsonSchema.Place place) throws GrammarException {
    if (!checked.add(place.pointer())) {
      return;
    }
    JsonNode schema = place.schema();
    if (!schema.isObject()) {
      throw error(place, "expected a schema (an object, true or false), got " + brief(schema));
    }
    for (Map.Entry<String, JsonNode> each : schema.properties()) {
      String keyword = each.getKey();
      JsonNode value = each.getValue();
      String expected = KEYWORDS.get(keyword);
      if (expected == null) {
        if (ANNOTATIONS.contains(keyword) || keyword.startsWith("x-")) {
          continue;
        }
        throw error(
            place.at(keyword), "this keyword is not supported; leave it out" + hint(keyword));
      }
      if (!fits(expected, value)) {
        String more =
            keyword.equals("items") && value.isArray() ? "; a list goes into prefixItems" : "";
        throw error(place.at(keyword), "expected " + expected + ", got " + brief(value) + more);
      }
      switch (keyword) {
        case "format" -> {
          if (!Formats.isKnown(value.asText())) {
            throw error(
                place.at(keyword),
                "the format '%s' is not supported; expected one of %s"
                    .formatted(value.asText(), Formats.known()));
          }
        }
        case "$id" -> {
          if (!place.pointer().isEmpty()) {
            throw error(place.at(keyword), "is supported at the root only");
          }
        }
        case "$schema" -> {
          if (!value.asText().contains("json-schema.org")) {
            throw error(
                place.at(keyword), "expected one of json-schema.org's, got " + brief(value));
          }
        }
        default -> {}
      }
    }
  }

  private static String hint(String keyword) {
    return switch (keyword) {
      case "unevaluatedProperties" -> ", or use additionalProperties";
      case "unevaluatedItems", "additionalItems" -> ", or use items";
      case "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies" ->
          ", or use anyOf";
      case "nullable" -> ", or use a list of types with null";
      case "$dynamicRef", "$recursiveRef" -> ", or use $ref";
      case "schema", "strict", "name", "json_schema" ->
          "; expected the schema itself, not what it comes in";
      default -> "";
    };
  }

  private static boolean fits(String expected, JsonNode value) {
    return switch (expected) {
      case "any value" -> true;
      case "a list with at least one value", "a list with at least one schema" ->
          value.isArray() && !value.isEmpty();
      case "a list of schemas" -> value.isArray();
      case "an object of schemas" -> value.isObject();
      case "a list of strings" -> value.isArray() && all(value, JsonNode::isTextual);
      case "a schema" -> value.isObject() || value.isBoolean();
      case "true or false" -> value.isBoolean();
      case "a string" -> value.isTextual();
      case "a count" ->
          isNumber(value) && value.decimalValue().signum() >= 0 && isInteger(value.decimalValue());
      case "a number" -> isNumber(value);
      case "a number over 0" -> isNumber(value) && value.decimalValue().signum() > 0;
      default -> {
        List<JsonNode> types = new java.util.ArrayList<>();
        (value.isArray() ? value : List.of(value)).forEach(types::add);
        yield !types.isEmpty()
            && types.stream().allMatch(type -> TYPES.contains(type.asText()) && type.isTextual())
            && types.stream().distinct().count() == types.size();
      }
    };
  }

  private static boolean all(JsonNode list, java.util.function.Predicate<JsonNode> condition) {
    for (JsonNode each : list) {
      if (!condition.test(each)) {
        return false;
      }
    }
    return true;
  }

  /** Whether it is a number of a size that arithmetic takes no time for. */
  private static boolean isNumber(JsonNode value) {
    if (!value.isNumber()) {
      return false;
    }
    BigDecimal number = value.decimalValue();
    return number.precision() <= MOST_DIGITS && Math.abs((long) number.scale()) <= MOST_DIGITS;
  }

  static boolean isInteger(BigDecimal number) {
    return number.signum() == 0 || number.stripTrailingZeros().scale() <= 0;
  }

  /** A count that was checked; beyond what counters hold, as much as they hold. */
  static int count(JsonNode value) {
    return value.decimalValue().min(BigDecimal.valueOf(LARGEST_COUNT)).intValue();
  }

  /** The types of a {@code type}, in a set of the caller's own. */
  static Set<String> types(JsonNode value) {
    Set<String> types = new LinkedHashSet<>();
    if (value.isArray()) {
      value.forEach(type -> types.add(type.asText()));
    } else {
      types.add(value.asText());
    }
    return types;
  }

  static BigDecimal commonMultiple(BigDecimal one, BigDecimal other) {
    int scale = Math.max(0, Math.max(one.scale(), other.scale()));
    BigInteger a = one.setScale(scale).unscaledValue();
    BigInteger b = other.setScale(scale).unscaledValue();
    return new BigDecimal(a.divide(a.gcd(b)).multiply(b), scale);
  }

  private static String brief(JsonNode value) {
    String text = value.toString();
    return text.length() > 60 ? text.substring(0, 60) + "…" : text;
  }
}
