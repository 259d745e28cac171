package dev.wardrobe.model;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The fields of a JSON object in a model directory, read with their type and bounds checked.
 *
 * <p>A key that is absent and one whose value is null are the same, as they are to transformers.
 * Errors are {@link ModelException}s that name the file and the key.
 */
final class Fields {
  /** No configuration of a model comes near this; a tokenizer's files are not read here. */
  private static final long MAX_BYTES = 16L << 20;

  static final ObjectMapper MAPPER =
      JsonMapper.builder(
              JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(64)
                          .maxNumberLength(64)
                          .build())
                  .build())
          .enable(DeserializationFeature.FAIL_ON_READING_DUP_TREE_KEY)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .build();

  private final String where;
  private final ObjectNode object;

  Fields(String where, ObjectNode object) {
    this.where = where;
    this.object = object;
  }

  /** The object that {@code file} holds. */
  static Fields read(Path file) throws ModelException, IOException {
    return parse(file.getFileName().toString(), bytes(file));
  }

  static Fields parse(String where, byte[] bytes) throws ModelException {
    try {
      String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      JsonNode node = MAPPER.readTree(text);
      if (node instanceof ObjectNode object) {
        return new Fields(where, object);
      }
      throw new ModelException(
          "%s: expected a JSON object, got %s".formatted(where, describe(node)));
    } catch (CharacterCodingException e) {
      throw new ModelException("%s: not UTF-8".formatted(where), e);
    } catch (JsonProcessingException e) {
      throw new ModelException(
          "%s: not valid JSON: %s".formatted(where, e.getOriginalMessage()), e);
    }
  }

  private static byte[] bytes(Path file) throws ModelException, IOException {
    long size = Files.size(file);
    if (size > MAX_BYTES) {
      throw new ModelException(
          "%s: %d bytes; expected at most %d".formatted(file.getFileName(), size, MAX_BYTES));
    }
    return Files.readAllBytes(file);
  }

  String where() {
    return where;
  }

  ObjectNode json() {
    return object;
  }

  boolean has(String key) {
    return object.hasNonNull(key);
  }

  Set<String> keys() {
    Set<String> keys = new TreeSet<>();
    object.fieldNames().forEachRemaining(keys::add);
    return keys;
  }

  @Nullable JsonNode get(String key) {
    JsonNode node = object.get(key);
    return node == null || node.isNull() ? null : node;
  }

  /** A required integer within bounds. */
  int integer(String key, int min, int max) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      throw new ModelException(
          "%s: %s is missing; expected an integer from %d to %d".formatted(where, key, min, max));
    }
    return integer(key, node, min, max);
  }

  int integer(String key, int min, int max, int absent) throws ModelException {
    JsonNode node = get(key);
    return node == null ? absent : integer(key, node, min, max);
  }

  private int integer(String key, JsonNode node, int min, int max) throws ModelException {
    if (!node.isIntegralNumber()
        || !node.canConvertToInt()
        || node.intValue() < min
        || node.intValue() > max) {
      throw wrong(key, "an integer from %d to %d".formatted(min, max), node);
    }
    return node.intValue();
  }

  /** A finite number within bounds, or {@code absent}. */
  double number(String key, double min, double max, double absent) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return absent;
    }
    double value = node.isNumber() ? node.doubleValue() : Double.NaN;
    if (!(value >= min && value <= max)) {
      throw wrong(key, "a number from %s to %s".formatted(plain(min), plain(max)), node);
    }
    return value;
  }

  double number(String key, double min, double max) throws ModelException {
    if (get(key) == null) {
      throw new ModelException(
          "%s: %s is missing; expected a number from %s to %s"
              .formatted(where, key, plain(min), plain(max)));
    }
    return number(key, min, max, Double.NaN);
  }

  boolean flag(String key, boolean absent) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return absent;
    }
    if (!node.isBoolean()) {
      throw wrong(key, "true or false", node);
    }
    return node.booleanValue();
  }

  @Nullable String text(String key) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return null;
    }
    if (!node.isTextual()) {
      throw wrong(key, "a string", node);
    }
    return node.textValue();
  }

  /** A list of strings, or null. */
  @Nullable List<String> texts(String key) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return null;
    }
    List<String> values = new ArrayList<>();
    for (JsonNode each : node) {
      if (!each.isTextual()) {
        throw wrong(key, "a list of strings", node);
      }
      values.add(each.textValue());
    }
    if (!node.isArray()) {
      throw wrong(key, "a list of strings", node);
    }
    return values;
  }

  /** A token id, a list of them, or null: as {@code eos_token_id} is written. */
  @Nullable List<Integer> tokens(String key) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return null;
    }
    List<Integer> ids = new ArrayList<>();
    for (JsonNode each : node.isArray() ? node : List.of(node)) {
      if (!each.isIntegralNumber() || !each.canConvertToInt() || each.intValue() < 0) {
        throw wrong(key, "a token id or a list of token ids", node);
      }
      ids.add(each.intValue());
    }
    return List.copyOf(ids);
  }

  @Nullable Fields object(String key) throws ModelException {
    JsonNode node = get(key);
    if (node == null) {
      return null;
    }
    if (!(node instanceof ObjectNode inner)) {
      throw wrong(key, "an object", node);
    }
    return new Fields(where + ": " + key, inner);
  }

  ModelException wrong(String key, String expected, JsonNode got) {
    return new ModelException(
        "%s: %s: expected %s, got %s".formatted(where, key, expected, describe(got)));
  }

  /** A value as written, cut short. */
  static String describe(JsonNode node) {
    String text = node.isMissingNode() ? "nothing" : node.toString();
    return text.length() <= 80 ? text : text.substring(0, 77) + "...";
  }

  private static String plain(double value) {
    return value == Math.rint(value) && Math.abs(value) < 1e15
        ? Long.toString((long) value)
        : Double.toString(value);
  }
}
