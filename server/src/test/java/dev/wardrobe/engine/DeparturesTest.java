package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import org.assertj.core.data.Percentage;
import org.junit.jupiter.api.Test;

final class DeparturesTest {
  private static final long MILLI = 1_000_000;

  private final Departures departures = new Departures();
  private long now = 5_000 * MILLI;

  private void burst(int ends, long afterMillis) {
    now += afterMillis * MILLI;
    for (int i = 0; i < ends; i++) {
      departures.end(now);
    }
  }

  private double millis(int sequences) {
    return departures.of(sequences, now) / MILLI;
  }

  @Test
  void of_nothingSeen_isUnknown() {
    departures.begin(now);
    assertThat(departures.of(3, now + MILLI)).isZero();
  }

  @Test
  void of_endsInBursts_isTheirMean() {
    departures.begin(now);
    for (int i = 0; i < 200; i++) {
      burst(8, 100);
    }
    assertThat(millis(1)).isCloseTo(12.5, Percentage.withPercentage(2));
    assertThat(millis(40)).isCloseTo(500, Percentage.withPercentage(2));
  }

  @Test
  void of_followsTheLoad() {
    departures.begin(now);
    for (int i = 0; i < 1000; i++) {
      burst(1, 10);
    }
    for (int i = 0; i < 80; i++) {
      burst(1, 1000);
    }
    assertThat(millis(1)).isBetween(800.0, 1000.0);
  }

  @Test
  void of_longSinceTheLast_takesLonger() {
    departures.begin(now);
    burst(1, 100);
    now += 5000 * MILLI;
    assertThat(millis(1)).isCloseTo(5100, Percentage.withPercentage(1));
  }

  @Test
  void of_idleTimes_doNotCount() {
    departures.begin(now);
    burst(1, 100);
    now += 60_000 * MILLI;
    departures.begin(now);
    burst(1, 100);
    assertThat(millis(1)).isCloseTo(100, Percentage.withPercentage(1));
  }
}
