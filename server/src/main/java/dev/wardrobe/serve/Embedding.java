package dev.wardrobe.serve;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.engine.AdapterPart;
import dev.wardrobe.engine.Finish;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.Pooling;
import dev.wardrobe.engine.Ticket;
import dev.wardrobe.engine.TokenListener;
import dev.wardrobe.sampling.SamplingParams;
import dev.wardrobe.serve.RequestException.Code;
import dev.wardrobe.telemetry.Origin;
import dev.wardrobe.telemetry.RequestReport;
import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.Usage;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * Texts on their way to vectors: each a sequence of the engine, beside those that generate. All of
 * them arrive, or none; their owner may cancel them from any thread, at any time.
 */
public final class Embedding {
  /** Inputs that are in the engine's hands at a time: others' requests want their turn, too. */
  private static final int IN_HAND = 16;

  private final Conversation conversation;
  private final Origin origin;
  private final Caller caller;
  private final EmbedRequest request;
  private final long deadline;
  private final long arrival = System.nanoTime();
  private final CompletableFuture<EmbedResponse> result = new CompletableFuture<>();

  // Set by the worker that prepares, before others have to do with it.
  private List<int[]> inputs = List.of();
  private List<Plan.Part> parts = List.of();
  private List<AdapterPart> held = List.of();
  private Pooling pooling = Pooling.MEAN;

  // Guarded by this.
  private final List<Ticket> tickets = new ArrayList<>();
  private final EmbedResponse.Builder response = EmbedResponse.newBuilder();
  private final Usage.Builder usage = Usage.newBuilder();
  private int next;
  private int left;
  private long tokenized;
  private long leased;

  Embedding(
      Conversation conversation,
      Caller caller,
      Origin origin,
      EmbedRequest request,
      long deadline) {
    this.conversation = conversation;
    this.caller = caller;
    this.origin = origin;
    this.request = request;
    this.deadline = deadline;
  }

  /** The vectors, or a {@link RequestException}. Continue elsewhere with whatever is not cheap. */
  public CompletableFuture<EmbedResponse> result() {
    return result;
  }

  /** Ends the request; without effect on one that has ended. */
  public void cancel() {
    fail(new RequestException(Code.CANCELLED, "the request was cancelled"));
  }

  private void fail(Throwable failure) {
    RequestException told = RequestException.of(failure);
    if (result.completeExceptionally(told)) {
      running().forEach(Ticket::cancel);
      conversation.report(() -> report(told.code().name(), told.getMessage()));
    }
  }

  private synchronized RequestReport report(String status, @Nullable String problem) {
    long queue = (long) (usage.getQueueMs() * 1e6);
    long swapIn = (long) (usage.getSwapInMs() * 1e6);
    return new RequestReport(
        request.getId(),
        origin,
        RequestReport.Operation.EMBED,
        Conversation.told(caller, request.getTenant()),
        Mixture.names(request.getAdapter(), request.getAdaptersList()),
        held.stream()
            .map(part -> new Answering(part.lease().name(), part.lease().digest()))
            .toList(),
        status,
        null,
        problem,
        usage.getPromptTokens(),
        usage.getCachedTokens(),
        0,
        0,
        1,
        arrival,
        tokenized,
        leased,
        usage.getSteps() > 0 ? leased + queue + swapIn : 0,
        0,
        System.nanoTime(),
        queue,
        swapIn);
  }

  private synchronized List<Ticket> running() {
    return List.copyOf(tickets);
  }

  void start() {
    if (deadline != GenerationTask.NO_DEADLINE) {
      CompletableFuture<Boolean> alarm = new CompletableFuture<>();
      CompletableFuture<?> _ = alarm.thenRun(this::expire);
      alarm.completeOnTimeout(
          true, Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
      CompletableFuture<?> _ = result.whenComplete((done, failure) -> alarm.cancel(false));
    }
    work(this::prepare);
  }

  /** Does on a worker what may take time. */
  private void work(Runnable task) {
    try {
      conversation
          .workers()
          .execute(
              () -> {
                try {
                  task.run();
                } catch (Throwable e) {
                  fail(e);
                }
              });
    } catch (RejectedExecutionException e) {
      fail(new RequestException(Code.UNAVAILABLE, "the server is shutting down; try another one"));
    }
  }

  private void expire() {
    int missing;
    synchronized (this) {
      missing = left;
    }
    fail(
        new RequestException(
            Code.DEADLINE_EXCEEDED,
            "the deadline passed with %d of %d inputs left; give fewer or wait longer"
                .formatted(
                    missing == 0 ? request.getInputsCount() : missing, request.getInputsCount())));
  }

  private void prepare() {
    CompletableFuture<List<Lease>> leases;
    try {
      pooling = pooling();
      parts =
          Mixture.of(
              request.getAdapter(),
              request.hasAdapterScale() ? request.getAdapterScale() : null,
              request.getAdaptersList());
      inputs = conversation.inputs(request);
      synchronized (this) {
        tokenized = System.nanoTime();
      }
      leases =
          conversation.lease(
              caller,
              parts,
              Conversation.requestKey(request.hasRequestKey() ? request.getRequestKey() : null));
    } catch (RequestException e) {
      fail(e);
      return;
    }
    CompletableFuture<?> _ = result.whenComplete((done, failure) -> leases.cancel(false));
    CompletableFuture<?> _ =
        leases.whenComplete(
            (leased, failure) -> {
              if (leased != null) {
                // Held to the end: all inputs share them, whatever becomes of the names meanwhile.
                CompletableFuture<?> _ =
                    result.whenComplete((done, failed) -> leased.forEach(Lease::close));
                begin(leased);
              } else if (failure != null) {
                fail(failure);
              }
            });
  }

  private void begin(List<Lease> leases) {
    try {
      held = Mixture.parts(parts, leases);
      synchronized (this) {
        response.setId(request.getId()).addAllAdapters(Mixture.applied(held));
        usage.setMath(conversation.math());
        left = inputs.size();
        leased = System.nanoTime();
        for (int[] input : inputs) {
          response.addEmbeddingsBuilder().setTokens(input.length);
        }
      }
    } catch (Throwable e) {
      fail(e);
      return;
    }
    for (int i = 0; i < Math.min(IN_HAND, inputs.size()); i++) {
      work(this::proceed);
    }
  }

  /** Hands the next input to the engine. */
  private void proceed() {
    int index;
    synchronized (this) {
      if (next == inputs.size() || result.isDone()) {
        return;
      }
      index = next++;
    }
    List<AdapterPart> shared = new ArrayList<>();
    try {
      for (AdapterPart part : held) {
        shared.add(new AdapterPart(part.lease().share(), part.scale()));
      }
      GenerationTask task =
          new GenerationTask(
              request.getId(),
              Conversation.tenant(caller, request.getTenant()),
              inputs.get(index),
              shared,
              SamplingParams.GREEDY,
              0,
              Set.of(),
              Set.of(),
              0,
              false,
              deadline);
      List<Ticket> submitted = conversation.submit(task, List.of(new Input(index)));
      synchronized (this) {
        tickets.addAll(submitted);
      }
      if (result.isDone()) {
        submitted.forEach(Ticket::cancel);
      }
    } catch (Throwable e) {
      shared.forEach(part -> part.lease().close());
      fail(e);
    }
  }

  private Pooling pooling() throws RequestException {
    return switch (request.getPooling()) {
      case POOLING_UNSPECIFIED, POOLING_MEAN -> Pooling.MEAN;
      case POOLING_LAST -> Pooling.LAST;
      case UNRECOGNIZED ->
          throw RequestException.invalid(
              "pooling: expected POOLING_MEAN or POOLING_LAST, got " + request.getPoolingValue());
    };
  }

  /** One of the inputs. Its methods are called by the engine's thread. */
  private final class Input implements TokenListener {
    private final int index;

    Input(int index) {
      this.index = index;
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
      throw new IllegalStateException("a token, but none was asked for");
    }

    @Override
    public Pooling pooling() {
      return pooling;
    }

    @Override
    public void pooled(float[] vector) {
      if (!request.hasNormalize() || request.getNormalize()) {
        normalize(vector);
      }
      synchronized (Embedding.this) {
        dev.wardrobe.v1.Embedding.Builder embedding = response.getEmbeddingsBuilder(index);
        for (float value : vector) {
          embedding.addValues(value);
        }
      }
    }

    @Override
    public void finished(Finish finish) {
      switch (finish.reason()) {
        case LENGTH -> {
          if (!done(finish)) {
            work(Embedding.this::proceed);
          }
        }
        case DEADLINE -> expire();
        case FAILED ->
            fail(
                finish.failure() != null
                    ? finish.failure()
                    : new IllegalStateException("a failure without a cause"));
        default -> cancel();
      }
    }
  }

  /** Scales a vector to length 1; one of zeros stays. */
  private static void normalize(float[] vector) {
    double sum = 0;
    for (float value : vector) {
      sum += (double) value * value;
    }
    if (sum > 0) {
      double length = Math.sqrt(sum);
      for (int i = 0; i < vector.length; i++) {
        vector[i] = (float) (vector[i] / length);
      }
    }
  }

  /** Counts an input; completes the result with the last one. */
  private boolean done(Finish finish) {
    EmbedResponse complete;
    synchronized (this) {
      left--;
      usage
          .setPromptTokens(usage.getPromptTokens() + finish.promptTokens())
          .setCachedTokens(usage.getCachedTokens() + finish.cachedTokens())
          .setQueueMs(Math.max(usage.getQueueMs(), finish.queueNanos() / 1e6))
          .setSwapInMs(Math.max(usage.getSwapInMs(), finish.swapInNanos() / 1e6))
          .setSteps(usage.getSteps() + finish.steps())
          .setMaxStepSequences(Math.max(usage.getMaxStepSequences(), finish.maxStepSequences()))
          .setMaxStepAdapters(Math.max(usage.getMaxStepAdapters(), finish.maxStepAdapters()));
      if (left > 0) {
        return false;
      }
      usage.setTotalMs((System.nanoTime() - arrival) / 1e6);
      complete = response.setUsage(usage).build();
    }
    if (result.complete(complete)) {
      conversation.report(() -> report("OK", null));
    }
    return true;
  }
}
