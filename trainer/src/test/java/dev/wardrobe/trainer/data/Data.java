package dev.wardrobe.trainer.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Data of tests. */
final class Data {
  static final int VOCABULARY = 1024;

  /** The {@code own} tokenizer's {@code <|eos|>} and {@code <|im_end|>}. */
  static final List<Integer> ENDS = List.of(2, 4);

  private Data() {}

  /** A file of the server's tests. */
  static Path golden(String path) {
    return Path.of(System.getProperty("wardrobe.root", ".."))
        .resolve("server/src/test/resources/golden")
        .resolve(path);
  }

  /** A template of the reference data. */
  static String template(String name) throws IOException {
    return Files.readString(golden("chat/templates/" + name + ".jinja"));
  }

  /** Our small tokenizer, which begins texts with {@code <|bos|>}, with a template. */
  static ModelText model(Path folder, String template) throws Exception {
    return model(folder, template, ENDS);
  }

  static ModelText model(Path folder, String template, List<Integer> ends) throws Exception {
    Path directory = Files.createTempDirectory(folder, "model");
    for (String file : List.of("tokenizer.json", "tokenizer_config.json")) {
      Files.copy(golden("tokenizers/own/" + file), directory.resolve(file));
    }
    if (!template.isEmpty()) {
      Files.writeString(directory.resolve("chat_template.jinja"), template);
    }
    return ModelText.read(directory, VOCABULARY, ends);
  }

  /** A model without a tokenizer. */
  static ModelText plain(Path folder) throws Exception {
    return ModelText.read(folder, VOCABULARY, List.of());
  }

  static Path file(Path folder, String content) throws IOException {
    return Files.writeString(Files.createTempFile(folder, "rows", ".jsonl"), content);
  }

  static DataOptions options(Path folder) {
    return DataOptions.of(4096).scratch(folder);
  }

  /** Rows of tokens, without a tokenizer. */
  static Dataset tokens(Path folder, String... lines) throws Exception {
    try (ModelText model = plain(folder)) {
      return Dataset.read(List.of(file(folder, String.join("\n", lines))), model, options(folder));
    }
  }

  /** A row's text, with what is learned in brackets. */
  static String shown(Rows rows, int row, ModelText model) {
    int[] ids = rows.ids(row);
    boolean[] learned = rows.learned(row);
    StringBuilder text = new StringBuilder();
    List<Integer> run = new ArrayList<>();
    for (int i = 0; i < ids.length; i++) {
      run.add(ids[i]);
      if (i + 1 == ids.length || learned[i + 1] != learned[i]) {
        String part =
            model.tokenizer().decode(run.stream().mapToInt(Integer::intValue).toArray(), false);
        text.append(learned[i] ? "[" + part + "]" : part);
        run.clear();
      }
    }
    return text.toString();
  }
}
