package dev.wardrobe.trainer.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class BatchesTest {
  @TempDir java.nio.file.Path scratch;

  @ParameterizedTest
  @CsvSource({
    "1, 1, SHUFFLED, false, 0",
    "4, 1, SHUFFLED, false, 0",
    "3, 5, SHUFFLED, false, 0",
    "3, 5, SEQUENTIAL, false, 0",
    "4, 2, SHUFFLED, true, 0",
    "7, 1, SHUFFLED, true, 0",
    "1, 1, SHUFFLED, false, 64",
    "2, 3, SHUFFLED, false, 40",
    "2, 2, SEQUENTIAL, false, 100",
    "5000, 2, SHUFFLED, true, 0",
  })
  void step_takesEachRowOnceAnEpoch(
      int batch, int accumulation, BatchOptions.Order order, boolean group, int packing)
      throws Exception {
    try (Dataset data = lengths(5003, 7)) {
      Rows rows = data.rows();
      BatchOptions options = new BatchOptions(batch, accumulation, order, group, packing);
      Batches batches = new Batches(rows, options, 11);
      for (int epoch = 0; epoch < 2; epoch++) {
        int[] seen = new int[rows.size()];
        for (long step = 0; step < batches.stepsPerEpoch(); step++) {
          List<int[]> chosen = batches.rowsOf(epoch * batches.stepsPerEpoch() + step);
          assertThat(chosen).hasSizeBetween(1, accumulation);
          for (int[] of : chosen) {
            assertThat(of).isNotEmpty();
            if (packing == 0) {
              assertThat(of).hasSizeLessThanOrEqualTo(batch);
            } else {
              assertThat(Arrays.stream(of).map(rows::length).sum())
                  .isLessThanOrEqualTo(batch * packing);
            }
            for (int row : of) {
              seen[row]++;
            }
          }
        }
        assertThat(seen).containsOnly(1);
      }
    }
  }

  @Test
  void step_isAFunctionOfItsNumber() throws Exception {
    try (Dataset data = lengths(300, 3)) {
      BatchOptions options = BatchOptions.of(4, 2).groupByLength(true);
      Batches through = new Batches(data.rows(), options, 5);
      List<List<int[]>> all = new ArrayList<>();
      for (int step = 0; step < 100; step++) {
        all.add(through.rowsOf(step));
      }
      for (int step : new int[] {99, 0, 57, 38, 37}) {
        Batches anew = new Batches(data.rows(), options, 5);
        assertThat(anew.rowsOf(step)).usingRecursiveComparison().isEqualTo(all.get(step));
      }
      assertThat(new Batches(data.rows(), options, 6).rowsOf(0))
          .usingRecursiveComparison()
          .isNotEqualTo(all.get(0));
      assertThat(all.get(0))
          .usingRecursiveComparison()
          .isNotEqualTo(all.get((int) through.stepsPerEpoch()));
    }
  }

  @Test
  void pack_isTheSameEachTime_andShuffledEachEpoch() throws Exception {
    try (Dataset data = lengths(9000, 4)) {
      BatchOptions options = BatchOptions.of(1, 1).packing(64);
      Batches batches = new Batches(data.rows(), options, 5);
      long steps = batches.stepsPerEpoch();
      assertThat(new Batches(data.rows(), options, 5).rowsOf(3 * steps + 7))
          .usingRecursiveComparison()
          .isEqualTo(batches.rowsOf(3 * steps + 7));
      assertThat(firstPacks(batches, 0)).isNotEqualTo(firstPacks(batches, steps));
    }
  }

  private static List<Integer> firstPacks(Batches batches, long from) {
    List<Integer> rows = new ArrayList<>();
    for (long step = from; step < from + 10; step++) {
      Arrays.stream(batches.rowsOf(step).getFirst()).forEach(rows::add);
    }
    return rows;
  }

  @Test
  void pack_longestRowsFirst_intoTheLeastRoom() throws Exception {
    String[] lines = new String[6];
    int[] lengths = {3, 12, 6, 4, 5, 2};
    for (int i = 0; i < lines.length; i++) {
      int[] ids = new int[lengths[i]];
      lines[i] = "{\"input_ids\":" + Arrays.toString(ids) + "}";
    }
    try (Dataset data = Data.tokens(scratch, lines)) {
      BatchOptions options = BatchOptions.of(1, 1).order(BatchOptions.Order.SEQUENTIAL).packing(10);
      Batches batches = new Batches(data.rows(), options, 0);
      List<List<Integer>> packs = new ArrayList<>();
      for (long step = 0; step < batches.stepsPerEpoch(); step++) {
        packs.add(Arrays.stream(batches.rowsOf(step).getFirst()).boxed().toList());
      }
      // 12 alone, being more than a pack; 6 and 4; 5, 3 and 2.
      assertThat(packs).containsExactly(List.of(1), List.of(2, 3), List.of(4, 0, 5));
      MicroBatch batch = batches.step(2).getFirst();
      assertThat(batch.starts()).containsExactly(0, 5, 8, 10);
      assertThat(batch.positions()).containsExactly(0, 1, 2, 3, 4, 0, 1, 2, 0, 1);
      assertThat(batch.targets()[4]).isEqualTo(MicroBatch.NONE);
      assertThat(batch.targets()[7]).isEqualTo(MicroBatch.NONE);
    }
  }

  @Test
  void mostTokens_areThoseOfTheLongestRowsThatCouldMeet() throws Exception {
    String[] lines = new String[6];
    int[] lengths = {3, 12, 6, 4, 5, 2};
    for (int i = 0; i < lines.length; i++) {
      lines[i] = "{\"input_ids\":" + Arrays.toString(new int[lengths[i]]) + "}";
    }
    try (Dataset data = Data.tokens(scratch, lines)) {
      Rows rows = data.rows();
      assertThat(new Batches(rows, BatchOptions.of(1, 3), 0).mostTokens()).isEqualTo(12);
      assertThat(new Batches(rows, BatchOptions.of(2, 1), 0).mostTokens()).isEqualTo(18);
      assertThat(new Batches(rows, BatchOptions.of(100, 1), 0).mostTokens()).isEqualTo(32);
      BatchOptions packed = BatchOptions.of(2, 1).packing(12);
      assertThat(new Batches(rows, packed, 0).mostTokens()).isEqualTo(23);
    }
    try (Dataset data = lengths(300, 3)) {
      BatchOptions options = BatchOptions.of(4, 2).groupByLength(true);
      Batches batches = new Batches(data.rows(), options, 5);
      for (int step = 0; step < 100; step++) {
        assertThat(batches.step(step))
            .allSatisfy(each -> assertThat(each.rows()).isLessThanOrEqualTo(batches.mostTokens()));
      }
    }
  }

  @Test
  void sequential_isTheFilesOrder() throws Exception {
    try (Dataset data = lengths(11, 1)) {
      Batches batches =
          new Batches(data.rows(), BatchOptions.of(2, 2).order(BatchOptions.Order.SEQUENTIAL), 9);
      assertThat(batches.rowsOf(1))
          .usingRecursiveComparison()
          .isEqualTo(List.of(new int[] {4, 5}, new int[] {6, 7}));
      assertThat(batches.rowsOf(5))
          .usingRecursiveComparison()
          .isEqualTo(List.of(new int[] {8, 9}, new int[] {10}));
    }
  }

  @Test
  void shuffle_isTheSameForEver() {
    assertThat(Shuffle.of(10, 1, Shuffle.EPOCH, 0)).containsExactly(2, 7, 4, 9, 6, 3, 0, 8, 5, 1);
  }

  @Test
  void step_targetsAreShiftedWithinEachSequence() throws Exception {
    try (Dataset data =
        Data.tokens(
            scratch,
            "{\"input_ids\":[5,6,7,8],\"labels\":[-100,-100,7,8]}",
            "{\"input_ids\":[9,10,11],\"labels\":[9,10,-100]}")) {
      Batches batches =
          new Batches(data.rows(), BatchOptions.of(2, 1).order(BatchOptions.Order.SEQUENTIAL), 0);
      assertThat(batches.stepsPerEpoch()).isEqualTo(1);
      MicroBatch batch = batches.step(0).getFirst();
      assertThat(batch.tokens()).containsExactly(5, 6, 7, 8, 9, 10);
      assertThat(batch.targets()).containsExactly(-100, 7, 8, -100, 10, -100);
      assertThat(batch.starts()).containsExactly(0, 4, 6);
      assertThat(batches.targets(0)).isEqualTo(3);
      assertThat(batches.tokens(0)).isEqualTo(6);
    }
  }

  @Test
  void step_lastOneIsSmaller() throws Exception {
    try (Dataset data = lengths(10, 1)) {
      Batches batches = new Batches(data.rows(), BatchOptions.of(2, 2), 1);
      assertThat(batches.stepsPerEpoch()).isEqualTo(3);
      assertThat(batches.totalSteps(1.5)).isEqualTo(5);
      assertThat(batches.step(1)).hasSize(2);
      assertThat(batches.step(2)).hasSize(1);
      assertThat(batches.step(2).getFirst().sequences()).isEqualTo(2);
      assertThat(batches.epoch(3)).isEqualTo(1);
    }
  }

  @Test
  void pack_wastesLittle() throws Exception {
    try (Dataset data = lengths(5000, 9)) {
      Rows rows = data.rows();
      Batches batches = new Batches(rows, BatchOptions.of(1, 1).packing(100), 1);
      double filled = (double) rows.tokens() / (100 * batches.stepsPerEpoch());
      assertThat(filled).isGreaterThan(0.97);
    }
  }

  @Test
  void groupByLength_stepsHaveRowsOfALikeLength() throws Exception {
    try (Dataset data = lengths(4000, 2)) {
      Rows rows = data.rows();
      Batches batches = new Batches(rows, BatchOptions.of(8, 1).groupByLength(true), 1);
      int spread = 0;
      int longest = 0;
      for (int row = 0; row < rows.size(); row++) {
        longest = Math.max(longest, rows.length(row));
      }
      for (long step = 0; step < batches.stepsPerEpoch(); step++) {
        int[] of = Arrays.stream(batches.rowsOf(step).getFirst()).map(rows::length).toArray();
        spread += Arrays.stream(of).max().orElseThrow() - Arrays.stream(of).min().orElseThrow();
      }
      // Unsorted, eight of 2 to 40 tokens differ by some 30.
      assertThat(spread / batches.stepsPerEpoch()).isLessThan(3);
      assertThat(rows.length(batches.rowsOf(0).getFirst()[0])).isEqualTo(longest);
    }
  }

  @Test
  void options_thatContradictEachOther() {
    assertThatThrownBy(() -> new BatchOptions(1, 1, BatchOptions.Order.SHUFFLED, true, 64))
        .hasMessageContaining("packing");
    assertThatThrownBy(() -> new BatchOptions(1, 1, BatchOptions.Order.SEQUENTIAL, true, 0))
        .hasMessageContaining("shuffle");
    assertThatThrownBy(() -> BatchOptions.of(0, 1)).hasMessageContaining("at least 1");
  }

  private Dataset lengths(int count, long seed) throws Exception {
    Random random = new Random(seed);
    String[] lines = new String[count];
    for (int i = 0; i < count; i++) {
      int[] ids = new int[2 + random.nextInt(39)];
      Arrays.setAll(ids, t -> random.nextInt(Data.VOCABULARY));
      lines[i] = "{\"input_ids\":" + Arrays.toString(ids) + "}";
    }
    return Data.tokens(scratch, lines);
  }
}
