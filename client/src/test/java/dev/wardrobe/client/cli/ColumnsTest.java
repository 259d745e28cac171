package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;

final class ColumnsTest {
  @Test
  void lines_wrapEachTextToItsColumn() {
    assertThat(new Columns(2, 26).lines(List.of("one two three four", "x"), 1))
        .containsExactly("one two       x", "three four");
  }

  @Test
  void lines_cutAWordThatIsWiderThanItsColumn() {
    assertThat(new Columns(1, 12).lines(List.of("abcdefghijklmnop"), 1))
        .containsExactly("abcdefghijkl", "mnop");
  }

  @Test
  void lines_keepTheHeightAndEmptyTexts() {
    assertThat(new Columns(2, 26).lines(List.of("", "a\nb"), 3))
        .hasSize(3)
        .element(1)
        .asString()
        .endsWith("b");
  }
}
