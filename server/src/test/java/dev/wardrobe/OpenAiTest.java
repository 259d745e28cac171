package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.TextFormat;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TokenizeRequest;
import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** OpenAI's API as its callers see it: real HTTP on the loopback address, the embedded model. */
final class OpenAiTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path ROOT = HOME.resolve("models/demo/adapters");
  private static final String CHAT = "/v1/chat/completions";
  private static final String COMPLETIONS = "/v1/completions";
  private static final String QUESTION = "Context: order 4172 arrives on Thursday. When does it?";
  private static final String MESSAGES =
      "\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]".formatted(QUESTION);
  private static final String ASKED =
      "messages { role: \"user\" content: \"%s\" }".formatted(QUESTION);

  private static Stack stack;
  private static HttpFrontend frontend;
  private static OpenAiClient client;
  private static ManagedChannel channel;
  private static GenerationServiceBlockingStub generation;

  @BeforeAll
  static void start() throws Exception {
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new picocli.CommandLine(arguments)
        .parseArgs("--model", HOME.resolve("models/demo/base").toString());
    stack = new Stack(arguments, List.of(ROOT), AdapterOptions.DEFAULT);
    stack.adapters().scan().get(20, TimeUnit.SECONDS);
    frontend = stack.frontend(List.of());
    int port = frontend.listen("127.0.0.1", 0);
    client = new OpenAiClient(port);
    channel = NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
    generation = GenerationServiceGrpc.newBlockingStub(channel);
  }

  @AfterAll
  static void stop() throws IOException {
    client.close();
    channel.shutdownNow();
    frontend.close();
    stack.close();
  }

  @AfterEach
  void nothingIsLeft() {
    await()
        .atMost(20, TimeUnit.SECONDS)
        .untilAsserted(
            () -> {
              assertThat(stack.engine().stats().freeBlocks() + stack.engine().stats().lentBlocks())
                  .isEqualTo(stack.engine().stats().blocks());
              assertThat(stack.engine().stats().waiting()).isZero();
              assertThat(stack.adapters().list()).allMatch(entry -> entry.inUse() == 0);
            });
  }

  /** One of the answers: what is the same however it was asked for. */
  private record Answer(String text, List<Integer> tokens, String reason, long seed) {}

  private static String reason(FinishReason reason) {
    return reason == FinishReason.FINISH_REASON_LENGTH ? "length" : "stop";
  }

  private static List<Answer> overGrpc(GenerateRequest request) {
    GenerateResponse response = generation.generate(request);
    if (response.getChoicesCount() == 0) {
      return List.of(
          new Answer(
              response.getText(),
              response.getTokenIdsList(),
              reason(response.getFinishReason()),
              response.getUsage().getSeed()));
    }
    return response.getChoicesList().stream()
        .map(
            choice ->
                new Answer(
                    choice.getText(),
                    choice.getTokenIdsList(),
                    reason(choice.getFinishReason()),
                    choice.getSeed()))
        .toList();
  }

  private static List<Integer> ints(JsonNode list) {
    List<Integer> ints = new ArrayList<>();
    list.forEach(each -> ints.add(each.intValue()));
    return ints;
  }

  private static List<Answer> whole(boolean chat, String body) throws Exception {
    JsonNode answer = client.good(chat ? CHAT : COMPLETIONS, body);
    List<Answer> answers = new ArrayList<>();
    for (JsonNode choice : answer.path("choices")) {
      assertThat(choice.path("index").intValue()).isEqualTo(answers.size());
      answers.add(
          new Answer(
              chat ? choice.at("/message/content").textValue() : choice.path("text").textValue(),
              ints(choice.path("token_ids")),
              choice.path("finish_reason").textValue(),
              answer.at("/wardrobe/seeds").get(answers.size()).longValue()));
    }
    return answers;
  }

  private static List<Answer> streamed(boolean chat, String body) throws Exception {
    Map<Integer, StringBuilder> texts = new TreeMap<>();
    Map<Integer, List<Integer>> tokens = new TreeMap<>();
    Map<Integer, String> reasons = new TreeMap<>();
    JsonNode last = null;
    for (JsonNode event : client.stream(chat ? CHAT : COMPLETIONS, body)) {
      last = event;
      for (JsonNode choice : event.path("choices")) {
        int index = choice.path("index").intValue();
        texts
            .computeIfAbsent(index, _ -> new StringBuilder())
            .append((chat ? choice.at("/delta/content") : choice.path("text")).asText());
        tokens
            .computeIfAbsent(index, _ -> new ArrayList<>())
            .addAll(ints(choice.path("token_ids")));
        if (choice.path("finish_reason").isTextual()) {
          assertThat(reasons.put(index, choice.path("finish_reason").textValue())).isNull();
        }
      }
    }
    assertThat(last).isNotNull();
    JsonNode seeds = last.at("/wardrobe/seeds");
    return texts.keySet().stream()
        .map(
            i ->
                new Answer(
                    texts.get(i).toString(),
                    tokens.get(i),
                    reasons.get(i),
                    seeds.get(i).longValue()))
        .toList();
  }

  @ParameterizedTest(name = "{0}")
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          "temperature": 0 | temperature: 0
          "model": "pirate" | adapter: "pirate"
          "model": "pirate", "adapter_scale": 0.5, "temperature": 1.5 | adapter: "pirate" adapter_scale: 0.5 temperature: 1.5
          "adapters": {"pirate": 0.5, "sql": 0.5} | adapters { adapter: "pirate" weight: 0.5 } adapters { adapter: "sql" weight: 0.5 }
          "adapters": [{"adapter": "terse"}] | adapters { adapter: "terse" }
          "temperature": 1.3, "top_k": 7, "top_p": 0.9, "min_p": 0.01 | temperature: 1.3 top_k: 7 top_p: 0.9 min_p: 0.01
          "top_k": -1 | top_k: 0
          "presence_penalty": 1.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2 | presence_penalty: 1.5 frequency_penalty: -0.5 repetition_penalty: 1.2
          "logit_bias": {"100": 40, "740": -100} | logit_bias { key: 100 value: 40 } logit_bias { key: 740 value: -100 }
          "stop": "s" | stop: "s"
          "stop": ["qq", " on"], "temperature": 0 | stop: "qq" stop: " on" temperature: 0
          "stop_token_ids": [1, 5], "ignore_eos": true | stop_token_ids: 1 stop_token_ids: 5 ignore_eos: true
          "ignore_eos": true, "max_tokens": 40, "temperature": 0 | ignore_eos: true max_tokens: 40 temperature: 0
          "min_tokens": 20, "max_tokens": 24, "temperature": 0 | min_tokens: 20 max_tokens: 24 temperature: 0
          "n": 3, "temperature": 1.5 | n: 3 temperature: 1.5
          "seed": 18446744073709551615 | seed: 18446744073709551615
          "guided_regex": "[a-f]{3,9}" | constraint { regex: "[a-f]{3,9}" }
          "guided_choice": ["yes", "no"] | constraint { choice { texts: "yes" texts: "no" } }
          "structured_outputs": {"regex": "[0-9]{4}"} | constraint { regex: "[0-9]{4}" }
          "response_format": {"type": "json_object"} | constraint { json: JSON_KIND_OBJECT }
          "response_format": {"type": "text"}, "logprobs": null | temperature: 1
          "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}} | constraint { json_schema: '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}' closed_objects: true }
          "user": "jo", "metadata": {"a": "b"}, "store": true | request_key: "jo"
          """)
  void answers_areThoseOfGrpc_forTheSameRequest(String http, String grpc) throws Exception {
    String body =
        (http.contains("\"seed\"") ? "" : "\"seed\": 11, ")
            + (http.contains("\"max_tokens\"") ? "" : "\"max_tokens\": 16, ")
            + (http.contains("\"model\"") ? "" : "\"model\": \"base\", ")
            + "\"return_token_ids\": true, "
            + http;
    String text =
        (grpc.contains("seed:") ? "" : "seed: 11 ")
            + (grpc.contains("max_tokens:") ? "" : "max_tokens: 16 ")
            + grpc;
    List<Answer> chat = overGrpc(parse(ASKED + text));
    assertThat(whole(true, "{%s, %s}".formatted(body, MESSAGES))).isEqualTo(chat);
    assertThat(streamed(true, "{%s, \"stream\": true, %s}".formatted(body, MESSAGES)))
        .isEqualTo(chat);
    List<Answer> plain = overGrpc(parse("prompt: \"The order\"" + text));
    assertThat(whole(false, "{%s, \"prompt\": \"The order\"}".formatted(body))).isEqualTo(plain);
    assertThat(streamed(false, "{%s, \"stream\": true, \"prompt\": \"The order\"}".formatted(body)))
        .isEqualTo(plain);
  }

  private static GenerateRequest parse(String text) throws TextFormat.ParseException {
    return TextFormat.parse(text, GenerateRequest.class);
  }

  @Test
  void bestOf_isRanked_andNotInAStream() throws Exception {
    String body =
        "{\"prompt\": \"The\", \"best_of\": 5, \"n\": 2, \"seed\": 3, \"return_token_ids\": true";
    assertThat(whole(false, body + "}"))
        .isEqualTo(overGrpc(parse("prompt: \"The\" best_of: 5 n: 2 seed: 3 max_tokens: 16")));
    OpenAiClient.Answer refused = client.ask(COMPLETIONS, body + ", \"stream\": true}");
    assertThat(refused.status()).isEqualTo(400);
    assertThat(refused.error().path("param").textValue()).isEqualTo("best_of");
  }

  @Test
  void continued_andTemplateVariables_areThoseOfGrpc() throws Exception {
    String body =
        """
        {"model": "base", "seed": 4, "max_tokens": 8, "continue_final_message": true, "return_token_ids": true,
         "chat_template_kwargs": {"enable_thinking": false}, "messages": [
           {"role": "developer", "content": "Be kind."},
           {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]},
           {"role": "assistant", "content": "The order", "refusal": null}]}
        """;
    String grpc =
        "seed: 4 max_tokens: 8 continue_final_message: true messages { role: \"system\" content:"
            + " \"Be kind.\" } messages { role: \"user\" content: \"One\\n"
            + "Two\" } messages { role: \"assistant\" content: \"The order\" }";
    assertThat(whole(true, body)).isEqualTo(overGrpc(parse(grpc)));
  }

  @Test
  void prompts_mayBeTextsOrTokens_oneOrSeveral() throws Exception {
    List<Answer> one = overGrpc(parse("prompt: \"The\" seed: 8 max_tokens: 5"));
    List<Answer> two = overGrpc(parse("prompt: \"Order 4172\" seed: 8 max_tokens: 5"));
    List<Integer> tokens =
        generation
            .tokenize(TokenizeRequest.newBuilder().setText("Order 4172").build())
            .getTokenIdsList();
    List<Answer> both = List.of(one.getFirst(), two.getFirst());
    String rest = ", \"seed\": 8, \"max_tokens\": 5, \"return_token_ids\": true";
    for (String prompt :
        List.of("[\"The\", \"Order 4172\"]", "[\"The\", %s]".formatted(tokens.toString()))) {
      assertThat(whole(false, "{\"prompt\": %s%s}".formatted(prompt, rest))).isEqualTo(both);
      assertThat(streamed(false, "{\"prompt\": %s, \"stream\": true%s}".formatted(prompt, rest)))
          .isEqualTo(both);
    }
    assertThat(whole(false, "{\"prompt\": %s%s}".formatted(tokens, rest))).isEqualTo(two);
    assertThat(whole(false, "{\"prompt\": [\"The\", \"The\"], \"n\": 2%s}".formatted(rest)))
        .hasSize(4);
  }

  @Test
  void chat_hasOpenAisForm() throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(
                client.post(
                    CHAT, "{\"model\": \"pirate\", \"max_tokens\": 3, %s}".formatted(MESSAGES)),
                (_, _) -> true)
            .header("x-request-id", "mine-1")
            .build();
    OpenAiClient.Answer answer = client.send(request);
    JsonNode json = answer.json();
    assertThat(answer.header("x-request-id")).isEqualTo("mine-1");
    String digest = json.at("/wardrobe/adapters/0/digest").textValue();
    assertThat(answer.header("x-wardrobe-adapter-digest")).isEqualTo(digest).startsWith("sha256:");
    assertThat(json.path("id").textValue()).isEqualTo("chatcmpl-mine-1");
    assertThat(json.path("object").textValue()).isEqualTo("chat.completion");
    assertThat(json.path("model").textValue()).isEqualTo("pirate");
    String base = generation.modelInfo(ModelInfoRequest.getDefaultInstance()).getFingerprint();
    assertThat(json.path("system_fingerprint").textValue())
        .isEqualTo("fp_%s_%s".formatted(base.substring(0, 12), digest.substring(7, 15)));
    assertThat(json.at("/choices/0/message/role").textValue()).isEqualTo("assistant");
    assertThat(json.at("/choices/0/finish_reason").textValue()).isEqualTo("length");
    assertThat(json.at("/choices/0/logprobs").isNull()).isTrue();
    JsonNode usage = json.path("usage");
    assertThat(usage.path("completion_tokens").intValue()).isEqualTo(3);
    assertThat(usage.path("total_tokens").intValue())
        .isEqualTo(usage.path("prompt_tokens").intValue() + 3);
    assertThat(usage.at("/prompt_tokens_details/cached_tokens").isInt()).isTrue();
    assertThat(json.at("/wardrobe/queue_ms").isNumber()).isTrue();
  }

  @Test
  void aStream_beginsWithTheRole_andEndsWithUsage_ifAskedFor() throws Exception {
    String body = "{\"stream\": true, \"max_tokens\": 4, \"temperature\": 0, %s%s}";
    List<JsonNode> events =
        client.stream(
            CHAT, body.formatted(MESSAGES, ", \"stream_options\": {\"include_usage\": true}"));
    assertThat(events.getFirst().at("/choices/0/delta/role").textValue()).isEqualTo("assistant");
    assertThat(events.getFirst().path("object").textValue()).isEqualTo("chat.completion.chunk");
    JsonNode last = events.getLast();
    assertThat(last.path("choices")).isEmpty();
    assertThat(last.at("/usage/completion_tokens").intValue()).isEqualTo(4);
    assertThat(events.subList(0, events.size() - 1))
        .allMatch(event -> event.has("usage") && event.path("usage").isNull())
        .allMatch(event -> !event.has("wardrobe"));
    List<JsonNode> without = client.stream(CHAT, body.formatted(MESSAGES, ""));
    assertThat(without).noneMatch(event -> event.has("usage"));
    assertThat(without.getLast().at("/choices/0/finish_reason").textValue()).isEqualTo("length");
    assertThat(without.getLast().has("wardrobe")).isTrue();
  }

  @Test
  void logprobs_ofAChat_makeUpItsText() throws Exception {
    String body =
        "{\"logprobs\": true, \"top_logprobs\": 3, \"temperature\": 0, \"stop\": \" Thursday\","
            + " \"max_tokens\": 30, %s%s}";
    GenerateResponse grpc =
        generation.generate(
            parse(ASKED + "logprobs: 3 temperature: 0 max_tokens: 30 stop: \" Thursday\""));
    JsonNode answer = client.good(CHAT, body.formatted(MESSAGES, ""));
    JsonNode content = answer.at("/choices/0/logprobs/content");
    String text = answer.at("/choices/0/message/content").textValue();
    assertThat(text).isEqualTo(grpc.getText()).isNotEmpty();
    assertThat(tokens(content)).isEqualTo(text);
    List<TokenLogprob> expected = grpc.getLogprobsList();
    for (int i = 0; i < content.size(); i++) {
      JsonNode each = content.get(i);
      assertThat(each.path("logprob").floatValue()).isEqualTo(expected.get(i).getLogprob());
      assertThat(each.path("top_logprobs")).hasSize(3);
      assertThat(each.at("/top_logprobs/0/logprob").floatValue())
          .isEqualTo(expected.get(i).getTop(0).getLogprob());
    }
    StringBuilder streamed = new StringBuilder();
    for (JsonNode event : client.stream(CHAT, body.formatted(MESSAGES, ", \"stream\": true"))) {
      streamed.append(tokens(event.at("/choices/0/logprobs/content")));
    }
    assertThat(streamed.toString()).isEqualTo(text);
  }

  /** The bytes of tokens as text. */
  private static String tokens(JsonNode content) {
    ByteBuffer bytes = ByteBuffer.allocate(1 << 16);
    for (JsonNode each : content) {
      ints(each.path("bytes")).forEach(value -> bytes.put(value.byteValue()));
    }
    return new String(bytes.array(), 0, bytes.position(), StandardCharsets.UTF_8);
  }

  @Test
  void logprobs_ofACompletion_sayWhereTokensAre_alsoInTheEchoedPrompt() throws Exception {
    String prompt = "Größe: <|user|>日本 order";
    String body =
        "{\"prompt\": \"%s\", \"logprobs\": 2, \"echo\": true, \"temperature\": 0, \"max_tokens\": 6}"
            .formatted(prompt);
    GenerateResponse grpc =
        generation.generate(
            GenerateRequest.newBuilder()
                .setPrompt(prompt)
                .setLogprobs(2)
                .setEcho(true)
                .setTemperature(0)
                .setMaxTokens(6)
                .build());
    JsonNode choice = client.good(COMPLETIONS, body).at("/choices/0");
    String text = choice.path("text").textValue();
    assertThat(text).isEqualTo(prompt + grpc.getText());
    JsonNode logprobs = choice.path("logprobs");
    int prompted = grpc.getPromptLogprobsCount();
    assertThat(logprobs.path("tokens").size()).isGreaterThan(prompted);
    assertThat(logprobs.at("/token_logprobs/0").isNull()).isTrue();
    for (int i = 1; i < prompted; i++) {
      assertThat(logprobs.path("token_logprobs").get(i).floatValue())
          .isEqualTo(grpc.getPromptLogprobs(i).getLogprob());
    }
    List<Integer> offsets = ints(logprobs.path("text_offset"));
    assertThat(offsets).isSorted().startsWith(0);
    for (int i = 0; i < offsets.size(); i++) {
      String token = logprobs.path("tokens").get(i).textValue();
      assertThat(logprobs.path("top_logprobs").get(i).size()).isBetween(i == 0 ? 0 : 2, 3);
      if (!token.startsWith("bytes:")) {
        assertThat(text.substring(text.offsetByCodePoints(0, offsets.get(i)))).startsWith(token);
      }
    }
    JsonNode scored =
        client.good(COMPLETIONS, "{\"prompt\": \"The order\", \"echo\": true, \"max_tokens\": 0}");
    assertThat(scored.at("/choices/0/text").textValue()).isEqualTo("The order");
  }

  @Test
  void embeddings_areThoseOfGrpc_asNumbersAndAsBytes() throws Exception {
    EmbedResponse grpc =
        generation.embed(
            EmbedRequest.newBuilder()
                .setAdapter("terse")
                .addInputs(EmbedInput.newBuilder().setText("Hello"))
                .addInputs(EmbedInput.newBuilder().setText("there"))
                .build());
    String body = "{\"model\": \"terse\", \"input\": [\"Hello\", \"there\"]%s}";
    JsonNode numbers = client.good("/v1/embeddings", body.formatted(""));
    JsonNode bytes =
        client.good("/v1/embeddings", body.formatted(", \"encoding_format\": \"base64\""));
    JsonNode part = client.good("/v1/embeddings", body.formatted(", \"dimensions\": 8"));
    for (int i = 0; i < 2; i++) {
      List<Float> expected = grpc.getEmbeddings(i).getValuesList();
      assertThat(floats(numbers.at("/data/%d/embedding".formatted(i)))).isEqualTo(expected);
      ByteBuffer buffer =
          ByteBuffer.wrap(
                  Base64.getDecoder()
                      .decode(bytes.at("/data/%d/embedding".formatted(i)).textValue()))
              .order(ByteOrder.LITTLE_ENDIAN);
      assertThat(
              IntStream.range(0, buffer.capacity() / 4)
                  .mapToObj(at -> buffer.getFloat(4 * at))
                  .toList())
          .isEqualTo(expected);
      List<Float> shorter = floats(part.at("/data/%d/embedding".formatted(i)));
      double length = Math.sqrt(shorter.stream().mapToDouble(v -> v * v).sum());
      assertThat(shorter).hasSize(8);
      assertThat(length).isCloseTo(1, org.assertj.core.data.Offset.offset(1e-5));
      assertThat(shorter.get(0) / shorter.get(1))
          .isCloseTo(expected.get(0) / expected.get(1), org.assertj.core.data.Offset.offset(1e-3f));
    }
    assertThat(numbers.at("/usage/prompt_tokens").intValue())
        .isEqualTo(grpc.getUsage().getPromptTokens());
  }

  private static List<Float> floats(JsonNode list) {
    List<Float> floats = new ArrayList<>();
    list.forEach(each -> floats.add(each.floatValue()));
    return floats;
  }

  @Test
  void models_areTheBaseAndItsAdapters() throws Exception {
    JsonNode list = client.get("/v1/models").json();
    Map<String, JsonNode> models = new TreeMap<>();
    list.path("data").forEach(model -> models.put(model.path("id").textValue(), model));
    assertThat(models.keySet()).contains("base", "json", "pirate", "sql", "terse");
    assertThat(models.get("base").path("parent").isNull()).isTrue();
    assertThat(models.get("json").path("parent").textValue()).isEqualTo("base");
    assertThat(models.get("base").path("max_model_len").intValue()).isEqualTo(512);
    client.good(CHAT, "{\"model\": \"sql\", \"max_tokens\": 1, %s}".formatted(MESSAGES));
    JsonNode known = client.get("/v1/models/sql").json();
    String digest = known.path("root").textValue();
    assertThat(digest).startsWith("sha256:");
    JsonNode same =
        client.good(CHAT, "{\"model\": \"%s\", \"max_tokens\": 1, %s}".formatted(digest, MESSAGES));
    assertThat(same.at("/wardrobe/adapters/0/adapter").textValue()).isEqualTo("sql");
    assertThat(client.get("/v1/models/" + digest).json().path("id").textValue()).isEqualTo(digest);
    assertThat(client.get("/v1/models/none").error().path("code").textValue())
        .isEqualTo("model_not_found");
  }

  @Test
  void adapters_comeAndGo_asWithVllm() throws Exception {
    String load = "{\"lora_name\": \"brief\", \"lora_path\": \"terse\"%s}";
    OpenAiClient.Answer loaded = client.ask("/v1/load_lora_adapter", load.formatted(""));
    assertThat(loaded.status()).isEqualTo(200);
    assertThat(loaded.response().body())
        .isEqualTo("Success: LoRA adapter 'brief' added successfully.");
    assertThat(
            client.ask("/v1/load_lora_adapter", load.formatted("")).error().path("param").asText())
        .isEqualTo("lora_name");
    assertThat(
            client
                .ask("/v1/load_lora_adapter", load.formatted(", \"load_inplace\": true"))
                .status())
        .isEqualTo(200);
    client.good(CHAT, "{\"model\": \"brief\", \"max_tokens\": 1, %s}".formatted(MESSAGES));
    String unload = "{\"lora_name\": \"brief\"}";
    assertThat(client.ask("/v1/unload_lora_adapter", unload).response().body())
        .isEqualTo("Success: LoRA adapter 'brief' removed successfully.");
    assertThat(client.ask("/v1/unload_lora_adapter", unload).status()).isEqualTo(404);
    assertThat(
            client
                .ask(
                    "/v1/load_lora_adapter",
                    "{\"lora_name\": \"x\", \"lora_path\": \"../../base\"}")
                .status())
        .isIn(400, 403);
  }

  @Test
  void tokens_goThereAndBack() throws Exception {
    String text = "Order 4172: 日本 🎒";
    JsonNode tokens =
        client.good(
            "/tokenize",
            "{\"model\": \"base\", \"prompt\": \"%s\", \"return_token_strs\": true}"
                .formatted(text));
    assertThat(ints(tokens.path("tokens")))
        .isEqualTo(
            generation
                .tokenize(TokenizeRequest.newBuilder().setText(text).build())
                .getTokenIdsList());
    assertThat(tokens.path("count").intValue()).isEqualTo(tokens.path("tokens").size());
    assertThat(tokens.path("token_strs")).hasSize(tokens.path("tokens").size());
    JsonNode back =
        client.good("/detokenize", "{\"tokens\": %s}".formatted(tokens.path("tokens").toString()));
    assertThat(back.path("prompt").textValue()).isEqualTo(text);
    JsonNode chat = client.good("/tokenize", "{%s}".formatted(MESSAGES));
    assertThat(chat.path("count").intValue()).isGreaterThan(5);
  }

  @Test
  void health_andVersion() throws Exception {
    assertThat(client.get("/health").status()).isEqualTo(200);
    assertThat(client.get("/ping").status()).isEqualTo(200);
    assertThat(client.get("/version").json().path("version").isTextual()).isTrue();
  }

  @ParameterizedTest(name = "{1}: {0}")
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      nullValues = "-",
      textBlock =
          """
          "temprature": 1 | temprature | is it 'temperature'
          "flux_capacitor": 1 | flux_capacitor | there is no such field
          "temperature": "hot" | temperature | expected a number, got "hot"
          "temperature": 1e400 | temperature | expected a number
          "temperature": -1 | temperature | expected
          "top_p": 7 | top_p | expected
          "n": 1.5 | n | expected a whole number, got 1.5
          "n": 99999999999999999999 | n | expected
          "n": 100 | n | expected 1 to
          "max_tokens": 0 | max_tokens | expected 1 or more
          "max_tokens": 5, "max_completion_tokens": 6 | max_completion_tokens | give one of them
          "top_logprobs": 2 | top_logprobs | "logprobs": true
          "logprobs": true, "top_logprobs": 21 | top_logprobs | --max-logprobs
          "stop": 5 | stop | expected a string or a list of strings
          "stop": [""] | stop | expected texts
          "logit_bias": {"a": 1} | logit_bias | token ids as names
          "logit_bias": {"99999": 1} | logit_bias | vocabulary
          "seed": 0.5 | seed | expected a whole number
          "response_format": {"type": "xml"} | response_format.type | expected text, json_object or json_schema
          "response_format": {"type": "json_schema"} | response_format.json_schema | got nothing
          "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "foo"}}} | response_format | foo
          "response_format": {"type": "json_object"}, "guided_regex": "a" | guided_regex | one form
          "guided_regex": "(" | guided_regex | not closed
          "guided_grammar": "x" | guided_grammar | not supported
          "stream_options": {"include_usage": true} | stream_options | "stream": true
          "stream": true, "stream_options": {"x": 1} | stream_options.x | there is no such field
          "modalities": ["text", "audio"] | modalities | expected ["text"]
          "audio": {"voice": "x"} | audio | text only
          "functions": [{"name": "f"}] | functions | give tools
          "tool_choice": "required" | tool_choice | goes with tools
          "tools": [{"type": "function", "function": {"name": "f"}}] | tools | chat template
          "adapter_scale": 2 | adapter_scale | goes with an adapter
          "model": "pirate", "adapters": {"terse": 1} | adapters | they go with the base
          "model": 5 | model | expected a string
          "messages": [] | messages | at least one
          "messages": [{"content": "x"}] | messages[0].role | expected a string
          "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}] | messages[0].content[0].type | text only
          "messages": [{"role": "user", "content": "x", "nme": "y"}] | messages[0].nme | is it 'name'
          "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}] | messages[0].tool_calls[0].function.arguments | JSON object
          "skip_special_tokens": false | skip_special_tokens | only true
          """)
  void badFields_areNamed(String fields, String parameter, String message) throws Exception {
    String rest = fields.contains("\"messages\"") ? "" : ", " + MESSAGES;
    OpenAiClient.Answer answer = client.ask(CHAT, "{%s%s}".formatted(fields, rest));
    assertThat(answer.status()).as(answer.response().body()).isEqualTo(400);
    assertThat(answer.error().path("type").textValue()).isEqualTo("invalid_request_error");
    assertThat(answer.error().path("param").textValue()).isEqualTo(parameter);
    assertThat(answer.error().path("message").textValue()).contains(message);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          {"model": "base" | line 1, column
          {"model": "base", "model": "base"} | Duplicate field
          [1] | expected a JSON object, got a list
          {"a": 1} {"b": 2} | not JSON
          {"a": NaN} | not JSON
          nonsense | not JSON
          """)
  void whatIsNoJsonObject_isRefused(String body, String message) throws Exception {
    OpenAiClient.Answer answer = client.ask(CHAT, body);
    assertThat(answer.status()).isEqualTo(400);
    assertThat(answer.error().path("message").textValue()).contains(message);
  }

  @Test
  void hostileBodies_areRefused_andNothingElseHappens() throws Exception {
    String deep = "[".repeat(100_000);
    assertThat(client.ask(CHAT, "{\"messages\": " + deep).status()).isEqualTo(400);
    assertThat(client.ask(CHAT, "{\"n\": " + "9".repeat(1_000_000) + "}").status()).isEqualTo(400);
    assertThat(client.ask(CHAT, "").status()).isEqualTo(400);
    assertThat(client.ask(CHAT, "{\"x\": \"" + "y".repeat(17 << 20) + "\"}").status())
        .isEqualTo(413);
    HttpRequest form =
        client
            .request(CHAT)
            .header("content-type", "text/plain")
            .POST(HttpRequest.BodyPublishers.ofString("{}"))
            .build();
    assertThat(client.send(form).status()).isEqualTo(415);
    assertThat(client.get(CHAT).status()).isEqualTo(405);
    HttpRequest bytes =
        client
            .request(CHAT)
            .header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofByteArray(new byte[] {'{', '"', (byte) 0xff, '"'}))
            .build();
    assertThat(client.send(bytes).status()).isEqualTo(400);
    assertThat(client.get("/health").status()).isEqualTo(200);
  }

  @Test
  void anUnknownModel_isNotFound_withWhatThereIs() throws Exception {
    for (String path : List.of(CHAT, COMPLETIONS, "/v1/embeddings", "/tokenize")) {
      String body =
          "{\"model\": \"nope\", %s}"
              .formatted(
                  switch (path) {
                    case CHAT -> MESSAGES;
                    case "/v1/embeddings" -> "\"input\": \"x\"";
                    default -> "\"prompt\": \"x\"";
                  });
      OpenAiClient.Answer answer = client.ask(path, body);
      assertThat(answer.status()).as(path).isEqualTo(404);
      assertThat(answer.error().path("code").textValue()).isEqualTo("model_not_found");
      assertThat(answer.error().path("param").textValue()).isEqualTo("model");
      assertThat(answer.error().path("message").textValue()).contains("'nope'", "base", "pirate");
    }
    OpenAiClient.Answer streamed =
        client.ask(CHAT, "{\"model\": \"nope\", \"stream\": true, %s}".formatted(MESSAGES));
    assertThat(streamed.status()).isEqualTo(404);
    assertThat(streamed.header("content-type")).isEqualTo("application/json");
    OpenAiClient.Answer mixed =
        client.ask(CHAT, "{\"adapters\": {\"nope\": 1, \"terse\": 1}, %s}".formatted(MESSAGES));
    assertThat(mixed.status()).isEqualTo(404);
    assertThat(mixed.error().path("param").textValue()).isEqualTo("adapters");
  }

  @Test
  void aPromptWithoutRoom_hasOpenAisCode() throws Exception {
    for (String fields : List.of("\"max_tokens\": 512", "\"max_completion_tokens\": 9999")) {
      OpenAiClient.Answer answer = client.ask(CHAT, "{%s, %s}".formatted(fields, MESSAGES));
      assertThat(answer.status()).isEqualTo(400);
      assertThat(answer.error().path("code").textValue()).isEqualTo("context_length_exceeded");
      assertThat(answer.error().path("message").textValue()).contains("512 tokens");
    }
    String much = "word ".repeat(600);
    OpenAiClient.Answer answer =
        client.ask(
            CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]}".formatted(much));
    assertThat(answer.error().path("code").textValue()).isEqualTo("context_length_exceeded");
  }

  @Test
  void oneBadPrompt_isTheErrorOfAll() throws Exception {
    OpenAiClient.Answer answer =
        client.ask(COMPLETIONS, "{\"prompt\": [[5], [99999]], \"max_tokens\": 400}");
    assertThat(answer.status()).isEqualTo(400);
    assertThat(answer.error().path("param").textValue()).isEqualTo("prompt");
  }

  @Test
  void aReaderWhoLeaves_endsTheGeneration() throws Exception {
    String body =
        "{\"prompt\": \"The\", \"max_tokens\": 500, \"ignore_eos\": true, \"stream\": %s, \"n\":"
            + " 4}";
    long before = stack.engine().stats().steps();
    HttpResponse<InputStream> response =
        client
            .http()
            .send(
                client.post(COMPLETIONS, body.formatted(true)),
                HttpResponse.BodyHandlers.ofInputStream());
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8))) {
      assertThat(reader.readLine()).startsWith("data: ");
    }
    var whole =
        client
            .http()
            .sendAsync(
                client.post(COMPLETIONS, body.formatted(false)),
                HttpResponse.BodyHandlers.ofString());
    await().until(() -> stack.engine().stats().running() > 0 || whole.isDone());
    whole.cancel(true);
    await().atMost(20, TimeUnit.SECONDS).until(() -> stack.engine().stats().running() == 0);
    // Each would have taken some 500.
    assertThat(stack.engine().stats().steps() - before).isLessThan(900);
  }

  @Test
  void aSlowReader_getsAllOfIt() throws Exception {
    String body =
        "{\"prompt\": \"The\", \"max_tokens\": 400, \"ignore_eos\": true, \"stream\": true, \"n\":"
            + " 8, \"logprobs\": 10, \"seed\": 2}";
    HttpResponse<InputStream> response =
        client
            .http()
            .send(client.post(COMPLETIONS, body), HttpResponse.BodyHandlers.ofInputStream());
    int ends = 0;
    String last = "";
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8), 512)) {
      TimeUnit.MILLISECONDS.sleep(500);
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        ends += line.contains("\"finish_reason\":\"length\"") ? 1 : 0;
        last = line.isEmpty() ? last : line;
      }
    }
    assertThat(ends).isEqualTo(8);
    assertThat(last).isEqualTo("data: [DONE]");
  }
}
