package dev.wardrobe.trainer.data;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.text.Tokenizer;
import dev.wardrobe.trainer.Golden;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Masks with the tokenizers of real models, which count characters each in their own way. */
class RealTokenizerTest {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private static final List<String> PROMPTS =
      List.of("Q:", "Question: what?\nAnswer:", "über 🙂:", "[INST] a [/INST]", "x\n\n###\n");

  private static final List<String> COMPLETIONS =
      List.of(
          " yes",
          " 42 apples",
          " über 🙂",
          " \t tabs",
          " a\n\nb\n",
          " 👩‍👩‍👧",
          " é",
          " the end.");

  @TempDir Path scratch;

  @ParameterizedTest
  @CsvSource({"llama2, </s>", "llama3_1, <|eot_id|>", "qwen3, <|im_end|>"})
  void completion_isLearnedFromItsFirstToken(String name, String end) throws Exception {
    Path zipped = Golden.shared("golden/tokenizers/real/" + name + ".tokenizer.json.gz");
    Path directory = Files.createTempDirectory(scratch, name);
    try (InputStream in = new GZIPInputStream(Files.newInputStream(zipped))) {
      Files.copy(in, directory.resolve("tokenizer.json"));
    }
    Files.writeString(
        directory.resolve("tokenizer_config.json"),
        MAPPER.writeValueAsString(Map.of("eos_token", end)));
    List<String> lines = new ArrayList<>();
    for (String prompt : PROMPTS) {
      for (String completion : COMPLETIONS) {
        lines.add(MAPPER.writeValueAsString(Map.of("prompt", prompt, "completion", completion)));
      }
    }
    try (ModelText model = ModelText.read(directory, 200_000, List.of());
        Dataset data =
            Dataset.read(
                List.of(Data.file(scratch, String.join("\n", lines))),
                model,
                Data.options(scratch))) {
      Tokenizer tokenizer = model.tokenizer();
      assertThat(data.summary().notes()).isEmpty();
      int row = 0;
      for (String prompt : PROMPTS) {
        int[] served = tokenizer.encode(prompt, true);
        for (String completion : COMPLETIONS) {
          String what = prompt + completion;
          int[] ids = data.rows().ids(row);
          boolean[] learned = data.rows().learned(row);
          assertThat(ids).as(what).startsWith(served);
          for (int i = 0; i < ids.length; i++) {
            assertThat(learned[i]).as("%s, token %d", what, i).isEqualTo(i >= served.length);
          }
          assertThat(ids[ids.length - 1]).as(what).isEqualTo(tokenizer.id(end));
          String said =
              tokenizer.decode(Arrays.copyOfRange(ids, served.length, ids.length - 1), false);
          // Some tokenizers leave a text's first blank out.
          assertThat(said).as(what).isIn(completion, completion.substring(1));
          row++;
        }
      }
    }
  }
}
