package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.UpdateRule;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.junit.jupiter.api.Test;

final class UpdatesTest {
  private static final List<UpdateRule> RULES =
      List.of(
          new UpdateRule.AdamW(1e-2, 0.9, 0.999, 1e-8, 0.1, 1, false),
          new UpdateRule.AdamW(1e-2, 0.9, 0.999, 1e-8, 0.1, 1, true),
          new UpdateRule.Lion(1e-2, 0.9, 0.99, 0.1, false),
          new UpdateRule.Lion(1e-2, 0.9, 0.99, 0.1, true),
          new UpdateRule.Sgd(1e-2, 0.9, 0.1),
          new UpdateRule.Sgd(1e-2, 0, 0.1));

  /** However a parameter is cut at blocks, and whoever computes them. */
  @Test
  void update_inParts_isTheWhole() {
    for (UpdateRule rule : RULES) {
      for (int size : new int[] {1, 255, 256, 257, 20_000, 70_001}) {
        float[] expected = updated(rule, size, size, 1);
        assertThat(updated(rule, size, 256, 1)).as("%s, %d", rule, size).isEqualTo(expected);
        assertThat(updated(rule, size, 3 * 256, 3)).as("%s, %d", rule, size).isEqualTo(expected);
        assertThat(updated(rule, size, size, 3)).as("%s, %d", rule, size).isEqualTo(expected);
      }
    }
  }

  /** The parameter after three updates, part by part, and its state's sum of bytes. */
  private static float[] updated(UpdateRule rule, int size, int part, int threads) {
    try (Lab lab = Labs.of(new CpuBackend(threads), size);
        Arena arena = Arena.ofShared()) {
      float[] begin = lab.floats(size);
      float[] slope = lab.floats(size, 1e-2);
      for (int i = 0; i < size; i += 5) {
        slope[i] = 0;
      }
      try (Buffer value = lab.backend.buffer(1, size);
          Buffer gradient = lab.backend.buffer(1, size)) {
        lab.backend.write(value, 0, begin);
        lab.backend.write(gradient, 0, slope);
        MemorySegment state = arena.allocate(Math.max(1, rule.stateBytes(size)));
        for (int step = 0; step < 3; step++) {
          for (int from = 0; from < size; from += part) {
            int count = Math.min(part, size - from);
            lab.backend
                .gradients()
                .update(
                    rule,
                    value,
                    gradient,
                    from,
                    count,
                    state.asSlice(rule.stateBytes(from), rule.stateBytes(count)));
          }
        }
        assertThat(lab.backend.read(gradient, 0, 1)).isEqualTo(slope);
        return lab.backend.read(value, 0, 1);
      }
    }
  }

  @Test
  void update_refusesWhatDoesNotFit() {
    UpdateRule rule = RULES.getFirst();
    try (Lab lab = Labs.cpu(1);
        Arena arena = Arena.ofConfined();
        Buffer value = lab.backend.buffer(2, 300);
        Buffer other = lab.backend.buffer(2, 299)) {
      MemorySegment state = arena.allocate(rule.stateBytes(600));
      for (int[] part : new int[][] {{1, 10}, {0, 601}, {-256, 10}, {256, 345}, {0, -1}}) {
        assertThatIllegalArgumentException()
            .isThrownBy(
                () -> lab.backend.gradients().update(rule, value, value, part[0], part[1], state))
            .withMessageContaining("whole blocks of 256 within 600 elements");
      }
      assertThatIllegalArgumentException()
          .isThrownBy(
              () -> lab.backend.gradients().update(rule, value, value, 0, 600, state.asSlice(8)))
          .withMessage("update: expected 6144 bytes of state, got 6136");
      assertThatIllegalArgumentException()
          .isThrownBy(() -> lab.backend.gradients().update(rule, value, other, 0, 256, state));
    }
  }
}
