package dev.wardrobe.trainer.data;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Data of tests. */
final class Data {
  static final int VOCABULARY = 1000;

  private Data() {}

  /** Rows of tokens, without a tokenizer. */
  static Dataset tokens(Path folder, String... lines) throws Exception {
    Path file = Files.createTempFile(folder, "rows", ".jsonl");
    Files.write(file, List.of(lines));
    try (ModelText model = ModelText.read(folder, VOCABULARY, List.of())) {
      return Dataset.read(List.of(file), model, DataOptions.of(4096).scratch(folder));
    }
  }
}
