package dev.wardrobe.grammar;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.TokenBytes;
import dev.wardrobe.text.TokenStream;
import dev.wardrobe.text.Tokenizer;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Masks over the vocabularies of real tokenizers, and what their tokens' bytes are. */
final class TokenizersTest {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private static final String SCHEMA =
      "{'type':'object','properties':{'name':{'type':'string','maxLength':30},'tags':{'type':"
          + "'array','items':{'type':'string'},'maxItems':3},'n':{'type':'number'}},'required':"
          + "['name','tags'],'additionalProperties':false}";

  private static final List<String> DOCUMENTS =
      List.of(
          "{\"name\": \"Zoë Müller\", \"tags\": [\"日本語\", \"😀 ok\"], \"n\": -12.5e3}",
          "{\n  \"name\": \"\\u00e9\\n  x\",\n  \"tags\": []\n}",
          "{\"name\":\"a  b\",\"tags\":[\"\"]}");

  @TempDir private Path folder;

  private Tokenizer tokenizer(String name) throws Exception {
    if (name.equals("own")) {
      return Tokenizer.load(
          Path.of(
              Objects.requireNonNull(TokenizersTest.class.getResource("/golden/tokenizers/own"))
                  .toURI()));
    }
    Path packed = ReferenceFolder.require("golden/tokenizers/real/" + name + ".tokenizer.json.gz");
    try (InputStream in = new GZIPInputStream(Files.newInputStream(packed))) {
      Files.copy(in, folder.resolve("tokenizer.json"));
    }
    return Tokenizer.load(folder);
  }

  /** What a caller is given for these ids, token by token. */
  private static String streamed(Tokenizer tokenizer, List<Integer> ids) {
    TokenStream stream = tokenizer.stream();
    StringBuilder text = new StringBuilder();
    ids.forEach(id -> text.append(stream.next(id)));
    return text.append(stream.flush()).toString();
  }

  @ParameterizedTest
  @ValueSource(strings = {"own", "llama2", "llama3_1", "qwen3"})
  void bytes_areThoseOfTheText(String name) throws Exception {
    try (Tokenizer tokenizer = tokenizer(name)) {
      TokenBytes bytes = tokenizer.tokenBytes();
      Random random = new Random(1);
      for (int i = 0; i < 3_000; i++) {
        int length = 1 + random.nextInt(6);
        ByteArrayOutputStream joined = new ByteArrayOutputStream();
        List<Integer> ids = new java.util.ArrayList<>();
        while (ids.size() < length) {
          int id = random.nextInt(bytes.size());
          byte[] own = ids.isEmpty() ? bytes.first(id) : bytes.of(id);
          if (own != null) {
            ids.add(id);
            joined.writeBytes(own);
          }
        }
        String text = joined.toString(StandardCharsets.UTF_8);
        if (text.indexOf('\ufffd') < 0) {
          assertThat(streamed(tokenizer, ids)).as("seed 1, %s", ids).isEqualTo(text);
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"own", "llama2", "llama3_1", "qwen3"})
  void documents_arePossibleAsTheyAreTokenized(String name) throws Exception {
    try (Tokenizer tokenizer = tokenizer(name)) {
      TokenTable tokens = new TokenTable(tokenizer.tokenBytes(), tokenizer.vocabularySize() + 37);
      Grammar grammar = Vocabularies.schema(SCHEMA, tokens);
      for (String document : DOCUMENTS) {
        Cursor cursor = grammar.cursor(new int[0]);
        for (int id : tokenizer.encode(document, false)) {
          long[] mask = Vocabularies.mask(cursor);
          assertThat(mask[id >> 6] >> id & 1).as("%s in %s", id, document).isEqualTo(1);
          cursor.accept(id);
        }
        assertThat(cursor.isLast()).as(document).isTrue();
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"own", "llama2", "llama3_1", "qwen3"})
  void walks_giveWhatTheSchemaAllows(String name) throws Exception {
    try (Tokenizer tokenizer = tokenizer(name)) {
      TokenTable tokens = new TokenTable(tokenizer.tokenBytes(), tokenizer.vocabularySize() + 37);
      Grammar grammar = Vocabularies.schema(SCHEMA, tokens);
      int whole = 0;
      for (int seed = 0; seed < 40; seed++) {
        Random random = new Random(seed);
        Cursor cursor = grammar.cursor(new int[0]);
        List<Integer> ids = new java.util.ArrayList<>();
        while (!cursor.isLast() && ids.size() < 150) {
          long[] mask = Vocabularies.mask(cursor);
          int count = 0;
          for (long word : mask) {
            count += Long.bitCount(word);
          }
          int id = Vocabularies.nth(mask, random.nextInt(count));
          ids.add(id);
          cursor.accept(id);
        }
        if (cursor.isLast()) {
          whole++;
          String text = streamed(tokenizer, ids);
          JsonNode document = MAPPER.readTree(text);
          String given = document.path("name").asText();
          assertThat(given.codePointCount(0, given.length())).as(text).isLessThanOrEqualTo(30);
          assertThat(document.path("tags").isArray()).as(text).isTrue();
        }
      }
      assertThat(whole).isGreaterThan(5);
    }
  }

  @Test
  void blankAtTheStart_isNotPartOfTheText() throws Exception {
    try (Tokenizer tokenizer = tokenizer("llama2")) {
      TokenTable tokens = new TokenTable(tokenizer.tokenBytes(), tokenizer.vocabularySize());
      int yes = Objects.requireNonNull(tokenizer.id("▁yes"));
      Cursor plain = Vocabularies.regex("yes", tokens).cursor(new int[0]);
      assertThat(Vocabularies.mask(plain)[yes >> 6] >> yes & 1).isEqualTo(1);
      plain.accept(yes);
      assertThat(plain.isLast()).isTrue();
      Cursor twice = Vocabularies.regex("yes yes", tokens).cursor(new int[0]);
      twice.accept(yes);
      Vocabularies.mask(twice);
      twice.accept(yes);
      assertThat(twice.isLast()).isTrue();
      assertThat(streamed(tokenizer, List.of(yes, yes))).isEqualTo("yes yes");
    }
  }

  @Test
  void decoderThatDoesMore_isRefused() throws Exception {
    JsonNode file;
    try (InputStream in =
        TokenizersTest.class.getResourceAsStream("/golden/tokenizers/own/tokenizer.json")) {
      file = MAPPER.readTree(Objects.requireNonNull(in));
    }
    ((com.fasterxml.jackson.databind.node.ObjectNode) file)
        .set(
            "decoder",
            MAPPER.readTree("{\"type\":\"WordPiece\",\"prefix\":\"#\",\"cleanup\":true}"));
    Files.writeString(folder.resolve("tokenizer.json"), file.toString());
    try (Tokenizer tokenizer = Tokenizer.load(folder)) {
      org.assertj.core.api.Assertions.assertThatThrownBy(tokenizer::tokenBytes)
          .isInstanceOf(TextException.class)
          .hasMessageContaining("WordPiece");
    }
  }
}
