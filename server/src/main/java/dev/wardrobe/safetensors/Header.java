package dev.wardrobe.safetensors;

import static dev.wardrobe.safetensors.SafetensorsException.quote;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * The parsed and validated front of a safetensors file.
 *
 * @param dataStart where the tensor data starts, in bytes from the start of the file
 */
record Header(Map<String, String> metadata, SortedMap<String, TensorInfo> tensors, long dataStart) {
  /*
   * A file is: the header's length as a little-endian u64; that many bytes of UTF-8 JSON; the
   * tensors' data. The rules are those of the safetensors library's `deserialize`: the header is at
   * most 100 MB and lies within the file; the tensors, sorted by offsets, follow each other without
   * hole or overlap and cover the data exactly; each one's range is what its shape and type say.
   * Two things are stricter: a key that occurs twice is refused, where the library takes the last
   * one, and so are dimensions beyond 2^63 - 1.
   */

  private static final int LENGTH_BYTES = 8;
  private static final Set<String> BELOW_A_BYTE = Set.of("F4", "F6_E2M3", "F6_E3M2");
  private static final ValueLayout.OfLong LENGTH =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Parses the header at the start of {@code file}, which is all of the file's bytes. */
  static Header parse(MemorySegment file, String source) throws SafetensorsException {
    if (file.byteSize() < LENGTH_BYTES) {
      throw new SafetensorsException(
          source + ": expected a safetensors file of 8 bytes or more, got " + file.byteSize());
    }
    long length = file.get(LENGTH, 0);
    if (length < 0 || length > BoundedJson.LONGEST_DOCUMENT) {
      throw new SafetensorsException(
          source
              + ": the header's length is "
              + Long.toUnsignedString(length)
              + " bytes, at most "
              + BoundedJson.LONGEST_DOCUMENT
              + " are allowed; the file is damaged or not safetensors");
    }
    if (length > file.byteSize() - LENGTH_BYTES) {
      throw new SafetensorsException(
          source
              + ": the header's length is "
              + length
              + " bytes, but only "
              + (file.byteSize() - LENGTH_BYTES)
              + " follow; the file is cut short or not safetensors");
    }
    Header header = new Reading(source, LENGTH_BYTES + length).read(file.asSlice(8, length));
    header.checkLayout(source, file.byteSize() - header.dataStart);
    return header;
  }

  private void checkLayout(String source, long dataSize) throws SafetensorsException {
    List<TensorInfo> inOrder = new ArrayList<>(tensors.values());
    inOrder.sort(
        Comparator.comparingLong(TensorInfo::offset).thenComparingLong(TensorInfo::byteSize));
    long covered = 0;
    for (TensorInfo tensor : inOrder) {
      if (tensor.offset() != covered) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s starts at byte %d of the data, but the tensors before it end at %d;"
                    + " tensors may neither overlap nor leave holes",
                source, quote(tensor.name()), tensor.offset(), covered));
      }
      covered += tensor.byteSize();
      if (covered > dataSize) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s ends at byte %d of the data, but the file holds only %d; it is cut"
                    + " short or damaged",
                source, quote(tensor.name()), covered, dataSize));
      }
    }
    if (covered != dataSize) {
      throw new SafetensorsException(
          String.format(
              "%s: the header's tensors cover %d bytes of data, but the file holds %d; nothing may"
                  + " follow the last tensor",
              source, covered, dataSize));
    }
  }

  /** One pass over a header's JSON. */
  private static final class Reading {
    private final String source;
    private final long dataStart;
    private final Map<String, String> metadata = new TreeMap<>();
    private final SortedMap<String, TensorInfo> tensors = new TreeMap<>();

    Reading(String source, long dataStart) {
      this.source = source;
      this.dataStart = dataStart;
    }

    Header read(MemorySegment json) throws SafetensorsException {
      try (JsonParser parser = BoundedJson.parse(json)) {
        expect(parser.nextToken(), JsonToken.START_OBJECT, "the header");
        while (parser.nextToken() != JsonToken.END_OBJECT) {
          String name = parser.currentName();
          if (BoundedJson.isMalformed(name)) {
            throw new SafetensorsException(
                source + ": a tensor's name holds half of a surrogate pair: " + quote(name));
          }
          parser.nextToken();
          if (name.equals("__metadata__")) {
            readMetadata(parser);
          } else {
            tensors.put(name, readTensor(parser, name));
          }
        }
        if (parser.nextToken() != null) {
          throw new SafetensorsException(source + ": the header goes on after its JSON object");
        }
      } catch (CharacterCodingException e) {
        throw new SafetensorsException(source + ": the header is not UTF-8", e);
      } catch (JsonProcessingException e) {
        throw new SafetensorsException(
            source + ": the header is not the expected JSON: " + e.getOriginalMessage(), e);
      } catch (SafetensorsException e) {
        throw e;
      } catch (IOException e) {
        throw new SafetensorsException(source + ": the header cannot be read: " + e, e);
      }
      return new Header(
          Collections.unmodifiableMap(metadata),
          Collections.unmodifiableSortedMap(tensors),
          dataStart);
    }

    private void readMetadata(JsonParser parser) throws IOException {
      if (parser.currentToken() == JsonToken.VALUE_NULL) {
        return;
      }
      expect(parser.currentToken(), JsonToken.START_OBJECT, "__metadata__");
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String key = parser.currentName();
        expect(parser.nextToken(), JsonToken.VALUE_STRING, "__metadata__ " + quote(key));
        metadata.put(key, parser.getText());
      }
    }

    private TensorInfo readTensor(JsonParser parser, String name) throws IOException {
      String what = "tensor " + quote(name);
      expect(parser.currentToken(), JsonToken.START_OBJECT, what);
      DType dtype = null;
      List<Long> shape = null;
      List<Long> offsets = null;
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String field = parser.currentName();
        parser.nextToken();
        switch (field) {
          case "dtype" -> dtype = readDType(parser, what);
          case "shape" -> shape = readSizes(parser, what + ", shape");
          case "data_offsets" -> offsets = readSizes(parser, what + ", data_offsets");
          default -> parser.skipChildren();
        }
      }
      if (dtype == null || shape == null || offsets == null) {
        throw new SafetensorsException(
            source + ": " + what + ": expected dtype, shape and data_offsets, one is missing");
      }
      if (offsets.size() != 2 || offsets.get(0) > offsets.get(1)) {
        throw new SafetensorsException(
            source + ": " + what + ": data_offsets must be a begin and an end, got " + offsets);
      }
      long byteSize = Shapes.byteSize(shape, dtype);
      if (byteSize < 0) {
        throw new SafetensorsException(
            source + ": " + what + ": the size of " + dtype + shape + " overflows 63 bits");
      }
      long range = offsets.get(1) - offsets.get(0);
      if (byteSize != range) {
        throw new SafetensorsException(
            String.format(
                "%s: %s: %s%s takes %d bytes, but data_offsets %s hold %d",
                source, what, dtype, shape, byteSize, offsets, range));
      }
      return new TensorInfo(name, dtype, shape, offsets.get(0), byteSize);
    }

    private DType readDType(JsonParser parser, String what) throws IOException {
      expect(parser.currentToken(), JsonToken.VALUE_STRING, what + ", dtype");
      String name = parser.getText();
      DType dtype = DType.named(name);
      if (dtype == null) {
        throw new SafetensorsException(
            BELOW_A_BYTE.contains(name)
                ? source
                    + ": "
                    + what
                    + ": dtype "
                    + name
                    + " has elements below a byte, which are"
                    + " not supported"
                : source + ": " + what + ": unknown dtype " + quote(name));
      }
      return dtype;
    }

    private List<Long> readSizes(JsonParser parser, String what) throws IOException {
      expect(parser.currentToken(), JsonToken.START_ARRAY, what);
      List<Long> sizes = new ArrayList<>(4);
      while (parser.nextToken() != JsonToken.END_ARRAY) {
        expect(parser.currentToken(), JsonToken.VALUE_NUMBER_INT, what);
        if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER
            || parser.getText().startsWith("-")) {
          throw new SafetensorsException(
              source + ": " + what + ": expected 0 to 2^63 - 1, got " + parser.getText());
        }
        sizes.add(parser.getLongValue());
      }
      return sizes;
    }

    private void expect(@Nullable JsonToken got, JsonToken expected, String what)
        throws SafetensorsException {
      if (got != expected) {
        throw new SafetensorsException(
            source + ": " + what + ": expected " + inWords(expected) + ", got " + inWords(got));
      }
    }

    private static String inWords(@Nullable JsonToken token) {
      return switch (token) {
        case null -> "the end";
        case START_OBJECT -> "an object";
        case START_ARRAY -> "an array";
        case VALUE_STRING -> "a string";
        case VALUE_NUMBER_INT -> "an integer";
        case VALUE_NUMBER_FLOAT -> "a number with a fraction";
        case VALUE_TRUE, VALUE_FALSE -> "a boolean";
        case VALUE_NULL -> "null";
        default -> token.toString();
      };
    }
  }
}
