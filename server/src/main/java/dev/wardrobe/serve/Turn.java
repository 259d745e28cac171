package dev.wardrobe.serve;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.engine.AdapterPart;
import dev.wardrobe.engine.EngineException;
import dev.wardrobe.engine.Finish;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.Ticket;
import dev.wardrobe.engine.TokenListener;
import dev.wardrobe.text.TokenStream;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenLogprob;
import dev.wardrobe.v1.TopLogprob;
import dev.wardrobe.v1.Usage;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * One request on its way: prepared by a worker, waiting for its adapter, then in the engine's
 * hands. Its owner may cancel it or say that its reader is ready again, from any thread, at any
 * time.
 */
public final class Turn {
  private final Conversation conversation;
  private final GenerateRequest request;
  private final AnswerListener listener;
  private final long deadline;
  private final long arrival = System.nanoTime();

  /** Fires at the deadline while the request is not in the engine, which looks by itself. */
  private final CompletableFuture<@Nullable Void> alarm = new CompletableFuture<>();

  // Guarded by this.
  private boolean preparing = true;
  private @Nullable CompletableFuture<Lease> leasing;
  private @Nullable Ticket ticket;

  Turn(Conversation conversation, GenerateRequest request, AnswerListener listener, long deadline) {
    this.conversation = conversation;
    this.request = request;
    this.listener = listener;
    this.deadline = deadline;
  }

  /** Ends the request; its listener hears of it. Without effect on one that has ended. */
  public void cancel() {
    if (abandon()) {
      listener.failed(
          new RequestException(RequestException.Code.CANCELLED, "the request was cancelled"));
      return;
    }
    Ticket running = ticket();
    if (running != null) {
      running.cancel();
    }
  }

  /** Says that the listener is ready again. */
  public void resume() {
    Ticket running = ticket();
    if (running != null) {
      running.resume();
    }
  }

  private synchronized @Nullable Ticket ticket() {
    return ticket;
  }

  /** Takes the request out of preparation; true for the one who did. */
  private synchronized boolean abandon() {
    boolean mine = preparing;
    preparing = false;
    if (mine) {
      alarm.cancel(false);
      if (leasing != null) {
        // It closes the lease should it come nevertheless.
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
            request.getAdapter().isEmpty()
                ? "the deadline passed before the request was prepared"
                : "the deadline passed while adapter '%s' was made ready"
                    .formatted(request.getAdapter())));
  }

  private void fail(Throwable failure) {
    if (abandon()) {
      listener.failed(RequestException.of(failure));
    }
  }

  private void prepare() {
    try {
      Plan plan = conversation.plan(request);
      if (plan.adapter().isEmpty()) {
        submit(plan, null, 0);
        return;
      }
      long asked = System.nanoTime();
      CompletableFuture<Lease> future = conversation.lease(plan.adapter());
      synchronized (this) {
        leasing = future;
        if (!preparing) {
          future.cancel(false);
        }
      }
      boolean known = future.isDone();
      CompletableFuture<?> _ =
          future.whenComplete(
              (lease, failure) -> {
                if (lease != null) {
                  submit(plan, lease, known ? 0 : System.nanoTime() - asked);
                } else if (failure != null) {
                  fail(failure);
                }
              });
    } catch (Throwable e) {
      fail(e);
    }
  }

  /**
   * Hands the request to the engine, unless it ended meanwhile; then the lease goes back.
   *
   * @param readNanos how long it waited for the adapter to be read for the first time
   */
  private void submit(Plan plan, @Nullable Lease lease, long readNanos) {
    Throwable failure = null;
    boolean submitted = false;
    synchronized (this) {
      if (preparing) {
        try {
          Answer answer = new Answer(plan, lease, readNanos);
          ticket = conversation.submit(answer.task(), answer);
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
    if (lease != null) {
      lease.close();
    }
    if (failure != null) {
      fail(failure);
    }
  }

  /** The answer as it grows: from tokens to text and events. Belongs to the engine's thread. */
  private final class Answer implements TokenListener {
    private final Plan plan;
    private final @Nullable Lease lease;
    private final String adapter;
    private final String digest;
    private final long readNanos;
    private final long submitted = System.nanoTime();
    private final @Nullable TokenStream stream;
    private final StopText stops;
    private final GenerateEvent.Started.Builder started = GenerateEvent.Started.newBuilder();
    private boolean begun;
    private int scored;
    private int generated;

    Answer(Plan plan, @Nullable Lease lease, long readNanos) {
      this.plan = plan;
      this.lease = lease;
      adapter = lease == null ? "" : lease.name();
      digest = lease == null ? "" : lease.digest();
      this.readNanos = readNanos;
      stream = conversation.stream();
      stops = new StopText(plan.stops());
      started
          .setId(plan.id())
          .setAdapter(adapter)
          .setAdapterDigest(digest)
          .setPromptTokens(plan.prompt().length);
      if (plan.echo()) {
        // Nothing predicts the first token.
        started.addPromptLogprobs(TokenLogprob.newBuilder().setTokenId(plan.prompt()[scored++]));
      }
    }

    GenerationTask task() {
      return new GenerationTask(
          plan.id(),
          plan.prompt(),
          lease == null ? List.of() : List.of(new AdapterPart(lease)),
          plan.sampling(),
          plan.maxTokens(),
          plan.eos(),
          plan.stopTokens(),
          plan.top(),
          plan.echo(),
          deadline);
    }

    @Override
    public boolean ready() {
      return listener.ready();
    }

    @Override
    public void admitted() {
      if (!plan.echo()) {
        begin();
      }
    }

    private void begin() {
      if (!begun) {
        begun = true;
        listener.started(started.build());
        started.clear();
      }
    }

    @Override
    public void promptScored(List<Draw.Outcome> scores) {
      for (Draw.Outcome outcome : scores) {
        started.addPromptLogprobs(logprob(outcome));
      }
      scored += scores.size();
    }

    @Override
    public boolean token(Draw.Outcome outcome, boolean last) {
      begin();
      generated++;
      GenerateEvent.Delta.Builder delta = GenerateEvent.Delta.newBuilder();
      delta.addTokenIds(outcome.token());
      if (plan.logprobs()) {
        delta.addLogprobs(logprob(outcome));
      }
      if (stream != null) {
        delta.setText(last ? rest(stream) : stops.add(stream.next(outcome.token()), mayEnd()));
      }
      listener.delta(delta.build());
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
      EngineException failure = finish.failure();
      if (failure != null) {
        listener.failed(RequestException.of(failure));
        return;
      }
      begin();
      if (stream != null && !stops.found()) {
        String rest = rest(stream);
        if (!rest.isEmpty()) {
          listener.delta(GenerateEvent.Delta.newBuilder().setText(rest).build());
        }
      }
      listener.finished(
          GenerateEvent.Finished.newBuilder()
              .setFinishReason(reason(finish.reason()))
              .setUsage(usage(finish))
              .build());
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
      double before = millis(submitted - arrival);
      return Usage.newBuilder()
          .setPromptTokens(finish.promptTokens())
          .setCachedTokens(finish.cachedTokens())
          .setGeneratedTokens(finish.generatedTokens())
          .setQueueMs(millis(finish.queueNanos()))
          .setSwapInMs(millis(readNanos + finish.swapInNanos()))
          .setFirstTokenMs(
              finish.generatedTokens() == 0 ? 0 : before + millis(finish.firstTokenNanos()))
          .setTotalMs(before + millis(finish.totalNanos()))
          .setSeed(plan.sampling().seed())
          .setSteps(finish.steps())
          .setMaxStepSequences(finish.maxStepSequences())
          .setMaxStepAdapters(finish.maxStepAdapters())
          .setMath(conversation.math())
          .build();
    }

    private TokenLogprob logprob(Draw.Outcome outcome) {
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

  private static double millis(long nanos) {
    return nanos / 1e6;
  }
}
