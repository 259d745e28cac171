package dev.wardrobe.client.load;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class SamplesTest {
  @Test
  void quantiles_areValuesThatWereSeen() {
    Samples samples = new Samples();
    // 1 to 2000 milliseconds, in no order.
    for (long i = 0; i < 2000; i++) {
      samples.add((i * 1237 % 2000 + 1) * 1_000_000);
    }
    assertThat(samples.millis(0.5)).isEqualTo(1000);
    assertThat(samples.millis(0.9)).isEqualTo(1800);
    assertThat(samples.millis(0.99)).isEqualTo(1980);
    assertThat(samples.maxMillis()).isEqualTo(2000);
    samples.add(3_000_000_000L);
    assertThat(samples.maxMillis()).isEqualTo(3000);
    assertThat(samples.millis(0.5)).isEqualTo(1001);
  }

  @Test
  void quantiles_ofFewOrNone() {
    Samples samples = new Samples();
    assertThat(samples.millis(0.99)).isNaN();
    samples.add(5_000_000);
    assertThat(samples.millis(0.01)).isEqualTo(5);
    assertThat(samples.millis(0.99)).isEqualTo(5);
  }
}
