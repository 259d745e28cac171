package dev.wardrobe.trainer.data;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.trainer.Golden;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Rows as transformers made them for the reference data. */
class GoldenDataTest {
  @TempDir Path scratch;

  @Test
  void read_rowsOfTheReferenceRun() throws Exception {
    Path golden = Golden.shared("golden/training/smollm2.json");
    Path data = Golden.shared("data/sql/train.jsonl");
    Path directory = Golden.shared("models/smollm2-135m-instruct-nf4");
    JsonNode steps = new ObjectMapper().readTree(golden.toFile()).get("steps");
    try (ModelText model = ModelText.read(directory, 49152, List.of(2));
        Dataset dataset =
            Dataset.read(List.of(data), model, DataOptions.of(512).scratch(scratch))) {
      assertThat(dataset.summary().dropped()).isEmpty();
      Rows rows = dataset.rows();
      int checked = 0;
      for (JsonNode step : steps) {
        int targets = 0;
        for (int i = 0; i < step.get("rows").size(); i++) {
          int row = step.get("rows").get(i).intValue();
          assertThat(rows.ids(row)).as("row %d", row).isEqualTo(ints(step.get("input_ids").get(i)));
          boolean[] learned = rows.learned(row);
          int first = step.get("first_target").get(i).intValue();
          for (int t = 0; t < learned.length; t++) {
            assertThat(learned[t]).as("row %d, token %d", row, t).isEqualTo(t >= first);
          }
          targets += rows.targets(row);
          checked++;
        }
        assertThat(targets).isEqualTo(step.get("targets").intValue());
      }
      assertThat(checked).isEqualTo(240);
    }
  }

  private static int[] ints(JsonNode node) {
    int[] ints = new int[node.size()];
    for (int i = 0; i < ints.length; i++) {
      ints[i] = node.get(i).intValue();
    }
    return ints;
  }
}
