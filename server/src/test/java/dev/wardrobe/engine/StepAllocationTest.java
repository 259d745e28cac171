package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.ThreadMXBean;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.sampling.SamplingParams;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
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
@Timeout(240)
final class StepAllocationTest {
  private static final Duration LIMIT = Duration.ofSeconds(120);

  @ParameterizedTest
  @EnumSource(KvShape.Type.class)
  void decode_allocatesNothing(KvShape.Type kv) throws Exception {
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
                kv.name())
            .redirectErrorStream(true)
            .start();
    try {
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
      assertThat(process.exitValue()).as(output).isZero();
      assertThat(output).contains("zero bytes in 600 steps");
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

    public static void main(String[] args) throws Exception {
      EngineOptions options =
          EngineOptions.DEFAULT
              .withMaxSequences(8)
              .withKvTokens(8 * 512)
              .withKvType(KvShape.Type.valueOf(args[0]));
      try (TestBase base = new TestBase(new CpuBackend(2));
          AdapterRegistry adapters =
              new AdapterRegistry(
                  base.model(),
                  base.backend(),
                  List.of(TestBase.resource("adapters/llama_mha")),
                  AdapterOptions.DEFAULT,
                  Runnable::run);
          Engine engine = base.engine(options)) {
        base.backend().awaitWarm(Duration.ofMinutes(1));
        Allocations allocations = new Allocations();
        long end = System.nanoTime() + LIMIT.toNanos();
        int empty = 0;
        while (empty < 3) {
          round(engine, tasks(base, adapters), allocations);
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
    private static List<GenerationTask> tasks(TestBase base, AdapterRegistry adapters)
        throws Exception {
      String[] names = {
        "", "lora_r8_qv", "all_linear_r16", "dora_r8", "rslora_r32", "head_embed", "", "lora_r8_qv"
      };
      SamplingParams[] samplings = {
        SamplingParams.GREEDY,
        new SamplingParams(0.8f, 40, 0.9f, 0.02f, 1, 0, 0, 1),
        new SamplingParams(1.1f, 0, 0.95f, 0, 1.1f, 0.2f, 0.1f, 2)
      };
      List<GenerationTask> tasks = new ArrayList<>();
      for (int i = 0; i < names.length; i++) {
        Lease lease = names[i].isEmpty() ? null : adapters.lease(names[i]).join();
        int[] prompt = base.prompt(i, 8 + i);
        Set<Integer> outside = Set.of(base.model().config().vocabulary());
        tasks.add(
            new GenerationTask(
                "probe",
                prompt,
                lease,
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
