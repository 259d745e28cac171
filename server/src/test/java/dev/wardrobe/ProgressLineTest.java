package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import org.junit.jupiter.api.Test;

final class ProgressLineTest {
  private final StringWriter err = new StringWriter();

  @Test
  void line_fillsWithWhatIsDone_andIsNeverWiderThanTheTerminal() {
    assertThat(ProgressLine.line(0, 4, "a", 80)).isEqualTo("[" + ".".repeat(24) + "] 0/4 a");
    assertThat(ProgressLine.line(1, 2, "b", 80))
        .isEqualTo("[" + "#".repeat(12) + ".".repeat(12) + "] 1/2 b");
    assertThat(ProgressLine.line(Long.MAX_VALUE / 2, Long.MAX_VALUE, "c", 80))
        .startsWith("[" + "#".repeat(12) + ".");
    for (int width = 0; width < 60; width++) {
      assertThat(ProgressLine.line(3, 4, "model.layers.0.mlp", width))
          .hasSizeLessThan(Math.max(1, width));
    }
  }

  @Test
  void terminal_isLeftAsItWas() {
    try (ProgressLine line = ProgressLine.of(new PrintWriter(err), true)) {
      line.at(0, 3, "first");
      // At once after the other: it is not drawn.
      line.at(1, 3, "second");
      line.at(3, 3, "last");
      line.at("warming up");
    }
    assertThat(err.toString())
        .contains("0/3 first", "3/3 last", "warming up ...")
        .doesNotContain("\n")
        .endsWith("\r\u001b[K");
  }

  @Test
  void pipeOrJson_hasNothing() {
    try (ProgressLine line = ProgressLine.of(new PrintWriter(err), false)) {
      line.at(1, 3, "first");
      line.at("warming up");
    }
    try (ProgressLine line = ProgressLine.on(new PrintWriter(err), true)) {
      line.at(1, 3, "first");
    }
    assertThat(err.toString()).isEmpty();
  }
}
