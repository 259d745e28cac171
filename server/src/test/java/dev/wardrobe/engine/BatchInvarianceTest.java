package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.sampling.SamplingParams;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * A request's tokens and log-probabilities, bit for bit, are those that it has alone on an empty
 * engine: whatever shares its steps, however its prompt is cut, whatever it takes from the prefix
 * cache, whether its pages or its adapter's memory are taken away meanwhile, on one thread or two.
 */
@Timeout(240)
final class BatchInvarianceTest {
  private static final int REQUESTS = 36;

  /** An adapter at a scale. */
  private record Part(String name, float scale) {}

  /** What is added to the base; some but for the scale the same. */
  private static final List<List<Part>> ADAPTERS =
      List.of(
          List.of(),
          List.of(new Part("all_linear_r16", 1)),
          List.of(new Part("all_linear_r16", 0.5f)),
          List.of(new Part("dora_r8", 1)),
          List.of(new Part("lora_r8_qv", 1)),
          List.of(new Part("rslora_r32", 1)),
          List.of(new Part("rslora_r32", 0.3f), new Part("lora_r8_qv", 0.7f)),
          List.of(new Part("lora_r8_qv", 0.7f), new Part("rslora_r32", 0.3f)),
          List.of(new Part("head_embed", 1)));

  private static final EngineOptions ROOMY =
      EngineOptions.DEFAULT.withKvTokens(4096).withKvType(KvShape.Type.BF16);

  private static TestBase one;
  private static TestBase two;

  /** What requests give alone, by seed. */
  private static final Map<Long, List<List<List<Integer>>>> ALONE = new HashMap<>();

  /** Several answers to one prompt. */
  private record Request(
      List<Part> adapters,
      int[] prompt,
      SamplingParams sampling,
      int maxTokens,
      int top,
      boolean echo,
      int choices) {

    GenerationTask task(AdapterRegistry registry) {
      List<AdapterPart> parts = new ArrayList<>();
      for (Part part : adapters) {
        parts.add(new AdapterPart(registry.lease(part.name()).join(), part.scale()));
      }
      return Tasks.of(prompt, parts, sampling, maxTokens, top, echo);
    }

    /** The same with one answer: the {@code i}th of the several. */
    Request choice(int i) {
      return new Request(
          adapters, prompt, sampling.forChoice(i), maxTokens, top, echo && i == 0, 1);
    }
  }

  @BeforeAll
  static void load() throws Exception {
    one = new TestBase(1);
    two = new TestBase(new CpuBackend(2));
  }

  @AfterAll
  static void close() {
    one.close();
    two.close();
    assertThat(one.backend().liveBytes()).isZero();
    assertThat(two.backend().liveBytes()).isZero();
  }

  private static AdapterRegistry registry(TestBase base) throws Exception {
    return new AdapterRegistry(
        base.model(),
        base.backend(),
        List.of(TestBase.resource("adapters/llama_mha")),
        AdapterOptions.DEFAULT,
        task -> Thread.ofVirtual().start(task));
  }

  /** Prompts that begin alike, under different adapters, drawn in different ways. */
  private static List<Request> requests(long seed) {
    Random random = new Random(seed);
    int[][] stems = new int[4][];
    for (int i = 0; i < stems.length; i++) {
      stems[i] = one.prompt(random.nextLong(), 40 + random.nextInt(60));
    }
    List<Request> requests = new ArrayList<>();
    for (int i = 0; i < REQUESTS; i++) {
      int[] stem = stems[random.nextInt(stems.length)];
      int[] prompt =
          IntStream.concat(
                  Arrays.stream(stem, 0, random.nextInt(3) == 0 ? stem.length / 2 : stem.length),
                  Arrays.stream(one.prompt(random.nextLong(), 1 + random.nextInt(40))))
              .toArray();
      SamplingParams sampling =
          random.nextInt(3) == 0
              ? SamplingParams.GREEDY
              : Tasks.sampled(prompt, 1, random.nextLong()).sampling();
      requests.add(
          new Request(
              ADAPTERS.get(random.nextInt(ADAPTERS.size())),
              prompt,
              sampling,
              8 + random.nextInt(32),
              random.nextInt(3),
              random.nextInt(6) == 0,
              random.nextInt(5) == 0 ? 3 : 1));
    }
    return requests;
  }

  private static List<List<List<Integer>>> alone(long seed) throws Exception {
    List<List<List<Integer>>> known = ALONE.get(seed);
    if (known != null) {
      return known;
    }
    List<List<List<Integer>>> all = new ArrayList<>();
    try (AdapterRegistry adapters = registry(one)) {
      for (Request request : requests(seed)) {
        List<List<Integer>> choices = new ArrayList<>();
        for (int i = 0; i < request.choices(); i++) {
          try (Engine engine = one.engine(ROOMY)) {
            Recorder recorder = new Recorder();
            engine.submit(request.choice(i).task(adapters), recorder);
            assertThat(recorder.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
            choices.add(recorder.bits());
          }
        }
        all.add(choices);
      }
    }
    ALONE.put(seed, all);
    return all;
  }

  /** Bytes of the pages that adapters take. */
  private static long pages(AdapterRegistry adapters, List<Part> parts) {
    long page = ROOMY.shape(one.model().config()).blockBytes();
    long bytes = 0;
    for (Part part : parts) {
      try (Lease lease = adapters.lease(part.name()).join()) {
        bytes += Math.ceilDiv(lease.deviceBytes(), page) * page;
      }
    }
    return bytes;
  }

  /** Who is held back for a while. */
  private record Held(Ticket ticket, Recorder recorder) {
    void release() {
      recorder.ready = true;
      ticket.resume();
    }
  }

  @ParameterizedTest
  @CsvSource({"1, 1, 7", "1, 2, 64", "2, 2, 16", "3, 1, 48"})
  void bits_areThoseOfTheRequestAlone(long seed, int threads, int prefillTokens) throws Exception {
    List<List<List<Integer>>> expected = alone(seed);
    List<Request> requests = requests(seed);
    Random random = new Random(~seed);
    TestBase base = threads == 1 ? one : two;
    try (AdapterRegistry adapters = registry(base);
        Engine engine = base.engine(narrow(adapters).withPrefillTokens(prefillTokens))) {
      // Which of these things happen depends on the loaders and on who wins; on 5 rounds all do.
      boolean preempted = false;
      boolean preemptedThenHit = false;
      boolean mixed = false;
      int rounds = 0;
      do {
        List<List<Recorder>> recorders = round(engine, adapters, requests, random);
        for (int i = 0; i < requests.size(); i++) {
          for (int j = 0; j < requests.get(i).choices(); j++) {
            Recorder recorder = recorders.get(i).get(j);
            Finish finish = recorder.finish();
            String which = "seed %d, round %d, request %d, answer %d".formatted(seed, rounds, i, j);
            assertThat(finish.failure()).as(which).isNull();
            assertThat(finish.reason()).as(which).isEqualTo(Finish.Reason.LENGTH);
            assertThat(recorder.bits()).as(which).isEqualTo(expected.get(i).get(j));
            preempted |= finish.preemptions() > 0;
            preemptedThenHit |= finish.preemptions() > 0 && finish.cachedTokens() > 0;
            mixed |= finish.maxStepAdapters() > 2;
          }
        }
      } while (++rounds < 5
          && !(preempted && preemptedThenHit && mixed && reloaded(engine.stats())));
      EngineStats stats = engine.stats();
      String all = "seed %d, %d rounds: %s".formatted(seed, rounds, stats);
      assertThat(preempted).as(all).isTrue();
      assertThat(preemptedThenHit).as(all).isTrue();
      assertThat(mixed).as(all).isTrue();
      assertThat(stats.prefixHits()).as(all).isPositive();
      assertThat(stats.prefixEvictions()).as(all).isPositive();
      assertThat(reloaded(stats)).as(all).isTrue();
    }
  }

  /** Whether more adapters were loaded than there are. */
  private static boolean reloaded(EngineStats stats) {
    long distinct = ADAPTERS.stream().flatMap(List::stream).map(Part::name).distinct().count();
    return stats.adapterEvictions() > 0 && stats.adapterLoads() > distinct;
  }

  /** Pages for two or three requests, and memory for one effective adapter and a little more. */
  private static EngineOptions narrow(AdapterRegistry adapters) {
    long most = 0;
    for (List<Part> parts : ADAPTERS) {
      most = Math.max(most, pages(adapters, parts));
    }
    return ROOMY
        .withMaxSequences(6)
        .withMaxLogitRows(5)
        .withKvTokens(24 * KvShape.BLOCK_TOKENS)
        .withAdapterBytes(most + most / 4);
  }

  /** All requests at once, some readers of which fall behind, and some others that go away. */
  private static List<List<Recorder>> round(
      Engine engine, AdapterRegistry adapters, List<Request> requests, Random random)
      throws Exception {
    List<List<Recorder>> recorders = new ArrayList<>();
    List<Held> held = new ArrayList<>();
    for (Request request : requests) {
      List<Recorder> mine = new ArrayList<>();
      for (int i = 0; i < request.choices(); i++) {
        mine.add(pausing(random));
      }
      recorders.add(mine);
      List<Ticket> tickets = engine.submit(request.task(adapters), mine);
      for (int i = 0; i < mine.size(); i++) {
        held.add(new Held(tickets.get(i), mine.get(i)));
      }
      if (random.nextInt(4) == 0) {
        Ticket leaves = engine.submit(request.choice(0).task(adapters), new Recorder());
        Thread.sleep(random.nextInt(10));
        leaves.cancel();
      }
      Collections.shuffle(held, random);
      held.subList(0, held.size() / 3).forEach(Held::release);
    }
    long end = System.nanoTime() + 60_000_000_000L;
    while (held.stream().anyMatch(h -> !h.recorder().end.isDone()) && System.nanoTime() < end) {
      held.forEach(Held::release);
      Thread.sleep(1);
    }
    return recorders;
  }

  /** A listener whose reader falls behind now and then. */
  private static Recorder pausing(Random random) {
    int pause = random.nextInt(3) == 0 ? 1 + random.nextInt(20) : 0;
    return new Recorder() {
      @Override
      public boolean token(Draw.Outcome outcome, boolean ends) {
        boolean more = super.token(outcome, ends);
        ready &= tokens.size() != pause;
        return more;
      }
    };
  }
}
