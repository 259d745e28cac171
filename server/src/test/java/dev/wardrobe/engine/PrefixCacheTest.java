package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.awaitility.Awaitility.await;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.sampling.SamplingParams;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What sequences take over from others, and what they never do. */
@Timeout(120)
final class PrefixCacheTest {
  private static final EngineOptions OPTIONS =
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

  private static Recorder run(Engine engine, GenerationTask task) throws Exception {
    Recorder recorder = new Recorder();
    engine.submit(task, recorder);
    assertThat(recorder.finish().reason()).isEqualTo(Finish.Reason.LENGTH);
    return recorder;
  }

  /** What the task gives by itself. Not while another engine runs: the backend is one's alone. */
  private static List<Integer> alone(GenerationTask task) throws Exception {
    try (Engine engine = base.engine(OPTIONS)) {
      return run(engine, task).bits();
    }
  }

  /** The counters once all has ended, and is free. */
  private static EngineStats settled(Engine engine) {
    return await()
        .atMost(Duration.ofSeconds(10))
        .until(
            engine::stats,
            stats ->
                stats.finished() == stats.submitted()
                    && stats.freeBlocks() + stats.lentBlocks() == stats.blocks()
                    && stats.waiting() + stats.running() + stats.paused() == 0);
  }

  private static int[] concat(int[] a, int[] b) {
    return IntStream.concat(Arrays.stream(a), Arrays.stream(b)).toArray();
  }

  @ParameterizedTest
  @CsvSource({"1, 0", "16, 0", "17, 16", "32, 16", "33, 32", "100, 96"})
  void again_takesAllCompleteBlocksButTheLastTokens(int length, int cached) throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(7, length), 20, 7);
    try (Engine engine = base.engine(OPTIONS)) {
      Recorder first = run(engine, task);
      Recorder second = run(engine, task);

      assertThat(first.finish().cachedTokens()).isZero();
      assertThat(second.finish().cachedTokens()).isEqualTo(cached);
      assertThat(second.bits()).isEqualTo(first.bits());
      EngineStats stats = settled(engine);
      assertThat(stats.prefixHits()).isEqualTo(cached);
      assertThat(stats.prefixLookups()).isEqualTo(2L * cached);
      // The last token drawn is not computed.
      assertThat(stats.cachedBlocks()).isEqualTo((length + 19) / 16);
    }
  }

  @Test
  void conversation_takesWhatWasGeneratedToo() throws Exception {
    int[] prompt = base.prompt(1, 40);
    try (Engine engine = base.engine(OPTIONS)) {
      int[] answer =
          run(engine, Tasks.greedy(prompt, 30)).ids().stream().mapToInt(i -> i).toArray();
      GenerationTask next = Tasks.greedy(concat(concat(prompt, answer), base.prompt(2, 10)), 20);

      Recorder recorder = run(engine, next);

      assertThat(recorder.finish().cachedTokens()).isEqualTo(64);
      assertThat(recorder.bits()).isEqualTo(alone(next));
    }
  }

  @Test
  void forks_shareWhatIsEqual() throws Exception {
    int[] shared = base.prompt(3, 50);
    try (Engine engine = base.engine(OPTIONS)) {
      run(engine, Tasks.greedy(concat(shared, base.prompt(4, 60)), 5));
      for (int i = 0; i < 3; i++) {
        GenerationTask fork = Tasks.sampled(concat(shared, base.prompt(10 + i, 30)), 20, i);
        Recorder recorder = run(engine, fork);
        assertThat(recorder.finish().cachedTokens()).isEqualTo(48);
        assertThat(recorder.bits()).isEqualTo(alone(fork));
      }
      // One token differs at the very beginning: nothing is the same.
      int[] other = concat(shared, base.prompt(4, 60));
      other[0]++;
      assertThat(run(engine, Tasks.greedy(other, 5)).finish().cachedTokens()).isZero();
    }
  }

  @Test
  void echo_computesAll_andIsFoundByOthers() throws Exception {
    int[] prompt = base.prompt(5, 70);
    GenerationTask scored = Tasks.scored(prompt, 10, 2);
    try (Engine engine = base.engine(OPTIONS)) {
      run(engine, Tasks.greedy(prompt, 10));
      Recorder recorder = run(engine, scored);
      assertThat(recorder.finish().cachedTokens()).isZero();
      assertThat(recorder.scores).hasSize(69);
      assertThat(recorder.bits()).isEqualTo(alone(scored));
    }
    try (Engine engine = base.engine(OPTIONS)) {
      run(engine, scored);
      Recorder recorder = run(engine, Tasks.greedy(prompt, 10));
      assertThat(recorder.finish().cachedTokens()).isEqualTo(64);
      assertThat(recorder.bits()).isEqualTo(alone(Tasks.greedy(prompt, 10)));
    }
  }

  @Test
  void cancelled_leavesItsBlocks() throws Exception {
    GenerationTask task = Tasks.greedy(base.prompt(6, 60), 40);
    try (Engine engine = base.engine(OPTIONS)) {
      Recorder cancelled =
          new Recorder() {
            @Override
            public boolean token(Draw.Outcome outcome, boolean ends) {
              ready = false;
              return super.token(outcome, ends);
            }
          };
      Ticket ticket = engine.submit(Tasks.greedy(base.prompt(6, 60), 400), cancelled);
      await().until(() -> !cancelled.tokens.isEmpty());
      ticket.cancel();
      assertThat(cancelled.finish().reason()).isEqualTo(Finish.Reason.CANCELLED);

      Recorder recorder = run(engine, task);
      assertThat(recorder.finish().cachedTokens()).isEqualTo(48);
      assertThat(recorder.bits()).isEqualTo(alone(task));
    }
  }

  /** Blocks of 24 tokens' worth each round, on a cache of ten: what is old makes place. */
  @Test
  void cache_givesPlaceToNewOnes_oldestFirst() throws Exception {
    try (Engine engine = base.engine(OPTIONS.withKvTokens(160).withAdapterBytes(1))) {
      for (int i = 0; i < 12; i++) {
        run(engine, Tasks.greedy(base.prompt(i, 33), 8));
      }
      assertThat(settled(engine).prefixEvictions()).isPositive();
      Recorder young = run(engine, Tasks.greedy(base.prompt(11, 33), 8));
      assertThat(young.finish().cachedTokens()).isEqualTo(32);
      Recorder old = run(engine, Tasks.greedy(base.prompt(0, 33), 8));
      assertThat(old.finish().cachedTokens()).isZero();
      assertThat(old.bits()).isEqualTo(alone(Tasks.greedy(base.prompt(0, 33), 8)));
      // The longest possible one takes all of them.
      GenerationTask all = Tasks.greedy(base.prompt(99, 100), 60);
      assertThat(run(engine, all).bits()).isEqualTo(alone(all));
    }
  }

  /** Sequences that compute the same beside each other end up with the same blocks. */
  @Test
  void sideBySide_keepOneCopy() throws Exception {
    int[] prompt = base.prompt(8, 31);
    List<Recorder> recorders = new ArrayList<>();
    try (Engine engine = base.engine(OPTIONS.withPrefillTokens(256))) {
      List<List<Integer>> expected = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        Recorder recorder = new Recorder();
        recorder.ready = false;
        recorders.add(recorder);
      }
      List<Ticket> tickets = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        GenerationTask task = Tasks.sampled(prompt, 40, i);
        expected.add(alone(task));
        tickets.add(engine.submit(task, recorders.get(i)));
      }
      recorders.forEach(recorder -> recorder.ready = true);
      tickets.forEach(Ticket::resume);
      for (int i = 0; i < 4; i++) {
        recorders.get(i).finish();
        assertThat(recorders.get(i).bits()).isEqualTo(expected.get(i));
      }
      // One block of the prompt for all; 70 tokens that were computed make 4 blocks each.
      assertThat(settled(engine).cachedBlocks()).isEqualTo(1 + 4 * 3);
    }
  }

  /** Many that begin alike and come at once: what they share is computed about once. */
  @Test
  void herd_computesWhatItSharesOnce() throws Exception {
    int[] shared = base.prompt(12, 200);
    List<GenerationTask> tasks = new ArrayList<>();
    List<List<Integer>> expected = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      tasks.add(Tasks.sampled(concat(shared, base.prompt(30 + i, 1 + 5 * i)), 10, i));
      expected.add(alone(tasks.get(i)));
    }
    try (Engine engine = base.engine(OPTIONS)) {
      List<Recorder> recorders = new ArrayList<>();
      List<Ticket> tickets = new ArrayList<>();
      AtomicBoolean open = new AtomicBoolean();
      for (GenerationTask task : tasks) {
        Recorder recorder =
            new Recorder() {
              @Override
              public boolean ready() {
                return open.get();
              }
            };
        recorders.add(recorder);
        tickets.add(engine.submit(task, recorder));
      }
      await().until(() -> engine.stats().waiting() == 8);
      open.set(true);
      tickets.getFirst().resume();
      for (int i = 0; i < 8; i++) {
        recorders.get(i).finish();
        assertThat(recorders.get(i).bits()).isEqualTo(expected.get(i));
      }
      int own = tasks.stream().mapToInt(task -> task.prompt().length - 192).sum();
      int computed = engine.recentSteps(0).stream().mapToInt(StepRecord::prefillTokens).sum();
      assertThat(computed).isBetween(192 + own, 192 + own + 200);
    }
  }

  @Test
  void siblings_shareThePrompt_andDrawByThemselves() throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(9, 100), 30, 42);
    try (Engine engine = base.engine(OPTIONS)) {
      List<Recorder> recorders =
          List.of(new Recorder(), new Recorder(), new Recorder(), new Recorder());
      engine.submit(task, recorders);
      for (int i = 0; i < 4; i++) {
        assertThat(recorders.get(i).finish().cachedTokens()).isEqualTo(i == 0 ? 0 : 96);
      }
      assertThat(recorders.getFirst().bits()).isEqualTo(alone(task));
      assertThat(recorders.stream().map(Recorder::ids)).doesNotHaveDuplicates();
      SamplingParams third = task.sampling().forChoice(2);
      assertThat(recorders.get(2).bits())
          .isEqualTo(alone(Tasks.task(task.prompt(), 30, third, null, GenerationTask.NO_DEADLINE)));
      // 4 tokens each, beside the first one's 100; then 29 each.
      assertThat(
              engine.recentSteps(0).stream()
                  .mapToInt(s -> s.prefillTokens() + s.decodeTokens())
                  .sum())
          .isEqualTo(100 + 3 * 4 + 4 * 29);
    }
  }

  @Test
  void siblings_firstScoresForAll() throws Exception {
    GenerationTask task = Tasks.scored(base.prompt(9, 40), 10, 2);
    try (Engine engine = base.engine(OPTIONS)) {
      List<Recorder> recorders = List.of(new Recorder(), new Recorder());
      engine.submit(task, recorders);
      assertThat(recorders.get(1).finish().cachedTokens()).isEqualTo(32);
      recorders.get(0).finish();
      assertThat(recorders.get(0).bits()).isEqualTo(alone(task));
      assertThat(recorders.get(1).scores).isEmpty();
      assertThat(recorders.get(1).ids()).isEqualTo(recorders.get(0).ids());
    }
  }

  @Test
  void siblings_goOnWithoutTheFirst() throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(9, 100), 10, 1);
    try (Engine engine = base.engine(OPTIONS)) {
      Recorder first = new Recorder();
      first.ready = false;
      List<Recorder> recorders = List.of(first, new Recorder(), new Recorder());
      List<Ticket> tickets = engine.submit(task, recorders);
      await().until(() -> engine.stats().waiting() == 3);
      tickets.getFirst().cancel();

      assertThat(first.finish().reason()).isEqualTo(Finish.Reason.CANCELLED);
      assertThat(recorders.get(1).finish().cachedTokens()).isZero();
      assertThat(recorders.get(2).finish().cachedTokens()).isEqualTo(96);
    }
  }

  @Test
  void siblings_allOrNone() throws Exception {
    GenerationTask task = Tasks.greedy(base.prompt(9, 20), 10);
    try (Engine engine = base.engine(OPTIONS.withMaxWaiting(3))) {
      Recorder stuck = new Recorder();
      stuck.ready = false;
      engine.submit(task, stuck);
      assertThatThrownBy(
              () -> engine.submit(task, List.of(new Recorder(), new Recorder(), new Recorder())))
          .isInstanceOfSatisfying(
              EngineException.class,
              e -> assertThat(e.reason()).isEqualTo(EngineException.Reason.FULL));
      assertThat(engine.submit(task, List.of(new Recorder(), new Recorder()))).hasSize(2);
      assertThatThrownBy(() -> engine.submit(task, List.of()))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }

  private static AdapterRegistry registry(Path root) throws Exception {
    return new AdapterRegistry(
        base.model(), base.backend(), List.of(root), AdapterOptions.DEFAULT, Runnable::run);
  }

  private static AdapterPart part(AdapterRegistry adapters, String name, float scale) {
    return new AdapterPart(adapters.lease(name).join(), scale);
  }

  private static GenerationTask task(int[] prompt, AdapterPart... parts) {
    return Tasks.of(prompt, List.of(parts), SamplingParams.GREEDY, 12, 0, false);
  }

  @Test
  void effectiveAdapters_shareOnlyWithTheirOwnKind() throws Exception {
    int[] prompt = base.prompt(21, 70);
    try (AdapterRegistry adapters = registry(TestBase.resource("adapters/llama_mha"));
        Engine engine = base.engine(OPTIONS)) {
      List<Supplier<GenerationTask>> kinds =
          List.of(
              () -> task(prompt),
              () -> task(prompt, part(adapters, "all_linear_r16", 1)),
              // But for the scale the same.
              () -> task(prompt, part(adapters, "all_linear_r16", 0.5f)),
              () -> task(prompt, part(adapters, "lora_r8_qv", 1)),
              () ->
                  task(
                      prompt, part(adapters, "all_linear_r16", 1), part(adapters, "lora_r8_qv", 1)),
              () ->
                  task(
                      prompt,
                      part(adapters, "lora_r8_qv", 1),
                      part(adapters, "all_linear_r16", 1)));
      List<List<Integer>> answers = new ArrayList<>();
      for (int round = 0; round < 2; round++) {
        for (Supplier<GenerationTask> kind : kinds) {
          Recorder recorder = run(engine, kind.get());
          assertThat(recorder.finish().cachedTokens()).isEqualTo(round == 0 ? 0 : 64);
          assertThat(recorder.bits()).isEqualTo(alone(kind.get()));
          answers.add(recorder.bits());
        }
      }
      assertThat(answers.subList(0, 5)).doesNotHaveDuplicates();
    }
  }

  /** What a name stood for before counts for nothing; what an adapter is called neither. */
  @Test
  void newVersionOfAName_seesNothingOfTheOld(@TempDir Path root) throws Exception {
    int[] prompt = base.prompt(22, 50);
    copy("lora_r8_qv", root.resolve("mine"));
    copy("lora_r8_qv", root.resolve("twin"));
    try (AdapterRegistry adapters = registry(root);
        Engine engine = base.engine(OPTIONS)) {
      Recorder old = run(engine, task(prompt, part(adapters, "mine", 1)));
      assertThat(run(engine, task(prompt, part(adapters, "mine", 1))).finish().cachedTokens())
          .isEqualTo(48);
      assertThat(run(engine, task(prompt, part(adapters, "twin", 1))).finish().cachedTokens())
          .isEqualTo(48);

      adapters.unload("mine");
      copy("rslora_r32", root.resolve("mine"));
      adapters.load("mine", null).join();
      Recorder fresh = run(engine, task(prompt, part(adapters, "mine", 1)));

      assertThat(fresh.finish().cachedTokens()).isZero();
      assertThat(fresh.bits()).isEqualTo(alone(task(prompt, part(adapters, "mine", 1))));
      assertThat(fresh.bits()).isNotEqualTo(old.bits());

      // Back again: the old content, the old blocks.
      adapters.unload("mine");
      copy("lora_r8_qv", root.resolve("mine"));
      adapters.load("mine", null).join();
      Recorder again = run(engine, task(prompt, part(adapters, "mine", 1)));
      assertThat(again.finish().cachedTokens()).isEqualTo(48);
      assertThat(again.bits()).isEqualTo(old.bits());
    }
  }

  private static void copy(String adapter, Path to) throws Exception {
    Files.createDirectories(to);
    try (Stream<Path> files =
        Files.list(TestBase.resource("adapters/llama_mha").resolve(adapter))) {
      for (Path file : files.toList()) {
        Files.copy(file, to.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
      }
    }
  }

  @Test
  void identity_everyPartCounts() {
    String[] both = {"a", "b"};
    Identity identity = identity(both, 1, 0.5f);
    assertThat(identity).isEqualTo(identity(new String[] {"a", "b"}, 1, 0.5f));
    assertThat(identity).hasSameHashCodeAs(identity(new String[] {"a", "b"}, 1, 0.5f));
    assertThat(identity).isEqualTo(identity(new String[] {"a", "c", "b"}, 1, 0, 0.5f));
    assertThat(
            List.of(
                identity(new String[] {}),
                identity(new String[] {"a"}, 1),
                identity(new String[] {"b", "a"}, 0.5f, 1),
                identity(new String[] {"b", "a"}, 1, 0.5f),
                identity(both, 0.5f, 1),
                identity(both, 1, 0.25f),
                identity(both, 1, -0.5f),
                new Identity(KvShape.Type.BF16, MathMode.EXACT, both, new float[] {1, 0.5f}),
                new Identity(KvShape.Type.F32, MathMode.FAST, both, new float[] {1, 0.5f})))
        .doesNotContain(identity)
        .doesNotHaveDuplicates();
    assertThat(identity(new String[] {"a"}, 0)).isEqualTo(identity(new String[] {}));
  }

  @Test
  void identity_ofATenantIsNobodyElses() {
    Identity identity = identity(new String[] {"a"}, 1);
    assertThat(identity.of("acme")).isEqualTo(identity(new String[] {"a"}, 1).of("acme"));
    assertThat(identity.of("acme")).hasSameHashCodeAs(identity.of("acme"));
    assertThat(List.of(identity, identity.of("globex"), identity(new String[] {}).of("acme")))
        .doesNotContain(identity.of("acme"))
        .doesNotHaveDuplicates();
  }

  private static GenerationTask of(String tenant, GenerationTask task) {
    return new GenerationTask(
        task.id(),
        tenant,
        task.prompt(),
        task.adapters(),
        task.sampling(),
        task.maxTokens(),
        task.eos(),
        task.stopTokens(),
        task.top(),
        task.echo(),
        task.deadline());
  }

  @Test
  void tenantsApart_takeOverTheirOwnAlone() throws Exception {
    GenerationTask task = Tasks.sampled(base.prompt(7, 100), 20, 7);
    try (Engine engine = base.engine(OPTIONS.withTenantsApart(true))) {
      Recorder first = run(engine, of("acme", task));
      assertThat(first.finish().cachedTokens()).isZero();
      assertThat(run(engine, of("globex", task)).finish().cachedTokens()).isZero();
      assertThat(run(engine, of("", task)).finish().cachedTokens()).isZero();
      Recorder again = run(engine, of("acme", task));
      assertThat(again.finish().cachedTokens()).isEqualTo(96);
      assertThat(again.bits()).isEqualTo(first.bits());
    }
    try (Engine engine = base.engine(OPTIONS)) {
      run(engine, of("acme", task));
      assertThat(run(engine, of("globex", task)).finish().cachedTokens()).isEqualTo(96);
    }
  }

  private static Identity identity(String[] digests, float... scales) {
    return new Identity(KvShape.Type.F32, MathMode.EXACT, digests, scales);
  }

  /** Though every hash be the same, only equality of everything is a hit. */
  @ParameterizedTest
  @CsvSource({"-1", "0"})
  void find_onlyTheScaleDiffers_orOneToken(long hashMask) {
    PrefixIndex index = new PrefixIndex(8, hashMask);
    Identity whole = identity(new String[] {"a"}, 1);
    Identity half = identity(new String[] {"a"}, 0.5f);
    int[] tokens = base.prompt(1, 32);
    index.add(whole, PrefixIndex.NONE, tokens, 0, 3);
    index.add(whole, 3, tokens, 16, 5);

    assertThat(index.find(whole, PrefixIndex.NONE, tokens, 0)).isEqualTo(3);
    assertThat(index.find(whole, 3, tokens, 16)).isEqualTo(5);
    assertThat(index.find(half, PrefixIndex.NONE, tokens, 0)).isEqualTo(PrefixIndex.NONE);
    assertThat(index.find(whole, PrefixIndex.NONE, tokens, 16)).isEqualTo(PrefixIndex.NONE);
    assertThat(index.find(whole, 5, tokens, 16)).isEqualTo(PrefixIndex.NONE);
    for (int i = 0; i < 16; i++) {
      int[] other = tokens.clone();
      other[16 + i]++;
      assertThat(index.find(whole, 3, other, 16)).isEqualTo(PrefixIndex.NONE);
    }
    assertThatThrownBy(() -> index.remove(3)).isInstanceOf(IllegalStateException.class);
    index.remove(5);
    index.remove(3);
    assertThat(index.size()).isZero();
    assertThat(index.find(whole, PrefixIndex.NONE, tokens, 0)).isEqualTo(PrefixIndex.NONE);
  }
}
