package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class EngineOptionsTest {
  private static final long GIB = 1L << 30;

  @Test
  void onDevice_takesWhatItSpares_andALogitsPassAtOnce() {
    EngineOptions options = EngineOptions.DEFAULT.onDevice(100 * GIB);
    assertThat(options.memoryBytes()).isEqualTo(100 * GIB);
    assertThat(options.maxLogitRows()).isEqualTo(options.maxSequences());
    assertThat(EngineOptions.DEFAULT.withPrefillTokens(1 << 16).onDevice(GIB).prefillTokens())
        .isLessThan(60_000);
  }

  @Test
  void onDevice_whatIsGivenStays() {
    assertThat(EngineOptions.DEFAULT.withKvTokens(64).onDevice(GIB).memoryBytes()).isZero();
    assertThat(EngineOptions.DEFAULT.withMemoryBytes(5).onDevice(GIB).memoryBytes()).isEqualTo(5);
    assertThat(EngineOptions.DEFAULT.withMaxLogitRows(200).onDevice(GIB).maxLogitRows())
        .isEqualTo(200);
  }

  @Test
  void onDevice_notOfAProcessor() {
    assertThat(EngineOptions.DEFAULT.onDevice(-1)).isEqualTo(EngineOptions.DEFAULT);
  }
}
