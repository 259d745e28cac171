package dev.wardrobe.trainer.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.core.JsonParser;
import dev.wardrobe.text.TextException;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import java.util.zip.GZIPOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class DatasetTest {
  private static final String ROW = "{\"input_ids\":[1,2,3]}";

  @TempDir Path scratch;

  // Files

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void read_linesAndArrays_zippedOrNot(boolean zipped) throws Exception {
    List<String> contents =
        List.of(
            "{\"input_ids\":[1,2]}\n{\"input_ids\":[3,4,5]}\n",
            "{\"input_ids\":[1,2]}\r\n\r\n  {\"input_ids\":[3,4,5]}",
            "\ufeff{\"input_ids\":[1,2]}\n{\"input_ids\":[3,4,5]}",
            "[{\"input_ids\":[1,2]},{\"input_ids\":[3,4,5]}]",
            "\ufeff \n [\n{\"input_ids\": [1,\n2]},\n{\"input_ids\":[3,4,5]}\n] \n");
    String fingerprint = null;
    for (String content : contents) {
      byte[] bytes = content.getBytes(StandardCharsets.UTF_8);
      bytes = zipped ? zip(bytes) : bytes;
      try (Dataset data = read(bytes)) {
        assertThat(data.rows().size()).isEqualTo(2);
        assertThat(data.rows().ids(0)).containsExactly(1, 2);
        assertThat(data.rows().ids(1)).containsExactly(3, 4, 5);
        assertThat(data.summary().digest()).isEqualTo(sha256(bytes));
        fingerprint = fingerprint == null ? data.fingerprint() : fingerprint;
        assertThat(data.fingerprint()).isEqualTo(fingerprint);
      }
    }
  }

  @Test
  void read_severalFiles_oneAfterAnother_eachOfItsFormat() throws Exception {
    Path first = Data.file(scratch, "{\"text\":\"one\"}\n");
    Path second = Data.file(scratch, "[{\"prompt\":\"two\",\"completion\":\" 2\"}]");
    byte[] both =
        (Files.readString(first) + Files.readString(second)).getBytes(StandardCharsets.UTF_8);
    try (ModelText model = Data.model(scratch, "");
        Dataset data = Dataset.read(List.of(first, second), model, Data.options(scratch))) {
      assertThat(data.summary().formats())
          .containsExactly(Map.entry(first, Format.TEXT), Map.entry(second, Format.COMPLETION));
      assertThat(data.summary().digest()).isEqualTo(sha256(both));
      assertThat(Data.shown(data.rows(), 1, model)).isEqualTo("<|bos|>two[ 2<|eos|>]");
      assertThat(data.summary().text()).contains(second + ": completion");
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "MESSAGES|{\"prompt\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"U\"}]}",
        "SHAREGPT|{\"id\":\"7\",\"conversations\":[]}",
        "TOKENS|{\"text\":\"x\",\"input_ids\":[1],\"labels\":[1]}",
        "ALPACA|{\"instruction\":\"i\",\"input\":\"\",\"output\":\"o\",\"text\":\"all\"}",
        "COMPLETION|{\"prompt\":\"p\",\"completion\":\"c\"}",
        "TEXT|{\"text\":\"t\",\"meta\":{\"url\":\"u\"}}",
        "|{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\"}"
      })
  void format_isToldByTheFields(Format expected, String row) throws Exception {
    assertThat(Format.of(Json.row(row.getBytes(StandardCharsets.UTF_8)))).isEqualTo(expected);
  }

  @Test
  void format_declared_isTheOneThatIsRead() throws Exception {
    Path file = Data.file(scratch, "{\"text\":\"t\",\"prompt\":\"p\",\"completion\":\" c\"}");
    try (ModelText model = Data.model(scratch, "");
        Dataset data =
            Dataset.read(List.of(file), model, Data.options(scratch).format(Format.TEXT))) {
      assertThat(Data.shown(data.rows(), 0, model)).isEqualTo("<|bos|>[t<|eos|>]");
      assertThatThrownBy(
              () -> Dataset.read(List.of(file), model, Data.options(scratch).format(Format.ALPACA)))
          .hasMessageContaining("instruction: expected a text, got no such field");
    }
  }

  @Test
  void read_missingFileOrFolder() {
    assertThatThrownBy(() -> read(scratch.resolve("none.jsonl"), false))
        .isInstanceOf(DataException.class)
        .hasMessageContaining("none.jsonl: expected a file of JSON lines, got none");
    assertThatThrownBy(() -> read(scratch, false))
        .isInstanceOf(DataException.class)
        .hasMessageContaining("got something else");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "\n\n", "[]", " [ ] ", "\ufeff"})
  void read_nothing_isAnError(String content) {
    assertThatThrownBy(() -> read(content.getBytes(StandardCharsets.UTF_8)))
        .isInstanceOf(DataException.class)
        .hasMessageContaining("nothing to learn from: 0 rows read");
  }

  // Bad rows

  /** Rows that spoil nothing but themselves, and what is said of each. */
  static final String[][] BAD = {
    {"{\"input_ids\":[1,2,NaN]}", "not valid JSON"},
    {"{\"input_ids\":[1,2,-]}", "not valid JSON"},
    {"{\"input_ids\":[1,2]", "not valid JSON: it ends in the middle"},
    {"{\"input_ids\":[1,2]} {}", "something follows"},
    {"{'input_ids':[1,2]}", "not valid JSON"},
    {"nonsense", "not valid JSON"},
    {"17", "expected a JSON object, got a number"},
    {"[1,2]", "expected a JSON object, got a list"},
    {"null", "expected a JSON object, got null"},
    {"{\"a\":" + "[".repeat(5000) + "]".repeat(5000) + "}", "nesting depth"},
    {"{\"a\":" + "{\"a\":".repeat(5000) + "1" + "}".repeat(5001), "nesting depth"},
    {"{\"input_ids\":[" + "9".repeat(5000) + "]}", "Number value length"},
    {"{\"x\":1e999,\"input_ids\":[1,2]}", "beyond what a double can hold"},
    {"{\"input_ids\":[1,2],\"input_ids\":[1,2]}", "the field 'input_ids' is there twice"},
    {"{\"input_ids\":[1,1024]}", "expected an id below the vocabulary's size 1024, got 1024"},
    {"{\"input_ids\":[-1,1]}", "expected an id below the vocabulary's size 1024, got -1"},
    {"{\"input_ids\":[1,2.5]}", "input_ids[1]: expected a whole number of 32 bits"},
    {"{\"input_ids\":[1,4294967296]}", "input_ids[1]: expected a whole number of 32 bits"},
    {"{\"input_ids\":[1,\"2\"]}", "input_ids[1]: expected a whole number of 32 bits, got a text"},
    {"{\"input_ids\":[1,null]}", "input_ids[1]: expected a whole number of 32 bits, got null"},
    {"{\"input_ids\":\"1 2\"}", "input_ids: expected a list, got a text"},
    {"{\"labels\":[1]}", "input_ids: expected a list, got no such field among [labels]"},
    {"{\"input_ids\":[1,2,3],\"labels\":[1,2]}", "expected as many labels as input_ids, 3, got 2"},
    {"{\"input_ids\":[1,2,3],\"labels\":[2,3,-100]}", "labels are not shifted"},
    {"{\"input_ids\":[1,2,3],\"attention_mask\":[1,1]}", "expected 3 entries"},
    {"{\"input_ids\":[1,2,3],\"attention_mask\":[1,0,1]}", "attention_mask[1]: expected 1"},
    {"{\"input_ids\":[1,2,3],\"attention_mask\":[1,2,1]}", "attention_mask[1]: expected 1"},
  };

  @Test
  void badRow_isNamedByFileAndLine() throws Exception {
    for (String[] bad : BAD) {
      Path file = Data.file(scratch, ROW + "\n\n" + ROW + "\n" + bad[0] + "\n" + ROW);
      assertThatThrownBy(() -> read(file, false))
          .as(bad[0].substring(0, Math.min(80, bad[0].length())))
          .isInstanceOf(DataException.class)
          .hasMessageStartingWith(file + ":4: ")
          .hasMessageContaining(bad[1])
          .hasMessageContaining("--on-bad-row skip")
          .message()
          .hasSizeLessThan(800);
    }
  }

  @Test
  void badRow_skippedIsCounted_andTheRestIsRead() throws Exception {
    List<String> lines = new ArrayList<>(List.of(ROW));
    for (String[] bad : BAD) {
      lines.add(bad[0]);
      lines.add(ROW);
    }
    try (Dataset data = read(Data.file(scratch, String.join("\n", lines)), true)) {
      Summary summary = data.summary();
      assertThat(summary.rows()).isEqualTo(BAD.length + 1);
      assertThat(summary.read()).isEqualTo(2 * BAD.length + 1);
      assertThat(summary.bad().values().stream().mapToLong(Long::longValue).sum())
          .isEqualTo(BAD.length);
      assertThat(summary.bad()).containsEntry("not an object", 3L);
      assertThat(summary.firstBad()).hasSize(5);
      assertThat(summary.firstBad().getFirst()).contains(".jsonl:2: not valid JSON");
      assertThat(summary.text()).contains("3 bad rows: not an object");
    }
  }

  @Test
  void badElement_isNamedByItsIndex() throws Exception {
    Path file =
        Data.file(
            scratch,
            "[" + ROW + ",{\"input_ids\":[5000,{\"x\":[[]]}]}, 7, [[1]," + ROW + "], " + ROW + "]");
    assertThatThrownBy(() -> read(file, false))
        .isInstanceOf(DataException.class)
        .hasMessageStartingWith(file + "[1]: ");
    try (Dataset data = read(file, true)) {
      assertThat(data.rows().size()).isEqualTo(2);
      assertThat(data.summary().bad())
          .containsExactly(
              Map.entry("fields missing or of another kind", 1L), Map.entry("not an object", 2L));
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{\"messages\":\"x\"}|messages: expected a list, got a text",
        "{\"messages\":[]}|expected at least one message",
        "{\"messages\":[1]}|messages[0]: expected an object, got the number 1",
        "{\"messages\":[{\"content\":\"x\"}]}|messages[0]: expected 'role' to be a text, got null",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"weight\":2}]}|expected 0 or 1, got"
            + " 2",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":\"{\"}|tools: expected a"
            + " list of functions, got a text",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[1]}|tools[0]: expected an"
            + " object",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":{}}]}|refused by the chat template",
        "{\"conversations\":[{\"from\":\"alien\",\"value\":\"x\"}]}|got 'alien'",
        "{\"conversations\":[{\"from\":\"gpt\"}]}|conversations[0]: expected texts",
        "{\"conversations\":[{\"from\":\"function_call\",\"value\":\"x\"}]}|function_call to be"
            + " JSON",
        "{\"instruction\":\"x\",\"output\":3}|output: expected a text, got the number 3",
        "{\"instruction\":\"x\",\"output\":\"y\",\"history\":[[\"q\"]]}|pairs of question and"
            + " answer",
        "{\"prompt\":\"x\",\"completion\":[]}|both texts or both lists",
        "{\"text\":null}|text: expected a text, got null",
        "{\"question\":\"x\",\"answer\":\"y\"}|of no format that is known",
      })
  void badRow_saysWhatWasExpected(String row, String expected) throws Exception {
    try (ModelText model = Data.model(scratch, Data.template("chatml"))) {
      Path file = Data.file(scratch, row);
      assertThatThrownBy(() -> Dataset.read(List.of(file), model, Data.options(scratch)))
          .isInstanceOf(DataException.class)
          .hasMessageStartingWith(file + ":1: ")
          .hasMessageContaining(expected);
    }
  }

  @Test
  void noTemplateOrNoTokenizer_saysSo() throws Exception {
    Path chat = Data.file(scratch, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}");
    try (ModelText model = Data.model(scratch, "")) {
      assertThatThrownBy(() -> Dataset.read(List.of(chat), model, Data.options(scratch)))
          .hasMessageContaining("the model has no chat template");
    }
    try (ModelText model = Data.model(scratch, "{% if %}")) {
      assertThatThrownBy(() -> Dataset.read(List.of(chat), model, Data.options(scratch)))
          .hasMessageContaining("the model's chat template cannot be used");
    }
    Path text = Data.file(scratch, "{\"text\":\"x\"}");
    try (ModelText model = Data.plain(scratch)) {
      assertThatThrownBy(() -> Dataset.read(List.of(text), model, Data.options(scratch)))
          .hasMessageContaining("no tokenizer.json; give rows of input_ids");
    }
  }

  @Test
  void invalidUtf8_isABadLine_andTheEndOfAnArray() throws Exception {
    byte[] lines =
        "{\"text\":\"ab\"}\n{\"text\":\"cXd\"}\n{\"text\":\"ef\"}\n"
            .getBytes(StandardCharsets.UTF_8);
    byte[] array = "[{\"text\":\"ab\"},{\"text\":\"cXd\"}]".getBytes(StandardCharsets.UTF_8);
    for (byte[] wrong : new byte[][] {{(byte) 0xff}, {(byte) 0xc0}, {(byte) 0xed}}) {
      try (ModelText model = Data.model(scratch, "")) {
        Path file = Files.write(scratch.resolve("l.jsonl"), with(lines, wrong[0]));
        assertThatThrownBy(() -> Dataset.read(List.of(file), model, Data.options(scratch)))
            .hasMessageStartingWith(file + ":2: not UTF-8");
        try (Dataset data =
            Dataset.read(List.of(file), model, Data.options(scratch).skipBadRows(true))) {
          assertThat(data.rows().size()).isEqualTo(2);
        }
        Path other = Files.write(scratch.resolve("a.json"), with(array, wrong[0]));
        assertThatThrownBy(
                () -> Dataset.read(List.of(other), model, Data.options(scratch).skipBadRows(true)))
            .isInstanceOf(DataException.class)
            .hasMessageContaining("not UTF-8");
      }
    }
  }

  private static byte[] with(byte[] text, byte wrong) {
    byte[] changed = text.clone();
    changed[new String(text, StandardCharsets.ISO_8859_1).indexOf('X')] = wrong;
    return changed;
  }

  @Test
  void loneSurrogates_becomeReplacementCharacters() throws Exception {
    try (ModelText model = Data.model(scratch, Data.template("chatml"));
        Dataset data =
            Dataset.read(
                List.of(
                    Data.file(
                        scratch,
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\ud83d\"},"
                            + "{\"role\":\"assistant\",\"content\":\"\\ude00b\"}]}")),
                model,
                Data.options(scratch))) {
      assertThat(Data.shown(data.rows(), 0, model))
          .contains("user\na\ufffd<|im_end|>")
          .endsWith("assistant\n[\ufffdb<|im_end|>]");
    }
  }

  @Test
  void damagedGzip_isAnErrorEvenWhereRowsMayBeSkipped() throws Exception {
    Random random = new Random(1);
    StringBuilder lines = new StringBuilder();
    for (int i = 0; i < 2000; i++) {
      lines.append("{\"input_ids\":[").append(random.nextInt(1000)).append(",2,3]}\n");
    }
    byte[] zipped = zip(lines.toString().getBytes(StandardCharsets.UTF_8));
    byte[] cut = Arrays.copyOf(zipped, zipped.length / 2);
    byte[] flipped = zipped.clone();
    flipped[zipped.length / 2] ^= 0x55;
    byte[] checksum = zipped.clone();
    checksum[zipped.length - 6] ^= 1;
    byte[] header = Arrays.copyOf(zipped, 5);
    for (byte[] damaged : List.of(cut, flipped, checksum, header)) {
      Path file = Files.write(scratch.resolve("d.jsonl.gz"), damaged);
      assertThatThrownBy(() -> read(file, true))
          .isInstanceOf(DataException.class)
          .hasMessageContaining("d.jsonl.gz");
    }
    Path file = Files.write(scratch.resolve("d.jsonl.gz"), cut);
    assertThatThrownBy(() -> read(file, true)).hasMessageContaining("ends in the middle");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "[{\"input_ids\":[1,2]}|ends in the middle",
        "[{\"input_ids\":[1,2]},{\"input|[1]",
        "[{\"input_ids\":[1,2]},{\"input_ids\":[1,NaN]}]|[1]",
        "[{\"input_ids\":[1,2]}] {}|nothing behind the array's end",
        "[{\"input_ids\":[1,2]},,]|[1]",
        "[{\"input_ids\":[1,2]} {\"input_ids\":[1,2]}]|[1]",
      })
  void brokenArray_isAnErrorEvenWhereRowsMayBeSkipped(String content, String expected)
      throws Exception {
    Path file = Data.file(scratch, content);
    assertThatThrownBy(() -> read(file, true))
        .isInstanceOf(DataException.class)
        .hasMessageStartingWith(file.toString())
        .hasMessageContaining(expected);
  }

  /** Whatever is changed in a file, it is read, or there is an error that names it. */
  @ParameterizedTest
  @ValueSource(strings = {"lines", "array", "gzip"})
  void changedBytes_neverCrash(String kind) throws Exception {
    String chat =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u00e9\"},{\"role\":\"assistant\",\"content\":\"b"
            + " \ud83d\ude42\",\"tool_calls\":null,\"weight\":1}],\"n\":[1,-2.5e3,true]}";
    String content =
        kind.equals("lines")
            ? String.join("\n", chat, chat, chat)
            : "[" + String.join(",", chat, chat, chat) + "]";
    byte[] bytes = content.getBytes(StandardCharsets.UTF_8);
    byte[] original = kind.equals("gzip") ? zip(bytes) : bytes;
    Path file = scratch.resolve("changed");
    int read = 0;
    int refused = 0;
    try (ModelText model = Data.model(scratch, Data.template("hermes"))) {
      for (int seed = 0; seed < 400; seed++) {
        Random random = new Random(seed);
        byte[] changed = Arrays.copyOf(original, original.length - random.nextInt(3));
        for (int i = random.nextInt(4); i >= 0; i--) {
          changed[random.nextInt(changed.length)] = (byte) random.nextInt(256);
        }
        Files.write(file, changed);
        try (Dataset data =
            Dataset.read(List.of(file), model, Data.options(scratch).skipBadRows(seed % 2 == 0))) {
          assertThat(data.rows().size()).as("seed %d", seed).isPositive();
          read++;
        } catch (DataException e) {
          assertThat(e).as("seed %d", seed).message().containsAnyOf("changed", "nothing to learn");
          refused++;
        }
      }
    }
    assertThat(read).isPositive();
    assertThat(refused).isPositive();
  }

  @Test
  void hugeLines_areRefusedWithoutBeingHeld() throws Exception {
    Path file = scratch.resolve("bomb.jsonl.gz");
    try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
      byte[] blanks = new byte[1 << 20];
      Arrays.fill(blanks, (byte) ' ');
      out.write((ROW + "\n{\"text\":\"").getBytes(StandardCharsets.UTF_8));
      for (int i = 0; i < 100; i++) {
        out.write(blanks);
      }
      out.write(("\"}\n" + ROW).getBytes(StandardCharsets.UTF_8));
    }
    assertThatThrownBy(() -> read(file, false))
        .hasMessageStartingWith(file + ":2: too large: a line of more than");
    try (Dataset data = read(file, true)) {
      assertThat(data.rows().size()).isEqualTo(2);
      assertThat(data.summary().bad()).containsExactly(Map.entry("too large", 1L));
    }
  }

  @Test
  void manySmallValues_areRefused() throws Exception {
    byte[] row = ("{\"a\":[" + "[],".repeat(4_200_000) + "[]]}").getBytes(StandardCharsets.UTF_8);
    assertThatThrownBy(() -> Json.row(row)).hasMessageContaining("values");
  }

  @Test
  void manyMessages_areRefused() throws Exception {
    String message = "{\"role\":\"user\",\"content\":\"x\"},";
    Path file =
        Data.file(
            scratch,
            "{\"messages\":["
                + message.repeat(5000)
                + "{\"role\":\"assistant\",\"content\":\"x\"}]}");
    try (ModelText model = Data.model(scratch, Data.template("chatml"))) {
      assertThatThrownBy(() -> Dataset.read(List.of(file), model, Data.options(scratch)))
          .hasMessageContaining("too large: a conversation of");
    }
  }

  // What becomes of them

  @ParameterizedTest
  @ValueSource(ints = {1, 3, 8})
  void threads_changeNothing(int threads) throws Exception {
    StringBuilder lines = new StringBuilder();
    Random random = new Random(3);
    for (int i = 0; i < 1500; i++) {
      lines
          .append("{\"text\":\"")
          .append("word ".repeat(random.nextInt(60)))
          .append(i)
          .append("\"}\n");
      if (i % 100 == 7) {
        lines.append("bad\n");
      }
    }
    Path file = Data.file(scratch, lines.toString());
    try (ModelText model = Data.model(scratch, "");
        Dataset one =
            Dataset.read(List.of(file), model, Data.options(scratch).skipBadRows(true).threads(1));
        Dataset data =
            Dataset.read(
                List.of(file), model, Data.options(scratch).skipBadRows(true).threads(threads))) {
      assertThat(data.fingerprint()).isEqualTo(one.fingerprint());
      assertThat(data.summary()).isEqualTo(one.summary());
      assertThat(data.rows().size()).isEqualTo(1500);
      assertThat(Data.shown(data.rows(), 1499, model)).contains("1499<|eos|>]");
      assertThatThrownBy(
              () -> Dataset.read(List.of(file), model, Data.options(scratch).threads(threads)))
          .hasMessageContaining(":9: not valid JSON");
    }
  }

  @Test
  void rows_areReadAtRandom_acrossStrides() throws Exception {
    Random random = new Random(5);
    List<int[]> expected = new ArrayList<>();
    String[] lines = new String[777];
    for (int i = 0; i < lines.length; i++) {
      int[] ids = random.ints(2 + random.nextInt(30), 0, Data.VOCABULARY).toArray();
      expected.add(ids);
      lines[i] = "{\"input_ids\":" + Arrays.toString(ids) + "}";
    }
    try (Dataset data = Data.tokens(scratch, lines)) {
      for (int i = 0; i < 2000; i++) {
        int row = random.nextInt(lines.length);
        assertThat(data.rows().ids(row)).isEqualTo(expected.get(row));
        assertThat(data.rows().length(row)).isEqualTo(expected.get(row).length);
        assertThat(data.rows().targets(row)).isEqualTo(expected.get(row).length - 1);
      }
    }
  }

  @Test
  void close_leavesNothingBehind() throws Exception {
    Path folder = Files.createDirectory(scratch.resolve("tokens"));
    Path file = Data.file(scratch, ROW);
    try (ModelText model = Data.plain(scratch);
        Dataset data = Dataset.read(List.of(file), model, DataOptions.of(8).scratch(folder))) {
      assertThat(data.rows().ids(0)).containsExactly(1, 2, 3);
      assertThatThrownBy(
              () ->
                  Dataset.read(
                      List.of(Data.file(scratch, "bad")), model, DataOptions.of(8).scratch(folder)))
          .isInstanceOf(DataException.class);
    }
    try (Stream<Path> left = Files.list(folder)) {
      assertThat(left).isEmpty();
    }
  }

  @Test
  void scratchThatIsNotThere_isOneClearError() throws Exception {
    Path file = Data.file(scratch, ROW);
    try (ModelText model = Data.plain(scratch)) {
      assertThatThrownBy(
              () ->
                  Dataset.read(
                      List.of(file), model, DataOptions.of(8).scratch(scratch.resolve("nowhere"))))
          .isInstanceOf(DataException.class)
          .hasMessageContaining("nowhere")
          .hasMessageContaining("name another folder");
    }
  }

  @Test
  void fingerprint_dependsOnTokensMasksAndWhereRowsEnd() throws Exception {
    List<String> fingerprints = new ArrayList<>();
    for (String rows :
        List.of(
            "{\"input_ids\":[1,2,3,4]}",
            "{\"input_ids\":[1,2,3,5]}",
            "{\"input_ids\":[1,2,3,4],\"labels\":[-100,-100,3,4]}",
            "{\"input_ids\":[1,2]}\n{\"input_ids\":[3,4],\"labels\":[-100,4]}")) {
      try (Dataset data = Data.tokens(scratch, rows)) {
        fingerprints.add(data.fingerprint());
      }
    }
    assertThat(fingerprints).doesNotHaveDuplicates();
  }

  // Splits

  @Test
  void split_bySeed_partsTheRows() throws Exception {
    String[] lines = new String[100];
    Arrays.setAll(lines, i -> "{\"input_ids\":[" + i + ",1]}");
    try (Dataset data = Data.tokens(scratch, lines)) {
      Dataset.Split split = data.split(1, 0.1);
      assertThat(split.validation().size()).isEqualTo(10);
      assertThat(split.training().size()).isEqualTo(90);
      List<Integer> validation = firsts(split.validation());
      List<Integer> training = firsts(split.training());
      assertThat(validation).isSorted().doesNotContainAnyElementsOf(training);
      assertThat(training).isSorted();
      assertThat(firsts(data.split(1, 10).validation())).isEqualTo(validation);
      assertThat(firsts(data.split(2, 10).validation())).isNotEqualTo(validation);
      assertThat(data.split(1, 0).validation()).isNull();
      assertThat(data.split(1, 0).training().size()).isEqualTo(100);
      assertThat(data.split(1, 0.001).validation().size()).isEqualTo(1);
      assertThatThrownBy(() -> data.split(1, 100))
          .isInstanceOf(DataException.class)
          .hasMessageContaining("100 rows are to be set apart");
      assertThatThrownBy(() -> data.split(1, 1.5)).isInstanceOf(DataException.class);
      assertThatThrownBy(() -> data.split(1, Double.NaN)).isInstanceOf(DataException.class);
      Batches evaluation = Batches.evaluation(split.validation(), 4);
      assertThat(evaluation.stepsPerEpoch()).isEqualTo(3);
      List<Integer> seen = new ArrayList<>();
      for (int step = 0; step < 3; step++) {
        MicroBatch batch = evaluation.step(step).getFirst();
        for (int s = 0; s < batch.sequences(); s++) {
          seen.add(batch.tokens()[batch.starts()[s]]);
        }
      }
      assertThat(seen).isEqualTo(validation);
    }
  }

  private static List<Integer> firsts(Rows rows) {
    List<Integer> firsts = new ArrayList<>();
    for (int row = 0; row < rows.size(); row++) {
      firsts.add(rows.ids(row)[0]);
    }
    return firsts;
  }

  // Memory

  @Test
  void read_largeFile_underASmallHeap() throws Exception {
    Path file = scratch.resolve("large.jsonl.gz");
    StringBuilder ids = new StringBuilder("{\"input_ids\":[1");
    for (int i = 1; i < 2048; i++) {
      ids.append(',').append(i % Data.VOCABULARY);
    }
    byte[] row = ids.append("]}\n").toString().getBytes(StandardCharsets.UTF_8);
    int rows = 8_000;
    try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
      for (int i = 0; i < rows; i++) {
        out.write(row);
      }
    }
    // As much text as tokens, either of which is more than the heap.
    assertThat((long) rows * row.length).isGreaterThan(60_000_000);
    assertThat(
            inProcess(
                List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    "-Xmx40m",
                    "-XX:+UseSerialGC",
                    "-cp",
                    classPath(),
                    Reading.class.getName(),
                    scratch.toString(),
                    file.toString())))
        .contains("rows " + rows + " tokens " + rows * 2048L);
  }

  @Test
  void fullDisk_isOneClearError() throws Exception {
    assumeTrue(Files.isExecutable(Path.of("/bin/sh")), "needs a shell that can limit files");
    StringBuilder lines = new StringBuilder();
    for (int i = 0; i < 20_000; i++) {
      lines.append("{\"input_ids\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}\n");
    }
    String said =
        inProcess(
            List.of(
                "/bin/sh",
                "-c",
                // A file's largest size, 1,024 blocks of 512 or 1,024 bytes.
                "ulimit -f 1024; exec \"$0\" \"$@\"",
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:-UsePerfData",
                "-cp",
                classPath(),
                Reading.class.getName(),
                scratch.toString(),
                Data.file(scratch, lines.toString()).toString()));
    assertThat(said)
        .contains("DataException")
        .contains("the file of tokens cannot be written")
        .doesNotContain("rows 20000");
  }

  private static String inProcess(List<String> command) throws Exception {
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    process.waitFor();
    return said;
  }

  /** Where the classes that {@link Reading} needs come from, whatever loaded them. */
  private static String classPath() throws Exception {
    List<String> places = new ArrayList<>();
    for (Class<?> of :
        List.of(Reading.class, Dataset.class, TextException.class, JsonParser.class)) {
      places.add(
          Path.of(of.getProtectionDomain().getCodeSource().getLocation().toURI()).toString());
    }
    return String.join(File.pathSeparator, places);
  }

  /** Reads a file in a process of its own. */
  static final class Reading {
    private Reading() {}

    public static void main(String[] arguments) throws Exception {
      Path folder = Path.of(arguments[0]);
      try (ModelText model = Data.plain(folder);
          Dataset data =
              Dataset.read(
                  List.of(Path.of(arguments[1])), model, Data.options(folder).threads(2))) {
        Batches batches = new Batches(data.rows(), BatchOptions.of(4, 1), 1);
        for (long step = 0; step < batches.stepsPerEpoch(); step++) {
          batches.step(step);
        }
        System.out.println("rows " + data.rows().size() + " tokens " + data.rows().tokens());
      }
    }
  }

  private Dataset read(byte[] bytes) throws Exception {
    return read(Files.write(Files.createTempFile(scratch, "rows", ".data"), bytes), false);
  }

  private Dataset read(Path file, boolean skip) throws Exception {
    try (ModelText model = Data.plain(scratch)) {
      return Dataset.read(List.of(file), model, Data.options(scratch).skipBadRows(skip));
    }
  }

  private static byte[] zip(byte[] bytes) throws Exception {
    ByteArrayOutputStream zipped = new ByteArrayOutputStream();
    try (OutputStream out = new GZIPOutputStream(zipped)) {
      out.write(bytes);
    }
    return zipped.toByteArray();
  }

  private static String sha256(byte[] bytes) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
  }
}
