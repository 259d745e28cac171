package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.junit.jupiter.api.Test;

final class LoraMixTest {
  private record Plain(String name) implements Lora {
    @Override
    public long bytes() {
      return 0;
    }

    @Override
    public boolean additive() {
      return true;
    }

    @Override
    public void close() {}
  }

  private final Lora one = new Plain("one");
  private final Lora two = new Plain("two");

  @Test
  void of_leavesOutWhatIsZero() {
    assertThat(LoraMix.of(List.of(one, two), 0, -0.0f)).isNull();
    assertThat(LoraMix.of(List.of())).isNull();
    LoraMix mix = LoraMix.of(List.of(two, one, two), 0.5f, 0, -2);
    assertThat(mix.size()).isEqualTo(2);
    assertThat(mix.lora(0)).isSameAs(two);
    assertThat(mix.lora(1)).isSameAs(two);
    assertThat(mix.scale(0)).isEqualTo(0.5f);
    assertThat(mix.scale(1)).isEqualTo(-2);
  }

  @Test
  void of_refusesScales() {
    for (float scale : new float[] {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY}) {
      assertThatThrownBy(() -> LoraMix.of(List.of(one), scale))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("scale");
    }
    assertThatThrownBy(() -> LoraMix.of(List.of(one), 1, 2))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("1 adapters and 2 scales");
  }

  @Test
  void equals_sameObjectsScalesAndOrder() {
    LoraMix mix = LoraMix.of(List.of(one, two), 0.7f, 0.3f);
    assertThat(mix)
        .isEqualTo(LoraMix.of(List.of(one, two), 0.7f, 0.3f))
        .hasSameHashCodeAs(LoraMix.of(List.of(one, two), 0.7f, 0.3f))
        .isNotEqualTo(LoraMix.of(List.of(two, one), 0.3f, 0.7f))
        .isNotEqualTo(LoraMix.of(List.of(one, two), 0.7f, 0.4f))
        .isNotEqualTo(LoraMix.of(List.of(one), 0.7f))
        .isNotEqualTo(LoraMix.of(List.of(new Plain("one"), two), 0.7f, 0.3f));
    assertThat(LoraMix.of(one)).isEqualTo(LoraMix.of(List.of(one), 1));
  }

  /** What a batch makes of mixes: a segment for each adapter, shared by equal neighbours. */
  @Test
  void batch_segments() {
    Batch batch = new Batch();
    for (int round = 0; round < 2; round++) {
      batch.clear();
      LoraMix[] mixes = {
        null,
        null,
        LoraMix.of(one),
        LoraMix.of(List.of(one, two), 0.7f, 0.3f),
        LoraMix.of(List.of(one, two), 0.7f, 0.3f),
        LoraMix.of(List.of(one, two), 0.7f, 0.4f),
        LoraMix.of(two),
        null
      };
      for (LoraMix mix : mixes) {
        batch.add(new int[2], 0, 2, new int[1], mix);
      }
      for (int row : new int[] {1, 5, 7, 8, 11, 15}) {
        batch.want(row);
      }
      assertThat(batch.segments())
          .extracting(LoraMixTest::text)
          .containsExactly(
              "0-4 base 1.0",
              "4-6 one 1.0",
              "6-10 one 0.7",
              "6-10 two 0.3",
              "10-12 one 0.7",
              "10-12 two 0.4",
              "12-14 two 1.0",
              "14-16 base 1.0");
      assertThat(batch.segments(0, 6))
          .extracting(LoraMixTest::text)
          .containsExactly(
              "0-1 base 1.0",
              "1-2 one 1.0",
              "2-4 one 0.7",
              "2-4 two 0.3",
              "4-5 one 0.7",
              "4-5 two 0.4",
              "5-6 base 1.0");
      assertThat(batch.segments(3, 5))
          .extracting(LoraMixTest::text)
          .containsExactly("0-1 one 0.7", "0-1 two 0.3", "1-2 one 0.7", "1-2 two 0.4");
    }
  }

  private static String text(Batch.Segment segment) {
    String name = segment.lora() instanceof Plain plain ? plain.name() : "base";
    return "%d-%d %s %s".formatted(segment.from(), segment.to(), name, segment.scale());
  }
}
