package dev.wardrobe.trainer.report;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.List;
import org.junit.jupiter.api.Test;

final class ProgressTest {
  private final StringWriter text = new StringWriter();

  private Progress progress(boolean live, boolean coloured) {
    return new Progress(new PrintWriter(text), live, coloured, 10, 100, 0, 0);
  }

  @Test
  void step_inAFile_isALineNowAndThen() {
    Progress progress = progress(false, false);
    for (int step = 1; step <= 20; step++) {
      progress.step(StepLinesTest.metrics(step, step), step * 1_000_000_000L);
    }
    List<String> lines = text.toString().lines().toList();
    assertThat(lines).hasSize(2);
    assertThat(lines.getFirst())
        .startsWith("step 10/100  loss 5.5000  lr 0.000200  norm 0.500  38.1 tokens/s  1.00 GiB")
        .endsWith("1:30 left");
    assertThat(lines.getLast()).contains("loss 15.5000").doesNotContain("\r");
  }

  @Test
  void step_onATerminal_isOneLineWrittenAnew() {
    Progress progress = progress(true, false);
    progress.step(StepLinesTest.metrics(50, 1), 50_000_000_000L);
    assertThat(text.toString())
        .startsWith("\r\033[K━━━━━━       50/100  loss 1.0000")
        .endsWith("0:50 left")
        .doesNotContain("\033[3");
    progress.say("saved");
    assertThat(text.toString()).endsWith("\r\033[Ksaved\n");
  }

  @Test
  void step_inColour_hasThem() {
    progress(true, true).step(StepLinesTest.metrics(50, 1), 1);
    assertThat(text.toString()).contains("\033[32m");
  }

  @Test
  void clock_hasHours() {
    assertThat(Progress.clock(3723)).isEqualTo("1:02:03");
    assertThat(Progress.clock(59)).isEqualTo("0:59");
  }
}
