package dev.wardrobe.trainer.report;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnknownFieldSet;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class EventFileTest {
  @TempDir private Path folder;

  @Test
  void events_areThere() throws IOException {
    try (EventFile file = EventFile.create(folder, 5, 1_700_000_000_500L)) {
      file.write(StepLinesTest.metrics(5, 2.5).withEvaluation(1.5));
      file.text("samples/1", 5, 1_700_000_000_000L, "so **it** is");
    }
    List<UnknownFieldSet> events = read();
    assertThat(events).hasSize(4);
    assertThat(events.get(0).getField(3).getLengthDelimitedList().getFirst().toStringUtf8())
        .isEqualTo("brain.Event:2");
    assertThat(events.get(1).getField(2).getVarintList()).containsExactly(5L);
    assertThat(message(events.get(1), 7).getField(1).getVarintList()).containsExactly(1L);

    UnknownFieldSet step = events.get(2);
    assertThat(Double.longBitsToDouble(step.getField(1).getFixed64List().getFirst()))
        .isEqualTo(1_700_000_000.005);
    assertThat(step.getField(2).getVarintList()).containsExactly(5L);
    assertThat(scalars(step))
        .containsEntry("train/loss", 2.5f)
        .containsEntry("train/learning_rate", 2e-4f)
        .containsEntry("train/grad_norm", 0.5f)
        .containsEntry("eval/loss", 1.5f)
        .containsEntry("memory/resident_gib", 1f);

    UnknownFieldSet text = message(message(events.get(3), 5), 1);
    assertThat(message(text, 8).getField(8).getLengthDelimitedList())
        .containsExactly(ByteString.copyFromUtf8("so **it** is"));
  }

  private static Map<String, Float> scalars(UnknownFieldSet event) throws IOException {
    Map<String, Float> scalars = new TreeMap<>();
    for (ByteString bytes : message(event, 5).getField(1).getLengthDelimitedList()) {
      UnknownFieldSet value = UnknownFieldSet.parseFrom(bytes);
      scalars.put(
          value.getField(1).getLengthDelimitedList().getFirst().toStringUtf8(),
          Float.intBitsToFloat(value.getField(2).getFixed32List().getFirst()));
    }
    return scalars;
  }

  private static UnknownFieldSet message(UnknownFieldSet of, int field) throws IOException {
    return UnknownFieldSet.parseFrom(of.getField(field).getLengthDelimitedList().getFirst());
  }

  /** Reads TFRecords, and checks their sums. */
  private List<UnknownFieldSet> read() throws IOException {
    Path file;
    try (Stream<Path> all = Files.list(folder)) {
      file = all.toList().getFirst();
    }
    assertThat(file.getFileName().toString()).startsWith("events.out.tfevents.1700000000.");
    List<UnknownFieldSet> events = new ArrayList<>();
    ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
    while (bytes.hasRemaining()) {
      byte[] length = new byte[8];
      bytes.get(length);
      assertThat(bytes.getInt()).isEqualTo(masked(length));
      byte[] event =
          new byte[(int) ByteBuffer.wrap(length).order(ByteOrder.LITTLE_ENDIAN).getLong()];
      bytes.get(event);
      assertThat(bytes.getInt()).isEqualTo(masked(event));
      events.add(UnknownFieldSet.parseFrom(event));
    }
    return events;
  }

  /** CRC-32C by its definition, bit by bit, then TFRecord's mask. */
  private static int masked(byte[] bytes) {
    int crc = -1;
    for (byte each : bytes) {
      crc ^= each & 0xff;
      for (int bit = 0; bit < 8; bit++) {
        crc = (crc >>> 1) ^ ((crc & 1) == 0 ? 0 : 0x82f63b78);
      }
    }
    crc = ~crc;
    return ((crc >>> 15) | (crc << 17)) + 0xa282ead8;
  }
}
