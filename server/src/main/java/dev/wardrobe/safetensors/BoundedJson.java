package dev.wardrobe.safetensors;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonFactoryBuilder;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;

/** JSON out of files that nobody vouches for: strict UTF-8, no duplicate keys, limited depth. */
final class BoundedJson {
  /** Most bytes of one document: what the safetensors library allows a header. */
  static final int LONGEST_DOCUMENT = 100_000_000;

  // Names are neither interned nor kept in a table between files: they are the file's to choose.
  private static final JsonFactory FACTORY =
      new JsonFactoryBuilder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(64)
                  .maxStringLength(LONGEST_DOCUMENT)
                  .maxNameLength(65_536)
                  .maxNumberLength(64)
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .build();

  private BoundedJson() {}

  /** A parser over the bytes of {@code document}; malformed UTF-8 is an IOException of it. */
  static JsonParser parse(MemorySegment document) throws IOException {
    var utf8 =
        StandardCharsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT);
    return FACTORY.createParser(new InputStreamReader(new SegmentStream(document), utf8));
  }

  /** Whether {@code text} holds half of a surrogate pair, which JSON's escapes can smuggle in. */
  static boolean isMalformed(String text) {
    return text.codePoints()
        .anyMatch(c -> c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE);
  }

  /** The bytes of a segment, in order. */
  private static final class SegmentStream extends InputStream {
    private final MemorySegment segment;
    private long position;

    SegmentStream(MemorySegment segment) {
      this.segment = segment;
    }

    @Override
    public int read() {
      return position == segment.byteSize()
          ? -1
          : segment.get(ValueLayout.JAVA_BYTE, position++) & 0xff;
    }

    @Override
    public int read(byte[] into, int at, int count) {
      int available = (int) Math.min(count, segment.byteSize() - position);
      if (available == 0 && count > 0) {
        return -1;
      }
      MemorySegment.copy(segment, ValueLayout.JAVA_BYTE, position, into, at, available);
      position += available;
      return available;
    }
  }
}
