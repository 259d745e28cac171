package dev.wardrobe.trainer.report;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.Function;

/**
 * A file with a line of JSON for each of some steps, in their order. A line is with the system
 * before anything else happens, so that a process that is killed has lost none.
 */
public final class StepLines<T extends StepLine> implements AutoCloseable {
  /** Far more than a line of ours has; what is longer is damage. */
  private static final int LONGEST_LINE = 1 << 22;

  private static final ObjectMapper MAPPER = new ObjectMapper();

  private final FileChannel channel;
  private final List<T> lines = new ArrayList<>();

  private StepLines(FileChannel channel) {
    this.channel = channel;
  }

  /**
   * Opens a file, which need not exist, to go on after a step: lines of later ones are cut off, and
   * so is one that was written in part.
   *
   * @param last the last step that counts; -1 for none
   * @param reader of a line
   * @throws IOException if it cannot be read or written
   */
  public static <T extends StepLine> StepLines<T> after(
      int last, Path path, Function<JsonNode, T> reader) throws IOException {
    FileChannel channel =
        FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    StepLines<T> file = new StepLines<>(channel);
    boolean complete = false;
    try {
      channel.truncate(file.read(path, last, reader));
      channel.position(channel.size());
      complete = true;
      return file;
    } finally {
      if (!complete) {
        channel.close();
      }
    }
  }

  /** Takes in the lines up to a step; where the first begins that does not count. */
  private long read(Path path, int last, Function<JsonNode, T> reader) throws IOException {
    long end = 0;
    try (InputStream in = new BufferedInputStream(Files.newInputStream(path))) {
      ByteArrayOutputStream line = new ByteArrayOutputStream();
      for (int next = in.read(); next >= 0 && line.size() < LONGEST_LINE; next = in.read()) {
        if (next != '\n') {
          line.write(next);
          continue;
        }
        JsonNode json;
        try {
          json = MAPPER.readTree(line.toByteArray());
        } catch (JsonProcessingException e) {
          // What comes after damage cannot be told to belong to this run.
          return end;
        }
        if (!json.path("step").isInt() || json.path("step").intValue() > last) {
          return end;
        }
        lines.add(reader.apply(json));
        end += line.size() + 1;
        line.reset();
      }
    }
    return end;
  }

  /** Appends a line. */
  public void write(T line) throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap((line.json() + "\n").getBytes(StandardCharsets.UTF_8));
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
    lines.add(line);
  }

  /** All lines so far, with those of the runs that this one goes on from. */
  public List<T> lines() {
    return Collections.unmodifiableList(lines);
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
