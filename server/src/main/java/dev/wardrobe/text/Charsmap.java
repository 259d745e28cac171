package dev.wardrobe.text;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Base64;

/**
 * A check of sentencepiece's precompiled normalization table: four bytes of length, a double-array
 * trie of that many bytes, then the replacements as zero-terminated UTF-8. Native code follows the
 * trie's offsets unchecked, so that a damaged table would end the process.
 */
final class Charsmap {

  private Charsmap() {}

  /** Checks every table in a normalizer. */
  static void checkAll(JsonNode normalizer, Path file) throws TextException {
    if (normalizer.path("type").asText().equals("Precompiled")) {
      JsonNode table = normalizer.path("precompiled_charsmap");
      if (table.isTextual() && !isSound(table.textValue())) {
        throw new TextException(file + ": the normalizer's precompiled_charsmap is damaged");
      }
    }
    for (JsonNode part : normalizer.path("normalizers")) {
      checkAll(part, file);
    }
  }

  private static boolean isSound(String base64) {
    byte[] bytes;
    try {
      bytes = Base64.getDecoder().decode(base64);
    } catch (IllegalArgumentException e) {
      return false;
    }
    if (bytes.length == 0) {
      return true;
    }
    ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    if (bytes.length < 4) {
      return false;
    }
    int trieBytes = buffer.getInt();
    if (trieBytes <= 0 || trieBytes % 4 != 0 || trieBytes > buffer.remaining()) {
      return false;
    }
    int units = trieBytes / 4;
    int textStart = 4 + trieBytes;
    if (units % 256 != 0) {
      return false;
    }
    for (int i = 0; i < units; i++) {
      int unit = buffer.getInt(4 + 4 * i);
      if (unit < 0) {
        // A leaf: where its replacement begins.
        int start = textStart + (unit & Integer.MAX_VALUE);
        boolean inside = start >= textStart && start <= bytes.length;
        if (!inside || (start < bytes.length && (bytes[start] & 0xc0) == 0x80)) {
          return false;
        }
        continue;
      }
      // Blocks of 256 hold all the children, whatever the next byte is.
      int offset = (unit >>> 10) << ((unit & 0x200) >>> 6);
      int child = i ^ offset;
      if (child < 0 || child >= units) {
        return false;
      }
    }
    return true;
  }
}
