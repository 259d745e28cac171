package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class StepLogTest {

  @Test
  void after_keepsTheLatest() {
    StepLog log = new StepLog();
    assertThat(log.after(0)).isEmpty();
    for (int i = 1; i <= StepLog.KEPT + 10; i++) {
      log.add(1, 1, 0, 1, i, 0);
    }
    assertThat(log.after(0)).hasSize(StepLog.KEPT);
    assertThat(log.after(0).getFirst().number()).isEqualTo(11);
    assertThat(log.after(StepLog.KEPT + 8))
        .extracting(StepRecord::number)
        .containsExactly(StepLog.KEPT + 9L, StepLog.KEPT + 10L);
    assertThat(log.after(Long.MAX_VALUE - 1)).isEmpty();
    assertThat(log.after(-5)).hasSize(StepLog.KEPT);
  }
}
