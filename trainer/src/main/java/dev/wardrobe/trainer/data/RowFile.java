package dev.wardrobe.trainer.data;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.io.JsonEOFException;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PushbackInputStream;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Map;
import java.util.zip.GZIPInputStream;
import java.util.zip.ZipException;
import org.jspecify.annotations.Nullable;

/**
 * A file of rows, read from its beginning to its end and never held whole: one JSON object a line,
 * or a JSON array of objects, gzip or not. Both are told by what is in it, not by its name.
 *
 * <p>A line that is no row spoils nothing else. What spoils the rest of a file is an error: gzip
 * that is damaged or ends early, and in an array whatever is not JSON.
 */
final class RowFile implements AutoCloseable {

  /**
   * A row as it was found.
   *
   * @param place file and line, or file and index
   * @param line its bytes; null in an array, or where it is bad
   * @param fields what it holds; null in a file of lines, or where it is bad
   * @param bad why it is no row; else null
   * @param size bytes or characters
   */
  record Found(
      String place,
      byte @Nullable [] line,
      @Nullable Map<String, @Nullable Object> fields,
      @Nullable BadRow bad,
      long size) {}

  private static final int BUFFER = 1 << 16;
  private static final String ENDS = "the file ends in the middle; was it copied whole?";

  private final Path file;
  private final InputStream raw;
  private final InputStream content;
  private final byte[] buffer = new byte[BUFFER];
  private int at;
  private int filled;

  /** Null in a file of lines. */
  private @Nullable JsonParser array;

  /** The line, or the element, that was read last; lines count from 1, elements from 0. */
  private long number;

  private RowFile(Path file, InputStream raw, InputStream content) {
    this.file = file;
    this.raw = raw;
    this.content = content;
  }

  /**
   * Opens a file.
   *
   * @param digest is given the file's bytes as they are read, all of them by its end
   * @throws DataException if it is missing or cannot be read
   */
  static RowFile open(Path file, MessageDigest digest) throws DataException {
    if (!Files.isRegularFile(file)) {
      throw new DataException(
          "%s: expected a file of JSON lines, got %s; check the path"
              .formatted(file, Files.exists(file) ? "something else" : "none"));
    }
    InputStream raw = null;
    RowFile opened = null;
    try {
      raw = new Digesting(Files.newInputStream(file), digest);
      PushbackInputStream start = new PushbackInputStream(raw, 2);
      byte[] magic = start.readNBytes(2);
      start.unread(magic);
      boolean gzip = magic.length == 2 && magic[0] == 0x1f && magic[1] == (byte) 0x8b;
      RowFile found = new RowFile(file, raw, gzip ? new GZIPInputStream(start, BUFFER) : start);
      found.begin();
      opened = found;
      return opened;
    } catch (IOException e) {
      throw unreadable(file.toString(), e);
    } finally {
      if (opened == null && raw != null) {
        close(raw);
      }
    }
  }

  /** Passes over what may stand before the first row, and tells an array from lines. */
  private void begin() throws IOException {
    fill();
    if (filled >= 3
        && buffer[0] == (byte) 0xef
        && buffer[1] == (byte) 0xbb
        && buffer[2] == (byte) 0xbf) {
      at = 3;
    }
    while (at < filled && isBlank(buffer[at])) {
      number += buffer[at] == '\n' ? 1 : 0;
      at++;
      if (at == filled) {
        fill();
      }
    }
    if (at < filled && buffer[at] == '[') {
      InputStreamReader reader =
          new InputStreamReader(
              new Rest(),
              StandardCharsets.UTF_8
                  .newDecoder()
                  .onMalformedInput(CodingErrorAction.REPORT)
                  .onUnmappableCharacter(CodingErrorAction.REPORT));
      array = Json.FACTORY.createParser(reader);
      array.nextToken();
      number = -1;
    }
  }

  /**
   * The next row, or null at the end.
   *
   * @throws DataException if the file cannot be read on
   */
  @Nullable Found next() throws DataException {
    try {
      Found found = array == null ? line() : element(array);
      if (found == null) {
        raw.transferTo(OutputStream.nullOutputStream());
      }
      return found;
    } catch (IOException e) {
      throw unreadable(place(), e);
    }
  }

  private @Nullable Found line() throws IOException {
    while (at < filled || fill()) {
      number++;
      byte[] line = rawLine();
      if (line == null) {
        String detail = "a line of more than %,d bytes".formatted(Json.MAX_ROW);
        return new Found(place(), null, null, new BadRow(Json.TOO_LARGE, detail), 0);
      }
      if (!isBlank(line)) {
        return new Found(place(), line, null, null, line.length);
      }
    }
    return null;
  }

  /** The bytes up to the line's end, which is passed over; null if they are too many. */
  private byte @Nullable [] rawLine() throws IOException {
    ByteArrayOutputStream collected = null;
    boolean fits = true;
    while (true) {
      int end = at;
      while (end < filled && buffer[end] != '\n') {
        end++;
      }
      boolean whole = end < filled;
      if (collected == null && whole) {
        byte[] line = Arrays.copyOfRange(buffer, at, end);
        at = end + 1;
        return line;
      }
      if (collected == null) {
        collected = new ByteArrayOutputStream(2 * BUFFER);
      }
      fits &= collected.size() + (end - at) <= Json.MAX_ROW;
      if (fits) {
        collected.write(buffer, at, end - at);
      } else {
        collected.reset();
      }
      at = end + (whole ? 1 : 0);
      if (whole || !fill()) {
        return fits ? collected.toByteArray() : null;
      }
    }
  }

  private @Nullable Found element(JsonParser array) throws IOException, DataException {
    if (array.isClosed()) {
      return null;
    }
    number++;
    JsonToken token = array.nextToken();
    if (token == JsonToken.END_ARRAY) {
      if (array.nextToken() != null) {
        throw new DataException(
            file
                + ": expected nothing behind the array's end; a file holds one array, or one JSON"
                + " object a line");
      }
      array.close();
      return null;
    }
    if (token == null) {
      throw new EOFException();
    }
    try {
      long start = array.currentLocation().getCharOffset();
      Map<String, @Nullable Object> fields = Json.object(array);
      long size = array.currentLocation().getCharOffset() - start;
      return new Found(place(), null, fields, null, size);
    } catch (BadRow e) {
      // Each token is passed over without being kept, however large the rest of the row is.
      while (array.getParsingContext().getNestingDepth() > 1) {
        if (array.nextToken() == null) {
          throw new EOFException();
        }
      }
      return new Found(place(), null, null, e, 0);
    }
  }

  private boolean fill() throws IOException {
    at = 0;
    filled = Math.max(0, content.readNBytes(buffer, 0, BUFFER));
    return filled > 0;
  }

  private static boolean isBlank(byte[] line) {
    for (byte b : line) {
      if (!isBlank(b)) {
        return false;
      }
    }
    return true;
  }

  private static boolean isBlank(byte b) {
    return b == ' ' || b == '\t' || b == '\r' || b == '\n';
  }

  private String place() {
    return array == null ? file + ":" + number : file + "[" + number + "]";
  }

  private static DataException unreadable(String place, IOException e) {
    String what =
        switch (e) {
          case EOFException end -> ENDS;
          case JsonEOFException end -> ENDS;
          case ZipException zip -> "the gzip data is damaged: " + zip.getMessage();
          case CharacterCodingException coding -> "not UTF-8; nothing behind it can be read";
          case JsonProcessingException json ->
              Json.INVALID
                  + ", and in an array nothing behind it can be read: "
                  + Json.message(json);
          default -> "cannot be read: " + e;
        };
    return new DataException(place + ": " + what, e);
  }

  @Override
  public void close() {
    close(content);
  }

  private static void close(InputStream stream) {
    try {
      stream.close();
    } catch (IOException e) {
      // Nothing was written, so that nothing can be lost.
    }
  }

  /** What the buffer holds, and what follows. */
  private final class Rest extends InputStream {
    @Override
    public int read() throws IOException {
      return at < filled || fill() ? buffer[at++] & 0xff : -1;
    }

    @Override
    public int read(byte[] into, int offset, int length) throws IOException {
      if (length == 0) {
        return 0;
      }
      if (at == filled && !fill()) {
        return -1;
      }
      int count = Math.min(length, filled - at);
      System.arraycopy(buffer, at, into, offset, count);
      at += count;
      return count;
    }
  }

  /** Shows what is read to a digest. */
  private static final class Digesting extends FilterInputStream {
    private final MessageDigest digest;

    Digesting(InputStream in, MessageDigest digest) {
      super(in);
      this.digest = digest;
    }

    @Override
    public int read() throws IOException {
      int value = super.read();
      if (value >= 0) {
        digest.update((byte) value);
      }
      return value;
    }

    @Override
    public int read(byte[] into, int offset, int length) throws IOException {
      int count = super.read(into, offset, length);
      if (count > 0) {
        digest.update(into, offset, count);
      }
      return count;
    }

    @Override
    public long skip(long count) throws IOException {
      // Skipped bytes count too.
      return readNBytes((int) Math.min(count, BUFFER)).length;
    }

    @Override
    public boolean markSupported() {
      return false;
    }
  }
}
