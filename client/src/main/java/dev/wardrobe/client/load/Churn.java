package dev.wardrobe.client.load;

import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.AdapterServiceGrpc.AdapterServiceBlockingStub;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.DeleteVersionRequest;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.RollbackAliasRequest;
import dev.wardrobe.v1.SetAliasRequest;
import dev.wardrobe.v1.Share;
import dev.wardrobe.v1.UnloadAdapterRequest;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Many short requests for many adapters, while names are bound anew, forgotten and loaded, versions
 * are published, rolled back and deleted, and memory is too small for all. Every answer is compared
 * with what the digest that it names answers alone, and every digest with what the name may have
 * stood for at that time.
 */
public final class Churn {
  /** Within so many tokens any two adapters' answers differ. */
  static final int TELLING_TOKENS = 4;

  private static final int MOST_TOKENS = 8;

  /** Nothing takes as long, or it is lost. */
  private static final long DEADLINE_MILLIS = TimeUnit.MINUTES.toMillis(2);

  private static final long RETRY_MILLIS = 20;
  private static final int MOST_ATTEMPTS = 500;
  private static final int LOOKS = 100;
  private static final int WORDS = 20;

  /** Names at the beginning that stay what they are, and are asked for by digest too. */
  private static final int STEADY = 4;

  /** Versions of a name in the store before old ones are deleted. */
  private static final int MANY_VERSIONS = 4;

  private final Connection connection;
  private final @Nullable ProcessHandle server;
  private final CanarySet set;
  private final ChurnOptions options;
  private final Consumer<String> progress;

  private final Catalogue catalogue = new Catalogue();
  private final List<AskedName> asked = new CopyOnWriteArrayList<>();
  private final AtomicLong begun = new AtomicLong();
  private final AtomicLong right = new AtomicLong();
  private final AtomicLong refused = new AtomicLong();
  private final AtomicLong cancelled = new AtomicLong();
  private final AtomicLong retried = new AtomicLong();
  private final AtomicLong swapIns = new AtomicLong();
  private final Log wrong = new Log();
  private final Log lost = new Log();
  private final Log failedChanges = new Log();
  private final Map<String, Long> changes = new TreeMap<>();
  private final List<Long> resident = new ArrayList<>();
  private volatile boolean over;

  /** Counts, and keeps the first few. */
  private static final class Log {
    private long count;
    private final List<String> first = new ArrayList<>();

    synchronized void add(String what) {
      count++;
      if (first.size() < WORDS) {
        first.add(what);
      }
    }

    synchronized ChurnReport.Findings findings() {
      return new ChurnReport.Findings(count, List.copyOf(first));
    }
  }

  /**
   * @param server its process, or null if that is not known: then nobody watches its memory
   * @param set under an adapter root of the server
   * @param progress is told how far it is
   */
  public Churn(
      Connection connection,
      @Nullable ProcessHandle server,
      CanarySet set,
      ChurnOptions options,
      Consumer<String> progress) {
    this.connection = connection;
    this.server = server;
    this.set = set;
    this.options = options;
    this.progress = progress;
  }

  /**
   * Does all of it.
   *
   * @throws ChurnException if it cannot begin: the server does not have the set, or they are no
   *     canaries
   */
  public ChurnReport run() throws ChurnException, InterruptedException {
    askAlone();
    List<Thread> changers = new ArrayList<>();
    SplittableRandom random = new SplittableRandom(options.seed());
    for (int i = 0; i < options.names(); i++) {
      asked.add(new AskedName(set.name(i), catalogue.digest(i + 1)));
    }
    RootChanges root = new RootChanges(random.split());
    changers.add(changer("wardrobe-churn-root", root));
    if (options.published() > 0) {
      StoreChanges store = new StoreChanges(random.split());
      changers.add(changer("wardrobe-churn-store", store));
    }
    progress.accept(
        "%d adapters and the base answered alone; now all at once".formatted(set.count()));
    long start = System.nanoTime();
    CountDownLatch streams = new CountDownLatch(options.streams());
    ScheduledExecutorService timer =
        Executors.newSingleThreadScheduledExecutor(
            Thread.ofPlatform().daemon().name("wardrobe-churn-timer").factory());
    try (timer) {
      changers.forEach(Thread::start);
      for (int i = 0; i < options.streams(); i++) {
        new Stream(i, random.split(), timer, streams).next();
      }
      watch(streams);
      over = true;
      for (Thread changer : changers) {
        changer.join();
      }
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    return new ChurnReport(
        right.get(),
        refused.get(),
        cancelled.get(),
        retried.get(),
        wrong.findings(),
        lost.findings(),
        failedChanges.findings(),
        Map.copyOf(changes),
        swapIns.get(),
        seconds,
        List.copyOf(resident),
        leftovers());
  }

  /** Waits for the streams' end and looks at the server's memory as they go on. */
  private void watch(CountDownLatch streams) throws InterruptedException {
    long looked = -1;
    long told = 0;
    while (!streams.await(10, TimeUnit.MILLISECONDS)) {
      long part = begun.get() * LOOKS / options.requests();
      if (part > looked && server != null) {
        looked = part;
        long bytes = ServerSeen.resident(server);
        if (bytes >= 0) {
          resident.add(bytes);
        }
      }
      if (part / 10 > told) {
        told = part / 10;
        progress.accept(
            "%d requests begun, %d wrong, %d lost"
                .formatted(begun.get(), wrong.findings().count(), lost.findings().count()));
      }
    }
  }

  private void askAlone() throws ChurnException, InterruptedException {
    for (int i = -1; i < set.count(); i++) {
      String name = i < 0 ? "" : set.name(i);
      List<List<Integer>> answers = new ArrayList<>();
      String digest = "";
      for (List<Integer> prompt : set.prompts()) {
        Alone alone = new Alone();
        connection.start(request(name, prompt, MOST_TOKENS), 0, DEADLINE_MILLIS, alone);
        try {
          answers.add(alone.tokens.get(DEADLINE_MILLIS, TimeUnit.MILLISECONDS));
        } catch (ExecutionException | TimeoutException e) {
          throw new ChurnException(
              "%s does not answer alone: %s"
                  .formatted(
                      name.isEmpty() ? "the base" : name,
                      e.getCause() == null ? e : e.getCause().getMessage()),
              e);
        }
        digest = alone.digest;
      }
      if (catalogue.knows(digest)) {
        throw new ChurnException(
            "%s: expected adapters of distinct content, got %s twice".formatted(name, digest));
      }
      catalogue.add(digest, answers);
    }
    if (!catalogue.differ(set.prompts().size(), TELLING_TOKENS)) {
      throw new ChurnException(
          "expected adapters whose answers differ within %d tokens; make them with 'wardrobe bench"
                  .formatted(TELLING_TOKENS)
              + " adapters --canaries', for the model that answers");
    }
  }

  private static GenerateRequest request(String name, List<Integer> prompt, int tokens) {
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder()
            .addAllTokenIds(prompt)
            .setTemperature(0)
            .setIgnoreEos(true)
            .setMaxTokens(tokens);
    if (!name.isEmpty()) {
      request.setAdapter(name);
    }
    return request.build();
  }

  /** Takes one answer. */
  private static final class Alone implements Connection.Listener {
    private final CompletableFuture<List<Integer>> tokens = new CompletableFuture<>();
    private final List<Integer> seen = new ArrayList<>();
    private volatile String digest = "";

    @Override
    public void event(GenerateEvent event) {
      if (event.hasStarted()) {
        digest = event.getStarted().getAdapterDigest();
      }
      seen.addAll(event.getDelta().getTokenIdsList());
    }

    @Override
    public void end(Status status) {
      if (status.isOk() && seen.size() == MOST_TOKENS) {
        tokens.complete(List.copyOf(seen));
      } else {
        tokens.completeExceptionally(
            new IllegalStateException(
                status.isOk()
                    ? "expected %d tokens, got %d".formatted(MOST_TOKENS, seen.size())
                    : status.getCode() + ": " + status.getDescription()));
      }
    }
  }

  /** One request after the other. */
  private final class Stream {
    private final int number;
    private final SplittableRandom random;
    private final ScheduledExecutorService timer;
    private final CountDownLatch done;

    Stream(
        int number, SplittableRandom random, ScheduledExecutorService timer, CountDownLatch done) {
      this.number = number;
      this.random = random;
      this.timer = timer;
      this.done = done;
    }

    void next() {
      if (begun.incrementAndGet() > options.requests()) {
        done.countDown();
        return;
      }
      int prompt = random.nextInt(set.prompts().size());
      int tokens = random.nextInt(TELLING_TOKENS, MOST_TOKENS + 1);
      int kind = random.nextInt(100);
      // Some go away in the middle, and nobody else may notice.
      int cancelAfter =
          random.nextInt(100) < options.cancelled() ? random.nextInt(1, TELLING_TOKENS) : 0;
      AskedName name;
      if (kind < 5) {
        name = new AskedName("", "");
      } else if (kind < 10) {
        String digest = catalogue.digest(1 + random.nextInt(Math.min(STEADY, options.names())));
        name = new AskedName(digest, digest);
      } else {
        // As it is now: versions that are deleted leave the list.
        AskedName[] all = asked.toArray(AskedName[]::new);
        name = all[random.nextInt(all.length)];
      }
      new Request(this, name, prompt, tokens, cancelAfter, 0).start();
    }
  }

  /** One request, until it is known what came of it. */
  private final class Request implements Connection.Listener {
    private final Stream stream;
    private final AskedName name;
    private final int prompt;
    private final int tokens;
    private final int cancelAfter;
    private final int attempt;
    private final List<Integer> seen = new ArrayList<>();
    private long sent;
    private String digest = "";
    private String servedAs = "";
    private boolean began;
    private boolean finished;
    private boolean gone;
    private volatile Connection.@Nullable Answer answer;

    Request(Stream stream, AskedName name, int prompt, int tokens, int cancelAfter, int attempt) {
      this.stream = stream;
      this.name = name;
      this.prompt = prompt;
      this.tokens = tokens;
      this.cancelAfter = cancelAfter;
      this.attempt = attempt;
    }

    void start() {
      sent = System.nanoTime();
      answer =
          connection.start(
              request(name.name(), set.prompts().get(prompt), tokens),
              stream.number,
              DEADLINE_MILLIS,
              this);
    }

    @Override
    public void event(GenerateEvent event) {
      switch (event.getEventCase()) {
        case STARTED -> {
          began = true;
          digest = event.getStarted().getAdapterDigest();
          servedAs = event.getStarted().getAdapter();
        }
        case DELTA -> {
          seen.addAll(event.getDelta().getTokenIdsList());
          Connection.Answer running = answer;
          if (cancelAfter > 0 && seen.size() >= cancelAfter && !gone && running != null) {
            gone = true;
            running.cancel();
          }
        }
        case FINISHED -> {
          finished = true;
          if (event.getFinished().getUsage().getSwapInMs() > 0) {
            swapIns.incrementAndGet();
          }
        }
        default -> {}
      }
    }

    @Override
    public void end(Status status) {
      long now = System.nanoTime();
      if (status.getCode() == Status.Code.RESOURCE_EXHAUSTED && attempt < MOST_ATTEMPTS) {
        retried.incrementAndGet();
        var _ =
            stream.timer.schedule(
                new Request(stream, name, prompt, tokens, cancelAfter, attempt + 1)::start,
                RETRY_MILLIS,
                TimeUnit.MILLISECONDS);
        return;
      }
      judge(status, now);
      stream.next();
    }

    private void judge(Status status, long now) {
      Set<String> possible = name.between(sent, now);
      if (status.isOk() && finished) {
        if (seen.size() != tokens) {
          lost.add("%s: expected %d tokens, got %d".formatted(this, tokens, seen.size()));
        } else if (check(possible)) {
          right.incrementAndGet();
        }
      } else if (gone && status.getCode() == Status.Code.CANCELLED) {
        if (check(possible)) {
          cancelled.incrementAndGet();
        }
      } else if (status.getCode() == Status.Code.NOT_FOUND
          && !began
          && possible.contains(AskedName.NOTHING)) {
        refused.incrementAndGet();
      } else {
        lost.add("%s: %s: %s".formatted(this, status.getCode(), status.getDescription()));
      }
    }

    private boolean check(Set<String> possible) {
      if (!possible.contains(digest)) {
        wrong.add(
            "%s: served by %s (%s), but at that time it was one of %s"
                .formatted(this, digest, servedAs, possible));
        return false;
      }
      List<Integer> expected = catalogue.answer(digest, prompt, seen.size());
      if (!expected.equals(seen)) {
        String whose = catalogue.whose(prompt, seen);
        wrong.add(
            "%s: %s answers %s alone, got %s, which is %s"
                .formatted(
                    this,
                    digest,
                    expected,
                    seen,
                    whose.isEmpty() ? "nobody's" : "what " + whose + " answers"));
        return false;
      }
      return true;
    }

    @Override
    public String toString() {
      return "a request for '%s', prompt %d".formatted(name.name(), prompt);
    }
  }

  private Thread changer(String name, Changes changes) {
    return Thread.ofPlatform().daemon().name(name).unstarted(() -> keepChanging(changes));
  }

  /** A kind of change, one at a time. */
  private interface Changes {
    void next() throws InterruptedException;
  }

  private void keepChanging(Changes changes) {
    try {
      while (!over) {
        try {
          changes.next();
        } catch (StatusRuntimeException e) {
          failedChanges.add(String.valueOf(e.getMessage()));
        }
        Thread.sleep(options.pauseMillis());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void count(String kind) {
    synchronized (changes) {
      changes.merge(kind, 1L, Long::sum);
    }
  }

  private AdapterServiceBlockingStub calls() {
    return connection.adapters().withDeadlineAfter(DEADLINE_MILLIS, TimeUnit.MILLISECONDS);
  }

  /** Names under the root: bound to another directory, forgotten, loaded again. */
  private final class RootChanges implements Changes {
    private final SplittableRandom random;

    RootChanges(SplittableRandom random) {
      this.random = random;
    }

    @Override
    public void next() {
      if (options.names() <= STEADY) {
        return;
      }
      AskedName name = asked.get(random.nextInt(STEADY, options.names()));
      if (!name.now().equals(AskedName.NOTHING) && random.nextInt(4) == 0) {
        name.changing(AskedName.NOTHING);
        var _ =
            calls().unloadAdapter(UnloadAdapterRequest.newBuilder().setName(name.name()).build());
        name.changed(AskedName.NOTHING);
        count("unloaded");
        return;
      }
      int to = random.nextInt(set.count());
      String digest = catalogue.digest(to + 1);
      name.changing(digest);
      var _ =
          calls()
              .loadAdapter(
                  LoadAdapterRequest.newBuilder()
                      .setName(name.name())
                      .setPath(set.name(to))
                      .build());
      name.changed(digest);
      count("bound anew");
    }
  }

  /** Names in the store: published, rolled back, given an alias, deleted, sent out of memory. */
  private final class StoreChanges implements Changes {
    private final SplittableRandom random;
    private final List<Published> names = new ArrayList<>();

    StoreChanges(SplittableRandom random) throws ChurnException, InterruptedException {
      this.random = random;
      for (int i = 0; i < options.published(); i++) {
        String name = String.format(Locale.ROOT, "p%04d", i);
        try {
          names.add(new Published(name));
        } catch (StatusRuntimeException e) {
          throw new ChurnException(
              "cannot publish %s: %s; give the server a --store, or set --published 0"
                  .formatted(name, e.getMessage()),
              e);
        }
      }
    }

    @Override
    public void next() throws InterruptedException {
      Published name = names.get(random.nextInt(names.size()));
      switch (random.nextInt(8)) {
        case 0, 1, 2 -> name.publish();
        case 3 -> name.setProd();
        case 4 -> name.rollBack(name.latest, "latest");
        case 5 -> name.rollBack(name.prod, "prod");
        case 6 -> name.deleteOld();
        default -> {
          var _ =
              calls().unloadAdapter(UnloadAdapterRequest.newBuilder().setName(name.name).build());
          count("sent out of memory");
        }
      }
    }

    /** A name in the store, its versions, and its aliases latest and prod. */
    private final class Published {
      private final String name;
      private final Map<String, AskedName> versions = new TreeMap<>();
      private final Pointer latest = new Pointer();
      private final Pointer prod = new Pointer();

      /** An alias. */
      private static final class Pointer {
        private @Nullable AskedName asked;
        private String version = "";
        private List<String> past = List.of();

        void is(Alias alias) {
          version = alias.getShares(0).getVersion();
          past =
              alias.getHistoryList().stream()
                  .filter(entry -> entry.getSharesCount() == 1)
                  .map(entry -> entry.getShares(0).getVersion())
                  .toList();
        }
      }

      Published(String name) throws InterruptedException {
        this.name = name;
        publish();
        setProd();
      }

      private String digestOf(String version) {
        AskedName known = versions.get(version);
        return known == null ? AskedName.NOTHING : known.now();
      }

      void publish() throws InterruptedException {
        int canary = random.nextInt(set.count());
        String digest = catalogue.digest(canary + 1);
        AskedName before = latest.asked;
        if (before != null) {
          before.changing(digest);
        }
        PublishAdapterResponse published = Churn.this.publish(name, set.name(canary));
        versions.put(published.getVersion(), add(name + "@" + published.getVersion(), digest));
        if (before == null) {
          latest.asked = add(name, digest);
        } else {
          before.changed(digest);
        }
        look();
        count("published");
      }

      /** What the aliases are, and what they would be rolled back to, is the server's to say. */
      private void look() {
        for (Alias alias :
            calls()
                .listVersions(
                    dev.wardrobe.v1.ListVersionsRequest.newBuilder().setName(name).build())
                .getAliasesList()) {
          if (alias.getAlias().equals("latest")) {
            latest.is(alias);
          } else if (alias.getAlias().equals("prod")) {
            prod.is(alias);
          }
        }
      }

      void setProd() {
        List<String> all = List.copyOf(versions.keySet());
        String version = all.get(random.nextInt(all.size()));
        String digest = digestOf(version);
        AskedName before = prod.asked;
        if (before != null) {
          before.changing(digest);
        }
        Alias now =
            calls()
                .setAlias(
                    SetAliasRequest.newBuilder()
                        .setName(name)
                        .setAlias("prod")
                        .addShares(Share.newBuilder().setVersion(version))
                        .build())
                .getAlias();
        if (before == null) {
          prod.asked = add(name + "@prod", digest);
        } else {
          before.changed(digest);
        }
        prod.is(now);
        count("alias set");
      }

      void rollBack(Pointer pointer, String alias) {
        AskedName asked = pointer.asked;
        if (asked == null || pointer.past.isEmpty()) {
          return;
        }
        String digest = digestOf(pointer.past.getFirst());
        asked.changing(digest);
        Alias now =
            calls()
                .rollbackAlias(
                    RollbackAliasRequest.newBuilder().setName(name).setAlias(alias).build())
                .getAlias();
        asked.changed(digest);
        pointer.is(now);
        count("rolled back");
      }

      /** One that no alias points at, though a rollback might have gone back to it. */
      void deleteOld() {
        Set<String> needed = new HashSet<>(List.of(latest.version, prod.version));
        String old =
            versions.keySet().stream().filter(v -> !needed.contains(v)).findFirst().orElse("");
        AskedName asked = versions.get(old);
        if (asked == null || versions.size() < MANY_VERSIONS) {
          return;
        }
        asked.changing(AskedName.NOTHING);
        var _ =
            calls()
                .deleteVersion(
                    DeleteVersionRequest.newBuilder().setName(name).setVersion(old).build());
        asked.changed(AskedName.NOTHING);
        versions.remove(old);
        Churn.this.asked.remove(asked);
        look();
        count("deleted");
      }

      private AskedName add(String asked, String digest) {
        AskedName known = new AskedName(asked, digest);
        Churn.this.asked.add(known);
        return known;
      }
    }
  }

  private PublishAdapterResponse publish(String name, String path) throws InterruptedException {
    CompletableFuture<PublishAdapterResponse> result = new CompletableFuture<>();
    var parts =
        AdapterServiceGrpc.newStub(connection.channel())
            .withDeadlineAfter(DEADLINE_MILLIS, TimeUnit.MILLISECONDS)
            .publishAdapter(new FutureObserver<>(result));
    parts.onNext(
        PublishAdapterRequest.newBuilder()
            .setHeader(PublishAdapterRequest.Header.newBuilder().setName(name).setPath(path))
            .build());
    parts.onCompleted();
    try {
      return result.get();
    } catch (ExecutionException e) {
      throw Status.fromThrowable(e.getCause() == null ? e : e.getCause()).asRuntimeException();
    }
  }

  /** What the server still holds although nobody asks for anything any more. */
  private List<String> leftovers() throws InterruptedException {
    List<String> left = List.of();
    // A request that was cancelled leaves at the next step.
    for (int attempt = 0; attempt < 100; attempt++) {
      left = new ArrayList<>();
      ModelInfoResponse info = connection.modelInfo();
      if (info.getRunningSequences() > 0 || info.getWaitingSequences() > 0) {
        left.add(
            "%d running and %d waiting sequences"
                .formatted(info.getRunningSequences(), info.getWaitingSequences()));
      }
      String page = "";
      do {
        ListAdaptersResponse list =
            calls().listAdapters(ListAdaptersRequest.newBuilder().setPageToken(page).build());
        for (Adapter adapter : list.getAdaptersList()) {
          if (adapter.getInUse() > 0) {
            left.add("%s is used by %d".formatted(adapter.getName(), adapter.getInUse()));
          }
        }
        page = list.getNextPageToken();
      } while (!page.isEmpty());
      if (left.isEmpty()) {
        return left;
      }
      Thread.sleep(50);
    }
    return left;
  }
}
