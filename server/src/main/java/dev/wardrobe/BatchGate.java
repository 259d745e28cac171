package dev.wardrobe;

import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.serve.AnswerListener;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.serve.Turn;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Where a batch's requests set out from. The first ones wait until all of them are in the engine's
 * queue, so that what shares a step does not depend on who was read or tokenized faster.
 */
final class BatchGate {
  private final Conversation conversation;
  private final List<Turn> turns = new ArrayList<>();
  private final List<CompletableFuture<?>> queued = new ArrayList<>();
  private volatile boolean open;

  BatchGate(Conversation conversation) {
    this.conversation = conversation;
  }

  /** Starts a request; while the gate is closed, it takes no tokens. */
  CompletableFuture<GenerateResponse> start(GenerateRequest request) {
    Waiting answer = new Waiting(request);
    Turn turn = conversation.start(request, answer);
    if (!open) {
      turns.add(turn);
      queued.add(answer.queued);
    }
    return answer.collector.result();
  }

  /** Waits until each request is queued or refused, then lets them run, and later ones at once. */
  void open() {
    if (!open) {
      queued.forEach(CompletableFuture::join);
      open = true;
      turns.forEach(Turn::resume);
      queued.clear();
      turns.clear();
    }
  }

  private final class Waiting implements AnswerListener {
    final AnswerCollector collector;
    final CompletableFuture<Boolean> queued = new CompletableFuture<>();

    Waiting(GenerateRequest request) {
      collector = new AnswerCollector(request);
    }

    @Override
    public boolean ready() {
      return open;
    }

    @Override
    public void queued() {
      queued.complete(true);
    }

    @Override
    public void started(GenerateEvent.Started started) {
      collector.started(started);
    }

    @Override
    public void delta(GenerateEvent.Delta delta) {
      collector.delta(delta);
    }

    @Override
    public void finished(GenerateEvent.Finished finished) {
      collector.finished(finished);
      queued.complete(true);
    }

    @Override
    public void failed(RequestException failure) {
      collector.failed(failure);
      queued.complete(false);
    }
  }
}
