package dev.wardrobe.quant;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonFactoryBuilder;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The JSON document beside a quantized weight that says how it was quantized.
 *
 * @param dtype the type of the weights before, as PyTorch names it
 * @param nested what is said of doubly quantized scales, null if they are plain
 */
record QuantState(
    String quantType, long blockSize, String dtype, List<Long> shape, @Nullable Nested nested) {
  static final int LONGEST = 65_536;
  static final Set<String> DTYPES = Set.of("float32", "float16", "bfloat16");

  private static final JsonFactory FACTORY =
      new JsonFactoryBuilder()
          .streamReadConstraints(
              StreamReadConstraints.builder().maxNestingDepth(16).maxNumberLength(400).build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .build();

  /**
   * What is said of doubly quantized scales.
   *
   * @param blockSize scales per nested scale
   * @param dtype the type of the decoded scales
   * @param offset added to each decoded scale, as a float32
   */
  record Nested(long blockSize, String dtype, double offset) {}

  /**
   * Reads the document. Fields in any order; those unknown here are passed over.
   *
   * @param what what messages call it
   */
  static QuantState parse(byte[] json, String what) throws QuantException {
    String quantType = null;
    Long blockSize = null;
    String dtype = null;
    List<Long> shape = null;
    Long nestedBlockSize = null;
    String nestedDtype = null;
    Double nestedOffset = null;
    try (JsonParser parser = FACTORY.createParser(json)) {
      expect(parser.nextToken() == JsonToken.START_OBJECT, what, "an object");
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String field = parser.currentName();
        parser.nextToken();
        switch (field) {
          case "quant_type" -> quantType = readString(parser, what, field);
          case "blocksize" -> blockSize = readLong(parser, what, field);
          case "dtype" -> dtype = readString(parser, what, field);
          case "shape" -> shape = readLongs(parser, what, field);
          case "nested_blocksize" -> nestedBlockSize = readLong(parser, what, field);
          case "nested_dtype" -> nestedDtype = readString(parser, what, field);
          case "nested_offset" -> nestedOffset = readDouble(parser, what, field);
          default -> parser.skipChildren();
        }
      }
      expect(parser.nextToken() == null, what, "nothing after the object");
    } catch (JsonProcessingException e) {
      throw new QuantException(what + ": not the expected JSON: " + e.getOriginalMessage(), e);
    } catch (QuantException e) {
      throw e;
    } catch (IOException e) {
      throw new QuantException(what + ": not readable as JSON: " + e.getMessage(), e);
    }
    if (quantType == null || blockSize == null || dtype == null || shape == null) {
      throw new QuantException(
          what + ": expected quant_type, blocksize, dtype and shape, one is missing");
    }
    Nested nested = null;
    if (nestedBlockSize != null && nestedDtype != null && nestedOffset != null) {
      nested = new Nested(nestedBlockSize, nestedDtype, nestedOffset);
    } else if (nestedBlockSize != null || nestedDtype != null || nestedOffset != null) {
      throw new QuantException(
          what + ": of nested_blocksize, nested_dtype and nested_offset one is missing");
    }
    return new QuantState(quantType, blockSize, dtype, shape, nested);
  }

  private static String readString(JsonParser parser, String what, String field)
      throws IOException {
    expect(parser.currentToken() == JsonToken.VALUE_STRING, what, "a string as " + field);
    return parser.getText();
  }

  private static long readLong(JsonParser parser, String what, String field) throws IOException {
    expect(
        parser.currentToken() == JsonToken.VALUE_NUMBER_INT
            && parser.getNumberType() != JsonParser.NumberType.BIG_INTEGER,
        what,
        "a 64-bit integer as " + field);
    return parser.getLongValue();
  }

  private static double readDouble(JsonParser parser, String what, String field)
      throws IOException {
    expect(parser.currentToken().isNumeric(), what, "a number as " + field);
    return parser.getDoubleValue();
  }

  private static List<Long> readLongs(JsonParser parser, String what, String field)
      throws IOException {
    expect(parser.currentToken() == JsonToken.START_ARRAY, what, "an array as " + field);
    List<Long> values = new ArrayList<>();
    while (parser.nextToken() != JsonToken.END_ARRAY) {
      values.add(readLong(parser, what, field));
    }
    return List.copyOf(values);
  }

  private static void expect(boolean met, String what, String expected) throws QuantException {
    if (!met) {
      throw new QuantException(what + ": expected " + expected);
    }
  }

  /** The document with the spacing and the number format of Python's {@code json.dumps}. */
  String toJson() {
    StringBuilder json = new StringBuilder();
    json.append("{\"quant_type\": \"").append(quantType);
    json.append("\", \"blocksize\": ").append(blockSize);
    json.append(", \"dtype\": \"").append(dtype);
    json.append("\", \"shape\": ").append(shape);
    if (nested != null) {
      json.append(", \"nested_blocksize\": ").append(nested.blockSize);
      json.append(", \"nested_dtype\": \"").append(nested.dtype);
      json.append("\", \"nested_offset\": ").append(pythonRepr(nested.offset));
    }
    return json.append('}').toString();
  }

  /**
   * A finite double in Python's shortest form: plain from 1e-4 to below 1e16, else with an exponent
   * of two digits or more.
   */
  static String pythonRepr(double value) {
    if (value == 0) {
      return Double.toString(value);
    }
    BigDecimal decimal = new BigDecimal(Double.toString(value)).stripTrailingZeros();
    int exponent = decimal.precision() - decimal.scale() - 1;
    if (exponent >= -4 && exponent < 16) {
      return decimal.scale() <= 0 ? decimal.toPlainString() + ".0" : decimal.toPlainString();
    }
    String digits = decimal.unscaledValue().abs().toString();
    String mantissa = digits.length() == 1 ? digits : digits.charAt(0) + "." + digits.substring(1);
    return (value < 0 ? "-" : "")
        + mantissa
        + String.format(Locale.ROOT, "e%s%02d", exponent < 0 ? "-" : "+", Math.abs(exponent));
  }
}
