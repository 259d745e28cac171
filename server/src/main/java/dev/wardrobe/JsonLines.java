package dev.wardrobe;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/** A file's lines, one at a time, blank ones left out; a bad line spoils no other. */
final class JsonLines implements AutoCloseable {
  /** Longest line in bytes. */
  static final int LONGEST = 16 << 20;

  private static final String BYTE_ORDER_MARK = "\uFEFF";

  private final InputStream in;
  private final byte[] chunk = new byte[1 << 16];
  private int at;
  private int end;
  private long number;

  /**
   * A line.
   *
   * @param number from 1, blank lines counted
   * @param text without its line end; empty if there is a problem
   * @param problem what is wrong with it, or null
   */
  record Line(long number, String text, @Nullable String problem) {}

  JsonLines(Path file) throws IOException {
    in = Files.newInputStream(file);
  }

  /** The next line, or null at the end. */
  @Nullable Line next() throws IOException {
    for (Line line = read(); line != null; line = read()) {
      if (line.problem() != null || !line.text().isBlank()) {
        return line;
      }
    }
    return null;
  }

  private @Nullable Line read() throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    long length = 0;
    boolean any = false;
    while (fill()) {
      any = true;
      int from = at;
      while (at < end && chunk[at] != '\n') {
        at++;
      }
      length += at - from;
      if (length <= LONGEST) {
        bytes.write(chunk, from, at - from);
      }
      if (at < end) {
        at++;
        break;
      }
    }
    if (!any) {
      return null;
    }
    number++;
    if (length > LONGEST) {
      return new Line(
          number, "", "expected a line of at most %d bytes, got %d".formatted(LONGEST, length));
    }
    try {
      String text =
          StandardCharsets.UTF_8
              .newDecoder()
              .decode(ByteBuffer.wrap(bytes.toByteArray()))
              .toString();
      boolean marked = number == 1 && text.startsWith(BYTE_ORDER_MARK);
      return new Line(number, marked ? text.substring(1) : text, null);
    } catch (CharacterCodingException e) {
      return new Line(number, "", "expected UTF-8, got bytes that are not");
    }
  }

  private boolean fill() throws IOException {
    if (at == end) {
      at = 0;
      end = Math.max(0, in.read(chunk));
    }
    return end > 0;
  }

  @Override
  public void close() throws IOException {
    in.close();
  }
}
