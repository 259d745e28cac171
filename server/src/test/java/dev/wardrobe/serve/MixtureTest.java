package dev.wardrobe.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.tuple;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.engine.TestBase;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Adapters with scales, from the request to the answer, on the smallest golden model. */
@Timeout(120)
final class MixtureTest {
  private static final String FIRST = "lora_r8_qv";
  private static final String SECOND = "all_linear_r16";
  private static final String THIRD = "rslora_r32";

  private TestBase base;
  private AdapterRegistry adapters;
  private Prompts prompts;
  private Engine engine;
  private Conversation conversation;

  @BeforeEach
  void open() throws Exception {
    base = new TestBase(2);
    adapters =
        new AdapterRegistry(
            base.model(),
            base.backend(),
            List.of(TestBase.resource("adapters/llama_mha")),
            AdapterOptions.DEFAULT,
            Runnable::run);
    prompts =
        Prompts.read(
            TestBase.resource("models/llama_mha-nf4-dq"),
            base.model().config().vocabulary(),
            Thread::new);
    start();
  }

  private void start() {
    engine =
        new Engine(
            base.model(), base.backend(), EngineOptions.DEFAULT.withKvType(KvShape.Type.F32));
    conversation =
        new Conversation(
            base.model(), prompts, adapters, engine, Runnable::run, Conversation.UNLIMITED);
  }

  @AfterEach
  void close() {
    engine.close();
    assertThat(adapters.list()).allMatch(entry -> entry.inUse() == 0);
    adapters.close();
    prompts.close();
    base.close();
  }

  private static GenerateRequest.Builder request(int... prompt) {
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder()
            .setTemperature(0)
            .setMaxTokens(6)
            .setIgnoreEos(true)
            .setLogprobs(-1);
    IntStream.of(prompt).forEach(request::addTokenIds);
    return request;
  }

  private static GenerateRequest.Builder with(
      GenerateRequest.Builder request, Object... namesAndWeights) {
    for (int i = 0; i < namesAndWeights.length; i += 2) {
      request.addAdapters(
          AdapterWeight.newBuilder()
              .setAdapter((String) namesAndWeights[i])
              .setWeight(((Number) namesAndWeights[i + 1]).floatValue()));
    }
    return request;
  }

  private Listening start(GenerateRequest.Builder request) {
    Listening listening = new Listening();
    conversation.start(request.build(), listening);
    return listening;
  }

  private GenerateResponse answer(GenerateRequest.Builder request) throws Exception {
    return start(request).answer();
  }

  @Test
  void weightedSums_meetReference() throws Exception {
    Path logits = TestBase.resource("logits");
    int[] prompt =
        new ObjectMapper()
            .convertValue(
                new ObjectMapper()
                    .readTree(logits.resolve("logits.json").toFile())
                    .at("/prompts/llama_mha/p24"),
                int[].class);
    try (SafetensorsFile file = SafetensorsFile.open(logits.resolve("llama_mha.safetensors"))) {
      meets(file, "mix_0.7_lora_r8_qv_0.3_all_linear_r16", prompt, FIRST, 0.7f, SECOND, 0.3f);
      meets(file, "mix_1.5_rslora_r32_-0.5_lora_r8_qv", prompt, THIRD, 1.5f, FIRST, -0.5f);
    }
  }

  private void meets(SafetensorsFile file, String name, int[] prompt, Object... mix)
      throws Exception {
    GenerateResponse answer = answer(with(request(prompt), mix).setMaxTokens(1));
    float[] rows = file.floats(file.tensors().get("nf4-dq/%s/p24/logits".formatted(name)));
    int vocabulary = base.model().config().vocabulary();
    int last = rows.length - vocabulary;
    double sum = 0;
    for (int i = last; i < rows.length; i++) {
      sum += Math.exp(rows[i]);
    }
    for (int i = 0; i < vocabulary; i++) {
      double expected = rows[last + i] - Math.log(sum);
      assertThat((double) answer.getLogprobs(0).getAll(i))
          .as("%s, token %d", name, i)
          .isCloseTo(expected, within(1e-4 + 1e-4 * Math.abs(expected)));
    }
    assertThat(answer.getAdapter()).isEmpty();
    assertThat(answer.getAdapterDigest()).isEmpty();
    assertThat(answer.getAdaptersList())
        .extracting(AppliedAdapter::getAdapter, AppliedAdapter::getScale)
        .containsExactly(tuple(mix[0], mix[1]), tuple(mix[2], mix[3]));
    assertThat(answer.getAdapters(1).getDigest()).isEqualTo(adapters.get((String) mix[2]).digest());
  }

  /** Nothing but the bits of the base, and of the adapter as it is. */
  @Test
  void scalesOfZeroAndOne() throws Exception {
    int[] prompt = {51, 447, 408, 500, 385, 443, 458};
    GenerateResponse plain = answer(request(prompt));
    assertThat(plain.getAdaptersList()).isEmpty();
    for (GenerateRequest.Builder zero :
        List.of(
            request(prompt).setAdapter(FIRST).setAdapterScale(0),
            request(prompt).setAdapter(FIRST).setAdapterScale(-0.0f),
            request(prompt).setAdapter("dora_r8").setAdapterScale(0),
            with(request(prompt), FIRST, 0, SECOND, 0))) {
      GenerateResponse answer = answer(zero);
      assertThat(answer.getLogprobsList()).isEqualTo(plain.getLogprobsList());
      assertThat(answer.getAdaptersList()).isEmpty();
      assertThat(answer.getAdapterDigest()).isEmpty();
    }
    GenerateResponse whole = answer(request(prompt).setAdapter(FIRST));
    assertThat(whole.getLogprobsList()).isNotEqualTo(plain.getLogprobsList());
    for (GenerateRequest.Builder one :
        List.of(
            request(prompt).setAdapter(FIRST).setAdapterScale(1),
            with(request(prompt), FIRST, 1),
            with(request(prompt), SECOND, 0, FIRST, 1))) {
      GenerateResponse answer = answer(one);
      assertThat(answer.getLogprobsList()).isEqualTo(whole.getLogprobsList());
      assertThat(answer.getAdapter()).isEqualTo(FIRST);
      assertThat(answer.getAdapterDigest()).isEqualTo(whole.getAdapterDigest());
    }
    GenerateResponse half = answer(request(prompt).setAdapter(FIRST).setAdapterScale(0.5f));
    assertThat(half.getLogprobsList())
        .isNotEqualTo(whole.getLogprobsList())
        .isNotEqualTo(plain.getLogprobsList());
    assertThat(half.getAdapters(0).getScale()).isEqualTo(0.5f);
    assertThat(answer(request(prompt).setAdapter("dora_r8")).getAdapter()).isEqualTo("dora_r8");
  }

  /**
   * All kinds of mixes at once, over one prompt of several blocks that was computed for each of the
   * others before: nothing is shared that differs by a scale or by order alone.
   */
  @Test
  void mixes_besideEachOtherAreAsAlone() throws Exception {
    int[] prompt = IntStream.range(0, 70).map(i -> (i * 37 + 11) % 500).toArray();
    List<GenerateRequest.Builder> requests =
        List.of(
            request(prompt),
            request(prompt).setAdapter(FIRST),
            request(prompt).setAdapter(FIRST).setAdapterScale(0.5f),
            request(prompt).setAdapter(FIRST).setAdapterScale(0.25f),
            with(request(prompt), FIRST, 0.7, SECOND, 0.3),
            with(request(prompt), SECOND, 0.3, FIRST, 0.7),
            with(request(prompt), FIRST, 0.7, SECOND, 0.4),
            with(request(prompt), FIRST, 1, SECOND, -1, THIRD, 2),
            request(prompt).setAdapter("dora_r8"));
    List<GenerateResponse> alone = new ArrayList<>();
    for (GenerateRequest.Builder each : requests) {
      engine.close();
      start();
      alone.add(answer(each));
    }
    for (int i = 0; i < alone.size(); i++) {
      for (int j = 0; j < i; j++) {
        assertThat(alone.get(i).getLogprobs(5))
            .as("%d, %d", i, j)
            .isNotEqualTo(alone.get(j).getLogprobs(5));
      }
    }
    for (int round = 0; round < 2; round++) {
      List<Listening> running = requests.stream().map(this::start).toList();
      for (int i = 0; i < requests.size(); i++) {
        assertThat(running.get(i).answer().getLogprobsList())
            .as("round %d, request %d", round, i)
            .isEqualTo(alone.get(i).getLogprobsList());
      }
    }
  }

  @Test
  void refused() throws Exception {
    int[] prompt = {5, 6};
    GenerateRequest.Builder nine = request(prompt);
    for (int i = 0; i < 9; i++) {
      with(nine, "a" + i, 1);
    }
    refused(request(prompt).setAdapterScale(0.5f), "adapter_scale", "give adapter");
    refused(with(request(prompt).setAdapterScale(0.5f), FIRST, 1), "adapter_scale", "weights");
    refused(with(request(prompt).setAdapter(FIRST), SECOND, 1), "adapter or adapters", "both");
    refused(nine, "at most 8", "got 9");
    refused(with(request(prompt), "", 1), "adapters", "name");
    refused(with(request(prompt), FIRST, 0.5, FIRST, 0.5), FIRST, "twice");
    for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY, 100.5f, -101}) {
      refused(request(prompt).setAdapter(FIRST).setAdapterScale(bad), "-100 to 100", "got " + bad);
      refused(with(request(prompt), FIRST, 1, SECOND, bad), SECOND, "got " + bad);
    }
    refused(request(prompt).setAdapter("dora_r8").setAdapterScale(0.5f), "dora_r8", "scale 0.5");
    refused(with(request(prompt), FIRST, 1, "dora_r8", 1), "dora_r8", "2 adapters");
    String digest = answer(request(prompt).setAdapter(FIRST)).getAdapterDigest();
    refused(with(request(prompt), FIRST, 1, digest, 1), FIRST, "same");
    RequestException failure = start(with(request(prompt), FIRST, 1, "nobody", 1)).failure();
    assertThat(failure.code()).isEqualTo(Code.NOT_FOUND);
    assertThat(failure).hasMessageContaining("nobody");
  }

  private void refused(GenerateRequest.Builder request, String... parts) throws Exception {
    RequestException failure = start(request).failure();
    assertThat(failure.code()).as(failure.getMessage()).isEqualTo(Code.INVALID_ARGUMENT);
    assertThat(failure).hasMessageContainingAll(parts);
    assertThat(adapters.list()).allMatch(entry -> entry.inUse() == 0);
  }
}
