package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.model.RandomModel;
import dev.wardrobe.model.Rope;
import dev.wardrobe.sampling.SamplingParams;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * A step of sequences that decode allocates nothing: scheduling, forward pass, sampling, delivery.
 * In a JVM of its own, since coverage agents allocate, and only once everything is compiled.
 */
@Timeout(400)
final class StepAllocationTest {
  private static final int JVMS = 3;
  private static final Duration LIMIT = Duration.ofSeconds(90);

  /** What the child JVM serves. */
  enum Setting {
    FLOAT32_KV(KvShape.Type.F32, MathMode.EXACT, 8),
    BFLOAT16_KV(KvShape.Type.BF16, MathMode.EXACT, 8),
    /** Query and key heads are normalized, as Qwen3's. */
    HEAD_NORMS(KvShape.Type.BF16, MathMode.EXACT, 8),
    /** So many sequences that the fast mode multiplies, by generated code where there is any. */
    FAST(KvShape.Type.BF16, MathMode.FAST, 20),
    /** Weights in float32, which oneDNN takes everywhere. */
    FAST_LIBRARY(KvShape.Type.BF16, MathMode.FAST, 20);

    private final KvShape.Type kv;
    private final MathMode math;
    private final int sequences;

    Setting(KvShape.Type kv, MathMode math, int sequences) {
      this.kv = kv;
      this.math = math;
      this.sequences = sequences;
    }
  }

  @ParameterizedTest
  @EnumSource(Setting.class)
  void decode_allocatesNothing(Setting setting) throws Exception {
    String refusal = CpuBackend.refusal(setting.math);
    assumeTrue(refusal == null, () -> "the fast mode is not to be had: " + refusal);
    // Now and then a JVM compiles a vector kernel so that it boxes, and keeps it so for as long as
    // it
    // lives (seen twice). That is the compiler's; what we allocate shows in each.
    List<String> outputs = new ArrayList<>();
    while (outputs.size() < JVMS) {
      String output = probe(setting);
      if (output.contains("zero bytes in 600 steps")) {
        return;
      }
      outputs.add(output);
    }
    assertThat(outputs).as("in none of %d JVMs without allocations", JVMS).isEmpty();
  }

  private static String probe(Setting setting) throws Exception {
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--add-modules=jdk.incubator.vector",
                "--enable-native-access=ALL-UNNAMED",
                "-Xmx1g",
                "-cp",
                System.getProperty(
                    "surefire.test.class.path", System.getProperty("java.class.path")),
                Probe.class.getName(),
                setting.name())
            .redirectErrorStream(true)
            .start();
    try {
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
      // 1 is the verdict; whatever else ends it is an error of its own.
      assertThat(process.exitValue()).as(output).isIn(0, 1);
      assertThat(output).as("what it measured").contains("bytes in 200 steps");
      return output;
    } finally {
      process.destroyForcibly();
    }
  }

  /** What the child JVM runs: rounds of sequences until three rounds in a row allocate nothing. */
  static final class Probe {
    private static final int FROM = 60;
    private static final int STEPS = 200;
    private static final int TOKENS = 300;

    private Probe() {}

    private static final ModelConfig HEAD_NORMS =
        new ModelConfig(
            "qwen3",
            2,
            128,
            4,
            2,
            32,
            256,
            300,
            1e-6f,
            Rope.unscaled(10000),
            List.of(0, 0),
            false,
            false,
            false,
            false,
            true,
            512,
            null,
            List.of(),
            null,
            null);

    public static void main(String[] args) throws Exception {
      Setting setting = Setting.valueOf(args[0]);
      CpuBackend backend = new CpuBackend(2, setting.math);
      if (backend.math() != setting.math) {
        throw new AssertionError(backend.describe());
      }
      if (setting == Setting.HEAD_NORMS) {
        try (backend;
            Model model = RandomModel.of("head norms", HEAD_NORMS, false, 1, backend)) {
          probe(setting, model, backend, null);
        }
        return;
      }
      if (setting == Setting.FAST_LIBRARY) {
        Path directory = TestBase.resource("models/llama_mha");
        try (backend;
            Model model = ModelLoader.load(directory, LoadOptions.AS_STORED, backend)) {
          probe(setting, model, backend, null);
        }
        return;
      }
      try (TestBase base = new TestBase(backend);
          AdapterRegistry adapters =
              new AdapterRegistry(
                  base.model(),
                  backend,
                  List.of(TestBase.resource("adapters/llama_mha")),
                  AdapterOptions.DEFAULT,
                  Runnable::run)) {
        probe(setting, base.model(), backend, adapters);
      }
    }

    private static void probe(
        Setting setting, Model model, CpuBackend backend, @Nullable AdapterRegistry adapters)
        throws Exception {
      EngineOptions options =
          EngineOptions.DEFAULT
              .withMaxSequences(setting.sequences)
              .withKvTokens(setting.sequences * 512)
              .withKvType(setting.kv);
      try (Engine engine = new Engine(model, backend, options)) {
        if (!backend.awaitWarm(Duration.ofMinutes(1))) {
          throw new AssertionError("the kernels are not warm");
        }
        Allocations allocations = new Allocations();
        long end = System.nanoTime() + LIMIT.toNanos();
        int empty = 0;
        while (empty < 3) {
          round(engine, tasks(setting, model, adapters), allocations);
          System.out.println("bytes in %d steps: %s".formatted(STEPS, allocations));
          empty = allocations.none() ? empty + 1 : 0;
          if (System.nanoTime() - end > 0) {
            System.exit(1);
          }
        }
        System.out.println("zero bytes in %d steps".formatted(3 * STEPS));
      }
    }

    /** Base and adapters of every kind, greedy and sampled, with and without log-probabilities. */
    private static List<GenerationTask> tasks(
        Setting setting, Model model, @Nullable AdapterRegistry adapters) throws Exception {
      String[] names = {
        "",
        "lora_r8_qv",
        "all_linear_r16",
        "dora_r8",
        "rslora_r32",
        "head_embed",
        "lora_r8_qv+all_linear_r16",
        "lora_r8_qv"
      };
      SamplingParams[] samplings = {
        SamplingParams.GREEDY,
        new SamplingParams(0.8f, 40, 0.9f, 0.02f, 1, 0, 0, 1),
        new SamplingParams(1.1f, 0, 0.95f, 0, 1.1f, 0.2f, 0.1f, 2),
        new SamplingParams(0.9f, 0, 1, 0, 1, 0, 0, 3, Map.of(5, 2f, 9, -100f), 1000)
      };
      int vocabulary = model.config().vocabulary();
      Set<Integer> outside = Set.of(vocabulary);
      List<GenerationTask> tasks = new ArrayList<>();
      for (int i = 0; i < setting.sequences; i++) {
        String name = names[i % names.length];
        List<AdapterPart> parts = new ArrayList<>();
        if (adapters != null && !name.isEmpty()) {
          for (String part : name.split("[+]")) {
            parts.add(new AdapterPart(adapters.lease(part).join(), name.equals(part) ? 1 : 0.5f));
          }
        }
        tasks.add(
            new GenerationTask(
                "probe",
                "",
                new Random(i).ints(8 + i % 8, 0, vocabulary).toArray(),
                parts,
                samplings[i % samplings.length],
                TOKENS,
                outside,
                outside,
                i % 4 == 3 ? 5 : 0,
                false,
                GenerationTask.NO_DEADLINE));
      }
      return tasks;
    }

    private static void round(Engine engine, List<GenerationTask> tasks, Allocations allocations)
        throws Exception {
      List<Counter> counters = new ArrayList<>();
      for (int i = 0; i < tasks.size(); i++) {
        // The last one begins last: from then on all decode.
        boolean last = i == tasks.size() - 1;
        Counter counter = new Counter(last ? allocations : null);
        counters.add(counter);
        engine.submit(tasks.get(i), counter);
      }
      for (Counter counter : counters) {
        Finish finish = counter.end.get(1, TimeUnit.MINUTES);
        if (finish.reason() != Finish.Reason.LENGTH) {
          throw new AssertionError(finish);
        }
      }
    }
  }

  /** A listener that counts, and has the allocations of the steps between two tokens noted. */
  private static final class Counter implements TokenListener {
    private final @Nullable Allocations allocations;
    private final CompletableFuture<Finish> end = new CompletableFuture<>();
    private int tokens;

    Counter(@Nullable Allocations allocations) {
      this.allocations = allocations;
    }

    @Override
    public boolean ready() {
      return true;
    }

    @Override
    public void admitted() {}

    @Override
    public void promptScored(List<Draw.Outcome> scores) {}

    @Override
    public boolean token(Draw.Outcome outcome, boolean last) {
      tokens++;
      if (allocations != null && tokens == Probe.FROM) {
        allocations.begin();
      } else if (allocations != null && tokens == Probe.FROM + Probe.STEPS) {
        allocations.end();
      }
      return true;
    }

    @Override
    public void finished(Finish finish) {
      end.complete(finish);
    }
  }

  /** Bytes that the engine's thread and the backend's have allocated. */
  private static final class Allocations {
    private final ThreadMXBean bean = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    private final List<Thread> threads;
    private final long[] before;
    private final long[] bytes;

    Allocations() {
      threads =
          Thread.getAllStackTraces().keySet().stream()
              .filter(
                  thread ->
                      thread.getName().equals("wardrobe-engine")
                          || thread.getName().startsWith("wardrobe-compute-"))
              .toList();
      assertThat(threads).hasSize(2);
      before = new long[threads.size()];
      bytes = new long[threads.size()];
    }

    void begin() {
      for (int i = 0; i < before.length; i++) {
        before[i] = bean.getThreadAllocatedBytes(threads.get(i).threadId());
      }
    }

    void end() {
      for (int i = 0; i < before.length; i++) {
        bytes[i] = bean.getThreadAllocatedBytes(threads.get(i).threadId()) - before[i];
      }
    }

    boolean none() {
      return Arrays.stream(bytes).allMatch(b -> b == 0);
    }

    @Override
    public String toString() {
      List<String> each = new ArrayList<>();
      for (int i = 0; i < bytes.length; i++) {
        each.add(threads.get(i).getName() + " " + bytes[i]);
      }
      return String.join(", ", each);
    }
  }
}
