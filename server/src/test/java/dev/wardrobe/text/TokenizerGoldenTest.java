package dev.wardrobe.text;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.safetensors.ReferenceFolder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Ids, texts and increments that the tokenizers library gave for the reference data. */
class TokenizerGoldenTest {

  @Test
  void ownTokenizer() throws Exception {
    check(Golden.resource("tokenizers/own.json"), Golden.resource("tokenizers/own"));
  }

  @Test
  void smollm2() throws Exception {
    check(
        ReferenceFolder.require("golden/tokenizers/smollm2.json"),
        ReferenceFolder.require("models/smollm2-135m-instruct-nf4"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"llama2", "llama3_1", "qwen3"})
  void realTokenizer(String name, @TempDir Path folder) throws Exception {
    Path packed = ReferenceFolder.require("golden/tokenizers/real/" + name + ".tokenizer.json.gz");
    Golden.unpack(packed, folder.resolve("tokenizer.json"));
    check(ReferenceFolder.require("golden/tokenizers/" + name + ".json"), folder);
  }

  private static void check(Path cases, Path model) throws Exception {
    JsonNode golden = Golden.json(cases);
    try (Tokenizer tokenizer = Tokenizer.load(model)) {
      assertThat(tokenizer.vocabularySize()).isEqualTo(golden.get("vocab_size").intValue());
      assertThat(golden.get("cases")).hasSizeGreaterThanOrEqualTo(300);
      for (JsonNode testCase : golden.get("cases")) {
        checkText(tokenizer, testCase);
      }
      for (JsonNode testCase : golden.get("random_ids")) {
        int[] ids = Golden.ints(testCase.get("ids"));
        assertThat(tokenizer.decode(ids, true)).isEqualTo(testCase.get("decoded").textValue());
        checkStream(tokenizer, ids, testCase);
      }
    }
  }

  private static void checkText(Tokenizer tokenizer, JsonNode testCase) {
    String text = testCase.get("text").textValue();
    int[] ids = Golden.ints(testCase.get("ids"));
    assertThat(tokenizer.encode(text, false)).as(text).isEqualTo(ids);
    int[] withSpecial =
        testCase.has("ids_with_special") ? Golden.ints(testCase.get("ids_with_special")) : ids;
    assertThat(tokenizer.encode(text, true)).as(text).isEqualTo(withSpecial);
    String decoded =
        testCase.get("decoded").isTextual() ? testCase.get("decoded").textValue() : text;
    assertThat(tokenizer.decode(ids, false)).isEqualTo(decoded);
    String skipped =
        testCase.has("decoded_skip_special")
            ? testCase.get("decoded_skip_special").textValue()
            : decoded;
    assertThat(tokenizer.decode(ids, true)).isEqualTo(skipped);
    if (testCase.has("increments")) {
      checkStream(tokenizer, ids, testCase);
    }
  }

  private static void checkStream(Tokenizer tokenizer, int[] ids, JsonNode testCase) {
    TokenStream stream = tokenizer.stream();
    List<String> increments = new ArrayList<>();
    for (int id : ids) {
      increments.add(stream.next(id));
    }
    List<String> expected = new ArrayList<>();
    testCase.get("increments").forEach(increment -> expected.add(increment.textValue()));
    assertThat(increments).as(testCase.toString()).isEqualTo(expected);
    if (!testCase.get("flush").isNull()) {
      String flush = testCase.get("flush").textValue();
      assertThat(stream.flush()).as(testCase.toString()).isEqualTo(flush);
    }
  }
}
