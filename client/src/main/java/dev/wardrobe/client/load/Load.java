package dev.wardrobe.client.load;

import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/** Runs of one case against one server. */
public final class Load {
  /** How long answers may take after a run. */
  private static final long DRAIN_NANOS = TimeUnit.SECONDS.toNanos(20);

  /** What a stream waits after a failure: a server that refuses is not to be flooded. */
  private static final long BACK_OFF_MILLIS = 20;

  /** Tokens that a vocabulary begins with and that may mean something: no prompt has them. */
  private static final int SPECIAL_TOKENS = 8;

  private final LoadCase plan;
  private final Connection connection;
  private final @Nullable ProcessHandle server;
  private final int vocabulary;
  private final long seed;
  private final AdapterMix.Chooser chooser;
  private final int[] shared;

  /** Over all runs, so that a guest that is cold in one run is not warm in the next. */
  private final AtomicInteger guests = new AtomicInteger();

  private final AtomicLong requests = new AtomicLong();

  /**
   * @param server its process, or null if that is not known
   * @param seed of prompts, lengths, arrivals and choices
   */
  public Load(
      LoadCase plan,
      Connection connection,
      @Nullable ProcessHandle server,
      int vocabulary,
      long seed) {
    this.plan = plan;
    this.connection = connection;
    this.server = server;
    this.vocabulary = vocabulary;
    this.seed = seed;
    this.chooser = plan.mix().chooser();
    SplittableRandom random = new SplittableRandom(mix(seed));
    shared = random.ints(plan.shared(), first(), vocabulary).toArray();
  }

  /**
   * Scatters seeds (David Stafford's variant 13): a generator of a near seed may give the same
   * numbers a little later, and another case's prompts are not to be this one's.
   */
  private static long mix(long z) {
    long a = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
    long b = (a ^ (a >>> 27)) * 0x94d049bb133111ebL;
    return b ^ (b >>> 31);
  }

  private int first() {
    return Math.min(SPECIAL_TOKENS, vocabulary - 1);
  }

  public LoadCase plan() {
    return plan;
  }

  /**
   * Makes the load for a time, and measures it from {@code rampSeconds} after its beginning on.
   *
   * @param most requests, or 0 for as many as there is time for; a run of a number of requests is
   *     measured from the first's arrival to the last's end
   */
  public LoadRun run(double rampSeconds, double seconds, long most) throws InterruptedException {
    return new Running(rampSeconds, seconds, most).run();
  }

  /** One run. */
  private final class Running {
    private final long from;
    private final long to;
    private final long most;
    private final Observed load;
    private final Observed visits;
    private final Set<Request> running = ConcurrentHashMap.newKeySet();
    private final AtomicLong begun = new AtomicLong();
    private final AtomicLong lastEnd;
    private volatile boolean over;
    private @Nullable ScheduledExecutorService timer;

    Running(double rampSeconds, double seconds, long most) {
      long now = System.nanoTime();
      this.most = most;
      lastEnd = new AtomicLong(now);
      // Of a number of requests all count.
      from = most > 0 ? now : now + (long) (rampSeconds * 1e9);
      to = from + (most > 0 ? Long.MAX_VALUE / 2 : (long) (seconds * 1e9));
      boolean byArrival = plan.open() || most > 0;
      load = new Observed(from, to, byArrival);
      visits = new Observed(from, to, true);
    }

    LoadRun run() throws InterruptedException {
      ThreadFactory factory = Thread.ofPlatform().daemon().name("wardrobe-load-timer").factory();
      try (ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor(factory)) {
        this.timer = timer;
        List<ProcessHandle> servers = server == null ? List.of() : List.of(server);
        if (plan.open()) {
          Thread.ofPlatform().daemon().name("wardrobe-load-arrivals").start(this::arrivals);
        } else {
          int streams = most > 0 ? (int) Math.min(most, plan.streams()) : plan.streams();
          for (int i = 0; i < streams; i++) {
            next(i, true);
          }
        }
        if (!plan.guests().isEmpty()) {
          long every = (long) (plan.guestEvery() * 1e9);
          var _ =
              timer.scheduleAtFixedRate(
                  this::guest, from - System.nanoTime() + every / 2, every, TimeUnit.NANOSECONDS);
        }
        until(from);
        Occupancy before = Occupancy.now(servers);
        ServerSeen.Look then = ServerSeen.Look.at(connection, server);
        long end = to;
        if (most > 0) {
          awaitAll();
          end = Math.max(lastEnd.get(), from + 1);
        } else {
          until(to);
        }
        Occupancy.Shares shares = before.until(Occupancy.now(servers));
        ServerSeen seen =
            ServerSeen.between(
                then, ServerSeen.Look.at(connection, server), connection.steps(then.steps()));
        int unfinished = end();
        return new LoadRun(plan, (end - from) / 1e9, load, visits, unfinished, shares, seen);
      }
    }

    private static void until(long time) {
      long wait;
      while ((wait = time - System.nanoTime()) > 0) {
        LockSupport.parkNanos(wait);
      }
    }

    private void awaitAll() throws InterruptedException {
      while (begun.get() < most || running.stream().anyMatch(request -> !request.guest)) {
        Thread.sleep(5);
      }
    }

    /** Lets those end that count by their arrival, and cancels the rest. */
    private int end() throws InterruptedException {
      over = true;
      long limit = System.nanoTime() + DRAIN_NANOS;
      for (Request request : running) {
        if (!request.waitedFor()) {
          request.cancel();
        }
      }
      while (!running.isEmpty() && limit - System.nanoTime() > 0) {
        Thread.sleep(5);
      }
      int left = 0;
      for (Request request : running) {
        left += request.waitedFor() ? 1 : 0;
        request.cancel();
      }
      long gone = System.nanoTime() + DRAIN_NANOS;
      while (!running.isEmpty() && gone - System.nanoTime() > 0) {
        Thread.sleep(5);
      }
      return left;
    }

    /** The open loop: arrivals that wait for nobody. */
    private void arrivals() {
      SplittableRandom random = new SplittableRandom(mix(mix(seed) ^ ~requests.get()));
      double at = System.nanoTime();
      while (!over && at - to < 0 && (most == 0 || begun.get() < most)) {
        at += -Math.log1p(-random.nextDouble()) / plan.rate() * 1e9;
        until((long) at);
        if (!over && (long) at - to < 0) {
          begun.incrementAndGet();
          long number = requests.getAndIncrement();
          new Request((int) number, number, (long) at, false, false).start();
        }
      }
    }

    /**
     * The closed loop: a stream's next request.
     *
     * @param first of the stream: of a run of some time it is as if it had begun before, since else
     *     all streams would read their prompts together, and go on in step
     */
    private void next(int stream, boolean first) {
      if (over || (most > 0 && begun.incrementAndGet() > most)) {
        return;
      }
      long number = requests.getAndIncrement();
      new Request(stream, number, System.nanoTime(), false, first && most == 0).start();
    }

    private void guest() {
      if (!over && System.nanoTime() - to < 0) {
        int number = guests.getAndIncrement();
        new Request(number, -1L - number, System.nanoTime(), true, false).start();
      }
    }

    /** One request, from arrival to end. */
    private final class Request implements Connection.Listener {
      private final int stream;
      private final long arrival;
      private final boolean guest;
      private final GenerateRequest request;
      private final Observed observed;
      private Connection.@Nullable Answer answer;
      private boolean cancelled;

      // Of the transport's thread.
      private long last;
      private boolean finished;

      /**
       * @param cut whether only what is left of an answer is asked for, from anywhere in it
       */
      Request(int stream, long number, long arrival, boolean guest, boolean cut) {
        this.stream = stream;
        this.arrival = arrival;
        this.guest = guest;
        observed = guest ? visits : load;
        SplittableRandom random = new SplittableRandom(mix(mix(seed) ^ number));
        GenerateRequest.Builder builder =
            GenerateRequest.newBuilder().setTemperature(0).setIgnoreEos(true);
        String adapter =
            guest
                ? plan.guests().get((int) (-1 - number) % plan.guests().size())
                : chooser.choose(number, stream, random);
        if (!adapter.isEmpty()) {
          builder.setAdapter(adapter);
        }
        for (int token : shared) {
          builder.addTokenIds(token);
        }
        int own = Math.max(1, plan.prompt().draw(random) - shared.length);
        for (int i = 0; i < own; i++) {
          builder.addTokenIds(random.nextInt(first(), vocabulary));
        }
        int answer = (guest ? plan.guestAnswer() : plan.answer()).draw(random);
        request = builder.setMaxTokens(cut ? random.nextInt(answer) + 1 : answer).build();
      }

      /** Whether the run's figures lack something without its end. */
      boolean waitedFor() {
        return guest || plan.open() || most > 0;
      }

      void start() {
        running.add(this);
        Connection.Answer started = connection.start(request, stream, plan.deadlineMillis(), this);
        boolean late;
        synchronized (this) {
          answer = started;
          late = cancelled;
        }
        if (late || (over && !waitedFor())) {
          started.cancel();
        }
      }

      void cancel() {
        Connection.Answer started;
        synchronized (this) {
          cancelled = true;
          started = answer;
        }
        if (started != null) {
          started.cancel();
        }
      }

      @Override
      public void event(GenerateEvent event) {
        switch (event.getEventCase()) {
          case DELTA -> {
            int count = event.getDelta().getTokenIdsCount();
            if (count > 0) {
              long now = System.nanoTime();
              observed.tokens(count, arrival, last, now);
              last = now;
            }
          }
          case FINISHED -> {
            finished = true;
            observed.finished(arrival, System.nanoTime(), event.getFinished().getUsage());
          }
          default -> {}
        }
      }

      @Override
      public void end(Status status) {
        long now = System.nanoTime();
        boolean failed = !status.isOk() || !finished;
        boolean wanted;
        synchronized (this) {
          wanted = cancelled && status.getCode() == Status.Code.CANCELLED;
        }
        if (failed && !wanted) {
          String what = status.isOk() ? "ended without Finished" : status.getCode().toString();
          observed.failed(arrival, now, what, what + ": " + status.getDescription());
        }
        lastEnd.accumulateAndGet(now, Math::max);
        ScheduledExecutorService later = timer;
        if (!guest && !plan.open() && !over) {
          if (failed && later != null) {
            var _ =
                later.schedule(() -> next(stream, false), BACK_OFF_MILLIS, TimeUnit.MILLISECONDS);
          } else {
            next(stream, false);
          }
        }
        // After the next one has begun, so that a run never looks as if it were over in between.
        running.remove(this);
      }
    }
  }

  /** Asks each adapter for one token, so that all of them have been loaded once. */
  public void touch(List<String> adapters, int together) throws InterruptedException {
    List<String> open = new ArrayList<>(adapters);
    LoadCase once =
        new LoadCase(
            "touch",
            new AdapterMix(open, AdapterMix.Pick.ROUND_ROBIN, 0),
            Math.min(together, open.size()),
            0,
            new Lengths(2, 2),
            0,
            new Lengths(1, 1),
            List.of(),
            0,
            new Lengths(1, 1),
            0);
    new Load(once, connection, server, vocabulary, seed).run(0, 0, open.size());
  }
}
