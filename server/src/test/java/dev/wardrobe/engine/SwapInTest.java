package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.sampling.SamplingParams;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Adapters that come and go under an engine that computes. */
@Timeout(120)
final class SwapInTest {
  private static final int ADAPTERS = 12;
  private static final EngineOptions OPTIONS =
      EngineOptions.DEFAULT
          .withMaxSequences(8)
          .withPrefillTokens(32)
          .withKvTokens(1024)
          .withKvType(KvShape.Type.F32);

  private static TestBase base;

  @TempDir private Path folder;
  private AdapterSet set;
  private final LinkedBlockingQueue<Runnable> held = new LinkedBlockingQueue<>();
  private volatile boolean hold;
  private AdapterRegistry registry;
  private long adapterBytes;
  private long before;

  @BeforeAll
  static void load() throws Exception {
    base = new TestBase(1);
  }

  @AfterAll
  static void close() {
    base.close();
    assertThat(base.backend().liveBytes()).isZero();
  }

  @BeforeEach
  void open() throws Exception {
    before = base.backend().liveBytes();
    set = AdapterSet.make(folder.resolve("set"), base.model().config(), ADAPTERS, 7, 4, List.of(4));
    registry = registry(AdapterOptions.DEFAULT);
    try (Lease lease = registry.lease(set.name(0)).join()) {
      adapterBytes = lease.deviceBytes();
    }
  }

  private AdapterRegistry registry(AdapterOptions options) throws AdapterException {
    return new AdapterRegistry(
        base.model(),
        base.backend(),
        List.of(folder.resolve("set")),
        options,
        task -> {
          if (hold) {
            held.add(task);
          } else {
            task.run();
          }
        });
  }

  @AfterEach
  void end() {
    release();
    assertThat(registry.list()).allMatch(entry -> entry.inUse() == 0);
    registry.close();
    assertThat(registry.residentBytes()).isZero();
    assertThat(base.backend().liveBytes()).isEqualTo(before);
  }

  private void release() {
    hold = false;
    for (Runnable next = held.poll(); next != null; next = held.poll()) {
      next.run();
    }
  }

  private Lease lease(int adapter) {
    return registry.lease(set.name(adapter)).join();
  }

  private GenerationTask task(long seed, int maxTokens, AdapterPart... parts) {
    return new GenerationTask(
        "test",
        "",
        base.prompt(seed, 10),
        List.of(parts),
        SamplingParams.GREEDY,
        maxTokens,
        Set.of(),
        Set.of(),
        2,
        false,
        GenerationTask.NO_DEADLINE);
  }

  private GenerationTask task(long seed, int maxTokens, int adapter) {
    return task(seed, maxTokens, new AdapterPart(lease(adapter)));
  }

  /** An engine with memory for so many adapters. */
  private Engine engine(int fit) {
    KvShape kv = OPTIONS.shape(base.model().config());
    long pages = Math.ceilDiv(adapterBytes, kv.blockBytes());
    return base.engine(OPTIONS.withAdapterBytes(fit * pages * kv.blockBytes()));
  }

  private static Recorder submit(Engine engine, GenerationTask task) throws Exception {
    Recorder recorder = new Recorder();
    engine.submit(task, recorder);
    return recorder;
  }

  private static void assertIdle(Engine engine) {
    await()
        .untilAsserted(
            () -> {
              EngineStats stats = engine.stats();
              assertThat(stats.finished()).isEqualTo(stats.submitted());
              assertThat(stats.freeBlocks() + stats.lentBlocks()).isEqualTo(stats.blocks());
            });
  }

  @Test
  void loading_holdsNoPlace_andTheOthersGoOn() throws Exception {
    try (Engine engine = engine(2)) {
      GenerationTask task = task(1, 12, 3);
      List<Integer> expected = bits(engine, task(1, 12, 3));
      registry.unload(set.name(3));
      await().until(() -> registry.residentBytes() == 0);
      registry.load(set.name(3), null).join();
      hold = true;
      Recorder waits = submit(engine, task);
      for (int i = 0; i < 12; i++) {
        assertThat(submit(engine, task(i, 6)).finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      }
      assertThat(waits.admissions).hasValue(0);
      assertThat(engine.stats().waiting()).isEqualTo(1);
      release();
      Finish finish = waits.finish();
      assertThat(finish.swapInNanos()).isPositive();
      assertThat(waits.bits()).isEqualTo(expected);
    }
  }

  private List<Integer> bits(Engine engine, GenerationTask task) throws Exception {
    Recorder recorder = submit(engine, task);
    recorder.finish();
    return recorder.bits();
  }

  /** No slot is mixed up, whatever is evicted and loaded again in between. */
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3})
  void moreAdaptersThanFit_answersAreEachOnesOwn(int fit) throws Exception {
    Map<Integer, List<Integer>> expected = new HashMap<>();
    try (Engine roomy = engine(ADAPTERS)) {
      for (int i = 0; i < ADAPTERS; i++) {
        expected.put(i, bits(roomy, task(5, 10, i)));
      }
    }
    assertThat(Set.copyOf(expected.values())).hasSize(ADAPTERS);
    assertThat(registry.residentBytes()).isZero();
    Random random = new Random(fit);
    try (Engine engine = engine(fit)) {
      List<Integer> which = new ArrayList<>();
      List<Recorder> answers = new ArrayList<>();
      for (int i = 0; i < 60; i++) {
        int adapter = random.nextInt(ADAPTERS);
        which.add(adapter);
        answers.add(submit(engine, task(5, 10, adapter)));
      }
      for (int i = 0; i < answers.size(); i++) {
        assertThat(answers.get(i).finish().reason()).isEqualTo(Finish.Reason.LENGTH);
        assertThat(answers.get(i).bits()).as("request %d", i).isEqualTo(expected.get(which.get(i)));
      }
      assertThat(registry.residentBytes()).isLessThanOrEqualTo(fit * adapterBytes);
      assertIdle(engine);
    }
  }

  @Test
  void mixes_whoseAdaptersFitOnlyOneAtATime_allEnd() throws Exception {
    int[][] pairs = {{0, 1}, {2, 3}, {1, 4}, {5, 0}, {3, 4}};
    List<List<Integer>> expected = new ArrayList<>();
    try (Engine roomy = engine(ADAPTERS)) {
      for (int[] pair : pairs) {
        expected.add(bits(roomy, mix(pair)));
      }
    }
    try (Engine engine = engine(2)) {
      List<Recorder> answers = new ArrayList<>();
      for (int i = 0; i < 30; i++) {
        answers.add(submit(engine, mix(pairs[i % pairs.length])));
      }
      for (int i = 0; i < answers.size(); i++) {
        answers.get(i).finish();
        assertThat(answers.get(i).bits()).isEqualTo(expected.get(i % pairs.length));
      }
      assertThatThrownBy(
              () ->
                  engine.submit(
                      task(
                          1,
                          5,
                          new AdapterPart(lease(0), 0.5f),
                          new AdapterPart(lease(1), 0.5f),
                          new AdapterPart(lease(2), 0.5f)),
                      new Recorder()))
          .isInstanceOfSatisfying(
              EngineException.class,
              e -> assertThat(e.reason()).isEqualTo(EngineException.Reason.TOO_LARGE))
          .hasMessageContaining("pages");
      // Refused: the leases are still ours, but nothing waits for them.
      assertThat(registry.get(set.name(2)).inUse()).isEqualTo(1);
    }
    registry.close();
    registry = registry(AdapterOptions.DEFAULT);
  }

  private GenerationTask mix(int[] pair) {
    return task(
        9, 8, new AdapterPart(lease(pair[0]), 0.7f), new AdapterPart(lease(pair[1]), -0.4f));
  }

  @Test
  void loadFails_whoWaitsEndsWithTheReason_andLaterItWorks() throws Exception {
    registry.close();
    registry = registry(AdapterOptions.DEFAULT.withHostBytes(0));
    Path weights = folder.resolve("set").resolve(set.name(2)).resolve("adapter_model.safetensors");
    try (Engine engine = engine(2)) {
      List<Integer> expected = bits(engine, task(1, 8, 2));
      registry.unload(set.name(2));
      await().until(() -> registry.residentBytes() == 0);
      registry.load(set.name(2), null).join();
      byte[] good = Files.readAllBytes(weights);
      hold = true;
      List<Recorder> waiting = new ArrayList<>();
      for (int i = 0; i < 5; i++) {
        waiting.add(submit(engine, task(1, 8, 2)));
      }
      Recorder other = submit(engine, task(1, 8));
      other.finish();
      Files.delete(weights);
      await().until(() -> !held.isEmpty());
      release();
      for (Recorder recorder : waiting) {
        Finish finish = recorder.finish();
        assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
        assertThat(finish.failure())
            .returns(EngineException.Reason.ADAPTER, EngineException::reason)
            .hasMessageContaining("adapter_model.safetensors")
            .hasCauseInstanceOf(AdapterException.class);
      }
      assertIdle(engine);
      assertThat(engine.stats().lentBlocks()).isZero();
      assertThat(registry.residentBytes()).isZero();
      Files.write(weights, good);
      assertThat(bits(engine, task(1, 8, 2))).isEqualTo(expected);
    }
  }

  @Test
  void cancelledWhileItLoads_isNotLoaded_andUnloadingHangsOnNothing() throws Exception {
    try (Engine engine = engine(2)) {
      hold = true;
      Recorder gone = new Recorder();
      Ticket ticket = engine.submit(task(1, 8, leaseHeld(4)), gone);
      await().until(() -> !held.isEmpty());
      ticket.cancel();
      assertThat(gone.finish().reason()).isEqualTo(Finish.Reason.CANCELLED);
      assertThat(registry.get(set.name(4)).inUse()).isZero();
      registry.unload(set.name(4));
      release();
      assertIdle(engine);
      await().until(() -> engine.stats().lentBlocks() == 0);
      assertThat(registry.residentBytes()).isZero();
      // One that loads on, because somebody came back for it.
      registry.load(set.name(5), null).join();
      hold = true;
      Recorder first = new Recorder();
      Ticket called = engine.submit(task(1, 8, 5), first);
      await().until(() -> !held.isEmpty());
      called.cancel();
      first.finish();
      Recorder second = submit(engine, task(1, 8, 5));
      release();
      assertThat(second.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
    }
  }

  private AdapterPart leaseHeld(int adapter) {
    CompletableFuture<Lease> future = registry.lease(set.name(adapter));
    for (Runnable next = held.poll(); next != null; next = held.poll()) {
      next.run();
    }
    return new AdapterPart(future.join());
  }

  @Test
  void unloadedWhileItLoads_stillAnswers_thenLeaves() throws Exception {
    try (Engine engine = engine(2)) {
      List<Integer> expected = bits(engine, task(1, 8, 6));
      registry.unload(set.name(6));
      await().until(() -> registry.residentBytes() == 0);
      registry.load(set.name(6), null).join();
      hold = true;
      Recorder waits = submit(engine, task(1, 8, 6));
      await().until(() -> !held.isEmpty());
      registry.unload(set.name(6));
      release();
      waits.finish();
      assertThat(waits.bits()).isEqualTo(expected);
      await().until(() -> registry.residentBytes() == 0 && engine.stats().lentBlocks() == 0);
    }
  }

  @Test
  void aborts_leaveNoReference() throws Exception {
    try (Engine engine = engine(3)) {
      Random random = new Random(1);
      List<Recorder> recorders = new ArrayList<>();
      for (int i = 0; i < 80; i++) {
        Recorder recorder = new Recorder();
        Ticket ticket =
            engine.submit(task(i, 1 + random.nextInt(20), random.nextInt(ADAPTERS)), recorder);
        recorders.add(recorder);
        if (random.nextBoolean()) {
          ticket.cancel();
        }
      }
      for (Recorder recorder : recorders) {
        recorder.finish();
      }
      assertThat(registry.list()).allMatch(entry -> entry.inUse() == 0);
      for (AdapterEntry entry : registry.list()) {
        registry.unload(entry.name());
      }
      await().until(() -> registry.residentBytes() == 0 && engine.stats().lentBlocks() == 0);
    }
  }

  @Test
  void drain_handsBackWhatStillLoads() throws Exception {
    try (Engine engine = engine(2)) {
      AdapterPart part = new AdapterPart(lease(7));
      Lease later = lease(8);
      hold = true;
      Recorder waits = submit(engine, task(1, 8, part));
      Recorder runs = submit(engine, task(1, 8));
      assertThat(engine.drain(Duration.ofMillis(200))).isFalse();
      assertThat(runs.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertThat(waits.finish().failure())
          .returns(EngineException.Reason.CLOSED, EngineException::reason);
      assertThat(engine.prefetch(later).join()).isFalse();
    }
  }

  @Test
  void pinned_staysAndIsNoBodysRoom() throws Exception {
    try (Engine engine = engine(2)) {
      registry.prefetchBy(engine::prefetch);
      Path directory = folder.resolve("set").resolve(set.name(0));
      AdapterEntry pinned = registry.loadTrusted("pinned", directory);
      assertThat(pinned.resident()).isTrue();
      for (int i = 1; i < ADAPTERS; i++) {
        submit(engine, task(1, 3, i)).finish();
        assertThat(registry.get("pinned").resident()).isTrue();
      }
      AdapterEntry second =
          registry.loadTrusted("second", folder.resolve("set").resolve(set.name(1)));
      assertThat(second.resident()).isTrue();
      // Both places are pinned ones' now: what does not fit says so instead of waiting for ever.
      Recorder stuck = submit(engine, task(1, 3, 2));
      assertThat(stuck.finish().failure())
          .returns(EngineException.Reason.TOO_LARGE, EngineException::reason)
          .hasMessageContaining("resident");
      registry.unload("second");
      assertThat(submit(engine, task(1, 3, 2)).finish().reason()).isEqualTo(Finish.Reason.LENGTH);
    }
    registry.unload("pinned");
  }

  @Test
  void prefetch_loadsAhead_ifThereIsRoom() throws Exception {
    try (Engine engine = engine(2)) {
      assertThat(engine.prefetch(lease(1)).join()).isTrue();
      assertThat(registry.get(set.name(1)).resident()).isTrue();
      Finish finish = submit(engine, task(1, 3, 1)).finish();
      assertThat(finish.swapInNanos()).isZero();
      Recorder slow =
          new Recorder() {
            @Override
            public boolean token(dev.wardrobe.compute.Draw.Outcome outcome, boolean ends) {
              super.token(outcome, ends);
              ready = tokens.size() != 2;
              return true;
            }
          };
      Ticket ticket =
          engine.submit(
              task(1, 8, new AdapterPart(lease(2), 1.5f), new AdapterPart(lease(3), 1.5f)), slow);
      await().until(() -> engine.stats().paused() == 1);
      assertThat(engine.prefetch(lease(4)).join()).isFalse();
      slow.ready = true;
      ticket.resume();
      slow.finish();
    }
  }

  @Test
  void deadline_thatCannotBeMet_isRefusedWithTheEstimate() throws Exception {
    try (Engine engine = engine(2)) {
      AdapterPart part = new AdapterPart(lease(1));
      GenerationTask task = late(part);
      // Nothing is known yet: it is tried.
      Recorder tried = submit(engine, task);
      assertThat(tried.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
      assertIdle(engine);

      // A byte takes a second to load, and it is not in memory.
      for (int i = 0; i < 200; i++) {
        engine.loadRate().measure(1, 1_000_000_000L);
      }
      Recorder late = submit(engine, late(new AdapterPart(lease(2))));
      Finish finish = late.finish();
      assertThat(finish.reason()).isEqualTo(Finish.Reason.FAILED);
      assertThat(finish.failure())
          .returns(EngineException.Reason.LATE, EngineException::reason)
          .hasMessageContaining("for its adapters");
      assertThat(registry.get(set.name(2)).inUse()).isZero();
      assertThat(registry.get(set.name(2)).resident()).isFalse();
      // The one that is there, and the base, need not be loaded.
      assertThat(submit(engine, late(new AdapterPart(lease(1)))).finish().reason())
          .isEqualTo(Finish.Reason.LENGTH);
      assertThat(submit(engine, late()).finish().reason()).isEqualTo(Finish.Reason.LENGTH);

      assertIdle(engine);
      for (int i = 0; i < 400; i++) {
        engine.promptRate().measure(1, 1_000_000_000_000L);
      }
      assertThat(submit(engine, late()).finish().failure())
          .returns(EngineException.Reason.LATE, EngineException::reason)
          .hasMessageContaining("of the prompt");
    }
  }

  @Test
  void deadline_estimateOfSeveralAnswers_countsTheirPromptOnce() throws Exception {
    try (Engine engine = engine(2)) {
      for (int i = 0; i < 400; i++) {
        // The prompt takes a third of the time.
        engine.promptRate().measure(1, 5_000_000_000L);
      }
      List<Recorder> answers = new ArrayList<>();
      for (int i = 0; i < 8; i++) {
        answers.add(new Recorder());
      }
      engine.submit(late(), answers);
      for (Recorder answer : answers) {
        assertThat(answer.finish().failure()).isNull();
      }
    }
  }

  @Test
  void deadline_estimateThatWasWrong_isForgotten() throws Exception {
    try (Engine engine = engine(2)) {
      // As if the first one had been on a sleeping disk.
      engine.loadRate().measure(adapterBytes, TimeUnit.HOURS.toNanos(2));
      int refused = 0;
      while (submit(engine, late(new AdapterPart(lease(1)))).finish().failure() != null) {
        refused++;
        assertThat(refused).isLessThan(100);
      }
      assertThat(refused).isPositive();
      assertThat(registry.get(set.name(1)).resident()).isTrue();
    }
  }

  private GenerationTask late(AdapterPart... parts) {
    GenerationTask task = task(3, 4, parts);
    return new GenerationTask(
        "test",
        "",
        base.prompt(3, 40),
        task.adapters(),
        task.sampling(),
        4,
        Set.of(),
        Set.of(),
        0,
        false,
        System.nanoTime() + TimeUnit.MINUTES.toNanos(10));
  }
}
