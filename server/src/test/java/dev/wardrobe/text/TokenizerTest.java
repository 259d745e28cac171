package dev.wardrobe.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenizerTest {

  @TempDir private Path folder;

  private ObjectNode file = Golden.MAPPER.createObjectNode();

  @BeforeEach
  void readOwn() {
    file = Golden.json(Golden.resource("tokenizers/own/tokenizer.json")).deepCopy();
  }

  private Tokenizer load(String json) throws Exception {
    Files.writeString(folder.resolve("tokenizer.json"), json);
    return Tokenizer.load(folder);
  }

  private Tokenizer load(JsonNode json) throws Exception {
    return load(Golden.MAPPER.writeValueAsString(json));
  }

  private void assertRefused(JsonNode json, String... reasons) {
    assertThatThrownBy(() -> load(json).close())
        .isInstanceOf(TextException.class)
        .hasMessageContaining("tokenizer.json")
        .hasMessageContainingAll(reasons);
  }

  private static JsonNode json(String text) {
    try {
      return Golden.MAPPER.readTree(text);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void encode_20000TokensWhole() throws Exception {
    // The model's own configuration says 512.
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      String text = "wardrobe two\nlines, 1 ".repeat(3000);
      int[] ids = tokenizer.encode(text, false);
      assertThat(ids.length).isGreaterThan(20_000);
      assertThat(tokenizer.decode(ids, false)).isEqualTo(text);
      assertThat(tokenizer.encode(text, true)).hasSize(ids.length + 1);
    }
  }

  @Test
  void encode_truncationAndPaddingOfTheFileAreOff() throws Exception {
    file.set(
        "truncation",
        json(
            "{'max_length':2,'strategy':'LongestFirst','stride':0,'direction':'Right'}"
                .replace('\'', '"')));
    file.set(
        "padding",
        json(
            ("{'strategy':{'Fixed':50},'direction':'Right','pad_to_multiple_of':null,'pad_id':0,"
                    + "'pad_type_id':0,'pad_token':'<|pad|>'}")
                .replace('\'', '"')));
    try (Tokenizer tokenizer = load(file);
        Tokenizer own = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      assertThat(tokenizer.encode("one two three four", true))
          .isEqualTo(own.encode("one two three four", true));
    }
  }

  @Test
  void encode_surrogatesAndNul() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      assertThat(tokenizer.decode(tokenizer.encode("a\0b🙂", false), true)).isEqualTo("a\0b🙂");
      assertThat(tokenizer.decode(tokenizer.encode("a\ud83db\ude42", false), true))
          .isEqualTo("a\ufffdb\ufffd");
    }
  }

  @Test
  void encode_tooLong() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      String text = " ".repeat(Tokenizer.MAX_TEXT + 1);
      assertThatThrownBy(() -> tokenizer.encode(text, false))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("4194305");
    }
  }

  @Test
  void decode_unknownIdsAreLeftOut() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      int[] ids = tokenizer.encode("Hi", false);
      int[] more =
          IntStream.concat(IntStream.of(-1, 1024, Integer.MAX_VALUE), IntStream.of(ids)).toArray();
      assertThat(tokenizer.decode(more, true)).isEqualTo("Hi");
    }
  }

  @Test
  void specialTokens_fromConfiguration() throws Exception {
    Files.writeString(
        folder.resolve("tokenizer_config.json"),
        """
        {"bos_token": {"content": "<|bos|>", "lstrip": false}, "eos_token": "<|eos|>",
         "pad_token": null, "add_bos_token": true, "extra_special_tokens": {"image_token": "<i>"}}
        """);
    Files.writeString(
        folder.resolve("special_tokens_map.json"),
        "{\"unk_token\": {\"content\": \"<unk>\"}, \"eos_token\": \"other\"}");
    try (Tokenizer tokenizer = load(file)) {
      assertThat(tokenizer.bosToken()).isEqualTo("<|bos|>");
      assertThat(tokenizer.eosToken()).isEqualTo("<|eos|>");
      assertThat(tokenizer.padToken()).isNull();
      assertThat(tokenizer.unkToken()).isEqualTo("<unk>");
      assertThat(tokenizer.specialTokens()).containsEntry("image_token", "<i>").hasSize(4);
      assertThat(tokenizer.id("<|eos|>")).isEqualTo(2);
      assertThat(tokenizer.id("no such token")).isNull();
      assertThat(tokenizer.vocabularySize()).isEqualTo(1024);
    }
  }

  @Test
  void close_thenEncode() throws Exception {
    Tokenizer tokenizer = load(file);
    tokenizer.close();
    tokenizer.close();
    assertThatThrownBy(() -> tokenizer.encode("x", false))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> tokenizer.decode(new int[] {1}, false))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void load_switchesConnectionsOff() throws Exception {
    Tokenizer.load(Golden.resource("tokenizers/own")).close();
    assertThat(System.getProperty("OPT_OUT_TRACKING")).isEqualTo("true");
    assertThat(System.getProperty("ai.djl.offline")).isEqualTo("true");
  }

  @Test
  void load_missing() {
    assertThatThrownBy(() -> Tokenizer.load(folder))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("tokenizer.json does not exist");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        " ",
        "null",
        "[]",
        "{}",
        "{\"model\": 5}",
        "{\"model\": {}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": 7, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4294967295}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999999999999999}, \"merges\":"
            + " []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 2000000000}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
        "{\"model\": {\"type\": \"Magic\", \"vocab\": {\"a\": 0}}}",
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 3, \"vocab\": [[\"a\", 0]]}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}} {}",
      })
  void load_malformed(String text) {
    assertThatThrownBy(() -> load(text).close())
        .isInstanceOf(TextException.class)
        .hasMessageContaining("tokenizer.json");
  }

  @Test
  void load_truncated() throws Exception {
    String whole = Golden.MAPPER.writeValueAsString(file);
    for (int length = 1; length < whole.length(); length += 997) {
      String part = whole.substring(0, length);
      assertThatThrownBy(() -> load(part).close()).isInstanceOf(TextException.class);
    }
  }

  @Test
  void load_deepJson() {
    for (String field : List.of("normalizer", "other", "model")) {
      String deep = "{\"" + field + "\":" + "[".repeat(100_000) + "]".repeat(100_000) + "}";
      assertThatThrownBy(() -> load(deep).close())
          .isInstanceOf(TextException.class)
          .hasMessageContaining("tokenizer.json");
    }
    String nested = "{\"type\":\"Sequence\",\"normalizers\":[".repeat(90) + "]}".repeat(90);
    assertThatThrownBy(() -> load("{\"normalizer\":" + nested + "}").close())
        .isInstanceOf(TextException.class);
  }

  @Test
  void load_notUtf8() throws Exception {
    Files.write(folder.resolve("tokenizer.json"), new byte[] {'{', (byte) 0xff, '}'});
    assertThatThrownBy(() -> Tokenizer.load(folder))
        .isInstanceOf(TextException.class)
        .hasMessageContaining("UTF-8");
  }

  @Test
  void load_addedTokenWithAnotherId() {
    ((ObjectNode) file.get("added_tokens").get(3)).put("content", "<|new|>").put("id", 7777);
    assertRefused(file, "<|new|>", "7777", "1024");
  }

  /** Each of these ends the process if it reaches the native library. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "normalizer {'type':'Precompiled'}",
        "normalizer {'type':'Prepend','prepend':''}",
        "normalizer {'type':'Sequence','normalizers':[{'type':'Prepend','prepend':''}]}",
        "decoder {'type':'Strip','content':' ','start':1,'stop':3}",
        "pre_tokenizer"
            + " {'type':'Split','pattern':{'Regex':'(a+)+$'},'behavior':'Isolated','invert':false}",
        "pre_tokenizer"
            + " {'type':'Split','pattern':{'Regex':'(a|aa)+$'},'behavior':'Isolated','invert':false}",
        "pre_tokenizer"
            + " {'type':'Split','pattern':{'Regex':'((a?){1,90}){1,90}b'},'behavior':'Isolated','invert':false}",
        "pre_tokenizer"
            + " {'type':'Split','pattern':{'Regex':'(a*)\\\\1b'},'behavior':'Isolated','invert':false}",
        "post_processor {'type':'TemplateProcessing','special_tokens':{},"
            + "'single':[{'SpecialToken':{'id':'x','type_id':0}},{'Sequence':{'id':'A','type_id':0}}],"
            + "'pair':[{'Sequence':{'id':'A','type_id':0}},{'Sequence':{'id':'B','type_id':0}}]}",
      })
  void load_whatEndsTheProcess(String part) {
    int space = part.indexOf(' ');
    file.set(part.substring(0, space), json(part.substring(space).replace('\'', '"')));
    assertRefused(file, part.substring(0, space));
  }

  @Test
  void load_damagedCharsmap() {
    byte[] table = new byte[4 + 1024];
    table[1] = 4; // 1024 bytes of trie
    for (int i = 4; i < table.length; i++) {
      table[i] = (byte) (i * 31);
    }
    ObjectNode normalizer = Golden.MAPPER.createObjectNode();
    normalizer.put("type", "Precompiled");
    for (byte[] bytes : List.of(table, new byte[] {9}, new byte[] {1, 0, 0, 0, 0})) {
      normalizer.put("precompiled_charsmap", Base64.getEncoder().encodeToString(bytes));
      file.set("normalizer", normalizer);
      assertRefused(file, "precompiled_charsmap");
    }
    normalizer.put("precompiled_charsmap", "***");
    assertRefused(file, "precompiled_charsmap");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "(?i:'s|'t|'re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*",
        "[^\\r\\n]?[\\p{Lu}\\p{M}]*[\\p{Ll}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\s*[\\r\\n]+",
        " ?[^(\\s|[.,!?…。，、।۔،])]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[一-龥぀-ゟ゠-ヿ]+",
      })
  void objection_realPatternsPass(String regex) {
    assertThat(RegexShape.objection(regex)).isNull();
    assertThatCode(() -> Pattern.compile(regex)).doesNotThrowAnyException();
  }
}
