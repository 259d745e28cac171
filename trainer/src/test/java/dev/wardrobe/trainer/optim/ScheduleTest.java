package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.within;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Objects;
import org.junit.jupiter.api.Test;

final class ScheduleTest {

  /** schedules.csv is written by schedules.py beside it. */
  @Test
  void rates_asTransformers() throws IOException {
    int rows = 0;
    try (BufferedReader in =
        new BufferedReader(
            new InputStreamReader(
                Objects.requireNonNull(
                    ScheduleTest.class.getResourceAsStream("/optimizers/schedules.csv")),
                StandardCharsets.UTF_8))) {
      in.readLine();
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        String[] cells = line.split(",", -1);
        Schedule schedule =
            new Schedule(
                Schedule.Kind.named(cells[0]),
                1,
                Integer.parseInt(cells[1]),
                Integer.parseInt(cells[2]),
                Integer.parseInt(cells[3]));
        assertThat(schedule.rate(Integer.parseInt(cells[4])))
            .as(line)
            .isCloseTo(Double.parseDouble(cells[5]), within(1e-15));
        rows++;
      }
    }
    assertThat(rows).isEqualTo(605);
  }

  @Test
  void stepZero_hasNoRate_withWarmup() {
    for (Schedule.Kind kind : Schedule.Kind.values()) {
      Schedule schedule = new Schedule(kind, 2e-4, 5, 50, 1);
      assertThat(schedule.rate(0)).isZero();
      assertThat(schedule.rate(1)).isEqualTo(2e-4 / 5);
      assertThat(schedule.rate(5)).isEqualTo(2e-4);
    }
  }

  @Test
  void named_refusesOthers_andNumbersOutOfRange() {
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Schedule.Kind.named("exponential"))
        .withMessage(
            "schedule: expected constant, linear, cosine or cosine_with_restarts, got"
                + " 'exponential'");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> new Schedule(Schedule.Kind.LINEAR, Double.NaN, 0, 1, 1));
    assertThatIllegalArgumentException()
        .isThrownBy(() -> new Schedule(Schedule.Kind.LINEAR, 1, -1, 1, 1));
  }
}
