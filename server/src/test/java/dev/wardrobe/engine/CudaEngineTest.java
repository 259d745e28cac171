package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.compute.cuda.CudaBackend;
import dev.wardrobe.compute.cuda.Emulator;
import dev.wardrobe.compute.cuda.Labs;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.sampling.SamplingParams;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import jcuda.driver.CUresult;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Serving on a CUDA device: the embedded model, its adapters mixed, by graphs, paging. */
@Timeout(300)
final class CudaEngineTest {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy/models/demo");

  private static final EngineOptions OPTIONS =
      EngineOptions.DEFAULT
          .withMaxSequences(8)
          .withPrefillTokens(64)
          .withKvTokens(1024)
          .withAdapterBytes(8 << 20);

  /** Where the two best tokens are closer, another order of sums may choose the other. */
  private static final double SURE = 0.05;

  /** A prompt of the golden data, asked of the base or of an adapter. */
  private record Question(String adapter, int[] prompt) {}

  /** The embedded model on a backend. */
  private static final class Demo implements AutoCloseable {
    final Backend backend;
    final Model model;
    final AdapterRegistry adapters;

    Demo(Backend backend) throws Exception {
      this(backend, DEMO.resolve("adapters"), Runnable::run);
    }

    Demo(Backend backend, Path folder, Executor loader) throws Exception {
      this.backend = backend;
      model = ModelLoader.load(DEMO.resolve("base"), LoadOptions.DEFAULT, backend);
      adapters =
          new AdapterRegistry(model, backend, List.of(folder), AdapterOptions.DEFAULT, loader);
    }

    Engine engine(EngineOptions options) {
      return new Engine(model, backend, options);
    }

    GenerationTask task(Question question, int maxTokens, int top) {
      List<AdapterPart> parts = new ArrayList<>();
      if (!question.adapter.isEmpty()) {
        parts.add(new AdapterPart(adapters.lease(question.adapter).join()));
      }
      return new GenerationTask(
          "test",
          "",
          question.prompt,
          parts,
          SamplingParams.GREEDY,
          maxTokens,
          Set.copyOf(model.config().eos()),
          Set.of(),
          top,
          false,
          GenerationTask.NO_DEADLINE);
    }

    /** All of them at once. */
    List<Recorder> ask(Engine engine, List<Question> questions, int maxTokens, int top)
        throws Exception {
      List<Recorder> recorders = new ArrayList<>();
      for (Question question : questions) {
        Recorder recorder = new Recorder();
        engine.submit(task(question, maxTokens, top), recorder);
        recorders.add(recorder);
      }
      for (Recorder recorder : recorders) {
        Finish finish = recorder.finish();
        assertThat(finish.failure()).isNull();
      }
      return recorders;
    }

    @Override
    public void close() {
      adapters.close();
      model.close();
      assertThat(
              backend instanceof CudaBackend cuda
                  ? cuda.liveBytes()
                  : ((CpuBackend) backend).liveBytes())
          .isZero();
      backend.close();
    }
  }

  private static CudaBackend cuda(long seed) {
    Emulator emulator = Emulator.load();
    emulator.reset();
    emulator.seed(seed);
    return Labs.backend(emulator);
  }

  /** Prompts of at most so many tokens, of the base and of all adapters. */
  private static List<Question> questions(int longest) throws Exception {
    JsonNode cases =
        new ObjectMapper().readTree(DEMO.resolve("base/golden.json").toFile()).get("cases");
    List<Question> questions = new ArrayList<>();
    for (JsonNode each : cases) {
      int[] prompt = new ObjectMapper().convertValue(each.get("prompt_ids"), int[].class);
      if (prompt.length <= longest) {
        questions.add(
            new Question(each.get("adapter").isNull() ? "" : each.get("adapter").asText(), prompt));
      }
    }
    return questions;
  }

  private static List<List<Integer>> bits(List<Recorder> recorders) {
    return recorders.stream().map(Recorder::bits).toList();
  }

  /**
   * Asserts that answers are those of the CPU up to the first token that rounding may decide.
   *
   * @return how many are the CPU's to the end
   */
  private static int assertAsTheCpu(List<Recorder> expected, List<Recorder> given) {
    int whole = 0;
    for (int i = 0; i < expected.size(); i++) {
      List<Integer> ids = expected.get(i).ids();
      int sure = 0;
      while (sure < ids.size() && gap(expected.get(i).tokens.get(sure)) >= SURE) {
        sure++;
      }
      assertThat(given.get(i).ids())
          .as("question %d, sure of %d", i, sure)
          .startsWith(ids.subList(0, sure).toArray(Integer[]::new));
      whole += given.get(i).ids().equals(ids) ? 1 : 0;
    }
    return whole;
  }

  @Test
  void greedy_asTheCpu() throws Exception {
    List<Question> questions = questions(11);
    assertThat(questions.stream().map(Question::adapter).distinct()).hasSize(5);
    List<Recorder> expected;
    try (Demo demo = new Demo(new CpuBackend(2));
        Engine engine = demo.engine(OPTIONS)) {
      expected = demo.ask(engine, questions, 12, 2);
    }
    try (Demo demo = new Demo(cuda(1));
        Engine engine = demo.engine(OPTIONS)) {
      List<Recorder> given = demo.ask(engine, questions, 12, 2);
      int whole = assertAsTheCpu(expected, given);
      assertThat(whole).isGreaterThanOrEqualTo(9 * questions.size() / 10);
      assertThat(((CudaBackend) demo.backend).replays()).isPositive();
    }
  }

  private static double gap(Draw.Outcome outcome) {
    return outcome.topLogprobs()[0] - outcome.topLogprobs()[1];
  }

  /** Base and all adapters in each step, as many as there are places, decoding by one launch. */
  @Test
  void decode_isOneLaunchOfAGraph() throws Exception {
    List<Question> mixed = mixed();
    Emulator emulator = Emulator.load();
    try (Demo demo = new Demo(cuda(2));
        Engine engine = demo.engine(OPTIONS)) {
      List<List<Integer>> first = bits(demo.ask(engine, mixed, 6, 0));
      long launches = emulator.count("cuLaunchKernel");
      long graphs = emulator.count("cuGraphLaunch");
      long replays = ((CudaBackend) demo.backend).replays();
      long steps = engine.stats().steps();

      List<List<Integer>> second = bits(demo.ask(engine, mixed, 6, 0));

      assertThat(second).isEqualTo(first);
      long decoded = ((CudaBackend) demo.backend).replays() - replays;
      assertThat(emulator.count("cuGraphLaunch") - graphs).isEqualTo(decoded);
      assertThat(engine.stats().steps() - steps).isGreaterThan(decoded);
      // Those that took in prompts are all that was launched one by one, and sizes that are new,
      // whose operations are launched once more to be captured.
      long others = engine.stats().steps() - steps - decoded;
      assertThat(others).isLessThanOrEqualTo(mixed.size());
      assertThat(decoded).isGreaterThanOrEqualTo(4);
      assertThat(emulator.count("cuLaunchKernel") - launches).isLessThan(others * 300);
    }
  }

  private static List<Question> mixed() throws Exception {
    Map<String, Question> byAdapter = new HashMap<>();
    for (Question question : questions(7)) {
      byAdapter.putIfAbsent(question.adapter, question);
    }
    return byAdapter.values().stream().sorted(Comparator.comparing(Question::adapter)).toList();
  }

  @Test
  void everyOrderOfThreads_sameBits() throws Exception {
    List<Question> mixed = mixed().subList(0, 3);
    Emulator emulator = Emulator.load();
    try (Demo demo = new Demo(cuda(1));
        Engine engine = demo.engine(OPTIONS.withKvTokens(128))) {
      List<List<Integer>> expected = List.of();
      for (int seed = 1; seed <= 20; seed++) {
        emulator.seed(seed);
        List<List<Integer>> given = bits(demo.ask(engine, mixed, 4, 1));
        expected = seed == 1 ? given : expected;
        assertThat(given).as("seed %d", seed).isEqualTo(expected);
      }
      assertThat(emulator.count("cuGraphLaunch")).as("graph launches").isGreaterThan(40);
    }
  }

  /**
   * Pages change hands: sequences lose theirs and are computed again, adapters come beside running
   * steps and go, and no bit changes, whatever the order in which the device does things.
   */
  @Test
  void paging_andLoadsBesideSteps_sameBits() throws Exception {
    Map<String, Question> perAdapter = new LinkedHashMap<>();
    questions(11).forEach(question -> perAdapter.putIfAbsent(question.adapter, question));
    List<Question> questions = List.copyOf(perAdapter.values());
    assertThat(questions).hasSize(5);
    Emulator emulator = Emulator.load();
    Path set = DEMO.resolve("adapters");
    try (ExecutorService loader = Executors.newSingleThreadExecutor()) {
      List<Recorder> onTheCpu;
      try (Demo demo = new Demo(new CpuBackend(1), set, loader);
          Engine engine = demo.engine(OPTIONS)) {
        onTheCpu = demo.ask(engine, questions, 6, 2);
      }
      try (Demo demo = new Demo(cuda(3), set, loader)) {
        long bytes = 0;
        for (Question question : questions) {
          if (!question.adapter.isEmpty()) {
            try (Lease lease = demo.adapters.lease(question.adapter).join()) {
              bytes = Math.max(bytes, lease.deviceBytes());
            }
          }
        }
        List<List<Integer>> expected = new ArrayList<>();
        try (Engine engine = demo.engine(OPTIONS.withAdapterBytes(4 * bytes))) {
          for (Question question : questions) {
            expected.addAll(bits(demo.ask(engine, List.of(question), 6, 1)));
          }
        }
        long unmapped = emulator.count("cuMemUnmap");
        long page = OPTIONS.shape(demo.model.config()).blockBytes();
        // Room for one adapter, and for two or three of the five sequences at their longest.
        try (Engine engine =
            demo.engine(
                OPTIONS
                    .withKvTokens(64)
                    .withAdapterBytes(Math.ceilDiv(bytes, page) * page)
                    .withMaxLoads(1))) {
          for (int seed = 1; seed <= 20; seed++) {
            emulator.seed(seed);
            List<Recorder> recorders = demo.ask(engine, questions, 6, 1);
            assertThat(bits(recorders)).as("seed %d", seed).isEqualTo(expected);
            assertAsTheCpu(onTheCpu, recorders);
          }
          assertThat(engine.stats().adapterEvictions()).isGreaterThan(1);
        }
        assertThat(emulator.count("cuMemUnmap")).isGreaterThan(unmapped);
        assertThat(emulator.report()).isEmpty();
      }
    }
  }

  /** What a failed kernel leaves: every request told, and an engine that says it is gone. */
  @Test
  void kernelFails_engineEndsCleanly() throws Exception {
    Emulator emulator = Emulator.load();
    CudaBackend backend = cuda(4);
    Demo demo = new Demo(backend);
    Engine engine = demo.engine(OPTIONS);
    Question question = questions(7).getFirst();
    demo.ask(engine, List.of(question), 2, 0);
    emulator.fail("cuStreamSynchronize", 2, CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    Recorder recorder = new Recorder();
    engine.submit(demo.task(question, 40, 0), recorder);
    Finish finish = recorder.finish();
    assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
    assertThat(finish.failure()).hasMessageContaining("CUDA_ERROR_ILLEGAL_ADDRESS");
    await().atMost(Duration.ofSeconds(10)).until(() -> !engine.alive());
    assertThatThrownBy(() -> engine.submit(demo.task(question, 4, 0), new Recorder()))
        .isInstanceOf(EngineException.class);
    engine.close();
    demo.adapters.close();
    demo.model.close();
    assertThat(backend.liveBytes()).isZero();
    backend.close();
    emulator.reset();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3, 20})
  void outOfMemory_whileTheModelIsLoaded(int nth) {
    Emulator emulator = Emulator.load();
    CudaBackend backend = cuda(5);
    long before = emulator.liveBytes();
    emulator.fail("cuMemAlloc", nth, CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    assertThatThrownBy(() -> ModelLoader.load(DEMO.resolve("base"), LoadOptions.DEFAULT, backend))
        .isInstanceOf(OutOfMemoryException.class)
        .hasMessageContaining("bytes asked of the device");
    assertThat(backend.liveBytes()).isZero();
    assertThat(emulator.liveBytes()).isEqualTo(before);
    backend.close();
    emulator.reset();
  }

  /** The adapter's request is told, the others' go on, and the next one finds room again. */
  @Test
  void outOfMemory_whileAnAdapterIsLoaded() throws Exception {
    Emulator emulator = Emulator.load();
    try (Demo demo = new Demo(cuda(6));
        Engine engine = demo.engine(OPTIONS)) {
      Question adapted =
          questions(7).stream().filter(q -> !q.adapter.isEmpty()).findFirst().orElseThrow();
      Question plain = new Question("", adapted.prompt);
      demo.ask(engine, List.of(plain), 3, 0);
      CudaBackend backend = (CudaBackend) demo.backend;
      long before = backend.liveBytes();
      emulator.budget(emulator.liveBytes());
      emulator.fail("cuMemCreate", 1, CUresult.CUDA_ERROR_OUT_OF_MEMORY);
      Recorder recorder = new Recorder();
      engine.submit(demo.task(adapted, 4, 0), recorder);
      Finish finish = recorder.finish();
      assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
      assertThat(finish.failure().reason()).isEqualTo(EngineException.Reason.ADAPTER);
      assertThat(finish.failure()).hasMessageContaining(adapted.adapter);
      await().atMost(Duration.ofSeconds(10)).until(() -> backend.liveBytes() == before);
      emulator.budget(1L << 30);
      assertThat(demo.ask(engine, List.of(adapted, plain), 4, 0)).hasSize(2);
    }
  }
}
