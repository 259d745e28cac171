package dev.wardrobe.trainer.report;

import com.google.protobuf.CodedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Locale;
import java.util.zip.CRC32C;

/**
 * A TensorBoard event file: TFRecords, each a serialized {@code tensorflow.Event}. The few fields
 * that curves and texts take are written by their numbers.
 *
 * <p>A run that goes on has a further file beside the first; its beginning tells TensorBoard from
 * which step on the earlier ones no longer count.
 */
public final class EventFile implements AutoCloseable {
  // tensorflow.Event
  private static final int WALL_TIME = 1;
  private static final int STEP = 2;
  private static final int FILE_VERSION = 3;
  private static final int SUMMARY = 5;
  private static final int SESSION_LOG = 7;
  // tensorflow.SessionLog
  private static final int STATUS = 1;
  private static final int START = 1;
  // tensorflow.Summary, its Value and that one's SummaryMetadata and PluginData
  private static final int VALUE = 1;
  private static final int TAG = 1;
  private static final int SIMPLE_VALUE = 2;
  private static final int TENSOR = 8;
  private static final int METADATA = 9;
  private static final int PLUGIN_DATA = 1;
  private static final int PLUGIN_NAME = 1;
  // tensorflow.TensorProto
  private static final int DTYPE = 1;
  private static final int DT_STRING = 7;
  private static final int SHAPE = 2;
  private static final int DIM = 2;
  private static final int DIM_SIZE = 1;
  private static final int STRING_VAL = 8;

  private final FileChannel channel;

  /** A message's body. */
  private interface Body {
    void write(CodedOutputStream out) throws IOException;
  }

  private EventFile(FileChannel channel) {
    this.channel = channel;
  }

  /**
   * Starts a file.
   *
   * @param from the first step that it may have
   * @param time milliseconds since 1970; part of the name
   * @throws IOException if it cannot be written
   */
  public static EventFile create(Path folder, int from, long time) throws IOException {
    // TensorBoard reads what has "tfevents" in its name, in the order of the names.
    String name =
        String.format(Locale.ROOT, "events.out.tfevents.%010d.wardrobe.%08d", time / 1000, from);
    FileChannel channel =
        FileChannel.open(
            folder.resolve(name),
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE);
    EventFile file = new EventFile(channel);
    file.event(time, 0, out -> out.writeString(FILE_VERSION, "brain.Event:2"));
    file.event(time, from, out -> message(out, SESSION_LOG, log -> log.writeEnum(STATUS, START)));
    return file;
  }

  /** Appends a step's curves. */
  public void write(StepMetrics metrics) throws IOException {
    event(
        metrics.time(),
        metrics.step(),
        out ->
            message(
                out,
                SUMMARY,
                summary -> {
                  if (metrics.step() > 0) {
                    scalar(summary, "train/loss", metrics.loss());
                    scalar(summary, "train/learning_rate", metrics.rate());
                    scalar(summary, "train/grad_norm", metrics.norm());
                    scalar(summary, "train/epoch", metrics.epoch());
                    scalar(summary, "speed/tokens_per_second", metrics.tokensPerSecond());
                  }
                  if (metrics.memory() > 0) {
                    scalar(summary, "memory/resident_gib", metrics.memory() / 0x1p30);
                  }
                  if (metrics.evaluation().isPresent()) {
                    double loss = metrics.evaluation().getAsDouble();
                    scalar(summary, "eval/loss", loss);
                    scalar(summary, "eval/perplexity", StrictMath.exp(loss));
                  }
                }));
  }

  /** Appends a text, which TensorBoard shows as Markdown. */
  public void text(String tag, int step, long time, String text) throws IOException {
    event(
        time,
        step,
        out ->
            message(
                out,
                SUMMARY,
                summary ->
                    message(
                        summary,
                        VALUE,
                        value -> {
                          value.writeString(TAG, tag);
                          message(
                              value,
                              TENSOR,
                              tensor -> {
                                tensor.writeEnum(DTYPE, DT_STRING);
                                message(
                                    tensor,
                                    SHAPE,
                                    shape ->
                                        message(shape, DIM, dim -> dim.writeInt64(DIM_SIZE, 1)));
                                tensor.writeString(STRING_VAL, text);
                              });
                          message(
                              value,
                              METADATA,
                              metadata ->
                                  message(
                                      metadata,
                                      PLUGIN_DATA,
                                      plugin -> plugin.writeString(PLUGIN_NAME, "text")));
                        })));
  }

  private static void scalar(CodedOutputStream summary, String tag, double value)
      throws IOException {
    message(
        summary,
        VALUE,
        out -> {
          out.writeString(TAG, tag);
          out.writeFloat(SIMPLE_VALUE, (float) value);
        });
  }

  private static void message(CodedOutputStream out, int field, Body body) throws IOException {
    out.writeByteArray(field, bytes(body));
  }

  private static byte[] bytes(Body body) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    CodedOutputStream out = CodedOutputStream.newInstance(bytes);
    body.write(out);
    out.flush();
    return bytes.toByteArray();
  }

  private void event(long time, int step, Body what) throws IOException {
    byte[] event =
        bytes(
            out -> {
              out.writeDouble(WALL_TIME, time / 1e3);
              out.writeInt64(STEP, step);
              what.write(out);
            });
    ByteBuffer record = ByteBuffer.allocate(event.length + 16).order(ByteOrder.LITTLE_ENDIAN);
    record.putLong(event.length);
    record.putInt(masked(record.array(), 0, 8));
    record.put(event);
    record.putInt(masked(event, 0, event.length));
    record.flip();
    while (record.hasRemaining()) {
      channel.write(record);
    }
  }

  /** TFRecord's checksum: a CRC of bytes that hold CRCs would be weak, so it is turned. */
  private static int masked(byte[] bytes, int offset, int length) {
    CRC32C crc = new CRC32C();
    crc.update(bytes, offset, length);
    return Integer.rotateRight((int) crc.getValue(), 15) + 0xa282ead8;
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
