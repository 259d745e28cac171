package dev.wardrobe.trainer.report;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.OptionalDouble;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class StepLinesTest {
  @TempDir private Path folder;

  static StepMetrics metrics(int step, double loss) {
    return new StepMetrics(
        step,
        1_700_000_000_000L + step,
        step / 10.0,
        loss,
        2e-4,
        0.5,
        100L * step,
        38.123,
        1L << 30,
        null,
        OptionalDouble.empty());
  }

  private StepLines<StepMetrics> after(int step) throws IOException {
    return StepLines.after(step, folder.resolve(StepMetrics.FILE), StepMetrics::of);
  }

  @Test
  void write_isInTheFileAtOnce() throws IOException {
    try (StepLines<StepMetrics> lines = after(-1)) {
      lines.write(metrics(0, Double.NaN).withEvaluation(4));
      lines.write(metrics(1, 3.25));
      List<String> written = Files.readAllLines(folder.resolve(StepMetrics.FILE));
      assertThat(written).hasSize(2);
      JsonNode first = new ObjectMapper().readTree(written.getFirst());
      assertThat(first.path("step").intValue()).isZero();
      assertThat(first.has("loss")).isFalse();
      assertThat(first.path("eval_loss").doubleValue()).isEqualTo(4);
      assertThat(first.path("eval_perplexity").doubleValue()).isEqualTo(StrictMath.exp(4));
      JsonNode second = new ObjectMapper().readTree(written.getLast());
      assertThat(second.path("loss").doubleValue()).isEqualTo(3.25);
      assertThat(second.path("lr").doubleValue()).isEqualTo(2e-4);
      assertThat(second.path("grad_norm").doubleValue()).isEqualTo(0.5);
      assertThat(second.path("tokens").longValue()).isEqualTo(100);
      assertThat(second.path("tokens_per_second").doubleValue()).isEqualTo(38.12);
      assertThat(second.has("eval_loss")).isFalse();
    }
  }

  @Test
  void after_cutsLaterStepsOff() throws IOException {
    try (StepLines<StepMetrics> lines = after(-1)) {
      for (int step = 0; step <= 9; step++) {
        lines.write(metrics(step, 10 - step));
      }
    }
    try (StepLines<StepMetrics> lines = after(4)) {
      assertThat(lines.lines()).hasSize(5).last().extracting(StepMetrics::loss).isEqualTo(6.0);
      lines.write(metrics(5, 1));
    }
    assertThat(Files.readAllLines(folder.resolve(StepMetrics.FILE)))
        .hasSize(6)
        .last()
        .asString()
        .startsWith("{\"step\":5,");
  }

  @Test
  void after_cutsOffWhatWasWrittenInPart() throws IOException {
    Path file = folder.resolve(StepMetrics.FILE);
    try (StepLines<StepMetrics> lines = after(-1)) {
      lines.write(metrics(1, 1));
    }
    Files.writeString(file, "{\"step\":2,\"lo", StandardOpenOption.APPEND);
    try (StepLines<StepMetrics> lines = after(5)) {
      assertThat(lines.lines()).hasSize(1);
      lines.write(metrics(2, 2));
    }
    assertThat(Files.readAllLines(file)).hasSize(2);
    Files.writeString(file, "[[[[\n{\"step\":3}\n", StandardOpenOption.APPEND);
    try (StepLines<StepMetrics> lines = after(5)) {
      assertThat(lines.lines()).hasSize(2);
    }
  }

  @Test
  void skipped_saysWhyAndWritesNoNan() throws IOException {
    StepMetrics skipped =
        new StepMetrics(
            7,
            0,
            0,
            Double.NaN,
            1e-3,
            Double.POSITIVE_INFINITY,
            5,
            1,
            0,
            "the loss is NaN",
            OptionalDouble.empty());
    String line = skipped.json().toString();
    assertThat(line).contains("\"skipped\":\"the loss is NaN\"").doesNotContain("Infinity");
    assertThat(line).doesNotContain("\"loss\"").doesNotContain("grad_norm");
    StepMetrics back = StepMetrics.of(new ObjectMapper().readTree(line));
    assertThat(back.skipped()).isEqualTo("the loss is NaN");
    assertThat(back.loss()).isNaN();
  }

  @Test
  void samples_comeBack() throws IOException {
    Path file = folder.resolve(Answer.FILE);
    Answer sample = new Answer(3, 17, "Hello\n\"you\"", "ünï \uD83D\uDE00");
    try (StepLines<Answer> lines = StepLines.after(-1, file, Answer::of)) {
      lines.write(sample);
    }
    try (StepLines<Answer> lines = StepLines.after(3, file, Answer::of)) {
      assertThat(lines.lines()).containsExactly(sample);
    }
  }
}
