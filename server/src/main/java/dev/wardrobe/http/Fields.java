package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The fields of a JSON object of a request. Each is asked for by its name; {@link #end} refuses
 * what nobody asked for, so that nothing is dropped in silence. A JSON null is as if it were not
 * there, as clients write it for what is not set.
 */
final class Fields {
  private static final int LONGEST_QUOTE = 80;

  private final ObjectNode object;
  private final String path;
  private final Set<String> known = new LinkedHashSet<>();

  /**
   * @param path what comes before the names in messages, such as {@code stream_options.}
   */
  Fields(ObjectNode object, String path) {
    this.object = object;
    this.path = path;
  }

  /** A field's name as messages have it. */
  String name(String field) {
    return path + field;
  }

  boolean has(String field) {
    return node(field) != null;
  }

  @Nullable JsonNode node(String field) {
    known.add(field);
    JsonNode value = object.get(field);
    return value == null || value.isNull() ? null : value;
  }

  @Nullable String text(String field) throws FieldException {
    JsonNode value = node(field);
    return value == null ? null : text(value, name(field));
  }

  static String text(JsonNode value, String name) throws FieldException {
    if (!value.isTextual()) {
      throw expected(name, "a string", value);
    }
    return value.textValue();
  }

  String requiredText(String field) throws FieldException {
    String value = text(field);
    if (value == null) {
      throw FieldException.of(name(field), "expected a string, got nothing");
    }
    return value;
  }

  @Nullable Boolean flag(String field) throws FieldException {
    JsonNode value = node(field);
    if (value != null && !value.isBoolean()) {
      throw expected(name(field), "true or false", value);
    }
    return value == null ? null : value.booleanValue();
  }

  boolean flag(String field, boolean otherwise) throws FieldException {
    Boolean value = flag(field);
    return value == null ? otherwise : value;
  }

  @Nullable Integer integer(String field) throws FieldException {
    JsonNode value = node(field);
    return value == null ? null : integer(value, name(field));
  }

  static int integer(JsonNode value, String name) throws FieldException {
    // 16.0 is as whole as 16: some languages write it so.
    boolean whole = value.isIntegralNumber() || (value.isNumber() && isWhole(value.doubleValue()));
    if (!whole) {
      throw expected(name, "a whole number", value);
    }
    if (!value.canConvertToInt()) {
      throw expected(name, "a number that fits in 32 bits", value);
    }
    return value.intValue();
  }

  @Nullable Long longer(String field) throws FieldException {
    JsonNode value = node(field);
    if (value == null) {
      return null;
    }
    if (!value.isIntegralNumber() || value.bigIntegerValue().bitLength() > Long.SIZE) {
      throw expected(name(field), "a whole number of 64 bits", value);
    }
    return value.bigIntegerValue().longValue();
  }

  private static boolean isWhole(double value) {
    return value == Math.rint(value);
  }

  @Nullable Float number(String field) throws FieldException {
    JsonNode value = node(field);
    return value == null ? null : number(value, name(field));
  }

  static float number(JsonNode value, String name) throws FieldException {
    if (!value.isNumber() || !Float.isFinite(value.floatValue())) {
      throw expected(name, "a number", value);
    }
    return value.floatValue();
  }

  /** A string or a list of strings; empty if there is none. */
  List<String> texts(String field) throws FieldException {
    JsonNode value = node(field);
    if (value == null) {
      return List.of();
    }
    if (value.isTextual()) {
      return List.of(value.textValue());
    }
    List<String> texts = new ArrayList<>();
    for (JsonNode element : list(value, name(field), "a string or a list of strings")) {
      texts.add(text(element, "%s[%d]".formatted(name(field), texts.size())));
    }
    return texts;
  }

  List<Integer> integers(String field) throws FieldException {
    JsonNode value = node(field);
    return value == null ? List.of() : integers(value, name(field));
  }

  static List<Integer> integers(JsonNode value, String name) throws FieldException {
    List<Integer> integers = new ArrayList<>();
    for (JsonNode element : list(value, name, "a list of token ids")) {
      integers.add(integer(element, "%s[%d]".formatted(name, integers.size())));
    }
    return integers;
  }

  /** The fields of an object, or null if there is none. */
  @Nullable Fields object(String field) throws FieldException {
    JsonNode value = node(field);
    return value == null ? null : object(value, name(field));
  }

  static Fields object(JsonNode value, String name) throws FieldException {
    if (value instanceof ObjectNode object) {
      return new Fields(object, name + ".");
    }
    throw expected(name, "an object", value);
  }

  /** The elements of a list, as fields; empty if there is none. */
  List<Fields> objects(String field) throws FieldException {
    JsonNode value = node(field);
    List<Fields> objects = new ArrayList<>();
    if (value != null) {
      for (JsonNode element : list(value, name(field), "a list of objects")) {
        objects.add(object(element, "%s[%d]".formatted(name(field), objects.size())));
      }
    }
    return objects;
  }

  private static JsonNode list(JsonNode value, String name, String what) throws FieldException {
    if (!value.isArray()) {
      throw expected(name, what, value);
    }
    return value;
  }

  Set<Map.Entry<String, JsonNode>> properties() {
    return object.properties();
  }

  ObjectNode json() {
    return object;
  }

  /** Takes fields that change nothing here. */
  void withoutEffect(String... fields) {
    known.addAll(List.of(fields));
  }

  /** Refuses a field that would change the answer, if it could be followed. */
  void refuse(String field, String why) throws FieldException {
    JsonNode value = node(field);
    if (value != null && !isOff(value)) {
      throw FieldException.of(name(field), why);
    }
  }

  /** Takes a switch that cannot be put the other way. */
  void only(String field, boolean value) throws FieldException {
    Boolean given = flag(field);
    if (given != null && given != value) {
      throw FieldException.of(name(field), "only %s is supported; leave it out".formatted(value));
    }
  }

  private static boolean isOff(JsonNode value) {
    return (value.isBoolean() && !value.booleanValue())
        || (value.isTextual() && value.textValue().isEmpty())
        || (value.isContainerNode() && value.isEmpty());
  }

  /**
   * Says that these were all.
   *
   * @throws FieldException for the first that nobody asked for
   */
  void end() throws FieldException {
    for (Map.Entry<String, JsonNode> property : object.properties()) {
      String field = property.getKey();
      if (!known.contains(field)) {
        String nearest =
            known.stream().min(Comparator.comparingInt(each -> distance(each, field))).orElse("");
        boolean near = distance(nearest, field) <= Math.max(2, field.length() / 3);
        throw FieldException.of(
            cut(name(field)),
            near
                ? "there is no such field; is it '%s'? Leave it out otherwise".formatted(nearest)
                : "there is no such field here; leave it out");
      }
    }
  }

  /** How many characters to change, add or remove to get from one to the other. */
  private static int distance(String one, String other) {
    if (Math.abs(one.length() - other.length()) > LONGEST_QUOTE) {
      return Integer.MAX_VALUE;
    }
    int[] before = new int[other.length() + 1];
    for (int j = 0; j <= other.length(); j++) {
      before[j] = j;
    }
    for (int i = 1; i <= one.length(); i++) {
      int[] row = new int[other.length() + 1];
      row[0] = i;
      for (int j = 1; j <= other.length(); j++) {
        int changed = before[j - 1] + (one.charAt(i - 1) == other.charAt(j - 1) ? 0 : 1);
        row[j] = Math.min(changed, 1 + Math.min(before[j], row[j - 1]));
      }
      before = row;
    }
    return before[other.length()];
  }

  static FieldException expected(String name, String what, JsonNode got) {
    return FieldException.of(name, "expected %s, got %s".formatted(what, describe(got)));
  }

  /** A value as messages have it, cut short if it is long. */
  static String describe(JsonNode value) {
    return switch (value.getNodeType()) {
      case OBJECT -> "an object";
      case ARRAY -> "a list";
      case STRING -> "\"" + cut(value.textValue()) + "\"";
      case MISSING, NULL -> "nothing";
      default -> cut(value.asText());
    };
  }

  static String cut(String text) {
    return text.length() <= LONGEST_QUOTE
        ? text
        : text.substring(0, text.offsetByCodePoints(0, text.codePointCount(0, LONGEST_QUOTE - 1)))
            + "…";
  }
}
