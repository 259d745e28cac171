package dev.wardrobe.text;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/** Reads the text and JSON files of a model directory, bounded in size and depth. */
final class JsonFiles {

  static final int MAX_DEPTH = 100;

  static final JsonFactory FACTORY =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(MAX_DEPTH)
                  .maxStringLength(64 << 20)
                  .build())
          .build();

  private static final ObjectMapper MAPPER = new ObjectMapper(FACTORY);

  private JsonFiles() {}

  /** Reads a UTF-8 file, or returns null if there is none. */
  static @Nullable String text(Path file, long maxBytes) throws TextException {
    if (!Files.exists(file)) {
      return null;
    }
    try {
      if (!Files.isRegularFile(file)) {
        throw new TextException(file + " is not a regular file");
      }
      long size = Files.size(file);
      if (size > maxBytes) {
        throw new TextException(file + " has " + size + " bytes; at most " + maxBytes);
      }
      return StandardCharsets.UTF_8
          .newDecoder()
          .decode(ByteBuffer.wrap(Files.readAllBytes(file)))
          .toString();
    } catch (CharacterCodingException e) {
      throw new TextException(file + " is not UTF-8 text", e);
    } catch (IOException e) {
      throw new TextException(file + " cannot be read: " + e.getMessage(), e);
    }
  }

  /** Reads a file with one JSON object, or returns null if there is no such file. */
  static @Nullable JsonNode object(Path file, long maxBytes) throws TextException {
    String text = text(file, maxBytes);
    if (text == null) {
      return null;
    }
    try {
      JsonNode node = MAPPER.readTree(text);
      if (!node.isObject()) {
        throw new TextException(file + " is not a JSON object");
      }
      return node;
    } catch (JsonProcessingException e) {
      throw malformed(file, e);
    }
  }

  static TextException malformed(Path file, JsonProcessingException e) {
    String place =
        e.getLocation() == null
            ? ""
            : " at line "
                + e.getLocation().getLineNr()
                + ", column "
                + e.getLocation().getColumnNr();
    return new TextException(
        file + " is not valid JSON" + place + ": " + e.getOriginalMessage(), e);
  }
}
