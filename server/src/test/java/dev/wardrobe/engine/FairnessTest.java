package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.sampling.SamplingParams;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Who waits how long, counted in steps: queue, residency and page pool as they are, over 200 real
 * adapters, but nothing is computed.
 */
@Timeout(120)
final class FairnessTest {
  private static final int ADAPTERS = 200;

  /** What is in memory at a time. */
  private static final int FIT = 8;

  /** The scheduler's, once more: a longer one is to be noticed. */
  private static final int PATIENCE = 16;

  private static final int KV_PAGES = 500;
  private static final int PREFILL = 64;

  /** Steps that a load takes. */
  private static final int LOAD_STEPS = 2;

  @TempDir private static Path folder;
  private static TestBase base;
  private static AdapterSet set;

  /** Of several times the rank. */
  private static AdapterSet wide;

  private final ArrayDeque<Runnable> loaders = new ArrayDeque<>();
  private final Map<Identity, EffectiveAdapter> adapters = new HashMap<>();
  private final Set<Sequence> running = new HashSet<>();
  private final Map<Sequence, Integer> submitted = new HashMap<>();
  private final Map<Sequence, Integer> waited = new HashMap<>();
  private final Map<Sequence, Integer> ended = new HashMap<>();
  private AdapterRegistry registry;
  private PagePool pool;
  private Residency residency;
  private Scheduler scheduler;
  private int adapterPages;
  private int steps;
  private long arrivals;
  private boolean loads = true;

  @BeforeAll
  static void make() throws Exception {
    base = new TestBase(1);
    set = AdapterSet.make(folder.resolve("set"), base.model().config(), ADAPTERS, 1, 1, List.of(1));
    wide =
        AdapterSet.make(
            folder.resolve("wide").resolve("wide"), base.model().config(), 2, 1, 1, List.of(5));
  }

  @AfterAll
  static void close() {
    base.close();
    assertThat(base.backend().liveBytes()).isZero();
  }

  private void open(int places) throws Exception {
    registry =
        new AdapterRegistry(
            base.model(),
            base.backend(),
            List.of(folder.resolve("set"), folder.resolve("wide")),
            AdapterOptions.DEFAULT,
            loaders::add);
    try (Lease lease = lease(0)) {
      PagePool measure = new PagePool(new Pages(1));
      adapterPages = Math.toIntExact(Math.ceilDiv(lease.deviceBytes(), measure.blockBytes()));
    }
    pool = new PagePool(new Pages(KV_PAGES + FIT * adapterPages));
    residency = new Residency(pool, KV_PAGES, FIT * adapterPages, 2, () -> {}, new EngineMeters());
    scheduler = new Scheduler(places, PREFILL, pool, residency, () -> {});
  }

  @AfterEach
  void end() {
    for (Sequence sequence : List.copyOf(running)) {
      finish(sequence);
    }
    residency.land();
    residency.close();
    assertThat(pool.available()).isEqualTo(pool.blocks());
    assertThat(registry.residentBytes()).isZero();
    assertThat(registry.list()).allMatch(entry -> entry.inUse() == 0);
    registry.close();
  }

  private void load() {
    for (Runnable next = loaders.poll(); next != null; next = loaders.poll()) {
      next.run();
    }
  }

  private Lease lease(int adapter) {
    return lease(set.name(adapter));
  }

  private Lease lease(String adapter) {
    var future = registry.lease(adapter);
    while (!future.isDone()) {
      load();
    }
    return future.join();
  }

  /**
   * @param adapter -1 for the base
   */
  private Sequence submit(String tenant, int adapter, int prompt, int maxTokens) {
    return submit(tenant, adapter < 0 ? null : set.name(adapter), prompt, maxTokens);
  }

  /**
   * @param adapter null for the base
   */
  private Sequence submit(String tenant, @Nullable String adapter, int prompt, int maxTokens) {
    List<AdapterPart> parts =
        adapter == null ? List.of() : List.of(new AdapterPart(lease(adapter)));
    Identity identity = Identity.of(KvShape.Type.F32, MathMode.EXACT, parts);
    Siblings siblings = new Siblings();
    // Of its own: no prefix is shared.
    int[] tokens = new Random(arrivals).ints(prompt, 0, 1 << 30).toArray();
    Sequence sequence =
        new Sequence(
            new GenerationTask(
                "test",
                tenant,
                tokens,
                parts,
                SamplingParams.GREEDY,
                maxTokens,
                Set.of(),
                Set.of(),
                0,
                false,
                GenerationTask.NO_DEADLINE),
            new Recorder(),
            siblings,
            0,
            identity,
            identity,
            arrivals++,
            0);
    siblings.are(List.of(sequence));
    sequence.ready = true;
    if (adapter != null) {
      sequence.adapter =
          adapters.computeIfAbsent(
              identity,
              i ->
                  new EffectiveAdapter(
                      i,
                      adapters.size() + 1,
                      residency,
                      new Residence[] {residency.enter(parts.getFirst().lease())},
                      new float[] {1}));
      sequence.adapter.sequences++;
    }
    submitted.put(sequence, steps);
    running.add(sequence);
    scheduler.add(sequence);
    return sequence;
  }

  private void finish(Sequence sequence) {
    running.remove(sequence);
    ended.put(sequence, steps);
    sequence.ended = true;
    scheduler.remove(sequence);
    EffectiveAdapter adapter = sequence.adapter;
    if (adapter != null && --adapter.sequences == 0) {
      adapters.remove(sequence.identity);
      residency.forgo(adapter.residence(0));
    }
    sequence.task.adapters().forEach(part -> part.lease().close());
  }

  /** Plans a step and pretends that it ran. */
  private List<Sequence> step() {
    if (loads && steps % LOAD_STEPS == 0) {
      load();
    }
    assertThat(residency.land()).isEmpty();
    List<Sequence> plan = List.copyOf(scheduler.plan());
    assertThat(pool.lent()).isLessThanOrEqualTo(FIT * adapterPages);
    steps++;
    for (Sequence sequence : plan) {
      assertThat(sequence.adapted()).isTrue();
      waited.putIfAbsent(sequence, steps - submitted.get(sequence));
      sequence.computed += sequence.share;
      if (sequence.pending() == 0) {
        sequence.append(1);
        scheduler.served(sequence);
        if (sequence.generated() == sequence.task.maxTokens()) {
          finish(sequence);
        }
      }
    }
    return plan;
  }

  /** Adapters that many sequences use at once are few; all the others get their turn. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void manyAdapters_littleMemory_everyoneEnds(long seed) throws Exception {
    open(16);
    int each = 3;
    int tokens = 12;
    List<Integer> order = new ArrayList<>();
    for (int i = 0; i < each * ADAPTERS; i++) {
      order.add(i % ADAPTERS);
    }
    Collections.shuffle(order, new Random(seed));
    Map<Integer, Sequence> first = new HashMap<>();
    List<Sequence> all = new ArrayList<>();
    for (int adapter : order) {
      Sequence sequence = submit("", adapter, 10, tokens);
      first.putIfAbsent(adapter, sequence);
      all.add(sequence);
    }
    // A turn is a prompt and its tokens, and a load before it.
    int turn = 1 + tokens + 2 * LOAD_STEPS;
    int round = Math.ceilDiv(ADAPTERS, FIT) * turn;
    while (!running.isEmpty()) {
      step();
      assertThat(steps).as("seed %d", seed).isLessThan(3 * each * round);
    }
    assertThat(ended).hasSize(all.size());
    // Nobody's first request waits for others' second ones, but for those in the same turn.
    assertThat(first.values()).extracting(waited::get).allMatch(w -> w <= 2 * round);
    assertThat(all).extracting(waited::get).allMatch(w -> w <= 2 * each * round);
    // And it does not thrash: about one load for each adapter's turn.
    assertThat(residency.loaded()).isLessThanOrEqualTo((long) each * ADAPTERS);
  }

  @Test
  void coldAdapter_amongHotOnes_waitsNoLongerThanOneOfThemEnds() throws Exception {
    open(16);
    int tokens = 30;
    List<Sequence> hot = new ArrayList<>();
    for (int i = 0; i < 2 * FIT; i++) {
      // Of two that use an adapter one is always in the middle.
      hot.add(submit("", i % FIT, 5, i < FIT ? tokens : tokens / 2));
    }
    Sequence cold = null;
    for (int i = 0; i < 400; i++) {
      if (i == 100) {
        cold = submit("", 100, 5, tokens);
      }
      step();
      // Whoever ends comes again at once, and there is always one of the same adapter running.
      for (int j = 0; j < hot.size(); j++) {
        if (ended.containsKey(hot.get(j))) {
          hot.set(j, submit("", j % FIT, 5, tokens));
        }
      }
    }
    assertThat(waited.get(Objects.requireNonNull(cold)))
        .isNotNull()
        .isLessThanOrEqualTo(PATIENCE + tokens + 2 * LOAD_STEPS + 4);
    assertThat(ended).containsKey(cold);
  }

  @Test
  void floodOfOneTenant_doesNotHoldUpAnother() throws Exception {
    open(8);
    for (int i = 0; i < 100; i++) {
      submit("flood", -1, 5, 200);
    }
    for (int i = 0; i < 50; i++) {
      step();
    }
    Sequence single = submit("single", -1, 5, 20);
    while (running.contains(single)) {
      step();
    }
    assertThat(waited.get(single)).isLessThanOrEqualTo(PATIENCE + 2);
    // Once it has its place it keeps it.
    assertThat(ended.get(single) - submitted.get(single))
        .isLessThanOrEqualTo(PATIENCE + 2 + 20 + 1);
    assertThat(single.preemptions).isZero();
  }

  @Test
  void floodOfOneAdapter_doesNotHoldUpOthersOfTheTenant() throws Exception {
    open(8);
    for (int i = 0; i < 100; i++) {
      submit("", 1, 5, 200);
    }
    for (int i = 0; i < 50; i++) {
      step();
    }
    Sequence other = submit("", 2, 5, 20);
    Sequence plain = submit("", -1, 5, 20);
    while (running.contains(other) || running.contains(plain)) {
      step();
    }
    int bound = 2 * (PATIENCE + 2) + 2 * LOAD_STEPS;
    assertThat(waited.get(other)).isLessThanOrEqualTo(bound);
    assertThat(waited.get(plain)).isLessThanOrEqualTo(bound);
  }

  @Test
  void tenants_shareEvenly_whateverTheyBring() throws Exception {
    open(8);
    List<Sequence> few = new ArrayList<>();
    List<Sequence> many = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      few.add(submit("few", -1, 5, 40));
    }
    for (int i = 0; i < 200; i++) {
      many.add(submit("many", -1, 5, 40));
    }
    int[] tokens = new int[2];
    for (int i = 0; i < 600; i++) {
      for (Sequence sequence : step()) {
        tokens[sequence.task.tenant().equals("few") ? 0 : 1]++;
      }
      for (int j = 0; j < few.size(); j++) {
        if (ended.containsKey(few.get(j))) {
          few.set(j, submit("few", -1, 5, 40));
        }
      }
    }
    assertThat((double) tokens[0] / tokens[1]).isBetween(0.8, 1.25);
  }

  @Test
  void whoComesLate_hasNothingSavedUp() throws Exception {
    open(4);
    List<Sequence> early = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      early.add(submit("early", -1, 5, 20));
    }
    int[] tokens = new int[2];
    List<Sequence> late = new ArrayList<>();
    for (int i = 0; i < 1000; i++) {
      if (i == 500) {
        for (int j = 0; j < 8; j++) {
          late.add(submit("late", -1, 5, 20));
        }
      }
      for (Sequence sequence : step()) {
        if (i >= 500) {
          tokens[sequence.task.tenant().equals("early") ? 0 : 1]++;
        }
      }
      again(early, "early");
      again(late, "late");
    }
    assertThat((double) tokens[0] / tokens[1]).isBetween(0.8, 1.25);
  }

  private void again(List<Sequence> sequences, String tenant) {
    for (int i = 0; i < sequences.size(); i++) {
      if (ended.containsKey(sequences.get(i))) {
        sequences.set(i, submit(tenant, -1, 5, 20));
      }
    }
  }

  @Test
  void base_isNotHeldUpByLoads() throws Exception {
    open(8);
    for (int i = 0; i < 50; i++) {
      submit("", i, 5, 20);
    }
    loads = false;
    for (int i = 0; i < 20; i++) {
      Sequence plain = submit("", -1, 5, 3);
      step();
      assertThat(waited.get(plain)).isEqualTo(1);
    }
    loads = true;
    while (!running.isEmpty()) {
      step();
    }
  }

  @Test
  void reader_notThere_givesItsAdapterUp() throws Exception {
    open(16);
    List<Sequence> stuck = new ArrayList<>();
    for (int i = 0; i < FIT; i++) {
      stuck.add(submit("", i, 5, 50));
    }
    while (waited.size() < FIT) {
      step();
    }
    stuck.forEach(sequence -> Recorder.ready(sequence, false));
    Sequence plain = submit("", -1, 5, 400);
    Sequence other = submit("", 150, 5, 20);
    for (int i = 0; i < 100 && running.contains(other); i++) {
      step();
    }
    assertThat(waited.get(other)).isLessThanOrEqualTo(PATIENCE + 2 * LOAD_STEPS + 4);
    assertThat(plain.preemptions).isZero();
    stuck.forEach(sequence -> Recorder.ready(sequence, true));
    while (!running.isEmpty()) {
      step();
    }
    assertThat(ended).containsKeys(stuck.toArray(Sequence[]::new));
  }

  @Test
  void readers_allNotThere_giveTheirAdaptersUp() throws Exception {
    open(16);
    List<Sequence> stuck = new ArrayList<>();
    for (int i = 0; i < FIT; i++) {
      stuck.add(submit("", i, 5, 50));
    }
    while (waited.size() < FIT) {
      step();
    }
    stuck.forEach(sequence -> Recorder.ready(sequence, false));
    Sequence other = submit("", 150, 5, 20);
    for (int i = 0; i < 100 && running.contains(other); i++) {
      step();
    }
    assertThat(waited.get(other)).isNotNull().isLessThanOrEqualTo(2 * LOAD_STEPS + 4);
    assertThat(ended).containsKey(other);
  }

  @Test
  void largeAdapter_amongSmallOnesThatComeAndGo_getsItsRoom() throws Exception {
    open(32);
    int tokens = 30;
    List<Sequence> small = new ArrayList<>();
    int next = 0;
    for (; next < 2 * FIT; next++) {
      small.add(submit("tenant " + next, next % ADAPTERS, 5, tokens + next));
    }
    Sequence large = null;
    for (int i = 0; i < 600; i++) {
      if (i == 100) {
        large = submit("large", "wide/" + wide.name(0), 5, tokens);
      }
      step();
      // Whoever ends is followed by somebody new, who wants an adapter that is not there.
      for (int j = 0; j < small.size(); j++) {
        if (ended.containsKey(small.get(j))) {
          small.set(j, submit("tenant " + next, next % ADAPTERS, 5, tokens + j));
          next++;
        }
      }
    }
    assertThat(waited.get(large))
        .isNotNull()
        .isLessThanOrEqualTo(PATIENCE + 2 * (tokens + 2 * FIT) + 4 * LOAD_STEPS);
    assertThat(ended).containsKey(large);
  }

  @Test
  void adapterThatFitsNot_besidePinnedOnes_isFoundOut_andHoldsNobodyUp() throws Exception {
    open(16);
    for (int i = 0; i < 3 * FIT / 4; i++) {
      registry.loadTrusted("pinned-" + i, folder.resolve("set").resolve(set.name(i)));
      submit("", "pinned-" + i, 5, 5);
    }
    while (!running.isEmpty()) {
      step();
    }
    Sequence plain = submit("", -1, 5, 400);
    Sequence large = submit("", "wide/" + wide.name(0), 5, 5);
    assertThat(large.adapter).isNotNull();
    assertThat(residency.pinned() + large.adapter.residence(0).pages)
        .isGreaterThan(residency.most());
    List<Sequence> others = new ArrayList<>();
    for (int i = 0; i < 100 && scheduler.hopeless() == null; i++) {
      others.add(submit("", 100 + i, 5, 5));
      step();
    }
    assertThat(scheduler.hopeless()).isSameAs(large);
    finish(large);
    for (int i = 0; i < 100 && running.size() > 1; i++) {
      step();
    }
    assertThat(running).containsExactly(plain);
    assertThat(ended).containsKeys(others.toArray(Sequence[]::new));
  }

  @Test
  void idlePinnedAdapter_isNoRoomForOthers() throws Exception {
    open(16);
    for (int i = 0; i < FIT / 4; i++) {
      registry.loadTrusted("pinned-" + i, folder.resolve("set").resolve(set.name(i)));
      submit("", "pinned-" + i, 5, 5);
    }
    while (!running.isEmpty()) {
      step();
    }
    int tokens = 30;
    List<Sequence> hot = new ArrayList<>();
    int kinds = FIT - FIT / 4;
    for (int i = 0; i < 2 * kinds; i++) {
      hot.add(submit("", 20 + i % kinds, 5, i < kinds ? tokens : tokens / 2));
    }
    Sequence cold = null;
    for (int i = 0; i < 400; i++) {
      if (i == 100) {
        cold = submit("", 100, 5, tokens);
      }
      step();
      for (int j = 0; j < hot.size(); j++) {
        if (ended.containsKey(hot.get(j))) {
          hot.set(j, submit("", 20 + j % kinds, 5, tokens));
        }
      }
    }
    assertThat(waited.get(cold))
        .isNotNull()
        .isLessThanOrEqualTo(PATIENCE + tokens + 2 * LOAD_STEPS + 4);
  }

  @Test
  void longestSequence_afterAdapters_hasAllButTheirFloor() throws Exception {
    open(16);
    // The floor is no multiple of what an adapter takes.
    residency =
        new Residency(pool, KV_PAGES, FIT * adapterPages - 1, 2, () -> {}, new EngineMeters());
    scheduler = new Scheduler(16, PREFILL, pool, residency, () -> {});
    for (int i = 0; i < FIT; i++) {
      submit("", i, 5, 5);
    }
    while (!running.isEmpty()) {
      step();
    }
    Sequence longest = submit("", -1, residency.mostKv() * KvShape.BLOCK_TOKENS - 1, 1);
    for (int i = 0; i < 1000 && running.contains(longest); i++) {
      step();
    }
    assertThat(ended).containsKey(longest);
  }

  @Test
  void tenants_areForgotten() throws Exception {
    open(8);
    submit("stays", -1, 5, 6000);
    for (int i = 0; i < 3000; i++) {
      Sequence one = submit("tenant " + i, -1, 1, 1);
      step();
      assertThat(running).doesNotContain(one);
      assertThat(scheduler.queue().tenants()).isLessThanOrEqualTo(1025);
    }
  }
}
