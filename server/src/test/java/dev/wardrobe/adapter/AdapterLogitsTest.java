package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.LoraMix;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.Step;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.Decoder;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What a base answers with an adapter, against transformers and PEFT. */
final class AdapterLogitsTest {
  private static final double TOLERANCE = 1e-4;
  private static final int MAX_TOKENS = 256;
  private static final Pattern WEIGHTED =
      Pattern.compile("_(-?\\d+\\.\\d+)_([a-z].*?)(?=_-?\\d+\\.|$)");

  /** A base that generates, one sequence a row of block tables. */
  private static final class Run implements AutoCloseable {
    private static final int BLOCKS = 16;

    final Base base;
    private final KvCache cache;
    private final Decoder decoder;

    Run(Path directory, int sequences) throws Exception {
      this(new Base(directory), sequences);
    }

    Run(Base base, int sequences) {
      this.base = base;
      ModelConfig config = base.model.config();
      cache =
          base.backend.kvCache(
              new KvShape(
                  config.layers(),
                  config.kvHeads(),
                  config.headDim(),
                  BLOCKS * sequences,
                  KvShape.Type.F32));
      decoder = new Decoder(base.model, base.backend, cache, MAX_TOKENS, MAX_TOKENS);
    }

    Lora load(Path directory) throws AdapterException {
      try (Adapter adapter = Adapter.read(directory, base.model, AdapterOptions.DEFAULT)) {
        return base.backend.lora(adapter.deltas(), base.model::matrix);
      }
    }

    /** Logits of each token of each sequence, all in one step. */
    List<float[][]> logits(List<int[]> tokens, int position, List<@Nullable Lora> loras) {
      List<@Nullable LoraMix> mixes = new ArrayList<>();
      for (@Nullable Lora lora : loras) {
        mixes.add(lora == null ? null : LoraMix.of(lora));
      }
      return mixed(tokens, position, mixes);
    }

    /** The same with mixes. */
    List<float[][]> mixed(List<int[]> tokens, int position, List<@Nullable LoraMix> mixes) {
      Batch batch = new Batch();
      for (int i = 0; i < tokens.size(); i++) {
        int[] own = tokens.get(i);
        int[] all = new int[position + own.length];
        System.arraycopy(own, 0, all, position, own.length);
        int first = i * BLOCKS;
        int[] blocks = IntStream.range(first, first + BLOCKS).map(b -> b ^ 1).toArray();
        batch.add(all, position, own.length, blocks, mixes.get(i));
      }
      int total = batch.size();
      for (int row = 0; row < total; row++) {
        batch.want(row);
      }
      float[] values;
      try (Step step = base.backend.step(batch)) {
        decoder.forward(step);
        Buffer rows = decoder.logits(step, 0, total);
        values = base.backend.read(rows, 0, total);
      }
      int width = values.length / total;
      List<float[][]> logits = new ArrayList<>();
      int row = 0;
      for (int[] each : tokens) {
        float[][] own = new float[each.length][];
        for (int i = 0; i < own.length; i++, row++) {
          own[i] = Arrays.copyOfRange(values, row * width, (row + 1) * width);
        }
        logits.add(own);
      }
      return logits;
    }

    float[][] logits(int[] tokens, int position, @Nullable Lora lora) {
      List<@Nullable Lora> one = new ArrayList<>();
      one.add(lora);
      return logits(List.of(tokens), position, one).getFirst();
    }

    float[][] mixed(int[] tokens, int position, @Nullable LoraMix mix) {
      List<@Nullable LoraMix> one = new ArrayList<>();
      one.add(mix);
      return mixed(List.of(tokens), position, one).getFirst();
    }

    @Override
    public void close() {
      decoder.close();
      cache.close();
      base.close();
    }
  }

  private static void assertClose(String what, float[][] actual, float[] lastRows) {
    int width = actual[0].length;
    int rows = lastRows.length / width;
    assertThat(actual.length).as(what).isGreaterThanOrEqualTo(rows);
    for (int row = 0; row < rows; row++) {
      float[] got = actual[actual.length - rows + row];
      for (int i = 0; i < width; i++) {
        float expected = lastRows[row * width + i];
        assertThat(Math.abs((double) got[i] - expected))
            .as("%s row %d, %d: expected %s, got %s", what, row, i, expected, got[i])
            .isLessThanOrEqualTo(TOLERANCE + TOLERANCE * Math.abs(expected));
      }
    }
  }

  private static float[] values(SafetensorsFile file, String name) throws IOException {
    TensorInfo tensor = file.tensors().get(name);
    if (tensor == null) {
      throw new AssertionError("no tensor " + name);
    }
    return file.floats(tensor);
  }

  // The reference folder: every model, every adapter.

  static List<String> models() throws IOException {
    JsonNode index =
        Adapters.JSON.readTree(ReferenceFolder.require("golden/logits/logits.json").toFile());
    List<String> models = new ArrayList<>();
    index.get("checks").fieldNames().forEachRemaining(models::add);
    return models;
  }

  @ParameterizedTest
  @MethodSource("models")
  void adapters_meetReference(String model) throws Exception {
    Path golden = ReferenceFolder.require("golden");
    meets(golden.resolve("models"), golden.resolve("adapters"), golden.resolve("logits"), model);
  }

  @Test
  void adapters_ofTheSmallestModelMeetReference() throws Exception {
    Path golden = Adapters.resource("golden");
    meets(
        golden.resolve("models"),
        golden.resolve("adapters"),
        golden.resolve("logits"),
        "llama_mha");
  }

  private static void meets(Path models, Path adapters, Path logits, String model)
      throws Exception {
    JsonNode prompts =
        Adapters.JSON.readTree(logits.resolve("logits.json").toFile()).at("/prompts/" + model);
    JsonNode expected = Adapters.JSON.readTree(logits.resolve(model + ".json").toFile());
    try (SafetensorsFile file = SafetensorsFile.open(logits.resolve(model + ".safetensors"));
        Run run = new Run(models.resolve(model + "-nf4-dq"), 1)) {
      Map<String, List<String>> cases = new TreeMap<>();
      for (String key : file.tensors().keySet()) {
        String[] parts = key.split("/");
        if (parts[0].equals("nf4-dq") && !parts[1].matches("base|mix_.*")) {
          cases.computeIfAbsent(parts[1], a -> new ArrayList<>()).add(parts[2]);
        }
      }
      assertThat(cases).as(model).hasSizeGreaterThanOrEqualTo(3);
      long before = run.base.backend.liveBytes();
      for (Map.Entry<String, List<String>> each : cases.entrySet()) {
        String adapter = each.getKey();
        try (Lora lora = run.load(adapters.resolve(model).resolve(adapter))) {
          for (String prompt : each.getValue()) {
            String key = "nf4-dq/" + adapter + "/" + prompt + "/logits";
            int[] tokens = ints(prompts.get(prompt));
            assertClose(model + " " + key, run.logits(tokens, 0, lora), values(file, key));
          }
          String variant = "nf4-dq/" + adapter;
          JsonNode greedy = expected.path(variant).path("p24").path("greedy");
          if (!greedy.isMissingNode()) {
            generates(run, lora, ints(prompts.get("p24")), greedy, model + " " + variant);
          }
        }
        assertThat(run.base.backend.liveBytes()).as("%s %s", model, adapter).isEqualTo(before);
      }
    }
  }

  // Weighted sums of adapters.

  @ParameterizedTest
  @MethodSource("models")
  void mixes_meetReference(String model) throws Exception {
    Path golden = ReferenceFolder.require("golden");
    mixesMeet(golden, model);
  }

  @Test
  void mixes_ofTheSmallestModelMeetReference() throws Exception {
    mixesMeet(Adapters.resource("golden"), "llama_mha");
  }

  /** {@code mix_0.7_ONE_0.3_OTHER}: the sum of two adapters' deltas. */
  private static void mixesMeet(Path golden, String model) throws Exception {
    Path logits = golden.resolve("logits");
    JsonNode prompts =
        Adapters.JSON.readTree(logits.resolve("logits.json").toFile()).at("/prompts/" + model);
    int checked = 0;
    try (SafetensorsFile file = SafetensorsFile.open(logits.resolve(model + ".safetensors"));
        Run run = new Run(golden.resolve("models").resolve(model + "-nf4-dq"), 1)) {
      for (String key : file.tensors().keySet()) {
        String[] parts = key.split("/");
        if (!parts[1].startsWith("mix_")) {
          continue;
        }
        Matcher weighted = WEIGHTED.matcher(parts[1]);
        List<Lora> loras = new ArrayList<>();
        try {
          float[] scales = new float[2];
          while (weighted.find()) {
            scales[loras.size()] = Float.parseFloat(weighted.group(1));
            loras.add(
                run.load(golden.resolve("adapters").resolve(model).resolve(weighted.group(2))));
          }
          assertThat(loras).as(key).hasSize(2);
          int[] tokens = ints(prompts.get(parts[2]));
          LoraMix mix = LoraMix.of(loras, scales);
          float[] expected = values(file, key);
          assertClose(key, run.mixed(tokens, 0, mix), expected);
          // Token by token, as it decodes.
          float[][] single = new float[tokens.length][];
          for (int i = 0; i < tokens.length; i++) {
            single[i] = run.mixed(new int[] {tokens[i]}, i, mix)[0];
          }
          assertThat(single).as(key).isDeepEqualTo(run.mixed(tokens, 0, mix));
          checked++;
        } finally {
          loras.forEach(Lora::close);
        }
      }
    }
    assertThat(checked).as(model).isGreaterThanOrEqualTo(2);
  }

  /** Greedy tokens are equal up to the first step whose two best are nearly the same. */
  private static void generates(Run run, Lora lora, int[] prompt, JsonNode greedy, String what) {
    float[][] logits = run.logits(prompt, 0, lora);
    int[] expected = ints(greedy.get("tokens"));
    for (int i = 0; i < expected.length; i++) {
      if (greedy.get("gaps").get(i).doubleValue() < 1e-3) {
        return;
      }
      float[] last = logits[logits.length - 1];
      int best = 0;
      for (int token = 1; token < last.length; token++) {
        best = last[token] > last[best] ? token : best;
      }
      assertThat(best).as("%s, token %d", what, i).isEqualTo(expected[i]);
      assertThat(logProbability(last, best))
          .as("%s, log-probability of token %d", what, i)
          .isCloseTo(greedy.get("logprobs").get(i).doubleValue(), within(1e-4));
      logits = run.logits(new int[] {best}, prompt.length + i, lora);
    }
  }

  private static double logProbability(float[] logits, int token) {
    double sum = 0;
    for (float logit : logits) {
      sum += Math.exp((double) logit - logits[token]);
    }
    return -Math.log(sum);
  }

  private static int[] ints(JsonNode list) {
    return IntStream.range(0, list.size()).map(i -> list.get(i).intValue()).toArray();
  }

  // Kinds that are rare, over an unquantized base.

  static List<Path> rare() throws IOException {
    return Adapters.directories(Adapters.resource("adapter/peft"));
  }

  @ParameterizedTest
  @MethodSource("rare")
  void rareKinds_meetPeft(Path directory) throws Exception {
    Path expected = Adapters.resource("adapter/peft/logits.safetensors");
    Path model = Adapters.resource("golden/models/llama_mha");
    try (SafetensorsFile file = SafetensorsFile.open(expected);
        Run run = new Run(model, 1);
        Lora lora = run.load(directory)) {
      int[] tokens = {51, 447, 408, 500, 385, 443, 458, 115, 113, 123, 507, 72};
      String name = directory.getFileName().toString();
      assertClose(name, run.logits(tokens, 0, lora), values(file, name));
    }
  }

  /**
   * An adapter of the head adds to a head that is quantized at load what it adds to one of 16 bits.
   */
  @Test
  void head_quantizedAtLoad() throws Exception {
    float[][] plain = headDelta(LoadOptions.AS_STORED);
    float[][] quantized = headDelta(LoadOptions.AS_STORED.withQuantizeHead(true));
    float largest = 0;
    for (int row = 0; row < plain.length; row++) {
      for (int i = 0; i < plain[row].length; i++) {
        largest = Math.max(largest, Math.abs(plain[row][i]));
      }
    }
    assertThat(largest).isGreaterThan(100 * (float) TOLERANCE);
    for (int row = 0; row < plain.length; row++) {
      assertThat(quantized[row]).containsExactly(plain[row], within((float) TOLERANCE));
    }
  }

  /** What an adapter of embedding, q_proj and head changes by its head alone. */
  private static float[][] headDelta(LoadOptions options) throws Exception {
    int[] tokens = {51, 447, 408, 500, 385, 443};
    Path directory = Adapters.resource("golden/adapters/llama_mha/head_embed");
    try (Run run =
            new Run(new Base(Adapters.resource("golden/models/llama_mha-nf4-dq"), options), 1);
        Adapter adapter = Adapter.read(directory, run.base.model, AdapterOptions.DEFAULT)) {
      int head = run.base.model.modules().head().id();
      assertThat(run.base.model.modules().head().quantized()).isEqualTo(options.quantizeHead());
      assertThat(adapter.warnings()).isEmpty();
      Map<Integer, Delta> others = new TreeMap<>(adapter.deltas());
      assertThat(others.remove(head)).isNotNull();
      try (Lora whole = run.base.backend.lora(adapter.deltas(), run.base.model::matrix);
          Lora headless = run.base.backend.lora(others, run.base.model::matrix)) {
        float[][] delta = run.logits(tokens, 0, whole);
        float[][] without = run.logits(tokens, 0, headless);
        for (int row = 0; row < delta.length; row++) {
          for (int i = 0; i < delta[row].length; i++) {
            delta[row][i] -= without[row][i];
          }
        }
        return delta;
      }
    }
  }

  /** Base, adapter and mixtures in one step of the fast mode: within its tolerance for models. */
  @Test
  void mixes_inTheFastMode_areCloseToTheExactOne() throws Exception {
    String refusal = CpuBackend.refusal(MathMode.FAST);
    assumeTrue(refusal == null, () -> "the fast mode is not to be had: " + refusal);
    Path model = Adapters.resource("golden/models/llama_mha-nf4-dq");
    try (Run exact = new Run(new Base(model, LoadOptions.DEFAULT), 4);
        Run fast = new Run(new Base(model, LoadOptions.DEFAULT, MathMode.FAST), 4)) {
      assertThat(fast.base.backend.math()).isEqualTo(MathMode.FAST);
      int vocabulary = exact.base.model.config().vocabulary();
      List<int[]> prompts =
          IntStream.range(0, 4)
              .mapToObj(i -> new Random(i).ints(20 + i, 0, vocabulary).toArray())
              .toList();
      List<float[][]> expected = mixtures(exact, prompts);
      List<float[][]> actual = mixtures(fast, prompts);
      for (int i = 0; i < prompts.size(); i++) {
        assertThat(distance(expected.get(i), actual.get(i)))
            .as("prompt %d", i)
            .isGreaterThan(0)
            .isLessThan(0.02);
        // The mixture shows, far more than the mode does.
        if (i > 0) {
          assertThat(distance(base(exact, prompts.get(i)), actual.get(i))).isGreaterThan(0.1);
        }
      }
    }
  }

  private static float[][] base(Run run, int[] prompt) {
    return run.mixed(prompt, 0, null);
  }

  private static List<float[][]> mixtures(Run run, List<int[]> prompts) throws Exception {
    Path adapters = Adapters.resource("golden/adapters/llama_mha");
    try (Lora first = run.load(adapters.resolve("all_linear_r16"));
        Lora second = run.load(adapters.resolve("rslora_r32"))) {
      List<@Nullable LoraMix> mixes = new ArrayList<>();
      mixes.add(null);
      mixes.add(LoraMix.of(first));
      mixes.add(LoraMix.of(List.of(first, second), 0.7f, 0.3f));
      mixes.add(LoraMix.of(List.of(second, first), -0.5f, 1.5f));
      return run.mixed(prompts, 0, mixes);
    }
  }

  /** Root mean square of the differences, of that of what is expected about its mean. */
  private static double distance(float[][] expected, float[][] actual) {
    double differences = 0;
    double spread = 0;
    for (int row = 0; row < expected.length; row++) {
      double mean = 0;
      for (float value : expected[row]) {
        mean += value / expected[row].length;
      }
      for (int i = 0; i < expected[row].length; i++) {
        differences += Math.pow((double) expected[row][i] - actual[row][i], 2);
        spread += Math.pow(expected[row][i] - mean, 2);
      }
    }
    return Math.sqrt(differences / spread);
  }

  /** Mixes beside single adapters and the base get the bits that each gets alone. */
  @Test
  void mixes_inOneBatchAreAsAlone() throws Exception {
    Path adapters = Adapters.resource("golden/adapters/llama_mha");
    try (Run run = new Run(Adapters.resource("golden/models/llama_mha-nf4-dq"), 7);
        Lora first = run.load(adapters.resolve("lora_r8_qv"));
        Lora second = run.load(adapters.resolve("all_linear_r16"));
        Lora third = run.load(adapters.resolve("head_embed"))) {
      List<@Nullable LoraMix> mixes = new ArrayList<>();
      mixes.add(null);
      mixes.add(LoraMix.of(first));
      mixes.add(LoraMix.of(List.of(first, second), 0.7f, 0.3f));
      mixes.add(LoraMix.of(List.of(second, first), 0.3f, 0.7f));
      mixes.add(LoraMix.of(List.of(third, first, second), -1, 0.5f, 2));
      mixes.add(LoraMix.of(List.of(first), 0.5f));
      mixes.add(LoraMix.of(List.of(first, second), 0, 0));
      List<int[]> prompts =
          IntStream.range(0, mixes.size())
              .mapToObj(i -> IntStream.range(0, 11).map(t -> t * 37 % 500).toArray())
              .toList();
      List<float[][]> together = run.mixed(prompts, 0, mixes);
      for (int i = 0; i < mixes.size(); i++) {
        assertThat(run.mixed(prompts.get(i), 0, mixes.get(i)))
            .as("sequence %d", i)
            .isDeepEqualTo(together.get(i));
        for (int j = 0; j < i; j++) {
          if (i != 6 || j != 0) {
            assertThat(together.get(i)[10]).as("%d and %d", i, j).isNotEqualTo(together.get(j)[10]);
          }
        }
      }
      assertThat(together.get(6)).isDeepEqualTo(together.get(0));
    }
  }

  /** Sequences of all adapters in one step get the bits that each gets alone. */
  @Test
  void adapters_inOneBatchAreAsAlone() throws Exception {
    List<Path> directories = Adapters.directories(Adapters.resource("golden/adapters/llama_mha"));
    try (Run run =
        new Run(Adapters.resource("golden/models/llama_mha-nf4-dq"), directories.size() + 1)) {
      List<@Nullable Lora> loras = new ArrayList<>();
      try {
        loras.add(null);
        for (Path directory : directories) {
          loras.add(run.load(directory));
        }
        List<int[]> prompts =
            IntStream.range(0, loras.size())
                .mapToObj(i -> IntStream.range(0, 5 + 3 * i).map(t -> (t * 37 + i) % 500).toArray())
                .toList();
        List<float[][]> together = run.logits(prompts, 0, loras);
        for (int i = 0; i < loras.size(); i++) {
          assertThat(run.logits(prompts.get(i), 0, loras.get(i)))
              .as("sequence %d", i)
              .isDeepEqualTo(together.get(i));
        }
        assertThat(together.get(0)[4]).isNotEqualTo(together.get(1)[4]);
      } finally {
        for (Lora lora : loras) {
          if (lora != null) {
            lora.close();
          }
        }
      }
    }
  }
}
