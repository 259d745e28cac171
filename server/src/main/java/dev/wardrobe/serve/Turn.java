package dev.wardrobe.serve;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.engine.AdapterPart;
import dev.wardrobe.engine.EngineException;
import dev.wardrobe.engine.Finish;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.Ticket;
import dev.wardrobe.engine.TokenListener;
import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.telemetry.Origin;
import dev.wardrobe.telemetry.RequestReport;
import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.text.TokenStream;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TopLogprob;
import dev.wardrobe.v1.Usage;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * One request on its way: prepared by a worker, waiting for its adapter, then in the engine's
 * hands. Its owner may cancel it or say that its reader is ready again, from any thread, at any
 * time.
 */
public final class Turn {
  private final Conversation conversation;
  private final Caller caller;
  private final Origin origin;
  private final GenerateRequest request;
  private final AnswerListener listener;
  private final long deadline;
  private final long arrival = System.nanoTime();

  /** When the request's prompt was tokens. */
  private volatile long tokenized;

  /** Fires at the deadline while the request is not in the engine, which looks by itself. */
  private final CompletableFuture<@Nullable Void> alarm = new CompletableFuture<>();

  // Guarded by this.
  private boolean preparing = true;
  private @Nullable CompletableFuture<List<Lease>> leasing;
  private List<Ticket> tickets = List.of();

  Turn(
      Conversation conversation,
      Caller caller,
      Origin origin,
      GenerateRequest request,
      AnswerListener listener,
      long deadline) {
    this.conversation = conversation;
    this.caller = caller;
    this.origin = origin;
    this.request = request;
    this.listener = listener;
    this.deadline = deadline;
  }

  /** Ends the request; its listener hears of it. Without effect on one that has ended. */
  public void cancel() {
    if (abandon()) {
      refuse(new RequestException(RequestException.Code.CANCELLED, "the request was cancelled"));
      return;
    }
    tickets().forEach(Ticket::cancel);
  }

  /** Says that the listener is ready again. */
  public void resume() {
    tickets().forEach(Ticket::resume);
  }

  private synchronized List<Ticket> tickets() {
    return tickets;
  }

  /** Takes the request out of preparation; true for the one who did. */
  private synchronized boolean abandon() {
    boolean mine = preparing;
    preparing = false;
    if (mine) {
      alarm.cancel(false);
      if (leasing != null) {
        leasing.cancel(false);
      }
    }
    return mine;
  }

  void start() {
    if (deadline != GenerationTask.NO_DEADLINE) {
      CompletableFuture<?> _ = alarm.thenRun(this::expire);
      alarm.completeOnTimeout(
          null, Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
    }
    try {
      conversation.workers().execute(this::prepare);
    } catch (RejectedExecutionException e) {
      fail(
          new RequestException(
              RequestException.Code.UNAVAILABLE, "the server is shutting down; try another one"));
    }
  }

  private void expire() {
    fail(
        new RequestException(
            RequestException.Code.DEADLINE_EXCEEDED,
            "the deadline passed before "
                + switch (request.getAdaptersCount()) {
                  case 0 ->
                      request.getAdapter().isEmpty()
                          ? "the request was prepared"
                          : "adapter '%s' was ready".formatted(request.getAdapter());
                  default -> "the adapters were ready";
                }));
  }

  private void fail(Throwable failure) {
    if (abandon()) {
      refuse(RequestException.of(failure));
    }
  }

  /** Fails before the engine has the request. */
  private void refuse(RequestException failure) {
    listener.failed(failure);
    conversation.report(
        () ->
            new RequestReport(
                request.getId(),
                origin,
                RequestReport.Operation.GENERATE,
                Conversation.told(caller, request.getTenant()),
                Mixture.names(request.getAdapter(), request.getAdaptersList()),
                List.of(),
                failure.code().name(),
                null,
                failure.getMessage(),
                0,
                0,
                0,
                request.getMaxTokens(),
                1,
                arrival,
                tokenized,
                0,
                0,
                0,
                System.nanoTime(),
                0,
                0));
  }

  private void prepare() {
    try {
      Plan plan = conversation.plan(caller, request);
      CompletableFuture<@Nullable Grammar> grammar = conversation.grammar(request);
      // What comes next is none of the work of who compiles.
      Executor next = grammar.isDone() ? Runnable::run : conversation.workers();
      CompletableFuture<?> _ =
          grammar.whenCompleteAsync(
              (compiled, failure) -> {
                if (failure != null) {
                  fail(failure);
                } else {
                  lease(plan.with(compiled));
                }
              },
              next);
    } catch (Throwable e) {
      fail(e);
    }
  }

  private void lease(Plan plan) {
    tokenized = System.nanoTime();
    try {
      long asked = System.nanoTime();
      CompletableFuture<List<Lease>> future =
          conversation.lease(caller, plan.adapters(), plan.requestKey());
      synchronized (this) {
        leasing = future;
        if (!preparing) {
          future.cancel(false);
        }
      }
      boolean known = future.isDone();
      CompletableFuture<?> _ =
          future.whenComplete(
              (leases, failure) -> {
                if (leases != null) {
                  submit(plan, leases, known ? 0 : System.nanoTime() - asked);
                } else if (failure != null) {
                  fail(failure);
                }
              });
    } catch (Throwable e) {
      fail(e);
    }
  }

  /**
   * Hands the request to the engine, unless it ended meanwhile; then the leases go back.
   *
   * @param readNanos how long it waited for adapters to be read for the first time
   */
  private void submit(Plan plan, List<Lease> leases, long readNanos) {
    Throwable failure = null;
    boolean submitted = false;
    synchronized (this) {
      if (preparing) {
        try {
          Answers answers = new Answers(plan, Mixture.parts(plan.adapters(), leases), readNanos);
          tickets = conversation.submit(answers.task(), answers.choices);
          preparing = false;
          submitted = true;
          alarm.cancel(false);
        } catch (Throwable e) {
          failure = e;
        }
      }
    }
    if (submitted) {
      listener.queued();
      return;
    }
    leases.forEach(Lease::close);
    if (failure != null) {
      fail(failure);
    }
  }

  /**
   * The answers as they grow: from tokens to text and events. Belongs to the engine's thread, once
   * it is submitted.
   */
  private final class Answers {
    private final Plan plan;
    private final List<AdapterPart> parts;
    private final long readNanos;
    private final long submitted = System.nanoTime();
    private final List<Choice> choices;
    private final GenerateEvent.Started.Builder started = GenerateEvent.Started.newBuilder();

    /** What came before {@link #started} was complete. */
    private final List<GenerateEvent.Delta> early = new ArrayList<>();

    private boolean begun;
    private boolean failed;
    private int scored;
    private int left;
    private int generated;

    /** Of all that ended so far, the first to join the batch and to have a token. */
    private long admittedAt;

    private long firstTokenAt;
    private Finish.@Nullable Reason reason;

    Answers(Plan plan, List<AdapterPart> parts, long readNanos) {
      this.plan = plan;
      this.parts = parts;
      this.readNanos = readNanos;
      choices = IntStream.range(0, plan.choices()).mapToObj(i -> new Choice(this, i)).toList();
      left = plan.choices();
      started
          .setId(plan.id())
          .setPromptTokens(plan.prompt().length)
          .addAllAdapters(Mixture.applied(parts));
      if (parts.size() == 1) {
        Lease only = parts.getFirst().lease();
        started.setAdapter(only.name()).setAdapterDigest(only.digest());
      }
      if (plan.echo()) {
        // Nothing predicts the first token.
        started.addPromptLogprobs(TokenLogprob.newBuilder().setTokenId(plan.prompt()[scored++]));
      }
    }

    GenerationTask task() {
      return new GenerationTask(
          plan.id(),
          plan.tenant(),
          plan.prompt(),
          parts,
          plan.sampling(),
          plan.maxTokens(),
          plan.eos(),
          plan.stopTokens(),
          plan.top(),
          plan.echo(),
          deadline,
          plan.grammar());
    }

    private void begin() {
      if (!begun) {
        begun = true;
        listener.started(started.build());
        started.clear();
        early.forEach(listener::delta);
        early.clear();
      }
    }

    void scored(List<Draw.Outcome> scores) {
      for (Draw.Outcome outcome : scores) {
        started.addPromptLogprobs(logprob(outcome));
      }
      scored += scores.size();
    }

    void delta(GenerateEvent.Delta delta) {
      if (failed) {
        return;
      }
      // The first choice scores the prompt; another may be faster.
      if (!begun && plan.echo() && scored < plan.prompt().length) {
        early.add(delta);
        return;
      }
      begin();
      listener.delta(delta);
    }

    void finished(GenerateEvent.Finished finished) {
      if (!failed) {
        begin();
        listener.finished(finished);
      }
    }

    /** One choice failed, and with it the request. */
    void fail(Finish finish, EngineException failure) {
      if (!failed) {
        failed = true;
        RequestException told = RequestException.of(failure);
        listener.failed(told);
        tickets().forEach(Ticket::cancel);
        count(finish);
        report(finish, told.code().name(), told.getMessage());
      }
    }

    private void count(Finish finish) {
      left--;
      generated += finish.generatedTokens();
      long from = submitted;
      if (finish.steps() > 0) {
        admittedAt = earlier(admittedAt, from + finish.queueNanos() + finish.swapInNanos());
      }
      if (finish.generatedTokens() > 0) {
        firstTokenAt = earlier(firstTokenAt, from + finish.firstTokenNanos());
      }
      // One that was cut short is told of, whatever the others came to.
      if (reason == null || finish.reason().compareTo(reason) > 0) {
        reason = finish.reason();
      }
    }

    /** One choice ended, and maybe the last. */
    void ended(Finish finish) {
      if (failed) {
        return;
      }
      count(finish);
      if (left == 0) {
        String status =
            switch (reason) {
              case CANCELLED -> "CANCELLED";
              case DEADLINE -> "DEADLINE_EXCEEDED";
              case null, default -> "OK";
            };
        report(finish, status, null);
      }
    }

    private void report(Finish finish, String status, @Nullable String problem) {
      conversation.report(
          () ->
              new RequestReport(
                  plan.id(),
                  origin,
                  RequestReport.Operation.GENERATE,
                  plan.tenant(),
                  plan.adapters().stream().map(Plan.Part::adapter).toList(),
                  parts.stream()
                      .map(part -> new Answering(part.lease().name(), part.lease().digest()))
                      .toList(),
                  status,
                  reason == null || reason == Finish.Reason.FAILED
                      ? null
                      : reason.name().toLowerCase(Locale.ROOT),
                  problem,
                  plan.prompt().length,
                  finish.cachedTokens(),
                  generated,
                  plan.maxTokens(),
                  plan.choices(),
                  arrival,
                  tokenized,
                  submitted,
                  admittedAt,
                  firstTokenAt,
                  System.nanoTime(),
                  finish.queueNanos(),
                  readNanos + finish.swapInNanos()));
    }

    TokenLogprob logprob(Draw.Outcome outcome) {
      TokenLogprob.Builder logprob =
          TokenLogprob.newBuilder().setTokenId(outcome.token()).setLogprob(outcome.logprob());
      float[] values = outcome.topLogprobs();
      if (plan.top() == Draw.ALL) {
        for (float value : values) {
          logprob.addAll(value);
        }
      } else {
        for (int i = 0; i < values.length; i++) {
          logprob.addTop(
              TopLogprob.newBuilder().setTokenId(outcome.topTokens()[i]).setLogprob(values[i]));
        }
      }
      return logprob.build();
    }
  }

  /** One of the answers. */
  private final class Choice implements TokenListener {
    private final Answers answers;
    private final Plan plan;
    private final int index;
    private final @Nullable TokenStream stream;
    private final StopText stops;
    private int generated;
    private double logprobs;
    private Shadows.@Nullable Tap tap;

    Choice(Answers answers, int index) {
      this.answers = answers;
      this.plan = answers.plan;
      this.index = index;
      stream = conversation.stream();
      stops = new StopText(plan.stops());
    }

    @Override
    public boolean ready() {
      return listener.ready();
    }

    @Override
    public void admitted() {
      tap = conversation.shadows().tap(answers.parts, plan);
      if (!plan.echo()) {
        answers.begin();
      }
    }

    @Override
    public void promptScored(List<Draw.Outcome> scores) {
      answers.scored(scores);
    }

    @Override
    public boolean token(Draw.Outcome outcome, boolean last) {
      generated++;
      if (tap != null) {
        tap.token(outcome.token());
      }
      logprobs += outcome.logprob();
      GenerateEvent.Delta.Builder delta = GenerateEvent.Delta.newBuilder().setIndex(index);
      delta.addTokenIds(outcome.token());
      if (plan.logprobs()) {
        delta.addLogprobs(answers.logprob(outcome));
      }
      if (stream != null) {
        delta.setText(last ? rest(stream) : stops.add(stream.next(outcome.token()), mayEnd()));
      }
      answers.delta(delta.build());
      return !stops.found();
    }

    /** Whether a stop text that is complete now ends the answer. */
    private boolean mayEnd() {
      return generated > plan.sampling().minTokens();
    }

    /** The text that was held back, now that no more tokens come. */
    private String rest(TokenStream stream) {
      String released = stops.add(stream.flush(), mayEnd());
      return stops.found() ? released : released + stops.flush();
    }

    @Override
    public void finished(Finish finish) {
      if (tap != null) {
        tap.finished(finish);
      }
      EngineException failure = finish.failure();
      if (failure != null) {
        answers.fail(finish, failure);
        return;
      }
      if (stream != null && !stops.found()) {
        String rest = rest(stream);
        if (!rest.isEmpty()) {
          answers.delta(GenerateEvent.Delta.newBuilder().setIndex(index).setText(rest).build());
        }
      }
      Usage usage = usage(finish);
      if (usage.getGeneratedTokens() > 0) {
        answers.parts.forEach(part -> part.lease().answered(usage.getFirstTokenMs()));
      }
      answers.finished(
          GenerateEvent.Finished.newBuilder()
              .setIndex(index)
              .setFinishReason(reason(finish.reason()))
              .setUsage(usage)
              .setMeanLogprob(generated == 0 ? 0 : logprobs / generated)
              .build());
      answers.ended(finish);
    }

    private FinishReason reason(Finish.Reason reason) {
      return switch (reason) {
        case STOP -> FinishReason.FINISH_REASON_STOP;
        // The last characters, complete only now, may have been a stop text's.
        case LENGTH ->
            stops.found() ? FinishReason.FINISH_REASON_STOP : FinishReason.FINISH_REASON_LENGTH;
        case EOS -> FinishReason.FINISH_REASON_EOS;
        case CANCELLED -> FinishReason.FINISH_REASON_CANCELLED;
        case DEADLINE -> FinishReason.FINISH_REASON_DEADLINE;
        case FAILED -> FinishReason.FINISH_REASON_UNSPECIFIED;
      };
    }

    private Usage usage(Finish finish) {
      double before = millis(answers.submitted - arrival);
      return Usage.newBuilder()
          .setPromptTokens(finish.promptTokens())
          .setCachedTokens(finish.cachedTokens())
          .setGeneratedTokens(finish.generatedTokens())
          .setQueueMs(millis(finish.queueNanos()))
          .setSwapInMs(millis(answers.readNanos + finish.swapInNanos()))
          .setFirstTokenMs(
              finish.generatedTokens() == 0 ? 0 : before + millis(finish.firstTokenNanos()))
          .setTotalMs(before + millis(finish.totalNanos()))
          .setSeed(plan.sampling().forChoice(index).seed())
          .setSteps(finish.steps())
          .setMaxStepSequences(finish.maxStepSequences())
          .setMaxStepAdapters(finish.maxStepAdapters())
          .setMath(conversation.math())
          .build();
    }
  }

  /** The earlier of two times, of which 0 is none. */
  private static long earlier(long a, long b) {
    return a == 0 || b - a < 0 ? b : a;
  }

  private static double millis(long nanos) {
    return nanos / 1e6;
  }
}
