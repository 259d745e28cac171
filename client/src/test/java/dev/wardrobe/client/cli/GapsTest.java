package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.junit.jupiter.api.Test;

final class GapsTest {
  private static final long MS = 1_000_000;

  @Test
  void longest_isOfThePausesThatOverlapTheSwap() throws DemoException {
    // A pause of 50 ms before the swap does not count; one of 20 that ends in it does.
    List<Long> arrivals = List.of(0L, 50 * MS, 55 * MS, 75 * MS, 80 * MS, 86 * MS, 120 * MS);
    Demo.Gaps gaps = Demo.Gaps.of(arrivals, 60 * MS, 82 * MS);
    assertThat(gaps.longestMs()).isEqualTo(20);
    assertThat(gaps.medianMs()).isEqualTo(20);
    assertThat(gaps.tokensDuring()).isEqualTo(2);
  }

  @Test
  void longest_whenNoTokenCameDuringTheSwap() throws DemoException {
    Demo.Gaps gaps = Demo.Gaps.of(List.of(0L, 10 * MS, 40 * MS), 15 * MS, 20 * MS);
    assertThat(gaps.longestMs()).isEqualTo(30);
    assertThat(gaps.tokensDuring()).isZero();
  }

  @Test
  void streamThatEndedBeforeTheSwap_isAFailure() {
    assertThatThrownBy(() -> Demo.Gaps.of(List.of(0L, MS), 5 * MS, 6 * MS))
        .isInstanceOf(DemoException.class)
        .hasMessageContaining("ended before");
  }
}
