package dev.wardrobe.http;

import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.exc.StreamConstraintsException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Bodies of requests: JSON objects, read strictly and within bounds. */
final class JsonBody {
  /** Largest body in bytes: token ids of a context of two million, or texts of more. */
  static final int LARGEST = 16 << 20;

  /** Deepest nesting: beyond any schema that is written by hand. */
  private static final int DEEPEST = 200;

  private static final int LONGEST_NUMBER = 100;

  /**
   * Most values, names, and ends of objects and lists: a body of nothing but empty ones would take
   * thirty times its size in memory.
   */
  static final int MOST_TOKENS = 2_500_000;

  static final ObjectMapper MAPPER =
      JsonMapper.builder(
              com.fasterxml.jackson.core.JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(DEEPEST)
                          .maxNumberLength(LONGEST_NUMBER)
                          .maxStringLength(LARGEST)
                          .maxTokenCount(MOST_TOKENS)
                          .build())
                  .disable(com.fasterxml.jackson.core.JsonFactory.Feature.INTERN_FIELD_NAMES)
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .disable(StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .disable(JsonParser.Feature.ALLOW_COMMENTS)
          .build();

  private JsonBody() {}

  /**
   * The object that a body is.
   *
   * @throws FieldException if it is none; says where
   */
  static ObjectNode read(byte[] body) throws FieldException {
    if (body.length == 0) {
      throw FieldException.body(400, "body: expected a JSON object, got nothing");
    }
    JsonNode node;
    try {
      node = MAPPER.readTree(body);
    } catch (StreamConstraintsException e) {
      throw FieldException.body(
          400,
          "body: expected at most %d values, %d levels and numbers of %d digits, got more: %s; ask for less at a time"
              .formatted(MOST_TOKENS, DEEPEST, LONGEST_NUMBER, e.getOriginalMessage()));
    } catch (JsonProcessingException e) {
      throw FieldException.body(
          400,
          "body: not JSON, at %s: %s".formatted(where(e.getLocation()), e.getOriginalMessage()));
    } catch (IOException e) {
      throw FieldException.body(400, "body: expected JSON in UTF-8: " + e.getMessage());
    }
    if (node instanceof ObjectNode object) {
      return object;
    }
    throw FieldException.body(400, "body: expected a JSON object, got " + Fields.describe(node));
  }

  /** The value that a text inside of a request is, or null if it is no JSON. */
  static @Nullable JsonNode parse(String text) {
    try {
      JsonNode node = MAPPER.readTree(text);
      return node.isMissingNode() ? null : node;
    } catch (JsonProcessingException e) {
      return null;
    }
  }

  private static String where(@Nullable JsonLocation location) {
    return location == null
        ? "an unknown place"
        : "line %d, column %d".formatted(location.getLineNr(), location.getColumnNr());
  }
}
