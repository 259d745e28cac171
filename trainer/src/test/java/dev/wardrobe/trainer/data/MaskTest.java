package dev.wardrobe.trainer.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.text.ChatRequest;
import dev.wardrobe.trainer.Golden;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What is learned of a conversation or a text. */
class MaskTest {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  /** As many models have it: no generation tags, and a line break behind the end of a turn. */
  private static final String CHATML =
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n"
          + "' + m.content + '<|im_end|>' + '\n"
          + "' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
          + "' }}{% endif %}";

  private static final String TWO_TURNS =
      "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"U\"},"
          + "{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"V\"},"
          + "{\"role\":\"assistant\",\"content\":\"B\"}]}";

  @TempDir Path scratch;

  @Test
  void assistantMasks_ofTheReference() throws Exception {
    JsonNode golden = MAPPER.readTree(Data.golden("chat/cases.json").toFile());
    int checked = 0;
    for (JsonNode testCase : golden.get("assistant_masks")) {
      JsonNode conversation =
          golden.get("conversations").get(testCase.get("conversation").textValue());
      List<Integer> ids = new ArrayList<>();
      testCase.get("input_ids").forEach(id -> ids.add(id.intValue()));
      List<Boolean> mask = new ArrayList<>();
      testCase.get("assistant_masks").forEach(flag -> mask.add(flag.intValue() == 1));
      if (!mask.contains(true)) {
        continue;
      }
      // What follows the last answer is left out.
      int end = mask.lastIndexOf(true) + 1;
      try (ModelText model =
              Data.model(scratch, Data.template(testCase.get("template").textValue()));
          Dataset data = read(model, "{\"messages\":" + conversation + "}")) {
        assertThat(data.rows().ids(0))
            .as(conversation.toString())
            .isEqualTo(ids.subList(0, end).stream().mapToInt(Integer::intValue).toArray());
        List<Boolean> learned = new ArrayList<>();
        for (boolean flag : data.rows().learned(0)) {
          learned.add(flag);
        }
        assertThat(learned).as(conversation.toString()).isEqualTo(mask.subList(0, end));
      }
      checked++;
    }
    assertThat(checked).isEqualTo(7);
  }

  @Test
  void withoutTags_likeWithThem() throws Exception {
    String tagged = Data.template("chatml");
    String bare = tagged.replaceAll("\\{%-? (end)?generation %}", "");
    assertThat(bare).doesNotContain("generation %}");
    JsonNode golden = MAPPER.readTree(Data.golden("chat/cases.json").toFile());
    int checked = 0;
    for (var conversation : golden.get("conversations").properties()) {
      if (conversation.getKey().equals("assistant_first")) {
        continue;
      }
      String row = "{\"messages\":" + conversation.getValue() + "}";
      try (ModelText with = Data.model(scratch, tagged);
          ModelText without = Data.model(scratch, bare)) {
        Dataset expected;
        try {
          expected = read(with, row);
        } catch (DataException e) {
          assertThatThrownBy(() -> read(without, row)).isInstanceOf(DataException.class);
          continue;
        }
        try (Dataset actual = read(without, row)) {
          assertThat(actual.rows().ids(0)).isEqualTo(expected.rows().ids(0));
          assertThat(actual.rows().learned(0))
              .as(conversation.getKey())
              .isEqualTo(expected.rows().learned(0));
        }
        expected.close();
        checked++;
      }
    }
    assertThat(checked).isGreaterThan(10);
  }

  @Test
  void everyAnswer_withItsEnd() throws Exception {
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data = read(model, TWO_TURNS)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(
              "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                  + "<|im_start|>assistant\n[A<|im_end|>]\n<|im_start|>user\nV<|im_end|>\n"
                  + "<|im_start|>assistant\n[B<|im_end|>]");
      assertThat(data.summary().notes()).isEmpty();
      assertThat(data.summary().exampleText())
          .isEqualTo(
              Data.shown(data.rows(), 0, model).replace("[", "\u27e6").replace("]", "\u27e7"));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"chatml", "headers", "hermes", "inst", "macros"})
  void beforeAnAnswer_areServingsTokens(String name) throws Exception {
    checkAgainstServing(Data.template(name));
  }

  @ParameterizedTest
  @ValueSource(strings = {"deepseek_v3", "gemma3", "llama3_1", "qwen3", "smollm2"})
  void beforeAnAnswer_areServingsTokens_ofRealTemplates(String name) throws Exception {
    checkAgainstServing(Files.readString(Golden.shared("golden/chat/real/" + name + ".jinja")));
  }

  /** The tokens before an answer are what the server makes of the same request. */
  private void checkAgainstServing(String template) throws Exception {
    JsonNode golden = MAPPER.readTree(Data.golden("chat/cases.json").toFile());
    Clock clock =
        Clock.fixed(
            LocalDate.of(2026, 5, 4).atStartOfDay().toInstant(ZoneOffset.UTC), ZoneOffset.UTC);
    int checked = 0;
    try (ModelText model = Data.model(scratch, template)) {
      for (var conversation : golden.get("conversations").properties()) {
        List<Map<String, @Nullable Object>> messages =
            MAPPER.convertValue(conversation.getValue(), new TypeReference<>() {});
        int last = messages.size() - 1;
        while (last > 0 && !"assistant".equals(messages.get(last).get("role"))) {
          last--;
        }
        if (last <= 0) {
          continue;
        }
        try (Dataset data =
            Dataset.read(
                List.of(Data.file(scratch, "{\"messages\":" + conversation.getValue() + "}")),
                model,
                Data.options(scratch).clock(clock))) {
          Rows rows = data.rows();
          int row = rows.size() - 1;
          boolean[] learned = rows.learned(row);
          int first = learned.length;
          while (learned[first - 1]) {
            first--;
          }
          int[] served =
              model
                  .tokenizer()
                  .encode(
                      model
                          .template()
                          .render(
                              new ChatRequest(
                                  messages.subList(0, last),
                                  null,
                                  null,
                                  true,
                                  false,
                                  Map.of(),
                                  clock)),
                      false);
          assertThat(rows.ids(row)).as(conversation.getKey()).startsWith(served);
          assertThat(first).as(conversation.getKey()).isEqualTo(served.length);
          checked++;
        } catch (DataException e) {
          assertThat(e)
              .message()
              .containsAnyOf("refused by the chat template", "otherwise once it is answered");
        }
      }
    }
    assertThat(checked).isGreaterThan(4);
  }

  @Test
  void answersThatChangeOnceOthersFollow_aRowEach() throws Exception {
    try (ModelText model = Data.model(scratch, Data.template("hermes"));
        Dataset data = read(model, TWO_TURNS)) {
      String think = "<think>\n\n</think>\n\n";
      String system = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n";
      assertThat(data.rows().size()).isEqualTo(2);
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(system + "<|im_start|>assistant\n[" + think + "A<|im_end|>]");
      assertThat(Data.shown(data.rows(), 1, model))
          .isEqualTo(
              system
                  + "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n"
                  + "<|im_start|>assistant\n["
                  + think
                  + "B<|im_end|>]");
      assertThat(data.summary().read()).isEqualTo(1);
      assertThat(data.summary().notes()).containsOnlyKeys(Note.SPLIT.text());
    }
  }

  @Test
  void templateVariables_reachTheTemplate() throws Exception {
    try (ModelText model = Data.model(scratch, Data.template("hermes"));
        Dataset data =
            Dataset.read(
                List.of(Data.file(scratch, TWO_TURNS)),
                model,
                Data.options(scratch).templateVariables(Map.of("enable_thinking", false)))) {
      assertThat(Data.shown(data.rows(), 1, model))
          .endsWith("<|im_start|>assistant\n<think>\n\n</think>\n\n[B<|im_end|>]");
    }
  }

  @Test
  void templateThatDropsTheSystemsMessage_isOneClearError() throws Exception {
    try (ModelText model = Data.model(scratch, Data.template("inst"))) {
      assertThatThrownBy(() -> read(model, TWO_TURNS))
          .isInstanceOf(DataException.class)
          .hasMessageContaining(".jsonl:1: ")
          .hasMessageContaining("{% generation %}")
          .hasMessageContaining("--loss all");
    }
  }

  @Test
  void templateWithoutEnd_endsWithEos() throws Exception {
    String bare =
        "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
            + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";
    try (ModelText model = Data.model(scratch, bare);
        Dataset data = read(model, TWO_TURNS)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo("<|bos|>system: S\nuser: U\nassistant:[ A\n]user: V\nassistant:[ B\n<|eos|>]");
      assertThat(data.summary().notes()).containsOnlyKeys(Note.ENDED.text());
    }
    try (ModelText model = Data.model(scratch, bare, List.of(4));
        Dataset data = read(model, TWO_TURNS)) {
      // The server stops at this one alone.
      assertThat(Data.shown(data.rows(), 0, model)).endsWith("[ B\n<|im_end|>]");
    }
  }

  @Test
  void openingThatAnswersDoNotHave_isLearnedWithThem() throws Exception {
    String thinking =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}"
            + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}"
            + "{% endif %}";
    try (ModelText model = Data.model(scratch, thinking);
        Dataset data = read(model, TWO_TURNS)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .endsWith("V<|im_end|>[<|im_start|>assistant\nB<|im_end|>]");
      assertThat(data.summary().notes()).containsOnlyKeys(Note.OPENING.text());
    }
  }

  @Test
  void endOutsideTheTags_isLearnedToo() throws Exception {
    String outside =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n"
            + "' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration"
            + " %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n"
            + "' }}{% endfor %}";
    // The last character has several tokens.
    String row = TWO_TURNS.replace("\"content\":\"B\"", "\"content\":\"B \ud83d\ude42\"");
    try (ModelText model = Data.model(scratch, outside);
        Dataset data = read(model, row)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .contains("assistant\n[A<|im_end|>]\n")
          .endsWith("assistant\n[B \ud83d\ude42<|im_end|>]");
    }
  }

  @Test
  void textThatLooksLikeAMarker_changesNothing() throws Exception {
    String row =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"<|im_start|>assistant\\nno<|im_end|>\"},"
            + "{\"role\":\"assistant\",\"content\":\"yes <|im_start|>user\"}]}";
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data = read(model, row)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(
              "<|im_start|>user\n<|im_start|>assistant\nno<|im_end|><|im_end|>\n"
                  + "<|im_start|>assistant\n[yes <|im_start|>user<|im_end|>]");
    }
  }

  @Test
  void toolCalls_areLearned_theirResultsAreNot() throws Exception {
    JsonNode golden = MAPPER.readTree(Data.golden("chat/cases.json").toFile());
    String row =
        "{\"messages\":"
            + golden.get("conversations").get("tool_call")
            + ",\"tools\":"
            + golden.get("TOOLS")
            + "}";
    String quoted =
        "{\"messages\":"
            + golden.get("conversations").get("tool_call")
            + ",\"tools\":"
            + MAPPER.writeValueAsString(golden.get("TOOLS").toString())
            + "}";
    try (ModelText model = Data.model(scratch, Data.template("hermes"));
        Dataset data = read(model, row);
        Dataset same = read(model, quoted)) {
      String last = Data.shown(data.rows(), data.rows().size() - 1, model);
      assertThat(last)
          .contains("# Tools")
          .contains("<tool_call>\n{\"name\": \"get_weather\"")
          .doesNotContain("[<tool_response>")
          .endsWith("21.5 \u00b0C<|im_end|>]");
      assertThat(Data.shown(data.rows(), 0, model))
          .endsWith("\"days\": 2}}\n</tool_call><|im_end|>]");
      assertThat(same.fingerprint()).isEqualTo(data.fingerprint());
    }
  }

  @Test
  void weights_chooseAnswers() throws Exception {
    String row = TWO_TURNS.replace("\"content\":\"A\"", "\"content\":\"A\",\"weight\":0");
    try (ModelText model = Data.model(scratch, Data.template("chatml"));
        Dataset data = read(model, row)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .contains("assistant\nA<|im_end|>\n")
          .endsWith("assistant\n[B<|im_end|>]");
    }
  }

  @Test
  void greeting_isNotLearned() throws Exception {
    String row =
        "{\"conversations\":[{\"from\":\"gpt\",\"value\":\"Hello\"},{\"from\":\"human\","
            + "\"value\":\"U\"},{\"from\":\"gpt\",\"value\":\"A\"}]}";
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data = read(model, row)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(
              "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                  + "<|im_start|>assistant\n[A<|im_end|>]");
      assertThat(data.summary().notes()).containsOnlyKeys(Note.GREETING.text());
    }
  }

  @Test
  void all_learnsEverythingButTheFirst() throws Exception {
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data =
            Dataset.read(
                List.of(Data.file(scratch, TWO_TURNS)),
                model,
                Data.options(scratch).loss(Loss.ALL))) {
      assertThat(Data.shown(data.rows(), 0, model))
          .startsWith("<|im_start|>[system\n")
          .endsWith("B<|im_end|>\n]");
    }
  }

  @Test
  void completion_endsAndBeginsOnce() throws Exception {
    try (ModelText model = Data.model(scratch, "");
        Dataset data =
            read(
                model,
                "{\"prompt\":\"Q:\",\"completion\":\" yes\"}",
                "{\"prompt\":\"Q:\",\"completion\":\" yes<|eos|>\"}",
                "{\"prompt\":\"<|bos|>Q:\",\"completion\":\" yes\"}",
                "{\"prompt\":\"\",\"completion\":\"yes\"}")) {
      for (int row = 0; row < 3; row++) {
        assertThat(Data.shown(data.rows(), row, model)).isEqualTo("<|bos|>Q:[ yes<|eos|>]");
      }
      assertThat(Data.shown(data.rows(), 3, model)).isEqualTo("<|bos|>[yes<|eos|>]");
      assertThat(data.summary().notes()).containsExactly(Map.entry(Note.BEGINNING.text(), 1L));
    }
  }

  @Test
  void completion_blankAtThePromptsEnd_isNoted() throws Exception {
    try (ModelText model = Data.model(scratch, "");
        Dataset data = read(model, "{\"prompt\":\"say \",\"completion\":\"the\"}")) {
      assertThat(data.summary().notes()).containsOnlyKeys(Note.STRADDLING.text());
      assertThat(Data.shown(data.rows(), 0, model)).isEqualTo("<|bos|>say[ the<|eos|>]");
    }
  }

  @Test
  void completion_ofMessages() throws Exception {
    String row =
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"U\"},{\"role\":\"assistant\",\"content\":\"A\"},"
            + "{\"role\":\"user\",\"content\":\"V\"}],\"completion\":[{\"role\":\"assistant\","
            + "\"content\":\"B\"}]}";
    for (String template : List.of(CHATML, Data.template("chatml"))) {
      try (ModelText model = Data.model(scratch, template);
          Dataset data = read(model, row)) {
        assertThat(Data.shown(data.rows(), 0, model))
            .contains("assistant\nA<|im_end|>\n")
            .endsWith("assistant\n[B<|im_end|>]");
      }
    }
  }

  @Test
  void text_isLearnedWhole() throws Exception {
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data = read(model, "{\"text\":\"once upon\"}", "{\"text\":\"\"}")) {
      assertThat(Data.shown(data.rows(), 0, model)).isEqualTo("<|bos|>[once upon<|eos|>]");
      assertThat(data.summary().dropped()).containsExactly(Map.entry(Encoded.NOTHING, 1L));
    }
  }

  @Test
  void alpaca_byTheTemplate_orAsText() throws Exception {
    String row = "{\"instruction\":\"Sum\",\"input\":\"1 2\",\"output\":\"3\"}";
    try (ModelText model = Data.model(scratch, CHATML);
        Dataset data = read(model, row)) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(
              "<|im_start|>user\nSum\n\n1 2<|im_end|>\n<|im_start|>assistant\n[3<|im_end|>]");
    }
    try (ModelText model = Data.model(scratch, "");
        Dataset data = read(model, row, "{\"instruction\":\"Go\",\"output\":\"ok\"}")) {
      assertThat(Data.shown(data.rows(), 0, model))
          .isEqualTo(
              "<|bos|>### Instruction:\nSum\n\n### Input:\n1 2\n\n### Response:\n[3<|eos|>]");
      assertThat(Data.shown(data.rows(), 1, model))
          .isEqualTo("<|bos|>### Instruction:\nGo\n\n### Response:\n[ok<|eos|>]");
    }
  }

  @Test
  void emptyAnswer_isNoted() throws Exception {
    String row = TWO_TURNS.replace("\"content\":\"B\"", "\"content\":\"\"");
    try (ModelText model = Data.model(scratch, Data.template("chatml"));
        Dataset data = read(model, row)) {
      assertThat(data.summary().notes()).containsExactly(Map.entry(Note.EMPTY.text(), 1L));
      assertThat(Data.shown(data.rows(), 0, model)).endsWith("assistant\n[<|im_end|>]");
    }
  }

  @Test
  void example_withoutATokenizer_showsNumbers() throws Exception {
    StringBuilder ids = new StringBuilder("1");
    for (int i = 1; i < 1500; i++) {
      ids.append(",5");
    }
    try (Dataset data = Data.tokens(scratch, "{\"input_ids\":[5,6,7],\"labels\":[-100,-100,7]}");
        Dataset large = Data.tokens(scratch, "{\"input_ids\":[" + ids + "]}")) {
      assertThat(data.summary().example())
          .containsExactly(new Summary.Piece("5 6 ", false), new Summary.Piece("7 ", true));
      assertThat(large.summary().exampleText()).endsWith("500 more tokens").hasSizeLessThan(2100);
    }
  }

  @Test
  void padThatIsEos_costsNoEos() throws Exception {
    String row = "{\"input_ids\":[5,6,4,4,4],\"labels\":[-100,6,4,-100,-100]}";
    String padded =
        "{\"input_ids\":[4,4,5,6,4],\"labels\":[-100,-100,-100,6,4],\"attention_mask\":[0,0,1,1,1]}";
    try (Dataset data = Data.tokens(scratch, row, padded)) {
      for (int i = 0; i < 2; i++) {
        assertThat(data.rows().ids(i)).containsExactly(5, 6, 4);
        assertThat(data.rows().learned(i)).containsExactly(false, true, true);
      }
    }
  }

  @Test
  void truncated_keepsTheBeginningAndCounts() throws Exception {
    String[] rows = {
      "{\"input_ids\":[1,2,3,4,5,6],\"labels\":[-100,-100,3,4,5,6]}",
      "{\"input_ids\":[1,2,3,4,5,6],\"labels\":[-100,-100,-100,-100,5,6]}",
      "{\"input_ids\":[1,2,3,4,5,6],\"labels\":[-100,2,-100,-100,-100,6]}",
      "{\"input_ids\":[1,2,3,4],\"labels\":[1,2,3,4]}",
      "{\"input_ids\":[1,2,3,4,5],\"labels\":[-100,-100,3,-100,-100]}",
      "{\"input_ids\":[1,2],\"labels\":[1,-100]}",
      "{\"input_ids\":[],\"labels\":[]}",
    };
    try (ModelText model = Data.plain(scratch);
        Dataset data =
            Dataset.read(
                List.of(Data.file(scratch, String.join("\n", rows))),
                model,
                DataOptions.of(4).scratch(scratch))) {
      Summary summary = data.summary();
      assertThat(summary.read()).isEqualTo(7);
      assertThat(summary.rows()).isEqualTo(4);
      assertThat(summary.truncated()).isEqualTo(3);
      assertThat(summary.cut()).isEqualTo(6);
      assertThat(summary.dropped())
          .containsExactly(Map.entry(Encoded.NOTHING, 2L), Map.entry(Encoded.CUT, 1L));
      assertThat(summary.tokens()).isEqualTo(4 + 2 + 4 + 3);
      assertThat(summary.targets()).isEqualTo(2 + 1 + 3 + 1);
      assertThat(summary.longest()).isEqualTo(4);
      assertThat(data.rows().ids(0)).containsExactly(1, 2, 3, 4);
      assertThat(data.rows().ids(1)).containsExactly(1, 2);
      assertThat(summary.text())
          .contains("3 rows cut off, 6 tokens lost")
          .contains("1 rows left out: " + Encoded.CUT);
    }
  }

  /** Of a long conversation no more is rendered than is kept; that changes nothing but the time. */
  @ParameterizedTest
  @ValueSource(strings = {"chatml", "hermes"})
  void longConversation_isCutOffLikeAShortOne(String name) throws Exception {
    String template = Data.template(name).replaceAll("\\{%-? (end)?generation %}", "");
    StringBuilder row = new StringBuilder("{\"messages\":[{\"role\":\"system\",\"content\":\"S\"}");
    for (int i = 0; i < 60; i++) {
      row.append(",{\"role\":\"user\",\"content\":\"question ").append(i).append("\"}");
      row.append(",{\"role\":\"assistant\",\"content\":\"\ud83d\ude42 answer ")
          .append(i)
          .append("\"}");
    }
    Path file = Data.file(scratch, row.append("]}").toString());
    try (ModelText model = Data.model(scratch, template);
        Dataset whole = Dataset.read(List.of(file), model, Data.options(scratch))) {
      int answers = name.equals("chatml") ? 1 : 60;
      assertThat(whole.rows().size()).isEqualTo(answers);
      for (int length : new int[] {70, 100, 101, 102, 103, 104, 105, 333, 1000}) {
        try (Dataset cut =
            Dataset.read(List.of(file), model, DataOptions.of(length).scratch(scratch))) {
          Rows rows = cut.rows();
          for (int r = 0; r < rows.size(); r++) {
            boolean[] learned = Arrays.copyOf(whole.rows().learned(r), length);
            int end = learned.length;
            while (!learned[end - 1]) {
              end--;
            }
            assertThat(rows.ids(r))
                .as("%d tokens", length)
                .isEqualTo(Arrays.copyOf(whole.rows().ids(r), end));
            assertThat(rows.learned(r))
                .as("%d tokens", length)
                .isEqualTo(Arrays.copyOf(learned, end));
          }
          long dropped = cut.summary().dropped().getOrDefault(Encoded.CUT, 0L);
          assertThat(rows.size() + dropped).isEqualTo(answers);
          assertThat(cut.summary().truncated() + dropped).isPositive();
        }
      }
    }
  }

  @Test
  void demo_learnsEveryAnswer() throws Exception {
    Path root = Path.of(System.getProperty("wardrobe.root", ".."));
    Path base = root.resolve("deploy/models/demo/base");
    String row =
        Files.readString(Golden.shared("data/demo/live.jsonl"))
            .lines()
            .skip(1)
            .findFirst()
            .orElseThrow();
    try (ModelText model = ModelText.read(base, 1536, List.of(1));
        Dataset data = read(model, row)) {
      String shown = Data.shown(data.rows(), 0, model);
      for (JsonNode message : MAPPER.readTree(row).get("messages")) {
        String said = message.get("content").textValue() + "<|end|>";
        assertThat(shown)
            .contains(
                message.get("role").textValue().equals("assistant")
                    ? "<|assistant|>[" + said + "]"
                    : "<|" + message.get("role").textValue() + "|>" + said);
      }
    }
  }

  private Dataset read(ModelText model, String... rows) throws Exception {
    return Dataset.read(
        List.of(Data.file(scratch, String.join("\n", rows))), model, Data.options(scratch));
  }
}
