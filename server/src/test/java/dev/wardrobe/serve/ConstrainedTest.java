package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.networknt.schema.JsonSchema;
import com.networknt.schema.JsonSchemaFactory;
import com.networknt.schema.SpecVersion;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.v1.Choices;
import dev.wardrobe.v1.Constraint;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.JsonKind;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Answers that must be of a form, from the embedded model. */
@Timeout(180)
final class ConstrainedTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root", ".."), "deploy/models/demo");
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private static final String PERSON =
      """
      {"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}
      }, "required": ["name", "age"], "additionalProperties": false}\
      """;

  private static CpuBackend backend;
  private static Model model;
  private static Prompts prompts;
  private static AdapterRegistry adapters;
  private static Engine engine;
  private static Conversation conversation;

  @BeforeAll
  static void start() throws Exception {
    backend = new CpuBackend(2);
    model = ModelLoader.load(DEMO.resolve("base"), LoadOptions.DEFAULT, backend);
    prompts = Prompts.read(DEMO.resolve("base"), model.config().vocabulary(), Thread::new);
    adapters =
        new AdapterRegistry(
            model,
            backend,
            List.of(DEMO.resolve("adapters")),
            AdapterOptions.DEFAULT,
            Runnable::run);
    engine = new Engine(model, backend, EngineOptions.DEFAULT.withMaxSequences(8));
    conversation = new Conversation(model, prompts, adapters, engine, Runnable::run, 20);
  }

  @AfterAll
  static void stop() {
    engine.close();
    adapters.close();
    prompts.close();
    model.close();
    backend.close();
    assertThat(backend.liveBytes()).isZero();
  }

  private static GenerateRequest.Builder request(Constraint.Builder constraint) {
    return GenerateRequest.newBuilder()
        .setPrompt("Tell me about a person.")
        .setTemperature(1.2f)
        .setMaxTokens(200)
        .setConstraint(constraint);
  }

  private static Constraint.Builder schema(String text) {
    return Constraint.newBuilder().setJsonSchema(text);
  }

  private static Listening ask(GenerateRequest.Builder request) {
    Listening listening = new Listening(request.build());
    conversation.start(request.build(), listening);
    return listening;
  }

  private static GenerateResponse answer(GenerateRequest.Builder request) throws Exception {
    return ask(request).answer();
  }

  @Test
  void schema_answersAreValid_besideEachOther() throws Exception {
    JsonSchema validator =
        JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012).getSchema(PERSON);
    List<Listening> listenings = new ArrayList<>();
    for (int seed = 0; seed < 24; seed++) {
      listenings.add(ask(request(schema(PERSON)).setSeed(seed)));
    }
    // Beside one that may say anything: it says what it says alone.
    GenerateRequest.Builder free = request(schema(PERSON)).clearConstraint().setSeed(1);
    Listening beside = ask(free);
    for (Listening listening : listenings) {
      GenerateResponse response = listening.answer();
      assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
      JsonNode document = MAPPER.readTree(response.getText());
      assertThat(validator.validate(document)).as(response.getText()).isEmpty();
    }
    assertThat(beside.answer().getTokenIdsList()).isEqualTo(answer(free).getTokenIdsList());
  }

  @Test
  void answers_areTheSame_aloneAndAgain() throws Exception {
    List<Listening> together = new ArrayList<>();
    for (int seed = 0; seed < 6; seed++) {
      together.add(ask(request(schema(PERSON)).setSeed(seed)));
    }
    for (int seed = 0; seed < 6; seed++) {
      assertThat(answer(request(schema(PERSON)).setSeed(seed)).getTokenIdsList())
          .isEqualTo(together.get(seed).answer().getTokenIdsList());
    }
  }

  @Test
  void streamedText_isTheWholeText() throws Exception {
    Listening listening =
        ask(request(Constraint.newBuilder().setRegex("[a-z]{3} (é|日本|😀){2,5}\\.")).setSeed(3));
    GenerateResponse response = listening.answer();
    assertThat(response.getText()).matches("[a-z]{3} (é|日本|😀){2,5}\\.");
    assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
  }

  @Test
  void everySampling_staysWithin() throws Exception {
    Constraint.Builder digits = Constraint.newBuilder().setRegex("(\\d{2}-){3}\\d");
    List<GenerateRequest.Builder> requests =
        List.of(
            request(digits).setTemperature(0),
            request(digits).setTopK(1),
            request(digits).setTopK(40),
            request(digits).setTopP(0.1f),
            request(digits).setMinP(0.9f),
            request(digits).setRepetitionPenalty(1.5f).setFrequencyPenalty(2),
            request(digits).putLogitBias(5, 100).setMinTokens(3));
    for (GenerateRequest.Builder each : requests) {
      assertThat(answer(each.setLogprobs(3)).getText()).matches("(\\d{2}-){3}\\d");
    }
  }

  @Test
  void logprobs_areThoseOfTheRawDistribution() throws Exception {
    GenerateRequest.Builder free =
        request(schema(PERSON)).clearConstraint().setMaxTokens(1).setTemperature(0).setLogprobs(-1);
    conversation =
        new Conversation(model, prompts, adapters, engine, Runnable::run, Conversation.UNLIMITED);
    GenerateResponse raw = answer(free);
    GenerateResponse response =
        answer(
            request(Constraint.newBuilder().setChoice(Choices.newBuilder().addTexts("{")))
                .setTemperature(0)
                .setLogprobs(-1));
    assertThat(response.getText()).isEqualTo("{");
    assertThat(response.getLogprobs(0).getAllList()).isEqualTo(raw.getLogprobs(0).getAllList());
    assertThat(response.getLogprobs(0).getLogprob())
        .isEqualTo(raw.getLogprobs(0).getAll(response.getTokenIds(0)));
  }

  /** Until the others are compiled, which here they never are. */
  @Test
  void tooManyThatTakeLong_areToldWhenToTryAgain() throws Exception {
    try (Prompts held =
        Prompts.read(
            DEMO.resolve("base"), model.config().vocabulary(), work -> new Thread(() -> {}))) {
      Conversation other = new Conversation(model, held, adapters, engine, Runnable::run, 20);
      Listening last = null;
      for (int i = 0; i < 40; i++) {
        GenerateRequest slow =
            request(Constraint.newBuilder().setRegex("b{%d}(a|b)*a(a|b){14}".formatted(i))).build();
        last = new Listening(slow);
        other.start(slow, last);
      }
      RequestException failure = Objects.requireNonNull(last).failure();
      assertThat(failure.code()).isEqualTo(Code.RESOURCE_EXHAUSTED);
      assertThat(failure).hasMessageContaining("try again later");
      assertThat(failure.retryAfter()).isPositive();
    }
  }

  @Test
  void choice_isOneOfThem() throws Exception {
    Choices.Builder choices = Choices.newBuilder().addTexts("yes").addTexts("no").addTexts("maybe");
    for (int seed = 0; seed < 5; seed++) {
      assertThat(
              answer(request(Constraint.newBuilder().setChoice(choices)).setSeed(seed)).getText())
          .isIn("yes", "no", "maybe");
    }
  }

  @Test
  void json_objectOrValue() throws Exception {
    GenerateResponse response =
        answer(
            request(Constraint.newBuilder().setJson(JsonKind.JSON_KIND_OBJECT))
                .setSeed(2)
                .setMaxTokens(400));
    if (response.getFinishReason() == FinishReason.FINISH_REASON_STOP) {
      assertThat(MAPPER.readTree(response.getText()).isObject()).isTrue();
    }
    assertThat(response.getText()).startsWith("{");
  }

  @Test
  void maxTokens_cutsShort_andSaysSo() throws Exception {
    GenerateResponse response = answer(request(schema(PERSON)).setMaxTokens(3).setSeed(1));
    assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_LENGTH);
    assertThat(response.getTokenIdsCount()).isEqualTo(3);
    // Complete with its very last token, it is complete.
    int tokens =
        answer(request(Constraint.newBuilder().setRegex("[ab]{4}")).setSeed(4)).getTokenIdsCount();
    assertThat(
            answer(
                    request(Constraint.newBuilder().setRegex("[ab]{4}"))
                        .setSeed(4)
                        .setMaxTokens(tokens))
                .getFinishReason())
        .isEqualTo(FinishReason.FINISH_REASON_STOP);
  }

  @Test
  void eos_endsWhereTheTextIsWhole() throws Exception {
    // The end is far more likely than anything else, as soon as it may be.
    int eos = model.defaults().eos().iterator().next();
    GenerateResponse response =
        answer(
            request(Constraint.newBuilder().setRegex("a{5,40}"))
                .putLogitBias(eos, 100)
                .setTemperature(0));
    assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_EOS);
    assertThat(response.getText()).matches("a{5,40}");
    // Held back, it is not, until the text can only end.
    response =
        answer(
            request(Constraint.newBuilder().setRegex("a{1,9}"))
                .putLogitBias(eos, 100)
                .setMinTokens(100)
                .setTemperature(0));
    assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
    assertThat(response.getText()).isEqualTo("aaaaaaaaa");
    response = answer(request(Constraint.newBuilder().setRegex("a{1,9}")).setIgnoreEos(true));
    assertThat(response.getText()).isEqualTo("aaaaaaaaa");
  }

  @Test
  void stopText_endsBeforeTheDocumentDoes() throws Exception {
    GenerateResponse response = answer(request(schema(PERSON)).addStop("\"age").setSeed(5));
    assertThat(response.getFinishReason()).isEqualTo(FinishReason.FINISH_REASON_STOP);
    assertThat(response.getText()).contains("\"name\"").doesNotContain("age");
  }

  @Test
  void severalAnswers_areEachWithin() throws Exception {
    GenerateResponse response = answer(request(schema(PERSON)).setN(4).setSeed(9));
    assertThat(response.getChoicesList()).hasSize(4);
    for (var choice : response.getChoicesList()) {
      assertThat(MAPPER.readTree(choice.getText()).path("name").isTextual()).isTrue();
    }
  }

  @Test
  void refusals_sayWhereAndWhy() throws Exception {
    refused(schema("{\"type\":\"strin\"}"), "constraint.json_schema: /type: expected a type");
    refused(schema("{\"not\":{}}"), "constraint.json_schema: /not: this keyword is not supported");
    refused(Constraint.newBuilder().setRegex("(a"), "constraint.regex: character 1");
    refused(Constraint.newBuilder().setChoice(Choices.newBuilder()), "constraint.choice");
    refused(Constraint.newBuilder(), "expected one of json, json_schema, regex and choice");
    refused(
        Constraint.newBuilder().setJsonValue(7),
        "constraint.json: expected JSON_KIND_OBJECT or JSON_KIND_VALUE, got 7");
    refused(Constraint.newBuilder().setRegex("a").setCompact(true), "compact");
    refused(Constraint.newBuilder().setRegex("(a|b)*a(a|b){30}"), "constraint.regex: it needs");
  }

  private static void refused(Constraint.Builder constraint, String message) throws Exception {
    RequestException failure = ask(request(constraint)).failure();
    assertThat(failure.code()).isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(failure).hasMessageContaining(message);
  }
}
