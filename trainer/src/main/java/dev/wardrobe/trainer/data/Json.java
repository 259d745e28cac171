package dev.wardrobe.trainer.data;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.io.JsonEOFException;
import java.io.CharArrayReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * JSON of unknown origin as plain values: null, Boolean, Integer, Long, BigInteger, Double, String,
 * List and Map. Depth, lengths, and the number of values are bounded.
 */
final class Json {
  static final String INVALID = "not valid JSON";
  static final String TOO_LARGE = "too large";

  /** Bytes of the longest row: more than any text that can be tokenized, and its labels. */
  static final int MAX_ROW = 64 << 20;

  /** What a value takes of that, beside its text, and a number in a list of whole numbers. */
  private static final int VALUE = 16;

  private static final int NUMBER = 2;

  static final JsonFactory FACTORY =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder().maxNestingDepth(100).maxStringLength(MAX_ROW).build())
          .build();

  private final JsonParser parser;
  private int room = MAX_ROW;

  private Json(JsonParser parser) {
    this.parser = parser;
  }

  /**
   * A line that is to be one JSON object.
   *
   * @throws BadRow if it is anything else
   */
  static Map<String, @Nullable Object> row(byte[] line) throws BadRow {
    CharBuffer text;
    try {
      text =
          StandardCharsets.UTF_8
              .newDecoder()
              .onMalformedInput(CodingErrorAction.REPORT)
              .onUnmappableCharacter(CodingErrorAction.REPORT)
              .decode(ByteBuffer.wrap(line));
    } catch (CharacterCodingException e) {
      throw new BadRow("not UTF-8", "expected UTF-8 text, got other bytes");
    }
    try (JsonParser parser =
        FACTORY.createParser(
            new CharArrayReader(text.array(), text.arrayOffset(), text.remaining()))) {
      parser.nextToken();
      Map<String, @Nullable Object> row = object(parser);
      if (parser.nextToken() != null) {
        throw new BadRow(INVALID, "expected one JSON object a line, and something follows it");
      }
      return row;
    } catch (JsonProcessingException e) {
      throw new BadRow(INVALID, message(e));
    } catch (IOException e) {
      throw new IllegalStateException("a line in memory cannot be read", e);
    }
  }

  /**
   * The object that begins at the parser's token, which is left at its end.
   *
   * @throws BadRow if it is no object, or too large; then the parser is somewhere within
   */
  static Map<String, @Nullable Object> object(JsonParser parser) throws IOException, BadRow {
    if (parser.currentToken() != JsonToken.START_OBJECT) {
      throw new BadRow("not an object", "expected a JSON object, got " + kind(parser));
    }
    return new Json(parser).object();
  }

  /** Parses a text that is to hold a JSON value, or returns null if it does not. */
  static @Nullable Object parse(String text) {
    try (JsonParser parser = FACTORY.createParser(text)) {
      JsonToken first = parser.nextToken();
      Object value = first == null ? null : new Json(parser).value(first);
      return parser.nextToken() == null ? value : null;
    } catch (IOException | BadRow e) {
      return null;
    }
  }

  /** What a parser did not like, with the place in the line. */
  static String message(JsonProcessingException e) {
    String text = e instanceof JsonEOFException ? "it ends in the middle" : e.getOriginalMessage();
    String place = e.getLocation() == null ? "" : ", at column " + e.getLocation().getColumnNr();
    return (text.length() > 300 ? text.substring(0, 300) + "..." : text) + place;
  }

  private static String kind(JsonParser parser) {
    JsonToken token = parser.currentToken();
    return token == null
        ? "nothing"
        : switch (token) {
          case START_ARRAY -> "a list";
          case VALUE_STRING -> "a string";
          case VALUE_NUMBER_INT, VALUE_NUMBER_FLOAT -> "a number";
          case VALUE_TRUE, VALUE_FALSE -> "a boolean";
          case VALUE_NULL -> "null";
          default -> token.name();
        };
  }

  private Map<String, @Nullable Object> object() throws IOException, BadRow {
    Map<String, @Nullable Object> object = new LinkedHashMap<>();
    while (parser.nextToken() != JsonToken.END_OBJECT) {
      String name = text(parser.currentName());
      Object value = value(parser.nextToken());
      if (object.containsKey(name)) {
        throw new BadRow("repeated field", "the field '" + shortened(name) + "' is there twice");
      }
      object.put(name, value);
    }
    return object;
  }

  private List<@Nullable Object> list() throws IOException, BadRow {
    Ints ints = new Ints();
    JsonToken token = parser.nextToken();
    while (token == JsonToken.VALUE_NUMBER_INT
        && parser.getNumberType() == JsonParser.NumberType.INT) {
      ints.append(parser.getIntValue());
      take(NUMBER);
      token = parser.nextToken();
    }
    if (token == JsonToken.END_ARRAY && !ints.isEmpty()) {
      return ints;
    }
    take(ints.size() * (VALUE - NUMBER));
    List<@Nullable Object> list = new ArrayList<>(ints);
    for (; token != JsonToken.END_ARRAY; token = parser.nextToken()) {
      list.add(value(token));
    }
    return list;
  }

  private @Nullable Object value(JsonToken token) throws IOException, BadRow {
    take(VALUE);
    return switch (token) {
      case START_OBJECT -> object();
      case START_ARRAY -> list();
      case VALUE_STRING -> text(parser.getText());
      case VALUE_NUMBER_INT -> parser.getNumberValue();
      case VALUE_NUMBER_FLOAT -> finite();
      case VALUE_TRUE -> true;
      case VALUE_FALSE -> false;
      default -> null;
    };
  }

  private double finite() throws IOException, BadRow {
    double number = parser.getDoubleValue();
    if (Double.isInfinite(number)) {
      throw new BadRow(INVALID, "a number is beyond what a double can hold");
    }
    return number;
  }

  private String text(String text) throws BadRow {
    take(text.length());
    return text;
  }

  private void take(int size) throws BadRow {
    room -= size;
    if (room < 0) {
      throw new BadRow(
          TOO_LARGE,
          "a row of more than %,d characters or %,d values".formatted(MAX_ROW, MAX_ROW / VALUE));
    }
  }

  static String shortened(String text) {
    return text.length() > 60 ? text.substring(0, 60) + "..." : text;
  }
}
