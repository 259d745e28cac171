package dev.wardrobe.grpc;

import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.StepRecord;
import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.serve.AnswerListener;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.serve.Embedding;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.serve.Served;
import dev.wardrobe.serve.Turn;
import dev.wardrobe.tenant.OpenCalls;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.DetokenizeResponse;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationProto;
import dev.wardrobe.v1.ListStepsRequest;
import dev.wardrobe.v1.ListStepsResponse;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import io.vertx.grpc.common.GrpcStatus;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** {@code wardrobe.v1.GenerationService} over a {@link Conversation}. */
final class GenerationCalls {
  private final Conversation conversation;
  private final Served served;
  private final OpenCalls open;

  /**
   * @param open where calls are noted while they last
   */
  GenerationCalls(Served served, OpenCalls open) {
    this.open = open;
    this.conversation = served.conversation();
    this.served = served;
  }

  Methods service() {
    return new Methods(GenerationProto.getDescriptor().findServiceByName("GenerationService"), open)
        .with("Generate", GenerateRequest.getDefaultInstance(), this::generate)
        .with("GenerateStream", GenerateRequest.getDefaultInstance(), this::stream)
        .with("Chat", GenerateRequest.getDefaultInstance(), this::chat)
        .with("Embed", EmbedRequest.getDefaultInstance(), this::embed)
        .with("Tokenize", TokenizeRequest.getDefaultInstance(), this::tokenize)
        .with("Detokenize", DetokenizeRequest.getDefaultInstance(), this::detokenize)
        .with("ModelInfo", ModelInfoRequest.getDefaultInstance(), this::modelInfo)
        .with("ListSteps", ListStepsRequest.getDefaultInstance(), this::listSteps);
  }

  private void generate(
      GenerateRequest request, long timeoutMillis, Reply<GenerateResponse> reply) {
    AnswerCollector collector = new AnswerCollector(request);
    Turn turn =
        conversation.start(
            reply.caller(), reply.origin(), request, deadline(timeoutMillis), collector);
    reply.onGone(turn::cancel);
    var _ =
        collector
            .result()
            .whenComplete(
                (response, failure) -> {
                  if (failure != null) {
                    reply.fail(failure);
                  } else if (response.getFinishReason() == FinishReason.FINISH_REASON_DEADLINE) {
                    reply.fail(
                        GrpcStatus.DEADLINE_EXCEEDED,
                        late(response.getUsage().getGeneratedTokens()));
                  } else {
                    reply.end(response);
                  }
                });
  }

  private void chat(GenerateRequest request, long timeoutMillis, Reply<GenerateEvent> reply) {
    if (request.getMessagesCount() == 0) {
      reply.fail(
          new RequestException(
              RequestException.Code.INVALID_ARGUMENT,
              "messages: expected at least one, got none; for a prompt or token_ids call"
                  + " GenerateStream"));
      return;
    }
    stream(request, timeoutMillis, reply);
  }

  private void stream(GenerateRequest request, long timeoutMillis, Reply<GenerateEvent> reply) {
    if (request.getBestOf() > Math.max(1, request.getN())) {
      reply.fail(
          new RequestException(
              RequestException.Code.INVALID_ARGUMENT,
              "best_of: the best of %d are known only when all have ended; call Generate"
                  .formatted(request.getBestOf())));
      return;
    }
    Streamed answers = new Streamed(reply, request.hasN() ? request.getN() : 1);
    Turn turn =
        conversation.start(
            reply.caller(), reply.origin(), request, deadline(timeoutMillis), answers);
    reply.onReady(turn::resume);
    reply.onGone(turn::cancel);
  }

  /** Answers on their way to a reader. */
  private static final class Streamed implements AnswerListener {
    private final Reply<GenerateEvent> reply;
    private int left;
    private int tokens;
    private boolean late;

    /**
     * @param answers how many there will be
     */
    Streamed(Reply<GenerateEvent> reply, int answers) {
      this.reply = reply;
      left = answers;
    }

    @Override
    public boolean ready() {
      return reply.ready();
    }

    @Override
    public void started(GenerateEvent.Started started) {
      reply.send(GenerateEvent.newBuilder().setStarted(started).build());
    }

    @Override
    public void delta(GenerateEvent.Delta delta) {
      tokens += delta.getTokenIdsCount();
      reply.send(GenerateEvent.newBuilder().setDelta(delta).build());
    }

    @Override
    public void finished(GenerateEvent.Finished finished) {
      GenerateEvent event = GenerateEvent.newBuilder().setFinished(finished).build();
      late |= finished.getFinishReason() == FinishReason.FINISH_REASON_DEADLINE;
      left--;
      if (left == 0 && !late) {
        reply.end(event);
        return;
      }
      reply.send(event);
      if (left == 0) {
        reply.fail(GrpcStatus.DEADLINE_EXCEEDED, late(tokens));
      }
    }

    @Override
    public void failed(RequestException failure) {
      reply.fail(failure);
    }
  }

  private static String late(int tokens) {
    return "the deadline passed after %d generated tokens; ask for fewer or wait longer"
        .formatted(tokens);
  }

  private static long deadline(long timeoutMillis) {
    return timeoutMillis <= 0
        ? GenerationTask.NO_DEADLINE
        : System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeoutMillis);
  }

  private void embed(EmbedRequest request, long timeoutMillis, Reply<EmbedResponse> reply) {
    Embedding embedding =
        conversation.embed(reply.caller(), reply.origin(), request, deadline(timeoutMillis));
    reply.onGone(embedding::cancel);
    var _ =
        embedding
            .result()
            .whenComplete(
                (response, failure) -> {
                  if (failure != null) {
                    reply.fail(failure);
                  } else {
                    reply.end(response);
                  }
                });
  }

  private void tokenize(TokenizeRequest request, long timeout, Reply<TokenizeResponse> reply) {
    work(reply, () -> conversation.tokenize(request));
  }

  private void detokenize(
      DetokenizeRequest request, long timeout, Reply<DetokenizeResponse> reply) {
    work(reply, () -> conversation.detokenize(request));
  }

  private void modelInfo(ModelInfoRequest request, long timeout, Reply<ModelInfoResponse> reply) {
    reply.end(served.info().get());
  }

  private void listSteps(ListStepsRequest request, long timeout, Reply<ListStepsResponse> reply) {
    ListStepsResponse.Builder response = ListStepsResponse.newBuilder();
    for (StepRecord step : served.engine().recentSteps(request.getAfter())) {
      response.addSteps(
          dev.wardrobe.v1.StepRecord.newBuilder()
              .setNumber(step.number())
              .setSequences(step.sequences())
              .setAdapters(step.adapters())
              .setPrefillTokens(step.prefillTokens())
              .setDecodeTokens(step.decodeTokens())
              .setDurationUs(TimeUnit.NANOSECONDS.toMicros(step.durationNanos()))
              .setGapUs(TimeUnit.NANOSECONDS.toMicros(step.gapNanos())));
    }
    reply.end(response.build());
  }

  private <R> void work(Reply<R> reply, Callable<R> answer) {
    served
        .workers()
        .execute(
            () -> {
              try {
                reply.end(answer.call());
              } catch (Throwable e) {
                reply.fail(e);
              }
            });
  }
}
