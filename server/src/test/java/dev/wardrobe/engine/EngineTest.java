package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.data.Offset.offset;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.sampling.SamplingParams;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(120)
final class EngineTest {
  private static final EngineOptions SMALL =
      EngineOptions.DEFAULT
          .withMaxSequences(8)
          .withPrefillTokens(32)
          .withKvTokens(2048)
          .withKvType(KvShape.Type.F32);

  private static TestBase base;

  @BeforeAll
  static void load() throws Exception {
    base = new TestBase(1);
  }

  @AfterAll
  static void close() {
    base.close();
    assertThat(base.backend().liveBytes()).isZero();
  }

  /** What the task gives by itself, on a roomy engine. */
  private static List<Integer> alone(GenerationTask task) throws Exception {
    try (Engine engine =
        base.engine(EngineOptions.DEFAULT.withKvTokens(4096).withKvType(KvShape.Type.F32))) {
      Recorder recorder = new Recorder();
      engine.submit(task, recorder);
      recorder.finish();
      return recorder.bits();
    }
  }

  private static void assertAllFree(Engine engine) {
    await()
        .atMost(Duration.ofSeconds(10))
        .untilAsserted(
            () -> {
              EngineStats stats = engine.stats();
              assertThat(stats.freeBlocks() + stats.lentBlocks()).isEqualTo(stats.blocks());
              assertThat(stats.finished()).isEqualTo(stats.submitted());
              assertThat(stats.waiting() + stats.running() + stats.paused()).isZero();
            });
  }

  @ParameterizedTest
  @ValueSource(strings = {"p1", "p24", "p150"})
  void greedy_golden(String prompt) throws Exception {
    ObjectMapper json = new ObjectMapper();
    JsonNode prompts = json.readTree(TestBase.resource("logits/logits.json").toFile());
    JsonNode golden =
        json.readTree(TestBase.resource("logits/llama_mha.json").toFile())
            .path("nf4-dq/base")
            .path(prompt)
            .path("greedy");
    int[] ids = json.convertValue(prompts.at("/prompts/llama_mha/" + prompt), int[].class);
    try (Engine engine = base.engine(SMALL)) {
      Recorder recorder = new Recorder();
      engine.submit(Tasks.greedy(ids, golden.path("tokens").size()), recorder);

      Finish finish = recorder.finish();

      assertThat(finish.reason()).isEqualTo(Finish.Reason.LENGTH);
      int sure = 0;
      while (sure < golden.path("tokens").size()
          && golden.path("gaps").get(sure).asDouble() >= 1e-3) {
        assertThat(recorder.ids().get(sure)).isEqualTo(golden.path("tokens").get(sure).asInt());
        assertThat((double) recorder.tokens.get(sure).logprob())
            .isCloseTo(golden.path("logprobs").get(sure).asDouble(), offset(1e-4));
        sure++;
      }
      assertThat(sure).isGreaterThan(8);
      assertThat(finish.generatedTokens()).isEqualTo(64);
      assertThat(finish.steps()).isEqualTo(Math.ceilDiv(ids.length, 32) + 63);
    }
  }

  @Test
  void measureAnew_forgetsWhatWasComputed() throws Exception {
    int[] prompt = base.prompt(1, 40);
    try (Engine engine = base.engine(SMALL)) {
      Recorder first = new Recorder();
      engine.submit(Tasks.greedy(prompt, 5), first);
      first.finish();
      engine.measureAnew().get(30, TimeUnit.SECONDS);
      assertThat(engine.meters().promptTokens()).isZero();
      assertThat(engine.meters().generatedTokens()).isZero();
      assertThat(engine.meters().tokenSeconds().snapshot().count()).isZero();
      assertThat(engine.meters().stepSeconds().snapshot().sum()).isZero();
      assertThat(engine.stats().prefixLookups()).isZero();
      assertThat(engine.stats().steps()).isPositive();

      Recorder second = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(2, 20), 3), second);
      second.finish();
      await().until(() -> engine.meters().stepSeconds().snapshot().count() == 3);
      assertThat(engine.meters().promptTokens()).isEqualTo(20);
      assertThat(engine.meters().generatedTokens()).isEqualTo(3);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 7, 16, 64, 256})
  void prefill_cutAnywhere_sameBits(int budget) throws Exception {
    GenerationTask task = Tasks.scored(base.prompt(3, 90), 12, 3);
    List<Integer> whole = alone(task);
    try (Engine engine = base.engine(SMALL.withPrefillTokens(budget).withMaxLogitRows(5))) {
      List<Recorder> neighbours = new ArrayList<>();
      for (int i = 0; i < 5; i++) {
        Recorder neighbour = new Recorder();
        engine.submit(Tasks.sampled(base.prompt(i, 5 + 11 * i), 40, i), neighbour);
        neighbours.add(neighbour);
      }
      Recorder recorder = new Recorder();
      engine.submit(task, recorder);

      Finish finish = recorder.finish();

      assertThat(recorder.bits()).isEqualTo(whole);
      assertThat(finish.maxStepSequences()).isGreaterThan(1);
      for (Recorder neighbour : neighbours) {
        neighbour.finish();
      }
      assertAllFree(engine);
    }
  }

  @Test
  void echo_golden() throws Exception {
    ObjectMapper json = new ObjectMapper();
    JsonNode prompts = json.readTree(TestBase.resource("logits/logits.json").toFile());
    JsonNode golden =
        json.readTree(TestBase.resource("logits/llama_mha.json").toFile())
            .path("nf4-dq/base")
            .path("p24")
            .path("prompt_logprobs");
    int[] ids = json.convertValue(prompts.at("/prompts/llama_mha/p24"), int[].class);
    try (Engine engine = base.engine(SMALL)) {
      Recorder recorder = new Recorder();
      engine.submit(Tasks.scored(ids, 0, 0), recorder);

      Finish finish = recorder.finish();

      assertThat(finish.reason()).isEqualTo(Finish.Reason.LENGTH);
      assertThat(finish.generatedTokens()).isZero();
      assertThat(recorder.tokens).isEmpty();
      assertThat(recorder.scores).hasSize(ids.length - 1);
      for (int i = 1; i < ids.length; i++) {
        assertThat(recorder.scores.get(i - 1).token()).isEqualTo(ids[i]);
        assertThat((double) recorder.scores.get(i - 1).logprob())
            .isCloseTo(golden.get(i).asDouble(), offset(1e-4));
      }
    }
  }

  @Test
  void ends_eosStopTokenAndIgnored() throws Exception {
    int[] prompt = base.prompt(9, 20);
    try (Engine engine = base.engine(SMALL)) {
      Recorder free = new Recorder();
      engine.submit(Tasks.greedy(prompt, 20), free);
      free.finish();
      int third = free.ids().get(2);
      int before = free.ids().subList(0, 3).indexOf(third);

      Recorder eos = new Recorder();
      Recorder stop = new Recorder();
      engine.submit(ending(prompt, Set.of(third), Set.of()), eos);
      engine.submit(ending(prompt, Set.of(), Set.of(third)), stop);

      assertThat(eos.finish().reason()).isEqualTo(Finish.Reason.EOS);
      assertThat(stop.finish().reason()).isEqualTo(Finish.Reason.STOP);
      assertThat(eos.ids()).isEqualTo(free.ids().subList(0, before + 1));
      assertThat(stop.ids()).isEqualTo(eos.ids());
      assertThat(eos.last.getLast()).isTrue();
      assertThat(free.last).doesNotContain(true);
    }
  }

  private static GenerationTask ending(int[] prompt, Set<Integer> eos, Set<Integer> stop) {
    return new GenerationTask(
        "test",
        "",
        prompt,
        List.of(),
        SamplingParams.GREEDY,
        20,
        eos,
        stop,
        0,
        false,
        GenerationTask.NO_DEADLINE);
  }

  @Test
  void listener_hadEnough() throws Exception {
    try (Engine engine = base.engine(SMALL)) {
      Recorder recorder =
          new Recorder() {
            @Override
            public boolean token(Draw.Outcome outcome, boolean ends) {
              super.token(outcome, ends);
              return tokens.size() < 3;
            }
          };
      engine.submit(Tasks.greedy(base.prompt(1, 4), 50), recorder);

      assertThat(recorder.finish().reason()).isEqualTo(Finish.Reason.STOP);
      assertThat(recorder.tokens).hasSize(3);
    }
  }

  @Test
  void reader_notReady_pausesItsSequenceAlone() throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(5, 30), 60, 5);
    List<Integer> expected = alone(task);
    try (Engine engine = base.engine(SMALL)) {
      Recorder slow =
          new Recorder() {
            @Override
            public boolean token(Draw.Outcome outcome, boolean ends) {
              super.token(outcome, ends);
              ready = tokens.size() != 10;
              return true;
            }
          };
      Ticket ticket = engine.submit(task, slow);
      Recorder neighbour = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(6, 10), 100), neighbour);

      neighbour.finish();
      assertThat(slow.tokens).hasSize(10);
      await().until(() -> engine.stats().paused() == 1 && engine.stats().running() == 0);
      long steps = engine.stats().steps();
      Thread.sleep(50);
      assertThat(engine.stats().steps()).isEqualTo(steps);

      slow.ready = true;
      ticket.resume();
      assertThat(slow.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertThat(slow.bits()).isEqualTo(expected);
      assertAllFree(engine);
    }
  }

  @Test
  void reader_notReady_losesItsPagesToOthers() throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(5, 100), 20, 5);
    List<Integer> expected = alone(task);
    // 10 blocks: the paused sequence holds 7 or 8 of them, the next one needs 8.
    try (Engine engine = base.engine(SMALL.withKvTokens(160))) {
      Recorder slow =
          new Recorder() {
            @Override
            public boolean token(Draw.Outcome outcome, boolean ends) {
              super.token(outcome, ends);
              ready = tokens.size() != 3;
              return true;
            }
          };
      Ticket ticket = engine.submit(task, slow);
      await().until(() -> engine.stats().paused() == 1);
      Recorder neighbour = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(6, 110), 10), neighbour);

      assertThat(neighbour.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertThat(slow.end).isNotDone();

      slow.ready = true;
      ticket.resume();
      assertThat(slow.finish().preemptions()).isPositive();
      assertThat(slow.bits()).isEqualTo(expected);
      assertThat(slow.admissions).hasValue(1);
      assertAllFree(engine);
    }
  }

  @Test
  void reader_notReady_losesItsAdaptersRoomToOthers() throws Exception {
    try (AdapterRegistry adapters =
        new AdapterRegistry(
            base.model(),
            base.backend(),
            List.of(TestBase.resource("adapters/llama_mha")),
            AdapterOptions.DEFAULT,
            Runnable::run)) {
      long bytes;
      try (Lease lease = adapters.lease("all_linear_r16").join()) {
        bytes = lease.deviceBytes();
      }
      try (Engine engine = base.engine(SMALL.withKvTokens(512).withAdapterBytes(bytes + 4096))) {
        Recorder slow =
            new Recorder() {
              @Override
              public boolean token(Draw.Outcome outcome, boolean ends) {
                super.token(outcome, ends);
                ready = tokens.size() != 3;
                return true;
              }
            };
        Ticket ticket = engine.submit(adapted(adapters, "all_linear_r16"), slow);
        await().until(() -> engine.stats().paused() == 1);
        Recorder neighbour = new Recorder();
        engine.submit(adapted(adapters, "rslora_r32"), neighbour);

        assertThat(neighbour.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
        assertThat(slow.end).isNotDone();

        slow.ready = true;
        ticket.resume();
        assertThat(slow.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
        assertThat(engine.stats().adapterEvictions()).isPositive();
      }
    }
  }

  private static GenerationTask adapted(AdapterRegistry adapters, String name) {
    return Tasks.of(
        base.prompt(1, 40),
        List.of(new AdapterPart(adapters.lease(name).join())),
        SamplingParams.GREEDY,
        20,
        0,
        false);
  }

  @Test
  void preempt_whenPagesRunOut_sameBits() throws Exception {
    List<GenerationTask> tasks = new ArrayList<>();
    List<List<Integer>> expected = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      GenerationTask task =
          i % 2 == 0
              ? Tasks.scored(base.prompt(i, 20 + i), 60, 2)
              : Tasks.sampled(base.prompt(i, 20 + i), 60, i);
      tasks.add(task);
      expected.add(alone(task));
    }
    // 16 blocks; each sequence grows to 6.
    try (Engine engine = base.engine(SMALL.withKvTokens(256))) {
      List<Recorder> recorders = new ArrayList<>();
      for (GenerationTask task : tasks) {
        Recorder recorder = new Recorder();
        engine.submit(task, recorder);
        recorders.add(recorder);
      }
      for (int i = 0; i < tasks.size(); i++) {
        assertThat(recorders.get(i).finish().reason()).isEqualTo(Finish.Reason.LENGTH);
        assertThat(recorders.get(i).bits()).isEqualTo(expected.get(i));
      }
      assertThat(engine.stats().preemptions()).isPositive();
      assertThat(recorders.getFirst().finish().preemptions()).isZero();
      assertAllFree(engine);
    }
  }

  @Test
  void submit_refusals() throws Exception {
    try (Engine engine = base.engine(SMALL.withKvTokens(64).withMaxWaiting(2))) {
      assertThat(engine.contextLength()).isEqualTo(64);
      assertThatThrownBy(() -> engine.submit(Tasks.greedy(base.prompt(1, 60), 5), new Recorder()))
          .isInstanceOfSatisfying(
              EngineException.class,
              e -> assertThat(e.reason()).isEqualTo(EngineException.Reason.TOO_LONG))
          .hasMessageContaining("60")
          .hasMessageContaining("65")
          .hasMessageContaining("64");
      assertThatThrownBy(
              () -> engine.submit(Tasks.greedy(new int[] {1, 1 << 20}, 5), new Recorder()))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("vocabulary");

      Recorder stuck = new Recorder();
      stuck.ready = false;
      Recorder stuckToo = new Recorder();
      stuckToo.ready = false;
      engine.submit(Tasks.greedy(base.prompt(1, 4), 5), stuck);
      engine.submit(Tasks.greedy(base.prompt(1, 4), 5), stuckToo);
      assertThatThrownBy(() -> engine.submit(Tasks.greedy(base.prompt(1, 4), 5), new Recorder()))
          .isInstanceOfSatisfying(
              EngineException.class,
              e -> {
                assertThat(e.reason()).isEqualTo(EngineException.Reason.FULL);
                assertThat(e.retryAfter()).isPositive().isLessThan(Duration.ofMinutes(1));
              });
    }
  }

  @Test
  void cancel_andDeadline_freeEverything() throws Exception {
    try (Engine engine = base.engine(SMALL)) {
      Recorder cancelled = new Recorder();
      Ticket ticket = engine.submit(Tasks.greedy(base.prompt(1, 40), 200), cancelled);
      Recorder late = new Recorder();
      engine.submit(
          Tasks.task(base.prompt(2, 40), 200, SamplingParams.GREEDY, null, System.nanoTime() - 1),
          late);
      Recorder paused = new Recorder();
      paused.ready = false;
      engine.submit(
          Tasks.task(
              base.prompt(3, 40),
              200,
              SamplingParams.GREEDY,
              null,
              System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(100)),
          paused);

      ticket.cancel();
      ticket.cancel();

      assertThat(cancelled.finish().reason()).isEqualTo(Finish.Reason.CANCELLED);
      assertThat(late.finish().reason()).isEqualTo(Finish.Reason.DEADLINE);
      assertThat(late.tokens).isEmpty();
      assertThat(paused.finish().reason()).isEqualTo(Finish.Reason.DEADLINE);
      assertAllFree(engine);
      assertThat(cancelled.ends).hasValue(1);
    }
  }

  @Test
  void listener_throws_endsItsOwnSequence() throws Exception {
    try (Engine engine = base.engine(SMALL)) {
      Recorder good = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(1, 10), 40), good);
      List<Recorder> bad = new ArrayList<>();
      bad.add(
          new Recorder() {
            @Override
            public boolean token(Draw.Outcome outcome, boolean ends) {
              throw new IllegalStateException("broken pipe");
            }
          });
      bad.add(
          new Recorder() {
            @Override
            public boolean ready() {
              throw new IllegalStateException("broken pipe");
            }
          });
      bad.add(
          new Recorder() {
            @Override
            public void admitted() {
              throw new IllegalStateException("broken pipe");
            }
          });
      bad.add(
          new Recorder() {
            @Override
            public void promptScored(List<Draw.Outcome> next) {
              throw new IllegalStateException("broken pipe");
            }

            @Override
            public void finished(Finish finish) {
              super.finished(finish);
              throw new IllegalStateException("broken again");
            }
          });
      for (Recorder recorder : bad) {
        engine.submit(Tasks.scored(base.prompt(2, 10), 40, 0), recorder);
      }

      for (Recorder recorder : bad) {
        Finish finish = recorder.finish();
        assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
        assertThat(finish.failure()).hasMessageContaining("broken pipe");
        assertThat(finish.failure())
            .returns(EngineException.Reason.LISTENER, EngineException::reason);
      }
      assertThat(good.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertAllFree(engine);
    }
  }

  /** The base's backend, but for one method. */
  private static Backend failing(String method, AtomicBoolean armed, RuntimeException failure) {
    return (Backend)
        Proxy.newProxyInstance(
            EngineTest.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, called, arguments) -> {
              if (called.getName().equals(method) && armed.compareAndSet(true, false)) {
                throw failure;
              }
              try {
                return called.invoke(base.backend(), arguments);
              } catch (InvocationTargetException e) {
                throw e.getCause();
              }
            });
  }

  @Test
  void step_fails_engineStaysAlive() throws Exception {
    AtomicBoolean armed = new AtomicBoolean();
    Backend broken = failing("attention", armed, new IllegalStateException("device fell off"));
    GenerationTask task = Tasks.greedy(base.prompt(1, 10), 20);
    try (Engine engine = base.engine(SMALL, broken)) {
      armed.set(true);
      Recorder failed = new Recorder();
      engine.submit(task, failed);

      Finish finish = failed.finish();
      assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
      assertThat(finish.failure()).hasMessageContaining("device fell off");
      assertThat(finish.failure()).returns(EngineException.Reason.STEP, EngineException::reason);
      assertAllFree(engine);

      Recorder again = new Recorder();
      engine.submit(task, again);
      again.finish();
      assertThat(again.bits()).isEqualTo(alone(task));
    }
  }

  @Test
  void logits_notFinite_endTheirOwnSequence() throws Exception {
    AtomicBoolean armed = new AtomicBoolean(true);
    Backend broken = failing("sample", armed, new NotFiniteException("row 1: NaN", new int[] {1}));
    AtomicBoolean open = new AtomicBoolean();
    try (Engine engine = base.engine(SMALL, broken)) {
      List<GenerationTask> tasks = new ArrayList<>();
      List<Recorder> recorders = new ArrayList<>();
      for (int i = 0; i < 3; i++) {
        Recorder recorder =
            new Recorder() {
              @Override
              public boolean ready() {
                return open.get();
              }
            };
        tasks.add(Tasks.sampled(base.prompt(i, 10), 20, i));
        recorders.add(recorder);
        engine.submit(tasks.get(i), recorder);
      }
      await().until(() -> engine.stats().waiting() == 3);
      open.set(true);
      engine.wake();

      assertThat(recorders.get(1).finish().reason()).isEqualTo(Finish.Reason.FAILED);
      assertThat(recorders.get(1).finish().failure()).hasMessageContaining("NaN");
      for (int i : new int[] {0, 2}) {
        assertThat(recorders.get(i).finish().reason()).isEqualTo(Finish.Reason.LENGTH);
        assertThat(recorders.get(i).bits()).isEqualTo(alone(tasks.get(i)));
      }
      assertAllFree(engine);
    }
  }

  @Test
  void drain_letsRunningEnd_thenCancels() throws Exception {
    try (Engine engine = base.engine(SMALL)) {
      Recorder ends = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(1, 10), 30), ends);
      assertThat(engine.drain(Duration.ofSeconds(30))).isTrue();
      assertThat(ends.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertThatThrownBy(() -> engine.submit(Tasks.greedy(base.prompt(1, 4), 5), new Recorder()))
          .isInstanceOfSatisfying(
              EngineException.class,
              e -> assertThat(e.reason()).isEqualTo(EngineException.Reason.CLOSED));
    }
    try (Engine engine = base.engine(SMALL)) {
      Recorder stuck = new Recorder();
      stuck.ready = false;
      engine.submit(Tasks.greedy(base.prompt(1, 10), 30), stuck);
      assertThat(engine.drain(Duration.ofMillis(50))).isFalse();
      // Handed back: another server may answer it.
      assertThat(stuck.finish().reason()).isEqualTo(Finish.Reason.FAILED);
      assertThat(stuck.finish().failure())
          .returns(EngineException.Reason.CLOSED, EngineException::reason)
          .hasMessageContaining("0 tokens");
    }
  }

  @Test
  void close_endsWhatIsLeft() throws Exception {
    Recorder recorder = new Recorder();
    try (Engine engine = base.engine(SMALL)) {
      engine.submit(Tasks.greedy(base.prompt(1, 10), 200), recorder);
      await().until(() -> !recorder.tokens.isEmpty());
    }
    assertThat(recorder.end).isDone();
  }

  @Test
  void steps_areRecorded_andIdleParks() throws Exception {
    try (Engine engine = base.engine(SMALL)) {
      Recorder recorder = new Recorder();
      engine.submit(Tasks.greedy(base.prompt(1, 40), 3), recorder);
      recorder.finish();
      await().until(() -> engine.recentSteps(0).size() == 4);

      List<StepRecord> steps = engine.recentSteps(0);
      assertThat(steps).extracting(StepRecord::number).containsExactly(1L, 2L, 3L, 4L);
      assertThat(steps).extracting(StepRecord::prefillTokens).containsExactly(32, 8, 0, 0);
      assertThat(steps).extracting(StepRecord::decodeTokens).containsExactly(0, 0, 1, 1);
      assertThat(steps).allMatch(s -> s.sequences() == 1 && s.adapters() == 1);
      assertThat(steps.get(0).gapNanos()).isZero();
      assertThat(steps.get(1).gapNanos()).isPositive();
      assertThat(engine.recentSteps(3)).hasSize(1);

      Thread thread =
          Thread.getAllStackTraces().keySet().stream()
              .filter(t -> t.getName().equals("wardrobe-engine"))
              .findFirst()
              .orElseThrow();
      await().until(() -> thread.getState() == Thread.State.WAITING);
    }
  }

  /** Submits, cancels, pauses, lets expire and unloads at random, on few pages. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void stress_everythingIsGivenBack(long seed) throws Exception {
    Random random = new Random(seed);
    long before = base.backend().liveBytes();
    List<String> names = List.of("all_linear_r16", "dora_r8", "lora_r8_qv", "rslora_r32");
    try (AdapterRegistry adapters =
            new AdapterRegistry(
                base.model(),
                base.backend(),
                List.of(TestBase.resource("adapters/llama_mha")),
                AdapterOptions.DEFAULT,
                Runnable::run);
        Engine engine = base.engine(SMALL.withKvTokens(320).withPrefillTokens(24))) {
      List<Recorder> recorders = new ArrayList<>();
      List<Ticket> tickets = new ArrayList<>();
      long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(1500);
      while (System.nanoTime() - until < 0 && recorders.size() < 400) {
        Recorder recorder = new Recorder();
        recorder.ready = random.nextInt(4) != 0;
        long deadline =
            random.nextInt(5) == 0
                ? System.nanoTime() + random.nextInt(20_000_000)
                : GenerationTask.NO_DEADLINE;
        String name = names.get(random.nextInt(names.size()));
        if (random.nextInt(30) == 0
            && adapters.list().stream().anyMatch(a -> a.name().equals(name))) {
          adapters.unload(name);
          adapters.load(name, null).join();
        }
        Lease lease = random.nextInt(3) == 0 ? null : adapters.lease(name).join();
        tickets.add(
            engine.submit(
                Tasks.task(
                    // Of one seed, they begin alike.
                    base.prompt(random.nextInt(6), 1 + random.nextInt(100)),
                    random.nextInt(40),
                    SamplingParams.GREEDY,
                    lease,
                    deadline),
                recorder));
        recorders.add(recorder);
        for (int i = 0; i < 3; i++) {
          int at = random.nextInt(recorders.size());
          switch (random.nextInt(4)) {
            case 0 -> tickets.get(at).cancel();
            case 1 -> recorders.get(at).ready = false;
            default -> {
              recorders.get(at).ready = true;
              tickets.get(at).resume();
            }
          }
        }
        Thread.sleep(random.nextInt(4));
      }
      for (int i = 0; i < recorders.size(); i++) {
        recorders.get(i).ready = true;
        tickets.get(i).resume();
      }
      for (Recorder recorder : recorders) {
        Finish finish = recorder.finish();
        EngineException failure = finish.failure();
        if (failure != null) {
          // Some deadlines are so near that they are not even tried.
          assertThat(failure.reason())
              .as("seed %d: %s", seed, failure.getMessage())
              .isEqualTo(EngineException.Reason.LATE);
        } else {
          assertThat(finish.reason())
              .as("seed %d", seed)
              .isIn(Finish.Reason.LENGTH, Finish.Reason.CANCELLED, Finish.Reason.DEADLINE);
        }
      }
      assertAllFree(engine);
      assertThat(recorders).allMatch(r -> r.ends.get() == 1);
      assertThat(engine.stats().submitted()).isEqualTo(recorders.size());
      assertThat(adapters.list()).isNotEmpty().allMatch(a -> a.inUse() == 0);
    }
    assertThat(base.backend().liveBytes()).isEqualTo(before);
  }
}
