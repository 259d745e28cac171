package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.TestBase;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Pooling;
import dev.wardrobe.v1.TokenIds;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Vectors of texts, against transformers' hidden states and against themselves. */
@Timeout(120)
final class EmbeddingTest {
  private static final EngineOptions OPTIONS = EngineOptions.DEFAULT.withKvType(KvShape.Type.F32);

  private @Nullable CpuBackend backend;
  private @Nullable Model model;
  private @Nullable AdapterRegistry adapters;
  private @Nullable Prompts prompts;
  private @Nullable Engine engine;
  private @Nullable Conversation conversation;

  private void open(Path directory, List<Path> roots, EngineOptions options) throws Exception {
    backend = new CpuBackend(2);
    model = ModelLoader.load(directory, LoadOptions.DEFAULT, backend);
    adapters = new AdapterRegistry(model, backend, roots, AdapterOptions.DEFAULT, Runnable::run);
    prompts = Prompts.read(directory, model.config().vocabulary(), Thread::new);
    start(options);
  }

  private void open(EngineOptions options) throws Exception {
    open(
        TestBase.resource("models/llama_mha-nf4-dq"),
        List.of(TestBase.resource("adapters/llama_mha")),
        options);
  }

  private void start(EngineOptions options) {
    engine = new Engine(model, backend, options);
    conversation =
        new Conversation(
            model, prompts, adapters, engine, Runnable::run, Conversation.DEFAULT_MAX_LOGPROBS);
  }

  @AfterEach
  void close() {
    if (engine != null) {
      await().until(() -> engine.stats().finished() == engine.stats().submitted());
      engine.close();
      assertThat(adapters.list()).allMatch(entry -> entry.inUse() == 0);
      adapters.close();
      prompts.close();
      model.close();
      backend.close();
      assertThat(backend.liveBytes()).isZero();
    }
  }

  private static EmbedRequest.Builder request(int[]... inputs) {
    EmbedRequest.Builder request = EmbedRequest.newBuilder();
    for (int[] input : inputs) {
      TokenIds.Builder tokens = TokenIds.newBuilder();
      IntStream.of(input).forEach(tokens::addIds);
      request.addInputs(EmbedInput.newBuilder().setTokens(tokens));
    }
    return request;
  }

  private EmbedResponse embed(EmbedRequest.Builder request) throws Exception {
    return conversation
        .embed(request.build(), GenerationTask.NO_DEADLINE)
        .result()
        .get(60, TimeUnit.SECONDS);
  }

  private static RequestException failure(Embedding embedding) throws Exception {
    try {
      throw new AssertionError(
          "expected a failure, got " + embedding.result().get(60, TimeUnit.SECONDS));
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RequestException failure) {
        return failure;
      }
      throw e;
    }
  }

  private static float[] values(EmbedResponse response, int i) {
    float[] values = new float[response.getEmbeddings(i).getValuesCount()];
    for (int j = 0; j < values.length; j++) {
      values[j] = response.getEmbeddings(i).getValues(j);
    }
    return values;
  }

  private int[] prompt(long seed, int length) {
    return new Random(seed).ints(length, 0, model.config().vocabulary()).toArray();
  }

  /** The last token's vector of a prompt cut short is the hidden state of the place of the cut. */
  private void lastMeets(Path golden, String name) throws Exception {
    open(golden.resolve("models").resolve(name + "-nf4-dq"), List.of(), OPTIONS);
    Path logits = golden.resolve("logits");
    int[] prompt =
        new ObjectMapper()
            .convertValue(
                new ObjectMapper()
                    .readTree(logits.resolve("logits.json").toFile())
                    .at("/prompts/" + name + "/p24"),
                int[].class);
    EmbedRequest.Builder request = EmbedRequest.newBuilder();
    for (int cut = 3; cut >= 0; cut--) {
      request.addInputs(request(Arrays.copyOf(prompt, prompt.length - cut)).getInputs(0));
    }
    EmbedResponse response = embed(request.setPooling(Pooling.POOLING_LAST).setNormalize(false));
    try (SafetensorsFile file = SafetensorsFile.open(logits.resolve(name + ".safetensors"))) {
      float[] rows =
          file.floats(
              file.tensors().get("nf4-dq/base/p24/hidden.%d".formatted(model.config().layers())));
      int width = model.config().hidden();
      assertThat(rows).hasSize(4 * width);
      for (int i = 0; i < rows.length; i++) {
        assertThat(values(response, i / width)[i % width])
            .as("%s, row %d, %d", name, i / width, i % width)
            .isCloseTo(rows[i], within(1e-4f + 1e-4f * Math.abs(rows[i])));
      }
    }
  }

  @Test
  void last_meetsReference() throws Exception {
    lastMeets(TestBase.resource(""), "llama_mha");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "llama3",
        "llama_linear_rope",
        "mistral",
        "qwen2",
        "qwen2_yarn",
        "qwen3",
        "smollm2"
      })
  void last_ofEachFamilyMeetsReference(String name) throws Exception {
    lastMeets(ReferenceFolder.require("golden"), name);
  }

  /** The mean is that of the last tokens' vectors of all beginnings: the same bits. */
  @Test
  void mean_isOverAllTokens() throws Exception {
    open(OPTIONS);
    int[] prompt = prompt(1, 37);
    EmbedRequest.Builder beginnings = EmbedRequest.newBuilder();
    for (int length = 1; length <= prompt.length; length++) {
      beginnings.addInputs(request(Arrays.copyOf(prompt, length)).getInputs(0));
    }
    EmbedResponse states = embed(beginnings.setPooling(Pooling.POOLING_LAST).setNormalize(false));
    double[] sums = new double[model.config().hidden()];
    for (int i = 0; i < prompt.length; i++) {
      float[] state = values(states, i);
      for (int j = 0; j < sums.length; j++) {
        sums[j] += state[j];
      }
    }
    float[] mean = values(embed(request(prompt).setNormalize(false)), 0);
    double length = 0;
    for (int j = 0; j < sums.length; j++) {
      assertThat(mean[j]).isEqualTo((float) (sums[j] / prompt.length));
      length += (double) mean[j] * mean[j];
    }
    EmbedResponse unit = embed(request(prompt).setId("x"));
    assertThat(unit.getId()).isEqualTo("x");
    assertThat(unit.getEmbeddings(0).getTokens()).isEqualTo(37);
    double one = 0;
    for (int j = 0; j < sums.length; j++) {
      assertThat(values(unit, 0)[j]).isEqualTo((float) (mean[j] / Math.sqrt(length)));
      one += (double) values(unit, 0)[j] * values(unit, 0)[j];
    }
    assertThat(one).isCloseTo(1, within(1e-6));
  }

  /**
   * However prompts are cut, whatever else is in the batch or was computed before, and though pages
   * are short: the same bits.
   */
  @Test
  void bits_dependOnNothingElse() throws Exception {
    open(OPTIONS);
    int[][] inputs = new int[20][];
    for (int i = 0; i < inputs.length; i++) {
      inputs[i] = prompt(i % 7, 1 + 9 * i);
    }
    List<EmbedResponse> expected = new ArrayList<>();
    List<EmbedRequest.Builder> requests = new ArrayList<>();
    for (Pooling pooling : new Pooling[] {Pooling.POOLING_MEAN, Pooling.POOLING_LAST}) {
      requests.add(request(inputs).setPooling(pooling));
      requests.add(request(inputs).setPooling(pooling).setAdapter("lora_r8_qv"));
      requests.add(
          request(inputs)
              .setPooling(pooling)
              .addAdapters(AdapterWeight.newBuilder().setAdapter("lora_r8_qv").setWeight(0.5f))
              .addAdapters(AdapterWeight.newBuilder().setAdapter("rslora_r32").setWeight(-1)));
    }
    for (EmbedRequest.Builder each : requests) {
      EmbedRequest.Builder one = each.clone().clearInputs();
      EmbedResponse.Builder all = EmbedResponse.newBuilder();
      for (EmbedInput input : each.getInputsList()) {
        engine.close();
        start(OPTIONS);
        all.addEmbeddings(embed(one.clearInputs().addInputs(input)).getEmbeddings(0));
      }
      expected.add(all.build());
    }
    assertThat(expected.stream().map(EmbedResponse::getEmbeddingsList).distinct()).hasSize(6);
    for (EngineOptions options :
        List.of(
            OPTIONS,
            OPTIONS.withMaxSequences(5).withPrefillTokens(7),
            OPTIONS.withMaxSequences(12).withPrefillTokens(33).withKvTokens(320))) {
      engine.close();
      start(options);
      for (int round = 0; round < 2; round++) {
        Listening generating = new Listening();
        conversation.start(
            GenerateRequest.newBuilder()
                .addAllTokenIds(IntStream.of(inputs[3]).boxed().toList())
                .setMaxTokens(40)
                .setIgnoreEos(true)
                .setAdapter("all_linear_r16")
                .build(),
            generating);
        List<Embedding> running =
            requests.stream()
                .map(each -> conversation.embed(each.build(), GenerationTask.NO_DEADLINE))
                .toList();
        for (int i = 0; i < requests.size(); i++) {
          EmbedResponse response = running.get(i).result().get(60, TimeUnit.SECONDS);
          assertThat(response.getEmbeddingsList())
              .as("%s, round %d, request %d", options, round, i)
              .isEqualTo(expected.get(i).getEmbeddingsList());
        }
        assertThat(generating.answer().getTokenIdsCount()).isEqualTo(40);
      }
    }
  }

  /** A prefix that is known is not computed again for the last token; for a mean it is. */
  @Test
  void prefixes() throws Exception {
    open(OPTIONS);
    int[] prompt = prompt(3, 60);
    EmbedRequest.Builder last = request(prompt).setPooling(Pooling.POOLING_LAST);
    assertThat(embed(last).getUsage().getCachedTokens()).isZero();
    assertThat(embed(last).getUsage().getCachedTokens()).isEqualTo(48);
    EmbedResponse mean = embed(request(prompt));
    assertThat(mean.getUsage().getCachedTokens()).isZero();
    assertThat(mean.getUsage().getPromptTokens()).isEqualTo(60);
  }

  @Test
  void adapters_andScales() throws Exception {
    open(OPTIONS);
    int[] prompt = prompt(4, 21);
    EmbedResponse base = embed(request(prompt));
    assertThat(base.getAdaptersList()).isEmpty();
    EmbedResponse zero = embed(request(prompt).setAdapter("lora_r8_qv").setAdapterScale(0));
    assertThat(zero.getEmbeddingsList()).isEqualTo(base.getEmbeddingsList());
    EmbedResponse half =
        embed(request(prompt, prompt).setAdapter("lora_r8_qv").setAdapterScale(0.5f));
    assertThat(half.getEmbeddings(0)).isEqualTo(half.getEmbeddings(1));
    assertThat(half.getEmbeddings(0)).isNotEqualTo(base.getEmbeddings(0));
    assertThat(half.getAdapters(0).getScale()).isEqualTo(0.5f);
    assertThat(half.getAdapters(0).getAdapter()).isEqualTo("lora_r8_qv");
    assertThat(half.getAdapters(0).getDigest()).isEqualTo(adapters.get("lora_r8_qv").digest());
    refused(request(prompt).setAdapter("dora_r8").setAdapterScale(2), "dora_r8");
    RequestException unknown =
        failure(
            conversation.embed(
                request(prompt).setAdapter("nobody").build(), GenerationTask.NO_DEADLINE));
    assertThat(unknown.code()).isEqualTo(Code.NOT_FOUND);
  }

  @Test
  void refused() throws Exception {
    open(OPTIONS);
    refused(EmbedRequest.newBuilder(), "inputs", "got 0");
    EmbedRequest.Builder many = EmbedRequest.newBuilder();
    for (int i = 0; i < 1025; i++) {
      many.addInputs(request(new int[] {1}).getInputs(0));
    }
    refused(many, "1 to 1024", "got 1025");
    refused(request(new int[] {1}, new int[0]), "inputs[1]", "at least one token");
    refused(request(new int[] {1}).addInputs(EmbedInput.getDefaultInstance()), "inputs[1]");
    refused(request(new int[] {1, 100_000}), "inputs[0]", "100000");
    refused(request(prompt(1, 5000)), "inputs[0]", "5000 tokens");
    refused(request(prompt(1, 5)).setPoolingValue(7), "POOLING_MEAN or POOLING_LAST", "got 7");
    RequestException text =
        failure(
            conversation.embed(
                EmbedRequest.newBuilder()
                    .addInputs(EmbedInput.newBuilder().setText("hello"))
                    .build(),
                GenerationTask.NO_DEADLINE));
    assertThat(text.code()).isEqualTo(Code.FAILED_PRECONDITION);
    assertThat(text).hasMessageContaining("tokenizer");
  }

  private void refused(EmbedRequest.Builder request, String... parts) throws Exception {
    RequestException failure =
        failure(conversation.embed(request.build(), GenerationTask.NO_DEADLINE));
    assertThat(failure.code()).as(failure.getMessage()).isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(failure).hasMessageContainingAll(parts);
  }

  /** What a request began with it ends with, whatever becomes of the name. */
  @Test
  void nameThatGoes_changesNothing() throws Exception {
    open(OPTIONS.withMaxSequences(2).withPrefillTokens(4));
    int[][] inputs = new int[60][];
    Arrays.setAll(inputs, i -> prompt(i, 120));
    EmbedRequest.Builder request = request(inputs).setAdapter("lora_r8_qv");
    EmbedResponse expected = embed(request);
    long steps = engine.stats().steps();
    Embedding embedding = conversation.embed(request.build(), GenerationTask.NO_DEADLINE);
    while (engine.stats().steps() < steps + 3) {
      Thread.onSpinWait();
    }
    assertThat(adapters.unload("lora_r8_qv").inUse()).isEqualTo(1);
    assertThat(embedding.result().get(60, TimeUnit.SECONDS).getEmbeddingsList())
        .isEqualTo(expected.getEmbeddingsList());
    assertThat(adapters.list()).isEmpty();
  }

  @Test
  void cancelledOrLate() throws Exception {
    open(OPTIONS.withMaxSequences(2).withPrefillTokens(4));
    int[][] inputs = new int[30][];
    Arrays.setAll(inputs, i -> prompt(i, 120));
    Embedding embedding =
        conversation.embed(
            request(inputs).setAdapter("lora_r8_qv").build(), GenerationTask.NO_DEADLINE);
    // Not asked for now and then: a fast machine would be through with it.
    while (engine.stats().steps() <= 3) {
      Thread.onSpinWait();
    }
    embedding.cancel();
    assertThat(failure(embedding).code()).isEqualTo(Code.CANCELLED);
    embedding.cancel();
    await().until(() -> engine.stats().finished() == engine.stats().submitted());
    Embedding late =
        conversation.embed(
            request(inputs).build(), System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(5));
    assertThat(failure(late).code()).isEqualTo(Code.DEADLINE_EXCEEDED);
    await().until(() -> engine.stats().finished() == engine.stats().submitted());
    assertThat(engine.stats().freeBlocks() + engine.stats().lentBlocks())
        .isEqualTo(engine.stats().blocks());
  }
}
