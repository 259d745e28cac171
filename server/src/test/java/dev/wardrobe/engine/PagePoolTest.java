package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class PagePoolTest {

  @Test
  void take_untilNone_giveBack() {
    PagePool pool = new PagePool(3);
    Set<Integer> taken = new HashSet<>();
    for (int i = 0; i < 3; i++) {
      taken.add(pool.take());
    }
    assertThat(taken).containsExactlyInAnyOrder(0, 1, 2);
    assertThat(pool.take()).isEqualTo(PagePool.NONE);

    pool.give(new int[] {2, 0, 9}, 2);
    assertThat(pool.available()).isEqualTo(2);
    assertThat(List.of(pool.take(), pool.take())).containsExactlyInAnyOrder(0, 2);
  }

  @Test
  void give_twice_isRefused() {
    PagePool pool = new PagePool(2);
    int block = pool.take();
    pool.give(new int[] {block}, 1);
    assertThatThrownBy(() -> pool.give(new int[] {block}, 1))
        .isInstanceOf(IllegalStateException.class);
    assertThat(pool.available()).isEqualTo(2);
  }
}
